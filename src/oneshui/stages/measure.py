"""From scores to metrics, and no further: everything here runs without torch and without a GPU."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from oneshui.errors import DataError
from oneshui.metrics.accuracy import accuracy, mean_average_precision
from oneshui.metrics.measure import MEASURES
from oneshui.metrics.roles import metric_rows
from oneshui.metrics.tow import TOW_SPLITS, tug_of_war
from oneshui.schemas import INDEX, METRICS, SCORES, SPLITS, read_arrow, read_table, write_table

logger = logging.getLogger(__name__)

_SPLITS = (*TOW_SPLITS, "val")
#: what making a model cost, in its metadata: s and MB of unlearning, and of precomputing the artefact
COSTS = ("seconds", "peak_mb", "precompute_seconds", "precompute_peak_mb")


@dataclass(frozen=True)
class _Rows:
    """What a file says about images, one row per image, in the order of ``ids`` (sorted, without repetition)."""

    path: str | Path
    ids: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[Any]]

    def take(self, ids: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Return the values of ``ids``, all of which are known to be here."""
        rows = np.searchsorted(self.ids, ids)
        return {name: column[rows] for name, column in self.values.items()}


def compute_metrics(
    scores_path: str | Path,
    splits_path: str | Path,
    index_path: str | Path,
    retrain_scores_path: str | Path,
    output_path: str | Path,
    *,
    dataset: str,
    n: int,
    seed: int,
    origin: str,
    method: str,
) -> None:
    """Write the metrics of one model: how well it does on each split, and its tug of war with the retrained model.

    Rows of splits retain, forget, test and val: ``accuracy`` or ``map``, ``loss`` (mean, nats), ``n_images`` and, for
    mAP, ``attributes_left_out``. Rows of split "all": ``tow`` (not for the retrained model, where it is 1 by
    definition), the costs, and every number or truth value that the model's metadata has under ``health``.

    Args:
        scores_path: scores of the model; view 0 is measured.
        splits_path: splits of the dataset and seed.
        index_path: index of the dataset; has the labels, the task and the class names.
        retrain_scores_path: scores of the model retrained without the forget set.
        output_path: the metrics table to write.
        dataset: name of the dataset, as in the config.
        n: number of identities to forget.
        seed: seed of the run.
        origin: ``pretrain`` or ``retrain``, the model that was unlearned.
        method: ``pretrain``, ``retrain`` or the name of a method.

    Raises:
        DataError: image ids disagree between the files, an image is missing, or a model is of another split. (A model
            that answers NaN is no error: its metrics say ``blown_up`` and nothing else.)
        ConfigError: the splits have fewer than ``n`` identities to forget.
    """
    splits, split_meta = read_table(splits_path, SPLITS)
    rows = {name: ids for name, ids in metric_rows(splits, n).items() if name in _SPLITS}
    labels, task, classes = _read_labels(index_path)
    _require(splits["image_id"].to_numpy(dtype=np.int64), labels.ids, splits_path, index_path)
    scores, model = _read_scores(scores_path, classes)
    _check_scores(scores, model, rows.values(), labels, splits_path, split_meta)
    diverged = bool(np.isnan(scores.values["loss"]).any())
    if diverged:
        logger.warning("%s: the model answers NaN: it has blown up and nothing else can be measured", scores_path)
    values = [("all", "blown_up", 1.0)] if diverged else _measure(scores, labels, rows, task)
    values += [entry for entry in _health(model) if not (diverged and entry[1] == "blown_up")]
    if method != "retrain" and not diverged:
        reference, reference_model = _read_scores(retrain_scores_path, classes)
        _check_scores(reference, reference_model, rows.values(), labels, splits_path, split_meta)
        compared = {split: rows[split] for split in TOW_SPLITS}
        expected = _measure(reference, labels, compared, task)
        measure = MEASURES[task]
        values.append(("all", "tow", tug_of_war(_by_split(values, measure), _by_split(expected, measure))))
    frame = pd.DataFrame(values, columns=["split", "metric", "value"])
    frame = frame.assign(dataset=dataset, n=n, seed=seed, origin=origin, method=method)[list(METRICS.columns)]
    write_table(output_path, frame, METRICS, {"task": task, "model": model})


def _read_labels(path: str | Path) -> tuple[_Rows, str, int]:
    """Return the labels of all images, the task and the number of model outputs."""
    table, meta = read_arrow(path, INDEX, columns=["image_id", "label"])
    task, classes = meta.get("task"), meta.get("classes")
    if task not in MEASURES or not classes:
        raise DataError(
            f"{path}: its metadata have task {task!r} and classes {classes!r}, needed: task of "
            f"{', '.join(MEASURES)} and a list of class names. Delete it to make it again."
        )
    ids = _ids(table, path)
    label = table.column("label").combine_chunks()
    columns = (
        label.to_numpy(zero_copy_only=False) if task == "classification" else _matrix(label, ids, len(classes), path)
    )
    return _sorted(path, ids, {"label": columns}), str(task), len(classes)


def _read_scores(path: str | Path, classes: int) -> tuple[_Rows, dict[str, Any]]:
    """Return losses and logits of view 0, and what the file says about its model."""
    table, meta = read_arrow(path, SCORES, columns=["image_id", "view", "loss", "logits"])
    table = table.filter(pc.equal(table.column("view"), 0))
    ids = _ids(table, path)
    loss = table.column("loss").to_numpy().astype(np.float64)
    logits = _matrix(table.column("logits").combine_chunks(), ids, classes, path)
    return _sorted(path, ids, {"loss": loss, "logits": logits}), dict(meta.get("model") or {})


def _ids(table: pa.Table, path: str | Path) -> npt.NDArray[np.int64]:
    ids: npt.NDArray[np.int64] = table.column("image_id").to_numpy().astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise DataError(
            f"{path}: some images have several rows ({_first(values[counts > 1])}). Delete it to make it again."
        )
    return ids


def _matrix(lists: Any, ids: npt.NDArray[np.int64], width: int, path: str | Path) -> npt.NDArray[Any]:
    """Return a list column as ``(images, width)``; a null counts as an empty list."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    wrong = ids[lengths != width]
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong)} images have a number of logits or labels other than the {width} classes "
            f"({_first(wrong)}). Was it made for another dataset? Delete it to make it again."
        )
    flat: npt.NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, width)


def _sorted(path: str | Path, ids: npt.NDArray[np.int64], values: dict[str, npt.NDArray[Any]]) -> _Rows:
    order = np.argsort(ids)
    return _Rows(path, ids[order], {name: column[order] for name, column in values.items()})


def _check_scores(
    scores: _Rows, model: Mapping[str, Any], needed: Iterable[npt.NDArray[np.int64]], labels: _Rows,
    splits_path: str | Path, split_meta: Mapping[str, Any],
) -> None:  # fmt: skip
    """Refuse scores of other images, or of a model that was trained on another split."""
    if model.get("splits") != split_meta.get("content"):
        raise DataError(
            f"{scores.path}: its model was trained on another split than {splits_path} holds (data, labels or split "
            "options have changed). Move the model away to train it again, or restore the old data."
        )
    _require(scores.ids, labels.ids, scores.path, labels.path)
    for ids in needed:
        _require(ids, scores.ids, splits_path, scores.path)


def _require(
    ids: npt.NDArray[np.int64], known: npt.NDArray[np.int64], where: str | Path, missing_in: str | Path
) -> None:
    missing = np.setdiff1d(ids, known)
    if len(missing):
        raise DataError(
            f"{missing_in}: {len(missing)} images of {where} are missing ({_first(missing)}). The files belong to "
            "different runs; delete the older one to make it again."
        )


def _first(ids: npt.NDArray[np.int64]) -> str:
    return "image_id " + ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")


def _measure(
    scores: _Rows, labels: _Rows, rows: dict[str, npt.NDArray[np.int64]], task: str
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


def _health(model: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return what the model's metadata say about how it was made, numbers only."""
    entries = dict(model.get("health") or {})
    entries |= {name: model[name] for name in COSTS if name in model}
    values = []
    for name, value in sorted(entries.items()):
        if not isinstance(value, int | float):
            continue
        if math.isnan(value):  # the table has no place for it
            logger.warning("health entry %s of the model is NaN and is left out", name)
            continue
        values.append(("all", name, float(value)))
    return values
