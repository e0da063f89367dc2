"""Figures that stand on their own: vector PDF, PNG, and the plotted points as CSV.

Figures are made without pyplot, so that neither importing nor calling this module changes matplotlib's global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from oneshui.errors import ConfigError, DataError
from oneshui.files import atomic_path, write_text
from oneshui.report.style import (
    DATASET_NAMES,
    DOUBLE_COLUMN,
    MEASURE_NAMES,
    RC,
    RUN_COLOURS,
    block_name,
    colours_of,
    method_name,
)

_PNG_DPI = 150
_SPLITS = ("retain", "forget", "test")
_BAR_COLUMNS = ("dataset", "n", "method", "quantity", "seed", "value", "std")
_CURVE_COLUMNS = ("epoch", "train_loss", "train_measure", "val_loss", "val_measure")
#: dashes of the retrained models, one pattern per n in ascending order
_DASHES: tuple[Any, ...] = ((0, (4, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (7, 1.5)))


def save_figure(
    figure: Figure,
    points: pd.DataFrame,
    path_pdf: str | Path,
    *,
    path_png: str | Path | None = None,
    path_csv: str | Path | None = None,
) -> None:
    """Write a figure as PDF and PNG and its points as CSV, atomically. No date is in them: same figure, same bytes.

    Args:
        figure: what to draw.
        points: the plotted numbers.
        path_pdf: the PDF; PNG and CSV go beside it unless a path is given.
        path_png: path of the PNG, 150 dpi.
        path_csv: path of the CSV.
    """
    path_pdf = Path(path_pdf)
    with rc_context(RC):
        with atomic_path(path_pdf) as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        with atomic_path(path_png or path_pdf.with_suffix(".png")) as temporary:
            figure.savefig(temporary, format="png", dpi=_PNG_DPI)
    write_text(path_csv or path_pdf.with_suffix(".csv"), points.to_csv(index=False, lineterminator="\n"))


def table_bars(table: pd.DataFrame, seed_values: pd.DataFrame | None = None) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of a result table, and the points in it.

    One row of panels per block: bars of the measure on retain, forget and test images with the standard deviation
    over seeds; beside them the tug of war of each method on an axis of its own, with a line at that of doing nothing.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned, or its CSV read back.
        seed_values: dots for single seeds; columns dataset, n, method, seed, retain, forget, test, tow, in percent.

    Returns:
        The figure, and the points: one row per bar or dot, in percent; ``seed`` is missing where ``value`` is a mean.

    Raises:
        DataError: the table has no rows.
        ConfigError: there are more methods than colours.
    """
    if table.empty:
        raise DataError("the table of this figure has no rows. Add blocks to the table in the config.")
    points = _bar_points(table, seed_values)
    blocks = table.groupby(["dataset", "n"], sort=False)["measure"].first().reset_index().to_dict("records")
    methods = [str(name) for name in table["method"].unique()]
    colours = colours_of(methods)
    with rc_context(RC):
        height = (0.75 + 0.13 * len(methods)) * len(blocks) + 0.5
        figure = Figure(figsize=(DOUBLE_COLUMN, height), layout="constrained")
        axes = figure.subplots(len(blocks), 2, squeeze=False, width_ratios=(1.75, 1))
        for block, (left, right) in zip(blocks, axes, strict=True):
            chosen = points[(points["dataset"] == block["dataset"]) & (points["n"] == block["n"])]
            left.set_title(block_name(str(block["dataset"]), int(block["n"])), loc="left", fontweight="bold")
            left.set_ylabel(f"{MEASURE_NAMES.get(str(block['measure']), 'measure')} (%)")
            _draw_bars(left, chosen, colours)
            _draw_tow(right, chosen, colours)
        handles = [Patch(color=colours[name], label=method_name(name)) for name in methods]
        columns = _legend_columns([method_name(name) for name in methods], 4)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.0)
    return figure, points


def _legend_columns(labels: Sequence[str], gap: int) -> int:
    """Return how many legend columns fit a double column, where a handle takes the room of ``gap`` letters."""
    room = 105
    if sum(len(label) + gap for label in labels) <= room:
        return len(labels)
    return max(1, room // (max(len(label) for label in labels) + gap))


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
    points = pd.concat(parts, ignore_index=True)[list(_BAR_COLUMNS)]
    # the retrained model has no tug of war with itself
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
            _error_bar(axes, x, mean, yerr=std)
            offsets = np.linspace(-0.25, 0.25, len(dots)) * width
            axes.plot(x + offsets, dots, "o", ms=2, mfc="white", mec="#333333", mew=0.5, ls="none")
    axes.set_xticks(range(len(_SPLITS)), [f"{split} images" for split in _SPLITS])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(_SPLITS) - 0.5)
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 25))
    axes.grid(axis="y")


def _draw_tow(axes: Axes, points: pd.DataFrame, colours: Mapping[str, str]) -> None:
    methods = [name for name in colours if name != "retrain"]
    for y, method in enumerate(methods):
        mean, std, dots = _values(points, method, "tow")
        if np.isnan(mean):
            transform = axes.get_yaxis_transform()
            axes.text(0.02, y, "missing", transform=transform, va="center", fontsize=7, color=colours[method])
            continue
        _error_bar(axes, mean, y, xerr=std)
        axes.plot(dots, np.full(len(dots), y + 0.25), "o", ms=2, mfc="white", mec="#333333", mew=0.5, ls="none")
        axes.plot(mean, y, "o", ms=5, color=colours[method])
    nothing = _values(points, "pretrain", "tow")[0] if "pretrain" in colours else np.nan
    if not np.isnan(nothing):
        axes.axvline(nothing, color=colours["pretrain"], lw=0.8, ls=(0, (4, 2)), zorder=0)
    axes.set_yticks(range(len(methods)), [method_name(name) for name in methods])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel("tug of war (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")


def _values(points: pd.DataFrame, method: str, quantity: str) -> tuple[float, float, list[float]]:
    """Return mean, standard deviation and single seeds of one quantity; NaN where there is none."""
    own = points[(points["method"] == method) & (points["quantity"] == quantity)]
    means = own[own["seed"].isna()]
    if means.empty:
        return np.nan, np.nan, []
    mean, std = means["value"].iloc[0], means["std"].iloc[0]
    return float(mean), float(std), own.loc[own["seed"].notna(), "value"].tolist()


def _error_bar(axes: Axes, x: float, y: float, *, xerr: float | None = None, yerr: float | None = None) -> None:
    if np.isfinite([each for each in (xerr, yerr) if each is not None]).all():
        style: dict[str, Any] = {"ecolor": "#444444", "elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8}
        axes.errorbar(x, y, xerr=xerr, yerr=yerr, fmt="none", **style)


def training_curves(histories: Sequence[Mapping[str, Any]]) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of how models were trained, and the points in it.

    Left the training loss, right the measure on training (thin) and validation images (thick) against the epoch. A
    colour is a dataset and seed; pretrained models are solid, retrained ones dashed. A dot marks the best epoch.

    Args:
        histories: per model ``label``, ``dataset``, ``seed``, ``n`` (None for a pretrained model), ``role``,
            ``measure``, ``best_epoch`` and ``history``, a list with ``epoch``, ``train_loss``, ``train_measure``,
            ``val_loss`` and ``val_measure`` per epoch. Measures are fractions.

    Returns:
        The figure, and the points: one row per model and epoch, as they were given.

    Raises:
        DataError: there is no model, or a history is empty or lacks a value.
        ConfigError: there are more runs than colours.
    """
    points = _curve_points(histories)
    runs = list(dict.fromkeys((str(each["dataset"]), int(each["seed"])) for each in histories))
    if len(runs) > len(RUN_COLOURS):
        raise ConfigError(f"a figure of training curves has {len(runs)} runs, allowed: {len(RUN_COLOURS)}. Split it.")
    colours = dict(zip(runs, RUN_COLOURS, strict=False))
    sizes = sorted({int(each["n"]) for each in histories if each["n"] is not None})
    dashes = {n: _DASHES[i % len(_DASHES)] for i, n in enumerate(sizes)}
    with rc_context(RC):
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        for each in histories:
            colour = colours[str(each["dataset"]), int(each["seed"])]
            style = "-" if each["n"] is None else dashes[int(each["n"])]
            _draw_curve(left, right, points[points["model"] == each["label"]], colour, style)
        left.set_ylabel("training loss (nats)")
        measures = dict.fromkeys(MEASURE_NAMES.get(str(each["measure"]), str(each["measure"])) for each in histories)
        right.set_ylabel(f"{' or '.join(measures)} (%)")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.grid(axis="y")
        handles = _curve_legend(colours, dashes, any(each["n"] is None for each in histories))
        columns = _legend_columns([str(each.get_label()) for each in handles], 7)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)
    return figure, points


def _curve_points(histories: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    if not histories:
        raise DataError("a figure of training curves was asked for without any model. Name some in the config.")
    parts = []
    for each in histories:
        part = pd.DataFrame(list(each["history"]))
        missing = [name for name in _CURVE_COLUMNS if name not in part.columns]
        if missing:
            raise DataError(f"training history of {each['label']} has no {', '.join(missing)}. Train the model again.")
        part = part[list(_CURVE_COLUMNS)].astype(dict.fromkeys(_CURVE_COLUMNS[1:], "float64"))
        part.insert(0, "model", str(each["label"]))
        part["is_best"] = part["epoch"] == each["best_epoch"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _draw_curve(left: Axes, right: Axes, points: pd.DataFrame, colour: str, style: Any) -> None:
    epochs = points["epoch"].to_numpy()
    left.plot(epochs, points["train_loss"].to_numpy(), color=colour, ls=style)
    right.plot(epochs, 100 * points["train_measure"].to_numpy(), color=colour, ls=style, lw=0.6, alpha=0.7)
    right.plot(epochs, 100 * points["val_measure"].to_numpy(), color=colour, ls=style)
    best = points[points["is_best"]]
    right.plot(best["epoch"], 100 * best["val_measure"], "o", ms=4, color=colour, mec="white", mew=0.6, zorder=3)


def _curve_legend(colours: Mapping[tuple[str, int], str], dashes: Mapping[int, Any], pretrain: bool) -> list[Line2D]:
    several = len({dataset for dataset, _ in colours}) > 1
    handles = []
    for (dataset, seed), colour in colours.items():
        prefix = f"{DATASET_NAMES.get(dataset, dataset)}, " if several else ""
        handles.append(Line2D([], [], color=colour, lw=3, label=f"{prefix}seed {seed}"))
    if pretrain:
        handles.append(Line2D([], [], color="#333333", label="pretrain"))
    handles += [Line2D([], [], color="#333333", ls=style, label=f"retrain, n = {n}") for n, style in dashes.items()]
    handles.append(Line2D([], [], color="#333333", lw=0.6, label="training images"))
    handles.append(Line2D([], [], color="#333333", lw=1.6, label="validation images"))
    handles.append(Line2D([], [], color="#333333", marker="o", ms=4, ls="none", label="best epoch"))
    return handles
