"""Names, colours and sizes that every table and figure shares. Plain data: importing it loads no plotting library."""

from collections.abc import Iterable
from typing import Any

from oneshui.errors import ConfigError
from oneshui.methods import METHODS

#: how methods, datasets and measures are written in print; other names are printed as they are
METHOD_NAMES = {
    "pretrain": "Pretrain",
    "retrain": "Retrain",
    "ceiling": "Ceiling (retrained again)",
    **{name: kind.label for name, kind in METHODS.items()},
}
DATASET_NAMES = {"celeba": "CelebA", "celebahq": "CelebA-HQ", "mufac": "MUFAC"}
MEASURE_NAMES = {"map": "mAP", "accuracy": "accuracy"}

#: Okabe and Ito's palette, which colour-blind readers can tell apart; its yellow is too pale for lines
COLOURS = {
    "pretrain": "#999999",
    "retrain": "#000000",
    "ceiling": "#777777",
    **{name: kind.colour for name, kind in METHODS.items()},
}
#: for methods without a colour of their own: Paul Tol's muted palette, without what resembles the above
_SPARE_COLOURS = ("#882255", "#332288", "#999933", "#44AA99", "#DDCC77", "#661100", "#AA4499", "#117733")

#: for lines that stand for a run and not for a method
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", *_SPARE_COLOURS)

#: inches; one column and the full width of a two-column page
SINGLE_COLUMN = 3.4
DOUBLE_COLUMN = 7.0

#: matplotlib settings, used inside ``rc_context`` only (its type for the keys lists them all, hence Any)
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures look the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text: it can be searched and edited
}


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """Return a colour for each method: its own, or for a method that has none a spare one, in alphabetical order.

    Raises:
        ConfigError: there are more methods without a colour of their own than spare colours.
    """
    names = list(dict.fromkeys(methods))
    others = sorted(name for name in names if name not in COLOURS)
    if len(others) > len(_SPARE_COLOURS):
        raise ConfigError(
            f"a figure has {len(others)} methods without a colour of their own ({', '.join(others)}), allowed: "
            f"{len(_SPARE_COLOURS)}. Split the figure, or add colours to oneshui.report.style."
        )
    spare = dict(zip(others, _SPARE_COLOURS, strict=False))
    return {name: COLOURS.get(name) or spare[name] for name in names}


def method_name(method: str) -> str:
    """Return the name of a method in print."""
    return METHOD_NAMES.get(method, method)


def block_name(dataset: str, n: int) -> str:
    """Return the name in print of the runs on a dataset with ``n`` identities to forget."""
    return f"{DATASET_NAMES.get(dataset, dataset)}, {n} {'identity' if n == 1 else 'identities'}"
