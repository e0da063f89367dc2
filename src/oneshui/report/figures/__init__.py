"""Figures, one file each. A figure is drawn once: the same functions make PDFs and what the page shows.

A new figure is a module here with a function ``from_files``, and a line in ``KINDS``.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneshui.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: kind in the config -> module in this package. Named, not imported: this list is read where matplotlib is not needed.
KINDS = {
    "table_bars": "bars",
    "training_curves": "training",
    "roc": "roc",
    "hardness": "identities",
    "harm": "identities",
}


def draw(
    inputs: Sequence[str | Path], *, name: str, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> "tuple[Figure, pd.DataFrame]":
    """Return the figure that ``spec`` asks for, and the plotted points.

    Args:
        inputs: files of the figure; which ones, says ``from_files`` of its module.
        name: name of the figure in the config, for error messages.
        spec: ``kind``, and ``blocks`` for hardness and harm.
        rows: models of the figure's table, in order.
        seeds: of the table.

    Raises:
        ConfigError: the kind is unknown, or does not fit the inputs.
        DataError: an input is damaged.
        CheckpointError: a model has no training history.
    """
    kind = spec.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"figure {name!r}: kind is {kind!r}, allowed: {', '.join(KINDS)}")
    module = import_module(f"{__name__}.{KINDS[kind]}")
    if not inputs and kind != "training_curves":
        raise ConfigError(f"figure {name!r}: {kind} needs the CSV of a table or attacks, but has no input")
    found: tuple[Figure, pd.DataFrame] = module.from_files(inputs, spec=spec, rows=rows, seeds=seeds)
    return found
