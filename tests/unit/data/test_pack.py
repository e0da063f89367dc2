"""Packing images: every image decoded once, in order, or an error that names the file."""

import errno
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneshui.data.pack import decode, pack_images
from oneshui.errors import DataError

DRAW = np.random.default_rng(0)


def save(path: Path, array: np.ndarray, mode: str | None = None) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return array


def random_rgb(height: int, width: int) -> np.ndarray:
    return DRAW.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_images_are_packed_in_the_given_order(tmp_path: Path, n_threads: int) -> None:
    arrays = [save(tmp_path / "raw" / f"{i}.png", random_rgb(6, 4)) for i in range(7)]
    order = [3, 0, 6, 5, 1, 2, 4]
    paths = [f"{i}.png" for i in order]
    pack_images(tmp_path / "raw", paths, tmp_path / "out" / "images.npy", height=6, width=4, n_threads=n_threads)
    store = np.load(tmp_path / "out" / "images.npy")
    assert store.dtype == np.uint8 and store.shape == (7, 3, 6, 4)
    assert np.array_equal(store, np.stack([arrays[i].transpose(2, 0, 1) for i in order]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_an_error_that_says_how_much_is_needed_and_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path / "raw" / "a.png", random_rgb(6, 4))
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(DataError, match=r"images\.npy needs 2\.8 MB, but .* has room for 1\.0 MB"):
            pack_images(tmp_path / "raw", ["a.png"] * 100, small / "images.npy", height=96, width=96, n_threads=2)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_quota_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, start: int, size: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    save(tmp_path / "raw" / "a.png", random_rgb(6, 4))
    with pytest.raises(DataError, match=r"needs 0\.0 MB, .* \(Disk quota exceeded\)\. Free some space"):
        pack_images(tmp_path / "raw", ["a.png"], tmp_path / "out" / "images.npy", height=6, width=4, n_threads=1)
    assert list((tmp_path / "out").iterdir()) == []


def test_other_sizes_are_squashed_to_the_stored_size(tmp_path: Path) -> None:
    stripes = np.zeros((40, 20, 3), dtype=np.uint8)
    stripes[20:] = [200, 100, 50]  # lower half
    save(tmp_path / "a.png", stripes)
    found = decode(tmp_path / "a.png", 4, 6)
    assert found.shape == (3, 4, 6)
    assert (found[:, 0] == 0).all()
    assert (found[:, 3].T == [200, 100, 50]).all()


def test_shrinking_averages_the_pixels(tmp_path: Path) -> None:
    checkers = np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) % 2 * np.uint8(255)
    save(tmp_path / "a.png", checkers.astype(np.uint8))
    found = decode(tmp_path / "a.png", 8, 8).astype(int)
    assert abs(found - 127).max() < 10  # without antialiasing every pixel would be 0 or 255


@pytest.mark.parametrize(("mode", "wanted"), [("L", [76, 76, 76]), ("P", [255, 0, 0]), ("RGBA", [255, 0, 0])])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, wanted: list[int]) -> None:
    save(tmp_path / "a.png", np.full((3, 3, 3), [255, 0, 0], dtype=np.uint8), mode)
    assert decode(tmp_path / "a.png", 3, 3)[:, 1, 1].tolist() == wanted


@pytest.mark.parametrize("damage", ["missing", "text", "cut"])
def test_bad_image_is_an_error_and_leaves_no_file(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "raw"
    for name in "abc":
        save(raw / f"{name}.png", random_rgb(30, 30))
    bad = raw / "b.png"
    if damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes(b"not an image" if damage == "text" else bad.read_bytes()[:500])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=rf"b\.png cannot be {'read' if damage == 'missing' else 'decoded'} \("):
        pack_images(raw, ["a.png", "b.png", "c.png"], out / "images.npy", height=8, width=8, n_threads=2)
    assert list(out.iterdir()) == []
