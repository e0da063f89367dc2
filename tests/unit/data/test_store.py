"""What a store of packed images says of itself, and stores that do not belong to their index."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from oneshui.data.index import pictures_id
from oneshui.data.pack import pack_images
from oneshui.data.probe import probe_images
from oneshui.data.store import append_note, check_store, read_note
from oneshui.errors import DataError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for i in range(3):
        picture(i).save(folder / f"{i}.png")
    return folder


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def pack(raw: Path, content: np.ndarray | None = None) -> Path:
    names = [f"{i}.png" for i in range(3)]
    output = raw.parent / "out" / "images.npy"
    pack_images(raw, names, output, height=8, width=8, n_threads=2, content=content, pictures="abc")
    return output


def content(raw: Path) -> np.ndarray:
    return probe_images(raw, [f"{i}.png" for i in range(3)], n_threads=1, progress=False)["content"].to_numpy()


def test_the_note_stands_behind_the_array_and_disturbs_no_reader(raw: Path) -> None:
    store = pack(raw)
    assert read_note(store) == {"pictures": "abc", "turned_or_transparent": 0}
    for mode in (None, "r", "c"):
        array = np.load(store, mmap_mode=mode)
        assert array.shape == (3, 3, 8, 8)
        assert np.array_equal(array[1], np.asarray(picture(1)).transpose(2, 0, 1))


def test_a_store_of_an_earlier_version_says_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 4, 4), dtype=np.uint8))
    assert read_note(tmp_path / "images.npy") == {}
    assert check_store(tmp_path / "images.npy", tmp_path / "index.parquet", {}) == {}


def test_pictures_that_are_stored_otherwise_than_before_are_counted(raw: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(0).save(raw / "0.png", exif=exif)
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(raw / "2.png")
    assert read_note(pack(raw))["turned_or_transparent"] == 2


def test_an_image_that_was_replaced_since_it_was_indexed_is_refused(raw: Path) -> None:
    known = content(raw)
    pack(raw, known)
    picture(9).save(raw / "1.png")
    with pytest.raises(DataError, match=r"1\.png is not the file that was indexed.*Delete .*out to index and pack"):
        pack(raw, known)
    assert read_note(raw.parent / "out" / "images.npy")["pictures"] == "abc"  # the old store is still whole


@pytest.mark.parametrize("known", [{"pictures": "other"}, {}])
def test_a_store_of_other_pictures_than_the_index_is_refused(raw: Path, known: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"images\.npy was packed from other pictures than .*index\.parquet lists"):
        check_store(pack(raw), raw / "index.parquet", known)


def test_an_old_store_beside_a_new_index_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="packed from other pictures"):
        check_store(tmp_path / "images.npy", tmp_path / "index.parquet", {"pictures": "abc"})


@pytest.mark.parametrize("damage", [b"\xff" * 8, (10**9).to_bytes(8, "little"), (3).to_bytes(8, "little")])
def test_a_damaged_note_is_refused(raw: Path, damage: bytes) -> None:
    store = pack(raw)
    mark = b"oneshui store"
    whole = store.read_bytes()
    store.write_bytes(whole[: -len(mark) - 8] + damage + mark)
    with pytest.raises(DataError, match=r"images\.npy is not a readable image store"):
        read_note(store)


def test_the_id_of_pictures_depends_on_paths_and_contents_only(raw: Path) -> None:
    names = [f"{i}.png" for i in range(3)]
    frame = pd.DataFrame({"path": names, "content": content(raw), "label": 0})
    same = pictures_id(frame)
    assert pictures_id(frame.iloc[::-1].assign(label=1)) == same
    assert pictures_id(frame.assign(path=["0.png", "2.png", "1.png"])) != same
    picture(9).save(raw / "1.png")
    assert pictures_id(frame.assign(content=content(raw))) != same
    assert pictures_id(frame.drop(columns="content")) is None


def test_appending_writes_nothing_into_the_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    before = (tmp_path / "a.npy").read_bytes()
    append_note(tmp_path / "a.npy", {"x": 1})
    assert (tmp_path / "a.npy").read_bytes().startswith(before)
    assert read_note(tmp_path / "a.npy") == {"x": 1}
