"""Which identities are hard to forget, and whom unlearning harms: the paper's figures 4 and 5."""

import textwrap
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
from matplotlib.ticker import MaxNLocator

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.metrics.identities import equal_count_bins, pearson, spearman
from oneshui.report.style import DOUBLE_COLUMN, MEASURE_NAMES, RC, SINGLE_COLUMN, figure_name, legible, setting_name
from oneshui.report.tables import read_csv, settings_of
from oneshui.schemas import IDENTITIES, read_table

Tables = Iterable[tuple[pd.DataFrame, Mapping[str, Any]]]
Setting = tuple[str, int]

#: equal parts of the identities, fewer where a part would have less than two of some seed
_BINS = 5
_IN_BIN = 2
#: share of the points that the vertical axis has room for, where there are many; the others are drawn at its ends
_SHOWN, _MANY = 0.9, 100
#: letters in a line above a panel
_LINE = 40
_POINT, _BIN = legible("#56B4E9", "light"), "#D55E00"
_COLUMNS = (
    "dataset",
    "n",
    "methods",
    "quantity",
    "seed",
    "identity",
    "measure",
    "n_images",
    "n_points",
    "distance",
    "value",
    "std",
    "low",
    "high",
)


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw the CSV of a table, which says which methods are best, then what is known of single identities."""
    table = read_csv(inputs[0])
    blocks = spec.get("blocks")
    settings = [(str(b["dataset"]), int(b["n"])) for b in blocks] if blocks else [key for key, _ in settings_of(table)]
    best = {setting: top_methods(table, *setting) for setting in settings}
    draw = {"hardness": hardness, "harm": harm}[spec["kind"]]
    return draw([read_table(path, IDENTITIES) for path in inputs[1:]], best, seeds)


def top_methods(table: pd.DataFrame, dataset: str, n: int, count: int = 3) -> list[str]:
    """Return the best unlearning methods of a setting by mean ToW, best first.

    Only methods without access to the training data count. The figures ask what follows from where a support photo
    lies: a method that also trains on forget images does not depend on the photo, and one that trains on retain images
    mends the harm that is to be seen.

    Args:
        table: columns dataset, n, method, access_to_data, tow_mean, as of ``oneshui.report.tables.make_table``.
        dataset: of the setting.
        n: of the setting.
        count: most methods to return. The paper takes three (sections 5.4 and 5.5).

    Returns:
        Names of methods; of equal ones the first in the table comes first. Fewer than ``count`` where there are no
        more that have a ToW in every seed.

    Raises:
        DataError: the table has no such setting.
    """
    setting = table[(table["dataset"] == dataset) & (table["n"] == n)]
    if setting.empty:
        found = sorted(set(zip(table["dataset"].astype(str), table["n"].astype(int), strict=True)))
        raise DataError(f"no results of {dataset}, n = {n} in the table to choose methods from; there are: {found}")
    able = setting[
        ~setting["method"].isin(TRAINED) & ~setting["access_to_data"].astype(bool) & setting["tow_mean"].notna()
    ]
    return [str(name) for name in able.sort_values("tow_mean", ascending=False, kind="stable")["method"].head(count)]


def hardness(tables: Tables, top: Mapping[Setting, Sequence[str]], seeds: Sequence[int]) -> tuple[Figure, pd.DataFrame]:
    """Return the paper's figure 4: are identities harder to forget if their support photo is far from their images?

    One panel per setting. A point is a forget identity of one seed: unlearned minus retrained measure, in percentage
    points, mean over the methods; against the distance of its support photo to the centroid of its forget images in the
    pretrained model's features. An identity that asks in several seeds is a point in each, with another photo and other
    models. Over the points, means of equal-count parts with the standard deviation over seeds, and above them the
    correlations within seeds with their 95% intervals (``oneshui.metrics.identities``).

    Args:
        tables: tables of schema IDENTITIES with their metadata, in any order; those that are not asked for are ignored.
        top: methods to average by (dataset, n), in the order of the panels; a setting without any is drawn as missing.
        seeds: the seeds that every method must have.

    Returns:
        The figure, and what is drawn: one row per ``quantity`` ``identity`` (a point), ``bin`` (with ``std``),
        ``pearson`` and ``spearman`` (with ``low`` and ``high``). ``value`` is in percentage points but for
        correlations; ``n_points`` counts the identities behind a mean or a correlation.

    Raises:
        DataError: no setting has a method; a method lacks a seed or has diverged in one; tables contradict each other.
    """
    return _figure(tables, top, seeds, "forget")


def harm(tables: Tables, top: Mapping[Setting, Sequence[str]], seeds: Sequence[int]) -> tuple[Figure, pd.DataFrame]:
    """Return the paper's figure 5: does unlearning harm those who resemble the identities that are forgotten?

    As ``hardness``, but a point is a retain identity of one seed: unlearned minus pretrained measure, against the
    distance of its centroid to the nearest centroid of a forget identity.

    Args, Returns and Raises: those of ``hardness``.
    """
    return _figure(tables, top, seeds, "retain")


#: set of identities -> the model that is compared with, and what the axes say
_COMPARED = {
    "forget": ("retrain", "unlearned \N{MINUS SIGN} retrained", "support photo to forget centroid"),
    "retain": ("pretrain", "unlearned \N{MINUS SIGN} pretrained", "centroid to nearest forget centroid"),
}


def _figure(
    tables: Tables, top: Mapping[Setting, Sequence[str]], seeds: Sequence[int], which: str
) -> tuple[Figure, pd.DataFrame]:
    if not any(top.values()):
        raise DataError(
            f"no unlearning method without access to the training data has results on {_names(top)}, so there are no "
            "identities to draw. Add methods to the table in the config."
        )
    found = _by_model(tables)
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
            if not methods:
                axes.set_title(setting_name(*setting), loc="left", fontweight="bold")
                axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", fontsize=7)
                axes.set(xticks=[], yticks=[])
                continue
            part = _rows(_points(found, setting, methods, seeds, which))
            outside |= _draw(axes, part, which)
            _head(axes, part, setting, methods)
            parts.append(part.assign(dataset=setting[0], n=setting[1], methods=" ".join(methods)))
        points = pd.concat(parts, ignore_index=True)[list(_COLUMNS)]
        handles = _legend(points, outside)
        ncols = len(handles) if columns > 1 else 1
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, columnspacing=1.2)
    return figure, points


def _names(blocks: Iterable[Setting]) -> str:
    return ", ".join(f"{dataset} n = {n}" for dataset, n in blocks) or "any setting"


def _by_model(tables: Tables) -> dict[tuple[str, int, str, int], tuple[pd.DataFrame, bool]]:
    """Return each table and whether its model has diverged, by dataset, n, row and seed."""
    found: dict[tuple[str, int, str, int], tuple[pd.DataFrame, bool]] = {}
    for frame, meta in tables:
        key = (str(meta["dataset"]), int(meta["n"]), str(meta["row"]), int(meta["seed"]))
        if key in found:
            raise DataError(f"two tables of identities of {key[2]} on {key[0]}, n = {key[1]}, seed {key[3]}")
        found[key] = (frame, bool(meta["blown_up"]))
    return found


def _points(
    found: Mapping[tuple[str, int, str, int], tuple[pd.DataFrame, bool]], setting: Setting, methods: Sequence[str],
    seeds: Sequence[int], which: str,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per identity and seed of a setting: mean over methods of the difference, in percentage points."""
    keys = [(*setting, f"pretrain/{method}", seed) for method in methods for seed in seeds]
    lacking = [f"{key[2]} of seed {key[3]}" for key in keys if key not in found or found[key][1]]
    if lacking:
        raise DataError(
            f"{_names([setting])}: no table of identities of {', '.join(lacking)}, or its model has diverged; a mean "
            "must not stand for fewer models than its neighbours. Leave out the method."
        )
    frames = [found[key][0].assign(seed=key[3]) for key in keys]
    all_rows = pd.concat(frames, ignore_index=True)
    all_rows = all_rows[all_rows["set"] == which]
    all_rows["value"] = 100 * (all_rows["value"] - all_rows[_COMPARED[which][0]])
    same = ["seed", "identity", "measure", "n_images", "distance"]
    points = all_rows.groupby(same, as_index=False)["value"].agg(["mean", "size"]).rename(columns={"mean": "value"})
    # what is grouped by does not depend on the unlearned model: a method that disagrees makes a group of its own
    if set(points["seed"]) != set(seeds) or (points["size"] != len(methods)).any():
        raise DataError(
            f"{_names([setting])}: the tables of {', '.join(methods)} have no {which} identities in some seed, or "
            "disagree on them or their distances: they belong to different runs. Delete them to make them again."
        )
    return points.drop(columns="size")


def _rows(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points, their bins and their correlations in one table."""
    parts = [points.assign(quantity="identity")]
    bins = min(_BINS, int(points.groupby("seed").size().min()) // _IN_BIN)
    if bins > 1:
        parts.append(equal_count_bins(points, bins).assign(quantity="bin"))
    for name, found in (("pearson", pearson(points)), ("spearman", spearman(points))):
        parts.append(
            pd.DataFrame([{"quantity": name, "value": found.value, "low": found.low, "high": found.high,
                           "n_points": found.n_points}])
        )  # fmt: skip
    numbers = ["distance", "value", "std", "low", "high"]
    types = dict.fromkeys(numbers, "float64") | dict.fromkeys(("seed", "identity", "n_images", "n_points"), "Int64")
    parts = [part.reindex(columns=[*types, "quantity", "measure"]).astype(types) for part in parts]
    return pd.concat(parts, ignore_index=True)


def _draw(axes: Axes, rows: pd.DataFrame, which: str) -> bool:
    """Draw one panel and tell whether some points lie outside of it."""
    points, bins = (rows[rows["quantity"] == name] for name in ("identity", "bin"))
    measure = next((name for name in MEASURE_NAMES if (points["measure"] == name).any()), "balanced accuracy")
    axes.set_ylabel(f"{MEASURE_NAMES.get(measure, measure)}, {_COMPARED[which][1]}\n(percentage points)")
    axes.set_xlabel(f"distance, {_COMPARED[which][2]}")
    axes.axhline(0, color="#999999", lw=0.7, zorder=1)
    x, y = points["distance"].to_numpy(np.float64), points["value"].to_numpy(np.float64)
    low, high = _limits(y, bins)
    size, alpha = (3.2, 0.6) if len(points) < 500 else (1.6, 0.3)  # retain identities are thousands
    fallback = points["measure"].to_numpy() == "balanced_accuracy"
    inside = (y >= low) & (y <= high)
    for chosen, face in ((inside & ~fallback, _POINT), (inside & fallback, "none")):
        axes.plot(x[chosen], y[chosen], "o", ms=size, mfc=face, mec=_POINT, mew=0.4, alpha=alpha, ls="none", zorder=2)
    for end, marker, chosen in ((low, "v", y < low), (high, "^", y > high)):
        axes.plot(x[chosen], np.full(chosen.sum(), end), marker, ms=2.5, color=_POINT, mew=0, alpha=alpha, ls="none")
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


def _head(axes: Axes, rows: pd.DataFrame, setting: Setting, methods: Sequence[str]) -> None:
    """Write above a panel what it is of, and its correlations."""
    lines = textwrap.wrap(f"mean of {', '.join(figure_name(name) for name in methods)}", _LINE)
    lines += [_correlation_text(rows, name) for name in ("spearman", "pearson")]
    axes.set_title(setting_name(*setting), loc="left", fontweight="bold", pad=5 + 9 * len(lines))
    axes.text(0, 1.02, "\n".join(lines), transform=axes.transAxes, va="bottom", fontsize=7)


def _correlation_text(rows: pd.DataFrame, name: str) -> str:
    found = rows[rows["quantity"] == name].iloc[0]
    if np.isnan(found["value"]):
        return f"{name.capitalize()}: none"
    # adding 0 makes a rounded -0 a 0
    value, low, high = (f"{round(found[part], 2) + 0.0:.2f}" for part in ("value", "low", "high"))
    interval = "no interval" if np.isnan(found["low"]) else f"[{low}, {high}]"
    return f"{name.capitalize()} {value} {interval}"


def _legend(points: pd.DataFrame, outside: bool) -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "ls": "none", "ms": 3.2, "mec": _POINT, "mew": 0.5}
    handles = [Line2D([], [], mfc=_POINT, label="identity of a seed", **dot)]
    measures = set(points["measure"].dropna())
    if "balanced_accuracy" in measures:
        handles.append(Line2D([], [], mfc="none", label="the same, balanced accuracy", **dot))
    if outside:
        handles.append(Line2D([], [], marker="^", ls="none", ms=3, color=_POINT, mew=0, label="beyond the axis"))
    if (points["quantity"] == "bin").any():
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                ms=4.5,
                color=_BIN,
                mec="white",
                ls="none",
                label="equal parts: mean, std over seeds",
            )
        )
    return handles
