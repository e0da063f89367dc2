"""The one picture of a setting: the ToW of each method, as a difference to the original model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from oneshui.config import TRAINED
from oneshui.report.columns import GAIN, MISSING, difference
from oneshui.report.style import RC, colours_of, figure_name
from oneshui.report.verdict import side_of

#: inches: as wide as a phone shows it without shrinking it
_WIDTH, _LINE = 3.8, 0.27


def tow_gains(rows: pd.DataFrame, decimals: int, kinds: Mapping[str, str] | None = None) -> tuple[Figure, str] | None:
    """Return a figure of a setting and what it shows in words; None where no method has a ToW.

    A dot is the mean over seeds, a bar its 95% interval, cut at the ends of the axis. A full dot: the interval leaves
    out 0. The solid line is the original model, the dashed one the second retrained model. Methods that use the
    training data stand below the others.

    Args:
        rows: of one setting, columns ``oneshui.report.columns.NAMES``.
        decimals: of the table.
        kinds: of the methods, for their colours.
    """
    records = [row for row in rows.to_dict("records") if row["method"] not in TRAINED]
    if not any(math.isfinite(row[f"{GAIN}_mean"]) for row in records):
        return None
    groups = [[row for row in records if bool(row["access_to_data"]) == with_data] for with_data in (False, True)]
    floor = rows.loc[rows["method"] == "ceiling", f"{GAIN}_mean"]
    reference = float(floor.iloc[0]) if len(floor) else math.nan
    colours = colours_of((str(row["method"]) for row in records), kinds, repeat=True)
    with rc_context({**RC, "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9}):
        lines = len(records) + bool(groups[1])
        figure = Figure(figsize=(_WIDTH, _LINE * lines + 0.8), layout="constrained")
        axes = figure.subplots()
        low, high = _limits(records, reference)
        axes.set_xlim(low, high)
        axes.axvline(0, color="#333333", lw=1.0, zorder=1)
        if math.isfinite(reference):
            axes.axvline(reference, color="#333333", lw=1.0, ls=(0, (4, 3)), zorder=1)
        places, names = [], []
        place = 0
        for with_data, group in enumerate(groups):
            if with_data and group:
                axes.text(
                    low,
                    place,
                    "use the training data (not comparable):",
                    va="center",
                    fontsize=8.5,
                    color="#555555",
                    bbox={"fc": "#ffffff", "ec": "none", "pad": 1},
                )
                place += 1
            for row in group:
                _draw(axes, row, place, colours[str(row["method"])], decimals)
                places.append(place)
                names.append(figure_name(str(row["method"]), str(row["label"])))
                place += 1
        axes.set_yticks(places, names)
        axes.set_ylim(place - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
        axes.set_xlabel("ToW, difference to the original model (points)")
        handles = [Line2D([], [], color="#333333", lw=1.0, label="original model")]
        if math.isfinite(reference):
            handles.append(Line2D([], [], color="#333333", lw=1.0, ls=(0, (4, 3)), label="second retrained model"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, columnspacing=1.2)
    return figure, _words(records, reference, decimals)


def _limits(records: Sequence[Mapping[Any, Any]], reference: float) -> tuple[float, float]:
    """Return the ends of the axis: room for all means, and for intervals unless they would hide differences."""
    means = [float(row[f"{GAIN}_mean"]) for row in records if math.isfinite(row[f"{GAIN}_mean"])]
    known = [0.0, *means, *([reference] if math.isfinite(reference) else [])]
    low, high = min(known), max(known)
    room = max(high - low, 20.0)  # points
    ends = [float(row[f"{GAIN}_mean"]) + sign * float(row[f"{GAIN}_ci95"]) for row in records for sign in (-1, 1)]
    ends = [end for end in ends if math.isfinite(end)]
    low = max(min([low, *ends]), low - 0.4 * room)
    high = min(max([high, *ends]), high + 0.4 * room)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _draw(axes: Axes, row: Mapping[Any, Any], place: int, colour: str, decimals: int) -> None:
    mean, half = float(row[f"{GAIN}_mean"]), float(row[f"{GAIN}_ci95"])
    low, high = axes.get_xlim()
    if math.isnan(mean):
        axes.text(0.02 * (high - low), place, MISSING, va="center", color=colour)
        return
    if math.isfinite(half):
        ends = max(mean - half, low), min(mean + half, high)
        axes.plot(ends, (place, place), color=colour, lw=2.2, solid_capstyle="butt", zorder=2)
        for end, cut, marker in ((low, mean - half < low, "<"), (high, mean + half > high, ">")):
            if cut:
                axes.plot(end, place, marker, ms=6, color=colour, mew=0, clip_on=False, zorder=3)
    clear = side_of(mean - half, mean + half, decimals) in (1, -1)
    axes.plot(mean, place, "o", ms=7, mfc=colour if clear else "#ffffff", mec=colour, mew=1.8, zorder=4)


def _words(records: Sequence[Mapping[Any, Any]], reference: float, decimals: int) -> str:
    """Return the figure's numbers in words, for who cannot see it."""
    said = [
        f"{row['label']} {MISSING if math.isnan(row[f'{GAIN}_mean']) else difference(row, GAIN, decimals)}"
        for row in records
    ]
    if math.isfinite(reference):
        said.append(f"second retrained model {reference:+z.{decimals}f}")
    return f"ToW, difference to the original model in points [95% interval]: {'; '.join(said)}"
