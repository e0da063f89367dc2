"""Readers of raw layouts: what they return, and what they say about malformed files."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from oneshui.config import SyntheticSpec
from oneshui.data.layouts import (
    LAYOUTS,
    annotation_files,
    check_layouts,
    read_annotations,
    read_attributes,
    read_identities,
)
from oneshui.data.raw_layouts import write_raw
from oneshui.data.synthetic import class_names, render_faces
from oneshui.errors import ConfigError, DataError
from oneshui.metrics.measure import MEASURES

IDENTITY = "identity_CelebA.txt"
ATTRIBUTE = "list_attr_celeba.txt"
SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the optional folder ../shared/data is not there")
    return SHARED


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder


def celeba_files(**replaced: str) -> dict[str, str]:
    files = {
        "identity": "000001.jpg 2880\n000002.jpg 7\n",
        "attribute": "2\nMale Smiling Young\n000001.jpg -1  1 -1\n000002.jpg  1  1 -1\n",
    }
    files |= replaced
    return {IDENTITY: files["identity"], ATTRIBUTE: files["attribute"]}


def mufac_files(**replaced: str) -> dict[str, str]:
    header = "family_id,person_id,age_class,image_path\n"
    parts = {"train": "F0001,D,a,x.jpg\nF0001,M,h,y.jpg\n", "val": "F0002,D,b,x.jpg\n", "test": "F0003,D,c,x.jpg\n"}
    return {f"custom_{part}_dataset.csv": header + rows for part, rows in (parts | replaced).items()}


def read(layout: str, folder: Path, **options: Any) -> pd.DataFrame:
    return read_annotations(layout, folder, options).frame


# ---- what is read


def test_celeba_reads_identities_and_attributes(tmp_path: Path) -> None:
    annotations = read_annotations("celeba", write_files(tmp_path, celeba_files()), {})
    assert annotations.task == "multilabel"
    assert annotations.classes == ("Male", "Smiling", "Young")
    assert annotations.frame.to_dict("list") == {
        "path": ["img_align_celeba/000001.jpg", "img_align_celeba/000002.jpg"],
        "identity_name": ["2880", "7"],
        "label": [(0, 1, 0), (1, 1, 0)],
        "source": [f"{IDENTITY}:1", f"{IDENTITY}:2"],
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_it_was_drawn(tmp_path: Path, layout: str) -> None:
    held = []
    for task in MEASURES:
        spec = SyntheticSpec(
            task=task, n_identities=6, images_per_identity=(2, 4), image_px=16, n_classes=8, memorised_frac=0.0,
            noise_frac=0.2, seed=0,
        )  # fmt: skip
        folder, drawn, found = tmp_path / task, defaultdict(list), defaultdict(list)
        try:
            write_raw(spec, folder, layout)
        except ConfigError as error:
            if "layout holds" not in str(error):
                raise
            continue
        for face in render_faces(spec):
            drawn[face.identity].append(named(face.label, class_names(spec)))
        attributes = task == "multilabel" and "label_columns" in LAYOUTS[layout].options
        annotations = read_annotations(layout, folder, {"label_columns": "rest"} if attributes else {})
        for row in annotations.frame.itertuples():
            assert (folder / str(row.path)).is_file()
            found[row.identity_name].append(named(row.label, annotations.classes))
        assert annotations.task == task
        assert sorted(map(sorted, found.values())) == sorted(map(sorted, drawn.values()))
        held.append(task)
    assert held


def named(label: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the class of an image, or its attributes."""
    if isinstance(label, tuple):
        return tuple(name for name, bit in zip(names, label, strict=True) if bit)
    return (names[label],)


def test_celebahq_reads_its_own_file_names(tmp_path: Path) -> None:
    identity, attribute = celeba_files().values()
    files = {"CelebA-HQ-identity.txt": identity, "CelebAMask-HQ-attribute-anno.txt": attribute}
    frame = read("celebahq", write_files(tmp_path, files))
    assert frame["path"].tolist() == ["CelebA-HQ-img/000001.jpg", "CelebA-HQ-img/000002.jpg"]


def test_mufac_pools_the_three_parts(tmp_path: Path) -> None:
    annotations = read_annotations("mufac", write_files(tmp_path, mufac_files()), {})
    assert annotations.task == "classification"
    assert annotations.classes == tuple("abcdefgh")
    assert annotations.frame.to_dict("list") == {
        "path": ["train_images/x.jpg", "train_images/y.jpg", "val_images/x.jpg", "test_images/x.jpg"],
        "identity_name": ["F0001_D", "F0001_M", "F0002_D", "F0003_D"],
        "label": [0, 7, 1, 2],
        "source": [
            "custom_train_dataset.csv:2",
            "custom_train_dataset.csv:3",
            "custom_val_dataset.csv:2",
            "custom_test_dataset.csv:2",
        ],
    }


@pytest.mark.parametrize("layout", ["manifest", "synthetic"])
def test_manifest_keeps_identities_and_labels_as_text(tmp_path: Path, layout: str) -> None:
    write_files(tmp_path, {"manifest.csv": "path,identity,label\na.png,007,NA\nb.png,8,1.0\nc.png,Nan Li,1.0\n"})
    annotations = read_annotations(layout, tmp_path, {})
    assert annotations.frame["identity_name"].tolist() == ["007", "8", "Nan Li"]
    assert annotations.classes == ("1.0", "NA")
    assert annotations.frame["label"].tolist() == [1, 0, 0]


def test_manifest_takes_columns_and_class_order_from_options(tmp_path: Path) -> None:
    write_files(tmp_path, {"cows.csv": "photo,cow,breed,note\na.png,1,holstein,\nb.png,2,angus,x\n"})
    options = {"file": "cows.csv", "path_column": "photo", "identity_column": "cow", "label_column": "breed"}
    assert read("manifest", tmp_path, **options)["label"].tolist() == [1, 0]
    annotations = read_annotations("manifest", tmp_path, options | {"classes": ["holstein", "angus", "jersey"]})
    assert annotations.classes == ("holstein", "angus", "jersey")
    assert annotations.frame["label"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("columns", "names", "labels"), [("rest", ("z", "y"), [(0, 1), (1, 1)]), (["y"], ("y",), [(1,), (1,)])]
)
def test_manifest_reads_attribute_columns(tmp_path: Path, columns: Any, names: Any, labels: Any) -> None:
    write_files(tmp_path, {"manifest.csv": "z,path,identity,y\n0,a.png,p,1\n1,b.png,p,1\n"})
    annotations = read_annotations("manifest", tmp_path, {"label_columns": columns})
    assert annotations.task == "multilabel"
    assert annotations.classes == names
    assert annotations.frame["label"].tolist() == labels


def test_manifest_reads_parquet_by_row_number(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "identity": [7, 12], "Hat": [True, False]})
    frame.to_parquet(tmp_path / "faces.parquet")
    read_back = read("manifest", tmp_path, file="faces.parquet", label_columns="rest")
    assert read_back["identity_name"].tolist() == ["7", "12"]
    assert read_back["label"].tolist() == [(1,), (0,)]
    assert read_back["source"].tolist() == ["faces.parquet:1", "faces.parquet:2"]


def test_quoted_line_ends_do_not_shift_line_numbers(tmp_path: Path) -> None:
    write_files(tmp_path, {"manifest.csv": 'path,identity,label,note\na.png,p,x,"two\nlines"\nb.png,p,x,\n'})
    assert read("manifest", tmp_path)["source"].tolist() == ["manifest.csv:2", "manifest.csv:4"]


def test_one_image_has_one_spelling(tmp_path: Path) -> None:
    write_files(tmp_path, {"manifest.csv": "path,identity,label\n./faces//a.png,p,x\n"})
    assert read("manifest", tmp_path)["path"].tolist() == ["faces/a.png"]


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("celeba", celeba_files()),
        ("mufac", mufac_files()),
        ("manifest", {"manifest.csv": "path,identity,label\na.png,p,x\n"}),
    ],
)
def test_windows_line_ends_byte_order_mark_and_blank_lines_are_accepted(
    tmp_path: Path, layout: str, files: dict[str, str]
) -> None:
    expected = read(layout, write_files(tmp_path, files))
    awkward = {name: "\ufeff" + text.replace("\n", "\r\n") + "\r\n \r\n" for name, text in files.items()}
    pd.testing.assert_frame_equal(read(layout, write_files(tmp_path, awkward)), expected)


def test_annotation_files_do_not_touch_the_disk() -> None:
    assert annotation_files("celeba", "no/folder", {}) == [f"no/folder/{IDENTITY}", f"no/folder/{ATTRIBUTE}"]
    assert annotation_files("manifest", "no/folder/", {"file": "a/b.parquet"}) == ["no/folder/a/b.parquet"]
    assert len(annotation_files("mufac", "no", {})) == 3


# ---- what is refused: every message names the file and the row


def refused(call: Callable[[], object], error: type[Exception], *parts: str) -> None:
    with pytest.raises(error) as raised:
        call()
    for part in parts:
        assert part in str(raised.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    refused(lambda: read("mufac", tmp_path / "nowhere"), DataError, "nowhere", "does not exist")


def test_missing_file_lists_those_found(tmp_path: Path) -> None:
    (tmp_path / IDENTITY).write_text("1.jpg 1\n")
    refused(lambda: read("celeba", tmp_path), DataError, f"lacks {ATTRIBUTE}", f"found: {IDENTITY}")


def test_unknown_layout_lists_layouts(tmp_path: Path) -> None:
    refused(lambda: read("lfw", tmp_path), ConfigError, "'lfw'", f"allowed: {', '.join(LAYOUTS)}.")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"layout": "lfw"}, f"c.yaml: datasets/faces/layout = 'lfw', allowed: {', '.join(LAYOUTS)}"),
        (
            {"options": {"colour": "x"}},
            "c.yaml: datasets/faces/options: layout manifest: unknown options ['colour'], allowed: ",
        ),
        ({"options": {"file": "x.xls"}}, "c.yaml: datasets/faces/options: option file = 'x.xls'"),
    ],
)
def test_a_configuration_with_a_wrong_layout_is_refused(entry: dict[str, Any], said: str) -> None:
    faces = {"layout": "manifest", "options": {"file": "x.csv"}}
    check_layouts({"datasets": {"faces": faces}}, "c.yaml")
    refused(lambda: check_layouts({"datasets": {"faces": {**faces, **entry}}}, "c.yaml"), ConfigError, said)


def test_every_layout_is_in_the_table_of_raw_data() -> None:
    page = (Path(__file__).parents[3] / "config/README.md").read_text(encoding="utf-8")
    table = page.partition("| layout | in the folder |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \| .+ \|$", table, re.M) == [*LAYOUTS]


CELEBA_FAULTS = [
    ({"identity": "000001.jpg 2880\n000002.jpg\n"}, [f"{IDENTITY}:2:", "1 fields"]),
    ({"identity": "000001.jpg 2880\n\n000002.jpg 7\n"}, [f"{IDENTITY}:2:", "0 fields"]),
    ({"identity": "000001.jpg x7\n000002.jpg 7\n"}, [f"{IDENTITY}:1:", "'x7'", "not an integer"]),
    ({"identity": "000001.jpg -7\n000002.jpg 7\n"}, [f"{IDENTITY}:1:", "'-7'", "not an integer"]),
    (
        {"identity": "000001.jpg 1\n000002.jpg 7\n000001.jpg 1\n"},
        [f"{IDENTITY}:3:", f"first at {IDENTITY}:1", "000001.jpg is listed twice"],
    ),
    ({"identity": "000001.jpg 1\n000002.jpg 7\n3.jpg 1\n"}, [f"{IDENTITY}:3:", "3.jpg has an identity but no row in"]),
    ({"identity": "000001.jpg 1\n"}, [f"{ATTRIBUTE}:4:", "000002.jpg has attributes but no row in"]),
    ({"identity": ""}, [f"{ATTRIBUTE}:3:", f"no row in {IDENTITY}"]),
    ({"identity": "", "attribute": "0\nMale\n"}, [IDENTITY, "no rows"]),
    ({"attribute": ""}, [f"{ATTRIBUTE}:1:", "not the number of images"]),
    ({"attribute": "two\nMale\n000001.jpg 1\n000002.jpg 1\n"}, [f"{ATTRIBUTE}:1:", "'two'"]),
    ({"attribute": "2\n"}, [f"{ATTRIBUTE}:2:", "attribute names are missing"]),
    ({"attribute": "2\nMale Male\n000001.jpg 1 1\n"}, [f"{ATTRIBUTE}:2:", "repeated"]),
    ({"attribute": "3\nMale\n000001.jpg 1\n000002.jpg 1\n"}, [f"{ATTRIBUTE}:1:", "says 3 images, but 2 rows"]),
    ({"attribute": "2\nMale Old\n000001.jpg 1 1\n000002.jpg 1\n"}, [f"{ATTRIBUTE}:4:", "2 fields", "2 attributes"]),
    ({"attribute": "2\nMale Old\n000001.jpg 1 0\n000002.jpg 1 1\n"}, [f"{ATTRIBUTE}:3:", "Old is '0'", "-1 or 1"]),
    (
        {"attribute": "2\nMale\n000001.jpg 1\n000001.jpg 1\n"},
        [f"{ATTRIBUTE}:4:", f"first at {ATTRIBUTE}:3", "listed twice"],
    ),
    (
        {"identity": "../1.jpg 1\n", "attribute": "1\nMale\n../1.jpg 1\n"},
        [f"{IDENTITY}:1:", "'img_align_celeba/../1.jpg'", "inside the raw folder"],
    ),
]


@pytest.mark.parametrize(("files", "parts"), CELEBA_FAULTS)
def test_celeba_faults_name_file_and_line(tmp_path: Path, files: dict[str, str], parts: list[str]) -> None:
    write_files(tmp_path, celeba_files(**files))
    refused(lambda: read("celeba", tmp_path), DataError, *parts)


MUFAC_FAULTS = [
    ({"val": "F0002,D,b\n"}, ["custom_val_dataset.csv:2:", "3 fields", "header has 4"]),
    ({"val": "\nF0002,D,b,x.jpg\n"}, ["custom_val_dataset.csv:2:", "0 fields"]),
    ({"test": "F0003,D,c,x.jpg\nF0003,D,i,y.jpg\n"}, ["custom_test_dataset.csv:3:", "'i'", "a, b, c, d, e, f, g, h"]),
    ({"train": "F0001,,a,x.jpg\n"}, ["custom_train_dataset.csv:2:", "identity is empty", "person_id ''"]),
    ({"train": "F0001,D,a,\n"}, ["custom_train_dataset.csv:2:", "path is empty"]),
    ({"train": "F0001,D,a,/x.jpg\n"}, ["custom_train_dataset.csv:2:", "'/x.jpg'", "inside the raw folder"]),
    (
        {"train": "F0001,D,a,x.jpg\nF0002,D,a,y.jpg\nF0003,D,a,x.jpg\n"},
        ["custom_train_dataset.csv:4: train_images/x.jpg", "first at custom_train_dataset.csv:2"],
    ),
    ({"train": "", "val": "", "test": ""}, ["custom_train_dataset.csv", "custom_test_dataset.csv", "no rows"]),
]


@pytest.mark.parametrize(("files", "parts"), MUFAC_FAULTS)
def test_mufac_faults_name_file_and_line(tmp_path: Path, files: dict[str, str], parts: list[str]) -> None:
    write_files(tmp_path, mufac_files(**files))
    refused(lambda: read("mufac", tmp_path), DataError, *parts)


def test_mufac_without_a_column_lists_those_it_has(tmp_path: Path) -> None:
    write_files(tmp_path, mufac_files() | {"custom_val_dataset.csv": "family_id,person_id,image_path\nF1,D,x.jpg\n"})
    refused(
        lambda: read("mufac", tmp_path), DataError, "custom_val_dataset.csv:1:", "no column age_class", "image_path"
    )


HEADER = "path,identity,label\n"
MANIFEST_FAULTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("", {}, ["manifest.csv", "empty"]),
    (HEADER, {}, ["manifest.csv", "no rows"]),
    ("path,identity,path\na,b,c\n", {}, ["manifest.csv:1:", "path appears more than once"]),
    ("path,person,label\na,b,c\n", {}, ["manifest.csv:1:", "no column identity", "person"]),
    ("path,identity,age\na,b,c\n", {}, ["manifest.csv:1:", "no column label", "age"]),
    (HEADER + "a.png,p,x\nb.png,p\n", {}, ["manifest.csv:3:", "2 fields"]),
    (HEADER + "a.png,p,x\nb.png,,x\n", {}, ["manifest.csv:3:", "identity is empty"]),
    (HEADER + "a.png,p,x\n ,p,x\n", {}, ["manifest.csv:3:", "path is empty"]),
    (HEADER + "a.png,p,\n", {}, ["manifest.csv:2:", "label (label) is empty"]),
    (HEADER + "../a.png,p,x\n", {}, ["manifest.csv:2:", "'../a.png'"]),
    (HEADER + "/a.png,p,x\n", {}, ["manifest.csv:2:", "'/a.png'"]),
    (HEADER + "C:/a.png,p,x\n", {}, ["manifest.csv:2:", "'C:/a.png'"]),
    (HEADER + "f\\a.png,p,x\n", {}, ["manifest.csv:2:", "inside the raw folder"]),
    (HEADER + "a.png,p,x\n./a.png,q,x\n", {}, ["manifest.csv:3: a.png is listed twice", "first at manifest.csv:2"]),
    (HEADER + 'a.png,p,x\n"b.png,p,x\n', {}, ["manifest.csv:3:", "not valid CSV"]),
    (HEADER + "a.png,p,x\n", {"classes": ["y", "z"]}, ["manifest.csv:2:", "'x'", "allowed: y, z"]),
    (HEADER + "a.png,p,1\nb.png,p,2\n", {"label_columns": ["label"]}, ["manifest.csv:3:", "label is '2'", "0 or 1"]),
    (HEADER + "a.png,p,1\n", {"label_columns": ["label", "hat"]}, ["manifest.csv:1:", "no column hat"]),
    ("path,identity\na.png,p\n", {"label_columns": "rest"}, ["manifest.csv:1:", "no columns beside path, identity"]),
]


@pytest.mark.parametrize(("text", "options", "parts"), MANIFEST_FAULTS)
def test_manifest_faults_name_file_and_line(
    tmp_path: Path, text: str, options: dict[str, Any], parts: list[str]
) -> None:
    write_files(tmp_path, {"manifest.csv": text})
    refused(lambda: read("manifest", tmp_path, **options), DataError, *parts)


def test_text_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(HEADER.encode() + b"a.png,p,x\nb.png,caf\xe9,x\n")
    refused(lambda: read("manifest", tmp_path), DataError, "manifest.csv:3:", "0xe9", "UTF-8")


def test_parquet_faults_name_file_and_row(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "identity": ["p", None], "label": ["x", "x"]})
    frame.to_parquet(tmp_path / "m.parquet")
    refused(lambda: read("manifest", tmp_path, file="m.parquet"), DataError, "m.parquet:2:", "identity is empty")
    frame.assign(label=pd.Series([[1], [2]], dtype=object)).to_parquet(tmp_path / "m.parquet")
    refused(lambda: read("manifest", tmp_path, file="m.parquet"), DataError, "m.parquet", "column label")
    (tmp_path / "m.parquet").write_text("no parquet")
    refused(lambda: read("manifest", tmp_path, file="m.parquet"), DataError, "m.parquet is not a readable parquet")


OPTION_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("mufac", {"file": "x.csv"}, "unknown options ['file'], allowed: none"),
    ("manifest", {"colour": "x"}, "unknown options ['colour'], allowed: file, path_column"),
    ("manifest", {"file": "../x.csv"}, "inside the dataset's folder"),
    ("manifest", {"file": "x.xlsx"}, ".csv or .parquet"),
    ("manifest", {"file": 3}, "option file = 3"),
    ("manifest", {"label_column": ["a"]}, "option label_column = ['a']"),
    ("manifest", {"label_columns": "all"}, 'or "rest"'),
    ("manifest", {"label_columns": []}, "option label_columns = []"),
    ("manifest", {"classes": ["a", "a"]}, "different names"),
    ("manifest", {"label_columns": ["a"], "label_column": "b"}, "exclude each other"),
]


@pytest.mark.parametrize(("layout", "options", "part"), OPTION_FAULTS)
def test_impossible_options_are_refused(tmp_path: Path, layout: str, options: dict[str, Any], part: str) -> None:
    write_files(tmp_path, mufac_files() | {"manifest.csv": HEADER + "a.png,p,x\n"})
    refused(lambda: read(layout, tmp_path, **options), ConfigError, part)


# ---- the published files


@pytest.mark.realdata
def test_real_mufac_has_the_published_counts(real_data: Path) -> None:
    frame = read("mufac", real_data / "mufac")
    assert (len(frame), frame["identity_name"].nunique()) == (13068, 1216)


@pytest.mark.realdata
def test_real_celebahq_has_the_published_counts(real_data: Path) -> None:
    annotations = read_annotations("celebahq", real_data / "annotations" / "celebahq", {})
    assert (len(annotations.frame), annotations.frame["identity_name"].nunique()) == (30000, 6217)
    assert len(annotations.classes) == 40
    names, labels, _ = read_attributes(real_data / "annotations" / "celebahq" / "CelebAMask-HQ-attribute-anno.txt")
    assert names == annotations.classes
    assert labels["0.jpg"] == annotations.frame["label"][0]


@pytest.mark.realdata
def test_real_celeba_has_the_published_counts(real_data: Path) -> None:
    identities = read_identities(real_data / "annotations" / "celeba" / IDENTITY)
    assert (len(identities), len({identity for identity, _ in identities.values()})) == (202599, 10177)
    assert identities["000001.jpg"] == ("2880", 1)
