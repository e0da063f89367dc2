"""Figures, one file each. A figure is drawn once: the same functions make PDFs and what the page shows.

A new figure is a module here with a function ``from_files``, and a line in ``KINDS``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneshui.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kind:
    """What draws a kind of figure, and from which files.

    Attributes:
        module: in this package. Named, not imported: this list is read where matplotlib is not needed.
        needs: its inputs, in this order: table (the CSV), metrics, models, attacks or identities.
        shows: what it shows, for config/README.md.
        by_colour: methods have colours, of which there are only so many.
        one: of what it shows only one: ``setting`` or ``dataset``; empty: of nothing.
    """

    module: str
    needs: tuple[str, ...]
    shows: str
    by_colour: bool = False
    one: str = ""


#: by name in the config
KINDS = {
    "table_bars": Kind("bars", ("table", "metrics"), "the measure on each set of images, and ToW", True),
    "training_curves": Kind("training", ("models",), "loss and measure by epoch"),
    "roc": Kind("roc", ("attacks",), "ROC curves of the attack, of a table with `privacy: true`", True),
    "hardness": Kind("identities", ("table", "identities"), "the paper's figure 4"),
    "harm": Kind("identities", ("table", "identities"), "the paper's figure 5"),
    "people": Kind(
        "sweep", ("table",), "ToW, linear probe and KL of one dataset, by the number of people who ask", True, "dataset"
    ),
    "kept": Kind("sweep", ("table",), "the same of one setting, by what methods keep of a person", True, "setting"),
    "gap": Kind(
        "sweep", ("table",), "the same by what the original model knows of forget images beyond the retrained", True
    ),
    "compared": Kind("sweep", ("table",), "the same of one setting, methods one below the other", True, "setting"),
    "in_turn": Kind(
        "in_turn",
        ("table",),
        "of one dataset, a row a method: people who ask together beside those who ask in turn (methods that are `of` "
        "another)",
        one="dataset",
    ),
}


def several(kind: str, settings: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with the settings of a figure that shows one thing only, or nothing.

    Args:
        kind: one of ``KINDS``.
        settings: that it would be drawn of: ``dataset`` and ``n``.
    """
    one = KINDS[kind].one
    keys = {"setting": ("dataset", "n"), "dataset": ("dataset",)}.get(one, ())
    many = len({tuple(each[key] for key in keys) for each in settings})
    return f"a figure of kind {kind} shows one {one}; the table has {many}. Name one in blocks." if many > 1 else ""


def draw(
    inputs: Sequence[str | Path], *, name: str, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> "tuple[Figure, pd.DataFrame]":
    """Return the figure that ``spec`` asks for, and the plotted points.

    Args:
        inputs: what the kind needs.
        name: name of the figure in the config, for error messages.
        spec: ``kind``, one of ``KINDS``; if it has them, ``blocks``, the settings of the table that are drawn, and
            ``labels`` and ``kinds`` of methods, as ``oneshui.report.tables.make_table`` takes them.
        rows: models of the figure's table, in order.
        seeds: of the table.

    Raises:
        ConfigError: the kind needs inputs, and there are none.
        DataError: an input is damaged.
        CheckpointError: a model has no training history.
    """
    kind = str(spec["kind"])
    if not inputs:
        raise ConfigError(f"figure {name!r}: {kind} needs {' and '.join(KINDS[kind].needs)}, but has no input")
    module = import_module(f"{__name__}.{KINDS[kind].module}")
    found: tuple[Figure, pd.DataFrame] = module.from_files(inputs, spec=spec, rows=rows, seeds=seeds)
    return found
