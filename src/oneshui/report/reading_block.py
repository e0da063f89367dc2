"""The rows of one dataset and n, with the rules by which sentences about them are made."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.report.cells import MISSING, difference

Row = Mapping[Any, Any]
#: side of 0 on which an interval lies (1, -1, or 0 if it touches it), None without one, ``missing`` without a mean
Groups = dict[int | str | None, list[Row]]

#: area under the ROC curve of a guess, percent
_GUESS = 50.0


def side_of(low: float, high: float, decimals: int, *, centre: float = 0.0) -> int | None:
    """Return 1 if an interval, as printed, lies above ``centre``, -1 if below, 0 if it touches it, None without one."""
    if math.isnan(low) or math.isnan(high):
        return None
    low, high = round(low, decimals), round(high, decimals)
    return 1 if low > centre else -1 if high < centre else 0


def listed(parts: Iterable[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last


class Block:
    """The rows of one dataset and n.

    Attributes:
        rows: all of them.
        of: by method.
        methods: those of unlearning methods.
        rivals: methods that could run without the data.
        n_seeds: seeds that every row was asked for.
        decimals: with which numbers are printed; what prints alike is called alike.
    """

    def __init__(self, frame: pd.DataFrame, n_seeds: int, decimals: int) -> None:
        self.rows: list[Row] = [dict(row) for row in frame.to_dict("records")]
        self.of = {str(row["method"]): row for row in self.rows}
        self.methods = [row for row in self.rows if row["method"] not in TRAINED]
        self.rivals = [row for row in self.methods if not row["access_to_data"]]
        self.n_seeds, self.decimals = n_seeds, decimals

    def number(self, value: float) -> str:
        """Return a number as it is printed."""
        return f"{value:.{self.decimals}f}"

    def printed(self, value: float) -> float:
        """Return the number that a reader sees."""
        return round(value, self.decimals)

    def value(self, method: str, column: str) -> float:
        """Return a number of the table, NaN if it or its row is not there."""
        return float(self.of[method][column]) if method in self.of else math.nan

    def split(self, rows: Sequence[Row], column: str) -> Groups:
        """Return rows by the side of 0 on which the interval of a difference lies."""
        groups: Groups = {1: [], -1: [], 0: [], None: [], MISSING: []}
        for row in rows:
            mean, half = float(row[f"{column}_mean"]), float(row[f"{column}_ci95"])
            side = MISSING if math.isnan(mean) else side_of(mean - half, mean + half, self.decimals)
            groups[side].append(row)
        return groups

    def each(self, rows: Sequence[Row], column: str) -> str:
        """Return names and differences with their intervals."""
        return listed(
            f"{row['label']} {difference(row[f'{column}_mean'], row[f'{column}_ci95'], self.decimals)}" for row in rows
        )

    def areas(self, rows: Sequence[Row], name: str = "rmia_auc") -> str:
        """Return names and areas under ROC curves with their intervals."""
        return listed(
            f"{row['label']} {self.number(row[name])} [{self.number(row[f'{name}_low'])}, "
            f"{self.number(row[f'{name}_high'])}]"
            for row in rows
        )

    def area_side(self, row: Row | None) -> int | None:
        """Return on which side of a guess the attack's area lies: 1 if it recognises forget images."""
        if row is None:
            return None
        return side_of(float(row["rmia_auc_low"]), float(row["rmia_auc_high"]), self.decimals, centre=_GUESS)
