"""Scoring a model: the only stage after unlearning that needs images, because this is a benchmark."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from oneshui.errors import CheckpointError
from oneshui.metrics.queries import query_rows
from oneshui.models import load_model
from oneshui.schemas import FEATURES, SCORES, write_table
from oneshui.scoring import score_view, score_with_features
from oneshui.stages.images import check_splits, input_of, open_run


def score_model(
    model_path: Path, index_path: Path, images_path: Path, splits_path: Path, output_path: Path, features_path: Path, *,
    dataset: str, seed: int, queries: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Write the scores of a model for every image of the dataset, and what attacks ask for beside them.

    The model's metadata (who made it, health, cost, splits) travels in the metadata of both files, so that nothing
    after this stage needs the weights.

    Args:
        model_path: the model.
        index_path: of the dataset.
        images_path: packed images.
        splits_path: of this seed; says which images attacks ask about.
        output_path: scores: every image under the test transform, those of attacks also under random crops.
        features_path: features of images that an attacker trains and tests a new classifier on.
        dataset: name for random streams.
        seed: of the run.
        queries: ``views``, ``crop_scale`` and ``max_reference`` of the configured attack.
        device: where to compute.

    Raises:
        CheckpointError: the model predicts other classes than the dataset has, or was trained on other splits.
    """
    checkpoint = load_model(model_path, device)
    run = open_run(index_path, images_path, splits_path, input_of(checkpoint.spec), device)
    images = run.everything
    if images.task != checkpoint.spec.task:
        raise CheckpointError(
            f"{model_path} predicts other classes than {index_path} has: the labels have changed since it was trained. "
            "Move the model away to train it again, or restore the old labels."
        )
    check_splits(checkpoint, model_path, run.splits_id)
    rows = query_rows(run.splits, dataset=dataset, seed=seed, max_reference=queries["max_reference"])
    ids = images.image_ids.cpu().numpy()
    support = run.splits.loc[run.splits["is_support"], "image_id"].to_numpy()
    known = np.isin(ids, np.concatenate([rows["asked"], rows["test"], rows["fit"], support]))
    scores, features = score_with_features(checkpoint.model, images, torch.from_numpy(known))
    asked = run.take(np.concatenate([rows["asked"], rows["test"], rows["reference"]]))
    crop_scale = (float(queries["crop_scale"][0]), float(queries["crop_scale"][1]))
    views = [
        score_view(checkpoint.model, asked, view, crop_scale=crop_scale, dataset=dataset)
        for view in range(1, queries["views"] + 1)
    ]
    notes = {key: value for key, value in checkpoint.metadata.items() if key != "training"}
    meta = {"task": images.task.kind, "classes": list(images.task.classes), "model": notes, "queries": dict(queries)}
    write_table(output_path, pd.concat([scores, *views], ignore_index=True), SCORES, meta)
    write_table(features_path, features, FEATURES, meta)
