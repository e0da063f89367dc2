"""Column names, types and meaning of every parquet file; the only place where parquet is read or written.

All tables carry metadata: the package version, the hash of the specification that made them and, where labels
are involved, the task and the class names. Readers check the columns, so that a stale file of another version is
an error and not a wrong number.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from oneshui import __version__
from oneshui.errors import DataError
from oneshui.files import atomic_path

_META_KEY = b"oneshui"

#: labels of a classification task are one int16, those of a multi-label task a list of 0/1
_LABEL_TYPES = {"classification": pa.int16(), "multilabel": pa.list_(pa.int8())}


@dataclass(frozen=True)
class Schema:
    """The columns of one kind of table. A column typed None holds labels, whose type depends on the task.

    Attributes:
        name: of the kind, for messages.
        columns: name -> type.
        nullable: columns that may have missing values.
        optional: columns that tables of earlier versions do not have.
    """

    name: str
    columns: dict[str, pa.DataType | None]
    nullable: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def arrow(self, task: str | None, found: Collection[str] | None = None) -> pa.Schema:
        """Return the pyarrow schema; ``task`` is needed where the table has labels.

        Args:
            task: classification or multilabel.
            found: columns of the table at hand, of which optional ones may be missing; None: a table with all columns.
        """
        fields = []
        for column, dtype in self.columns.items():
            if found is not None and column in self.optional and column not in found:
                continue
            if dtype is None:
                if task not in _LABEL_TYPES:
                    raise DataError(f"{self.name} table: task is {task!r}, allowed: {', '.join(_LABEL_TYPES)}")
                dtype = _LABEL_TYPES[task]
            fields.append(pa.field(column, dtype, nullable=column in self.nullable))
        return pa.schema(fields)


#: one row per image of a dataset; image_id is 0..N-1 and is the image's row in images.npy
INDEX = Schema(
    "index",
    {
        "image_id": pa.int32(),
        "path": pa.string(),  # relative to the dataset's raw folder
        "identity": pa.int32(),  # 0..I-1, in the sorted order of identity_name
        "identity_name": pa.string(),  # the dataset's own name of the identity
        "label": None,
        "width": pa.int32(),  # px, of the raw file
        "height": pa.int32(),
        "duplicate_group": pa.int32(),  # near-identical pictures share a group
        "content": pa.uint64(),  # names the bytes of the raw file: the first 8 of their SHA-256
    },
    optional=("content",),
)

#: one row per image that takes part; support images belong to no training set
SPLITS = Schema(
    "splits",
    {
        "image_id": pa.int32(),
        "identity": pa.int32(),
        "role": pa.string(),  # train, val or test
        "request_rank": pa.int16(),  # null unless the identity can ask to be forgotten
        "is_support": pa.bool_(),
    },
    nullable=("request_rank",),
)

#: one row per identity that asks to be forgotten; the only data that an unlearning method may open
REQUEST = Schema(
    "request",
    {
        "request_rank": pa.int16(),
        "identity": pa.int32(),
        "label": None,
        "image": pa.binary(),  # PNG bytes of the stored pixels
    },
)

#: one row per image and view; view 0 is the test transform, the others are random crops of the images attacks need
SCORES = Schema(
    "scores",
    {
        "image_id": pa.int32(),
        "view": pa.int16(),
        "loss": pa.float32(),  # task loss, nats; mean over attributes for a multi-label task
        "p_true": pa.float32(),  # exp(-loss)
        "logits": pa.list_(pa.float16()),  # null in other views
    },
    nullable=("logits",),
)

#: one row per image that an attacker trains or tests a new classifier on
FEATURES = Schema("features", {"image_id": pa.int32(), "features": pa.list_(pa.float16())})

#: one row per image whose membership was attacked; the larger a score, the more it looks like a member
ATTACK = Schema(
    "attack",
    {
        "image_id": pa.int32(),
        "identity": pa.int32(),
        "is_member": pa.bool_(),  # a forget image; the others are test images
        "rmia": pa.float64(),  # equation 9, in [0, 1]
        "loss_score": pa.float64(),  # minus the loss, nats
    },
)

#: one row per identity of a request's forget set or of the retain set: how a model does on its images
IDENTITIES = Schema(
    "identities",
    {
        "identity": pa.int32(),
        "set": pa.string(),  # forget or retain
        "n_images": pa.int32(),
        "measure": pa.string(),  # accuracy, map, or balanced_accuracy where no attribute has both values
        "value": pa.float64(),  # of the model, fraction
        "pretrain": pa.float64(),
        "retrain": pa.float64(),
        # Euclidean, of the original model's features; forget: support photo to the centroid of the identity's forget
        # images; retain: the identity's centroid to the nearest centroid of a forget identity
        "distance": pa.float64(),
    },
)

#: one row per value (tidy)
METRICS = Schema(
    "metrics",
    {
        "dataset": pa.string(),
        "n": pa.int32(),
        "seed": pa.int32(),
        "origin": pa.string(),  # the model that was unlearned: pretrain or retrain; or wrong_photos, a control
        "method": pa.string(),  # pretrain, retrain, ceiling, or the name of a method in the config
        "split": pa.string(),  # retain, forget, test, or "all" for values that belong to no split
        "metric": pa.string(),
        "value": pa.float64(),  # fractions are in [0, 1]
    },
)


def write_table(path: str | Path, frame: pd.DataFrame, schema: Schema, meta: dict[str, Any]) -> None:
    """Write ``frame`` atomically as parquet with the columns of ``schema`` and JSON-like metadata ``meta``.

    Raises:
        DataError: a column is missing, superfluous, of another type, or null where it must not be.
    """
    arrow = schema.arrow(meta.get("task"), frame.columns)
    if list(frame.columns) != arrow.names:
        raise DataError(f"{schema.name} table has columns {list(frame.columns)}, expected {arrow.names}")
    _check_nulls(frame, arrow, schema.name)
    try:
        arrays = [_array(frame[field.name], field) for field in arrow]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{schema.name} table: {error}") from error
    _write_arrow(path, pa.Table.from_arrays(arrays, schema=arrow), meta)


def _array(column: "pd.Series[Any]", field: pa.Field) -> pa.Array:
    """Numbers keep their NaN (a model that answers NaN is a fact); anything else missing becomes null."""
    if pa.types.is_floating(field.type):
        return pa.array(column.to_numpy(), type=field.type, from_pandas=False)
    return pa.array(column, type=field.type)


def _check_nulls(frame: pd.DataFrame, arrow: pa.Schema, name: str) -> None:
    for field in arrow:
        keeps_nan = pa.types.is_floating(field.type) and frame[field.name].dtype != object
        if not (field.nullable or keeps_nan) and frame[field.name].isna().any():
            raise DataError(f"{name} table: column {field.name} has missing values")


def _write_arrow(path: str | Path, table: pa.Table, meta: dict[str, Any]) -> None:
    text = json.dumps({"version": __version__, **meta}, sort_keys=True)
    table = table.replace_schema_metadata({_META_KEY: text.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_meta(path: str | Path) -> dict[str, Any]:
    """Return the metadata that ``write_table`` put into the file."""
    try:
        raw = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is not a readable parquet file ({error}). Delete it to make it again.") from error
    if _META_KEY not in raw:
        raise DataError(f"{path} was not written by oneshui: it has no metadata. Delete it to make it again.")
    meta: dict[str, Any] = json.loads(raw[_META_KEY])
    return meta


def read_arrow(path: str | Path, schema: Schema, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Return the table at ``path`` as arrow data with its metadata, checked against ``schema``.

    Raises:
        DataError: the file is missing, damaged, or has other columns than this version of oneshui writes.
    """
    meta = read_meta(path)
    found = pq.read_schema(path)
    arrow = schema.arrow(meta.get("task"), found.names)
    wrong = [f.name for f in arrow if f.name not in found.names or found.field(f.name).type != f.type]
    if wrong or len(found.names) != len(arrow.names):
        raise DataError(
            f"{path}: a {schema.name} table needs the columns {arrow.names}, but has {found.names} "
            f"(version {meta.get('version')}, this is {__version__}; wrong or missing: {wrong}). Delete it to make it "
            "again."
        )
    present = columns and [name for name in columns if name in found.names]  # an optional one may be missing
    return pq.read_table(path, columns=present), meta


def read_table(
    path: str | Path, schema: Schema, columns: list[str] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table at ``path`` as a data frame with its metadata, checked against ``schema``.

    Lists (labels, logits) become NumPy arrays, one object per row; request_rank keeps its nulls as ``<NA>``.
    """
    table, meta = read_arrow(path, schema, columns)
    types = {pa.int16(): pd.Int16Dtype()} if "request_rank" in table.column_names and schema is SPLITS else {}
    return table.to_pandas(types_mapper=types.get), meta
