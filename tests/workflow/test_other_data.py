"""Another copy of the data, corrected annotations with an old date: noticed, made again or refused, never mixed."""

import csv
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageOps
from tests.workflow.conftest import Run, jobs, toy_with, write_config

from oneshui.data.raw_layouts import write_raw
from oneshui.data.synthetic import SyntheticSpec
from oneshui.files import sha256_file
from oneshui.schemas import INDEX, read_table

pytestmark = pytest.mark.slow

SCORES = "results/scores/toy/seed0/pretrain.parquet"
MODEL = "results/models/toy/seed0/pretrain.safetensors"


def labels_differ(folder: Path, data: Path) -> int:
    """Return how many labels of the index are not those of the annotation file."""
    index, meta = read_table(folder / "results/data/toy/index.parquet", INDEX)
    table = pd.read_csv(data / "toy/manifest.csv", dtype=str).set_index("path")["label"]
    return sum(meta["classes"][label] != table[path] for path, label in zip(index["path"], index["label"], strict=True))


def exchange_labels(manifest: Path) -> None:
    """Correct the labels of two classes as an archive from 2019 does."""
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    first, second = sorted({row[2] for row in rows[1:]})[:2]
    for row in rows[1:]:
        row[2] = {first: second, second: first}.get(row[2], row[2])
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    os.utime(manifest, (1_560_000_000, 1_560_000_000))


def test_a_model_is_never_mixed_with_other_labels_or_pictures(snakemake: Run, tmp_path: Path) -> None:
    config = toy_with("ssd")
    synthetic = config["datasets"]["toy"].pop("synthetic")
    config["datasets"]["toy"] |= {"layout": "manifest", "folder": "toy"}
    config["training"]["toy"] |= {"epochs": 1, "warmup_epochs": 0}
    data = tmp_path / "dätä 'b' $HOME"  # (Snakemake takes quotes off both ends of what is typed)
    write_raw(SyntheticSpec.from_dict(synthetic), data / "toy", "manifest")
    path = str(write_config(tmp_path, config))

    def run(root: Path, *more: str, fails: bool = False) -> str:
        arguments = ("--configfile", path, "--config", f"data_root={root}", *more, "--", SCORES)
        return snakemake(*arguments, fails=fails).stdout

    run(data)
    model = sha256_file(tmp_path / MODEL)
    assert jobs(run(data, "--dry-run")) == {}

    exchange_labels(data / "toy/manifest.csv")
    assert jobs(run(data, "--dry-run"))["index_dataset"] == 1
    refused = run(data, fails=True)
    assert "was trained on other splits than the present ones" in refused
    assert labels_differ(tmp_path, data) == 0

    exchange_labels(data / "toy/manifest.csv")  # back again, with the same old date
    run(data)
    assert labels_differ(tmp_path, data) == 0
    assert jobs(run(data, "--dry-run")) == {}

    copy, other = tmp_path / "copy", tmp_path / "other"
    for root in (copy, other):
        shutil.copytree(data, root)
    for image in (other / "toy/images").iterdir():
        ImageOps.invert(Image.open(image).convert("RGB")).save(image)
    run(copy)
    scores = (tmp_path / SCORES).read_bytes()
    refused = run(other, fails=True)
    assert "was trained on other pictures" in refused and "another copy of the data set" in refused
    assert sha256_file(tmp_path / MODEL) == model
    assert jobs(run(copy, "--dry-run"))["index_dataset"] == 1
    run(copy)
    assert (tmp_path / SCORES).read_bytes() == scores
