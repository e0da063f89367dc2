"""Decode every image once, into one memory-mapped array of a single size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from oneshui.errors import DataError
from oneshui.files import atomic_path

#: modes of Pillow that a conversion to RGB clips to white or black
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def decode(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return one image as (3, height, width) uint8 RGB, resized with antialiasing if its size differs.

    The aspect ratio is not kept: the paper, too, squashes images to the network's input. Pictures are taken as they are
    stored, whatever a camera noted of their orientation.

    Raises:
        DataError: the file is missing, cannot be decoded, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode in _DEEP:
                raise DataError(
                    f"{path} has more than 8 bits a channel ({image.mode}). Save it as a JPEG or 8-bit PNG."
                )
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be decoded ({error}). Replace the file, or remove its annotation row."
        ) from error
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1)


def pack_images(folder: Path, paths: Sequence[str], output: Path, *, height: int, width: int, n_threads: int) -> None:
    """Write the images at ``paths`` as uint8 (N, 3, height, width) to ``output`` (.npy), in the given order.

    Args:
        folder: raw folder that ``paths`` are relative to.
        paths: one per image.
        output: .npy file, written atomically.
        height: stored height, px.
        width: stored width, px.
        n_threads: decoding threads; PIL releases the interpreter's lock.

    Raises:
        DataError: an image is missing or cannot be decoded.
    """
    with atomic_path(output) as temporary:
        shape = (len(paths), 3, height, width)
        store = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def put(row: int) -> None:
            store[row] = decode(folder / paths[row], height, width)

        with ThreadPoolExecutor(n_threads) as pool:
            for _ in tqdm(pool.map(put, range(len(paths))), total=len(paths), desc="packing images", disable=None):
                pass
        store.flush()
