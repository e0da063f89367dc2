"""The report: one page that needs nothing but itself, made from tables, attacks, curves and splits.

``render`` is a pure function of its inputs: same inputs, same bytes. The page's policy forbids its reader's browser to
load anything, and to run or apply any script or style but those that ``render`` puts in (by their hashes): a script in
a title would not run even if it were not escaped.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

import pandas as pd
import yaml

from oneshui import __version__
from oneshui.config import TRAINED
from oneshui.errors import ConfigError, DataError
from oneshui.paths import origin_and_method
from oneshui.report.attacks import POOLED
from oneshui.report.cells import blocks_of
from oneshui.report.page_charts import method_colours
from oneshui.report.page_html import Markup, join, signed, table, tag
from oneshui.report.page_identities import explorer, identity_points
from oneshui.report.page_roc import COMPARED, roc_section
from oneshui.report.page_tables import (
    attack_seeds,
    attack_table,
    check_attacks,
    control_table,
    cost_table,
    forest,
    result_tables,
)
from oneshui.report.reading import Finding, about_seeds, reading
from oneshui.report.style import block_name, method_name
from oneshui.report.tables import COLUMNS, COSTS

Tables = Sequence[tuple[pd.DataFrame, Mapping[str, Any]]]

_ROC_COLUMNS = ("dataset", "n", "row", "fpr", "tpr", "low", "high")
#: values of the configuration that name a place on the machine
_PLACE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\|file:)")


@dataclass(frozen=True)
class Inputs:
    """What a report is made from.

    Attributes:
        tables: by name, in the order of the page; columns ``oneshui.report.tables.COLUMNS``, numbers in percent.
        attacks: by name of the table; columns ``oneshui.report.attacks.COLUMNS``, fractions.
        roc: by name of the figure; columns dataset, n, row, fpr, tpr, low, high; fractions.
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
    identities: Tables
    splits: Tables
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Sequence[tuple[str, str]]
    machine: str


def render(inputs: Inputs) -> str:
    """Return the page as HTML.

    Raises:
        ConfigError: a table is not in the configuration, or that has no seeds.
        DataError: a table lacks columns, or files contradict each other.
    """
    _check(inputs)
    points = identity_points(inputs.identities)
    labels = _labels(inputs, [*points["method"].unique(), *_roc_methods(inputs), *COMPARED])
    methods = [name for name in labels if (points["method"] == name).any()]
    variables, style = method_colours(list(labels))
    seeds = [int(seed) for seed in inputs.config["seeds"]]
    style = _resource("page.css") + style
    script = _resource("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    return Template(_resource("page.html")).substitute(
        policy=f"{policy}; form-action 'none'",
        title="Forgetting a person from one photo: results",
        style=style,
        script=script,
        version=tag("span", __version__),
        facts=_facts(inputs, seeds),
        about_seeds=tag("span", about_seeds(len(seeds))),
        summary=_summary(inputs, len(seeds)),
        tables=_tables(inputs, len(seeds)),
        attacks=_attacks(inputs, labels, variables),
        controls=_controls(inputs),
        identities=explorer(
            points, blocks=_blocks(inputs), methods=methods, labels=labels, colours=variables, seeds=seeds
        ),
        cost=_costs(inputs),
        data=_data(inputs),
        provenance=_provenance(inputs, seeds),
    )


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
        _require(results, COLUMNS, f"table {name}")
    for name, summary in inputs.attacks.items():
        if name not in inputs.tables:
            raise DataError(f"report: attacks of {name}, but no such table; tables are {', '.join(inputs.tables)}")
        check_attacks(inputs.tables[name], summary, name)
    for name, curves in inputs.roc.items():
        _require(curves, _ROC_COLUMNS, f"ROC points {name}")


def _require(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"report: {what} lacks the columns {', '.join(missing)}; it was made by another version. Delete it to make "
            "it again."
        )


def _roc_methods(inputs: Inputs) -> list[str]:
    return [origin_and_method(str(row))[1] for curves in inputs.roc.values() for row in dict.fromkeys(curves["row"])]


def _labels(inputs: Inputs, others: Sequence[str]) -> dict[str, str]:
    """Return how methods are written, in the order of the tables; one name never stands for two methods."""
    labels: dict[str, str] = {}
    for results in inputs.tables.values():
        for method, label in zip(results["method"], results["label"], strict=True):
            labels.setdefault(str(method), str(label))
    for method in others:
        labels.setdefault(method, method_name(method))
    written = list(labels.values())
    return {name: f"{text} ({name})" if written.count(text) > 1 else text for name, text in labels.items()}


def _spec(inputs: Inputs, name: str) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = inputs.config["tables"][name]
    return spec


def _blocks(inputs: Inputs) -> list[tuple[str, int]]:
    return list(dict.fromkeys(key for results in inputs.tables.values() for key, _ in blocks_of(results)))


def _facts(inputs: Inputs, seeds: Sequence[int]) -> Markup:
    methods = {str(name) for results in inputs.tables.values() for name in results["method"]} - set(TRAINED)
    lines = [
        "; ".join(block_name(*block) for block in _blocks(inputs)) or "no table",
        f"{len(methods)} methods",
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}: {', '.join(map(str, seeds))}",
    ]
    return tag("ul", *(tag("li", line) for line in lines), class_="facts")


def _summary(inputs: Inputs, n_seeds: int) -> Markup:
    parts: list[Markup] = []
    for t, (name, results) in enumerate(inputs.tables.items()):
        decimals = int(_spec(inputs, name).get("decimals", 1))
        parts.append(tag("h3", str(_spec(inputs, name)["title"])))
        said = reading(results, n_seeds=n_seeds, decimals=decimals)
        for b, (block, rows) in enumerate(blocks_of(results)):
            own = [found for found in said if (found.dataset, found.n) == block]
            chart = forest(rows, block_name(*block), decimals, f"forest-{t}-{b}")
            parts += [tag("h4", block_name(*block)), _said(own, chart)]
    return join(parts or [tag("p", "No table was given.")])


def _said(findings: Sequence[Finding], chart: Markup | None) -> Markup:
    """Return what is said of a block: the verdict, then the chart and the topics in two columns."""
    short, *others = findings
    topics = [
        tag("div", tag("h5", each.topic), *(tag("p", signed(sentence)) for sentence in each.sentences))
        for each in others
    ]
    verdict = tag("p", signed(" ".join(short.sentences)), class_="verdict")
    return join([verdict, tag("div", chart, *topics, class_="said")])


def _tables(inputs: Inputs, n_seeds: int) -> Markup:
    parts: list[Markup] = []
    for t, (name, results) in enumerate(inputs.tables.items()):
        spec = _spec(inputs, name)
        parts += [tag("h3", str(spec["title"])), result_tables(results, spec, name=f"table-{t}", n_seeds=n_seeds)]
    return join(parts)


def _attacks(inputs: Inputs, labels: Mapping[str, str], variables: Mapping[str, str]) -> Markup:
    parts: list[Markup] = []
    for t, (name, results) in enumerate(inputs.tables.items()):
        if not (_spec(inputs, name).get("privacy") or results["rmia_auc"].notna().any()):
            continue
        decimals = int(_spec(inputs, name).get("decimals", 1))
        parts.append(tag("h3", str(_spec(inputs, name)["title"])))
        for b, (block, rows) in enumerate(blocks_of(results)):
            parts.append(attack_table(rows, block_name(*block), decimals, f"attack-{t}-{b}"))
            if name in inputs.attacks:
                parts.append(attack_seeds(inputs.attacks[name], rows, decimals, f"attack-seeds-{t}-{b}") or Markup())
    for name, curves in inputs.roc.items():
        parts.append(_roc(inputs, name, curves, labels, variables))
    return join(parts or [tag("p", "No table of this configuration asks for attacks (privacy: true).")])


def _roc(
    inputs: Inputs, name: str, curves: pd.DataFrame, labels: Mapping[str, str], colours: Mapping[str, str]
) -> Markup:
    source = inputs.config.get("figures", {}).get(name, {}).get("table", name)
    title = inputs.config["tables"].get(source, {}).get("title", name)
    methods: Sequence[str] = inputs.tables[source]["method"].tolist() if source in inputs.tables else []
    rows = [str(method) if method in TRAINED else f"pretrain/{method}" for method in dict.fromkeys(methods)]
    resolvable: dict[tuple[str, int], float] = {}
    for summary in inputs.attacks.values():
        pooled = summary[(summary["seed"].astype(str) == POOLED) & summary["smallest_fpr"].notna()]
        resolvable |= {block: float(own["smallest_fpr"].min()) for block, own in blocks_of(pooled)}
    drawn = roc_section(curves, rows, resolvable=resolvable, labels=labels, colours=colours)
    return join([tag("h3", f"ROC curves: {title}"), drawn])


def _controls(inputs: Inputs) -> Markup:
    parts: list[Markup] = []
    for t, (name, results) in enumerate(inputs.tables.items()):
        if _spec(inputs, name).get("privacy") or results["refit_forget_mean"].notna().any():
            decimals = int(_spec(inputs, name).get("decimals", 1))
            parts.append(tag("h3", str(_spec(inputs, name)["title"])))
            for b, (block, rows) in enumerate(blocks_of(results)):
                parts.append(control_table(rows, block_name(*block), decimals, f"control-{t}-{b}"))
    return join(parts or [tag("p", "No table of this configuration asks for controls (privacy: true).")])


def _costs(inputs: Inputs) -> Markup:
    parts: list[Markup] = []
    shown: set[tuple[str, int, str]] = set()  # tables may share runs, whose costs are to be seen once
    for t, (name, results) in enumerate(inputs.tables.items()):
        found = []
        for b, ((dataset, n), rows) in enumerate(blocks_of(results)):
            own = rows[~rows["method"].isin(TRAINED)]
            numbers = (dataset, n, own[["label", *COSTS.values()]].to_csv(index=False))
            if numbers not in shown:
                found.append(cost_table(own, block_name(dataset, n), f"cost-{t}-{b}"))
            shown.add(numbers)
        if any(found):
            parts += [tag("h3", str(_spec(inputs, name)["title"])), join(found)]
    return join(parts or [tag("p", "No costs were measured.")])


def _data(inputs: Inputs) -> Markup:
    head = [
        "Dataset, seed",
        "Train",
        "Validation",
        "Test",
        "Identities",
        "Can ask",
        "In several roles",
        "Groups of them",
    ]
    rows = []
    for frame, meta in sorted(inputs.splits, key=lambda pair: (str(pair[1]["dataset"]), int(pair[1]["seed"]))):
        counts = frame["role"].value_counts()
        roles = [str(int(counts.get(role, 0))) for role in ("train", "val", "test")]
        asking = frame.loc[frame["request_rank"].notna(), "identity"].nunique()
        images, groups = int(meta["overlap"]["images"]), int(meta["overlap"]["groups"])
        leaky = f"{images} ({100 * images / max(len(frame), 1):.1f}%)" if images else "0"
        where = f"{meta['dataset']}, seed {meta['seed']}"
        rows.append([where, *roles, str(frame["identity"].nunique()), str(asking), leaky, str(groups)])
    if not rows:
        return tag("p", "No splits were given.")
    return table(
        "Images by role, identities, and near-identical images whose copies have several roles",
        head,
        rows,
        name="splits",
    )


def _provenance(inputs: Inputs, seeds: Sequence[int]) -> Markup:
    # a detour over JSON: YAML would write what occurs twice as a reference
    config = _without_places(json.loads(json.dumps(inputs.config)))
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=110)
    versions = [[name, version] for name, version in inputs.versions.items()]
    files = [[name, tag("span", digest, class_="hash")] for name, digest in inputs.files]
    words = (
        f"oneshui {__version__}, {inputs.machine}; seeds {', '.join(map(str, seeds))}. The page has no time stamp: the "
        "same files make the same page. Places on the machine are left out of the configuration."
    )
    parts = [
        tag("p", words),
        tag("details", tag("summary", "Configuration"), tag("pre", tag("code", text), tabindex=0)),
        tag("details", tag("summary", f"Versions of {len(versions)} packages"),
            table("Packages that made this page", ["Package", "Version"], versions, name="versions")),
        tag("details", tag("summary", f"{len(files)} input files"),
            table("SHA-256 of what this page was made from", ["File", "SHA-256"], files, name="files")),
    ]  # fmt: skip
    return join(parts)


def _without_places(value: Any) -> Any:
    """Return a configuration in which paths of this machine are cut down to their last name."""
    if isinstance(value, dict):
        return {key: _without_places(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    if isinstance(value, str) and _PLACE.match(value):
        return ".../" + re.split(r"[\\/]", value.rstrip("/"))[-1]
    return value
