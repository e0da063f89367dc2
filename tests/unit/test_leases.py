"""Leases of GPUs: one job each, ended by the end of its process. The GPUs are names only."""

import gc
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oneshui import leases
from oneshui.errors import ConfigError
from oneshui.leases import lease_gpu, visible_gpus

HOLD = """
import sys, time
from oneshui.leases import lease_gpu
print(lease_gpu(1, jobs_per_gpu=int(sys.argv[2]), folder=sys.argv[1], poll_s=0.01), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process leases, and what it then sees, ends with the test (its locks, in the test's folder, stay)."""
    monkeypatch.setattr(leases, "_leased", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@contextmanager
def job(folder: Path, gpus: str, jobs_per_gpu: int = 1, script: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """A process that leases a GPU, says which, and holds it until it is told something."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(jobs_per_gpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": gpus},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_every_job_gets_a_gpu_of_its_own(tmp_path: Path) -> None:
    with job(tmp_path, "a,b,c") as first, job(tmp_path, "a,b,c") as second, job(tmp_path, "a,b,c") as third:
        assert {said(first), said(second), said(third)} == {"a", "b", "c"}


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_gpu_is_free_again_when_its_job_ends(tmp_path: Path, end: str) -> None:
    with job(tmp_path, "a,b") as first, job(tmp_path, "a,b") as second:
        gpus = {said(first), said(second)}
        with job(tmp_path, "a,b") as third:
            time.sleep(1.0)
            assert gpus == {"a", "b"} and third.poll() is None
            if end == "kill":
                os.kill(second.pid, signal.SIGKILL)
            else:
                answer(second)
            second.wait()
            left = said(third)
            assert left in gpus
            assert first.poll() is None


def test_shared_gpus_are_filled_evenly(tmp_path: Path) -> None:
    with job(tmp_path, "a,b", 2) as first, job(tmp_path, "a,b", 2) as second:
        assert {said(first), said(second)} == {"a", "b"}
        with job(tmp_path, "a,b", 2) as third, job(tmp_path, "a,b", 2) as fourth:
            assert {said(third), said(fourth)} == {"a", "b"}


def test_never_more_jobs_on_a_gpu_than_places(tmp_path: Path) -> None:
    """Twelve jobs on two GPUs, each noting when it had which."""
    work = HOLD.replace("sys.stdin.readline()", "a = time.monotonic(); time.sleep(0.1); print(a, time.monotonic())")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "a,b"}
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", work, str(tmp_path), "1"], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(12)
    ]
    spans: list[tuple[str, float, float]] = []
    for each in jobs:
        gpu, times = each.communicate(timeout=60)[0].splitlines()
        start, end = map(float, times.split())
        spans.append((gpu, start, end))
    assert set(Counter(gpu for gpu, _, _ in spans)) == {"a", "b"}
    for gpu in ("a", "b"):
        own = sorted((start, end) for name, start, end in spans if name == gpu)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(own))


def test_a_lease_is_for_the_life_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-x,GPU-y")
    assert lease_gpu(1, folder=tmp_path) == "GPU-x"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-x"  # children see no other
    gc.collect()
    assert lease_gpu(1, folder=tmp_path) == "GPU-x"  # does not wait for itself
    with job(tmp_path, "GPU-x,GPU-y") as other:
        assert said(other) == "GPU-y"


def test_a_lease_outlives_the_end_of_the_script(tmp_path: Path) -> None:
    """Python takes its modules apart before the process ends and CUDA gives its memory back."""
    late = """
apart = {}  # from the script, which would otherwise live as long
exec('''import os
class Late:
    def __del__(self, write=os.write, read=os.read):
        write(1, b"late\\\\n")
        read(0, 1)
''', apart)
sys.late = apart["Late"]()  # one of the last things to go
"""
    with job(tmp_path, "a", script=HOLD + late) as ending:
        assert said(ending) == "a"
        with job(tmp_path, "a") as waiting:
            answer(ending)
            assert said(ending) == "late"
            assert waiting.stdout is not None
            assert not select.select([waiting.stdout], [], [], 1.0)[0]
            answer(ending)
            assert said(waiting) == "a"


@pytest.mark.parametrize(
    ("listed", "names"), [("0,1", ["0", "1"]), ("", []), ("2,-1,3", ["2"]), (" GPU-a , GPU-b ", ["GPU-a", "GPU-b"])]
)
def test_what_is_visible(monkeypatch: pytest.MonkeyPatch, listed: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == names


def test_the_driver_says_what_is_visible_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    driver(tmp_path, "GPU-1, NVIDIA H100", "GPU-2, NVIDIA H100")
    assert visible_gpus() == ["GPU-1", "GPU-2"]
    assert lease_gpu(1, folder=tmp_path / "locks") == "GPU-1"


def driver(folder: Path, *lines: str) -> None:
    """Put a tool in place of the driver's that lists these GPUs."""
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    tool.chmod(0o755)


def test_a_gpu_is_told_by_its_unique_name_whatever_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job in a cgroup of its own sees its GPU as number 0, and must not wait for another job's number 0."""
    monkeypatch.setenv("PATH", str(tmp_path))
    driver(tmp_path, "GPU-1, NVIDIA H100")
    with job(tmp_path, "0") as first:
        assert said(first) == "GPU-1"
        driver(tmp_path, "GPU-2, NVIDIA H100")
        with job(tmp_path, "0") as second:
            assert said(second) == "GPU-2"


@pytest.mark.parametrize(
    ("order", "listed", "names"),
    [
        ("", None, ["0", "1"]),
        ("", "1", ["1"]),
        ("", "GPU-2", ["GPU-2b"]),
        ("PCI_BUS_ID", None, ["GPU-1a", "GPU-2b"]),
        ("PCI_BUS_ID", "1", ["GPU-2b"]),
    ],
)
def test_numbers_of_unlike_gpus_are_cudas(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, order: str, listed: str | None, names: list[str]
) -> None:
    """The driver's number 1 need not be CUDA's, which counts the fastest first unless told otherwise."""
    monkeypatch.setenv("PATH", str(tmp_path))
    driver(tmp_path, "GPU-1a, NVIDIA T400", "GPU-2b, NVIDIA RTX 4090")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    if listed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == names


def test_a_prefix_of_a_unique_name_is_that_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in CUDA; otherwise a job that was given the prefix would not see the lock of one that was given the name."""
    monkeypatch.setenv("PATH", str(tmp_path))
    driver(tmp_path, "GPU-1a, NVIDIA H100", "GPU-2b, NVIDIA H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2,GPU-,GPU-1a")
    assert visible_gpus() == ["GPU-2b", "GPU-", "GPU-1a"]


def test_a_folder_of_somebody_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"no lock can be kept in .*file"):
        lease_gpu(1, folder=tmp_path / "file/in")


def test_without_a_gpu_nothing_is_leased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "a")
    assert lease_gpu(0, folder=tmp_path / "locks") is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "a"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert lease_gpu(1, folder=tmp_path / "locks") is None
    assert not (tmp_path / "locks").exists()


@pytest.mark.parametrize(
    ("gpus", "jobs_per_gpu", "message"), [(2, 1, "gpu=2, allowed: 0 or 1"), (1, 0, "jobs_per_gpu is 0")]
)
def test_impossible_wishes(tmp_path: Path, gpus: int, jobs_per_gpu: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lease_gpu(gpus, jobs_per_gpu=jobs_per_gpu, folder=tmp_path)
