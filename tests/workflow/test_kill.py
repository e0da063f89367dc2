"""Nothing is lost: killed jobs, a killed Snakemake, full disks. A person gives the same command again."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.workflow.conftest import Run, command, logs_of, tensor_hashes, toy_config, toy_with, write_config
from tests.workflow.kill_campaign import left_over, run_campaign, working_in
from tests.workflow.same_results import differences

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")]


def test_jobs_of_every_kind_are_killed_and_the_end_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    """No finished job again, the same results, nothing left: ``run_campaign`` checks it."""
    campaign = run_campaign(tmp_path, kills=30, seed=0)
    assert len(campaign.killed) >= 25


def wait_until(there: Callable[[], object], workflow: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while not there():
        assert workflow.poll() is None and time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)


def training_of(workflow: "subprocess.Popen[bytes]") -> list[int]:
    children = psutil.Process(workflow.pid).children(recursive=True)
    return [p.pid for p in children if "train_model.py" in " ".join(p.cmdline()) and "bash" not in p.name()]


def test_training_outlives_its_snakemake_and_is_not_lost_and_every_time_is_said_what_to_do(
    snakemake: Run, tmp_path: Path
) -> None:
    config = toy_config()
    config["training"]["toy"]["epochs"] = 40
    target = "results/models/toy/seed0/pretrain.safetensors"
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
        write_config(folder, config)
    snakemake("--configfile", str(straight / "config.yaml"), "--", target, folder=straight)

    arguments = ("--configfile", str(killed / "config.yaml"), "--", target)
    first = subprocess.Popen(command(killed, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until((killed / f"{target}.resume").exists, first)
        training = training_of(first)
        for pid in training:
            os.kill(pid, signal.SIGSTOP)  # so that it does not end meanwhile
        said = snakemake(*arguments, folder=killed, fails=True).stdout
        assert f"Another Snakemake works on the same files in {killed}. Wait until it has ended." in said
        assert "--unlock" not in said and "Traceback" not in said
        assert "Snakemake works" not in snakemake("--dry-run", *arguments, folder=killed).stdout

        first.kill()  # Snakemake alone
        first.wait()
        said = snakemake(*arguments, folder=killed, fails=True).stdout
        assert "was killed, and jobs that it had started still run. Wait until they have ended, or end them." in said

        for pid in training:
            os.kill(pid, signal.SIGCONT)  # it ends well, and nobody notes that: Snakemake has its output made again
        while working_in(killed):
            time.sleep(0.05)
    finally:
        first.kill()
    said = snakemake(*arguments, folder=killed, fails=True).stdout
    told = re.search(r"^The Snakemake that worked in .* was killed\. Take the lock away .* stays\. (.+)$", said, re.M)
    assert told and (killed / target).exists()
    subprocess.run([sys.executable, "-m", *shlex.split(told[1])], check=True, capture_output=True)
    snakemake(*arguments, folder=killed)
    log = (killed / "results/logs/train_pretrain/toy/seed0.log").read_text()
    assert "resuming after epoch" in log
    assert tensor_hashes(killed / target) == tensor_hashes(straight / target)
    assert not left_over(killed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_ends_with_one_message_and_nothing_is_lost_once_there_is_room(
    snakemake: Run, tmp_path: Path
) -> None:
    config = {**toy_with("jit"), "keep_unlearned": True}
    target = "results/unlearned/toy/n3/seed0/pretrain/jit.safetensors"
    straight, small = tmp_path / "straight", tmp_path / "small"
    for folder in (straight, small):
        folder.mkdir()
    arguments, disk = ("--configfile", str(write_config(straight, config)), "--", target), small / "results"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        snakemake(*arguments, folder=straight)
        # too little for the raw images, for the packed ones, for a model, for the unlearned one
        used = 4096 * sum(
            -(-path.stat().st_size // 4096) for path in (straight / "results").rglob("*") if path.is_file()
        )
        for room in (100_000, 700_000, 900_000, used - 100_000):
            subprocess.run(["mount", "-o", f"remount,size={room // 1024}k", str(disk)], check=True)
            said = snakemake(*arguments, folder=small, fails=True).stdout
            told = [line for line in said.splitlines() if re.search(r"no room left to write in|\.npy needs", line)]
            assert told and all("Free some space" in line for line in told), said[-3000:]
            assert "Traceback" not in said and not left_over(small)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        snakemake(*arguments, folder=small)
        finished = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", "\n".join(logs_of(small)), re.M)
        assert len(finished) == len(set(finished)) == 7, finished  # each job ended well once
        assert not differences(small, straight)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
