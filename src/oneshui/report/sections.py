"""The sections of the report: what stands in them, in order. The template says how it looks."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from oneshui import __version__
from oneshui.config import TRAINED
from oneshui.report import explorer
from oneshui.report.attacks import POOLED
from oneshui.report.columns import MISSING, cards
from oneshui.report.contents import Inputs, labels_of
from oneshui.report.figures import roc
from oneshui.report.figures.identities import by_distance
from oneshui.report.figures.save import image_of
from oneshui.report.figures.tow import tow_gains
from oneshui.report.identities import identity_points, in_setting, top_methods
from oneshui.report.style import setting_name
from oneshui.report.tables import settings_of
from oneshui.report.verdict import verdict
from oneshui.report.write import (
    Cell,
    Grid,
    ablation,
    columns_of,
    grid,
    is_asked,
    name_of,
    note_of,
    unit_of,
    warnings_of,
)
from oneshui.runs import Model

#: what the template shows, by its ``type``
Item = Mapping[str, Any]

#: values of the configuration that name a place on the machine
_PLACE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\|file:)")


@dataclass(frozen=True)
class Part:
    """Items of a section under a heading; ``kind`` is a class of the style sheet."""

    title: str
    items: Sequence[Item]
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the page; one without parts is left out."""

    id: str
    title: str
    lead: str
    parts: Sequence[Part]


def sections_of(inputs: Inputs) -> tuple[list[Section], str]:
    """Return the sections that have something to say, and the content of the identity explorer ("" without one)."""
    points = identity_points(inputs.identities)
    labels = labels_of(inputs, list(points["method"].unique()))
    shown = {name: label for name, label in labels.items() if (points["method"] == name).any()}
    people, content = _identities(inputs, points, shown)
    sections = [
        Section("summary", "Summary", "", _summary(inputs)),
        Section("tables", "Tables", "", _grids(inputs, "results", "")),
        Section("attacks", "Attacks", "Can an attacker tell forget images from images that no model saw?",
                [*_grids(inputs, "attacks", "Attacks on "), *_curves(inputs, labels)]),
        Section("controls", "Controls", "Do the features still know the people? Did the photo matter?",
                _grids(inputs, "controls", "Controls of ")),
        Section("traces", "Traces", "Does the model still know the forget images, beneath its answers?",
                _grids(inputs, "traces", "Traces in ")),
        Section("identities", "Identities", "Who is hard to forget, and who is harmed? A dot is a person in one seed. "
                "0 is ideal. The page has no faces and no names.", people),
        Section("cost", "Cost", "Prepare runs once, before the data is deleted. Unlearn runs for each request.",
                _grids(inputs, "costs", "Cost, ")),
        Section("data", "Data checks", "A near-identical picture with two roles makes a test image known to the model.",
                _data(inputs)),
        Section("provenance", "Provenance", "", _provenance(inputs)),
        Section("cards", "What each number means", "docs/metrics.md has the formulas and limits under the same names.",
                [Part("", [{"type": "cards", "cards": cards()}])]),
    ]  # fmt: skip
    return [section for section in sections if section.parts], content


def _table(caption: str, rows: Grid, *, note: str = "", fold: str = "", kind: str = "") -> Item:
    return {"type": "table", "caption": caption, "note": note, "rows": rows, "fold": fold, "kind": kind}


def _plain(*rows: Sequence[str]) -> Grid:
    return [[Cell(text) for text in row] for row in rows]


def _warnings(lines: Sequence[str]) -> list[Item]:
    return [{"type": "warnings", "lines": lines}] if lines else []


def _image(caption: str, alt: str, figure: Figure, *, wide: bool) -> Item:
    return {"type": "image", "caption": caption, "alt": alt, "image": image_of(figure), "wide": wide}


def _per_setting(
    inputs: Inputs, items_of: Callable[[str, str, pd.DataFrame], list[Item]], *, whole: bool = False, kind: str = ""
) -> list[Part]:
    """Return a part for each table that has items.

    Args:
        inputs: of the page.
        items_of: takes the name of a table, the name of a setting, and its rows.
        whole: a table with ``layout: tow`` is given whole.
        kind: of the parts.
    """
    parts = []
    for name, results in inputs.tables.items():
        settings = [(setting_name(*key), rows) for key, rows in settings_of(results)]
        if whole and inputs.spec(name).get("layout") == "tow":
            settings = [("ToW, %", results)]
        items = [item for setting, rows in settings for item in items_of(name, setting, rows)]
        parts += [Part(str(inputs.spec(name)["title"]), items, kind)] if items else []
    return parts


def _summary(inputs: Inputs) -> list[Part]:
    def items_of(name: str, setting: str, rows: pd.DataFrame) -> list[Item]:
        said = " ".join(verdict(rows, n_seeds=len(inputs.seeds), decimals=inputs.decimals(name)))
        drawn = tow_gains(rows, inputs.decimals(name), inputs.kinds)
        image, alt = (image_of(drawn[0]), drawn[1]) if drawn else ("", "")
        return [{"type": "setting", "title": setting, "verdict": said, "image": image, "alt": alt}]

    count = len(inputs.seeds)
    words = (
        f"{count} {'seed' if count == 1 else 'seeds'}: {', '.join(map(str, inputs.seeds))}. A dot is the mean over "
        "seeds, a bar its 95% interval, an arrow the end of the picture. A full dot: the interval leaves out 0, the "
        "original model."
    )
    if any("ceiling" in set(results["method"]) for results in inputs.tables.values()):
        words += " The second retrained model shows the noise of training."
    return [*_per_setting(inputs, items_of, kind="settings"), Part("", [{"type": "text", "text": words}])]


def _grids(inputs: Inputs, view: str, caption: str) -> list[Part]:
    """Return the columns of a view of each setting; nothing where no table asks for them or has their numbers."""
    shown: set[str] = set()  # tables may share runs, whose costs are to be seen once

    def items_of(name: str, setting: str, rows: pd.DataFrame) -> list[Item]:
        spec, decimals, count = inputs.spec(name), inputs.decimals(name), len(inputs.seeds)
        rows = rows[~rows["method"].isin(TRAINED)] if view == "costs" else rows
        columns = columns_of(rows, view)
        if not is_asked(view, spec):
            return []
        if view == "costs" and rows[[column.names[0] for column in columns]].isna().all(axis=None):
            return []
        whole = view == "results" and spec.get("layout") == "tow"
        cells = (
            ablation(rows, decimals, published=bool(spec.get("published"))) if whole else grid(rows, columns, decimals)
        )
        if view == "costs" and f"{setting} {cells}" in shown:
            return []
        shown.add(f"{setting} {cells}")
        unit = f"({unit_of(rows)}) " if view == "results" and not whole else ""
        items = [_table(f"{caption}{setting}", cells, note=f"{unit}{note_of(view, rows, count)}")]
        if view == "results":
            items += _warnings(warnings_of(rows, count, privacy=bool(spec.get("privacy")) and not whole))
        if view == "attacks" and name in inputs.attacks:
            items += _auc_by_seed(inputs.attacks[name], rows, decimals)
        return items

    return _per_setting(inputs, items_of, whole=view == "results")


def _auc_by_seed(summary: pd.DataFrame, rows: pd.DataFrame, decimals: int) -> list[Item]:
    """Return the AUC of each seed with its interval, folded away."""
    key = rows.iloc[0]
    own = summary[(summary["dataset"] == key["dataset"]) & (summary["n"] == key["n"]) & (summary["attack"] == "rmia")]
    own = own[(own["metric"] == "auc") & (own["seed"].astype(str) != POOLED)]
    found = {
        (str(row), int(seed)): f"{100 * value:.{decimals}f} [{100 * low:.{decimals}f}, {100 * high:.{decimals}f}]"
        for row, seed, value, low, high in own[["row", "seed", "value", "low", "high"]].itertuples(index=False)
    }
    seeds = sorted({seed for _, seed in found})
    lines = [[Cell("Model"), *(Cell(f"seed {seed}") for seed in seeds)]]
    for row in rows.to_dict("records"):
        model = str(Model.in_table(str(row["method"])))
        lines.append([name_of(row), *(Cell(found.get((model, seed), MISSING)) for seed in seeds)])
    return [_table("AUC of each seed, % [95% interval]", lines, fold="AUC by seed")] if seeds else []


def _curves(inputs: Inputs, labels: Mapping[str, str]) -> list[Part]:
    items: list[Item] = []
    for name, curves in inputs.roc.items():
        source = inputs.config.get("figures", {}).get(name, {}).get("table", name)
        methods = map(str, inputs.tables[source]["method"]) if source in inputs.tables else ()
        order = list(dict.fromkeys([*(str(Model.in_table(name)) for name in methods), *curves["row"]]))
        for setting, own in settings_of(curves):
            caption = f"ROC curves, {setting_name(*setting)}"
            gone = [labels[Model.of(row).method_name] for row in order if row not in set(own["row"])]
            alt = f"{caption}: true against false positive rate of the attack on each model. The table has the numbers."
            items.append(_image(caption, alt, roc.draw(own, order, labels, inputs.kinds), wide=True))
            items += _warnings([f"No ROC curve of {', '.join(gone)}: {MISSING}."] if gone else [])
    return [Part("ROC curves", items)] if items else []


def _identities(inputs: Inputs, points: pd.DataFrame, labels: Mapping[str, str]) -> tuple[list[Part], str]:
    """Return the parts of the section, and the content of the explorer."""
    if points.empty:
        return [], ""
    known = [key for table in inputs.tables.values() for key, _ in settings_of(table)]
    settings = explorer.settings_in(points, known)
    content, left_out = explorer.chart(points, settings=settings, labels=labels, kinds=inputs.kinds)
    words = f"The chart leaves out {left_out} of {len(points)} dots, by order of distance; the tables have them all."
    parts = [Part("", [{"type": "explorer"}, *([{"type": "text", "text": words}] if left_out else [])])]
    for key in settings:
        own, title = in_setting(points, *key), setting_name(*key)
        note = "Mean over identities and seeds in points; Spearman correlation [95% interval]."
        items = _warnings(explorer.absent(own, labels, inputs.seeds))
        items.append(_table(f"Identities, {title}", explorer.correlations(own, labels), note=note))
        parts += [Part(title, items), Part("", _identity_figures(inputs, key, own, labels), "pair")]
    return parts, content


def _identity_figures(inputs: Inputs, key: tuple[str, int], own: pd.DataFrame, labels: Mapping[str, str]) -> list[Item]:
    """Return the paper's figures 4 and 5 of a setting, for the best methods that have identities in every seed."""
    counts = own.groupby("method")["seed"].nunique()
    complete = set(counts[counts == len(inputs.seeds)].index)
    for results in inputs.tables.values():
        rows = in_setting(results, *key)
        rows = rows[rows["method"].isin(complete)]
        best = {key: top_methods(rows, *key) if len(rows) else []}
        if best[key]:
            items = []
            for which, words in (("forget", "Who is hard to forget"), ("retain", "Who is harmed")):
                caption = f"{words}, {setting_name(*key)}: mean of the best methods"
                alt = f"{caption}, against distance, with means of equal parts. The table has the correlations."
                items.append(_image(caption, alt, by_distance(own, best, inputs.seeds, which, labels)[0], wide=False))
            return items
    return []


def _data(inputs: Inputs) -> list[Part]:
    head = (
        "Dataset, seed",
        "Train",
        "Validation",
        "Test",
        "Identities",
        "Can ask",
        "In several roles",
        "Groups of them",
    )
    rows = []
    for frame, meta in sorted(inputs.splits, key=lambda pair: (str(pair[1]["dataset"]), int(pair[1]["seed"]))):
        counts = frame["role"].value_counts()
        roles = [str(int(counts.get(role, 0))) for role in ("train", "val", "test")]
        asking = frame.loc[frame["request_rank"].notna(), "identity"].nunique()
        images, groups = int(meta["overlap"]["images"]), int(meta["overlap"]["groups"])
        leaky = f"{images} ({100 * images / max(len(frame), 1):.1f}%)" if images else "0"
        where = f"{meta['dataset']}, seed {meta['seed']}"
        rows.append([where, *roles, str(frame["identity"].nunique()), str(asking), leaky, str(groups)])
    note = "Images by role, identities, and near-identical images whose copies have several roles."
    return [Part("", [_table("Splits", _plain(head, *rows), note=note)])] if rows else []


def _provenance(inputs: Inputs) -> list[Part]:
    # a detour over JSON: YAML would write what occurs twice as a reference
    config = _without_places(json.loads(json.dumps(inputs.config)))
    words = (
        f"oneshui {__version__}, {inputs.machine}. The page has no time stamp: the same files make the same page. "
        "Places on the machine are left out of the configuration."
    )
    items: list[Item] = [
        {"type": "text", "text": words},
        {"type": "code", "fold": "Configuration",
         "text": yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=110)},
        _table("Packages that made this page", _plain(("Package", "Version"), *inputs.versions.items()),
               fold=f"Versions of {len(inputs.versions)} packages"),
        _table("SHA-256 of what this page was made from", _plain(("File", "SHA-256"), *inputs.files), kind="hashes",
               fold=f"{len(inputs.files)} input files"),
    ]  # fmt: skip
    return [Part("", items)]


def _without_places(value: Any) -> Any:
    """Return a configuration in which paths of this machine are cut down to their last name."""
    if isinstance(value, dict):
        return {key: _without_places(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    if isinstance(value, str) and _PLACE.match(value):
        return ".../" + re.split(r"[\\/]", value.rstrip("/"))[-1]
    return value
