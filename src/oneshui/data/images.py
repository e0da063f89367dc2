"""Opening packed images."""

from pathlib import Path

import torch
from torch import Tensor

from oneshui.data.store import open_store
from oneshui.log import logger

#: part of the free GPU memory that the decoded dataset may take; the rest is for the model and its activations
_DEVICE_SHARE = 0.6


def open_pixels(path: str | Path, device: torch.device) -> Tensor:
    """Return images.npy as a uint8 tensor (N, 3, H, W): on the GPU if it fits, memory-mapped otherwise.

    Raises:
        DataError: the file is missing or holds something else.
    """
    array = open_store(Path(path))
    pixels = torch.from_numpy(array)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if array.nbytes <= _DEVICE_SHARE * free:
            return pixels.to(device)
        logger.info("%s (%.1f GB) stays on disk: the GPU has %.1f GB free", path, array.nbytes / 1e9, free / 1e9)
    return pixels
