"""Files that are old, new or absent, never torn; and the hashes that say what is in them."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from oneshui.errors import DataError
from oneshui.folders import full_disk, own_folder

#: the one entry in the metadata of our safetensors files
HEADER_KEY = "oneshui"
#: bytes of the longest header that the safetensors format allows
_LONGEST_HEADER = 100_000_000


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside ``path``, which replaces it once the block ended well.

    The file is flushed to disk before the rename, so that a crash at any moment leaves either the old file or the new
    one. If the block raises, ``path`` is left as it was. In a folder of its own lies what libraries put beside a file
    while they write it, too; it goes in any case (``oneshui.folders``).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(path.parent, path.name) as folder:
        temporary = folder / path.name
        yield temporary
        _flush(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # some writers make private files; results are shared
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Landlock before Linux 5.19 lets no file change its folder; an isolated process writes for its parent only
            shutil.copyfile(temporary, path)
        _flush(path.parent)


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
        if full_disk(error) is None:
            raise
        free = shutil.disk_usage(path.parent).free
        raise DataError(
            f"{name} needs {_mb(size)}, but {path.parent} has room for {_mb(free)}, or less by a quota "
            f"({error.strerror}). Free some space, or write the results elsewhere: snakemake --directory FOLDER."
        ) from error


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


def require_regular(path: str | Path) -> int:
    """Return the size of a file in bytes, before it is opened.

    Raises:
        OSError: it is not there, or is a folder, a device or a pipe: some of these never begin or never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return status.st_size


def read_regular(path: str | Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: it is none, or cannot be read.
    """
    require_regular(path)
    return Path(path).read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Return the value that JSON text from unknown hands describes.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands there twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def lies_inside(path: str) -> bool:
    """Tell whether a path that a file names stays below the folder that it is relative to, by its spelling."""
    return bool(path) and not (
        "\\" in path or "\0" in path or path[1:2] == ":" or path.startswith("/") or ".." in PurePosixPath(path).parts
    )


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
    known: list[int] | None = header.get("stored_px")
    trained = header.get("spec", {}).get("dataset")
    if known is None and wrong_entry(trained, _ENTRIES) == "":
        known = trained.get("stored_px")
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

    The entries that ``_ENTRIES`` lists are of their types; whatever else stands there is as it was written.

    Raises:
        DataError: the file is missing, damaged, or was not written by oneshui.
    """
    path = Path(path)
    try:
        metadata = _raw_header(path).get("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no mapping")
        if HEADER_KEY not in metadata:
            raise DataError(f"{path} has no header of ours: it was not written by oneshui. Name another file.")
        if not isinstance(metadata[HEADER_KEY], str):
            raise ValueError("its metadata are no text")
        header = parse_json(metadata[HEADER_KEY])
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    wrong = wrong_entry(header, _ENTRIES)
    if wrong:
        raise DataError(f"{path}: its header has {wrong}. It was not written by oneshui, or was changed. Name another.")
    return dict(header)


def _raw_header(path: Path) -> dict[str, Any]:
    size = require_regular(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise ValueError("header length out of range")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    return header


# ---- what JSON from unknown hands may hold

#: what a value is called -> whether it is one
_ARE: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "a whole number >= 0": lambda value: type(value) is int and value >= 0,
    "a whole number >= 0 or null": lambda value: value is None or (type(value) is int and value >= 0),
    "a number": lambda value: type(value) is float or (type(value) is int and abs(value) < 1 << 1000),
    "a mapping": lambda value: isinstance(value, dict),
    "a mapping or null": lambda value: value is None or isinstance(value, dict),
    "a list of different names": lambda value: (
        isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    ),
    "two sizes in px, 1 to 65536, or null": lambda value: value is None or (
        isinstance(value, list) and len(value) == 2 and all(type(each) is int and 1 <= each <= 65536 for each in value)
    ),
    "true, false or text": lambda value: isinstance(value, bool | str),
    "classification or multilabel": lambda value: value in ("classification", "multilabel"),
    "numbers by name": lambda value: (
        isinstance(value, dict) and all(type(each) in (int, float, bool) for each in value.values())
    ),
}  # fmt: skip

#: entries that headers of models and artefacts may have
_ENTRIES = {
    "artefact": "a mapping", "dataset": "text", "fingerprint": "text", "health": "numbers by name", "isolation": "text",
    "method": "text", "model": "text", "model_spec": "a mapping", "n": "a whole number >= 0 or null", "origin": "text",
    "peak_mb": "a number", "pictures": "text or null", "request": "text", "role": "text", "seconds": "a number",
    "seed": "a whole number >= 0", "spec": "a mapping", "splits": "text or null", "state": "a mapping",
    "stored_px": "two sizes in px, 1 to 65536, or null", "weights": "text or null",
}  # fmt: skip


#: entries of a task, as headers and tables describe it
TASK = {"kind": "classification or multilabel", "classes": "a list of different names"}


def wrong_entry(found: Any, entries: Mapping[str, str], needed: Collection[str] = ()) -> str:
    """Return in words which entry of a mapping that was read is missing or of another type, or nothing.

    Args:
        found: what JSON text held.
        entries: name -> what the value is, a key of ``_ARE``. Others may be there.
        needed: those that must be there.
    """
    if not isinstance(found, dict):
        return f"{_short(found)} in place of entries"
    for name, what in entries.items():
        if name in found and not _ARE[what](found[name]):
            return f"{name} = {_short(found[name])}, allowed: {what}"
    absent = [name for name in needed if name not in found]
    return f"no {', '.join(absent)}" if absent else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
