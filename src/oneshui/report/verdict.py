"""What a setting (dataset, n) says, in one or two short sentences from a table of cases.

Nothing here knows which method is ours. A difference is called one only if its 95% interval, as it is printed, leaves
out 0. An attack succeeds only if the interval of its AUC leaves out 50, the value of a guess; below 50 it recognises
people by the opposite sign. What is missing is named and never guessed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.report.columns import FLAGS, QUANTITIES, difference
from oneshui.report.style import display_name

Row = Mapping[Any, Any]

_GAIN = "tow_minus_pretrain"
_GUESS = 50.0


def verdict(rows: pd.DataFrame, *, n_seeds: int, decimals: int = 1) -> list[str]:
    """Return one or two sentences about a setting: what methods reach, then the first caveat that applies.

    Args:
        rows: of one setting, columns ``oneshui.report.columns.NAMES``, numbers in percent.
        n_seeds: seeds that every row was asked for.
        decimals: of the table; what prints alike is called alike.
    """
    facts = Facts(rows, n_seeds, decimals)
    said = []
    for cases in (RESULTS, CAVEATS):
        said += next(([say(facts)] for _, applies, say in cases if applies(facts)), [])
    return said


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


class Facts:
    """Facts about a setting that cases ask for. ``rivals`` are the methods that do not use the training data."""

    def __init__(self, rows: pd.DataFrame, n_seeds: int, decimals: int) -> None:
        self.rows: list[Row] = [dict(row) for row in rows.to_dict("records")]
        self.of = {str(row["method"]): row for row in self.rows}
        self.n_seeds, self.decimals = n_seeds, decimals
        methods = [row for row in self.rows if row["method"] not in TRAINED]
        known = [row for row in methods if not math.isnan(row[f"{_GAIN}_mean"])]
        self.has_rivals = any(not row["access_to_data"] for row in methods)
        self.rivals = [row for row in known if not row["access_to_data"]]
        self.with_data = [row for row in known if row["access_to_data"]]
        #: what there is to forget: points of the measure on forget images, as printed; NaN if a model is missing
        self.gap = self.printed(self.value("pretrain", "forget_mean") - self.value("retrain", "forget_mean"))
        #: ToW between the original and the second retrained model, points
        self.room = self.printed(self.value("ceiling", "tow_mean") - self.value("pretrain", "tow_mean"))
        self.attacked = [row for row in methods if self.area_side(row) is not None]
        self.recognised = [row for row in self.attacked if self.area_side(row)]

    def value(self, model: str, column: str) -> float:
        return float(self.of[model][column]) if model in self.of else math.nan

    def printed(self, value: float) -> float:
        return round(value, self.decimals)

    def on_side(self, rows: Sequence[Row], side: int) -> list[Row]:
        """Return rows whose difference to the original model lies on one side of 0, the largest first."""
        ends = ((row, float(row[f"{_GAIN}_mean"]), float(row[f"{_GAIN}_ci95"])) for row in rows)
        found = [row for row, mean, half in ends if side_of(mean - half, mean + half, self.decimals) == side]
        return sorted(found, key=lambda row: -side * float(row[f"{_GAIN}_mean"]))

    def area_side(self, row: Row | None) -> int | None:
        """Return on which side of a guess the AUC of the attack lies; None where there is none."""
        if row is None:
            return None
        return side_of(float(row["rmia_auc_low"]), float(row["rmia_auc_high"]), self.decimals, centre=_GUESS)

    def problems(self) -> list[str]:
        """Return who failed, diverged, saturated or lacks numbers."""
        found = []
        for row in self.rows:
            name = display_name(str(row["method"]), str(row["label"]))
            for flag, words in FLAGS.items():
                if not pd.isna(row[flag]) and row[flag] > 0:
                    found.append(f"{name} {words.split(' (')[0]} in {int(row[flag])} of {self.n_seeds} seeds")
            needed = [quantity for quantity in QUANTITIES if (row["method"], quantity) != ("retrain", "tow")]
            if row["n_seeds"] < self.n_seeds or any(math.isnan(row[f"{name}_mean"]) for name in needed):
                found.append(f"{name} has missing results")
        return found

    def alike(self) -> bool:
        """Tell whether several methods print the same ToW and none differs from the original model."""
        tows = [self.printed(float(row["tow_mean"])) for row in self.rivals]
        differ = self.on_side(self.rivals, 1) + self.on_side(self.rivals, -1)
        return len(tows) > 1 and len(set(tows)) == 1 and not differ


def _names(rows: Sequence[Row]) -> str:
    return listed(str(row["label"]) for row in rows)


def _better(facts: Facts) -> str:
    best, *others = facts.on_side(facts.rivals, 1)
    gain = difference(best, _GAIN, facts.decimals)
    if not others:
        return f"{best['label']} is better than the original model: {gain} points of ToW."
    count = f"{1 + len(others)} of {len(facts.rivals)} methods are better than the original model"
    return f"{count}, most of all {best['label']}: {gain} points of ToW."


def _worse(facts: Facts) -> str:
    found = facts.on_side(facts.rivals, -1)
    return f"No method is better than the original model; {_names(found)} {'is' if len(found) == 1 else 'are'} worse."


def _with_data(facts: Facts) -> str:
    found = facts.on_side(facts.with_data, 1)
    return f"Only methods that use the training data beat the original model (not comparable): {_names(found)}."


def _attack(facts: Facts) -> str:
    k, n = len(facts.recognised), len(facts.attacked)
    if not k:
        return "The attack works on the original model, but not clearly after any method."
    where = f"{k} of {n} methods" if n > 1 else _names(facts.attacked)
    return f"The attack still recognises the forget images after {where}."


Case = tuple[str, Callable[[Facts], Any], Callable[[Facts], str]]

#: what is said first: name of the case, when it applies, the sentence; the first that applies is said
RESULTS: tuple[Case, ...] = (
    ("no reference", lambda s: math.isnan(s.gap),
     lambda s: "The original or the retrained model has no result, so nothing can be compared."),
    ("nothing to forget", lambda s: s.gap <= 0,
     lambda s: "There is nothing to forget: on forget images the original model is no better than the retrained one."),
    ("no results", lambda s: not s.rivals and not s.with_data, lambda s: "No method has results in every seed."),
    ("one seed", lambda s: s.n_seeds == 1,
     lambda s: "There is one seed and so no interval: no method can be called better or worse."),
    ("only methods with data", lambda s: not s.has_rivals,
     lambda s: "All methods use the training data (not comparable)."),
    ("better", lambda s: s.on_side(s.rivals, 1), _better),
    ("worse", lambda s: s.on_side(s.rivals, -1), _worse),
    ("alike", lambda s: s.alike(),
     lambda s: f"All methods have the same ToW, {s.printed(float(s.rivals[0]['tow_mean'])):.{s.decimals}f}%."),
    ("better with data", lambda s: s.on_side(s.with_data, 1), _with_data),
    ("no difference", lambda s: True, lambda s: "No method is better than the original model beyond noise."),
)  # fmt: skip

#: what is said next, if anything
CAVEATS: tuple[Case, ...] = (
    ("problems", lambda s: s.problems(), lambda s: f"Problems: {listed(s.problems())}."),
    ("no room", lambda s: s.room <= 0,
     lambda s: "ToW cannot show progress: the second retrained model is no nearer than the original model."),
    ("attack on never seen", lambda s: s.area_side(s.of.get("retrain")),
     lambda s: "The attack is unreliable: it also works on the retrained model, which never saw the images."),
    ("attack fails", lambda s: s.area_side(s.of.get("pretrain")) == 0,
     lambda s: "The attack is inconclusive: it fails even on the original model."),
    ("attack works", lambda s: s.area_side(s.of.get("pretrain")) and s.attacked, _attack),
)  # fmt: skip
