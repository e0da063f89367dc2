"""The columns of a results table, each in one place: where its numbers come from, how they are written, what they mean.

``COLUMNS`` is in the order of the CSV file. A column holds one or more numbers, ``parts``, each of which is a column
of the CSV. Markdown, LaTeX and the page print the columns of a ``view`` (``oneshui.report.write``). The page explains
their ``cards``; docs/metrics.md has a section of each card's title.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from oneshui.config import TRAINED
from oneshui.report.attacks import FPRS
from oneshui.report.numbers import Numbers, Values
from oneshui.runs import ORIGINAL, RETRAINED, Model

MISSING, DASH = "missing", "-"
#: key of the difference in ToW to the original model
GAIN = "tow_minus_pretrain"
#: stands in ``Column.not_for`` for every method that uses the training data
WITH_DATA = "(with data)"

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Card:
    """What a number means, in a few short sentences, under the title of its section in docs/metrics.md."""

    title: str
    text: str


@dataclass(frozen=True)
class Column:
    """One printed column of a results table.

    Attributes:
        key: what names in the CSV begin with.
        parts: what they end with, one number each.
        source: computes the parts of a model; one that it leaves out is missing. Percent, s, MB or counts.
        head: in print.
        view: table in which it is printed: results, costs, attacks or controls; "" for the CSV only.
        form: writes a row's numbers as plain text; called where the first part is known.
        cards: what the page says of it.
        not_for: models for which it has no meaning; a dash is printed.
        unknown: what is printed where it should be and is not.
        beside: quantity whose published value is printed beside it.
        optional: left out of print where no model has it.
    """

    key: str
    parts: tuple[str, ...]
    source: Callable[[Numbers], Mapping[str, float]]
    head: str = ""
    view: str = ""
    form: Callable[[Row, str, int], str] | None = None
    cards: tuple[Card, ...] = ()
    not_for: tuple[str, ...] = ()
    unknown: str = MISSING
    beside: str = ""
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the CSV."""
        return tuple(f"{self.key}{part}" for part in self.parts)

    def text(self, row: Row, decimals: int) -> str:
        """Return what is printed for a row of the table."""
        if row["method"] in self.not_for or (WITH_DATA in self.not_for and row["access_to_data"]):
            return DASH
        if self.form is None or math.isnan(float(row[self.names[0]])):
            return self.unknown
        return self.form(row, self.key, decimals)


# how numbers are written


def mean_std(row: Row, key: str, decimals: int) -> str:
    """Return a mean over seeds and its standard deviation: ``85.0 +- 1.0``."""
    return with_std(row[f"{key}_mean"], row[f"{key}_std"], decimals)


def with_std(mean: float, std: float, decimals: int) -> str:
    """Return the same of two numbers, without the second where there is none."""
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" \N{PLUS-MINUS SIGN} {std:.{decimals}f}")


def difference(row: Row, key: str, decimals: int) -> str:
    """Return a difference and its 95% interval: ``+4.0 [+1.0, +7.0]``."""
    mean, half = float(row[f"{key}_mean"]), float(row[f"{key}_ci95"])
    interval = "" if math.isnan(half) else f" [{mean - half:+z.{decimals}f}, {mean + half:+z.{decimals}f}]"
    return f"{mean:+z.{decimals}f}{interval}"  # z: no negative zero


def interval(row: Row, key: str, decimals: int) -> str:
    """Return a value and its 95% interval: ``89.8 [86.7, 92.3]``."""
    return f"{row[key]:.{decimals}f} [{row[f'{key}_low']:.{decimals}f}, {row[f'{key}_high']:.{decimals}f}]"


def _rate(row: Row, key: str, decimals: int) -> str:
    return f"{interval(row, key, decimals)} ({int(row[f'{key}_hits'])}/{int(row['members'])})"


def _cost(row: Row, key: str, _: int) -> str:
    return f"{row[f'{key}_s']:.3g} s, {row[f'{key}_peak_mb']:.0f} MB"


def _kept(row: Row, key: str, _: int) -> str:
    floats = float(row[f"{key}_floats_per_person"])
    return f"{row[f'{key}_mb']:.3g} MB" + (
        "" if math.isnan(floats) else f", {floats / 1000:.3g} thousand numbers a person"
    )


# where numbers come from


def half_width(std: float, count: int) -> float:
    """Return the half-width of the 95% interval of a mean of ``count`` values by Student's t, NaN of one value.

    Args:
        std: standard deviation of the values (ddof 1).
    """
    return float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if count > 1 else math.nan


def _over_seeds(read: Callable[[Numbers], Values]) -> Callable[[Numbers], dict[str, float]]:
    """Return a source: mean, standard deviation (ddof 1) and half-width of the 95% interval by Student's t."""

    def source(numbers: Numbers) -> dict[str, float]:
        values = read(numbers)
        std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return {"_mean": float(np.mean(values)), "_std": std, "_ci95": half_width(std, len(values))}

    return source


def _percent(split: str, metric: str, model: Model | None = None) -> Callable[[Numbers], Values]:
    return lambda numbers: 100.0 * numbers.by_seed(split, metric, model)


def _minus(read: Callable[[Numbers], Values], other: Callable[[Numbers], Values]) -> Callable[[Numbers], Values]:
    """Return a difference, paired by seed."""
    return lambda numbers: read(numbers) - other(numbers)


def _wrong_photos(numbers: Numbers) -> Values:
    return 100.0 * numbers.by_seed("all", "tow", Model("pretrain", numbers.model.method, wrong_photos=True))


def _seeds_with(flag: str) -> Callable[[Numbers], dict[str, float]]:
    """Return a source: in how many seeds a flag is set; missing where no seed has it."""

    def source(numbers: Numbers) -> dict[str, float]:
        values = numbers.by_seed("all", flag)
        return {} if np.isnan(values).all() else {"": float((values > 0).sum())}

    return source


def _costs(step: str) -> Callable[[Numbers], dict[str, float]]:
    return _means({"_s": f"{step}seconds", "_peak_mb": f"{step}peak_mb"})


def _means(metrics: Mapping[str, str]) -> Callable[[Numbers], dict[str, float]]:
    return lambda numbers: {part: float(np.mean(numbers.by_seed("all", name))) for part, name in metrics.items()}


def _attack(attack: str, metric: str, fpr: float = 0.0) -> Callable[[Numbers], dict[str, float]]:
    def source(numbers: Numbers) -> dict[str, float]:
        row = numbers.attacks.get((attack, metric, fpr))
        if row is None:
            return {}
        ends = {"": "value", "_low": "low", "_high": "high"}
        found = {part: 100.0 * float(row[name]) for part, name in ends.items()}
        return found | ({"_hits": float(row["hits"])} if metric == "tpr" else {})

    return source


def _counted(name: str, unit: float = 1.0) -> Callable[[Numbers], dict[str, float]]:
    def source(numbers: Numbers) -> dict[str, float]:
        row = numbers.attacks.get(("rmia", "tpr", FPRS[0]))
        return {} if row is None else {"": unit * float(row[name])}

    return source


def _protocol(numbers: Numbers) -> dict[str, float]:
    # without pooled values a seed is missing, and a mean would stand for fewer seeds than its neighbours
    if ("rmia", "auc", 0.0) not in numbers.attacks:
        return {}
    values = 100.0 * np.array(numbers.protocol)
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return {"_mean": float(values.mean()), "_std": std}


def _published(quantity: str) -> Callable[[Numbers], dict[str, float]]:
    return lambda numbers: dict(zip(("", "_std"), numbers.published.get(quantity, ()), strict=False))


def _away(numbers: Numbers) -> dict[str, float]:
    """Return how many published standard deviations ToW is above the published value."""
    mean, std = numbers.published.get("tow", (math.nan, math.nan))
    tow = _over_seeds(_percent("all", "tow"))(numbers)["_mean"]
    return {"": (tow - mean) / std} if std > 0 else {}


# what numbers mean

_ACCURACY = Card(
    "Accuracy",
    "Share of images whose largest output is at their label. On forget images the aim is the value of the retrained "
    "model. A lower value does not prove that a person was forgotten.",
)
_MAP = Card(
    "mAP",
    "Mean average precision over attributes. The forget images are of few people. Many attributes have few positive "
    "images there.",
)
_TOW = Card(
    "ToW",
    "Tug of war: how near a model is to the retrained model on retain, forget and test images. 100% is equal on all "
    "three. It is the product of 1 - |difference| over the three. It does not show on which images two models agree.",
)
_NOISE_FLOOR = Card(
    "Second retrained model",
    "A model retrained with another random start. Its distance to 100% is the noise of training. It is no upper limit: "
    "methods start from the same weights as the retrained model.",
)
_GAIN = Card(
    "Difference to the original model",
    "ToW minus the ToW of the original model, paired by seed, with the 95% interval of Student's t. If the interval "
    "contains 0, the difference can be noise. That is no proof that there is none.",
)
_RMIA = Card(
    "RMIA",
    "The membership attack. It asks whether the model is more certain of an image than a reference model that never "
    "saw it. It compares the answer with other images.",
)
_TPR = Card(
    "TPR at FPR 0.01%, 0.1%, 1%",
    "True positive rate: share of forget images that the attack finds while it wrongly accuses at most this share of "
    "test images. A few hits more or less mean nothing.",
)
_AUC = Card(
    "AUC",
    "Probability that a forget image looks more like training data than a test image does. 50% is a guess. The "
    "interval treats the images of one person as one cluster.",
)
_PROTOCOL = Card(
    "Published-protocol TPR",
    "The best of 16 attack settings, chosen on the attacked data, as in the paper. It is too optimistic for the "
    "attacker. Compare it with the published value only.",
)
_LOSS = Card(
    "Loss-threshold AUC",
    "The same attack from the loss alone. The aim is the value of the retrained model, not 50%: easy images have small "
    "losses in any model.",
)
_STREISAND = Card(
    "Streisand AUC and TPR",
    "The attack takes large losses as a sign of training data. A value far above that of the retrained model means "
    "that the model fails on the people who asked, and so points at them.",
)
_PROBE = Card(
    "Linear probe",
    "A new linear classifier on the model's features, trained on people who never ask. Above the retrained model, the "
    "features still know the forget images.",
)
_PHOTOS = Card(
    "Wrong-photo control",
    "The same request with photos of other people. If ToW does not fall, the photos did not matter.",
)
_KL = Card(
    "KL to the retrained model",
    "How differently the model answers single forget images than the retrained model does, in nats. The second "
    "retrained model shows the noise of training.",
)
_DEPTH = Card(
    "Linear probe by depth",
    "The linear probe on the activations behind a share of the network's blocks. Above the retrained model, that depth "
    "still knows the forget images, whatever later layers do.",
)
_RELEARN = Card(
    "Relearning",
    "The model is trained for a few steps on half of the forget images. If the other half comes back sooner than in "
    "the retrained model, it was hidden and not forgotten.",
)
_COST = Card(
    "Seconds and peak memory",
    "Time and memory of one run, beyond the loaded model and data. Prepare runs once, before the data is deleted. "
    "Unlearn runs for each request. Do not compare machines.",
)
_KEPT = Card(
    "What is kept",
    "Size of all numbers that the method saves before the deletion, and of methods that keep something of each person, "
    "how many of them are of one person.",
)
_SATURATED = Card("Saturated", "The step of the method was too small to change the model. Nothing was forgotten.")
_DIVERGED = Card("Diverged", "The model answers NaN, or the step of the method destroyed it.")

_MEAN_STD, _ENDS = ("_mean", "_std"), ("", "_low", "_high")
_TOW_OF = _percent("all", "tow")
_PROBE_FORGET = _percent("forget", "refit_{measure}")

COLUMNS: tuple[Column, ...] = (
    *(
        Column(
            name, _MEAN_STD, _over_seeds(_percent(name, "{measure}")), name.capitalize(), "results", mean_std,
            (_ACCURACY, _MAP), beside=name,
        )
        for name in ("retain", "forget", "test")
    ),
    Column(
        "tow", _MEAN_STD, _over_seeds(_TOW_OF), "ToW", "results", mean_std, (_TOW, _NOISE_FLOOR),
        not_for=("retrain",), beside="tow",
    ),
    Column(
        GAIN, ("_mean", "_std", "_ci95"),
        _over_seeds(_minus(_TOW_OF, _percent("all", "tow", ORIGINAL))), "Difference to the original model",
        "results", difference, (_GAIN,), not_for=("pretrain", "retrain"),
    ),
    Column("saturated", ("",), _seeds_with("saturated"), cards=(_SATURATED,)),
    Column("blown_up", ("",), _seeds_with("blown_up"), cards=(_DIVERGED,)),
    Column(
        "precompute", ("_s", "_peak_mb"), _costs("precompute_"), "Prepare", "costs", _cost, (_COST,), TRAINED,
        unknown=DASH,
    ),
    Column("unlearn", ("_s", "_peak_mb"), _costs(""), "Unlearn", "costs", _cost, (_COST,), TRAINED),
    Column(
        "artefact", ("_mb", "_floats_per_person"),
        _means({"_mb": "artefact_mb", "_floats_per_person": "artefact_floats_per_person"}), "Kept", "costs", _kept,
        (_KEPT,), TRAINED, unknown=DASH, optional=True,
    ),
    Column("rmia_auc", _ENDS, _attack("rmia", "auc"), "AUC", "attacks", interval, (_RMIA, _AUC)),
    *(
        Column(
            f"rmia_tpr_at_{fpr:g}", (*_ENDS, "_hits"), _attack("rmia", "tpr", fpr), f"TPR at {100 * fpr:g}% FPR",
            "attacks", _rate, (_TPR,),
        )
        for fpr in FPRS
    ),
    Column("members", ("",), _counted("members")),
    Column("non_members", ("",), _counted("non_members")),
    Column("smallest_fpr", ("",), _counted("smallest_fpr", 100.0)),
    Column(
        "published_protocol_tpr", _MEAN_STD, _protocol, "Published protocol", "attacks",
        lambda row, key, _: mean_std(row, key, 2), (_PROTOCOL,), beside="mia",
    ),
    Column("loss_auc", _ENDS, _attack("loss", "auc"), "Loss AUC", "attacks", interval, (_LOSS,)),
    Column("streisand_auc", _ENDS, _attack("streisand", "auc"), "Streisand AUC", "attacks", interval, (_STREISAND,)),
    Column("streisand_tpr_at_0.01", ("",), _attack("streisand", "tpr", 0.01)),
    Column(
        "refit_forget", _MEAN_STD, _over_seeds(_PROBE_FORGET), "Linear probe: forget", "controls", mean_std, (_PROBE,)
    ),
    Column(
        "refit_test", _MEAN_STD, _over_seeds(_percent("test", "refit_{measure}")), "Linear probe: test", "controls",
        mean_std, (_PROBE,),
    ),
    Column(
        "wrong_photos_tow", _MEAN_STD, _over_seeds(_wrong_photos), "ToW with wrong photos", "controls", mean_std,
        (_PHOTOS,), (*TRAINED, WITH_DATA),
    ),
    Column(
        "refit_forget_minus_retrain", ("_mean", "_ci95"),
        _over_seeds(_minus(_PROBE_FORGET, _percent("forget", "refit_{measure}", RETRAINED))),
        "Probe: difference to the retrained model", "controls", difference, (_PROBE,), ("retrain",),
    ),
    Column(
        "wrong_photos_minus_own", ("_mean", "_ci95"), _over_seeds(_minus(_wrong_photos, _TOW_OF)),
        "Wrong minus right photos", "controls", difference, (_PHOTOS,), (*TRAINED, WITH_DATA),
    ),
    Column(
        "kl_to_retrained", _MEAN_STD, _over_seeds(lambda numbers: numbers.by_seed("forget", "kl_to_retrained")),
        "KL to the retrained model", "traces", lambda row, key, _: mean_std(row, key, 2), (_KL,), ("retrain",),
    ),
    *(
        Column(
            f"probe_{depth}", _MEAN_STD, _over_seeds(_percent("forget", f"probe_{depth}_{{measure}}")), head, "traces",
            mean_std, (_DEPTH,),
        )
        for depth, head in (
            ("25", "Probe behind 25%"), ("50", "50%"), ("75", "75%"), ("90", "90%"),
            ("projection", "last projection's input"), ("100", "100% of the blocks"), ("features", "features"),
        )
    ),
    Column(
        "relearned", _MEAN_STD, _over_seeds(_percent("forget", "relearned_{measure}")), "Relearned", "traces", mean_std,
        (_RELEARN,),
    ),
    Column(
        "relearned_gain", _MEAN_STD,
        _over_seeds(_minus(_percent("forget", "relearned_{measure}"), _percent("forget", "held_{measure}"))),
        "Gain by relearning", "traces", mean_std, (_RELEARN,),
    ),
    Column(
        "relearn_steps", _MEAN_STD, _over_seeds(lambda numbers: numbers.by_seed("forget", "relearn_steps")),
        "Steps to relearn", "traces", mean_std, (_RELEARN,),
    ),
    *(
        Column(f"published_{name}", ("", "_std"), _published(name))
        for name in ("retain", "forget", "test", "tow", "mia")
    ),
    Column(
        "tow_diff_in_published_std", ("",), _away, "ToW, difference to published", "results",
        lambda row, key, _: f"{row[key]:+z.1f} std", unknown=DASH, optional=True,
    ),
)  # fmt: skip

#: columns of the CSV that say which model a row is about, and of how many seeds it has all numbers
KEYS = ("dataset", "n", "method", "label", "measure", "access_to_data", "n_seeds")
#: the CSV's columns, in order
NAMES = (*KEYS, *(name for column in COLUMNS for name in column.names))
#: columns with a mean that a model must have of every seed
QUANTITIES = ("retain", "forget", "test", "tow")
#: columns that count what went wrong -> the words for it
FLAGS = {
    "saturated": "saturated (the step changed next to nothing)",
    "blown_up": "diverged (the step destroyed the model)",
}


def cards() -> list[Card]:
    """Return what the columns mean, each once, in their order."""
    return list(dict.fromkeys(card for column in COLUMNS for card in column.cards))
