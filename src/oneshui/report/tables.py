"""Result tables: one row per method, mean and spread over seeds, beside the published numbers.

``make_table`` computes; ``oneshui.report.markdown`` and ``oneshui.report.latex`` print. Numbers are percentages here;
inside metrics files they are fractions. A number that some seed lacks is missing (NaN): a mean never silently stands
for fewer seeds than its neighbours.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from oneshui.errors import ConfigError, DataError
from oneshui.paths import origin_and_method, table_rows
from oneshui.report.attacks import PRIVACY_COLUMNS, read_summary
from oneshui.report.style import MEASURE_NAMES, method_name

logger = logging.getLogger(__name__)

#: columns of numbers that a mean and a standard deviation stand for
QUANTITIES = ("retain", "forget", "test", "tow")
#: what a method can have done wrong, with the words for it
FLAGS = {
    "saturated": "saturated (its step changed next to nothing)",
    "blown_up": "blew up (its step destroyed the model)",
}
#: metric -> column: what a method costs, mean over seeds
COSTS = {
    "precompute_seconds": "precompute_s",
    "precompute_peak_mb": "precompute_peak_mb",
    "seconds": "unlearn_s",
    "peak_mb": "unlearn_peak_mb",
}
#: mean and standard deviation in privacy tables: the measure after a refit of the classifier, and the tug of war of the
#: same request with other people's photos
CONTROLS = ("refit_forget", "refit_test", "wrong_photos_tow")
#: the paper's attack in ``published``
_PUBLISHED_MIA = "tpr_at_fpr_0.0001"
COLUMNS = (
    "dataset",
    "n",
    "method",
    "label",
    "measure",
    "access_to_data",
    "n_seeds",
    *(f"{name}_{part}" for name in QUANTITIES for part in ("mean", "std")),
    "tow_minus_pretrain_mean",
    "tow_minus_pretrain_std",
    "tow_minus_pretrain_ci95",
    *FLAGS,
    *COSTS.values(),
    *PRIVACY_COLUMNS,
    *(f"{name}_{part}" for name in CONTROLS for part in ("mean", "std")),
    "refit_forget_minus_retrain_mean",
    "refit_forget_minus_retrain_ci95",
    "wrong_photos_minus_own_mean",
    "wrong_photos_minus_own_ci95",
    *(f"published_{name}{part}" for name in (*QUANTITIES, "mia") for part in ("", "_std")),
    "tow_diff_in_published_std",
)
_PUBLISHED_COLUMNS = ("table", "dataset", "n_identities", "method", "variant", "metric", "mean", "std")
_NAN = math.nan


def make_table(
    metrics: pd.DataFrame,
    spec: Mapping[str, Any],
    published: pd.DataFrame | None,
    attacks: pd.DataFrame | None = None,
    *,
    seeds: Sequence[int],
    data_methods: Collection[str] = (),
) -> pd.DataFrame:
    """Return a table with one row per block and model: pretrain, retrain, ceiling (privacy tables), methods in order.

    Args:
        metrics: METRICS rows of any number of models, in any order; rows that the table does not ask for are ignored.
        spec: ``{title, blocks: [{dataset, n}, ...], methods: [...], decimals, privacy}``; if it has them, ``published:
            {table, variants}`` names the published table that it stands beside and which of MetaUnlearn's variants a
            method is there (one name, or one by ``DATASET/nN``), and ``labels`` how methods are written.
        published: published results, or None.
        attacks: what ``oneshui.report.attacks.summarise`` returned, for a privacy table.
        seeds: the seeds that every row must have.
        data_methods: methods that need the training data at unlearning time.

    Returns:
        The columns ``COLUMNS``, numbers in percent. ``n_seeds`` counts the seeds for which all numbers of the row
        were found; std has ddof 1 and is NaN for one seed. ``tow_minus_pretrain`` is paired by seed, ``ci95`` is the
        half-width of its 95% interval by Student's t. ``saturated`` and ``blown_up`` count seeds. Costs are means over
        seeds, s and MB, as measured on the machine that ran the jobs.

    Raises:
        ConfigError: ``spec`` lacks a part, or there are no seeds.
        DataError: the metrics contradict each other, or ``published`` has other columns or repeats a result.
    """
    _check_spec(spec, seeds)
    printed = _Published.of(published, spec)
    labels = spec.get("labels") or {}
    names = {origin_and_method(row)[1]: row for row in table_rows(spec)}
    rows = []
    for block in spec["blocks"]:
        dataset, n = str(block["dataset"]), int(block["n"])
        chosen = metrics[(metrics["dataset"] == dataset) & (metrics["n"] == n)]
        measure = _measure_of(chosen, dataset, n)
        values = {method: _values_by_seed(chosen, row, measure, seeds) for method, row in names.items()}
        for method, name in names.items():
            row: dict[str, Any] = {"dataset": dataset, "n": n, "method": method, "measure": measure}
            row |= {"label": labels.get(method) or method_name(method), "access_to_data": method in data_methods}
            row |= _summary(values[method], values["pretrain"]["tow"], f"{method} on {dataset}, n = {n}", method)
            row |= printed.columns(dataset, n, method, measure, row["tow_mean"])
            row |= read_summary(attacks, dataset, n, name)
            row |= _controls(values[method], values["retrain"], _wrong_photos(chosen, method, measure, seeds))
            rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("n_seeds", *FLAGS), "Int64"))


def _check_spec(spec: Mapping[str, Any], seeds: Sequence[int]) -> None:
    title, blocks = spec.get("title", "?"), spec.get("blocks", [])
    missing = [key for key in ("title", "blocks", "methods", "privacy") if key not in spec]
    missing += [f"blocks[{i}].{key}" for i, block in enumerate(blocks) for key in ("dataset", "n") if key not in block]
    if missing:
        raise ConfigError(f"table {title!r}: missing {', '.join(missing)}. Add it to the config.")
    keys = [(block["dataset"], block["n"]) for block in blocks]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"table {title!r}: blocks are {keys}, allowed: each dataset and n once")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"table {title!r}: seeds are {list(seeds)}, needed: one or more, each once")


def _measure_of(metrics: pd.DataFrame, dataset: str, n: int) -> str | None:
    found = [name for name in MEASURE_NAMES if (metrics["metric"] == name).any()]
    if len(found) > 1:
        raise DataError(
            f"metrics of {dataset}, n = {n} have both {' and '.join(found)}, allowed: one of them. Files of different "
            "versions of the dataset are mixed; delete its metrics to make them again."
        )
    return found[0] if found else None


def _values_by_seed(metrics: pd.DataFrame, row: str, measure: str | None, seeds: Sequence[int]) -> pd.DataFrame:
    """Return one row per seed with the quantities in percent and the flags, NaN where there is no number."""
    origin, method = origin_and_method(row)
    own = metrics[(metrics["method"] == method) & (metrics["origin"] == origin)]
    repeated = own[own.duplicated(["seed", "split", "metric"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise DataError(
            f"metrics have several values of {first['metric']} ({first['split']}) for {method}, {first['dataset']}, "
            f"n = {first['n']}, seed {first['seed']}. Give each metrics file once."
        )
    found = dict(zip(zip(own["split"], own["metric"], own["seed"], strict=True), own["value"], strict=True))
    keys = {name: (name, measure) for name in ("retain", "forget", "test")} | {"tow": ("all", "tow")}
    keys |= {f"refit_{name}": (name, f"refit_{measure}") for name in ("forget", "test")}
    keys |= {name: ("all", name) for name in (*FLAGS, *COSTS)}
    columns = {name: [found.get((*key, seed), _NAN) for seed in seeds] for name, key in keys.items()}
    frame = pd.DataFrame(columns, index=pd.Index(seeds, name="seed"), dtype="float64")
    frame[[*QUANTITIES, "refit_forget", "refit_test"]] *= 100.0
    return frame


def _summary(values: pd.DataFrame, pretrain_tow: "pd.Series[float]", where: str, method: str) -> dict[str, Any]:
    # the retrained model is what the tug of war compares with: it has none itself
    needed = [name for name in QUANTITIES if method != "retrain" or name != "tow"]
    complete = values[needed].notna().all(axis=1)
    if not complete.all():
        logger.warning("%s: no complete results for seeds %s", where, list(values.index[~complete]))
    row: dict[str, Any] = {"n_seeds": int(complete.sum())}
    for name in QUANTITIES:
        row[f"{name}_mean"], row[f"{name}_std"] = _mean_std(values[name])
    mean, std = _mean_std(values["tow"] - pretrain_tow)
    row |= {"tow_minus_pretrain_mean": mean, "tow_minus_pretrain_std": std}
    row["tow_minus_pretrain_ci95"] = _half_width(std, len(values))
    for flag in FLAGS:
        row[flag] = int((values[flag] > 0).sum()) if values[flag].notna().any() else pd.NA
    row |= {column: float(values[metric].mean(skipna=False)) for metric, column in COSTS.items()}
    return row


def _wrong_photos(metrics: pd.DataFrame, method: str, measure: str | None, seeds: Sequence[int]) -> "pd.Series[float]":
    return _values_by_seed(metrics, f"wrong_photos/{method}", measure, seeds)["tow"]


def _controls(values: pd.DataFrame, retrain: pd.DataFrame, wrong_photos: "pd.Series[float]") -> dict[str, float]:
    row: dict[str, float] = {}
    columns = {"refit_forget": values["refit_forget"], "refit_test": values["refit_test"]}
    for name, column in (columns | {"wrong_photos_tow": wrong_photos}).items():
        row[f"{name}_mean"], row[f"{name}_std"] = _mean_std(column)
    differences = {
        "refit_forget_minus_retrain": values["refit_forget"] - retrain["refit_forget"],
        "wrong_photos_minus_own": wrong_photos - values["tow"],
    }
    for name, difference in differences.items():
        mean, std = _mean_std(difference)
        row |= {f"{name}_mean": mean, f"{name}_ci95": _half_width(std, len(difference))}
    return row


def _mean_std(values: "pd.Series[float]") -> tuple[float, float]:
    numbers = values.to_numpy(dtype=np.float64)
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else _NAN
    return float(np.mean(numbers)), std


def _half_width(std: float, count: int) -> float:
    """Return the half-width of the 95% interval of a mean by Student's t."""
    return float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if count > 1 else _NAN


@dataclass(frozen=True)
class _Published:
    """Published results of one table, by dataset, n, method, variant and metric."""

    values: Mapping[tuple[str, int, str, str, str], tuple[float, float]]
    measures: Mapping[str, set[str]]
    variants: Mapping[str, Any]

    @classmethod
    def of(cls, frame: pd.DataFrame | None, spec: Mapping[str, Any]) -> "_Published":
        """Read those of the table that ``spec`` names under ``published``; without one there are none."""
        named = spec.get("published")
        if frame is None or named is None:
            return cls({}, {}, {})
        missing = [name for name in _PUBLISHED_COLUMNS if name not in frame.columns]
        if missing:
            raise DataError(f"published results lack the columns {missing}, needed: {', '.join(_PUBLISHED_COLUMNS)}")
        keys = ["dataset", "n_identities", "method", "variant", "metric"]
        own = frame[frame["table"] == named["table"]].fillna({"variant": ""})
        repeated = own[own.duplicated(keys)]
        if len(repeated):
            raise DataError(f"published results have {tuple(repeated.iloc[0][keys])} several times, allowed: once")
        values = {
            (str(dataset), int(n), str(method), str(variant), str(metric)): (float(mean), float(std))
            for dataset, n, method, variant, metric, mean, std in own[[*keys, "mean", "std"]].itertuples(index=False)
        }
        measures: dict[str, set[str]] = {}
        for dataset, metric in zip(frame["dataset"], frame["metric"], strict=True):
            if str(metric).endswith("_retain"):
                measures.setdefault(str(dataset), set()).add(str(metric).removesuffix("_retain"))
        return cls(values, measures, named.get("variants") or {})

    def columns(self, dataset: str, n: int, method: str, measure: str | None, tow: float) -> dict[str, float]:
        """Return the published numbers of a row and how far its tug of war is from them."""
        variant = self.variants.get(method, "")
        if isinstance(variant, Mapping):
            variant = variant.get(f"{dataset}/n{n}", "")
        name = "metaunlearn" if variant else method  # the paper's only method with variants
        # a tug of war between accuracies is not held against a published one between mAPs
        known = self.values if measure in self.measures.get(dataset, set()) else {}
        row = {}
        for quantity in (*QUANTITIES, "mia"):
            metric = {"tow": "tow", "mia": _PUBLISHED_MIA}.get(quantity, f"{measure}_{quantity}")
            found = known.get((dataset, n, name, variant, metric), (_NAN, _NAN))
            row[f"published_{quantity}"], row[f"published_{quantity}_std"] = found
        std = row["published_tow_std"]
        row["tow_diff_in_published_std"] = (tow - row["published_tow"]) / std if std > 0 else _NAN
        return row


def to_csv(table: pd.DataFrame) -> str:
    """Return the table as CSV, one row per block and model, numbers in percent with six decimals at most."""
    return table.round(6).to_csv(index=False, lineterminator="\n")


def to_tidy_csv(table: pd.DataFrame) -> str:
    """Return the same numbers one in a row: dataset, n, method, label, measure, n_seeds, quantity, value."""
    keys = ["dataset", "n", "method", "label", "measure", "access_to_data", "n_seeds"]
    numbers = table.round(6)
    tidy = numbers.melt(id_vars=keys, var_name="quantity", value_name="value")
    return tidy.to_csv(index=False, lineterminator="\n")
