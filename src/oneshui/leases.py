"""One GPU for each job where several are visible: a job leases a free one by a lock file, which ends with its process.

Where a scheduler gives each job GPUs of its own (Slurm, Kubernetes), the job leases among these: GPUs are told apart by
the driver's unique names, since a job may see its only one as number 0 whichever it is.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from oneshui.errors import ConfigError
from oneshui.log import logger

_VISIBLE = "CUDA_VISIBLE_DEVICES"
#: tells a nested lease that this process holds one; a child, whose number differs, asks for its own
_HELD = "ONESHUI_LEASE_OF"


@contextmanager
def leased_gpu(
    gpus: int, *, jobs_per_gpu: int = 1, folder: str | Path | None = None, poll_s: float = 0.2
) -> Iterator[str | None]:
    """Make one GPU visible to this process and its children, and keep others from it until the block ends.

    Waits while all are taken by processes of the same user. Must come before CUDA is first used. The locks are
    ``flock``s: the kernel releases them when the process dies, however it dies. A lease within a lease is the same.

    Args:
        gpus: that the job was given, 0 or 1; with 0 nothing happens.
        jobs_per_gpu: how many jobs may share one GPU, at least 1.
        folder: of the lock files; None: one of this user's in the system's folder for temporary files. Jobs that share
            GPUs must share it.
        poll_s: seconds between two looks, above 0.

    Yields:
        The GPU's name as in CUDA_VISIBLE_DEVICES, or None where none was asked for or none is visible.

    Raises:
        ConfigError: more than one GPU is asked for, ``jobs_per_gpu`` is below 1, or there can be no locks.
    """
    if gpus not in (0, 1):
        raise ConfigError(f"a job computes on one GPU, but was given gpu={gpus}, allowed: 0 or 1")
    if jobs_per_gpu < 1:
        raise ConfigError(f"jobs_per_gpu is {jobs_per_gpu}, allowed: 1 or more")
    visible = visible_gpus() if gpus else []
    if not visible:
        yield None
        return
    if os.environ.get(_HELD) == str(os.getpid()):
        yield os.environ[_VISIBLE]  # this process has its GPU
        return
    gpu, lock = _first_free(visible, jobs_per_gpu, Path(folder or _own_folder()), poll_s)
    before = os.environ.get(_VISIBLE)
    os.environ |= {_VISIBLE: gpu, _HELD: str(os.getpid())}
    try:
        yield gpu
    finally:
        del os.environ[_HELD]
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before
        lock.release()


def visible_gpus() -> list[str]:
    """Return the unique names of the GPUs that CUDA would show to this process, without loading CUDA.

    Numbers in CUDA_VISIBLE_DEVICES that the driver cannot name stay numbers.
    """
    unique = _unique_names()
    listed = os.environ.get(_VISIBLE)
    if listed is None:
        return list(unique.values())
    names: list[str] = []
    for name in filter(None, map(str.strip, listed.split(","))):
        if name.startswith("-"):  # CUDA looks no further
            break
        names.append(unique.get(name, name))
    return names


def _unique_names() -> dict[str, str]:
    """Number -> unique name, of the GPUs that the driver shows to this process."""
    try:
        query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    pairs = (line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1)
    return {number.strip(): name.strip() for number, name in pairs}


def _own_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"oneshui-gpus-{os.getuid() if hasattr(os, 'getuid') else 0}"


def _first_free(gpus: Sequence[str], jobs_per_gpu: int, folder: Path, poll_s: float) -> tuple[str, FileLock]:
    """Wait for a place: the first on every GPU before the second on any."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"no locks can be kept in {folder} ({error}). Set TMPDIR to a folder of yours.") from error
    told = False
    while True:
        for place in range(jobs_per_gpu):
            for gpu in gpus:
                name = sha256(gpu.encode()).hexdigest()[:16]
                lock = FileLock(folder / f"{name}.{place}.lock", timeout=0)
                try:
                    lock.acquire()
                except Timeout:
                    continue
                except OSError as error:
                    raise ConfigError(f"no lock can be had in {folder} ({error}). Set TMPDIR to your own.") from error
                logger.info("on GPU %s, place %d of %d", gpu, place + 1, jobs_per_gpu)
                return gpu, lock
        if not told:
            logger.info(
                "all %d places on %d GPUs are taken (locks in %s); waiting", jobs_per_gpu * len(gpus), len(gpus), folder
            )
            told = True
        time.sleep(poll_s)
