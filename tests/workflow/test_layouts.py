"""Every raw layout from files to a table."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.workflow.conftest import Run, toy_with, write_config

from oneshui.schemas import INDEX, SPLITS, read_table

pytestmark = pytest.mark.slow


def test_deduplicated_data_set_runs_to_a_table(snakemake: Run, tmp_path: Path) -> None:
    config = toy_with("ssd")
    config["datasets"]["toy"]["split"]["dedup"] = True
    arguments = ("--configfile", str(write_config(tmp_path, config)), "--")
    snakemake(*arguments, "results/raw/toy/rendered.json")
    images = sorted((tmp_path / "results/raw/toy/images").glob("*.png"))
    for original, copy in ((images[0], images[-1]), (images[1], images[60])):
        assert original.name.split("_")[0] != copy.name.split("_")[0]  # of another identity
        shutil.copyfile(original, copy)
    snakemake(*arguments, "tables")
    index, _ = read_table(tmp_path / "results/data/toy/index.parquet", INDEX)
    splits, _ = read_table(tmp_path / "results/splits/toy/seed0.parquet", SPLITS)
    assert len(index) == len(images) == 144
    assert len(splits) == index["duplicate_group"].nunique() <= 142
    left_out = set(index.loc[~index["image_id"].isin(splits["image_id"]), "path"])
    for first, second in ((images[0], images[-1]), (images[1], images[60])):
        assert left_out & {f"images/{first.name}", f"images/{second.name}"}
    table = pd.read_csv(tmp_path / "results/tables/toy.csv")
    assert table["method"].tolist() == ["pretrain", "retrain", "ssd"]
    assert table[["retain_mean", "forget_mean", "test_mean"]].notna().all().all()


LAYOUTS = {
    "celeba": {"layout": "celeba", "stored_px": [29, 24]},
    "celebahq": {"layout": "celebahq", "stored_px": [24, 24]},
    "mufac": {"layout": "mufac", "stored_px": [24, 24]},
    "manifest": {"layout": "manifest", "stored_px": [24, 24]},
}


def test_every_reader_from_raw_files_to_a_table(snakemake: Run, tmp_path: Path) -> None:
    config = toy_with("ssd")
    toy, training = config["datasets"]["toy"], config["training"]["toy"] | {"epochs": 1, "warmup_epochs": 0}
    config["datasets"] = {name: {**toy, **entry} for name, entry in LAYOUTS.items()}
    for name in ("celeba", "celebahq"):
        config["datasets"][name]["synthetic"] = toy["synthetic"] | {"task": "multilabel"}
    config["training"] = dict.fromkeys(LAYOUTS, training)
    config["tables"]["toy"]["blocks"] = [{"dataset": name, "n": 3} for name in LAYOUTS]
    snakemake("--configfile", str(write_config(tmp_path, config)), "--", "tables", "check_data")
    table = pd.read_csv(tmp_path / "results/tables/toy.csv")
    assert table.groupby("dataset").size().to_dict() == dict.fromkeys(LAYOUTS, 3)
    assert dict(zip(table["dataset"], table["measure"], strict=True)) == {
        "celeba": "map", "celebahq": "map", "mufac": "accuracy", "manifest": "accuracy",
    }  # fmt: skip
    unlearned = table[table["method"] != "retrain"]
    assert unlearned[["retain_mean", "forget_mean", "test_mean", "tow_mean"]].notna().all().all()
    report = (tmp_path / "results/logs/check_data.log").read_text()
    assert report.count("| images | 144 |") == report.count("| missing images | 0 |") == len(LAYOUTS)
