"""Names of models as text, for the report."""

from collections.abc import Mapping
from typing import Any

from oneshui.runs import Model, models_of


def origin_and_method(row: str) -> tuple[str, str]:
    """Return what a METRICS table calls a model."""
    columns = Model.of(row).columns
    return columns["origin"], columns["method"]


def table_rows(table: Mapping[str, Any]) -> list[str]:
    """Return the models of a table, in its order."""
    return list(map(str, models_of(table)))
