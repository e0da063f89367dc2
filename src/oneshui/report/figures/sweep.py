"""How ToW, the linear probe and KL move along one axis: people who ask, what is kept of a person, the gap, methods."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.report.figures import several
from oneshui.report.style import DASHES, DOUBLE_COLUMN, RC, colours_of, figure_name, legend_columns, setting_name
from oneshui.report.tables import in_blocks, read_csv

#: columns of the CSV of a table without ``_mean`` -> title of their panel
_PANELS = {
    "tow": "ToW (%)",
    "refit_forget": "Linear probe on forget images (%)",
    "kl_to_retrained": "KL to the retrained model (nats)",
}
#: figures of one setting, where trained models are lines
_LEVEL = ("kept", "compared")
_AXES = {
    "people": "people who ask",
    "kept": "numbers kept of a person",
    "gap": "forget images: original minus retrained model (points)",
    "compared": "",
}


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw the CSV of a table."""
    return sweep(in_blocks(read_csv(inputs[0]), spec.get("blocks")), str(spec["kind"]), spec.get("kinds"))


def sweep(table: pd.DataFrame, along: str, kinds: Mapping[str, str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of a result table, and the points in it.

    Means over seeds with the standard deviation. Grey lines are the trained models: in figures along ``people`` and
    ``gap`` they have points as methods have; in the others, which show one setting, they are level.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned, or its CSV read back.
        along: what the axis shows. ``people``: n, a line a method; ``gap``: how much better the original model is on
            forget images than the retrained one, a line a method; ``kept``: numbers kept of a person; ``compared``:
            methods one below the other.
        kinds: of the methods, for their colours.

    Returns:
        The figure, and the points: dataset, n, method, x (NaN for level lines), quantity, value, std.

    Raises:
        DataError: the table has no such numbers, or several settings or datasets where one is shown.
        ConfigError: there are more methods than colours.
    """
    panels = [name for name in _PANELS if name == "tow" or table[f"{name}_mean"].notna().any()]
    level = along in _LEVEL
    settings = list(dict.fromkeys(zip(table["dataset"], table["n"], strict=True)))
    problem = several(along, [{"dataset": dataset, "n": n} for dataset, n in settings])
    if problem:
        raise DataError(problem)
    placed = table.assign(x=_places(table, along))
    parts = [
        placed[["dataset", "n", "method", "x"]].assign(
            quantity=name, value=placed[f"{name}_mean"], std=placed[f"{name}_std"]
        )
        for name in panels
    ]
    points = pd.concat(parts, ignore_index=True).dropna(subset="value")
    methods = list(dict.fromkeys(points["method"]))
    names = {str(m): figure_name(str(m), str(label)) for m, label in zip(table["method"], table["label"], strict=True)}
    colours = colours_of(methods, kinds)
    with rc_context(RC):
        listed = along == "compared"
        figure = Figure(figsize=(DOUBLE_COLUMN, 1.3 + 0.2 * len(methods) if listed else 2.6), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=listed)[0]
        row[len(panels) // 2].set_xlabel(_AXES[along])
        for axes, name in zip(row, panels, strict=True):
            own = points[points["quantity"] == name]
            for method in methods:
                _draw(axes, own[own["method"] == method].sort_values("x"), str(method), colours[method], along)
            title = _PANELS[name]
            axes.set_title(textwrap.fill(title, 20) if listed else title, loc="left")
            _ticks(axes, placed, along, names)
        if level:
            figure.suptitle(setting_name(str(settings[0][0]), int(settings[0][1])), x=0.01, ha="left", fontsize=8)
        shown = [m for m in methods if m in TRAINED or not listed]
        handles = [_handle(str(method), colours[method], names[method]) for method in shown]
        columns = legend_columns([names[m] for m in shown], 6)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.2)
    return figure, points


def _places(table: pd.DataFrame, along: str) -> "pd.Series[float]":
    """Return where each row stands on the axis; NaN for a trained model that is level."""
    if along == "people":
        return table["n"].astype(float)
    if along == "gap":
        forget = table.pivot(index=["dataset", "n"], columns="method", values="forget_mean")
        gaps = (forget["pretrain"] - forget["retrain"]).rename("gap")
        return table[["dataset", "n"]].join(gaps, on=["dataset", "n"])["gap"]
    if along == "kept":
        kept = table["artefact_floats_per_person"].astype(float)
        if kept.isna().all():
            raise DataError(
                "no method of this table says how much it keeps of a person. Choose another kind of figure."
            )
        return kept
    methods = [name for name in table["method"] if name not in TRAINED]
    return table["method"].map({name: float(i) for i, name in enumerate(methods)})


def _draw(axes: Axes, own: pd.DataFrame, method: str, colour: str, along: str) -> None:
    dash, listed = DASHES.get(method, "-"), along == "compared"
    if along in _LEVEL and method in TRAINED:
        for value in own["value"]:
            (axes.axvline if listed else axes.axhline)(value, color=colour, lw=1.0, ls=dash, zorder=0)
        return
    own = own.dropna(subset="x")
    x, value, std = own["x"], own["value"], np.nan_to_num(own["std"].to_numpy(dtype=float))
    look = {"color": colour, "ls": dash, "marker": "o", "ms": 3.5, "elinewidth": 0.8, "capsize": 1.5}
    if listed:
        axes.errorbar(value, x, xerr=std, **look)
    else:
        axes.errorbar(x, value, yerr=std, **look)


def _ticks(axes: Axes, placed: pd.DataFrame, along: str, names: Mapping[str, str]) -> None:
    axes.grid(axis="x" if along == "compared" else "y")
    if along == "people":
        people_axis(axes, placed)
    if along == "kept":
        axes.set_xscale("log")
    if along == "compared":
        shown = [str(name) for name in placed["method"] if name not in TRAINED]
        axes.set_yticks(range(len(shown)), [names[name] for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)  # the first method on top


def people_axis(axes: Axes, table: pd.DataFrame) -> None:
    """Make the horizontal axis one of the numbers of people who ask, in a table."""
    people = sorted(table["n"].unique())
    axes.set_xscale("log")
    axes.set_xticks(people, [str(n) for n in people])
    axes.minorticks_off()


def _handle(method: str, colour: str, name: str) -> Line2D:
    marker = "" if method in TRAINED else "o"
    return Line2D([], [], color=colour, ls=DASHES.get(method, "-"), marker=marker, ms=3.5, label=name)
