"""What attacks found, over seeds: one tidy table of rates and areas with their intervals."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from oneshui.errors import DataError
from oneshui.metrics.roc import auc, tpr_at_fpr

logger = logging.getLogger(__name__)

#: false positive rates at which true positive rates are reported; the first is the paper's
FPRS = (1e-4, 1e-3, 1e-2)
POOLED = "pooled"
COLUMNS = (
    "dataset",
    "n",
    "row",
    "seed",
    "attack",
    "metric",
    "fpr",
    "value",
    "low",
    "high",
    "hits",
    "members",
    "non_members",
    "fpr_used",
    "smallest_fpr",
)
_NAN = math.nan


def summarise(attacks: Iterable[tuple[pd.DataFrame, Mapping[str, Any]]], *, seeds: Sequence[int]) -> pd.DataFrame:
    """Return rates and areas of each attacked model, by seed and pooled over seeds.

    ``attack`` is ``rmia``, ``loss`` (small losses look like members), ``streisand`` (large ones do), or
    ``published_protocol``; ``metric`` is ``auc`` or ``tpr``, the latter at the false positive rate ``fpr``. Values are
    fractions with their 95% intervals; ``hits`` of ``members`` were found. A model that diverged in one seed has no
    pooled values, because they would stand for fewer seeds than those of its neighbours.

    Args:
        attacks: tables of schema ATTACK with their metadata, in any order.
        seeds: the seeds that every model must have.

    Raises:
        DataError: two tables are of the same model and seed.
    """
    by_row: dict[tuple[str, int, str], dict[int, tuple[pd.DataFrame, Mapping[str, Any]]]] = {}
    for frame, meta in attacks:
        found = by_row.setdefault((str(meta["dataset"]), int(meta["n"]), str(meta["row"])), {})
        if int(meta["seed"]) in found:
            raise DataError(f"two attacks on {meta['row']} of {meta['dataset']}, n = {meta['n']}, seed {meta['seed']}")
        found[int(meta["seed"])] = (frame, meta)
    rows: list[dict[str, Any]] = []
    for (dataset, n, row), found in by_row.items():
        run = {"dataset": dataset, "n": n, "row": row}
        complete = {seed: found[seed] for seed in seeds if seed in found and not found[seed][1]["blown_up"]}
        for seed, (frame, meta) in complete.items():
            rows += [{**run, "seed": str(seed), **each} for each in [*_values(frame), _published(meta)]]
        if len(complete) == len(seeds):
            pooled = pd.concat([frame for frame, _ in complete.values()], ignore_index=True)
            rows += [{**run, "seed": POOLED, **each} for each in _values(pooled)]
        else:
            logger.warning("%s on %s, n = %d: no attack in some of the seeds %s", row, dataset, n, list(seeds))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {"hits": "Int64", "members": "Int64", "non_members": "Int64"}
    )


def _values(frame: pd.DataFrame) -> list[dict[str, Any]]:
    member, identity = frame["is_member"].to_numpy(), frame["identity"].to_numpy()
    counts = {"members": int(member.sum()), "non_members": int((~member).sum())}
    signals = {"rmia": frame["rmia"], "loss": frame["loss_score"], "streisand": -frame["loss_score"]}
    rows = []
    for name, signal in signals.items():
        scores = signal.to_numpy(dtype=np.float64)
        area = auc(scores, member, identity)
        rows.append({"attack": name, "metric": "auc", "fpr": _NAN, "value": area.value, "low": area.low,
                     "high": area.high, **counts})  # fmt: skip
        for fpr in FPRS:
            rate = tpr_at_fpr(scores, member, fpr)
            rows.append({"attack": name, "metric": "tpr", "fpr": fpr, "value": rate.tpr, "low": rate.low,
                         "high": rate.high, "hits": rate.hits, **counts, "fpr_used": rate.fpr_used,
                         "smallest_fpr": rate.resolvable_fpr})  # fmt: skip
    return rows


def _published(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"attack": "published_protocol", "metric": "tpr", "fpr": FPRS[0], "value": meta["published"]["tpr"]}
