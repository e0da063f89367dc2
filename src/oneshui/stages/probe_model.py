"""The linear probe, from files of features to metrics: no torch, no GPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneshui.config import ProbeSpec
from oneshui.errors import DataError
from oneshui.log import logger
from oneshui.metrics.measure import MEASURES, measure
from oneshui.metrics.probe import probe_logits
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roles import metric_rows
from oneshui.runs import Model, Run
from oneshui.schemas import METRICS, SPLITS, read_table, write_table
from oneshui.stages.measure_model import metric_table
from oneshui.stages.rows import check_split, read_features, read_labels, require


def probe_model(
    features_path: Path, splits_path: Path, index_path: Path, output_path: Path, *, run: Run, model: Model,
    spec: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write how well a new classifier on a model's features does on forget and test images (schema METRICS).

    It is trained on images of people who never ask to be forgotten. Metric ``refit_accuracy`` or ``refit_map`` of
    splits forget and test, missing if the features are not finite; ``refit_n_images`` it was trained on.

    Args:
        features_path: features of the model.
        splits_path: of the run.
        index_path: of the dataset; has the labels.
        output_path: table to write.
        run: dataset, request size and seed.
        model: whose features they are.
        spec: keys of ``ProbeSpec``.

    Raises:
        DataError: the files do not belong together, or all images to train on have one class.
    """
    assert run.n is not None
    settings = ProbeSpec.from_dict(spec)
    splits, split_meta = read_table(splits_path, SPLITS)
    labels, task, classes = read_labels(index_path)
    features, made = read_features(features_path)
    check_split(features_path, made, splits_path, split_meta)
    fit = query_rows(splits, dataset=run.dataset, seed=run.seed, max_reference=settings.max_reference)["fit"]
    asked = {split: metric_rows(splits, run.n)[split] for split in ("forget", "test")}
    for wanted in (fit, *asked.values()):
        require(wanted, features.ids, splits_path, features_path)
        require(wanted, labels.ids, splits_path, index_path)
    values = [("all", "refit_n_images", float(len(fit)))]
    if np.isfinite(features.values["features"]).all():
        together = np.concatenate(list(asked.values()))
        try:
            logits = probe_logits(
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
        logger.warning("%s: the features are not finite: the model has diverged", features_path)
    frame = pd.DataFrame(values, columns=["split", "metric", "value"])
    write_table(output_path, metric_table(frame, run, model), METRICS, {"task": task, "model": made})
