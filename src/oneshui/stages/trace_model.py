"""What a model still knows of the forget set beneath its answers: linear probes by depth, and relearning."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from oneshui.config import ProbeSpec
from oneshui.diagnostics import RELEARN_STEPS
from oneshui.errors import DataError
from oneshui.log import logger
from oneshui.metrics.measure import MEASURES, measure
from oneshui.metrics.probe import probe_logits
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roles import metric_rows
from oneshui.models import has_finite_weights
from oneshui.runs import DataFiles, Model, Run
from oneshui.schemas import METRICS, write_table
from oneshui.seeds import seed_of, stream
from oneshui.stages.images import RunImages, open_trained
from oneshui.stages.measure_model import metric_table
from oneshui.traces import measure_on, places_of, pooled_by_depth, relearned, steps_until


def trace_model(
    model_path: Path, original_path: Path, data: DataFiles, output_path: Path, *, run: Run, model: Model,
    spec: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Write the traces of the forget set in a model (schema METRICS, split forget).

    ``probe_D_accuracy`` (or ``_map``), D being a depth of ``places_of``: a new linear classifier on pooled
    activations, trained on images of people who never ask. ``relearned_accuracy``: on half of the images of
    each person who asks, after ``RELEARN_STEPS`` steps of training on the other half; ``held_accuracy``: on these
    images before; ``relearn_steps`` until they are known as well as the original model knows them, one more than there
    are if they never are.

    Args:
        model_path: weights of the model.
        original_path: weights of the original model.
        data: images of the run.
        output_path: table to write; without these metrics if the model has diverged.
        run: dataset, request size and seed.
        model: what is measured.
        spec: keys of ``ProbeSpec``.
        device: where to compute.

    Raises:
        CheckpointError: a model was trained on other splits.
        DataError: the files do not belong together, or all images to train on have one class.
    """
    assert run.n is not None
    settings = ProbeSpec.from_dict(spec)
    checkpoint, images = open_trained(model_path, data, device)
    original, _ = open_trained(original_path, data, device)
    values: list[tuple[str, str, float]] = []
    name = MEASURES[images.everything.task.kind]
    fit = query_rows(images.splits, dataset=run.dataset, seed=run.seed, max_reference=settings.max_reference)["fit"]
    forget = metric_rows(images.splits, run.n)["forget"]
    if has_finite_weights(checkpoint.model):
        asked = images.take(np.concatenate([fit, forget]))
        labels = asked.labels.cpu().numpy()
        places = places_of(original.model, asked)
        for depth, vectors in pooled_by_depth(checkpoint.model, asked, places).items():
            known, new = np.split(vectors.numpy(), [len(fit)])
            try:
                logits = probe_logits(
                    known, labels[: len(fit)], new, n_outputs=asked.task.n_outputs, c=settings.refit_c
                )
            except DataError as error:
                logger.warning("%s, depth %s: %s", model_path, depth, error)
                continue
            value = measure(asked.task.kind, logits, labels[len(fit) :])
            values.append(("forget", f"probe_{depth}_{name}", value))
        try:
            values += _relearning(checkpoint.model, original.model, images, forget, run)
        except DataError as error:
            logger.warning("%s, relearning: %s", model_path, error)
    else:
        logger.warning("%s: the weights are not finite: the model has diverged", model_path)
    frame = pd.DataFrame([each for each in values if math.isfinite(each[2])], columns=["split", "metric", "value"])
    meta = {"task": images.everything.task.kind, "model": checkpoint.metadata}
    write_table(output_path, metric_table(frame, run, model), METRICS, meta)


def _relearning(
    model: nn.Module, original: nn.Module, images: RunImages, forget: np.ndarray, run: Run
) -> list[tuple[str, str, float]]:
    """Return what training brings back; nothing where nobody who asks has two images.

    Raises:
        DataError: a model's answers are not finite, or no attribute has a positive image.
    """
    shown, held = (images.take(ids) for ids in _halves(images.splits, forget, run))
    if not (len(shown) and len(held)):
        return []
    curve = relearned(model, shown, held, seed=seed_of("relearn", run.dataset, run.n or 0, run.seed))
    steps = steps_until(curve, measure_on(original, held))
    name = MEASURES[held.task.kind]
    found = {"relearn_steps": float(steps), f"held_{name}": curve[0], f"relearned_{name}": curve[RELEARN_STEPS]}
    return [("forget", metric, value) for metric, value in found.items()]


def _halves(splits: pd.DataFrame, forget: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Cut each person's forget images into two halves, of an odd number the smaller first."""
    rows = splits[splits["image_id"].isin(forget)].sort_values("image_id")
    shown, held = [], []
    for identity in np.unique(rows["identity"].to_numpy(dtype=np.int64)).tolist():
        ids = rows.loc[rows["identity"] == identity, "image_id"].to_numpy(dtype=np.int64)
        order = stream("relearn", run.dataset, run.seed, identity).permutation(ids)
        shown.append(order[: len(order) // 2])
        held.append(order[len(order) // 2 :])
    return np.sort(np.concatenate(shown)), np.sort(np.concatenate(held))
