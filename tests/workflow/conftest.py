"""A toy grid: rendered faces, a tiny network, seconds per job; and a way to run the workflow on it."""

import copy
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from safetensors.torch import load_file

from oneshui.data.layouts import annotation_files

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

SYNTHETIC = {
    "task": "classification", "n_identities": 24, "images_per_identity": [6, 6], "image_px": 24, "n_classes": 8,
    "memorised_frac": 0.2, "noise_frac": 0.0, "seed": 0,
}  # fmt: skip


#: beside those of the demo
METHODS = {
    "jit": {"lr": 1e-3, "noise_std": 0.5, "n_samples": 2, "batch_size": 16},
    "pgu": {
        "lr": 1e-2, "epochs": 2, "gamma": 0.8, "entropy_weight": 0.2, "spectrum": "clamp", "batch_size": 16,
        "micro_batch": 32,
    },
    "scrub": {
        "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 2, "forget_epochs": 1, "alpha": 0.001,
        "gamma": 0.99, "temperature": 4.0, "clip_norm": 1.0, "forget_batch_size": 16, "retain_batch_size": 32,
        "crop_scale": [0.5, 1.0], "kl": "task",
    },
    "bad_teacher": {
        "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 1, "temperature": 1.0, "batch_size": 32,
        "crop_scale": [], "kl": "task",
    },
    "fold_model": {"folds": 2},
    "identity_edits": {
        "folds": 2, "blocks": 2, "rank": 4, "weight": 100.0, "weight_earlier": 10.0, "ridge": 0.01,
        "spread": 0.5, "calibrate": "halfway", "solve": "sum", "max_positions": 16, "batch_size": 32,
    },
}  # fmt: skip
SUPPORT_ONLY, WITH_DATA = ["ssd", "metaunlearn", "jit", "pgu"], ["scrub", "bad_teacher"]


def toy_config() -> dict[str, Any]:
    """The demo's configuration, shrunk."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    dataset = copy.deepcopy(config["datasets"]["demo"])
    dataset |= {"stored_px": [24, 24], "synthetic": SYNTHETIC}
    dataset["split"] |= {"n_ranked": 3, "min_images_first": 4}
    training = {**config["training"]["demo"], "model": "test_resnet", "input_px": 32, "epochs": 3, "warmup_epochs": 1}
    methods = copy.deepcopy({name: config["methods"][name] for name in ("ssd", "metaunlearn")})
    methods |= {name: {"kind": name, "params": dict(params)} for name, params in METHODS.items()}
    methods["metaunlearn"]["params"] |= {"epochs": 1, "simulated_n": 3, "hidden": 16}
    return {
        **config, "seeds": [0], "datasets": {"toy": dataset}, "training": {"toy": training}, "methods": methods,
        "tables": {"toy": {**config["tables"]["demo"], "blocks": [{"dataset": "toy", "n": 3}],
                           "methods": [*SUPPORT_ONLY, *WITH_DATA]}},
        "figures": {"toy_bars": {"kind": "table_bars", "table": "toy"}},
    }  # fmt: skip


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def annotate(config: dict[str, Any], data_root: Path) -> None:
    """Make the annotation files of all datasets, with nothing in them: enough to plan."""
    for entry in config["datasets"].values():
        for name in annotation_files(entry["layout"], "", entry["options"]) if "folder" in entry else ():
            file = data_root / entry["folder"] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def command(folder: Path, *arguments: str) -> list[str]:
    """Return the command line that runs our Snakefile in ``folder``; extra arguments as a user would type them."""
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2", *arguments,
    ]  # fmt: skip


def run_workflow(folder: Path, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run snakemake in ``folder`` and check that it succeeds (or fails); ``stdout`` holds both streams."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        command(folder, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env=environment, timeout=600,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout[-6000:]
    return done


def logs_of(folder: Path) -> list[str]:
    """Return all that Snakemake said in each run in ``folder``; the terminal shows less (``logger: oneshui``)."""
    return [path.read_text() for path in sorted((folder / ".snakemake/log").glob("*.snakemake.log"))]


@pytest.fixture
def snakemake(tmp_path: Path) -> Run:
    """``run_workflow`` in ``tmp_path``, or in ``folder``."""

    def run(*arguments: str, folder: Path = tmp_path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        return run_workflow(folder, *arguments, fails=fails)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy grid has run: once, whatever the number of test processes."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    # blanks, quotes and braces must reach no shell and no format string
    folder, done = base / "finished ä {b} $HOME '", base / "finished.done"
    with FileLock(base / "finished.lock"):
        if not done.exists():
            folder.mkdir()
            run_workflow(folder, "--configfile", str(write_config(folder, toy_config())))
            done.touch()
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished folder with its time stamps, to change things in."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    return folder


def toy_with(*methods: str) -> dict[str, Any]:
    """The toy configuration with these methods only."""
    config = toy_config()
    config["tables"]["toy"]["methods"] = list(methods)
    return config


def tensor_hashes(path: Path) -> dict[str, str]:
    """Return a hash of each tensor in a safetensors file, whatever its header says."""
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in load_file(path).items()}


def planned(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """Return the jobs that a run in ``folder`` would do."""
    return jobs(run_workflow(folder, "--dry-run", "--configfile", str(write_config(folder, config))).stdout)


def jobs(output: str) -> dict[str, int]:
    """Return the job counts that a dry run prints."""
    if "Nothing to be done" in output:
        return {}
    lines = output.split("Job stats:")[1].splitlines()[3:]
    counts = {}
    for line in lines:
        if not line.strip():
            break
        name, count = line.split()
        if name != "total":
            counts[name] = int(count)
    return counts
