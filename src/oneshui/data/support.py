"""Reading a request: photos become a model's input. Of the data, this is all that unlearning may open."""

from pathlib import Path

import numpy as np
import torch

from oneshui.data.pictures import quiet, read_picture
from oneshui.errors import DataError
from oneshui.schemas import REQUEST, read_table
from oneshui.sets import InputSpec, Support
from oneshui.tasks import Task


def read_request(
    path: str | Path, task: Task, input_spec: InputSpec, device: torch.device, *, stored_px: list[int] | None
) -> Support:
    """Return the photos of a request as a model's input, with labels and identities.

    Args:
        path: a REQUEST table.
        task: of the model.
        input_spec: of the model.
        device: where the tensors go.
        stored_px: height and width of the images that the model was trained on, before they become its input; None
            takes photos of any size.

    Raises:
        DataError: the request is empty, an image cannot be decoded or has another size, or its classes are not the
            model's.
    """
    frame, meta = read_table(path, REQUEST)
    asked = Task.from_meta(meta)
    if asked != task:
        raise DataError(
            f"{path} is a {asked.kind} request with {asked.n_outputs} classes, the model predicts {task.kind} with "
            f"{task.n_outputs}: {', '.join(task.classes[:5])} ... Export the request from the model's own dataset."
        )
    if frame.empty:
        raise DataError(f"{path} holds no photo: there is nobody to forget. Export a request with n >= 1.")
    images = torch.cat([
        input_spec.prepare(_photo(data, f"{path}, row {row}", stored_px).to(device)[None])
        for row, data in enumerate(frame["image"])
    ])  # fmt: skip
    labels = task.label_tensor(np.array(frame["label"].to_list())).to(device)
    return Support(images, labels, torch.from_numpy(frame["identity"].to_numpy(dtype="int64")), task)


def _photo(data: bytes, where: str, stored_px: list[int] | None) -> torch.Tensor:
    try:
        with quiet():
            photo = torch.from_numpy(np.array(read_picture(data).image)).permute(2, 0, 1)
    except DataError as error:
        raise DataError(f"{where}: the photo cannot be decoded ({error}). Export the request again.") from error
    if stored_px is not None and list(photo.shape[1:]) != list(stored_px):
        raise DataError(
            f"{where}: the photo has {photo.shape[1]} x {photo.shape[2]} px (height x width), the model was trained on "
            f"images of {stored_px[0]} x {stored_px[1]} px. Export the request from the model's own dataset, or resize "
            "the photo."
        )
    return photo
