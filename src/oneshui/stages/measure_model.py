"""From scores to metrics, and no further: everything here runs without torch and without a GPU."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from oneshui.diagnostics import has_diverged
from oneshui.errors import DataError
from oneshui.metrics.accuracy import accuracy, mean_average_precision
from oneshui.metrics.divergence import mean_kl
from oneshui.metrics.measure import MEASURES
from oneshui.metrics.roles import metric_rows
from oneshui.metrics.tow import TOW_SPLITS, tug_of_war
from oneshui.runs import RETRAINED, Model, Run
from oneshui.schemas import METRICS, SPLITS, read_table, write_table
from oneshui.stages.rows import ImageRows, check_split, read_labels, read_scores, require

logger = logging.getLogger(__name__)

_SPLITS = (*TOW_SPLITS, "val")
#: what making a model cost, in its metadata: s and MB of unlearning, and of precomputing the artefact; its size
COSTS = (
    "seconds", "peak_mb", "precompute_seconds", "precompute_peak_mb", "artefact_mb", "artefact_floats_per_person"
)  # fmt: skip


def measure_model(
    scores_path: Path, retrain_scores_path: Path, splits_path: Path, index_path: Path, output_path: Path, *, run: Run,
    model: Model,
) -> None:  # fmt: skip
    """Write the metrics of one model: how well it does on each split, and its tug of war with the retrained model.

    Rows of splits retain, forget, test and val: ``accuracy`` or ``map``, ``loss`` (mean, nats), ``n_images`` and, for
    mAP, ``attributes_left_out``. Of split forget also ``kl_to_retrained`` (nats), of split "all" ``tow``; these two not
    for the retrained model, where they are 0 and 1 by definition. Further rows of split "all": the costs, and every
    number or truth value that the model's header has under ``health``.

    Args:
        scores_path: scores of the model; view 0 is measured.
        retrain_scores_path: scores of the retrained model.
        splits_path: of the run.
        index_path: of the dataset; has the labels, the task and the class names.
        output_path: metrics table to write.
        run: dataset, request size and seed.
        model: what is measured.

    Raises:
        DataError: image ids disagree between the files, an image is missing, or a model is of another split. (A model
            that has diverged is no error: its metrics say ``blown_up`` and nothing else.)
        ConfigError: the splits have fewer than ``run.n`` identities to forget.
    """
    assert run.n is not None
    splits, split_meta = read_table(splits_path, SPLITS)
    rows = {name: ids for name, ids in metric_rows(splits, run.n).items() if name in _SPLITS}
    labels, task, classes = read_labels(index_path)
    require(splits["image_id"].to_numpy(dtype=np.int64), labels.ids, splits_path, index_path)
    scores, made = read_scores(scores_path, classes)
    _check_scores(scores, made, rows.values(), labels, splits_path, split_meta)
    diverged = has_diverged(finite=bool(np.isfinite(scores.values["loss"]).all()))
    if diverged:
        logger.warning("%s: the model has diverged: its losses are not finite, nothing else is measured", scores_path)
    values = [("all", "blown_up", 1.0)] if diverged else _measure(scores, labels, rows, task)
    values += [entry for entry in _diagnostics(made) if not (diverged and entry[1] == "blown_up")]
    if model != RETRAINED and not diverged:
        reference, reference_model = read_scores(retrain_scores_path, classes)
        _check_scores(reference, reference_model, rows.values(), labels, splits_path, split_meta)
        compared = {split: rows[split] for split in TOW_SPLITS}
        expected = _measure(reference, labels, compared, task)
        measure = MEASURES[task]
        values.append(("all", "tow", tug_of_war(_by_split(values, measure), _by_split(expected, measure))))
        answers, theirs = (np.asarray(each.take(rows["forget"])["logits"]) for each in (scores, reference))
        values.append(("forget", "kl_to_retrained", mean_kl(theirs, answers, task=task)))
    frame = pd.DataFrame(values, columns=["split", "metric", "value"])
    write_table(output_path, metric_table(frame, run, model), METRICS, {"task": task, "model": made})


def metric_table(values: pd.DataFrame, run: Run, model: Model) -> pd.DataFrame:
    """Return split, metric and value with the run and the model that they are of (schema METRICS)."""
    return values.assign(**asdict(run), **model.columns)[list(METRICS.columns)]


def _check_scores(
    scores: ImageRows, model: Mapping[str, Any], needed: Iterable[npt.NDArray[np.int64]], labels: ImageRows,
    splits_path: str | Path, split_meta: Mapping[str, Any],
) -> None:  # fmt: skip
    """Refuse scores of other images, or of a model that was trained on another split."""
    check_split(scores.path, model, splits_path, split_meta)
    require(scores.ids, labels.ids, scores.path, labels.path)
    for ids in needed:
        require(ids, scores.ids, splits_path, scores.path)


def _measure(
    scores: ImageRows, labels: ImageRows, rows: dict[str, npt.NDArray[np.int64]], task: str
) -> list[tuple[str, str, float]]:
    """Return (split, metric, value) of every metric that belongs to a split."""
    values = []
    for split, ids in rows.items():
        scored, label = scores.take(ids), labels.take(ids)["label"]
        try:
            if task == "classification":
                values.append((split, "accuracy", accuracy(scored["logits"], label)))
            else:
                measured, left_out = mean_average_precision(scored["logits"], label)
                values += [(split, "map", measured), (split, "attributes_left_out", float(left_out))]
        except DataError as error:
            raise DataError(f"{scores.path}, split {split}: {error}") from error
        values += [(split, "loss", float(scored["loss"].mean())), (split, "n_images", float(len(ids)))]
    return values


def _by_split(values: list[tuple[str, str, float]], measure: str) -> dict[str, float]:
    return {split: value for split, metric, value in values if metric == measure}


def _diagnostics(model: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return what the model's metadata say about how it was made, numbers only."""
    entries = dict(model.get("health") or {})
    entries |= {name: model[name] for name in COSTS if name in model}
    values = []
    for name, value in sorted(entries.items()):
        if not isinstance(value, int | float):
            continue
        if math.isnan(value):  # the table has no place for it
            logger.warning("diagnostic %s of the model is NaN and is left out", name)
            continue
        values.append(("all", name, float(value)))
    return values
