"""Labels and photos of a real request."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneshui.errors import DataError
from oneshui.stages.forget import label_of, png_of

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


def test_photos_are_turned_upright_and_get_the_stored_size(tmp_path: Path) -> None:
    pixels = np.zeros((40, 20, 3), dtype=np.uint8)
    pixels[:20] = 250  # bright above
    lying = Image.fromarray(np.rot90(pixels).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    lying.save(tmp_path / "photo.png", exif=exif)
    (tmp_path / "out.png").write_bytes(png_of(tmp_path / "photo.png", [20, 10]))
    with Image.open(tmp_path / "out.png") as made:
        found = np.asarray(made)
    assert found.shape == (20, 10, 3)
    assert found[:9].min() > 240 and found[11:].max() < 10
