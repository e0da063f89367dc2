"""Opening packed images."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneshui.errors import DataError
from oneshui.log import logger

#: part of the free GPU memory that the decoded dataset may take; the rest is for the model and its activations
_DEVICE_SHARE = 0.6


def open_pixels(path: str | Path, device: torch.device) -> Tensor:
    """Return images.npy as a uint8 tensor (N, 3, H, W): on the GPU if it fits, memory-mapped otherwise.

    Raises:
        DataError: the file is missing or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # copy-on-write: torch wants writable memory
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is not a readable image store ({error}). Delete it to pack the images again."
        ) from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] != 3:
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}, expected uint8 (N, 3, H, W). Delete it to pack again."
        )
    pixels = torch.from_numpy(array)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if array.nbytes <= _DEVICE_SHARE * free:
            return pixels.to(device)
        logger.info("%s (%.1f GB) stays on disk: the GPU has %.1f GB free", path, array.nbytes / 1e9, free / 1e9)
    return pixels
