"""Killed processes: the workflow goes on where it was."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from tests.workflow.conftest import Run, command, tensor_hashes, toy_config, write_config

pytestmark = pytest.mark.slow


def test_training_killed_in_the_middle_ends_with_the_same_weights(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
    config["training"]["toy"]["epochs"] = 25
    target = "results/models/toy/seed0/pretrain.safetensors"
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
        write_config(folder, config)
    snakemake("--configfile", str(straight / "config.yaml"), "--", target, folder=straight)
    arguments = ("--configfile", str(killed / "config.yaml"), "--", target)
    first = subprocess.Popen(command(killed, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_training(first, killed / f"{target}.resume")
    assert first.wait(timeout=120) != 0
    assert not (killed / target).exists()
    snakemake(*arguments, folder=killed)
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
