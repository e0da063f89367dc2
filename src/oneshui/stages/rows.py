"""What tables say about images, one row per image: read, sorted by image id and compared with each other. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from oneshui.errors import DataError
from oneshui.schemas import FEATURES, INDEX, SCORES, read_arrow


@dataclass(frozen=True)
class ImageRows:
    """What a file says about images, one row per image, in the order of ``ids`` (sorted, without repetition)."""

    path: str | Path
    ids: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[Any]]

    def take(self, ids: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Return the values of ``ids``, all of which are known to be here."""
        rows = np.searchsorted(self.ids, ids)
        return {name: column[rows] for name, column in self.values.items()}


def ids_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the column ``image_id``."""
    ids: npt.NDArray[np.int64] = table.column("image_id").to_numpy().astype(np.int64)
    return ids


def matrix_of(lists: Any, ids: npt.NDArray[np.int64], width: int, path: str | Path) -> npt.NDArray[Any]:
    """Return a list column as ``(images, width)``; a null counts as an empty list."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    wrong = ids[lengths != width]
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong)} images have a number of logits other than the {width} classes "
            f"({first_ids(wrong)}). Was it made for another dataset? Delete it to make it again."
        )
    flat: npt.NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, width)


def sorted_rows(path: str | Path, ids: npt.NDArray[np.int64], values: dict[str, npt.NDArray[Any]]) -> ImageRows:
    """Return ``values`` in the order of ``ids``."""
    order = np.argsort(ids)
    return ImageRows(path, ids[order], {name: column[order] for name, column in values.items()})


def require(
    ids: npt.NDArray[np.int64], known: npt.NDArray[np.int64], where: str | Path, missing_in: str | Path
) -> None:
    """Refuse image ids in file ``where`` that file ``missing_in`` does not have."""
    missing = np.setdiff1d(ids, known)
    if len(missing):
        raise DataError(
            f"{missing_in}: {len(missing)} images of {where} are missing ({first_ids(missing)}). The files belong to "
            "different runs; delete the older one to make it again."
        )


def first_ids(ids: npt.NDArray[np.int64]) -> str:
    """Return the first few ids, for an error message."""
    return "image_id " + ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")


def read_labels(path: str | Path) -> tuple[ImageRows, str, int]:
    """Return the labels of all images, the task and the number of model outputs."""
    table, meta = read_arrow(path, INDEX, columns=["image_id", "label"])
    task, classes = str(meta["task"]), len(meta["classes"])
    ids = ids_of(table)
    label = table.column("label").combine_chunks()
    columns = label.to_numpy(zero_copy_only=False) if task == "classification" else matrix_of(label, ids, classes, path)
    return sorted_rows(path, ids, {"label": columns}), task, classes


def check_split(
    path: str | Path, model: Mapping[str, Any], splits_path: str | Path, split_meta: Mapping[str, Any]
) -> None:
    """Refuse a file about a model (its metadata in ``model``) that was trained on other splits or other pictures."""
    if "content" not in split_meta or model.get("splits") != split_meta["content"]:
        raise DataError(
            f"{path}: its model was trained on another split than {splits_path} holds (data, labels or split "
            "options have changed). Move the model away to train it again, or restore the old data."
        )
    known, wanted = model.get("pictures"), split_meta.get("pictures")
    if known != wanted and known is not None:  # a model of an earlier version does not say; scoring has logged it
        raise DataError(
            f"{path}: its model was trained on other pictures than {splits_path} was made from: the files have the "
            "same names and other contents. Move the model away to train it again, or restore the old pictures."
        )


def read_scores(path: str | Path, classes: int) -> tuple[ImageRows, dict[str, Any]]:
    """Return losses and logits of view 0, and what the file says about its model."""
    table, meta = read_arrow(path, SCORES, columns=["image_id", "view", "loss", "logits"])
    table = table.filter(pc.equal(table.column("view"), 0))
    ids = ids_of(table)
    loss = table.column("loss").to_numpy().astype(np.float64)
    logits = matrix_of(table.column("logits").combine_chunks(), ids, classes, path)
    return sorted_rows(path, ids, {"loss": loss, "logits": logits}), dict(meta.get("model") or {})


def read_features(path: str | Path) -> tuple[ImageRows, dict[str, Any]]:
    """Return the features of a model, ``(images, D)`` float16, and what the file says about the model."""
    table, meta = read_arrow(path, FEATURES)
    ids = ids_of(table)
    lists = table.column("features").combine_chunks()
    features = matrix_of(lists, ids, len(lists[0]) if len(lists) else 0, path)
    return sorted_rows(path, ids, {"features": features}), dict(meta.get("model") or {})
