"""Scoring a model: the only stage after unlearning that needs images, because this is a benchmark."""

from pathlib import Path

import torch

from oneshui.errors import CheckpointError
from oneshui.models import load_model
from oneshui.schemas import SCORES, write_table
from oneshui.scoring import score_images
from oneshui.stages.images import input_of, open_everything


def score_model(
    model_path: Path, index_path: Path, images_path: Path, output_path: Path, *, device: torch.device
) -> None:
    """Write the scores of the model at ``model_path`` for every image of the dataset.

    The model's metadata (who made it, health, cost, splits) travels in the metadata of the scores, so that nothing
    after this stage needs the weights.

    Raises:
        CheckpointError: the model predicts other classes than the dataset has.
    """
    checkpoint = load_model(model_path, device)
    images = open_everything(index_path, images_path, input_of(checkpoint.spec), device)
    if images.task != checkpoint.spec.task:
        raise CheckpointError(
            f"{model_path} predicts other classes than {index_path} has: the labels have changed since it was trained. "
            "Move the model away to train it again, or restore the old labels."
        )
    frame = score_images(checkpoint.model, images)
    notes = {key: value for key, value in checkpoint.metadata.items() if key != "training"}
    meta = {"task": images.task.kind, "classes": list(images.task.classes), "model": notes}
    write_table(output_path, frame, SCORES, meta)
