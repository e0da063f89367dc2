"""What killed processes left is removed; what living ones use is not."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from oneshui import folders
from oneshui.errors import DataError
from oneshui.files import atomic_path, write_text
from oneshui.folders import lock, own_folder, remove_left

WRITER = """
import sys
from pathlib import Path
from oneshui.errors import DataError
from oneshui.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    (temporary.parent / ".tmpAc2Glp").write_bytes(b"a library's own")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> "subprocess.Popen[str]":
    """A process in the middle of writing ``a.csv``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "a.csv")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "writing\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_what_a_killed_writer_left_goes_with_the_next_write_beside_it(
    writer: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    end(writer)
    assert len(list(tmp_path.rglob("*"))) == 4  # it was killed in the middle: a folder with three files
    write_text(tmp_path / "b.csv", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]


def test_what_a_living_writer_uses_stays(writer: "subprocess.Popen[str]", tmp_path: Path) -> None:
    try:
        write_text(tmp_path / "a.csv", "another process's")
        assert len(list(tmp_path.glob(".a.csv.*.tmp/a.csv"))) == 1
        out, _ = writer.communicate("")
        assert writer.returncode == 0 and out == ""
        assert (tmp_path / "a.csv").read_bytes() == b"half"
        assert len(list(tmp_path.iterdir())) == 1
    finally:
        end(writer)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_removes_nothing_of_other_users(writer: "subprocess.Popen[str]", tmp_path: Path) -> None:
    end(writer)
    (left,) = tmp_path.iterdir()
    os.chown(left, 12345, -1)
    remove_left(tmp_path)
    assert left.exists()
    os.chown(left, os.geteuid(), -1)
    remove_left(tmp_path)
    assert not left.exists()


def test_folders_that_are_not_ours_stay(tmp_path: Path) -> None:
    for name in (".cache.abcdefgh.tmp", "a.csv.abcdefgh.tmp", ".a.csv.tmp", ".a.csv.abcdefg.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    (tmp_path / ".file.abcdefgh.tmp").touch()
    before = sorted(tmp_path.rglob("*"))
    remove_left(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_whose_process_died_before_it_had_a_lock(tmp_path: Path) -> None:
    (tmp_path / ".a.csv.abcdefgh.tmp").mkdir()
    remove_left(tmp_path)
    assert not list(tmp_path.iterdir())


def test_deep_folders_and_links_out_of_them(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with own_folder(tmp_path, "a") as folder:
        (folder / "deep/er").mkdir(parents=True)
        (folder / "deep/er/file").touch()
        (folder / "deep/link").symlink_to(tmp_path / "precious")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "precious"]


def test_many_writers_and_removers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Threads hold locks of their own, as processes do. A folder that vanished would raise."""
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for i in range(100):
                with atomic_path(tmp_path / f"{number}.csv") as temporary:
                    temporary.write_text(f"{i}")
                    remove_left(tmp_path)
                    assert temporary.read_text() == f"{i}"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.csv" for number in range(4)]


def test_no_room_for_a_lock_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, **_: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "lock", full)
    with (
        pytest.raises(
            DataError,
            match=r"no room left to write in .* \(No space left on device; .* MB are free on the disk\)\. Free",
        ),
        own_folder(tmp_path, "a"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def chained() -> None:
    """As Pillow does: the reason is only the context of what it raises."""
    try:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    except OSError:
        raise ValueError("broken image")  # noqa: B904


def rust() -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(("write", "reason"), [(chained, "Disk quota exceeded"), (rust, "No space left on device")])
def test_a_full_disk_is_told_however_a_library_says_it(tmp_path: Path, write: Callable[[], None], reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path} ({reason}; ")), own_folder(tmp_path, "a"):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [DataError("no image"), PermissionError(13, "Permission denied"), KeyboardInterrupt()]
)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, own_folder(tmp_path, "a"):
        raise error
    assert raised.value is error


def test_without_locks_nothing_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with own_folder(tmp_path, "a") as folder:
        (folder / "file").touch()
        write_text(tmp_path / "b.csv", "whole")
        assert (folder / "file").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]


def test_locks_shared_and_not(tmp_path: Path) -> None:
    first, second = (lock(tmp_path / "l", shared=True) for _ in range(2))
    assert first is not None and second is not None
    assert lock(tmp_path / "l") is None
    os.close(first)
    os.close(second)
    alone = lock(tmp_path / "l")
    assert alone is not None and lock(tmp_path / "l", shared=True) is None
    os.close(alone)
    with pytest.raises(FileNotFoundError):
        lock(tmp_path / "other", create=False)


def test_a_kill_by_any_signal_lets_go(writer: "subprocess.Popen[str]", tmp_path: Path) -> None:
    writer.send_signal(signal.SIGSEGV)
    writer.communicate()
    remove_left(tmp_path)
    assert not list(tmp_path.iterdir())
