"""What a store of packed images says of itself: which pictures it was packed from.

The note stands behind the array in the same file, where readers of .npy files do not look, so that the two are
written, moved and replaced together. Stores of earlier versions have none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneshui.errors import DataError

_MARK = b"oneshui store"
_LENGTH = 8  # bytes of the number in front of the mark


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
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - tail))
            end = file.read()
            if not end.endswith(_MARK):
                return {}
            length = int.from_bytes(end[:_LENGTH], "little")
            if length > size - tail:
                raise ValueError("its length is wrong")
            file.seek(size - tail - length)
            note = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable image store ({error}). Delete it to pack the images again.") from (
            error
        )
    return dict(note) if isinstance(note, dict) else {}


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
