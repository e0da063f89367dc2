"""Scoring a model: the only stage after unlearning that needs images, because this is a benchmark."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from oneshui.errors import CheckpointError
from oneshui.metrics.queries import query_rows
from oneshui.runs import DataFiles, Run
from oneshui.schemas import FEATURES, SCORES, write_table
from oneshui.scoring import score_view, score_with_features
from oneshui.stages.images import open_trained


def score_model(
    model_path: Path, data: DataFiles, output_path: Path, features_path: Path, *, run: Run, queries: Mapping[str, Any],
    device: torch.device,
) -> None:  # fmt: skip
    """Write the scores of a model for every image of the dataset, and what attacks ask for beside them.

    The model's header (who made it, diagnostics, cost, splits) travels in the metadata of both files, so that nothing
    after this stage needs the weights.

    Args:
        model_path: the model.
        data: images of the run; its splits say which images attacks ask about.
        output_path: scores: every image under the test transform, those of attacks also under random crops.
        features_path: features of images that an attacker trains and tests a new classifier on.
        run: dataset and seed.
        queries: ``views``, ``crop_scale`` and ``max_reference`` of the configured attack.
        device: where to compute.

    Raises:
        CheckpointError: the model predicts other classes than the dataset has, or was trained on other splits.
    """
    checkpoint, opened = open_trained(model_path, data, device)
    images, splits = opened.everything, opened.splits
    if images.task != checkpoint.spec.task:
        raise CheckpointError(
            f"{model_path} predicts other classes than {data.index} has: the labels have changed since it was trained. "
            "Move the model away to train it again, or restore the old labels."
        )
    rows = query_rows(splits, dataset=run.dataset, seed=run.seed, max_reference=queries["max_reference"])
    ids = images.image_ids.cpu().numpy()
    support = splits.loc[splits["is_support"], "image_id"].to_numpy()
    known = np.isin(ids, np.concatenate([rows["asked"], rows["test"], rows["fit"], support]))
    scores, features = score_with_features(checkpoint.model, images, torch.from_numpy(known))
    asked = opened.take(np.concatenate([rows["asked"], rows["test"], rows["reference"]]))
    crop_scale = (float(queries["crop_scale"][0]), float(queries["crop_scale"][1]))
    views = [
        score_view(checkpoint.model, asked, view, crop_scale=crop_scale, dataset=run.dataset)
        for view in range(1, queries["views"] + 1)
    ]
    notes = {key: value for key, value in checkpoint.metadata.items() if key != "training"}
    meta = {"task": images.task.kind, "classes": list(images.task.classes), "model": notes, "queries": dict(queries)}
    write_table(output_path, pd.concat([scores, *views], ignore_index=True), SCORES, meta)
    write_table(features_path, features, FEATURES, meta)
