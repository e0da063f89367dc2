"""What a report is made from, and whether it belongs together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from oneshui.errors import ConfigError, DataError
from oneshui.report.columns import COLUMNS, NAMES
from oneshui.report.figures import roc
from oneshui.report.numbers import Numbers, index_attacks
from oneshui.report.style import display_name, kind_of, method_name
from oneshui.runs import Model

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

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each method of the configuration."""
        return {name: str(entry["kind"]) for name, entry in self.config.get("methods", {}).items()}

    def spec(self, name: str) -> Mapping[str, Any]:
        """Return the configuration of a table."""
        spec: Mapping[str, Any] = self.config["tables"][name]
        return spec

    def decimals(self, name: str) -> int:
        return int(self.spec(name)["decimals"])


def labels_of(inputs: Inputs, others: Sequence[str]) -> dict[str, str]:
    """Return how methods are written, in the order of the tables; one name never stands for two methods."""
    labels: dict[str, str] = {}
    for results in inputs.tables.values():
        for method, label in zip(results["method"], results["label"], strict=True):
            labels.setdefault(str(method), display_name(str(method), str(label)))
    rows = [str(row) for curves in inputs.roc.values() for row in curves["row"].unique()]
    for method in [*others, *(Model.of(row).method_name for row in rows)]:
        labels.setdefault(method, display_name(method, method_name(kind_of(method, inputs.kinds))))
    written = list(labels.values())
    return {name: f"{text} ({name})" if written.count(text) > 1 else text for name, text in labels.items()}


def check(inputs: Inputs) -> None:
    """Refuse files that were made by another version or for another configuration, or that contradict each other.

    Raises:
        ConfigError: a table is not in the configuration, or that has no seeds.
        DataError: a table lacks columns, or files contradict each other.
    """
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
        model = Model.in_table(method)
        numbers = Numbers(model, None, (), {}, *index_attacks(summary, dataset, n, str(model)), {})
        for column in columns:
            found = column.source(numbers)
            for key, part in zip(column.names, column.parts, strict=True):
                ours, theirs = float(row[key]), float(found.get(part, math.nan))
                if math.isnan(ours) != math.isnan(theirs) or abs(ours - theirs) > _TOLERANCE:
                    raise DataError(
                        f"table {name} has {key} = {ours:.6g} for {method} on {dataset}, n = {n}, its summary of "
                        f"attacks {theirs:.6g}; they belong to different runs. Delete the older one to make it again."
                    )
