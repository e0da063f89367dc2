"""What Markdown and LaTeX tables share: their blocks, who is best, and how a number is written."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from oneshui.config import TRAINED

PLUS_MINUS = "\u00b1"
MISSING = "missing"


def blocks_of(table: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """Return the parts of the table that share dataset and n, in order."""
    keys = table[["dataset", "n"]].drop_duplicates()
    return [
        ((str(dataset), int(n)), table[(table["dataset"] == dataset) & (table["n"] == n)])
        for dataset, n in zip(keys["dataset"], keys["n"], strict=True)
    ]


def ranks_of(block: pd.DataFrame, decimals: int) -> dict[str, int]:
    """Return the rank by tug of war of the methods that could run without the data.

    Numbers that print alike share a rank: a table must not prefer one of two equal numbers. Where all are alike, none
    is best.
    """
    rivals = block[~block["access_to_data"] & ~block["method"].isin(TRAINED)]
    printed = rivals["tow_mean"].dropna().map(lambda value: float(f"{value:.{decimals}f}"))
    if len(printed) > 1 and printed.nunique() == 1:
        return {}
    ranks = printed.rank(method="dense", ascending=False).astype(int)
    return dict(zip(rivals.loc[ranks.index, "method"], ranks, strict=True))


def cell(row: Mapping[Any, Any], name: str, decimals: int, render: Callable[[float, float, int], str]) -> str:
    """Return mean and standard deviation of a quantity, as ``render`` writes them; the retrained model has no ToW."""
    if row["method"] == "retrain" and name == "tow":
        return "-"
    mean = float(row[f"{name}_mean"])
    return MISSING if math.isnan(mean) else render(mean, float(row[f"{name}_std"]), decimals)


def plain(mean: float, std: float, decimals: int) -> str:
    """Return ``mean`` and ``std`` in plain text."""
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" {PLUS_MINUS} {std:.{decimals}f}")


def difference(mean: float, half_width: float, decimals: int) -> str:
    """Return a difference with the 95% interval around it."""
    if math.isnan(mean):
        return MISSING
    low, high = mean - half_width, mean + half_width
    interval = "" if math.isnan(half_width) else f" [{low:+z.{decimals}f}, {high:+z.{decimals}f}]"
    return f"{mean:+z.{decimals}f}{interval}"  # z: no negative zero


def against_nothing(row: Mapping[Any, Any], decimals: int) -> str:
    """Return tug of war minus that of the pretrained model, with its interval."""
    if row["method"] in ("pretrain", "retrain"):
        return "-"
    return difference(row["tow_minus_pretrain_mean"], row["tow_minus_pretrain_ci95"], decimals)
