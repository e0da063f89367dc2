"""Which identities are hard to forget and whom unlearning harms: one dot per identity, to be looked at one by one.

An identity is a number; nothing here has a name or a face.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.metrics.identities import Correlation, equal_count_bins, spearman
from oneshui.paths import origin_and_method
from oneshui.report.cells import MISSING
from oneshui.report.page_charts import Scale, dot, legend, scatter_axis, scatter_grid
from oneshui.report.page_html import Markup, join, px, signed, table, tag
from oneshui.report.style import MEASURE_NAMES, block_name

Tables = Sequence[tuple[pd.DataFrame, Mapping[str, Any]]]
Block = tuple[str, int]

#: dots in the whole page; beyond that every k-th is drawn, so that the page stays small
_MOST_DOTS = {"forget": 8000, "retain": 3000}
#: equal parts of the retain identities, fewer where a part would have less than two of some seed
_BINS, _IN_BIN = 8, 2
#: px: height of the plot without its axes, and how far apart the methods' dots of one forget identity are
_HEIGHT, _APART = 380, 3.0
#: set of identities -> the model compared with, its word, and what the axes say
_SETS = {
    "forget": (
        "retrain",
        "retrained",
        "Forget gap",
        "distance from the support photo to the centroid of the forget images",
    ),
    "retain": ("pretrain", "pretrained", "Retain harm", "distance from the centroid to the nearest forget centroid"),
}


def identity_points(tables: Tables) -> pd.DataFrame:
    """Return one row per identity, method, seed and set: what is drawn.

    Args:
        tables: of schema IDENTITIES with their metadata; a model that blew up has no rows.

    Returns:
        dataset, n, method, seed, set, identity, n_images, measure, distance; ``model`` and ``base`` in percent, and
        ``value``, their difference in percentage points: to the retrained model for forget identities, to the
        pretrained one for retain identities.

    Raises:
        DataError: a table is of a model that is not ``pretrain/METHOD`` or a trained one, or two are of the same.
    """
    parts: dict[tuple[str, int, str, int], pd.DataFrame] = {}
    for frame, meta in tables:
        origin, method = origin_and_method(str(meta["row"]))
        key = (str(meta["dataset"]), int(meta["n"]), method, int(meta["seed"]))
        if origin not in TRAINED or (origin != method and origin != "pretrain"):
            raise DataError(
                f"identities of {meta['row']} ({key[0]}, n = {key[1]}): allowed are pretrain/METHOD and ceiling"
            )
        if key in parts:
            raise DataError(f"two tables of identities of {meta['row']} on {key[0]}, n = {key[1]}, seed {key[3]}")
        base = frame["retrain"].where(frame["set"] == "forget", frame["pretrain"])
        part = frame[["set", "identity", "n_images", "measure", "distance"]].assign(
            dataset=key[0], n=key[1], method=method, seed=key[3], model=100 * frame["value"], base=100 * base,
            value=100 * (frame["value"] - base),
        )  # fmt: skip
        parts[key] = part
    filled = [part for part in parts.values() if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=["dataset", "n", "method", "set"])


def explorer(
    points: pd.DataFrame, *, blocks: Sequence[Block], methods: Sequence[str], labels: Mapping[str, str],
    colours: Mapping[str, str], seeds: Sequence[int],
) -> Markup:  # fmt: skip
    """Return, for each dataset and n, scatter plots of both sets and their correlations.

    Without JavaScript everything is shown; with it a reader chooses.

    Args:
        points: what ``identity_points`` returned.
        blocks: in the order of the page; others that ``points`` has follow.
        methods: those in ``points``, in the order of the tables.
        labels: how they are written.
        colours: of each, as CSS.
        seeds: that every method should have.
    """
    if points.empty:
        return tag("p", "No tables of identities were given, or all of their models blew up.")
    found = dict.fromkeys(zip(points["dataset"], points["n"].astype(int), strict=True))
    blocks = [block for block in dict.fromkeys([*blocks, *found]) if block in found]
    step = {name: _step(points, name) for name in _SETS}
    parts = [_filters(blocks, methods, labels, colours)]
    for i, block in enumerate(blocks):
        own = points[(points["dataset"] == block[0]) & (points["n"] == block[1])]
        figures = [_figure(own[own["set"] == name], name, methods, labels, colours, step[name]) for name in _SETS]
        parts.append(
            tag(
                "div",
                tag("h3", block_name(*block)),
                _absent(own, methods, labels, seeds),
                tag("div", *figures, class_="sets"),
                _correlations(own, methods, labels, f"identities-{i}", block),
                class_="block",
                data_block=i,
            )
        )
    return tag("div", *parts, id="explorer")


def _step(points: pd.DataFrame, which: str) -> int:
    """Return k such that every k-th dot of a set fits into the page."""
    return max(1, math.ceil(int((points["set"] == which).sum()) / _MOST_DOTS[which]))


def _filters(
    blocks: Sequence[Block], methods: Sequence[str], labels: Mapping[str, str], colours: Mapping[str, str]
) -> Markup:
    """Return what chooses; hidden until a script serves it."""
    options = [tag("option", block_name(*block), value=i) for i, block in enumerate(blocks)]
    sets = [
        tag("label", tag("input", type="radio", name="set", value=name, checked=name == "forget"), f" {words[2]}")
        for name, words in _SETS.items()
    ]
    boxes = [
        tag(
            "label",
            tag("input", type="checkbox", name="method", value=i, checked=True),
            dot(colours[name]),
            labels[name],
        )
        for i, name in enumerate(methods)
    ]
    return tag(
        "form",
        tag("p", tag("label", "Runs ", tag("select", *options, name="block"))),
        tag("fieldset", tag("legend", "Show"), *sets),
        tag("fieldset", tag("legend", "Methods"), *boxes, tag("button", "all or none", type="button", name="all")),
        tag("p", class_="hint", role="status", id="explorer-status"),
        id="filters",
        hidden=True,
        aria_label="What the plot shows",
    )


def _absent(
    own: pd.DataFrame, methods: Sequence[str], labels: Mapping[str, str], seeds: Sequence[int]
) -> Markup | None:
    found = set(zip(own["method"], own["seed"].astype(int), strict=True))
    gone = [f"{labels[name]}, seed {seed}" for name in methods for seed in seeds if (name, seed) not in found]
    if not gone:
        return None
    return tag("p", f"{MISSING.capitalize()} (no file, or the model blew up): {'; '.join(gone)}.", class_="warning")


def _figure(
    points: pd.DataFrame, which: str, methods: Sequence[str], labels: Mapping[str, str], colours: Mapping[str, str],
    step: int,
) -> Markup:  # fmt: skip
    _, word, title, axis = _SETS[which]
    if points.empty:
        return tag("figure", tag("figcaption", f"{title}: {MISSING}"), data_set=which)
    drawn = points.sort_values(["method", "seed", "distance", "identity"]).iloc[::step]
    bins = {name: _bins(points[points["method"] == name]) for name in methods} if which == "retain" else {}
    bars = [end for part in bins.values() for sign in (-1, 1) for end in part["value"] + sign * part["std"].fillna(0)]
    x = Scale.over(drawn["distance"].tolist(), 0.03)
    y = Scale.around([*drawn["value"], *bars])
    groups: dict[str, list[Markup]] = {"dots": [], "means": []}
    for i, name in enumerate(methods):
        own = drawn[drawn["method"] == name]
        dots = [_dot(row, x, y, labels[name], word) for row in own.to_dict("records")]
        lines = _bin_marks(bins[name], x, y) if name in bins else []
        shift = _APART * (i - (len(methods) - 1) / 2)
        aside = f"translate({px(shift)} 0)" if which == "forget" else None
        for part, kind in ((dots, "dots"), (lines, "means")):
            if part:
                looks = {"fill": colours[name], "stroke": colours[name], "transform": aside}
                groups[kind].append(tag("g", *part, class_=kind, data_method=i, **looks))
    name = f"{title} against {axis}; {len(drawn)} dots, described in the table below"
    marks = [scatter_grid(x, y, _HEIGHT), *groups["dots"], *groups["means"]]
    ends = {"data_low": f"{y.low:.6g}", "data_high": f"{y.high:.6g}"}
    field = tag("svg", *marks, class_="field", height=_HEIGHT, role="group", aria_label=name, **ends)
    plot = tag(
        "div",
        scatter_axis(y, upright=True, height=_HEIGHT, name=""),
        field,
        scatter_axis(x, upright=False, height=_HEIGHT, name=axis),
        class_="plot",
    )
    shown = [(dot(colours[method]), labels[method]) for method in methods if (drawn["method"] == method).any()]
    return tag(
        "figure",
        tag("figcaption", *_caption(points, which, step, bins)),
        legend(shown),
        plot,
        data_set=which,
    )


def _caption(points: pd.DataFrame, which: str, step: int, bins: Mapping[str, pd.DataFrame]) -> list[Markup]:
    _, word, title, axis = _SETS[which]
    measures = [_measure(name) for name in dict.fromkeys(points["measure"])]
    text = (
        f"{' or '.join(measures)} of the unlearned minus that of the {word} model, in points (upright), against "
        f"the {axis} in the pretrained model's features. A dot is an identity in one seed."
    )
    if which == "forget":
        text += " The methods' dots of an identity stand a few pixels apart."
    if "balanced_accuracy" in set(points["measure"]):
        text += " Hollow: balanced accuracy, where no attribute has both values."
    if step > 1:
        text += f" Of {len(points)} dots one in {step} is drawn, by order of distance."
    if any(len(part) for part in bins.values()):
        text += " Large: means of equal parts of all identities, near to far, with the standard deviation over seeds."
    return [tag("strong", f"{title}. "), join([text[0].upper() + text[1:]])]


def _measure(name: str) -> str:
    return MEASURE_NAMES.get(name, name.replace("_", " "))


def _dot(row: Mapping[Any, Any], x: Scale, y: Scale, label: str, word: str) -> Markup:
    values = f"{_measure(row['measure'])} {row['model']:.1f}%, {word} {row['base']:.1f}%"
    text = (
        f"{label}, identity {row['identity']}, seed {row['seed']}: {row['value']:+z.1f} points ({values}), "
        f"{row['n_images']} images, distance {row['distance']:.3g}"
    )
    height = (1 - y.share(float(row["value"]))) * _HEIGHT
    hollow = "hollow" if row["measure"] == "balanced_accuracy" else None
    return tag(
        "circle", tag("title", signed(text)), cx=x.percent(float(row["distance"])), cy=height, r=4, class_=hollow
    )


def _bins(points: pd.DataFrame) -> pd.DataFrame:
    """Return means of equal parts near to far, none where the identities are too few."""
    bins = min(_BINS, int(points.groupby("seed").size().min()) // _IN_BIN) if len(points) else 0
    return equal_count_bins(points, bins) if bins > 1 else pd.DataFrame(columns=["distance", "value", "std"])


def _bin_marks(bins: pd.DataFrame, x: Scale, y: Scale) -> list[Markup]:
    """Return means joined by lines, each with its spread over seeds."""
    places = [
        (x.percent(float(distance)), (1 - y.share(float(value))) * _HEIGHT, float(std) / (y.high - y.low) * _HEIGHT)
        for distance, value, std in zip(bins["distance"], bins["value"], bins["std"], strict=True)
    ]
    marks = [
        tag("line", x1=before[0], y1=before[1], x2=after[0], y2=after[1], class_="trend")
        for before, after in pairwise(places)
    ]
    for at, height, spread in places:
        if math.isfinite(spread):
            marks.append(tag("line", x1=at, x2=at, y1=height - spread, y2=height + spread, class_="trend"))
        marks.append(tag("circle", cx=at, cy=height, r=5.5, class_="mean"))
    return marks


def _correlations(
    own: pd.DataFrame, methods: Sequence[str], labels: Mapping[str, str], name: str, block: Block
) -> Markup:
    """Return who is hard to forget and who is harmed, in numbers."""
    head = ["Method"]
    for _, _, title, _ in _SETS.values():
        head += [f"{title}: identities", "mean, points", "Spearman"]
    rows = []
    for method in methods:
        cells: list[str] = [labels[method]]
        for which in _SETS:
            part = own[(own["method"] == method) & (own["set"] == which)]
            if part.empty:
                cells += [MISSING, MISSING, MISSING]
                continue
            count, seeds = part["identity"].nunique(), part["seed"].nunique()
            cells.append(f"{count} in {seeds} {'seed' if seeds == 1 else 'seeds'}")
            cells.append(signed(f"{part['value'].mean():+z.1f}"))
            cells.append(_correlation_text(spearman(part)))
        rows.append(cells)
    caption = (
        f"{block_name(*block)}: mean difference over identities and seeds, and how steadily it rises with distance "
        "(rank correlation within seeds [95% interval])."
    )
    return table(caption, head, rows, name=name)


def _correlation_text(found: Correlation) -> str:
    if math.isnan(found.value):
        return "none: nothing varies"
    value, low, high = (f"{round(part, 2) + 0.0:.2f}" for part in (found.value, found.low, found.high))
    return signed(f"{value} [{low}, {high}]" if math.isfinite(found.low) else f"{value} (no interval)")
