"""The report: one page that needs nothing but itself, made from tables, attacks, curves, identities and splits.

``render`` is a pure function of its inputs: same inputs, same bytes. The page's policy forbids its reader's browser to
load anything, and to run or apply any script or style but those that ``render`` puts in (by their hashes): a script in
a title would not run even if it were not escaped.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from oneshui import __version__
from oneshui.config import TRAINED
from oneshui.errors import ConfigError, DataError
from oneshui.paths import origin_and_method
from oneshui.report import explorer
from oneshui.report.attacks import POOLED
from oneshui.report.columns import COLUMNS, MISSING, NAMES, cards
from oneshui.report.figures import roc
from oneshui.report.figures.identities import by_distance
from oneshui.report.figures.save import image_of
from oneshui.report.figures.tow import tow_gains
from oneshui.report.identities import identity_points, in_setting, top_methods
from oneshui.report.numbers import Numbers, index_attacks
from oneshui.report.style import display_name, setting_name
from oneshui.report.tables import settings_of
from oneshui.report.verdict import verdict
from oneshui.report.write import Cell, Grid, ablation, columns_of, grid, name_of, note_of, unit_of, warnings_of

Item = Mapping[str, Any]

#: values of the configuration that name a place on the machine
_PLACE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\|file:)")
#: percentage points that a rounded table may differ from the summary of its attacks
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Inputs:
    """What a report is made from.

    Attributes:
        tables: by name, in the order of the page; columns ``oneshui.report.columns.NAMES``, numbers in percent.
        attacks: by name of the table; columns ``oneshui.report.attacks.COLUMNS``, fractions.
        roc: by name of the figure; columns ``oneshui.report.figures.roc.COLUMNS``, fractions.
        identities: tables of schema IDENTITIES with their metadata.
        splits: tables of schema SPLITS with their metadata.
        config: the whole configuration.
        versions: by package.
        files: name and SHA-256 of each file that was read.
        machine: platform and Python.
    """

    tables: Mapping[str, pd.DataFrame]
    attacks: Mapping[str, pd.DataFrame]
    roc: Mapping[str, pd.DataFrame]
    identities: Sequence[tuple[pd.DataFrame, Mapping[str, Any]]]
    splits: Sequence[tuple[pd.DataFrame, Mapping[str, Any]]]
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Sequence[tuple[str, str]]
    machine: str

    @property
    def seeds(self) -> list[int]:
        return [int(seed) for seed in self.config["seeds"]]

    def spec(self, name: str) -> Mapping[str, Any]:
        """Return the configuration of a table."""
        spec: Mapping[str, Any] = self.config["tables"][name]
        return spec

    def decimals(self, name: str) -> int:
        return int(self.spec(name).get("decimals", 1))


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


def render(inputs: Inputs) -> str:
    """Return the page as HTML.

    Raises:
        ConfigError: a table is not in the configuration, or that has no seeds.
        DataError: a table lacks columns, or files contradict each other.
    """
    _check(inputs)
    points = identity_points(inputs.identities)
    labels = _labels(inputs, list(points["method"].unique()))
    shown = {name: label for name, label in labels.items() if (points["method"] == name).any()}
    people, content = _identities(inputs, points, shown)
    sections = [
        Section("summary", "Summary", "", _summary(inputs)),
        Section("tables", "Tables", "", _grids(inputs, "results", "")),
        Section("attacks", "Attacks", "Can an attacker tell forget images from images that no model saw?",
                [*_grids(inputs, "attacks", "Attacks on "), *_curves(inputs, labels)]),
        Section("controls", "Controls", "Do the features still know the people? Did the photo matter?",
                _grids(inputs, "controls", "Controls of ")),
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
    style, script = _resource("page.css"), _resource("page.js")
    library = explorer.library() if content else ""
    allowed = " ".join(_hash(text) for text in (library, script)) if content else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'"
    page: str = _template().render(
        policy=f"{policy}; form-action 'none'",
        style=style,
        script=script,
        library=library,
        explorer=content,
        sections=[section for section in sections if section.parts],
    )
    return page


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("oneshui.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    return environment.get_template("page.html.j2")


def _signed(text: str) -> str:
    """Return text with true minus signs before numbers, and a dash for no value."""
    return "\N{EN DASH}" if text == "-" else re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)


def _resource(name: str) -> str:
    return resources.files("oneshui.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _check(inputs: Inputs) -> None:
    specs = inputs.config.get("tables", {})
    if not inputs.config.get("seeds"):
        raise ConfigError("report: the configuration has no seeds, so that numbers stand for nothing. Add them.")
    for name, results in inputs.tables.items():
        if name not in specs or "title" not in specs[name]:
            raise ConfigError(f"report: table {name} has no title in the config; its tables are {', '.join(specs)}")
        _require(results, NAMES, f"table {name}")
    for name, summary in inputs.attacks.items():
        if name not in inputs.tables:
            raise DataError(f"report: attacks of {name}, but no such table; tables are {', '.join(inputs.tables)}")
        _check_attacks(inputs.tables[name], summary, name)
    for name, curves in inputs.roc.items():
        _require(curves, roc.COLUMNS, f"ROC points {name}")


def _require(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"report: {what} lacks the columns {', '.join(missing)}; it was made by another version. Delete it to make "
            "it again."
        )


def _check_attacks(results: pd.DataFrame, summary: pd.DataFrame, name: str) -> None:
    """Refuse a table and a summary of attacks that contradict each other."""
    columns = [column for column in COLUMNS if column.view == "attacks"]
    for row in results.to_dict("records"):
        dataset, n, method = str(row["dataset"]), int(row["n"]), str(row["method"])
        numbers = Numbers(method, None, (), {}, *index_attacks(summary, dataset, n, _model_of(method)), {})
        for column in columns:
            found = column.source(numbers)
            for key, part in zip(column.names, column.parts, strict=True):
                ours, theirs = float(row[key]), float(found.get(part, math.nan))
                if math.isnan(ours) != math.isnan(theirs) or abs(ours - theirs) > _TOLERANCE:
                    raise DataError(
                        f"table {name} has {key} = {ours:.6g} for {method} on {dataset}, n = {n}, its summary of "
                        f"attacks {theirs:.6g}; they belong to different runs. Delete the older one to make it again."
                    )


def _model_of(method: str) -> str:
    return method if method in TRAINED else f"pretrain/{method}"


def _labels(inputs: Inputs, others: Sequence[str]) -> dict[str, str]:
    """Return how methods are written, in the order of the tables; one name never stands for two methods."""
    labels: dict[str, str] = {}
    for results in inputs.tables.values():
        for method, label in zip(results["method"], results["label"], strict=True):
            labels.setdefault(str(method), display_name(str(method), str(label)))
    rows = [str(row) for curves in inputs.roc.values() for row in curves["row"].unique()]
    for method in [*others, *(origin_and_method(row)[1] for row in rows)]:
        labels.setdefault(method, display_name(method))
    written = list(labels.values())
    return {name: f"{text} ({name})" if written.count(text) > 1 else text for name, text in labels.items()}


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
        drawn = tow_gains(rows, inputs.decimals(name))
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
        asked = view == "results" or (view != "costs" and spec.get("privacy"))
        if not asked and rows[[column.names[0] for column in columns]].isna().all(axis=None):
            return []
        whole = view == "results" and spec.get("layout") == "tow"
        cells = ablation(rows, decimals) if whole else grid(rows, columns, decimals)
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
        model = _model_of(str(row["method"]))
        lines.append([name_of(row), *(Cell(found.get((model, seed), MISSING)) for seed in seeds)])
    return [_table("AUC of each seed, % [95% interval]", lines, fold="AUC by seed")] if seeds else []


def _curves(inputs: Inputs, labels: Mapping[str, str]) -> list[Part]:
    items: list[Item] = []
    for name, curves in inputs.roc.items():
        source = inputs.config.get("figures", {}).get(name, {}).get("table", name)
        methods = map(str, inputs.tables[source]["method"]) if source in inputs.tables else ()
        order = list(dict.fromkeys([*map(_model_of, methods), *curves["row"]]))
        for setting, own in settings_of(curves):
            caption = f"ROC curves, {setting_name(*setting)}"
            gone = [labels[origin_and_method(row)[1]] for row in order if row not in set(own["row"])]
            alt = f"{caption}: true against false positive rate of the attack on each model. The table has the numbers."
            items.append(_image(caption, alt, roc.draw(own, order, labels), wide=True))
            items += _warnings([f"No ROC curve of {', '.join(gone)}: {MISSING}."] if gone else [])
    return [Part("ROC curves", items)] if items else []


def _identities(inputs: Inputs, points: pd.DataFrame, labels: Mapping[str, str]) -> tuple[list[Part], str]:
    """Return the parts of the section, and the content of the explorer."""
    if points.empty:
        return [], ""
    known = [key for table in inputs.tables.values() for key, _ in settings_of(table)]
    settings = explorer.settings_in(points, known)
    content, left_out = explorer.chart(points, settings=settings, labels=labels)
    words = f"The chart leaves out {left_out} of {len(points)} dots, by order of distance; the tables have them all."
    parts = [Part("", [{"type": "explorer"}, *([{"type": "text", "text": words}] if left_out else [])])]
    for key in settings:
        own, title = in_setting(points, *key), setting_name(*key)
        note = "Mean over identities and seeds in points; Spearman correlation [95% interval]."
        items = _warnings(explorer.absent(own, labels, inputs.seeds))
        items.append(_table(f"Identities, {title}", explorer.correlations(own, labels), note=note))
        parts += [Part(title, items), Part("", _identity_figures(inputs, key, own), "pair")]
    return parts, content


def _identity_figures(inputs: Inputs, key: tuple[str, int], own: pd.DataFrame) -> list[Item]:
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
                items.append(_image(caption, alt, by_distance(own, best, inputs.seeds, which)[0], wide=False))
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
