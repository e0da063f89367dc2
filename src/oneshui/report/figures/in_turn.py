"""Requests one after another: what methods leave when people ask together, in parts or one by one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.report.figures import several
from oneshui.report.figures.sweep import people_axis
from oneshui.report.style import DASHES, DOUBLE_COLUMN, RC, colours_of, figure_name, legend_columns
from oneshui.report.tables import in_blocks, read_csv

#: columns of the CSV of a table, without ``_mean`` -> title of their panels
_PANELS = {
    "tow": "ToW (%)",
    "forget": "Forget (%)",
    "test": "Test (%)",
    "rmia_auc": "Attack AUC (%)",
    "refit_forget": "Linear probe (%)",
}


class _Look(NamedTuple):
    dash: Any
    marker: str
    size: float


#: by the place of a way of asking: where results are the same, a dot stands in a square in a circle
_LOOKS = (_Look("-", "o", 7.0), _Look((0, (4, 2)), "s", 4.5), _Look((0, (1, 1.5)), ".", 4.0), _Look("-.", "x", 4.0))


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw the CSV of a table."""
    return in_turn(in_blocks(read_csv(inputs[0]), spec.get("blocks")), spec.get("of") or {}, spec.get("kinds"))


def in_turn(
    table: pd.DataFrame, of: Mapping[str, Sequence[Any]], kinds: Mapping[str, str] | None = None
) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of a result table, a row a method, and the points in it.

    Means over seeds with the standard deviation; an attack's AUC is pooled over seeds.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned, or its CSV read back; of one dataset.
        of: of each method that serves people in turn: the method that it is ``of``, and how many at a time.
        kinds: of the methods, for their colours.

    Returns:
        The figure, and the points: dataset, n, method, of, in_turn (people at a time; 0: all of them), quantity, value,
        std. A trained model is of nothing.

    Raises:
        DataError: there are several datasets, or no method.
    """
    problem = several("in_turn", [{"dataset": dataset} for dataset in table["dataset"].unique()])
    if problem:
        raise DataError(problem)
    points = _points(table, of)
    methods = [str(name) for name in points["of"].unique() if name]
    if not methods:
        raise DataError("a figure of kind in_turn shows methods; the table has none. Name another table.")
    panels = [name for name in _PANELS if (points["quantity"] == name).any()]
    ways = sorted(points.loc[points["of"] != "", "in_turn"].unique(), key=lambda each: each or np.inf, reverse=True)
    colours = colours_of([*DASHES, *methods], kinds, repeat=True)
    labels = dict(zip(table["method"], table["label"], strict=True))
    looks = {way: _LOOKS[min(place, len(_LOOKS) - 1)] for place, way in enumerate(ways)}
    with rc_context(RC):
        figure = Figure(figsize=(DOUBLE_COLUMN, 0.7 + 1.05 * len(methods)), layout="constrained")
        grid = figure.subplots(len(methods), len(panels), sharex=True, sharey="col", squeeze=False)
        for line, method in zip(grid, methods, strict=True):
            line[0].set_ylabel(_wrapped(figure_name(method, labels.get(method))))
            for axes, name in zip(line, panels, strict=True):
                own = points[(points["quantity"] == name) & points["of"].isin(["", method])]
                _draw(axes, own, looks, colours[method], colours)
        for axes, name in zip(grid[0], panels, strict=True):
            axes.set_title(_PANELS[name], loc="left")
        people_axis(grid[0, 0], table)
        grid[0, 0].set_xlim(table["n"].min() / 1.3, table["n"].max() * 1.3)
        grid[-1, len(panels) // 2].set_xlabel("people who have asked")
        handles = [_handle(looks[way], _said(int(way))) for way in ways]
        handles += [
            Line2D([], [], color=colours[name], ls=DASHES[name], label=figure_name(name, labels.get(name)))
            for name in DASHES if name in labels
        ]  # fmt: skip
        columns = legend_columns([str(handle.get_label()) for handle in handles], 8)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3.0)
    return figure, points


def _points(table: pd.DataFrame, of: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return what ``in_turn`` does, without what is not there."""
    base = {name: "" if name in TRAINED else str(of.get(name, (name,))[0]) for name in table["method"]}
    parts = {name: int(of[name][1]) if name in of else 0 for name in base}
    placed = table[["dataset", "n", "method"]].assign(
        of=table["method"].map(base), in_turn=table["method"].map(parts)
    )  # fmt: skip
    nothing = pd.Series(np.nan, index=table.index)
    found = [
        placed.assign(
            quantity=name,
            value=table.get(f"{name}_mean", table.get(name, nothing)).astype(float),
            std=table.get(f"{name}_std", nothing).astype(float),
        )
        for name in _PANELS
    ]
    return pd.concat(found, ignore_index=True).dropna(subset="value")


def _draw(
    axes: Axes, points: pd.DataFrame, looks: Mapping[int, _Look], colour: str, colours: Mapping[str, str]
) -> None:
    """Draw one quantity of one method, and of the trained models."""
    axes.grid(axis="y")
    for name, own in points[points["of"] == ""].groupby("method"):
        axes.plot(own["n"], own["value"], color=colours[str(name)], ls=DASHES[str(name)], lw=1.0, zorder=1)
    for way, own in points[points["of"] != ""].groupby("in_turn"):
        look, own = looks[int(str(way))], own.sort_values("n")
        axes.errorbar(
            own["n"], own["value"], yerr=own["std"].fillna(0.0), color=colour, ls=look.dash, marker=look.marker,
            ms=look.size, mfc="none", mew=0.9, elinewidth=0.5, lw=1.0, zorder=2,
        )  # fmt: skip


def _said(way: int) -> str:
    """Return how people ask, in words."""
    return {0: "together", 1: "one by one"}.get(way, f"in parts of {way}")


def _handle(look: _Look, label: str) -> Line2D:
    return Line2D(
        [], [], color="black", ls=look.dash, marker=look.marker, ms=look.size, mfc="none", lw=1.0, label=label
    )


def _wrapped(label: str) -> str:
    """Return a label in lines of about two words, for the side of a low panel."""
    lines: list[str] = []
    for word in label.split():
        if lines and len(lines[-1]) + len(word) < 14:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
