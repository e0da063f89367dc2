"""What a store of packed images says of itself: which pictures it was packed from.

The note stands behind the array in the same file, where readers of .npy files do not look, so that the two are
written, moved and replaced together. Stores of earlier versions have none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from oneshui.errors import DataError
from oneshui.files import parse_json, require_regular, wrong_entry

_MARK = b"oneshui store"
_LENGTH = 8  # bytes of the number in front of the mark
_LONGEST = 4096  # bytes of a note
_ENTRIES = {"pictures": "text or null", "turned_or_transparent": "a whole number >= 0"}


def open_store(path: Path) -> npt.NDArray[np.uint8]:
    """Return the packed images in ``path``, (N, 3, H, W), mapped to memory; writing to them leaves the file alone.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        require_regular(path)
        # unlike np.load this reads no other kind of file; numpy compares the shape with the size of the file
        array = np.lib.format.open_memmap(path, mode="c")
    except Exception as error:  # numpy's parser of headers raises many types on damaged files
        raise _unreadable(path, error) from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] != 3 or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else " in Fortran order"
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}{order}, expected uint8 (N, 3, H, W). Delete it to pack again."
        )
    return array


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable image store ({error!s:.200}). Delete it to pack the images again.")


def append_note(path: Path, note: Mapping[str, Any]) -> None:
    """Write ``note`` behind the array in ``path``, a complete .npy file."""
    text = json.dumps(note, sort_keys=True).encode()
    with open(path, "ab") as file:
        file.write(text + len(text).to_bytes(_LENGTH, "little") + _MARK)


def read_note(path: Path) -> dict[str, Any]:
    """Return what the store at ``path`` says of itself; nothing for one of an earlier version.

    Raises:
        DataError: the file cannot be read, or its note is damaged.
    """
    tail = _LENGTH + len(_MARK)
    try:
        require_regular(path)
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - tail))
            end = file.read()
            if not end.endswith(_MARK):
                return {}
            length = int.from_bytes(end[:_LENGTH], "little")
            if length > min(size - tail, _LONGEST):
                raise ValueError("the length of its note is wrong")
            file.seek(size - tail - length)
            note = parse_json(file.read(length))
        wrong = wrong_entry(note, _ENTRIES)
        if wrong:
            raise ValueError(f"its note has {wrong}")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return dict(note)


def naming(pictures: str | None) -> dict[str, str]:
    """Return the entry of a header that names the pictures something was made from; none where nobody knows."""
    return {"pictures": pictures} if pictures else {}


def check_store(path: Path, index_path: Path, index_meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the note of a store that was packed from the pictures of an index.

    Both are of an earlier version, or both name the same pictures; an old one beside a new one was left over when the
    other was made again.

    Raises:
        DataError: it was packed from other pictures.
    """
    note = read_note(path)
    if note.get("pictures") != index_meta.get("pictures"):
        raise DataError(
            f"{path} was packed from other pictures than {index_path} lists (one of them was made again, or moved "
            f"here). Delete {path.name} to pack the images again."
        )
    return note
