"""The whole workflow on rendered faces: every raw layout, what runs again or is refused after a change, killed jobs."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from tests.workflow.conftest import ROOT, Run, jobs, toy_config, write_config

from oneshui.files import sha256_file
from oneshui.schemas import INDEX, SPLITS, read_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy grid has run."""
    folder = tmp_path_factory.mktemp("toy")
    config = write_config(folder, toy_config())
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2", "--configfile", str(config),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished folder with its time stamps, to change things in."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    return folder


def planned(snakemake: Run, folder: Path, config: dict[str, Any]) -> dict[str, int]:
    return jobs(snakemake("--dry-run", "--configfile", str(write_config(folder, config)), folder=folder).stdout)


def test_table_has_every_row_and_its_differences(finished: Path) -> None:
    table = pd.read_csv(finished / "results/tables/toy.csv")
    assert table["method"].tolist() == ["pretrain", "retrain", "ssd", "metaunlearn"]
    assert table["n_seeds"].eq(1).all()
    assert table["forget_mean"].between(0, 100).all()
    pretrain = table.set_index("method").loc["pretrain"]
    others = table.set_index("method").loc[["ssd", "metaunlearn"]]
    difference = others["tow_mean"] - pretrain["tow_mean"]
    assert (difference - others["tow_minus_pretrain_mean"]).abs().max() < 1e-6
    for suffix in ("md", "tex"):
        assert (finished / f"results/tables/toy.{suffix}").stat().st_size > 0


def test_second_run_does_nothing(snakemake: Run, copied: Path) -> None:
    assert planned(snakemake, copied, toy_config()) == {}


def test_table_option_reruns_tables_and_their_figures_only(snakemake: Run, copied: Path) -> None:
    config = toy_config()
    config["tables"]["toy"]["decimals"] = 2
    assert set(planned(snakemake, copied, config)) == {"all", "make_table", "make_figure"}


def test_method_parameter_reruns_that_method_only(snakemake: Run, copied: Path) -> None:
    config = toy_config()
    config["methods"]["ssd"]["params"]["selection"] = 5.0
    plan = planned(snakemake, copied, config)
    assert plan["precompute_artefact"] == plan["unlearn"] == plan["score_unlearned"] == plan["measure_unlearned"] == 1
    assert not {"train_pretrain", "train_retrain", "score_pretrain", "measure_retrain"} & set(plan)


def test_training_parameter_is_refused_and_models_stay(snakemake: Run, copied: Path) -> None:
    config = toy_config()
    old = config["training"]["toy"]["lr"]
    config["training"]["toy"]["lr"] = 0.123
    model = copied / "results/models/toy/seed0/pretrain.safetensors"
    before = sha256_file(model)
    done = snakemake("--configfile", str(write_config(copied, config)), folder=copied, fails=True)
    assert "trained models are protected" in done.stdout
    assert f"training.lr: {old} -> 0.123" in done.stdout
    assert sha256_file(model) == before


def test_newer_index_retrains_nothing(snakemake: Run, copied: Path) -> None:
    for name in ("splits/toy/seed0.parquet", "data/toy/index.parquet"):
        path = copied / "results" / name
        pq.write_table(pq.read_table(path), path, compression="none")  # other bytes: Snakemake compares small files
    plan = planned(snakemake, copied, toy_config())
    assert not {"train_pretrain", "train_retrain"} & set(plan)
    assert plan["precompute_artefact"] == 2


def tensor_hashes(path: Path) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in load_file(path).items()}


def test_unlearning_runs_after_the_data_is_gone(snakemake: Run, copied: Path) -> None:
    """The benchmark's tables need the data again; a request does not."""
    target = "results/unlearned/toy/n3/seed0/pretrain/ssd.safetensors"
    before = tensor_hashes(copied / target)
    (copied / target).unlink()
    for gone in ("raw", "data", "splits"):
        shutil.rmtree(copied / "results" / gone)
    snakemake("--configfile", str(write_config(copied, toy_config())), "--", target, folder=copied)
    assert tensor_hashes(copied / target) == before


def test_changed_label_is_refused_and_the_table_stays(snakemake: Run, copied: Path) -> None:
    raw, table = copied / "results/raw/toy", copied / "results/tables/toy.csv"
    before, made = table.read_bytes(), table.stat().st_mtime_ns
    manifest = pd.read_csv(raw / "manifest.csv", dtype=str)
    common, other = manifest["label"].value_counts().index[:2]  # every class keeps an image
    manifest.loc[manifest.index[manifest["label"] == common][0], "label"] = other
    manifest.to_csv(raw / "manifest.csv", index=False)
    marker = raw / "rendered.json"
    marker.write_text(marker.read_text() + "\n")  # a new time stamp alone is not enough for snakemake
    done = snakemake("--configfile", str(write_config(copied, toy_config())), "--", "tables", folder=copied, fails=True)
    assert re.search(r"trained on (another split|other splits)|exported from another split", done.stdout)
    assert (table.read_bytes(), table.stat().st_mtime_ns) == (before, made)


def test_new_seed_trains_its_own_models_only(snakemake: Run, copied: Path) -> None:
    models = copied / "results/models"
    before = {path: (sha256_file(path), path.stat().st_mtime_ns) for path in models.rglob("*.safetensors")}
    assert len(before) == 2
    config = toy_config() | {"seeds": [0, 1]}
    plan = planned(snakemake, copied, config)
    assert plan["train_pretrain"] == plan["train_retrain"] == plan["split_identities"] == 1
    assert plan["measure_pretrain"] == plan["measure_retrain"] == 1
    assert not {"render_faces", "index_dataset", "pack_images"} & set(plan)
    snakemake("--configfile", str(write_config(copied, config)), folder=copied)
    assert {path: (sha256_file(path), path.stat().st_mtime_ns) for path in before} == before
    added = {path.relative_to(models).as_posix() for path in models.rglob("*.safetensors") if path not in before}
    assert added == {"toy/seed1/pretrain.safetensors", "toy/n3/seed1/retrain.safetensors"}
    assert pd.read_csv(copied / "results/tables/toy.csv")["n_seeds"].eq(2).all()


def test_unlearned_models_are_removed_where_they_are_not_kept(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config() | {"keep_unlearned": False}
    snakemake("--configfile", str(write_config(tmp_path, config)))
    assert (tmp_path / "results/tables/toy.csv").exists()
    assert [path for path in (tmp_path / "results/unlearned").rglob("*") if path.is_file()] == []
    assert planned(snakemake, tmp_path, config) == {}


def test_deduplicated_data_set_runs_to_a_table(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
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
    assert table["method"].tolist() == ["pretrain", "retrain", "ssd", "metaunlearn"]
    assert table[["retain_mean", "forget_mean", "test_mean"]].notna().all().all()


LAYOUTS = {
    "celeba": {"layout": "celeba", "stored_px": [29, 24]},
    "celebahq": {"layout": "celebahq", "stored_px": [24, 24]},
    "mufac": {"layout": "mufac", "stored_px": [24, 24]},
    "manifest": {"layout": "manifest", "stored_px": [24, 24]},
}


def test_every_reader_from_raw_files_to_a_table(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
    toy, training = config["datasets"]["toy"], config["training"]["toy"] | {"epochs": 1, "warmup_epochs": 0}
    config["datasets"] = {name: {**toy, **entry} for name, entry in LAYOUTS.items()}
    for name in ("celeba", "celebahq"):
        config["datasets"][name]["synthetic"] = toy["synthetic"] | {"task": "multilabel"}
    config["training"] = dict.fromkeys(LAYOUTS, training)
    config["tables"]["toy"]["blocks"] = [{"dataset": name, "n": 3} for name in LAYOUTS]
    snakemake("--configfile", str(write_config(tmp_path, config)), "--", "tables", "check_data")
    table = pd.read_csv(tmp_path / "results/tables/toy.csv")
    assert table.groupby("dataset").size().to_dict() == dict.fromkeys(LAYOUTS, 4)
    assert dict(zip(table["dataset"], table["measure"], strict=True)) == {
        "celeba": "map", "celebahq": "map", "mufac": "accuracy", "manifest": "accuracy",
    }  # fmt: skip
    unlearned = table[table["method"] != "retrain"]
    assert unlearned[["retain_mean", "forget_mean", "test_mean", "tow_mean"]].notna().all().all()
    report = (tmp_path / "results/logs/check_data.log").read_text()
    assert report.count("| images | 144 |") == report.count("| missing images | 0 |") == len(LAYOUTS)


def test_training_killed_in_the_middle_ends_with_the_same_weights(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
    config["training"]["toy"]["epochs"] = 25
    target = "results/models/toy/seed0/pretrain.safetensors"
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
        write_config(folder, config)
    snakemake("--configfile", str(straight / "config.yaml"), "--", target, folder=straight)
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(killed),
        "--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2", "--configfile",
        str(killed / "config.yaml"), "--", target,
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_training(first, killed / f"{target}.resume")
    assert first.wait(timeout=120) != 0
    assert not (killed / target).exists()
    snakemake(*command[command.index("--configfile") :], folder=killed)
    log = (killed / "results/logs/train_pretrain/toy/seed0.log").read_text()
    assert "resuming after epoch" in log
    assert tensor_hashes(killed / target) == tensor_hashes(straight / target)
    assert not (killed / f"{target}.resume").exists()


def kill_training(workflow: subprocess.Popen[bytes], sidecar: Path) -> None:
    """Kill the training process itself once its sidecar exists."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert workflow.poll() is None, "the workflow ended before training could be killed"
        if sidecar.exists():
            for process in psutil.Process(workflow.pid).children(recursive=True):
                if "train_model.py" in " ".join(process.cmdline()) and "bash" not in process.name():
                    os.kill(process.pid, signal.SIGKILL)
                    return
        time.sleep(0.05)
    raise AssertionError("no sidecar appeared")
