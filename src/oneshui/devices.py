"""Which device a job runs on, and what it costs there."""

import contextlib
import ctypes
import os
import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from oneshui.errors import ConfigError


def choose_device(*, gpus: int, threads: int) -> torch.device:
    """Return CUDA if the job was given a GPU and there is one, else the CPU with ``threads`` threads.

    The number of threads is part of what makes a CPU run reproducible bit for bit, so it is always set.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if gpus > 0 and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        return torch.device("cuda")
    if gpus > 0 and _gpus_are_shown():
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = "" if listed is None else f" (CUDA_VISIBLE_DEVICES is {listed})"
        raise ConfigError(
            f"the job was given a GPU{shown}, but torch sees none. Is the driver loaded (nvidia-modprobe -u -c 0, as "
            "root) and torch a CUDA build? Without a GPU: device: cpu in the config, or CUDA_VISIBLE_DEVICES empty."
        )
    return torch.device("cpu")


def _gpus_are_shown() -> bool:
    """Tell whether a GPU should be there: schedulers hide all of them by nothing, -1 or NoDevFiles (Slurm)."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return Path("/dev/nvidiactl").exists()
    first = listed.partition(",")[0].strip()
    return not (first.startswith("-") or first in ("", "NoDevFiles"))


def _keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: a training step would otherwise fault its memory in anew every time."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


class Cost:
    """Wall time and peak memory of a ``with`` block.

    Attributes:
        seconds: wall time.
        peak_mb: most memory held during the block beyond what was held before it, MB: of the GPU's allocator, or of
            the process without the pages of memory-mapped files that it looked at, which are data. (On other systems
            than Linux the process's peak cannot be reset, and an earlier one hides it.)
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = self.peak_mb = float("nan")

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _give_back_freed_memory()
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self._held, self._mapped = _peak_mb(self._device), _mapped_mb(self._device)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds = time.perf_counter() - self._start
        mapped = max(0.0, _mapped_mb(self._device) - self._mapped)
        self.peak_mb = max(0.0, _peak_mb(self._device) - mapped - self._held)

    def metadata(self) -> dict[str, float]:
        """Return both by name."""
        return {"seconds": self.seconds, "peak_mb": self.peak_mb}


def _give_back_freed_memory() -> None:
    """Let go of what ``_keep_freed_memory`` kept, so that it does not count as held before."""
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # type: ignore[union-attr]


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


def _mapped_mb(device: torch.device) -> float:
    """Pages of files in memory: libraries, and what is memory-mapped."""
    return _status_mb("RssFile") if device.type == "cpu" and Path("/proc/self/status").exists() else 0.0


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if Path("/proc/self/status").exists():
        return _status_mb("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
