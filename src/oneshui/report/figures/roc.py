"""ROC curves of attacks with both axes logarithmic, where privacy is decided, and the band in which they may lie."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from oneshui.errors import DataError
from oneshui.metrics.roc import clopper_pearson, roc_points
from oneshui.report.style import DOUBLE_COLUMN, RC, colours_of, figure_name, method_labels, setting_name
from oneshui.report.tables import settings_of
from oneshui.runs import Model
from oneshui.schemas import ATTACK, read_table

#: of the points
COLUMNS = ("dataset", "n", "row", "fpr", "tpr", "low", "high")
_PANELS = 4
#: models that every panel shows for comparison, with their dashes
COMPARED = {"pretrain": (0, (4, 1.5)), "retrain": (0, (1.2, 1.2))}
#: places on the horizontal axis at which a curve is drawn: finer steps cannot be seen, and would fill a page
_PLACES = 180

Values = npt.NDArray[np.float64]


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw attacks on single models."""
    blocks = [(block["dataset"], block["n"]) for block in spec.get("blocks") or ()]
    attacks = (read_table(path, ATTACK) for path in inputs)
    asked = (each for each in attacks if not blocks or (each[1]["dataset"], each[1]["n"]) in blocks)
    points = roc_curves(asked, seeds)
    labels = method_labels((Model.of(row).method_name for row in rows), spec.get("labels"), spec.get("kinds"))
    return draw(points, rows, labels, spec.get("kinds")), points


def roc_curves(attacks: Iterable[tuple[pd.DataFrame, Mapping[str, Any]]], seeds: Sequence[int]) -> pd.DataFrame:
    """Return the ROC curves of an attack on several models, pooled over seeds.

    Args:
        attacks: tables of schema ATTACK with their metadata, in any order.
        seeds: the seeds that are pooled; a model that lacks one is left out.

    Returns:
        ``COLUMNS``, fractions: of each false positive rate the largest true positive rate, with its 95%
        Clopper-Pearson interval.

    Raises:
        DataError: no model has results for all seeds.
    """
    found: dict[tuple[str, int, str], dict[int, pd.DataFrame]] = {}
    for frame, meta in attacks:
        if not meta["blown_up"]:
            key = (str(meta["dataset"]), int(meta["n"]), str(meta["row"]))
            found.setdefault(key, {})[int(meta["seed"])] = frame
    curves = []
    for (dataset, n, row), by_seed in found.items():
        if not set(seeds) <= set(by_seed):
            continue
        pooled = pd.concat([by_seed[seed] for seed in seeds], ignore_index=True)
        roc = roc_points(pooled["rmia"].to_numpy(), pooled["is_member"].to_numpy())
        last = np.append(np.diff(roc.false_alarms) > 0, True)
        low, high = zip(*(clopper_pearson(int(hits), roc.members) for hits in roc.hits[last]), strict=True)
        curve = {"fpr": roc.fpr[last], "tpr": roc.tpr[last], "low": low, "high": high}
        curves.append(pd.DataFrame({"dataset": dataset, "n": n, "row": row, **curve}))
    if not curves:
        raise DataError("no attacked model has results for every seed, so there is no ROC curve to draw")
    return pd.concat(curves, ignore_index=True)[list(COLUMNS)]


def draw(
    points: pd.DataFrame,
    rows: Sequence[str],
    labels: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Figure:
    """Return a figure: one panel per setting and model.

    A panel has the model's curve with its 95% band, those of the original and the retrained model for comparison, and
    the diagonal of a guess. Where the test images are too few to tell one false positive rate from another, it is grey.

    Args:
        points: what ``roc_curves`` returned.
        rows: models in the order of their panels; the compared ones are in every panel and get none. A model without a
            curve gets a panel that says so.
        labels: how methods are written, if not as usual.
        kinds: of the methods, for their colours.
    """
    settings = settings_of(points)
    known = set(points["row"])
    shown = [row for row in rows if row not in COMPARED and row in known] or ["pretrain"]
    columns = min(_PANELS, len(shown))
    lines = -(-len(shown) // columns)
    colours = colours_of([Model.of(row).method_name for row in [*COMPARED, *shown]], kinds)
    with rc_context(RC):
        figure = Figure(figsize=(DOUBLE_COLUMN, (1.75 * lines + 0.3) * len(settings) + 0.3), layout="constrained")
        parts = figure.subfigures(len(settings), 1, squeeze=False)[:, 0]
        for part, (setting, curves) in zip(parts, settings, strict=True):
            part.suptitle(setting_name(*setting), x=0.01, ha="left", fontsize=8, fontweight="bold")
            panels = part.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flatten()
            ends = _finest(curves["fpr"]) / 2, _finest(curves["tpr"]) / 2
            for axes, row in zip(panels, shown, strict=False):
                method = Model.of(row).method_name
                axes.set_title(figure_name(method, (labels or {}).get(method)))
                _panel(axes, curves, row, colours, ends)
            for axes in panels[len(shown) :]:
                axes.set_visible(False)
            for axes in panels[::columns]:
                axes.set_ylabel("true positive rate")
            for axes in panels[max(0, len(shown) - columns) : len(shown)]:
                axes.set_xlabel("false positive rate")
                axes.tick_params(labelbottom=True)
        handles: list[Line2D | Patch] = [
            Line2D([], [], color=colours[row], ls=dashes, label=figure_name(row)) for row, dashes in COMPARED.items()
        ]
        handles.append(Line2D([], [], color="#333333", label="the panel's model"))
        handles.append(Patch(color="#333333", alpha=0.2, lw=0, label="its 95% interval"))
        handles.append(Line2D([], [], color="#999999", lw=0.7, label="a guess"))
        handles.append(Patch(color="#EEEEEE", label="finer than the test images"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0)
    return figure


def _finest(rates: "pd.Series[float]") -> float:
    """Return the smallest step between rates, which is one image; 1% if there is none."""
    steps = np.diff(np.unique(rates.to_numpy(np.float64)))
    steps = steps[steps > 1e-9]
    return float(steps.min()) if len(steps) else 0.01


def _panel(axes: Axes, curves: pd.DataFrame, row: str, colours: Mapping[str, str], ends: tuple[float, float]) -> None:
    left, floor = ends
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axvspan(left, 2 * left, color="#EEEEEE", lw=0, zorder=0)
    axes.plot([left, 1], [left, 1], color="#999999", lw=0.7, zorder=1)
    for name, dashes in COMPARED.items():
        curve = curves[curves["row"] == name]
        if len(curve) and name != row:
            x, y = steps(curve, ("tpr",), left, floor)
            axes.plot(x, y[0], color=colours[name], ls=dashes, lw=1.0, drawstyle="steps-post")
    own = curves[curves["row"] == row]
    if own.empty:
        axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", fontsize=7)
    else:
        colour = colours[Model.of(row).method_name]
        x, (low, high) = steps(own, ("low", "high"), left, floor)
        axes.fill_between(x, low, high, step="post", color=colour, alpha=0.2, lw=0)
        x, y = steps(own, ("tpr",), left, floor)
        axes.plot(x, y[0], color=colour, drawstyle="steps-post")
    axes.set_xlim(left, 1)
    axes.set_ylim(floor, 1.1)
    axes.minorticks_off()
    axes.grid(which="major")


def steps(curve: pd.DataFrame, columns: Sequence[str], left: float, floor: float) -> tuple[Values, list[Values]]:
    """Return where step curves change, on a logarithmic axis that begins at ``left``, never below ``floor``.

    At each place a curve has the value of its last step at or before it, so that it never claims more than it should.
    """
    rates = curve["fpr"].to_numpy(np.float64)
    grid = np.geomspace(left, 1.0, _PLACES)
    last = np.searchsorted(rates, grid * (1 + 1e-12), side="right") - 1
    values = [curve[name].to_numpy(np.float64)[np.maximum(last, 0)] for name in columns]
    heights = np.maximum(np.where(last >= 0, values, 0.0), floor)
    changes = (np.diff(heights, axis=1) != 0).any(axis=0)
    kept = np.concatenate([[True], changes[:-1], [True]])
    return grid[kept], list(heights[:, kept])
