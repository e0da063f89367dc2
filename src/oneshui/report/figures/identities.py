"""Which identities are hard to forget, and whom unlearning harms: the paper's figures 4 and 5."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from oneshui.errors import DataError
from oneshui.metrics.identities import Correlation, equal_count_bins, pearson, spearman
from oneshui.report.identities import Setting, correlation_text, identity_points, mean_points, top_methods
from oneshui.report.style import DOUBLE_COLUMN, MEASURE_NAMES, RC, SINGLE_COLUMN, figure_name, legible, setting_name
from oneshui.report.tables import read_csv, settings_of
from oneshui.schemas import IDENTITIES, read_table

#: equal parts of the identities, fewer where a part would have less than two of some seed
_BINS, _IN_BIN = 5, 2
#: share of the points that the vertical axis has room for, where there are many; the others are drawn at its ends
_SHOWN, _MANY = 0.9, 100
#: points of a panel beyond which they are drawn as one picture, because as many marks would fill a page
_RASTER = 500
#: letters in a line above a panel
_LINE = 40
_POINT, _BIN = legible("#56B4E9", "light"), "#D55E00"
_COLUMNS = ("dataset", "n", "methods", "quantity", "seed", "identity", "measure", "n_images", "n_points", "distance",
            "value", "std", "low", "high")  # fmt: skip
#: set of identities -> what the axes say
_AXES = {
    "forget": ("unlearned \N{MINUS SIGN} retrained", "support photo to forget centroid"),
    "retain": ("unlearned \N{MINUS SIGN} original", "centroid to nearest forget centroid"),
}


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw the CSV of a table, which says which methods are best, then what is known of single identities."""
    table = read_csv(inputs[0])
    blocks = spec.get("blocks")
    settings = [(str(b["dataset"]), int(b["n"])) for b in blocks] if blocks else [key for key, _ in settings_of(table)]
    best = {setting: top_methods(table, *setting) for setting in settings}
    points = identity_points(read_table(path, IDENTITIES) for path in inputs[1:])
    labels = {str(name): str(label) for name, label in zip(table["method"], table["label"], strict=True)}
    return by_distance(points, best, seeds, {"hardness": "forget", "harm": "retain"}[spec["kind"]], labels)


def by_distance(
    points: pd.DataFrame,
    top: Mapping[Setting, Sequence[str]],
    seeds: Sequence[int],
    which: str,
    labels: Mapping[str, str] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Return figure 4 (forget identities) or 5 (retain identities), one panel per setting.

    A point is an identity of one seed, mean over the methods. Figure 4: unlearned minus retrained measure against the
    distance of the support photo to the centroid of the forget images, in the original model's features. Figure 5:
    unlearned minus original measure against the distance of the identity's centroid to the nearest centroid of a forget
    identity. An identity that occurs in several seeds is a point in each. Over the points: means of equal parts with
    the standard deviation over seeds. Above them: correlations within seeds (``oneshui.metrics.identities``).

    Args:
        points: what ``identity_points`` returned.
        top: methods to average by setting, in the order of the panels; a setting without any is drawn as missing.
        seeds: the seeds that every method must have.
        which: ``forget`` or ``retain``.
        labels: how methods are written, if not as usual.

    Returns:
        The figure, and what is drawn: one row per ``quantity`` ``identity`` (a point), ``bin`` (with ``std``),
        ``pearson`` and ``spearman`` (with ``low`` and ``high``). ``value`` is in percentage points but for
        correlations; ``n_points`` counts the identities behind a mean or a correlation.

    Raises:
        DataError: no setting has a method; a method lacks a seed or has diverged in one; tables contradict each other.
    """
    if not any(top.values()):
        names = ", ".join(f"{dataset} n = {n}" for dataset, n in top) or "any setting"
        raise DataError(
            f"no unlearning method without access to the training data has results on {names}, so there are no "
            "identities to draw. Add methods to the table in the config."
        )
    columns = min(2, len(top))
    lines = -(-len(top) // columns)
    parts, outside = [], False
    with rc_context(RC):
        size = (DOUBLE_COLUMN, 2.7 * lines + 0.3) if columns > 1 else (SINGLE_COLUMN, 3.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes in panels[len(top) :]:
            axes.set_visible(False)
        for axes, (setting, methods) in zip(panels, top.items(), strict=False):
            title = axes.set_title(setting_name(*setting), loc="left", fontweight="bold")
            if not methods:
                axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", fontsize=7)
                axes.set(xticks=[], yticks=[])
                continue
            own = mean_points(points, setting, methods, seeds, which)
            found = {"spearman": spearman(own), "pearson": pearson(own)}
            part = _rows(own, found)
            outside |= _draw(axes, part, which)
            words = textwrap.wrap(
                f"mean of {', '.join(figure_name(name, (labels or {}).get(name)) for name in methods)}", _LINE
            )
            words += [f"{name.capitalize()} {correlation_text(each)}" for name, each in found.items()]
            axes.text(0, 1.02, "\n".join(words), transform=axes.transAxes, va="bottom", fontsize=7)
            axes.set_title(title.get_text(), loc="left", fontweight="bold", pad=5 + 9 * len(words))
            parts.append(part.assign(dataset=setting[0], n=setting[1], methods=" ".join(methods)))
        drawn = pd.concat(parts, ignore_index=True)[list(_COLUMNS)]
        handles = _legend(drawn, outside)
        ncols = len(handles) if columns > 1 else 1
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, columnspacing=1.2)
    return figure, drawn


def _rows(points: pd.DataFrame, correlations: Mapping[str, Correlation]) -> pd.DataFrame:
    """Return the points, their bins and their correlations in one table."""
    parts = [points.assign(quantity="identity")]
    bins = min(_BINS, int(points.groupby("seed").size().min()) // _IN_BIN)
    if bins > 1:
        parts.append(equal_count_bins(points, bins).assign(quantity="bin"))
    for name in ("pearson", "spearman"):
        parts.append(pd.DataFrame([{"quantity": name, **vars(correlations[name])}]))
    numbers = ["distance", "value", "std", "low", "high"]
    types = dict.fromkeys(numbers, "float64") | dict.fromkeys(("seed", "identity", "n_images", "n_points"), "Int64")
    parts = [part.reindex(columns=[*types, "quantity", "measure"]).astype(types) for part in parts]
    return pd.concat(parts, ignore_index=True)


def _draw(axes: Axes, rows: pd.DataFrame, which: str) -> bool:
    """Draw one panel and tell whether some points lie outside of it."""
    points, bins = (rows[rows["quantity"] == name] for name in ("identity", "bin"))
    measure = next((name for name in MEASURE_NAMES if (points["measure"] == name).any()), "balanced accuracy")
    upright, across = _AXES[which]
    axes.set_ylabel(f"{MEASURE_NAMES.get(measure, measure)}, {upright}\n(percentage points)")
    axes.set_xlabel(f"distance, {across}")
    axes.axhline(0, color="#999999", lw=0.7, zorder=1)
    x, y = points["distance"].to_numpy(np.float64), points["value"].to_numpy(np.float64)
    low, high = _limits(y, bins)
    size, alpha = (3.2, 0.6) if len(points) < _RASTER else (1.6, 0.3)  # retain identities are thousands
    looks: dict[str, Any] = {"ls": "none", "alpha": alpha, "rasterized": len(points) >= _RASTER}
    fallback = points["measure"].to_numpy() == "balanced_accuracy"
    inside = (y >= low) & (y <= high)
    for chosen, face in ((inside & ~fallback, _POINT), (inside & fallback, "none")):
        axes.plot(x[chosen], y[chosen], "o", ms=size, mfc=face, mec=_POINT, mew=0.4, zorder=2, **looks)
    for end, marker, chosen in ((low, "v", y < low), (high, "^", y > high)):
        axes.plot(x[chosen], np.full(chosen.sum(), end), marker, ms=2.5, color=_POINT, mew=0, **looks)
    axes.errorbar(
        bins["distance"], bins["value"], yerr=bins["std"], fmt="o", ms=4.5, color=_BIN, mec="white", mew=0.6,
        elinewidth=1.1, capsize=2.5, capthick=1.1, zorder=3,
    )  # fmt: skip
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y")
    return not inside.all()


def _limits(values: npt.NDArray[np.float64], bins: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the vertical axis: room for most points, for all bins with their bars, and for 0."""
    beyond = (1 - _SHOWN) / 2 if len(values) > _MANY else 0.0
    ends = np.quantile(values, [beyond, 1 - beyond])
    bars = [bins["value"] + sign * bins["std"].fillna(0) for sign in (-1, 1)]
    low, high = min(0.0, ends[0], *bars[0]), max(0.0, ends[1], *bars[1])
    return (low, high) if high > low else (-1.0, 1.0)


def _legend(points: pd.DataFrame, outside: bool) -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "ls": "none", "ms": 3.2, "mec": _POINT, "mew": 0.5}
    handles = [Line2D([], [], mfc=_POINT, label="identity of a seed", **dot)]
    if "balanced_accuracy" in set(points["measure"].dropna()):
        handles.append(Line2D([], [], mfc="none", label="the same, balanced accuracy", **dot))
    if outside:
        handles.append(Line2D([], [], marker="^", ls="none", ms=3, color=_POINT, mew=0, label="beyond the axis"))
    if (points["quantity"] == "bin").any():
        mean = {**dot, "ms": 4.5, "mec": "white", "color": _BIN}
        handles.append(Line2D([], [], label="equal parts: mean, std over seeds", **mean))
    return handles
