"""The grid on a real Slurm of one node, through profiles/slurm, with a job and Snakemake itself killed on the way."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd
import psutil
import pytest
from tests.workflow.conftest import ROOT, toy_with, write_config
from tests.workflow.slurm import GPUS, Slurm, missing

T = TypeVar("T")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
GPU_RULES = ("train", "score", "precompute", "unlearn")


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="slurm."))  # a socket's path must be short
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_grid_on_a_cluster_survives_kills(slurm: Slurm, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    config = toy_with("ssd", "jit")
    config["device"] = "auto"  # so GPU rules ask for a GPU; what is there is a CPU
    config["training"]["toy"]["epochs"] = 25
    write_config(tmp_path, config)
    models = tmp_path / "results/models/toy"

    first = start(slurm, tmp_path, request)
    kill(training_on(wait_for(models / "n3/seed0/retrain.safetensors.resume", first)))
    within(60, lambda: [job for job in slurm.jobs() if job["JobState"] == "FAILED"], "no job failed")
    wait_for(models / "n3/seed0/retrain.safetensors", first)  # tried again by itself
    the_second_attempt_asked_for_twice_as_much(slurm.jobs(), "train_retrain")
    assert "resuming after epoch" in (tmp_path / "results/logs/train_retrain/toy/n3/seed0.log").read_text()
    first.send_signal(signal.SIGKILL)
    first.wait()
    slurm.told("scancel", "-u", slurm.told("id", "-un").strip())
    within(60, lambda: not slurm.told("squeue", "-h"), "jobs went on")

    done = subprocess.run([*command(tmp_path), "--unlock"], env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second = start(slurm, tmp_path, request)
    assert second.wait(timeout=240) == 0, (tmp_path / "snakemake.log").read_text()[-6000:]

    table = pd.read_csv(tmp_path / "results/tables/toy.csv")
    assert table["method"].tolist() == ["pretrain", "retrain", "ssd", "jit"]
    assert table["tow_mean"].iloc[2:].between(0, 100).all() and table["forget_mean"].between(0, 100).all()
    every_job_ran_on_the_cluster(slurm.jobs(), tmp_path / "results/logs")
    no_more_gpu_jobs_than_gpus(slurm.jobs())


def the_second_attempt_asked_for_twice_as_much(jobs: list[Mapping[str, str]], rule: str) -> None:
    asked = sorted(
        (int(job["JobId"]), job["JobState"], job["MinMemoryNode"], job["TimeLimit"])
        for job in jobs
        if rule in job["Comment"] and job["StartTime"] != "Unknown"
    )
    failed = next(entry for entry in asked if entry[1] == "FAILED")
    assert failed[2:] == ("16000M", "1-00:00:00")
    assert ("32000M", "2-00:00:00") in [entry[2:] for entry in asked if entry > failed], asked


def every_job_ran_on_the_cluster(jobs: list[Mapping[str, str]], logs: Path) -> None:
    """Slurm says of every rule that has a log, but for those that run where Snakemake does, that it ran.

    A job that was cancelled with the first Snakemake, after its last file was written, is not run again.
    """
    over = [job for job in jobs if job["JobState"] in ("COMPLETED", "CANCELLED") and job["StartTime"] != "Unknown"]
    assert sum(job["JobState"] == "COMPLETED" for job in over) > len(over) / 2
    there = " ".join(job["Comment"] for job in over)
    ran = {path.name for path in logs.iterdir()} - {"make_table", "make_figure"}
    assert {"train_pretrain", "unlearn", "score_unlearned", "split_identities"} <= ran
    grouped = {"measure_trained": "measure", "measure_unlearned": "measure", "export_request": "export"}
    for rule in ran:
        assert re.search(rf"\b(rule|group)_{grouped.get(rule, rule)}", there), (rule, there)


def no_more_gpu_jobs_than_gpus(jobs: list[Mapping[str, str]]) -> None:
    spans = []
    for job in jobs:
        with_gpu = "gpu" in job.get("TresPerJob", "") + job.get("TresPerNode", "")
        rule = job["Comment"].removeprefix("rule_")
        assert with_gpu == rule.startswith(GPU_RULES), job
        if with_gpu and job["StartTime"] != "Unknown":
            spans.append((datetime.fromisoformat(job["StartTime"]), datetime.fromisoformat(job["EndTime"])))
    assert len(spans) >= 8
    for start, _ in spans:
        assert sum(a <= start < b for a, b in spans) <= GPUS


def command(folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(ROOT / "profiles/slurm"), "--configfile", str(folder / "config.yaml"),
        # this cluster has one partition, no accounting daemon, and answers at once
        "--default-resources", "slurm_partition=main", "mem_mb=500 * attempt",
        "runtime=10 * attempt",
        "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "10",
    ]  # fmt: skip


def start(slurm: Slurm, folder: Path, request: pytest.FixtureRequest) -> subprocess.Popen[bytes]:
    """Start Snakemake; it ends with the test at the latest."""
    environment = {
        **slurm.environment,
        "PATH": f"{slurm.folder / 'bin'}:{Path(sys.executable).parent}:{slurm.environment['PATH']}",
    }
    with (folder / "snakemake.log").open("ab") as log:
        workflow = subprocess.Popen(command(folder), env=environment, stdout=log, stderr=subprocess.STDOUT)

    def end() -> None:
        workflow.kill()
        workflow.wait()

    request.addfinalizer(end)
    return workflow


def wait_for(path: Path, workflow: subprocess.Popen[bytes]) -> Path:
    def there() -> bool:
        assert workflow.poll() is None or path.exists(), f"the workflow ended without {path.name}"
        return path.exists()

    within(150, there, f"no {path.name}")
    return path


def within(seconds: float, look: Callable[[], T], otherwise: str) -> T:
    """Return what ``look`` finds as soon as it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)
    return found


def training_on(sidecar: Path) -> int:
    """Return the process that trains the model whose sidecar this is."""
    folder = str(sidecar.parents[5])
    for process in psutil.process_iter(["cmdline", "cwd", "name"]):
        words = " ".join(process.info["cmdline"] or [])
        if "train_model.py" in words and process.info["cwd"] == folder and process.info["name"].startswith("python"):
            with_log = [file for file in process.open_files() if "train_retrain" in file.path]
            if with_log:
                return int(process.pid)
    raise AssertionError("nothing trains")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
