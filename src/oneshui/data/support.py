"""Reading a request: photos become a model's input. Of the data, this is all that unlearning may open."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from oneshui.data.images import InputSpec
from oneshui.errors import DataError
from oneshui.schemas import REQUEST, read_table
from oneshui.tasks import Task


def read_request(path: str | Path, task: Task, input_spec: InputSpec, device: torch.device) -> dict[str, Any]:
    """Return images, labels, identities and task of a request, ready for a model's input.

    Raises:
        DataError: the request is empty, an image cannot be decoded, or its classes are not the model's.
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
    photos = [_decode(data, path, row).to(device) for row, data in enumerate(frame["image"])]
    return {
        "images": torch.cat([input_spec.prepare(photo[None]) for photo in photos]),
        "labels": task.label_tensor(np.array(frame["label"].to_list())).to(device),
        "identities": torch.from_numpy(frame["identity"].to_numpy(dtype="int64")),
        "task": task,
    }


def _decode(data: bytes, path: str | Path, row: int) -> torch.Tensor:
    try:
        with Image.open(io.BytesIO(data)) as image:
            array = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}, row {row}: the photo cannot be decoded ({error}). Export the request again."
        ) from error
    return torch.from_numpy(array).permute(2, 0, 1)
