"""Names, colours and sizes that every table and figure shares. Plain data: importing it loads no plotting library."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from oneshui.config import TRAINED
from oneshui.errors import ConfigError
from oneshui.methods import METHODS

#: how methods, datasets and measures are written in print; other names are printed as they are
METHOD_NAMES = {
    "pretrain": "Pretrain",
    "retrain": "Retrain",
    "ceiling": "Ceiling (retrained again)",
    **{name: kind.label for name, kind in METHODS.items()},
}
#: how readers see the trained models. Their names and labels in CSV files are a data format and stay as they are.
MODEL_NAMES = {
    "pretrain": "Original model",
    "retrain": "Retrained model",
    "ceiling": "Second retrained model",
}
#: what a table says beside a trained model's name
MODEL_MARKS = {"pretrain": "no unlearning", "ceiling": "noise floor"}
DATASET_NAMES = {"celeba": "CelebA", "celebahq": "CelebA-HQ", "mufac": "MUFAC"}
MEASURE_NAMES = {"map": "mAP", "accuracy": "accuracy"}

#: Okabe and Ito's palette, which colour-blind readers can tell apart; its yellow is too pale for lines
COLOURS = {
    "pretrain": "#999999",
    "retrain": "#000000",
    "ceiling": "#777777",
    **{name: kind.colour for name, kind in METHODS.items()},
}
#: for methods without a colour of their own: Paul Tol's muted palette, without what resembles the above on paper (a
#: legible yellow is olive), and two of his other colours
_MUTED = ("#882255", "#332288", "#BB5566", "#44AA99", "#225555", "#661100", "#AA4499", "#117733")
_SPARE_COLOURS = tuple(colour for colour in _MUTED if colour not in COLOURS.values())  # a kind may have taken one

#: dashes of the trained models' lines
DASHES: dict[str, Any] = {"pretrain": (0, (4, 3)), "ceiling": (0, (1, 2)), "retrain": "-"}

#: for lines that stand for a run and not for a method
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", *_MUTED)

#: background and ink of page.css and of figures in it
PAPERS = {"light": "#ffffff", "dark": "#14171b"}
INKS = {"light": "#1a1d21", "dark": "#e8eaed"}
#: contrast that a line or dot needs before its paper (WCAG 2.2, 1.4.11)
_CONTRAST = 3.0

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


def colours_of(
    methods: Iterable[str], kinds: Mapping[str, str] | None = None, *, repeat: bool = False
) -> dict[str, str]:
    """Return a colour for each method that stands out from white paper.

    The first method of a kind has the kind's colour. The others get spare ones, in alphabetical order.

    Args:
        methods: of a figure, in its order.
        kinds: of methods; one that is left out has the kind that it is called.
        repeat: a spare colour may come again, because names or shapes stand beside the colours.

    Raises:
        ConfigError: there are more methods without a colour of their own than spare colours, and none may come again.
    """
    names = list(dict.fromkeys(methods))
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(kind_of(name, kinds), name)
    own = {name: COLOURS[kind] for kind, name in first.items() if kind in COLOURS}
    others = sorted(name for name in names if name not in own)
    if len(others) > len(_SPARE_COLOURS) and not repeat:
        raise ConfigError(
            f"a figure has {len(others)} methods without a colour of their own ({', '.join(others)}), allowed: "
            f"{len(_SPARE_COLOURS)}. Split the figure, or add colours to oneshui.report.style."
        )
    spare = dict(zip(others, cycle(_SPARE_COLOURS), strict=False))
    return {name: legible(own.get(name) or spare[name], "light") for name in names}


def legible(colour: str, theme: str) -> str:
    """Return ``colour``, mixed with black or white until it stands out from the paper of ``theme`` (light or dark)."""
    paper, end = _luminance(_rgb(PAPERS[theme])), 0.0 if theme == "light" else 255.0
    for share in range(41):
        mixed = [round(part + (end - part) * share / 40) for part in _rgb(colour)]
        low, high = sorted((_luminance(mixed), paper))
        if (high + 0.05) / (low + 0.05) >= _CONTRAST:
            break
    return _hex(mixed)


def dark(colour: str) -> str:
    """Return what a colour on white paper becomes on dark paper: greys from paper to ink, colours legible."""
    red, green, blue = _rgb(colour)
    if max(red, green, blue) - min(red, green, blue) > 24:
        return legible(colour, "dark")
    lightness = min(1.0, (red + green + blue) / 3 / 255)
    paper, ink = _rgb(PAPERS["dark"]), _rgb(INKS["dark"])
    return _hex([round(a + (b - a) * (1 - lightness)) for a, b in zip(paper, ink, strict=True)])


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _hex(parts: Iterable[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in parts)


def _luminance(rgb: Iterable[int]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = [part / 255 for part in rgb]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def kind_of(method: str, kinds: Mapping[str, str] | None) -> str:
    """Return the kind of a method. One that ``kinds`` leaves out, as trained models are, has the kind it is called."""
    return (kinds or {}).get(method, method)


def method_labels(
    methods: Iterable[str], labels: Mapping[str, str] | None = None, kinds: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what a table calls its methods in its column ``label``.

    That is a method's own label; else the usual name of its kind, if no other method without a label has that kind;
    else what the configuration calls it.

    Args:
        methods: of the table, trained models included.
        labels: those that methods have of their own.
        kinds: of methods; one that is left out has the kind that it is called.
    """
    names, own = list(methods), labels or {}
    counts = Counter(kind_of(name, kinds) for name in names if not own.get(name))
    usual = {name: METHOD_NAMES.get(kind_of(name, kinds), name) for name in names}
    return {name: own.get(name) or (usual[name] if counts[kind_of(name, kinds)] == 1 else name) for name in names}


def method_name(method: str) -> str:
    """Return the usual name of a method."""
    return METHOD_NAMES.get(method, method)


def display_name(method: str, label: str | None = None) -> str:
    """Return what readers see: a name for a trained model, ``label`` or the usual name for a method."""
    return MODEL_NAMES[method] if method in TRAINED else label or method_name(method)


def figure_name(method: str, label: str | None = None) -> str:
    """Return ``display_name`` as matplotlib draws it: one short line without formulas."""
    name = " ".join(display_name(method, label).split())
    return (name if len(name) <= 30 else f"{name[:29]}\N{HORIZONTAL ELLIPSIS}").replace("$", r"\$")


def setting_name(dataset: str, n: int) -> str:
    """Return the name in print of a setting: a dataset and the number of identities to forget."""
    return f"{DATASET_NAMES.get(dataset, dataset)}, {n} {'identity' if n == 1 else 'identities'}"


def legend_columns(labels: Sequence[str], gap: int) -> int:
    """Return how many legend columns fit a double column, where a handle takes the room of ``gap`` letters."""
    room = 105
    if sum(len(label) + gap for label in labels) <= room:
        return len(labels)
    return max(1, room // (max(len(label) for label in labels) + gap))
