"""Annotation files that are not those an index was made from, noticed while planning."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from oneshui.errors import ConfigError
from oneshui.files import content_hash
from oneshui.planning import annotations
from oneshui.planning.annotations import tracked_spec
from oneshui.schemas import INDEX, write_table

SPEC = {"layout": "manifest", "options": {"file": "m.csv"}}


class Folder:
    """An annotation file and the index that was made from it, by this version (``noted``) or an earlier one."""

    def __init__(self, path: Path, *, noted: bool = True) -> None:
        self.file, self.index, self.cache = path / "m.csv", path / "index.parquet", path / "cache" / "known.json"
        self.file.write_text("a\n")
        self.made(noted=noted)

    def made(self, *, noted: bool = True) -> None:
        frame = pd.DataFrame(
            {"image_id": [0], "path": ["x.png"], "identity": [0], "identity_name": ["p"], "label": [0]}
        )
        frame = frame.assign(width=1, height=1, duplicate_group=0)
        meta: dict[str, Any] = {"task": "classification", "classes": ["a"]}
        write_table(self.index, frame, INDEX, meta | ({"annotations": self.hash} if noted else {}))

    @property
    def hash(self) -> str:
        return content_hash([self.file])

    def told(self, recorded: list[str] | None) -> dict[str, Any]:
        return tracked_spec(SPEC, self.file.parent, self.index, recorded=recorded, cache=self.cache)


def test_an_unchanged_folder_is_told_what_it_was_told_before(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.told([repr(SPEC)]) == SPEC
    assert folder.told(None) == SPEC


def test_an_index_of_an_earlier_version_is_not_made_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path, noted=False)
    folder.file.write_text("b\n")  # it does not say what it was made from
    assert folder.told([repr(SPEC)]) == SPEC


def test_another_file_with_an_older_date_is_noticed_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.file.write_text("b\n")
    os.utime(folder.file, (1_560_000_000, 1_560_000_000))
    told = folder.told([repr(SPEC)])
    assert told == {**SPEC, "annotations": folder.hash}
    folder.made()  # it runs again, and is recorded as told
    assert folder.told([repr(told)]) == told
    folder.file.write_text("c\n")
    assert folder.told([repr(told)]) not in (told, SPEC)


def test_an_index_that_was_moved_here_is_made_once_and_not_again(tmp_path: Path) -> None:
    """An old index is made again for another reason: it then notes its files, and its record does not."""
    folder = Folder(tmp_path, noted=False)
    folder.made()
    assert folder.told([repr(SPEC)]) == SPEC


def test_without_a_record_a_change_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.file.write_text("b\n")
    with pytest.raises(ConfigError, match=r"index\.parquet was made from other annotation files.*Delete .*index"):
        folder.told(None)


@pytest.mark.parametrize("missing", ["file", "index"])
def test_without_data_or_index_nothing_is_compared(tmp_path: Path, missing: str) -> None:
    folder = Folder(tmp_path)
    folder.file.write_text("b\n")
    getattr(folder, missing).unlink()
    assert folder.told(None) == SPEC


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    read: list[str] = []
    real = annotations.sha256_file
    monkeypatch.setattr(annotations, "sha256_file", lambda path: read.append(str(path)) or real(path))
    monkeypatch.setattr(annotations, "_SETTLED_S", -1.0)
    for _ in range(3):
        assert folder.told([repr(SPEC)]) == SPEC
    assert len(read) == 1
    stamp = folder.file.stat()
    folder.file.write_text("b\n")
    os.utime(folder.file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same date
    assert "annotations" in folder.told([repr(SPEC)])
    folder.cache.write_text("[]")
    assert "annotations" in folder.told([repr(SPEC)])


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.told([repr(SPEC)])
    assert not folder.cache.exists()
