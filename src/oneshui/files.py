"""Files that are old, new or absent, never torn; and the hashes that say what is in them."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oneshui.errors import DataError, OneShuiError

#: the one entry in the metadata of our safetensors files
HEADER_KEY = "oneshui"

_MORE_ROOM = "Free some space, or write the results elsewhere: snakemake --directory FOLDER."


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place once the block has ended well.

    The temporary file is flushed to disk before the rename, so that a crash at any moment leaves either the old
    file or the new one. If the block raises, the temporary file is removed and ``path`` is left as it was.

    Raises:
        DataError: the disk, or the user's share of it, is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; results are shared like any other output
        os.replace(temporary, path)
        _flush(path.parent)
    except Exception as error:
        if isinstance(error, OneShuiError) or not _is_full(error):
            raise
        written = temporary.stat().st_size if temporary.exists() else 0
        raise DataError(
            f"{path} cannot be written: the disk is full, or your share of it. {_mb(written)} were written, "
            f"{path.parent} has room for {_mb(shutil.disk_usage(path.parent).free)}. {_MORE_ROOM}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def reserve(path: Path, size: int, name: str | Path) -> None:
    """Take the room of a file on the disk before it is written: a memory-mapped file cannot say that the disk is full.

    Args:
        path: the file that is being written.
        size: bytes that it will have.
        name: what it will be called, for the message.

    Raises:
        DataError: the disk, or the user's share of it, has less room.
    """
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if not _is_full(error):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DataError(
            f"{name} needs {_mb(size)}, but {path.parent} has room for {_mb(free)}, or less by a quota "
            f"({error.strerror}). {_MORE_ROOM}"
        ) from error


def _is_full(error: Exception) -> bool:
    """Tell whether an error says that there is no room; libraries in other languages say it in words alone."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def _mb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(paths: Sequence[str | Path], digest: Callable[[str | Path], str] | None = None) -> str:
    """Return 16 hex digits that name what some files hold, by their names and in their order.

    Args:
        paths: of the files.
        digest: in place of ``sha256_file``, for one that remembers.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        found = [[Path(path).name, (digest or sha256_file)(path)] for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from error
    return spec_hash(found)


def spec_hash(spec: Any) -> str:
    """Return 16 hex digits that name a JSON-like value, whatever the order of its keys."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stored_px_of(header: Mapping[str, Any]) -> list[int] | None:
    """Return height and width of a model's training images, by its header; an unlearned one remembers them."""
    trained = header.get("spec", {}).get("dataset", {})
    known: list[int] | None = header.get("stored_px") or trained.get("stored_px")
    return known


def unreadable(path: str | Path, error: Exception) -> DataError:
    """Return the error for a safetensors file that cannot be read: perhaps the only copy of somebody's model."""
    if not Path(path).exists():
        return DataError(f"{path} is not there. Name another file.")
    return DataError(
        f"{path} is not a readable safetensors file ({error}): it is of another kind, or was cut short. Name another "
        "file. One that the workflow made is made again once it is moved away."
    )


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the JSON header of one of our safetensors files, without loading tensors (or torch).

    Raises:
        DataError: the file is missing, damaged, or was not written by oneshui.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("header length out of range")
            metadata = json.loads(file.read(length)).get("__metadata__", {})
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if HEADER_KEY not in metadata:
        raise DataError(f"{path} has no header of ours: it was not written by oneshui. Name another file.")
    header: dict[str, Any] = json.loads(metadata[HEADER_KEY])
    return header
