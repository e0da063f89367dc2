"""Opening the packed images of a run by their part in it; shared by the stages that need data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from oneshui.data.images import ImageSet, InputSpec, open_pixels
from oneshui.errors import CheckpointError, DataError
from oneshui.metrics.roles import metric_rows
from oneshui.models import Checkpoint, ModelSpec
from oneshui.schemas import INDEX, SPLITS, read_table
from oneshui.tasks import Task


@dataclass(frozen=True)
class RunImages:
    """All images of a dataset with the splits of one seed."""

    everything: ImageSet
    splits: pd.DataFrame
    splits_id: str

    def take(self, image_ids: np.ndarray) -> ImageSet:
        """Return the images with these ids."""
        return self.everything.subset(torch.from_numpy(np.asarray(image_ids, dtype="int64")))

    def training_set(self, n: int | None) -> ImageSet:
        """Return D_tr, on which models are pretrained, or D_r of a request of size ``n``, for retrained ones."""
        return self.role("train") if n is None else self.take(metric_rows(self.splits, n)["retain"])

    def role(self, role: str) -> ImageSet:
        """Return the images of ``train`` (D_tr, without support images), ``val`` or ``test``."""
        chosen = (self.splits["role"] == role) & ~self.splits["is_support"]
        return self.take(self.splits.loc[chosen, "image_id"].to_numpy())


def open_everything(index_path: Path, images_path: Path, input_spec: InputSpec, device: torch.device) -> ImageSet:
    """Return every image of a dataset in the order of the index.

    Raises:
        DataError: index and image store do not belong together.
    """
    index, meta = read_table(index_path, INDEX, ["image_id", "identity", "label"])
    pixels = open_pixels(images_path, device)
    if len(pixels) != len(index):
        raise DataError(
            f"{images_path} holds {len(pixels)} images, {index_path} lists {len(index)}: they are of different runs. "
            "Delete the image store to pack it again."
        )
    task = Task.from_meta(meta)
    labels = task.label_tensor(np.array(index["label"].to_list())).to(device)
    return ImageSet(
        pixels, torch.arange(len(index), device=pixels.device), labels,
        torch.from_numpy(index["identity"].to_numpy(dtype="int64")), input_spec, task, device,
    )  # fmt: skip


def open_run(
    index_path: Path, images_path: Path, splits_path: Path, input_spec: InputSpec, device: torch.device
) -> RunImages:
    """Return the images of a dataset with the splits at ``splits_path``."""
    splits, meta = read_table(splits_path, SPLITS)
    return RunImages(open_everything(index_path, images_path, input_spec, device), splits, meta["content"])


def input_of(spec: ModelSpec) -> InputSpec:
    """Return the input of a stored model."""
    return InputSpec(spec.input_px, spec.mean, spec.std)


def check_splits(checkpoint: Checkpoint, model_path: Path, splits_id: str) -> None:
    """Refuse a model of other splits: its training set would overlap what is measured as unseen."""
    if checkpoint.metadata.get("splits") != splits_id:
        raise CheckpointError(
            f"{model_path} was trained on other splits than the present ones (the data or its options changed). "
            "Trained models are protected: move it away to train again, or restore the old data."
        )
