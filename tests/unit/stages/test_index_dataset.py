"""The stages that index and check a raw folder."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from oneshui.data.index import pictures_id
from oneshui.data.layouts import LAYOUTS
from oneshui.errors import ConfigError, DataError
from oneshui.files import content_hash, spec_hash
from oneshui.log import logger
from oneshui.runs import Run
from oneshui.schemas import INDEX, read_table
from oneshui.stages.check_dataset import check_dataset
from oneshui.stages.index_dataset import index_dataset
from oneshui.stages.split_identities import split_identities

ROOT = Path(__file__).parents[3]
SPEC: dict[str, Any] = {
    "layout": "manifest",
    "options": {},
    "identities": None,
    "min_images": 1,
    "duplicate_distance": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six identities with 2 to 7 images; p0's first picture is also p1's first."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = ["path,identity,label"]
    for i in range(6):
        for j in range(i + 2):
            seed = 0 if (i < 2 and j == 0) else 100 * i + j
            coarse = np.random.default_rng(seed).integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC).save(raw / f"{i}_{j}.png")
            lines.append(f"{i}_{j}.png,p{i},{'ab'[j % 2]}")
    (raw / "manifest.csv").write_text("\n".join(lines) + "\n")
    return raw


def index(folder: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    output = folder.parent / "out" / "index.parquet"
    index_dataset(folder, output, dataset="toy", spec=SPEC | changes, n_threads=2)
    return read_table(output, INDEX)


def check(folder: Path, expected: dict[str, float] | None = None, **changes: Any) -> str:
    output = folder.parent / "check.md"
    published = folder.parent / "datasets.yaml"
    published.write_text(yaml.safe_dump({"toy": {"expected": expected}} if expected else {}))
    spec = SPEC | changes
    check_dataset(folder, published, output, dataset="toy", layout="toy", spec=spec, n_threads=2)
    return output.read_text()


def test_index_holds_every_image_and_its_metadata(folder: Path) -> None:
    table, meta = index(folder)
    assert len(table) == 27
    assert table["image_id"].tolist() == list(range(27))
    assert table["identity_name"].nunique() == 6
    assert set(table["width"]) == {24}
    shared = table.groupby("duplicate_group")["identity_name"].nunique()
    assert sorted(shared)[-2:] == [1, 2]
    del meta["version"]
    assert meta == {
        "task": "classification",
        "classes": ["a", "b"],
        "dataset": "toy",
        "layout": "manifest",
        "spec": spec_hash(SPEC),
        "annotations": content_hash([folder / "manifest.csv"]),
        "pictures": pictures_id(table),
    }


def test_multilabel_index_holds_lists_of_0_and_1(folder: Path) -> None:
    text = (folder / "manifest.csv").read_text().replace("label", "Hat,Young").replace(",a", ",0,1")
    (folder / "manifest.csv").write_text(text.replace(",b", ",1,1"))
    table, meta = index(folder, options={"label_columns": ["Hat", "Young"]})
    assert meta["classes"] == ["Hat", "Young"]
    assert [label.tolist() for label in table["label"][:2]] == [[0, 1], [1, 1]]


def test_same_input_gives_the_same_bytes(folder: Path) -> None:
    output = folder.parent / "out" / "index.parquet"
    index(folder)
    first = output.read_bytes()
    index(folder)
    assert output.read_bytes() == first


def test_subset_is_drawn_before_images_are_opened(folder: Path) -> None:
    table, _ = index(folder, identities=2, min_images=4)
    names = set(table["identity_name"])
    assert len(names) == 2 and names <= {"p2", "p3", "p4", "p5"}
    for path in folder.glob("*.png"):
        if f"p{path.name[0]}" not in names:
            path.unlink()
    again, _ = index(folder, identities=2, min_images=4)
    assert set(again["identity_name"]) == names


def test_bad_images_are_one_error_with_counts_and_rows(folder: Path) -> None:
    for name in ("2_0", "3_1", "3_2", "4_0", "5_5"):
        (folder / f"{name}.png").unlink()
    (folder / "5_6.png").write_text("no image")
    (folder / "0_0.png").write_bytes((folder / "0_0.png").read_bytes()[:-40])
    with pytest.raises(DataError) as raised:
        index(folder)
    message = str(raised.value)
    assert "toy: 7 of 27 images cannot be used (5 missing, 2 unreadable)" in message
    assert "0_0.png (manifest.csv:2): unreadable:" in message
    assert "2_0.png (manifest.csv:7): missing" in message
    assert message.count("(manifest.csv:") == 5
    assert not (folder.parent / "out" / "index.parquet").exists()


def test_check_compares_with_published_values(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=logger.name):
        report = check(folder, {"images": 27, "identities": 7, "images_per_identity": 4.5})
    assert "| images | 27 | 27 | ok |" in report
    assert "| identities | 6 | 7 | differs |" in report
    assert "| images per identity, mean | 4.5 | 4.5 | ok |" in report
    assert "| images per identity, min / median / max | 2 / 4.5 / 7 |" in report
    assert "| image sizes (px, images): 1 | 24 x 24 (27) |" in report
    assert "| images that have a copy | 2 in 1 groups |" in report
    assert "| of these, under several identities | 2 in 1 groups |" in report
    assert "| identities that share a picture with another | 2 |" in report
    assert "| images per class (2 classes) | a: 15, b: 12 |" in report
    assert [record.message for record in caplog.records] == report.splitlines()


def test_check_reports_bad_images_and_does_not_fail(folder: Path) -> None:
    (folder / "2_0.png").unlink()
    (folder / "5_6.png").write_text("no image")
    report = check(folder, identities=1)
    assert "| images | 27 |" in report
    assert "| missing images | 1 |" in report
    assert "| unreadable images | 1 |" in report
    assert "- 2_0.png (manifest.csv:7): missing" in report
    assert "- 5_6.png (manifest.csv:28): unreadable:" in report


def test_check_works_without_any_image(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()
    report = check(folder)
    assert "| missing images | 27 |" in report
    assert "first 5 of 27" in report


def test_check_summarises_attributes(folder: Path) -> None:
    text = (folder / "manifest.csv").read_text().replace("label", "Hat,Young").replace(",a", ",0,1")
    (folder / "manifest.csv").write_text(text.replace(",b", ",1,1"))
    report = check(folder, options={"label_columns": "rest"})
    assert "| share of positives over 2 attributes, min / median / max | 0.444 / 0.722 / 1.000 |" in report


def test_check_refuses_unknown_expected_values(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown expected values"):
        check(folder, {"pictures": 3})


def test_shipped_expectations_are_consistent() -> None:
    datasets = yaml.safe_load((ROOT / "resources" / "datasets.yaml").read_text())
    assert datasets and set(datasets) <= set(LAYOUTS)  # looked up by layout
    for entry in datasets.values():
        expected = entry["expected"]
        assert round(expected["images"] / expected["identities"], 1) == expected["images_per_identity"]
        assert entry["where"]


def test_pictures_that_are_not_plain_are_counted_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "2_0.png") as image:
        image.load()
    image.save(folder / "2_0.png", exif=exif)
    image.convert("L").save(folder / "2_1.png")
    image.convert("P").save(folder / "2_2.png")
    layered = image.convert("RGBA")
    layered.putalpha(100)
    layered.save(folder / "2_3.png")
    report = check(folder)
    for line in (
        "| images turned upright (EXIF orientation) | 1 |",
        "| images with transparency, put on white | 1 |",
        "| images with a palette | 1 |",
        "| images in grey | 1 |",
    ):
        assert line in report
    with caplog.at_level(logging.INFO, logger=logger.name):
        index(folder)
    said = {record.message: record.levelname for record in caplog.records}
    assert said["toy: 1 of 27 images turned upright (EXIF orientation)"] == "WARNING"
    assert said["toy: 1 of 27 images with transparency, put on white"] == "WARNING"
    assert said["toy: 1 of 27 images in grey"] == "INFO"


def test_deep_and_zero_filled_images_are_reported_by_reason_and_are_no_copies(folder: Path) -> None:
    for name in ("3_0", "3_1", "4_0"):
        Image.fromarray(np.full((24, 24), 40_000, dtype=np.uint16)).save(folder / f"{name}.png")
    with Image.open(folder / "5_0.png") as image:
        image.resize((200, 200)).save(folder / "5_0.jpg", quality=95)
    whole = (folder / "5_0.jpg").read_bytes()
    (folder / "5_0.png").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    report = check(folder)
    assert "| unreadable images | 4 |" in report
    assert "| of these, more than 8 bits a channel | 3 |" in report
    assert "| of these, cut short: no end of image after the scan | 1 |" in report
    assert "| images that have a copy | 2 in 1 groups |" in report  # those of p0 and p1, as before
    assert "- 3_0.png (manifest.csv:11): unreadable: more than 8 bits a channel (I;16)" in report
    with pytest.raises(DataError, match="4 of 27 images cannot be used") as raised:
        index(folder)
    assert "5_0.png (manifest.csv:22): unreadable: cut short: no end of image after the scan" in str(raised.value)


def test_merged_names_are_said_when_indexed_and_in_the_report(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (folder / "manifest.csv").read_text().replace("5_0.png,p5", "5_0.png,p5\u200b")
    (folder / "manifest.csv").write_text(text)
    table, _ = index(folder)
    assert table["identity_name"].nunique() == 6
    assert "1 other spellings of 1 names were taken for the same people" in caplog.text
    assert r"'p5\u200b' (manifest.csv:22)" in check(folder)


def test_what_dedup_leaves_out_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for j in range(2):  # p0 is p1's double
        (folder / f"0_{j}.png").write_bytes((folder / f"1_{j}.png").read_bytes())
    index(folder)
    spec = {"train": 0.4, "val": 0.3, "n_ranked": 1, "min_images_first": 2, "min_images": 2, "dedup": True}
    source, output = folder.parent / "out/index.parquet", folder.parent / "splits.parquet"
    split_identities(source, output, run=Run("toy", None, 0), spec=spec)
    assert "toy seed 0: dedup leaves out 2 of 27 images and 0 of 6 identities" in caplog.text
    caplog.clear()
    split_identities(source, output, run=Run("toy", None, 0), spec=spec | {"dedup": False})
    assert "dedup leaves out" not in caplog.text


def test_a_dataset_that_is_not_there_is_reported_with_what_it_needs(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.csv").rename(folder / "list.csv")
    assert f"Not checked: {folder} lacks manifest.csv." in check(folder)
    gone = tmp_path / "not_downloaded"
    assert f"Not checked: {gone} is not there. It needs manifest.csv." in check(gone)
    assert "| images | 27 |" in check(folder, options={"file": "list.csv"})
