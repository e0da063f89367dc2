"""The images of a run by split; shared by the stages that need data."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from oneshui.data.images import open_pixels
from oneshui.data.splits import check_splits
from oneshui.data.store import check_store, naming
from oneshui.errors import CheckpointError, DataError
from oneshui.log import logger
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
    #: names what the image files held; None where index, store and splits are of an earlier version
    pictures: str | None
    #: images that earlier versions stored in another way: turned, or with what transparency hid
    n_otherwise: int

    @property
    def bound_to(self) -> dict[str, str]:
        """What a model that is made of these images carries in its header."""
        return {"splits": self.splits_id, **naming(self.pictures)}

    def take(self, image_ids: np.ndarray) -> ImageSet:
        """Return the images with these ids."""
        return self.everything.subset(torch.from_numpy(np.asarray(image_ids, dtype="int64")))

    def training_set(self, n: int | None, without: np.ndarray | None = None) -> ImageSet:
        """Return what a model is trained on.

        Args:
            n: people in the request whose images are left out, for retrained models; None for D_tr.
            without: identities that are left out of D_tr, for fold models.
        """
        train = self.role("train") if n is None else self.take(metric_rows(self.splits, n)["retain"])
        if without is not None:
            train = train.subset(~torch.isin(train.identities, torch.from_numpy(without)))
        photos = self.splits["is_support"] & (self.splits["role"] == "train")
        if not (photos & self.splits["request_rank"].isna()).any():
            return train  # only those who can ask have one: a simulated request of others would be unlike theirs
        photos &= self.splits["identity"].isin(train.identities.numpy())
        return replace(train, photos=self.take(self.splits.loc[photos, "image_id"].to_numpy()))

    def role(self, role: str) -> ImageSet:
        """Return the images of ``train`` (D_tr, without support images), ``val`` or ``test``."""
        chosen = (self.splits["role"] == role) & ~self.splits["is_support"]
        return self.take(self.splits.loc[chosen, "image_id"].to_numpy())


def open_run(data: DataFiles, input_spec: InputSpec, device: torch.device) -> RunImages:
    """Return every image of a dataset, in the order of the index, with its splits.

    Raises:
        DataError: index, image store and splits do not belong together.
    """
    index, meta = read_table(data.index, INDEX, ["image_id", "identity", "label"])
    pictures, note = meta.get("pictures"), check_store(data.images, data.index, meta)
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
    check_splits(splits, index, data.splits, data.index)
    if "content" not in meta:
        raise DataError(f"{data.splits}: its metadata have no content, which names it. Delete it to split again.")
    if meta.get("pictures") != pictures:
        raise DataError(
            f"{data.splits} was made from other pictures than {data.index} lists (one of them was made again, or moved "
            f"here). Delete {data.splits.name} to split again."
        )
    return RunImages(everything, splits, meta["content"], pictures, int(note.get("turned_or_transparent", 0)))


def open_trained(model_path: Path, data: DataFiles, device: torch.device) -> tuple[Checkpoint, RunImages]:
    """Return a model and the images of its run, as its input.

    Raises:
        CheckpointError: the model was trained on other splits or other pictures: what it was trained on would be
            measured as unseen.
        DataError: index, image store and splits do not belong together.
    """
    checkpoint = load_model(model_path, device)
    run = open_run(data, input_of(checkpoint.spec), device)
    if checkpoint.metadata.get("splits") != run.splits_id:
        raise CheckpointError(
            f"{model_path} was trained on other splits than the present ones (the data or its options changed). "
            "Trained models are protected: move it away to train again, or restore the old data."
        )
    _check_pictures(model_path, checkpoint.metadata.get("pictures"), run, data)
    return checkpoint, run


def _check_pictures(model_path: Path, trained_on: str | None, run: RunImages, data: DataFiles) -> None:
    """Refuse a model that was trained on other pictures under the same names."""
    advice = "Trained models are protected: move it away to train again, or restore the old pictures."
    if trained_on is None and run.n_otherwise:
        raise CheckpointError(
            f"{model_path} was trained by a version that stored {run.n_otherwise} of the images in {data.images} in "
            f"another way: as they lie in the file, not turned upright or not put on white. {advice}"
        )
    if trained_on is None and run.pictures is not None:
        logger.warning(
            "%s was trained by a version that did not note its pictures: its people, labels and roles are those of %s, "
            "its pictures cannot be compared", model_path, data.splits,
        )  # fmt: skip
    elif trained_on != run.pictures:
        raise CheckpointError(
            f"{model_path} was trained on other pictures than {data.images} holds: the files have the same names and "
            f"other contents (another copy of the data set, or replaced images). {advice}"
        )


def input_of(spec: ModelSpec) -> InputSpec:
    """Return the input of a stored model."""
    return InputSpec(spec.input_px, spec.mean, spec.std)
