"""Ranking of tried hyper-parameters."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from oneshui.files import write_text
from oneshui.log import logger
from oneshui.report.tables import read_csv

_RESULTS = ["seed", "request", "score", "retain", "forget", "val"]


def select_hyperparameters(trials_paths: Sequence[Path], output_path: Path) -> None:
    """Write the tried combinations with their mean score over seeds and requests, the best first.

    The row with empty parameters is the original model: a combination below it is worse than not unlearning.

    Args:
        trials_paths: one file of ``try_hyperparameters`` per seed.
        output_path: CSV with one row per combination: parameters, mean and std of the score, number of requests,
            means of retain, forget and val.
    """
    trials = pd.concat([read_csv(path) for path in trials_paths])
    params = [column for column in trials.columns if column not in _RESULTS]
    grouped = trials.groupby(params, dropna=False)
    ranking = grouped[["score", "retain", "forget", "val"]].mean()
    ranking.insert(1, "score_std", grouped["score"].std(ddof=1))
    ranking.insert(2, "n_requests", grouped.size())
    ranking = ranking.sort_values("score", ascending=False, kind="stable").reset_index()
    best = ranking.iloc[0]
    chosen = best[params].to_dict() if best[params].notna().any() else "the original model, not unlearned"
    logger.info("best of %d combinations: %s, score %.4f", len(ranking), chosen, best["score"])
    write_text(output_path, ranking.to_csv(index=False))
