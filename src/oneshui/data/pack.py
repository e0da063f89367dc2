"""Decode every image once, into one memory-mapped array of a single size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from oneshui.data.pictures import SHOWN_OTHERWISE, Picture, quiet, read_picture
from oneshui.data.probe import content_of
from oneshui.data.store import append_note
from oneshui.errors import DataError
from oneshui.files import atomic_path, read_regular, reserve


def decode(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return one image as (3, height, width) uint8 RGB, resized with antialiasing if its size differs.

    The picture is the one that a viewer shows (``oneshui.data.pictures``). The aspect ratio is not kept: the paper,
    too, squashes images to the network's input.

    Raises:
        DataError: the file is missing, cannot be decoded, or cannot be shown rightly.
    """
    with quiet():
        return _squash(_read(path)[1], height, width)


def _read(path: Path) -> tuple[bytes, Picture]:
    """Return the bytes of a file and the picture in it; the message names the file."""
    try:
        data = read_regular(path)
        return data, read_picture(data)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    except DataError as error:
        raise DataError(f"{path} cannot be decoded ({error}).") from error


def _squash(picture: Picture, height: int, width: int) -> npt.NDArray[np.uint8]:
    rgb = picture.image
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1)


def pack_images(
    folder: Path, paths: Sequence[str], output: Path, *, height: int, width: int, n_threads: int,
    content: npt.NDArray[np.uint64] | None = None, pictures: str | None = None,
) -> None:  # fmt: skip
    """Write the images at ``paths`` as uint8 (N, 3, height, width) to ``output`` (.npy), in the given order.

    Args:
        folder: raw folder that ``paths`` are relative to.
        paths: one per image.
        output: .npy file, written atomically.
        height: stored height, px.
        width: stored width, px.
        n_threads: decoding threads; PIL releases the interpreter's lock.
        content: what the files held when they were indexed (``probe.content_of``), one per path; None: nobody knows.
        pictures: name of what all of them held, for the note at the end of the store (``oneshui.data.store``).

    Raises:
        DataError: an image is missing, cannot be decoded, or is not the one that was indexed; or the disk is full.
    """
    with atomic_path(output) as temporary:
        shape = (len(paths), 3, height, width)
        store = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        reserve(temporary, temporary.stat().st_size, output)

        def put(row: int) -> bool:
            try:
                data, picture = _read(folder / paths[row])
            except DataError as error:
                raise DataError(f"{error} Replace the file, or remove its annotation row.") from error
            if content is not None and content_of(data) != content[row]:
                raise DataError(
                    f"{folder / paths[row]} is not the file that was indexed: its bytes have changed since. Delete "
                    f"{output.parent} to index and pack all images again, or restore the file."
                )
            store[row] = _squash(picture, height, width)
            return bool(picture.kind & SHOWN_OTHERWISE)

        otherwise = 0
        with quiet(), ThreadPoolExecutor(n_threads) as pool:
            rows = tqdm(pool.map(put, range(len(paths))), total=len(paths), desc="packing images", disable=None)
            for differs in rows:
                otherwise += differs
        store.flush()
        append_note(temporary, {"pictures": pictures, "turned_or_transparent": otherwise})
