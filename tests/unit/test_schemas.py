"""Parquet tables: columns, types and metadata are checked on the way in and out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oneshui import __version__
from oneshui.errors import DataError
from oneshui.schemas import INDEX, REQUEST, SCORES, SPLITS, read_arrow, read_meta, read_table, write_table

CLASSES = {"task": "classification", "classes": ["a", "b"]}
ATTRIBUTES = {"task": "multilabel", "classes": ["a", "b"]}


def make_request(label: Any) -> pd.DataFrame:
    return pd.DataFrame({"request_rank": [0, 1], "identity": [4, 9], "label": label, "image": [b"x", b"\x00y"]})


def make_splits() -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": [0, 1], "identity": [4, 9], "role": ["train", "test"]})
    return frame.assign(request_rank=pd.array([0, None], dtype="Int16"), is_support=[True, False])


@pytest.mark.parametrize(
    ("meta", "label", "type_"),
    [(CLASSES, [1, 0], pa.int16()), (ATTRIBUTES, [[1, 0], [0, 1]], pa.list_(pa.int8()))],
    ids=["classes", "attributes"],
)
def test_round_trip(tmp_path: Path, meta: dict[str, Any], label: Any, type_: pa.DataType) -> None:
    path = tmp_path / "deep" / "t.parquet"
    write_table(path, make_request(label), REQUEST, {**meta, "n": 2})
    frame, found = read_table(path, REQUEST)
    assert found == {**meta, "n": 2, "version": __version__}
    assert frame["identity"].tolist() == [4, 9] and frame["image"].tolist() == [b"x", b"\x00y"]
    assert [np.asarray(value).tolist() for value in frame["label"]] == label
    assert pq.read_schema(path).field("label").type == type_
    assert [entry.name for entry in path.parent.iterdir()] == ["t.parquet"]


def test_nulls_of_request_rank_survive(tmp_path: Path) -> None:
    write_table(tmp_path / "s.parquet", make_splits(), SPLITS, {})
    frame, _ = read_table(tmp_path / "s.parquet", SPLITS)
    assert frame["request_rank"].dtype == "Int16"
    assert frame["request_rank"].isna().tolist() == [False, True]
    assert frame["is_support"].dtype == bool


def test_logits_may_be_null_where_a_view_has_none(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image_id": [0, 0], "view": [0, 1], "loss": [0.5, 0.1], "p_true": [0.6, 0.9]})
    frame["logits"] = [np.array([1, -2], dtype=np.float16), None]
    write_table(tmp_path / "s.parquet", frame, SCORES, {})
    table, _ = read_arrow(tmp_path / "s.parquet", SCORES)
    assert table.column("logits").to_pylist() == [[1.0, -2.0], None]


def test_nan_of_numbers_survives(tmp_path: Path) -> None:
    loss = np.array([np.nan, 0.5, np.inf], dtype=np.float32)
    frame = pd.DataFrame({"image_id": [0, 1, 2], "view": 0, "loss": loss, "p_true": np.exp(-loss)})
    frame["logits"] = [np.array([np.nan, -2], dtype=np.float16), np.array([1, 2], dtype=np.float16), None]
    write_table(tmp_path / "s.parquet", frame, SCORES, {})
    table, _ = read_arrow(tmp_path / "s.parquet", SCORES)
    assert table.column("loss").null_count == table.column("p_true").null_count == 0
    np.testing.assert_array_equal(table.column("loss").to_numpy(), loss)
    found, _ = read_table(tmp_path / "s.parquet", SCORES)
    np.testing.assert_array_equal(found["loss"], loss)
    np.testing.assert_array_equal(found["p_true"], np.exp(-loss))
    np.testing.assert_array_equal(np.asarray(found["logits"][0], dtype=np.float32), [np.nan, -2])
    assert found["logits"][2] is None


def test_some_columns_only(tmp_path: Path) -> None:
    write_table(tmp_path / "s.parquet", make_splits(), SPLITS, {})
    frame, _ = read_table(tmp_path / "s.parquet", SPLITS, ["identity", "role"])
    assert frame.columns.tolist() == ["identity", "role"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (make_splits().drop(columns="role"), "splits table has columns"),
        (make_splits().assign(more=1), "splits table has columns"),
        (make_splits()[["identity", "image_id", "role", "request_rank", "is_support"]], "expected .'image_id', "),
        (make_splits().assign(identity=["a", "b"]), "splits table: "),
        (make_splits().assign(identity=[2**40, 1]), "splits table: "),
        (make_splits().assign(role=["train", None]), "splits table: column role has missing values"),
    ],
    ids=["missing", "superfluous", "order", "type", "overflow", "null"],
)
def test_wrong_table_is_not_written(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_table(tmp_path / "s.parquet", frame, SPLITS, {})
    assert list(tmp_path.iterdir()) == []


def test_labels_need_a_known_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task is 'ranking', allowed: classification, multilabel"):
        write_table(tmp_path / "r.parquet", make_request([0, 1]), REQUEST, {"task": "ranking"})
    with pytest.raises(DataError, match="index table: task is None"):
        INDEX.arrow(None)


def test_table_of_another_kind_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "s.parquet", make_splits(), SPLITS, {})
    with pytest.raises(DataError, match=r"a scores table needs the columns .* wrong or missing: .'view', "):
        read_table(tmp_path / "s.parquet", SCORES)


def test_table_of_an_older_version_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "s.parquet", make_splits(), SPLITS, {})
    table = pq.read_table(tmp_path / "s.parquet")
    changed = table.schema.set(1, pa.field("identity", pa.int64())).with_metadata(table.schema.metadata)
    pq.write_table(table.cast(changed), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"wrong or missing: \['identity'\]\). Delete it"):
        read_table(tmp_path / "s.parquet", SPLITS)
    pq.write_table(table.append_column("more", pa.array([1, 2])), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"but has .*'more'"):
        read_table(tmp_path / "s.parquet", SPLITS)


def test_foreign_and_damaged_files_are_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="was not written by oneshui"):
        read_meta(tmp_path / "foreign.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    for name in ("text.parquet", "missing.parquet"):
        with pytest.raises(DataError, match=f"{name} is not a readable parquet file"):
            read_table(tmp_path / name, SPLITS)
