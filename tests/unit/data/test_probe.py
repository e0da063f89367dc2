"""Probing images, and grouping near-identical ones."""

from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneshui.data.layouts import read_annotations
from oneshui.data.probe import duplicate_groups, probe_images
from oneshui.errors import ConfigError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def draw(path: Path, seed: int, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Path:
    """Write a smooth random picture, so that compression hardly changes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, size=(5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def test_probe_returns_size_and_hash_in_the_order_asked(tmp_path: Path) -> None:
    for i in range(150):  # more than two tasks of the pool
        draw(tmp_path / f"{i}.png", i, size=(20 + i, 30))
    names = [f"{i}.png" for i in reversed(range(150))]
    probed = probe_images(tmp_path, names, n_threads=3, progress=False)
    assert list(probed.columns) == ["path", "width", "height", "phash", "error", "content", "kind"]
    assert probed["path"].tolist() == names
    assert probed["width"].tolist() == [20 + i for i in reversed(range(150))]
    assert set(probed["height"]) == {30}
    assert probed["error"].isna().all()
    assert probed["phash"].dtype == np.uint64
    with Image.open(tmp_path / names[0]) as image:
        assert f"{probed['phash'][0]:016x}" == str(imagehash.phash(image))


def test_large_jpeg_is_hashed_like_its_full_decoding(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.jpg", 1, size=(512, 600))
    probed = probe_images(tmp_path, ["a.jpg"], n_threads=1, progress=False)
    with Image.open(path) as image:
        full = int(str(imagehash.phash(image)), 16)
    assert (probed["width"][0], probed["height"][0]) == (512, 600)
    assert int(np.bitwise_count(np.uint64(full) ^ probed["phash"][0])) <= 4


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1"])
def test_all_usual_modes_are_read(tmp_path: Path, mode: str) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    draw(tmp_path / name, 2, mode=mode)
    assert probe_images(tmp_path, [name], n_threads=1, progress=False)["error"].isna().all()


def test_flat_images_are_fine(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "black").save(tmp_path / "black.png")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    probed = probe_images(tmp_path, ["black.png", "dot.png"], n_threads=1, progress=False)
    assert probed["error"].isna().all()


def test_missing_and_unreadable_images_are_reported(tmp_path: Path) -> None:
    draw(tmp_path / "good.png", 0)
    for name in ("cut.jpg", "cut.png"):
        whole = draw(tmp_path / name, 1, size=(160, 160)).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    names = ["good.png", "no.jpg", "good.png/no.jpg", "cut.jpg", "cut.png", "text.jpg", "empty.jpg", "folder.jpg"]
    probed = probe_images(tmp_path, names, n_threads=2, progress=False)
    errors = probed["error"].tolist()
    assert errors[:3] == [None, "missing", "missing"]
    assert all(error.startswith("unreadable: ") for error in errors[3:])
    assert not any(str(tmp_path) in error for error in errors[3:])
    assert errors[3] == "unreadable: cut short: no end of image after the scan"
    assert probed.loc[1:, ["width", "height", "phash"]].to_numpy().sum() == 0


def test_no_images_give_an_empty_table(tmp_path: Path) -> None:
    assert len(probe_images(tmp_path, [], n_threads=1, progress=False)) == 0


def test_progress_goes_to_standard_error_only_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a.png", 0)
    probe_images(tmp_path, ["a.png"], n_threads=1, progress=False)
    assert capsys.readouterr() == ("", "")
    probe_images(tmp_path, ["a.png"], n_threads=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/1" in err


# ---- duplicate groups


def groups_of(hashes: list[int], distance: int) -> list[int]:
    return [int(group) for group in duplicate_groups(np.array(hashes, dtype=np.uint64), distance)]


def brute_force(hashes: list[int], distance: int) -> list[int]:
    """Number groups by flooding from each image that has none yet."""
    group = [-1] * len(hashes)
    for first in range(len(hashes)):
        if group[first] >= 0:
            continue
        number, todo = max(group) + 1, [first]
        while todo:
            at = todo.pop()
            group[at] = number
            todo += [
                i for i, other in enumerate(hashes) if group[i] < 0 and (other ^ hashes[at]).bit_count() <= distance
            ]
    return group


@st.composite
def nearby_hashes(draw_from: st.DrawFn) -> list[int]:
    """Hashes that differ from one of a few centres in a few bits, anywhere in the word."""
    centres = draw_from(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=9)
    chosen = draw_from(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=30))
    return [centre ^ sum(1 << bit for bit in set(bits)) for centre, bits in chosen]


@settings(max_examples=150, deadline=None)
@given(hashes=nearby_hashes(), distance=st.sampled_from([0, 1, 2, 3, 4, 6, 8, 15, 16, 40, 64]))
def test_groups_equal_brute_force(hashes: list[int], distance: int) -> None:
    assert groups_of(hashes, distance) == brute_force(hashes, distance)


def test_groups_are_numbered_by_their_first_image() -> None:
    assert groups_of([9 << 40, 5 << 20, 9 << 40, 0, 5 << 20], 0) == [0, 1, 0, 2, 1]
    assert duplicate_groups(np.array([1, 1], dtype=np.uint64), 0).dtype == np.int32


def test_links_chain() -> None:
    assert groups_of([0b0, 0b11, 0b1111, 0b1111 << 50], 2) == [0, 0, 0, 1]


def test_no_hashes_have_no_groups() -> None:
    assert groups_of([], 4) == []


def test_many_hashes_in_one_bucket_are_still_exact() -> None:
    # the upper 48 bits agree, so that bands do not help; all 2^12 values are linked at distance 1
    hashes = np.arange(4096, dtype=np.uint64)
    assert duplicate_groups(hashes, 1).max() == 0
    spread = hashes << np.uint64(1)
    assert duplicate_groups(spread | (np.bitwise_count(spread) & 1).astype(np.uint64), 1).max() == 4095


@pytest.mark.parametrize("distance", [-1, 65])
def test_impossible_distance_is_refused(distance: int) -> None:
    with pytest.raises(ConfigError, match=f"duplicate_distance = {distance} bits, allowed: 0 to 64"):
        groups_of([1], distance)


@pytest.mark.realdata
def test_real_mufac_lists_one_picture_under_two_families() -> None:
    folder = SHARED / "mufac"
    if not folder.is_dir():
        pytest.skip("the optional folder ../shared/data/mufac is not there")
    frame = read_annotations("mufac", folder, {}).frame
    frame = frame[frame["identity_name"].isin(["F0022_F", "F0023_F", "F0060_GM", "F0061_GM", "F0001_D"])]
    probed = probe_images(folder, frame["path"].tolist(), n_threads=1, progress=False)
    assert probed["error"].isna().all()
    assert set(zip(probed["width"], probed["height"], strict=True)) == {(128, 128)}
    group = duplicate_groups(probed["phash"].to_numpy(), 2)
    n_identities = frame.groupby(group)["identity_name"].nunique()
    assert (n_identities == 2).sum() == 24 + 21
    assert n_identities.max() == 2
