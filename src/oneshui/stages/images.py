"""The images of a run by split; shared by the stages that need data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from oneshui.data.images import open_pixels
from oneshui.errors import CheckpointError, DataError
from oneshui.metrics.roles import metric_rows
from oneshui.models import Checkpoint, ModelSpec, load_model
from oneshui.runs import DataFiles
from oneshui.schemas import INDEX, SPLITS, read_table
from oneshui.sets import ImageSet, InputSpec
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
        """Return D_tr, for original models, or D_r of a request of ``n`` people, for retrained ones."""
        return self.role("train") if n is None else self.take(metric_rows(self.splits, n)["retain"])

    def role(self, role: str) -> ImageSet:
        """Return the images of ``train`` (D_tr, without support images), ``val`` or ``test``."""
        chosen = (self.splits["role"] == role) & ~self.splits["is_support"]
        return self.take(self.splits.loc[chosen, "image_id"].to_numpy())


def open_run(data: DataFiles, input_spec: InputSpec, device: torch.device) -> RunImages:
    """Return every image of a dataset, in the order of the index, with its splits.

    Raises:
        DataError: index and image store do not belong together.
    """
    index, meta = read_table(data.index, INDEX, ["image_id", "identity", "label"])
    pixels = open_pixels(data.images, device)
    if len(pixels) != len(index):
        raise DataError(
            f"{data.images} holds {len(pixels)} images, {data.index} lists {len(index)}: they are of different runs. "
            "Delete the image store to pack it again."
        )
    task = Task.from_meta(meta)
    labels = task.label_tensor(np.array(index["label"].to_list())).to(device)
    everything = ImageSet(
        pixels, torch.arange(len(index), device=pixels.device), labels,
        torch.from_numpy(index["identity"].to_numpy(dtype="int64")), input_spec, task, device,
    )  # fmt: skip
    splits, meta = read_table(data.splits, SPLITS)
    return RunImages(everything, splits, meta["content"])


def open_trained(model_path: Path, data: DataFiles, device: torch.device) -> tuple[Checkpoint, RunImages]:
    """Return a model and the images of its run, as its input.

    Raises:
        CheckpointError: the model was trained on other splits: what it was trained on would be measured as unseen.
        DataError: index and image store do not belong together.
    """
    checkpoint = load_model(model_path, device)
    run = open_run(data, input_of(checkpoint.spec), device)
    if checkpoint.metadata.get("splits") != run.splits_id:
        raise CheckpointError(
            f"{model_path} was trained on other splits than the present ones (the data or its options changed). "
            "Trained models are protected: move it away to train again, or restore the old data."
        )
    return checkpoint, run


def input_of(spec: ModelSpec) -> InputSpec:
    """Return the input of a stored model."""
    return InputSpec(spec.input_px, spec.mean, spec.std)
