"""Which device a job runs on."""

import ctypes
import os
import sys

import torch

from oneshui.log import logger


def choose_device(*, gpus: int, threads: int) -> torch.device:
    """Return CUDA if the job was given a GPU and there is one, else the CPU with ``threads`` threads.

    The number of threads is part of what makes a CPU run reproducible bit for bit, so it is always set.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if gpus > 0 and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        return torch.device("cuda")
    if gpus > 0 and os.environ.get("CUDA_VISIBLE_DEVICES") not in (None, ""):
        logger.warning("the job was given a GPU but torch sees none; it runs on the CPU")
    return torch.device("cpu")


def _keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: a training step would otherwise fault its memory in anew every time."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
