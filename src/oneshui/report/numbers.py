"""What is known of one model in one setting: its metrics by seed, pooled attacks, and published results."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from oneshui.errors import DataError
from oneshui.report.attacks import POOLED
from oneshui.report.style import MEASURE_NAMES, kind_of
from oneshui.runs import Model

_PUBLISHED_COLUMNS = ("table", "dataset", "n_identities", "method", "variant", "metric", "mean", "std")
#: the paper's attack among published metrics
_PUBLISHED_MIA = "tpr_at_fpr_0.0001"

Values = npt.NDArray[np.float64]
#: (attack, metric, false positive rate or 0 for an AUC) -> row of the summary of attacks
Attacks = Mapping[tuple[str, str, float], Mapping[Any, Any]]


@dataclass(frozen=True)
class Numbers:
    """The numbers of one model in one setting, from which columns are computed.

    Attributes:
        model: ``pretrain``, ``retrain``, ``ceiling`` or ``pretrain/METHOD``.
        measure: ``map`` or ``accuracy``; None where there are no metrics.
        seeds: those that every model must have.
        metrics: of all models of the setting: (origin, method, split, metric, seed) -> value.
        attacks: pooled over seeds.
        protocol: true positive rates of the published protocol, one a seed; fractions.
        published: quantity -> mean and standard deviation, percent.
    """

    model: Model
    measure: str | None
    seeds: Sequence[int]
    metrics: Mapping[tuple[str, str, str, str, int], float]
    attacks: Attacks
    protocol: Sequence[float]
    published: Mapping[str, tuple[float, float]]

    def by_seed(self, split: str, metric: str, model: Model | None = None) -> Values:
        """Return a metric of each seed, of this model or another; NaN where there is none.

        ``{measure}`` in ``metric`` stands for the measure of the dataset.
        """
        asked = model or self.model
        key = (asked.origin, asked.method_name, split, metric.format(measure=self.measure))
        return np.array([self.metrics.get((*key, seed), math.nan) for seed in self.seeds], dtype=np.float64)


def measure_of(metrics: pd.DataFrame, where: str) -> str | None:
    """Return the measure that metrics of a setting have, or None.

    Raises:
        DataError: they have several.
    """
    found = [name for name in MEASURE_NAMES if (metrics["metric"] == name).any()]
    if len(found) > 1:
        raise DataError(
            f"metrics of {where} have both {' and '.join(found)}, allowed: one of them. Files of different versions of "
            "the dataset are mixed; delete its metrics to make them again."
        )
    return found[0] if found else None


def index_metrics(
    metrics: pd.DataFrame, models: Collection[Model], where: str
) -> dict[tuple[str, str, str, str, int], float]:
    """Return (origin, method, split, metric, seed) -> value of the asked models.

    Raises:
        DataError: a value is there twice.
    """
    asked = {(model.origin, model.method_name) for model in models}
    found: dict[tuple[str, str, str, str, int], float] = {}
    columns = ("origin", "method", "split", "metric", "seed", "value")
    for origin, method, split, metric, seed, value in zip(*(metrics[name] for name in columns), strict=True):
        if (origin, method) not in asked:
            continue
        key = (str(origin), str(method), str(split), str(metric), int(seed))
        if key in found:
            raise DataError(
                f"metrics have several values of {metric} ({split}) for {method}, {where}, seed {seed}. "
                "Give each metrics file once."
            )
        found[key] = float(value)
    return found


def index_attacks(
    summary: pd.DataFrame | None, dataset: str, n: int, model: str
) -> tuple[dict[tuple[str, str, float], Mapping[Any, Any]], list[float]]:
    """Return the pooled rows of a model by attack, metric and rate, and the published protocol's rate of each seed."""
    if summary is None:
        return {}, []
    own = summary[(summary["dataset"] == dataset) & (summary["n"] == n) & (summary["row"] == model)]
    pooled = own[own["seed"].astype(str) == POOLED].to_dict("records")
    single = own.loc[own["attack"] == "published_protocol", "value"]
    return {
        (str(row["attack"]), str(row["metric"]), 0.0 if row["metric"] == "auc" else float(row["fpr"])): row
        for row in pooled
    }, single.astype(float).tolist()


def check_published(frame: pd.DataFrame, table: Any) -> None:
    """Refuse published results that lack a column or have one twice in ``table``, the number of a table.

    Raises:
        DataError: they do.
    """
    missing = [name for name in _PUBLISHED_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"published results lack the columns {missing}, needed: {', '.join(_PUBLISHED_COLUMNS)}")
    keys = ["dataset", "n_identities", "method", "variant", "metric"]
    own = frame[frame["table"] == table].fillna({"variant": ""})
    repeated = own[own.duplicated(keys)]
    if len(repeated):
        raise DataError(f"published results have {tuple(repeated.iloc[0][keys])} several times, allowed: once")


def published_kinds(spec: Mapping[str, Any]) -> dict[str, str | None]:
    """Return method -> the published method that it stands for: its kind, or None.

    Of several methods of a kind that one is meant which is called like it.
    """
    methods, kinds = [str(name) for name in spec["methods"]], spec.get("kinds")
    variants = (spec.get("published") or {}).get("variants") or {}
    kind = {name: kind_of(name, kinds) for name in methods}
    counts = Counter(kind[name] for name in methods if name not in variants)
    return {name: kind[name] if name == kind[name] or counts[kind[name]] == 1 else None for name in methods}


def published_of(
    frame: pd.DataFrame,
    spec: Mapping[str, Any],
    dataset: str,
    n: int,
    method: str,
    measure: str | None,
    *,
    kind: str | None,
) -> dict[str, tuple[float, float]]:
    """Return quantity -> published mean and standard deviation of a model, in percent.

    ``spec`` has the published ``table`` and which of MetaUnlearn's ``variants`` a method is there. One that is no
    variant stands for ``kind``; None: it is a variant of our own, which nobody published.
    """
    variant = (spec.get("variants") or {}).get(method, "")
    if isinstance(variant, Mapping):
        variant = variant.get(f"{dataset}/n{n}", "")
    name = "metaunlearn" if variant else kind  # the paper's only method with variants
    own = frame[frame["dataset"] == dataset]
    # a ToW of accuracies is not compared with a published one of mAPs
    if f"{measure}_retain" not in set(own["metric"]):
        return {}
    own = own[(own["table"] == spec["table"]) & (own["n_identities"] == n) & (own["method"] == name)]
    own = own[own["variant"].fillna("") == variant]
    metrics = {f"{measure}_{each}": each for each in ("retain", "forget", "test")} | {
        "tow": "tow",
        _PUBLISHED_MIA: "mia",
    }
    found = zip(own["metric"], own["mean"], own["std"], strict=True)
    return {metrics[metric]: (float(mean), float(std)) for metric, mean, std in found if metric in metrics}
