"""Column names, types and meaning of every parquet file; the only place where parquet is read or written.

All tables carry metadata: the package version, the hash of the specification that made them and, where labels
are involved, the task and the class names. Readers check the columns, so that a stale file of another version is
an error and not a wrong number.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oneshui import __version__
from oneshui.errors import DataError
from oneshui.files import atomic_path, lies_inside, parse_json, require_regular, wrong_entry

_META_KEY = b"oneshui"
#: what reading a parquet file may raise
PARQUET_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, pa.ArrowException)
#: a file of this many bytes more has at most as many rows, or bytes of data: ours have 0.2 rows and 5 bytes a byte
_ROWS, _ROWS_PER_BYTE = 100_000, 20
_DATA, _DATA_PER_BYTE = 2**26, 200
#: characters of the longest path or name
_LONGEST_TEXT = 4096

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
        one_row_per: columns that no two rows share.
        lowest: least value of a column.
        words: the values that a column of text may have.
        finite: columns of numbers that are finite. In others NaN is a fact: so answers a model that has diverged.
        needs: entries that the metadata must have.
    """

    name: str
    columns: dict[str, pa.DataType | None]
    nullable: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    one_row_per: tuple[str, ...] = ()
    lowest: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    finite: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

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
    one_row_per=("image_id",),
    lowest={"image_id": 0, "identity": 0, "width": 1, "height": 1, "duplicate_group": 0},
    needs=("task", "classes"),
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
    one_row_per=("image_id",),
    lowest={"image_id": 0, "identity": 0, "request_rank": 0},
    words={"role": ("train", "val", "test")},
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
    one_row_per=("request_rank",),
    lowest={"request_rank": 0, "identity": -1},  # -1: nobody knows
    needs=("task", "classes"),
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
    one_row_per=("image_id", "view"),
    lowest={"image_id": 0, "view": 0},
)

#: one row per image that an attacker trains or tests a new classifier on
FEATURES = Schema(
    "features", {"image_id": pa.int32(), "features": pa.list_(pa.float16())}, one_row_per=("image_id",),
    lowest={"image_id": 0},
)  # fmt: skip

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
    one_row_per=("image_id",),
    lowest={"image_id": 0, "identity": 0},
    finite=("rmia", "loss_score"),
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
    one_row_per=("identity",),
    lowest={"identity": 0, "n_images": 1},
    words={"set": ("forget", "retain")},
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
    lowest={"n": 1, "seed": 0},
)

#: entries that the metadata may have
_ENTRIES = {
    "annotations": "text", "attack": "a mapping", "blown_up": "true, false or text",
    "classes": "a list of different names", "content": "text", "dataset": "text", "model": "a mapping or null",
    "n": "a whole number >= 0 or null", "pictures": "text or null", "queries": "a mapping", "row": "text",
    "seed": "a whole number >= 0", "spec": "text", "splits": "text or null", "task": "classification or multilabel",
    "version": "text",
}  # fmt: skip


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
    for kind in arrow:
        keeps_nan = pa.types.is_floating(kind.type) and frame[kind.name].dtype != object
        if not (kind.nullable or keeps_nan) and frame[kind.name].isna().any():
            raise DataError(f"{name} table: column {kind.name} has missing values")


def _write_arrow(path: str | Path, table: pa.Table, meta: dict[str, Any]) -> None:
    text = json.dumps({"version": __version__, **meta}, sort_keys=True)
    table = table.replace_schema_metadata({_META_KEY: text.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """Return a parquet file whose footer asks for no more memory than its size explains.

    Raises:
        Exception: one of ``PARQUET_ERRORS``: it cannot be read.
    """
    size = require_regular(path)
    file = pq.ParquetFile(path)
    footer = file.metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    # not what the columns say of themselves: pyarrow ends the process where that is damaged (seen in 26.0)
    told = sum(max(0, group.total_byte_size) for group in groups)
    if footer.num_rows > _ROWS + _ROWS_PER_BYTE * size or told > _DATA + _DATA_PER_BYTE * size:
        raise ValueError(
            f"its header says {footer.num_rows} rows and {told} bytes of data, more than {size} bytes on disk can hold"
        )
    if sum(group.num_rows for group in groups) != footer.num_rows:
        raise ValueError(f"its header says {footer.num_rows} rows, its parts have another number")
    return file


def read_meta(path: str | Path) -> dict[str, Any]:
    """Return the metadata that ``write_table`` put into the file.

    Entries that ``_ENTRIES`` lists are of their types; whatever else stands there is as it was written.
    """
    try:
        return _meta_of(path, open_parquet(path).schema_arrow)
    except PARQUET_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable parquet file ({_line(error)}). Delete it to make it again.")


def _line(error: Exception) -> str:
    """Return the first line of an error, shortened: a damaged file's may hold anything."""
    text = str(error).partition("\n")[0]
    return text if len(text) <= 200 else f"{text[:197]}..."


def _meta_of(path: str | Path, found: pa.Schema) -> dict[str, Any]:
    raw = found.metadata or {}
    if _META_KEY not in raw:
        raise DataError(f"{path} was not written by oneshui: it has no metadata. Delete it to make it again.")
    meta: dict[str, Any] = parse_json(raw[_META_KEY])
    wrong = wrong_entry(meta, _ENTRIES)
    if wrong:
        raise DataError(f"{path}: its metadata have {wrong}. Delete it to make it again.")
    return meta


def read_arrow(path: str | Path, schema: Schema, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Return the table at ``path`` as arrow data with its metadata, checked against ``schema``.

    Whoever reads a table this way need not ask again whether values are missing, of another type, out of their range or
    there twice.

    Raises:
        DataError: the file is missing, damaged, has other columns than this version of oneshui writes, or values that
            it never writes.
    """
    try:
        file = open_parquet(path)
        found = file.schema_arrow
        meta = _meta_of(path, found)
        absent = [name for name in schema.needs if name not in meta]
        if absent:
            raise DataError(
                f"{path}: the metadata of a {schema.name} table need {', '.join(absent)}, but have "
                f"{', '.join(meta) or 'nothing'}. Delete it to make it again."
            )
        arrow = schema.arrow(meta.get("task"), found.names)
        at = {f.name: found.get_field_index(f.name) for f in arrow}  # below 0 for one that is missing or there twice
        wrong = [f.name for f in arrow if at[f.name] < 0 or found.field(at[f.name]).type != f.type]
        if wrong or len(found.names) != len(arrow.names):
            raise DataError(
                f"{path}: a {schema.name} table needs the columns {arrow.names}, but has "
                f"{_line(ValueError(found.names))} (version {meta.get('version')}, this is {__version__}; wrong or "
                f"missing: {wrong}). Delete it to make it again."
            )
        present = columns and [name for name in columns if name in found.names]  # an optional one may be missing
        table = file.read(columns=present)
        table.validate(full=True)
    except PARQUET_ERRORS as error:
        raise _unreadable(path, error) from error
    problem = next(_problems(table, schema, arrow, meta), "")
    if problem:
        raise DataError(f"{path}{problem}. Delete it to make it again.")
    return table, meta


def _problems(table: pa.Table, schema: Schema, arrow: pa.Schema, meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the values of a table, as it goes on after the file's name."""
    for name in table.column_names:
        column, kind = table.column(name), arrow.field(name)
        if column.null_count and not kind.nullable:
            yield f", row {_first(pc.is_null(column))}: column {name} has no value"
        if schema.columns[name] is None and pa.types.is_list(kind.type) and pc.list_flatten(column).null_count:
            yield f": column {name} has lists with missing values"  # in lists of numbers a null is a NaN
        if pa.types.is_string(kind.type) and (pc.max(pc.binary_length(column)).as_py() or 0) > _LONGEST_TEXT:
            yield f": column {name} has text of more than {_LONGEST_TEXT} bytes"
        if name in schema.lowest:
            low = pc.less(column, pa.scalar(schema.lowest[name], kind.type))
            if pc.any(low).as_py():
                yield f", row {_first(low)}: {name} is {pc.min(column)}, allowed: >= {schema.lowest[name]}"
        if name in schema.words:
            other = pc.invert(pc.is_in(column, pa.array(schema.words[name])))
            if pc.any(other).as_py():
                row = _first(other)
                yield f", row {row}: {name} is {column[row].as_py()!r:.60}, allowed: {', '.join(schema.words[name])}"
        if name in schema.finite:
            broken = pc.invert(pc.is_finite(column))
            if pc.any(broken).as_py():
                row = _first(broken)
                yield f", row {row}: {name} is {column[row]}, allowed: a finite number"
        if schema.columns[name] is None:
            yield from _label_problems(column, name, meta)
        if schema is INDEX and name == "path":
            yield from (
                f", row {row}: image path {path!r:.80} does not lie inside the raw folder"
                for row, path in enumerate(column.to_pylist())
                if not lies_inside(path)
            )
    keys = [table.column(name) for name in schema.one_row_per if name in table.column_names]
    if len(keys) == len(schema.one_row_per) > 0:
        joined = keys[0] if len(keys) == 1 else _joined(*keys)
        if not _distinct(joined):
            yield _several(joined, keys[0], schema.one_row_per[0])
    if schema is REQUEST and "identity" in table.column_names:
        known = table.column("identity").filter(pc.greater_equal(table.column("identity"), 0))
        if not _distinct(known):
            yield f": {_twice(known)[0]} is there twice as identity: one photo of each person"


def _first(where: pa.ChunkedArray) -> int:
    return int(pc.index(where, value=True).as_py())


def _joined(image_id: pa.ChunkedArray, view: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.add(pc.multiply(image_id.cast(pa.int64()), 2**16), view.cast(pa.int64()))


def _distinct(column: pa.ChunkedArray) -> bool:
    return int(pc.count_distinct(column).as_py()) == len(column)


def _twice(column: pa.ChunkedArray) -> list[int]:
    values, counts = np.unique(column.to_numpy(), return_counts=True)
    found: list[int] = values[counts > 1].tolist()
    return found


def _several(keys: pa.ChunkedArray, shown: pa.ChunkedArray | None = None, name: str = "image_id") -> str:
    """Say which rows are there more than once: ``keys`` tells them apart, ``shown`` names them."""
    values = _twice(keys)
    if shown is not None and shown is not keys:
        values = sorted({value // 2**16 for value in values})
    more = ", ..." if len(values) > 5 else ""
    noun = "images" if name == "image_id" else "people"
    return f": some {noun} have several rows ({name} {', '.join(map(str, values[:5]))}{more})"


def _label_problems(column: pa.ChunkedArray, name: str, meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield labels that would be another class, or none, to a model."""
    classes = len(meta["classes"])
    if meta["task"] == "classification":
        allowed = f"0 to {classes - 1}"
        wrong = pc.or_(pc.less(column, pa.scalar(0, column.type)), pc.greater_equal(column.cast(pa.int64()), classes))
        if pc.any(wrong).as_py():
            row = _first(wrong)
            yield f", row {row}: the {name} is {column[row].as_py()}, allowed: {allowed}"
        return
    allowed = f"{classes} times 0 or 1"
    wrong = pc.not_equal(pc.list_value_length(column), classes)
    if pc.any(wrong).as_py():
        row = _first(wrong)
        yield f", row {row}: the {name} is {column[row].as_py()!s:.60}, allowed: {allowed}"
    values = pc.list_flatten(column)
    wrong = pc.invert(pc.is_in(values, pa.array([0, 1], values.type)))
    if pc.any(wrong).as_py():
        row = _first(wrong) // classes
        yield f", row {row}: the {name} is {column[row].as_py()!s:.60}, allowed: {allowed}"


def read_table(
    path: str | Path, schema: Schema, columns: list[str] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table at ``path`` as a data frame with its metadata, checked against ``schema``.

    Lists (labels, logits) become NumPy arrays, one object per row; request_rank keeps its nulls as ``<NA>``.
    """
    table, meta = read_arrow(path, schema, columns)
    types = {pa.int16(): pd.Int16Dtype()} if "request_rank" in table.column_names and schema is SPLITS else {}
    return table.to_pandas(types_mapper=types.get, ignore_metadata=True), meta
