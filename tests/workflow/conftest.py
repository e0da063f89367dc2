"""A toy grid: rendered faces, a tiny network, seconds per job; and a way to run the workflow on it."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

SYNTHETIC = {
    "task": "classification", "n_identities": 24, "images_per_identity": [6, 6], "image_px": 24, "n_classes": 8,
    "memorised_frac": 0.2, "noise_frac": 0.0, "seed": 0,
}  # fmt: skip


def toy_config() -> dict[str, Any]:
    """The demo's configuration, shrunk."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    dataset = copy.deepcopy(config["datasets"]["demo"])
    dataset |= {"stored_px": [24, 24], "synthetic": SYNTHETIC}
    dataset["split"] |= {"n_ranked": 3, "min_images_first": 4}
    training = {**config["training"]["demo"], "model": "test_resnet", "input_px": 32, "epochs": 3, "warmup_epochs": 1}
    methods = copy.deepcopy(config["methods"])
    methods["metaunlearn"]["params"] |= {"epochs": 1, "simulated_n": 3, "hidden": 16}
    return {
        **config, "seeds": [0], "datasets": {"toy": dataset}, "training": {"toy": training}, "methods": methods,
        "tables": {"toy": {**config["tables"]["demo"], "blocks": [{"dataset": "toy", "n": 3}]}},
        "figures": {"toy_bars": {"kind": "table_bars", "table": "toy"}},
    }  # fmt: skip


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture
def snakemake(tmp_path: Path) -> Run:
    """Run snakemake in ``tmp_path`` (or ``folder``) on our Snakefile; extra arguments as on the command line."""

    def run(*arguments: str, folder: Path = tmp_path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
            "--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2", *arguments,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONWARNINGS": "default"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output[-6000:]
        done.stdout = output
        return done

    return run


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
