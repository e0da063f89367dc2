"""Which identities are hard to forget, and whom unlearning harms: the paper's figures 4, 5 and 6."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.metrics.identities import equal_count_bins, pearson, spearman
from oneshui.report.style import DOUBLE_COLUMN, MEASURE_NAMES, RC, SINGLE_COLUMN, block_name, method_name

Tables = Iterable[tuple[pd.DataFrame, Mapping[str, Any]]]
Block = tuple[str, int]

#: equal parts of the identities, fewer where a part would have less than two of some seed
_BINS = 5
_IN_BIN = 2
#: share of the points that the vertical axis has room for, where there are many; the others are drawn at its ends
_SHOWN, _MANY = 0.9, 100
#: letters in a line above a panel
_LINE = 40
_POINT, _BIN = "#56B4E9", "#D55E00"
#: identities and forget images of each in the figure of the hardest
_HARDEST, _IMAGES = 5, 5
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


def top_methods(table: pd.DataFrame, dataset: str, n: int, count: int = 3) -> list[str]:
    """Return the best unlearning methods of a block by mean tug of war, best first.

    Only methods without access to the training data count. The figures ask what follows from where a support photo
    lies: a method that also trains on forget images does not depend on the photo, and one that trains on retain images
    mends the harm that is to be seen.

    Args:
        table: columns dataset, n, method, access_to_data, tow_mean, as of ``oneshui.report.tables.make_table``.
        dataset: of the block.
        n: of the block.
        count: most methods to return. The paper takes three (sections 5.4 and 5.5).

    Returns:
        Names of methods; of equal ones the first in the table comes first. Fewer than ``count`` where there are no
        more that have a tug of war in every seed.

    Raises:
        DataError: the table has no such block.
    """
    block = table[(table["dataset"] == dataset) & (table["n"] == n)]
    if block.empty:
        found = sorted(set(zip(table["dataset"].astype(str), table["n"].astype(int), strict=True)))
        raise DataError(f"no results of {dataset}, n = {n} in the table to choose methods from; there are: {found}")
    able = block[~block["method"].isin(TRAINED) & ~block["access_to_data"].astype(bool) & block["tow_mean"].notna()]
    return [str(name) for name in able.sort_values("tow_mean", ascending=False, kind="stable")["method"].head(count)]


def hardness(tables: Tables, top: Mapping[Block, Sequence[str]], seeds: Sequence[int]) -> tuple[Figure, pd.DataFrame]:
    """Return the paper's figure 4: are identities harder to forget if their support photo is far from their images?

    One panel per block. A point is a forget identity of one seed: unlearned minus retrained measure, in percentage
    points, mean over the methods; against the distance of its support photo to the centroid of its forget images in the
    pretrained model's features. An identity that asks in several seeds is a point in each, with another photo and other
    models. Over the points, means of equal-count parts with the standard deviation over seeds, and above them the
    correlations within seeds with their 95% intervals (``oneshui.metrics.identities``).

    Args:
        tables: tables of schema IDENTITIES with their metadata, in any order; those that are not asked for are ignored.
        top: methods to average by (dataset, n), in the order of the panels; a block without any is drawn as missing.
        seeds: the seeds that every method must have.

    Returns:
        The figure, and what is drawn: one row per ``quantity`` ``identity`` (a point), ``bin`` (with ``std``),
        ``pearson`` and ``spearman`` (with ``low`` and ``high``). ``value`` is in percentage points but for
        correlations; ``n_points`` counts the identities behind a mean or a correlation.

    Raises:
        DataError: no block has a method; a method lacks a seed or has blown up in one; tables contradict each other.
    """
    return _figure(tables, top, seeds, "forget")


def harm(tables: Tables, top: Mapping[Block, Sequence[str]], seeds: Sequence[int]) -> tuple[Figure, pd.DataFrame]:
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
    tables: Tables, top: Mapping[Block, Sequence[str]], seeds: Sequence[int], which: str
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
        for axes, (block, methods) in zip(panels, top.items(), strict=False):
            if not methods:
                axes.set_title(block_name(*block), loc="left", fontweight="bold")
                axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", fontsize=7)
                axes.set(xticks=[], yticks=[])
                continue
            part = _rows(_points(found, block, methods, seeds, which))
            outside |= _draw(axes, part, which)
            _head(axes, part, block, methods)
            parts.append(part.assign(dataset=block[0], n=block[1], methods=" ".join(methods)))
        points = pd.concat(parts, ignore_index=True)[list(_COLUMNS)]
        handles = _legend(points, outside)
        ncols = len(handles) if columns > 1 else 1
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, columnspacing=1.2)
    return figure, points


def _names(blocks: Iterable[Block]) -> str:
    return ", ".join(f"{dataset} n = {n}" for dataset, n in blocks) or "any block"


def _by_model(tables: Tables) -> dict[tuple[str, int, str, int], tuple[pd.DataFrame, bool]]:
    """Return each table and whether its model has blown up, by dataset, n, row and seed."""
    found: dict[tuple[str, int, str, int], tuple[pd.DataFrame, bool]] = {}
    for frame, meta in tables:
        key = (str(meta["dataset"]), int(meta["n"]), str(meta["row"]), int(meta["seed"]))
        if key in found:
            raise DataError(f"two tables of identities of {key[2]} on {key[0]}, n = {key[1]}, seed {key[3]}")
        found[key] = (frame, bool(meta["blown_up"]))
    return found


def _points(
    found: Mapping[tuple[str, int, str, int], tuple[pd.DataFrame, bool]], block: Block, methods: Sequence[str],
    seeds: Sequence[int], which: str,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per identity and seed of a block: mean over methods of the difference, in percentage points."""
    keys = [(*block, f"pretrain/{method}", seed) for method in methods for seed in seeds]
    lacking = [f"{key[2]} of seed {key[3]}" for key in keys if key not in found or found[key][1]]
    if lacking:
        raise DataError(
            f"{_names([block])}: no table of identities of {', '.join(lacking)}, or its model has blown up; a mean "
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
            f"{_names([block])}: the tables of {', '.join(methods)} have no {which} identities in some seed, or "
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


def _head(axes: Axes, rows: pd.DataFrame, block: Block, methods: Sequence[str]) -> None:
    """Write above a panel what it is of, and its correlations."""
    lines = textwrap.wrap(f"mean of {', '.join(method_name(name) for name in methods)}", _LINE)
    lines += [_correlation_text(rows, name) for name in ("spearman", "pearson")]
    axes.set_title(block_name(*block), loc="left", fontweight="bold", pad=5 + 9 * len(lines))
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


def hardest_identities(tables: Tables, dataset: str, n: int) -> pd.DataFrame:
    """Return the forget identities whose support photo is farthest from the centroid of their forget images.

    Distances do not depend on the unlearned model, so that tables of one method are enough; of several seeds together,
    an identity is taken once, at its largest distance.

    Args:
        tables: tables of schema IDENTITIES with their metadata; those of other blocks are ignored.
        dataset: of the block.
        n: of the block.

    Returns:
        At most five rows, the farthest first: dataset, n, seed, identity, distance.

    Raises:
        DataError: there is no forget identity.
    """
    found = [
        frame[frame["set"] == "forget"].assign(dataset=dataset, n=n, seed=int(meta["seed"]))
        for frame, meta in tables
        if (meta["dataset"], meta["n"]) == (dataset, n) and not meta["blown_up"]
    ]
    if not found:
        raise DataError(f"no table of identities of {_names([(dataset, n)])}: there is nobody to show")
    ordered = pd.concat(found).sort_values(["distance", "seed", "identity"], ascending=[False, True, True])
    columns = ["dataset", "n", "seed", "identity", "distance"]
    return ordered.drop_duplicates("identity")[columns].head(_HARDEST).reset_index(drop=True)


def hardest(
    chosen: pd.DataFrame, pixels: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> tuple[Figure, pd.DataFrame]:
    """Return the paper's figure 6: support photo and forget images of the identities of which they differ most.

    It shows faces: draw it only where somebody has asked for it. An identity is called by its number.

    Args:
        chosen: what ``hardest_identities`` returned.
        pixels: for each of its rows the support photo, ``(3, H, W)``, and forget images, ``(K, 3, H, W)``, K >= 1;
            uint8, RGB, one size. The first five forget images are drawn.

    Returns:
        The figure, and ``chosen`` with ``n_shown``, the number of forget images drawn.

    Raises:
        DataError: there is nobody to show, or pixels have another number, shape or type.
    """
    _check_pixels(chosen, pixels)
    height, width = pixels[0][0].shape[1:]
    inch = (DOUBLE_COLUMN - 0.3) / (_IMAGES + 1)
    with rc_context(RC):
        size = (DOUBLE_COLUMN, len(chosen) * (inch * height / width + 0.28) + 0.2)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(chosen), _IMAGES + 1, squeeze=False)
        for axes in grid.flatten():
            axes.set_axis_off()
        for line, row, (photo, images) in zip(grid, chosen.to_dict("records"), pixels, strict=True):
            for axes, image in zip(line, [photo, *images], strict=False):
                axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
            title = f"identity {row['identity']} (seed {row['seed']}), distance {row['distance']:.3g}"
            line[0].set_title(title, loc="left", pad=3)
            line[0].add_patch(
                Rectangle((0, 0), 1, 1, transform=line[0].transAxes, fill=False, ec=_BIN, lw=2, clip_on=False)
            )
        label = "support photo; beside it, images that are to be forgotten"
        frame = Patch(fill=False, ec=_BIN, lw=2, label=label)
        figure.legend(handles=[frame], loc="outside lower left")
    return figure, chosen.assign(n_shown=[min(len(images), _IMAGES) for _, images in pixels])


def _check_pixels(chosen: pd.DataFrame, pixels: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]) -> None:
    if chosen.empty or len(chosen) != len(pixels):
        raise DataError(f"hardest identities: {len(chosen)} are chosen, with pixels of {len(pixels)}; needed: the same")
    size = pixels[0][0].shape
    for identity, (photo, images) in zip(chosen["identity"], pixels, strict=True):
        alike = photo.shape == size and images.shape[1:] == size and len(images) and len(size) == 3 and size[0] == 3
        if not alike or photo.dtype != np.uint8 or images.dtype != np.uint8:
            raise DataError(
                f"hardest identities: identity {identity} has a photo {photo.shape} {photo.dtype} and images "
                f"{images.shape} {images.dtype}; allowed: (3, H, W) and (K, 3, H, W), K >= 1, uint8, one size for all"
            )
