"""Result tables: one row per setting and model, mean and spread over seeds, beside the published numbers.

``make_table`` fills the columns of ``oneshui.report.columns``; ``oneshui.report.write`` prints them. Numbers are
percentages here; inside metrics files they are fractions. A number that some seed lacks is missing (NaN): a mean never
silently stands for fewer seeds than its neighbours.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from oneshui.errors import ConfigError, DataError
from oneshui.report.columns import COLUMNS, FLAGS, KEYS, NAMES, QUANTITIES
from oneshui.report.numbers import (
    Numbers,
    check_published,
    index_attacks,
    index_metrics,
    measure_of,
    published_kinds,
    published_of,
)
from oneshui.report.style import method_labels
from oneshui.runs import RETRAINED, controls_of, models_of

logger = logging.getLogger(__name__)


def make_table(
    metrics: pd.DataFrame,
    spec: Mapping[str, Any],
    published: pd.DataFrame | None,
    attacks: pd.DataFrame | None = None,
    *,
    seeds: Sequence[int],
    data_methods: Collection[str] = (),
) -> pd.DataFrame:
    """Return a table with one row per setting and model: pretrain, retrain, ceiling (privacy tables), then methods.

    Args:
        metrics: METRICS rows of any number of models, in any order; rows that the table does not ask for are ignored.
        spec: ``{title, blocks: [{dataset, n}, ...], methods: [...], decimals, privacy}``; if it has them, ``published:
            {table, variants}`` names the published table that it stands beside and which of MetaUnlearn's variants a
            method is there (one name, or one by ``DATASET/nN``), ``labels`` how methods are written, and ``kinds`` what
            methods are that are not called like their kind.
        published: published results, or None.
        attacks: what ``oneshui.report.attacks.summarise`` returned, for a privacy table.
        seeds: the seeds that every row must have.
        data_methods: methods that need the training data at unlearning time.

    Returns:
        The columns ``oneshui.report.columns.NAMES``, numbers in percent. ``n_seeds`` counts the seeds for which all
        means of the row were found. Std has ddof 1 and is NaN for one seed. Differences are paired by seed; ``ci95``
        is the half-width of their 95% interval by Student's t. ``saturated`` and ``blown_up`` count seeds. Costs are
        means over seeds, s and MB, as measured on the machine that ran the jobs.

    Raises:
        ConfigError: ``spec`` lacks a part, or there are no seeds.
        DataError: the metrics contradict each other, or ``published`` has other columns or repeats a result.
    """
    _check_spec(spec, seeds)
    printed = spec.get("published")
    if published is not None and printed is not None:
        check_published(published, printed["table"])
    models, controls = models_of(spec), controls_of(spec, data_methods)
    labels = method_labels((model.method_name for model in models), spec.get("labels"), spec.get("kinds"))
    stands_for = published_kinds(spec)
    rows: list[dict[str, Any]] = []
    for block in spec["blocks"]:
        dataset, n = str(block["dataset"]), int(block["n"])
        own = metrics[(metrics["dataset"] == dataset) & (metrics["n"] == n)]
        measure = measure_of(own, f"{dataset}, n = {n}")
        found = index_metrics(own, [*models, *controls], f"n = {n}")
        for model in models:
            method = model.method_name
            beside = {}
            if published is not None and printed is not None:
                kind = stands_for.get(method, method)
                beside = published_of(published, printed, dataset, n, method, measure, kind=kind)
            numbers = Numbers(model, measure, seeds, found, *index_attacks(attacks, dataset, n, str(model)), beside)
            keys = (dataset, n, method, labels[method], measure, method in data_methods)
            rows.append(dict(zip(KEYS, (*keys, _complete(numbers, f"{method} on {dataset}, n = {n}")), strict=True)))
            rows[-1] |= values_of(numbers)
    table = pd.DataFrame(rows, columns=list(NAMES))
    return table.astype(dict.fromkeys(("n_seeds", *FLAGS), "Int64"))


def values_of(numbers: Numbers) -> dict[str, float]:
    """Return all columns of a model, NaN where there is no number."""
    row: dict[str, float] = {}
    for column in COLUMNS:
        found = column.source(numbers)
        row |= {name: found.get(part, math.nan) for name, part in zip(column.names, column.parts, strict=True)}
    return row


def settings_of(table: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """Return the rows of each setting (dataset, n), in order."""
    keys = table[["dataset", "n"]].drop_duplicates()
    return [
        ((str(dataset), int(n)), table[(table["dataset"] == dataset) & (table["n"] == n)])
        for dataset, n in zip(keys["dataset"], keys["n"], strict=True)
    ]


def in_blocks(table: pd.DataFrame, blocks: Sequence[Mapping[str, Any]] | None) -> pd.DataFrame:
    """Return the rows of settings, in the order of ``blocks``; all rows where a figure asks for no blocks."""
    if not blocks:
        return table
    chosen = [(table["dataset"] == block["dataset"]) & (table["n"] == block["n"]) for block in blocks]
    found: pd.DataFrame = pd.concat([table[rows] for rows in chosen])
    return found


def _check_spec(spec: Mapping[str, Any], seeds: Sequence[int]) -> None:
    title, blocks = spec.get("title", "?"), spec.get("blocks", [])
    missing = [key for key in ("title", "blocks", "methods", "decimals", "privacy") if key not in spec]
    missing += [f"blocks[{i}].{key}" for i, block in enumerate(blocks) for key in ("dataset", "n") if key not in block]
    if missing:
        raise ConfigError(f"table {title!r}: missing {', '.join(missing)}. Add it to the config.")
    keys = [(block["dataset"], block["n"]) for block in blocks]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"table {title!r}: blocks are {keys}, allowed: each dataset and n once")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"table {title!r}: seeds are {list(seeds)}, needed: one or more, each once")


def _complete(numbers: Numbers, where: str) -> int:
    """Return the number of seeds that have all means of a model."""
    # ToW compares with the retrained model, which therefore has none itself
    needed = [numbers.by_seed(name, "{measure}") for name in QUANTITIES if name != "tow"]
    if numbers.model != RETRAINED:
        needed.append(numbers.by_seed("all", "tow"))
    complete = [not any(map(math.isnan, values)) for values in zip(*needed, strict=True)]
    if not all(complete):
        lacking = [seed for seed, each in zip(numbers.seeds, complete, strict=True) if not each]
        logger.warning("%s: no complete results for seeds %s", where, lacking)
    return sum(complete)


def to_csv(table: pd.DataFrame) -> str:
    """Return the table as CSV, one row per setting and model, numbers in percent with six decimals at most."""
    return table.round(6).to_csv(index=False, lineterminator="\n")


def to_tidy_csv(table: pd.DataFrame) -> str:
    """Return the same numbers one in a row: dataset, n, method, label, measure, n_seeds, quantity, value."""
    tidy = table.round(6).melt(id_vars=list(KEYS), var_name="quantity", value_name="value")
    return tidy.to_csv(index=False, lineterminator="\n")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Return a CSV file; only an empty cell is a missing value, because a method may be called None or NA.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} is not a readable CSV file ({error}). Make it again.") from error
