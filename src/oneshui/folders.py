"""Temporary folders that belong to a living process; what killed processes left is removed.

A process that is killed clears nothing away: half a model of a gigabyte, somebody's photo. So whatever is not finished
lies in a folder with a file that its process keeps locked. The kernel lets go of the lock when the process dies,
however that happens. The next process that makes such a folder beside it removes those that nobody holds.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from oneshui.errors import DataError, OneShuiError

_LOCK = "oneshui.lock"
_SUFFIX = ".tmp"
#: names of such folders; other programs may give such names, so that only the lock file tells
_OURS = re.compile(r"(\..*\.)[a-z0-9_]{8}" + re.escape(_SUFFIX), re.DOTALL)
#: file systems without locks: nobody can tell who lives, so nothing is removed
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


def lock(path: Path, *, create: bool = True, shared: bool = False) -> int | None:
    """Lock a file for as long as the descriptor is open, which no program that we start inherits.

    Args:
        path: of the file.
        create: make the file if it is not there.
        shared: let others lock it as shared, too.

    Returns:
        The descriptor, to be closed; None where another process holds the lock.

    Raises:
        OSError: the file is not there or cannot be opened, or its file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


@contextlib.contextmanager
def own_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder ``.NAME.XXXXXXXX.tmp`` in ``parent``, which nobody else may enter; it goes with the block.

    First those in ``parent`` are removed, of any name, whose processes have died.

    Raises:
        DataError: there is no room for it, or for what the block writes.
        OSError: there can be no folder for another reason.
    """
    remove_left(parent)
    with _full_disk_told(parent):
        folder, held = _new_folder(parent, name)
        try:
            yield folder
        finally:
            _remove(folder, held)


@contextlib.contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Turn the errors with which libraries say that a disk is full into one that says where and what to do."""
    try:
        yield
    except OneShuiError:
        raise
    except Exception as error:
        reason = full_disk(error)
        if reason is None:
            raise
        free = shutil.disk_usage(folder).free / 1e6
        raise DataError(
            f"There is no room left to write in {os.path.abspath(folder)} ({reason}; {free:,.1f} MB are free on the "
            "disk). Free some space, or have your quota raised, then run the same command again: what had finished "
            "stays."
        ) from error


def full_disk(error: BaseException | None) -> str | None:
    """Return the system's message if an error, or one that led to it, is a full disk."""
    while error is not None:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # libraries in Rust have no errno
            if (isinstance(error, OSError) and error.errno == number) or f"(os error {number})" in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def remove_left(parent: Path) -> None:
    """Remove the folders in ``parent`` that processes made with ``own_folder`` and did not live to remove."""
    with contextlib.suppress(OSError):  # no such parent, or one that cannot be listed
        for found in os.listdir(parent):
            if _OURS.fullmatch(found):
                with contextlib.suppress(OSError):
                    _remove_if_left(parent / found)


def _new_folder(parent: Path, name: str) -> tuple[Path, int | None]:
    """Return a folder and the descriptor of its lock, None where there are no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_SUFFIX, dir=parent))
        try:
            held = lock(folder / _LOCK)
            if held is not None:
                if os.path.samestat(os.fstat(held), os.stat(folder / _LOCK)):
                    return folder, held
                os.close(held)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return folder, None
            _remove(folder, None)
            raise
        # another process took the folder for one of the dead before it was locked


def _remove_if_left(folder: Path) -> None:
    if os.lstat(folder).st_uid != os.geteuid():
        return  # in /tmp somebody else could put links into it while root removes what is there
    try:
        held = lock(folder / _LOCK, create=False)
    except FileNotFoundError:
        os.rmdir(folder)  # if it is empty: its process died at once, or is about to lock it and will make another
        return
    if held is None:
        return
    # under another name nobody can lock it any more between the end of our lock and its removal
    buried = folder.with_name(_OURS.sub(rf"\g<1>{secrets.token_hex(4)}{_SUFFIX}", folder.name))
    try:
        os.rename(folder, buried)
    except OSError:
        os.close(held)
        raise
    _remove(buried, held)


def _remove(folder: Path, held: int | None) -> None:
    """Remove a folder as far as possible, its lock last and unlocked: on NFS an open file is only renamed."""
    _empty(folder)
    if held is not None:
        os.close(held)
    with contextlib.suppress(OSError):
        os.unlink(folder / _LOCK)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _empty(folder: Path) -> None:
    """Remove all but the lock. Whole paths: the audit hook of ``oneshui.isolation`` knows nothing of open folders."""
    with contextlib.suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if entry.name != _LOCK]:
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    _empty(path)
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path / _LOCK)
                    os.rmdir(path)
                else:
                    os.unlink(path)
