"""Bars of a results table: the measure on each set of images, and ToW beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from oneshui.errors import DataError
from oneshui.metrics.measure import MEASURES
from oneshui.report.style import (
    DOUBLE_COLUMN,
    MEASURE_NAMES,
    RC,
    colours_of,
    figure_name,
    legend_columns,
    setting_name,
)
from oneshui.report.tables import in_blocks, read_csv
from oneshui.runs import Model
from oneshui.schemas import METRICS, read_table

_SPLITS = ("retain", "forget", "test")
_DOT: dict[str, Any] = {"marker": "o", "ms": 2, "mfc": "white", "mec": "#333333", "mew": 0.5, "ls": "none"}
_ERROR_BAR: dict[str, Any] = {"fmt": "none", "ecolor": "#444444", "elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8}
_COLUMNS = ("dataset", "n", "method", "quantity", "seed", "value", "std")


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw the CSV of a table, then the metric files whose single seeds are shown as dots."""
    blocks = spec.get("blocks")
    values = _seed_values(inputs[1:])
    table = in_blocks(read_csv(inputs[0]), blocks)
    return table_bars(table, values if values is None else in_blocks(values, blocks), spec.get("kinds"))


def _seed_values(metrics_paths: Sequence[str | Path]) -> pd.DataFrame | None:
    """Return what single seeds reached, in percent: one row per dataset, n, method and seed, without controls."""
    if not metrics_paths:
        return None
    metrics = pd.concat([read_table(path, METRICS)[0] for path in metrics_paths])
    own = metrics["origin"] == metrics["method"].map(lambda name: Model.in_table(name).origin)
    chosen = metrics[own & metrics["metric"].isin([*MEASURES.values(), "tow"])]
    wide = chosen.assign(quantity=chosen["split"].where(chosen["metric"] != "tow", "tow")).pivot(
        index=["dataset", "n", "method", "seed"], columns="quantity", values="value"
    )
    return (100 * wide.reindex(columns=["retain", "forget", "test", "tow"])).reset_index()


def table_bars(
    table: pd.DataFrame, seed_values: pd.DataFrame | None = None, kinds: Mapping[str, str] | None = None
) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of a result table, and the points in it.

    One row of panels per setting: bars of the measure on retain, forget and test images with the standard deviation
    over seeds; beside them the ToW of each method on an axis of its own, with a line at that of the original model.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned, or its CSV read back.
        seed_values: dots for single seeds; columns dataset, n, method, seed, retain, forget, test, tow, in percent.
        kinds: of the methods, for their colours.

    Returns:
        The figure, and the points: one row per bar or dot, in percent; ``seed`` is missing where ``value`` is a mean.

    Raises:
        DataError: the table has no rows.
        ConfigError: there are more methods than colours.
    """
    if table.empty:
        raise DataError("the table of this figure has no rows. Add blocks to the table in the config.")
    points = _bar_points(table, seed_values)
    settings = table.groupby(["dataset", "n"], sort=False)["measure"].first().reset_index().to_dict("records")
    methods = [str(name) for name in table["method"].unique()]
    colours = colours_of(methods, kinds)
    names = {
        str(each): figure_name(str(each), str(label))
        for each, label in zip(table["method"], table["label"], strict=True)
    }
    with rc_context(RC):
        height = (0.75 + 0.13 * len(methods)) * len(settings) + 0.5
        figure = Figure(figsize=(DOUBLE_COLUMN, height), layout="constrained")
        axes = figure.subplots(len(settings), 2, squeeze=False, width_ratios=(1.75, 1))
        for setting, (left, right) in zip(settings, axes, strict=True):
            chosen = points[(points["dataset"] == setting["dataset"]) & (points["n"] == setting["n"])]
            left.set_title(setting_name(str(setting["dataset"]), int(setting["n"])), loc="left", fontweight="bold")
            left.set_ylabel(f"{MEASURE_NAMES.get(str(setting['measure']), 'measure')} (%)")
            _draw_bars(left, chosen, colours)
            _draw_tow(right, chosen, colours, names)
        handles = [Patch(color=colours[name], label=names[name]) for name in methods]
        columns = legend_columns(list(names.values()), 4)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.0)
    return figure, points


def _bar_points(table: pd.DataFrame, seed_values: pd.DataFrame | None) -> pd.DataFrame:
    """Return means and single seeds of all quantities in one tidy table."""
    keys, parts = ["dataset", "n", "method"], []
    no_seed = pd.array([pd.NA] * len(table), dtype="Int64")
    for quantity in (*_SPLITS, "tow"):
        means = table[keys].assign(quantity=quantity, seed=no_seed)
        parts.append(means.assign(value=table[f"{quantity}_mean"], std=table[f"{quantity}_std"]))
        if seed_values is not None:
            seeds = seed_values[[*keys, "seed"]].assign(quantity=quantity, value=seed_values[quantity], std=np.nan)
            parts.append(seeds)
    # one dtype for all parts, or concatenation would have to guess one
    parts = [part.astype({"seed": "Int64", "value": "float64", "std": "float64"}) for part in parts]
    points = pd.concat(parts, ignore_index=True)[list(_COLUMNS)]
    # the retrained model has no ToW: it is what ToW compares with
    return points[~((points["method"] == "retrain") & (points["quantity"] == "tow"))].reset_index(drop=True)


def _draw_bars(axes: Axes, points: pd.DataFrame, colours: Mapping[str, str]) -> None:
    width = 0.84 / len(colours)
    for i, split in enumerate(_SPLITS):
        for j, (method, colour) in enumerate(colours.items()):
            x = i + (j - (len(colours) - 1) / 2) * width
            mean, std, dots = _values(points, method, split)
            if np.isnan(mean):
                axes.text(x, 2, "missing", rotation=90, ha="center", va="bottom", fontsize=7, color=colour)
                continue
            axes.bar(x, mean, width * 0.9, color=colour)
            if np.isfinite(std):
                axes.errorbar(x, mean, yerr=std, **_ERROR_BAR)
            axes.plot(x + np.linspace(-0.25, 0.25, len(dots)) * width, dots, **_DOT)
    axes.set_xticks(range(len(_SPLITS)), [f"{split} images" for split in _SPLITS])
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-0.5, len(_SPLITS) - 0.5), ylim=(0, 105), yticks=range(0, 101, 25))
    axes.grid(axis="y")


def _draw_tow(axes: Axes, points: pd.DataFrame, colours: Mapping[str, str], names: Mapping[str, str]) -> None:
    methods = [name for name in colours if name != "retrain"]
    for y, method in enumerate(methods):
        mean, std, dots = _values(points, method, "tow")
        if np.isnan(mean):
            across = axes.get_yaxis_transform()
            axes.text(0.02, y, "missing", transform=across, va="center", fontsize=7, color=colours[method])
            continue
        if np.isfinite(std):
            axes.errorbar(mean, y, xerr=std, **_ERROR_BAR)
        axes.plot(dots, np.full(len(dots), y + 0.25), **_DOT)
        axes.plot(mean, y, "o", ms=5, color=colours[method])
        if method == "pretrain":
            axes.axvline(mean, color=colours[method], lw=0.8, ls=(0, (4, 2)), zorder=0)
    axes.set_yticks(range(len(methods)), [names[name] for name in methods])
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(methods) - 0.4, -0.6), xlabel="ToW (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")


def _values(points: pd.DataFrame, method: str, quantity: str) -> tuple[float, float, list[float]]:
    """Return mean, standard deviation and single seeds of one quantity; NaN where there is none."""
    own = points[(points["method"] == method) & (points["quantity"] == quantity)]
    means = own[own["seed"].isna()]
    if means.empty:
        return np.nan, np.nan, []
    return float(means["value"].iloc[0]), float(means["std"].iloc[0]), own.loc[own["seed"].notna(), "value"].tolist()
