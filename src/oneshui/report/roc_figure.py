"""ROC curves of attacks with both axes logarithmic, where privacy is decided, and the band in which they may lie."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from oneshui.errors import DataError
from oneshui.metrics.roc import clopper_pearson, roc_points
from oneshui.report.style import DOUBLE_COLUMN, RC, block_name, colours_of, method_name

_COLUMNS = 4
#: rows that every panel shows for comparison, with their dashes
_COMPARED = {"pretrain": (0, (4, 1.5)), "retrain": (0, (1.2, 1.2))}


def roc_curves(
    attacks: Iterable[tuple[pd.DataFrame, Mapping[str, Any]]], *, rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of the ROC curves of an attack on several models, pooled over seeds, and the points in it.

    One panel per request and model: its curve with the 95% Clopper-Pearson band of the true positive rate, those of the
    pretrained and the retrained model for comparison, and the diagonal of a guess. Where the test images are too few to
    tell one false positive rate from another, the panel is grey.

    Args:
        attacks: tables of schema ATTACK with their metadata, in any order.
        rows: models in the order of their panels; pretrain and retrain are drawn in every panel and get none.
        seeds: the seeds that are pooled; a model that lacks one is left out.

    Returns:
        The figure, and the points: dataset, n, row, fpr, tpr, low, high; fractions.

    Raises:
        DataError: no model has results for all seeds.
    """
    curves = _curves(attacks, seeds)
    if not curves:
        raise DataError("no attacked model has results for every seed, so there is no ROC curve to draw")
    blocks = list(dict.fromkeys((dataset, n) for dataset, n, _ in curves))
    shown = [row for row in rows if row not in _COMPARED and any((*block, row) in curves for block in blocks)] or [
        "pretrain"
    ]
    columns = min(_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    colours = colours_of([row.split("/")[-1] for row in [*_COMPARED, *shown]])
    with rc_context(RC):
        figure = Figure(figsize=(DOUBLE_COLUMN, (1.75 * lines + 0.3) * len(blocks) + 0.3), layout="constrained")
        parts = figure.subfigures(len(blocks), 1, squeeze=False)[:, 0]
        for part, block in zip(parts, blocks, strict=True):
            part.suptitle(block_name(*block), x=0.01, ha="left", fontsize=8, fontweight="bold")
            panels = part.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flatten()
            for axes, row in zip(panels, shown, strict=False):
                _panel(axes, curves, block, row, colours)
            for axes in panels[len(shown) :]:
                axes.set_visible(False)
            for axes in panels[::columns]:
                axes.set_ylabel("true positive rate")
            for axes in panels[max(0, len(shown) - columns) : len(shown)]:
                axes.set_xlabel("false positive rate")
                axes.tick_params(labelbottom=True)
        handles: list[Line2D | Patch] = [
            Line2D([], [], color=colours[row], ls=dashes, label=method_name(row)) for row, dashes in _COMPARED.items()
        ]
        handles.append(Line2D([], [], color="#333333", label="the panel's model"))
        handles.append(Patch(color="#333333", alpha=0.2, lw=0, label="its 95% interval"))
        handles.append(Line2D([], [], color="#999999", lw=0.7, label="a guess"))
        handles.append(Patch(color="#EEEEEE", label="finer than the test images"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.0)
    points = [frame.assign(dataset=dataset, n=n, row=row) for (dataset, n, row), frame in curves.items()]
    columns_of = ["dataset", "n", "row", "fpr", "tpr", "low", "high"]
    return figure, pd.concat(points, ignore_index=True)[columns_of]


def _curves(
    attacks: Iterable[tuple[pd.DataFrame, Mapping[str, Any]]], seeds: Sequence[int]
) -> dict[tuple[str, int, str], pd.DataFrame]:
    """Return the steps of each pooled curve: fpr, tpr, low, high; the largest true positive rate of each fpr."""
    found: dict[tuple[str, int, str], dict[int, pd.DataFrame]] = {}
    for frame, meta in attacks:
        if not meta["blown_up"]:
            key = (str(meta["dataset"]), int(meta["n"]), str(meta["row"]))
            found.setdefault(key, {})[int(meta["seed"])] = frame
    curves = {}
    for key, by_seed in found.items():
        if not set(seeds) <= set(by_seed):
            continue
        pooled = pd.concat([by_seed[seed] for seed in seeds], ignore_index=True)
        roc = roc_points(pooled["rmia"].to_numpy(), pooled["is_member"].to_numpy())
        last = np.append(np.diff(roc.false_alarms) > 0, True)
        bounds = [clopper_pearson(int(hits), roc.members) for hits in roc.hits[last]]
        curves[key] = pd.DataFrame(
            {"fpr": roc.fpr[last], "tpr": roc.tpr[last], "low": [low for low, _ in bounds],
             "high": [high for _, high in bounds]}
        )  # fmt: skip
        curves[key].attrs["resolvable"] = 1 / roc.non_members
        curves[key].attrs["smallest_tpr"] = 1 / roc.members
    return curves


def _panel(
    axes: Axes, curves: Mapping[tuple[str, int, str], pd.DataFrame], block: tuple[str, int], row: str,
    colours: Mapping[str, str],
) -> None:  # fmt: skip
    method = row.split("/")[-1]
    axes.set_title(method_name(method).split(" (")[0])
    axes.set_xscale("log")
    axes.set_yscale("log")
    any_curve = next(curve for key, curve in curves.items() if key[:2] == block)
    left, floor = any_curve.attrs["resolvable"] / 2, any_curve.attrs["smallest_tpr"] / 2
    axes.axvspan(left, 2 * left, color="#EEEEEE", lw=0, zorder=0)
    axes.plot([left, 1], [left, 1], color="#999999", lw=0.7, zorder=1)
    for name, dashes in _COMPARED.items():
        curve = curves.get((*block, name))
        if curve is not None:
            x, y = _steps(curve, "tpr", left, floor)
            axes.plot(x, y, color=colours[name], ls=dashes, lw=1.0, drawstyle="steps-post")
    own = curves.get((*block, row))
    if own is None:
        axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", fontsize=7)
    else:
        x, low = _steps(own, "low", left, floor)
        _, high = _steps(own, "high", left, floor)
        axes.fill_between(x, low, high, step="post", color=colours[method], alpha=0.2, lw=0)
        axes.plot(*_steps(own, "tpr", left, floor), color=colours[method], drawstyle="steps-post")
    axes.set_xlim(left, 1)
    axes.set_ylim(floor, 1.1)
    axes.grid(which="major")


def _steps(curve: pd.DataFrame, column: str, left: float, floor: float) -> tuple[Any, Any]:
    """Return a curve with its zeros moved to the axes, as logarithms need it."""
    return np.maximum(curve["fpr"].to_numpy(), left), np.maximum(curve[column].to_numpy(), floor)
