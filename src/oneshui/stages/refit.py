"""The refit attack, from files of features to metrics: no torch, no GPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneshui.config import RefitSpec
from oneshui.errors import DataError
from oneshui.log import logger
from oneshui.metrics.measure import MEASURES, measure
from oneshui.metrics.queries import query_rows
from oneshui.metrics.refit import refit_logits
from oneshui.metrics.roles import metric_rows
from oneshui.schemas import METRICS, SPLITS, read_table, write_table
from oneshui.stages.measure import metric_table
from oneshui.stages.rows import check_split, read_features, read_labels, require


def refit_attack(
    features_path: str | Path, splits_path: str | Path, index_path: str | Path, output_path: str | Path, *,
    dataset: str, n: int, seed: int, row: str, spec: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write how well a new classifier on a model's features does on forget and test images (schema METRICS).

    It is trained on images of people who never ask to be forgotten. Metric ``refit_accuracy`` or ``refit_map`` of
    splits forget and test, missing if the features are not finite; ``refit_n_images`` it was trained on.

    Args:
        features_path: features of the model.
        splits_path: of the seed.
        index_path: of the dataset; has the labels.
        output_path: table to write.
        dataset: name of the dataset.
        n: size of the request.
        seed: of the run.
        row: the model: pretrain, retrain, ceiling, or pretrain/METHOD.
        spec: keys of ``RefitSpec``.

    Raises:
        DataError: the files do not belong together, or all images to train on have one class.
    """
    settings = RefitSpec.from_dict(spec)
    splits, split_meta = read_table(splits_path, SPLITS)
    labels, task, classes = read_labels(index_path)
    features, model = read_features(features_path)
    check_split(features_path, model, splits_path, split_meta)
    fit = query_rows(splits, dataset=dataset, seed=seed, max_reference=settings.max_reference)["fit"]
    asked = {split: metric_rows(splits, n)[split] for split in ("forget", "test")}
    for wanted in (fit, *asked.values()):
        require(wanted, features.ids, splits_path, features_path)
        require(wanted, labels.ids, splits_path, index_path)
    values = [("all", "refit_n_images", float(len(fit)))]
    if np.isfinite(features.values["features"]).all():
        together = np.concatenate(list(asked.values()))
        try:
            logits = refit_logits(
                features.take(fit)["features"], labels.take(fit)["label"], features.take(together)["features"],
                n_outputs=classes, c=settings.refit_c,
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"{features_path} (attack.max_reference = {settings.max_reference}): {error}") from error
        answers = dict(zip(asked, np.split(logits, [len(asked["forget"])]), strict=True))
        for split, rows in asked.items():
            value = measure(task, answers[split], labels.take(rows)["label"])
            values.append((split, f"refit_{MEASURES[task]}", value))
    else:
        logger.warning("%s: the features are not finite: the model has blown up", features_path)
    frame = pd.DataFrame(values, columns=["split", "metric", "value"])
    write_table(output_path, metric_table(frame, dataset, n, seed, row), METRICS, {"task": task, "model": model})
