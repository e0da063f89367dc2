"""What a setting (dataset, n) says, in one or two short sentences from a table of cases.

Nothing here knows which method is ours. Methods that use the training data are not comparable: where a table has both,
what is said of the others says so. A difference is called one only if its 95% interval, as it is printed, leaves out 0.
An attack succeeds only if the interval of its AUC leaves out 50, the value of a guess; below 50 it recognises people by
the opposite sign. What is missing is named and never guessed.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.report.columns import FLAGS, GAIN, QUANTITIES, difference
from oneshui.report.style import display_name

Row = Mapping[Any, Any]

_GUESS = 50.0
_PHOTOS = "wrong_photos_minus_own"


def verdict(rows: pd.DataFrame, *, n_seeds: int, decimals: int) -> list[str]:
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


def said_together(found: Iterable[tuple[str, str]]) -> list[str]:
    """Return what was found of several names, each finding once: "a and b diverged", "c has missing results".

    Args:
        found: names, and what is said of one. "has" becomes "have" where several share it.
    """
    names: dict[str, list[str]] = {}
    for name, words in found:
        names.setdefault(words, []).append(name)
    return [
        f"{listed(own)} {words if len(own) == 1 else re.sub(r'^has', 'have', words)}" for words, own in names.items()
    ]


class Facts:
    """Facts about a setting that cases ask for.

    Attributes:
        rivals: methods that do not use the training data and have a ToW in every seed.
        with_data: the same of those that use it.
        has_rivals: whether the table has methods that do not use it, with or without results.
        among: what follows "method" or "methods" where only rivals are meant.
    """

    def __init__(self, rows: pd.DataFrame, n_seeds: int, decimals: int) -> None:
        self.rows: list[Row] = [dict(row) for row in rows.to_dict("records")]
        self.of = {str(row["method"]): row for row in self.rows}
        self.n_seeds, self.decimals = n_seeds, decimals
        methods = [row for row in self.rows if row["method"] not in TRAINED]
        known = [row for row in methods if not math.isnan(row[f"{GAIN}_mean"])]
        asked = [row for row in methods if not row["access_to_data"]]
        self.has_rivals = bool(asked)
        self.rivals = [row for row in known if not row["access_to_data"]]
        self.with_data = [row for row in known if row["access_to_data"]]
        self.among = " without the training data" if len(asked) < len(methods) else ""
        #: the same where rivals are counted, of which some may have no results
        self.counted = self.among + (" with results" if len(self.rivals) < len(asked) else "")
        #: what there is to forget: points of the measure on forget images, as printed; NaN if a model is missing
        self.gap = self.printed(self.value("pretrain", "forget_mean") - self.value("retrain", "forget_mean"))
        #: ToW between the original and the second retrained model, points
        self.room = self.printed(self.value("ceiling", "tow_mean") - self.value("pretrain", "tow_mean"))
        self.attacked = [row for row in methods if self.area_side(row) is not None]
        self.recognised = [row for row in self.attacked if self.area_side(row)]
        self.probed = [row for row in methods if self.side(row, "refit_forget_minus_retrain") is not None]
        self.remembering = [row for row in self.probed if self.side(row, "refit_forget_minus_retrain") == 1]
        floor = float(self.of["retrain"]["streisand_auc_high"]) if "retrain" in self.of else math.nan
        self.pointing = [row for row in methods if self.printed(float(row["streisand_auc_low"])) > self.printed(floor)]

    def value(self, model: str, column: str) -> float:
        return float(self.of[model][column]) if model in self.of else math.nan

    def printed(self, value: float) -> float:
        return round(value, self.decimals)

    def on_side(self, rows: Sequence[Row], side: int) -> list[Row]:
        """Return rows whose difference to the original model lies on one side of 0, the largest first."""
        found = [row for row in rows if self.side(row, GAIN) == side]
        return sorted(found, key=lambda row: -side * float(row[f"{GAIN}_mean"]))

    def side(self, row: Row, key: str) -> int | None:
        """Return on which side of 0 a difference lies; None where it has no interval."""
        mean, half = float(row[f"{key}_mean"]), float(row[f"{key}_ci95"])
        return side_of(mean - half, mean + half, self.decimals)

    def careless(self) -> list[Row]:
        """Return the better methods that wrong photos serve as well.

        Their interval says no loss, and the means no loss of half of the gain: a wide interval alone proves nothing.
        """
        better = [row for row in self.on_side(self.rivals, 1) if self.side(row, _PHOTOS) in (0, 1)]
        return [row for row in better if float(row[f"{_PHOTOS}_mean"]) > -0.5 * float(row[f"{GAIN}_mean"])]

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
                    found.append((name, f"{words.split(' (')[0]} in {int(row[flag])} of {self.n_seeds} seeds"))
            needed = [quantity for quantity in QUANTITIES if (row["method"], quantity) != ("retrain", "tow")]
            if row["n_seeds"] < self.n_seeds or any(math.isnan(row[f"{name}_mean"]) for name in needed):
                found.append((name, "has missing results"))
        return said_together(found)

    def alike(self) -> bool:
        """Tell whether several methods print the same ToW and none differs from the original model."""
        tows = [self.printed(float(row["tow_mean"])) for row in self.rivals]
        differ = self.on_side(self.rivals, 1) + self.on_side(self.rivals, -1)
        return len(tows) > 1 and len(set(tows)) == 1 and not differ


def _names(rows: Sequence[Row]) -> str:
    return listed(str(row["label"]) for row in rows)


def _are(rows: Sequence[Row]) -> str:
    return f"{_names(rows)} {'is' if len(rows) == 1 else 'are'}"


def _of_methods(some: Sequence[Row], of: Sequence[Row], kind: str = "methods") -> str:
    """Return "1 of 2 methods", or the name where there is one."""
    return f"{len(some)} of {len(of)} {kind}" if len(of) > 1 else _names(some)


def _with_data(facts: Facts) -> str:
    """Return what follows a sentence about rivals of which none is better: which methods with the data are better."""
    found = facts.on_side(facts.with_data, 1)
    return f", but with the data {_are(found)} better (not comparable)" if found else ""


def _better(facts: Facts) -> str:
    best, *others = facts.on_side(facts.rivals, 1)
    gain = difference(best, GAIN, facts.decimals)
    if not others:
        return f"{best['label']} is better than the original model: {gain} points of ToW."
    count = (
        f"{_of_methods([best, *others], facts.rivals, f'methods{facts.counted}')} are better than the original model"
    )
    return f"{count}, most of all {best['label']}: {gain} points of ToW."


def _worse(facts: Facts) -> str:
    found = _are(facts.on_side(facts.rivals, -1))
    return f"No method{facts.among} is better than the original model; {found} worse{_with_data(facts)}."


def _alike(facts: Facts) -> str:
    tow = facts.printed(float(facts.rivals[0]["tow_mean"]))
    return f"All methods{facts.counted} have the same ToW, {tow:.{facts.decimals}f}%{_with_data(facts)}."


def _only_with_data(facts: Facts) -> str:
    found = facts.on_side(facts.with_data, 1)
    return f"Only methods that use the training data beat the original model (not comparable): {_names(found)}."


def _photos(facts: Facts) -> str:
    found = facts.careless()
    some = "" if len(found) == len(facts.on_side(facts.rivals, 1)) else f" to {_names(found)}"
    return f"The photo does not matter{some}: wrong photos do as well."


def _attack(facts: Facts) -> str:
    where = _of_methods(facts.recognised, facts.attacked)
    return f"The attack still recognises the forget images after {where}."


Case = tuple[str, Callable[[Facts], Any], Callable[[Facts], str]]

#: what is said first: name of the case, when it applies, the sentence; the first that applies is said
RESULTS: tuple[Case, ...] = (
    ("no reference", lambda s: math.isnan(s.gap),
     lambda s: "The original or the retrained model has no result, so nothing can be compared."),
    ("nothing to forget", lambda s: s.gap <= 0,
     lambda s: "In these seeds there is nothing to forget: on forget images the original model is no better than the "
     "retrained one."),
    ("no results", lambda s: not s.rivals and not s.with_data, lambda s: "No method has results in every seed."),
    ("only methods with data", lambda s: not s.has_rivals,
     lambda s: "All methods use the training data (not comparable)."),
    ("no results without data", lambda s: not s.rivals,
     lambda s: f"No method without the training data has results in every seed{_with_data(s)}."),
    ("one seed", lambda s: s.n_seeds == 1,
     lambda s: "There is one seed and so no interval: no method can be called better or worse."),
    ("better", lambda s: s.on_side(s.rivals, 1), _better),
    ("worse", lambda s: s.on_side(s.rivals, -1), _worse),
    ("alike", lambda s: s.alike(), _alike),
    ("better with data", lambda s: s.on_side(s.with_data, 1), _only_with_data),
    ("no difference", lambda s: True,
     lambda s: f"No method{s.among} is better than the original model beyond noise."),
)  # fmt: skip

#: what is said next, if anything; the heaviest first: what voids the first sentence, then what was not forgotten, then
#: what an attack cannot tell
CAVEATS: tuple[Case, ...] = (
    ("problems", lambda s: s.problems(), lambda s: f"Problems: {'; '.join(s.problems())}."),
    ("photos do not matter", lambda s: s.careless(), _photos),
    ("no room", lambda s: s.room <= 0,
     lambda s: "The second retrained model is no nearer than the original model: noise is as large as what there is to "
     "gain."),
    ("attack on never seen", lambda s: s.area_side(s.of.get("retrain")),
     lambda s: "The attack is unreliable: it also works on the retrained model, which never saw the images."),
    ("attack works", lambda s: s.area_side(s.of.get("pretrain")) and s.recognised, _attack),
    ("streisand", lambda s: s.pointing,
     lambda s: f"Large losses point at the forget images after {_names(s.pointing)}, more than in the retrained "
     "model."),
    ("features know", lambda s: s.remembering,
     lambda s: f"The features still know the forget images after {_of_methods(s.remembering, s.probed)}."),
    ("attack fails", lambda s: s.area_side(s.of.get("pretrain")) == 0,
     lambda s: "The attack is inconclusive: it fails even on the original model."),
    ("attack finds nothing", lambda s: s.area_side(s.of.get("pretrain")) and s.attacked,
     lambda s: "The attack works on the original model, but not clearly after any method."),
)  # fmt: skip
