"""Files are old, new or absent, never torn; hashes name what is in them."""

import errno
import hashlib
import json
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from oneshui.errors import DataError
from oneshui.files import atomic_path, read_header, sha256_file, spec_hash, write_text
from oneshui.tensors import load_tensors, save_tensors


def test_file_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.csv"
    with atomic_path(path) as temporary:
        assert temporary.parent.parent == path.parent  # on the same file system
        assert temporary.name == "a.csv"  # numpy and others look at its end
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_failed_write_leaves_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_replaces_the_old_one_with_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o400)
    before = os.umask(0o027)
    try:
        write_text(path, "größer")
    finally:
        os.umask(before)
    assert path.read_bytes() == "größer".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_sha256_file_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_spec_hash_ignores_the_order_of_keys_only() -> None:
    spec: dict[str, Any] = {"a": 1, "b": {"c": [1, 2], "d": None}}
    same = spec_hash(spec)
    assert spec_hash({"b": {"d": None, "c": [1, 2]}, "a": 1}) == same
    others: list[dict[str, Any]] = [
        {**spec, "a": 2},
        {**spec, "a": "1"},
        {**spec, "b": {"c": [2, 1], "d": None}},
        {**spec, "b": {"c": [1, 2]}},
    ]
    assert len({same, *map(spec_hash, others)}) == 5
    assert len(same) == 16 and int(same, 16) >= 0


def test_spec_hash_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError):
        spec_hash({"lr": float("nan")})


def test_header_of_a_tensor_file(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"w": torch.zeros(3)}, {"method": "ssd", "n": 5})
    assert read_header(tmp_path / "a.safetensors") == {"method": "ssd", "n": 5}


def test_same_tensors_and_header_give_the_same_bytes(tmp_path: Path) -> None:
    header = {f"key{i}": i for i in range(20)}
    tensors = {f"w{i}": torch.full((2, 3), float(i)) for i in range(20)}
    for name in "ab":
        save_tensors(tmp_path / name, tensors, header)
        header = dict(reversed(header.items()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    save_tensors(tmp_path / "a.safetensors", tensors, {"a": [1, None]})
    found, header = load_tensors(tmp_path / "a.safetensors", torch.device("cpu"))
    assert header == {"a": [1, None]}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(3)}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="was not written by oneshui"):
        read_header(tmp_path / "b.safetensors")


HEADER = json.dumps({"__metadata__": {"a": "b"}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"short",
        b"\xff" * 64,  # a header longer than the file
        (20).to_bytes(8, "little") + b"x" * 20,  # not JSON
        len(HEADER).to_bytes(8, "little") + HEADER[:-5],  # cut
    ],
    ids=["missing", "empty", "short", "too long", "not JSON", "cut"],
)
def test_unreadable_safetensors_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    message = r"a\.safetensors is not (there\. Name|a readable safetensors file .* Name) another file"
    with pytest.raises(DataError, match=message) as raised:
        read_header(path)
    assert "elete" not in str(raised.value)  # it may be the only copy of somebody's model
    assert ("is not there" in str(raised.value)) == (content is None)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # of safetensors
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ],
)
def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    message = r"no room left to write in .* MB are free on the disk.* run the same command again"
    with pytest.raises(DataError, match=message), atomic_path(tmp_path / "a.txt"):
        raise error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="Permission"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.EACCES, "Permission denied")


def test_tensors_on_a_full_disk_are_an_error_of_ours(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
        with pytest.raises(DataError, match="There is no room left to write in"):
            save_tensors(tmp_path / "a.safetensors", {"w": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
