"""One GPU for each job where several are visible: a job leases a free one by a lock file until its process dies.

Where a scheduler gives each job GPUs of its own (Slurm, Kubernetes), the job leases among these: GPUs are told apart by
the driver's unique names, since a job may see its only one as number 0 whichever it is.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from oneshui.errors import ConfigError
from oneshui.folders import lock
from oneshui.log import logger

_VISIBLE = "CUDA_VISIBLE_DEVICES"
#: this process's number and GPU once it has one; a forked child, whose number differs, asks for its own
_leased: tuple[int, str] | None = None


def lease_gpu(gpus: int, *, jobs_per_gpu: int = 1, folder: str | Path | None = None, poll_s: float = 0.2) -> str | None:
    """Make one GPU visible to this process and its children, and keep others from it for as long as the process lives.

    Waits while all are taken by processes of the same user. Must come before CUDA is first used. There is no giving
    back: a process that has used a GPU holds memory there until it dies. The locks are ``flock``s, which the kernel
    releases then, however it dies. A second call returns the same GPU.

    Args:
        gpus: that the job was given, 0 or 1; with 0 nothing happens.
        jobs_per_gpu: how many jobs may share one GPU, at least 1.
        folder: of the lock files; None: one of this user's in the system's folder for temporary files. Jobs that share
            GPUs must share it.
        poll_s: seconds between two looks, above 0.

    Returns:
        The GPU's name as in CUDA_VISIBLE_DEVICES, or None where none was asked for or none is visible.

    Raises:
        ConfigError: more than one GPU is asked for, ``jobs_per_gpu`` is below 1, or there can be no locks.
    """
    global _leased
    if gpus not in (0, 1):
        raise ConfigError(f"a job computes on one GPU, but was given gpu={gpus}, allowed: 0 or 1")
    if jobs_per_gpu < 1:
        raise ConfigError(f"jobs_per_gpu is {jobs_per_gpu}, allowed: 1 or more")
    if not gpus:
        return None
    if _leased and _leased[0] == os.getpid():
        return _leased[1]
    visible = visible_gpus()
    if not visible:
        return None
    gpu = _first_free(visible, jobs_per_gpu, Path(folder or _own_folder()), poll_s)
    os.environ[_VISIBLE] = gpu
    _leased = os.getpid(), gpu
    return gpu


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that CUDA would show to this process, without loading CUDA.

    They are the driver's unique names where it is certain which GPU a number means. CUDA counts the fastest first, the
    driver by place on the bus: the same for GPUs of one model, or with CUDA_DEVICE_ORDER=PCI_BUS_ID. Other numbers stay
    numbers, which CUDA understands.
    """
    gpus = _driver_gpus()
    unlike = len({model for _, model in gpus}) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
    by_number = {str(number): str(number) if unlike else name for number, (name, _) in enumerate(gpus)}
    listed = os.environ.get(_VISIBLE)
    if listed is None:
        return list(by_number.values())
    names: list[str] = []
    for name in filter(None, map(str.strip, listed.split(","))):
        if name.startswith("-") or name == "NoDevFiles":  # CUDA looks no further; Slurm shows none
            break
        whole = [unique for unique, _ in gpus if unique.startswith(name)]
        names.append(whole[0] if len(whole) == 1 else by_number.get(name, name))
    return names


def _driver_gpus() -> list[tuple[str, str]]:
    """Unique name and model of the GPUs that the driver shows to this process, by place on the bus."""
    try:
        query = ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    pairs = (line.partition(",") for line in done.stdout.splitlines() if "," in line)
    return [(unique.strip(), model.strip()) for unique, _, model in pairs]


def _own_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"oneshui-gpus-{os.getuid()}"


def _first_free(gpus: Sequence[str], jobs_per_gpu: int, folder: Path, poll_s: float) -> str:
    """Wait for a place: the first on every GPU before the second on any."""
    told = False
    while True:
        for place in range(jobs_per_gpu):
            for gpu in gpus:
                if _lock(folder / f"{sha256(gpu.encode()).hexdigest()[:16]}.{place}.lock"):
                    logger.info("on GPU %s, place %d of %d", gpu, place + 1, jobs_per_gpu)
                    return gpu
        if not told:
            logger.info(
                "all %d places on %d GPUs are taken (locks in %s); waiting", jobs_per_gpu * len(gpus), len(gpus), folder
            )
            told = True
        time.sleep(poll_s)


def _lock(path: Path) -> bool:
    """Lock a file until this process dies, or say that another has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock(path) is not None  # never closed
    except OSError as error:
        raise ConfigError(
            f"no lock can be kept in {path.parent} ({error}). Set TMPDIR to a local folder of yours."
        ) from error
