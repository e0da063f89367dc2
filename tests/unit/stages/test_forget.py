"""Labels and photos of a real request."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oneshui.data.pack import decode
from oneshui.errors import DataError
from oneshui.methods.base import Artefact
from oneshui.stages.forget import _size_of_artefact, label_of, png_of

ATTRIBUTES = {"kind": "multilabel", "classes": ["Smiling", "Young", "Hat"]}
CLASSES = {"kind": "classification", "classes": ["0-6 years old", "7-12 years old"]}


@pytest.mark.parametrize(
    ("label", "task", "number"),
    [("Hat, Smiling", ATTRIBUTES, [1, 0, 1]), ("", ATTRIBUTES, [0, 0, 0]), ("7-12 years old", CLASSES, 1)],
)
def test_labels_by_name(label: str, task: dict[str, object], number: int | list[int]) -> None:
    assert label_of(label, task) == number


@pytest.mark.parametrize(("label", "task"), [("Hat,Beard", ATTRIBUTES), ("", CLASSES), ("1", CLASSES)])
def test_unknown_labels_name_the_known_ones(label: str, task: dict[str, object]) -> None:
    with pytest.raises(DataError, match="is unknown to the model, allowed: "):
        label_of(label, task)


def test_an_artefact_says_which_request_size_it_serves(tmp_path: Path) -> None:
    kept, path = Artefact({"x": torch.zeros(1)}), tmp_path / "kept.safetensors"
    for n in (5, None):
        kept.save(path, {"n": n})
        assert _size_of_artefact(path) == n
    for header in ({}, {"n": None, "model_spec": {}}):  # of nothing of ours, of an original model
        kept.save(path, header)
        with pytest.raises(DataError, match="is not an artefact"):
            _size_of_artefact(path)


def test_photos_become_what_training_images_became(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    for mode, name in (("RGB", "photo.jpg"), ("L", "grey.png"), ("CMYK", "print.jpg")):
        Image.fromarray(pixels).convert(mode).save(tmp_path / name)
        (tmp_path / "out.png").write_bytes(png_of(tmp_path / name, [24, 16]))
        with Image.open(tmp_path / "out.png") as made:
            assert np.array_equal(np.asarray(made), decode(tmp_path / name, 24, 16).transpose(1, 2, 0))


def test_a_photo_that_would_turn_white_or_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png cannot be decoded \(more than 8 bits a channel"):
        png_of(tmp_path / "deep.png", [4, 4])
    Image.new("RGB", (64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"large.png cannot be decoded"):
        png_of(tmp_path / "large.png", [4, 4])


def test_a_photo_that_cannot_be_used_says_what_to_hand_in(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    for name, how in (("photo.jpg", "decoded"), ("missing.jpg", "read")):
        with pytest.raises(DataError, match=rf"{name} cannot be {how} \(.*\)\. Hand in another photo"):
            png_of(tmp_path / name, [4, 4])
