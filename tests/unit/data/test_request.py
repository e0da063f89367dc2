"""A request: pixel-identical photos of the ranked identities, from the packed images to a model's input."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from oneshui.data.request import build_request, build_wrong_photos
from oneshui.data.support import read_request
from oneshui.errors import ConfigError, DataError
from oneshui.schemas import REQUEST, write_table
from oneshui.sets import InputSpec
from oneshui.tasks import Task

CPU = torch.device("cpu")
CLASSES = Task("classification", ("young", "old", "older"))
ATTRIBUTES = Task("multilabel", ("hat", "glasses"))
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 6), dtype=np.uint8)
#: leaves the pixels as they are, but for rounding
RAW = InputSpec(8, 0.0, 1 / 255)

# identities 5, 6 and 7 have ranks 2, 0 and 1 and support photos 3, 9 and 4
SUPPORT = {5: (2, 3), 6: (0, 9), 7: (1, 4)}


def make_splits() -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": range(10), "identity": [5, 6, 7, 5, 7, 8, 8, 9, 9, 6], "role": "train"})
    frame["request_rank"] = frame["identity"].map({i: rank for i, (rank, _) in SUPPORT.items()}).astype("Int16")
    frame["is_support"] = frame["image_id"].isin([image for _, image in SUPPORT.values()])
    return frame


def make_index(task: Task) -> pd.DataFrame:
    label: Any = [0, 1, 2, 2, 1, 0, 0, 0, 0, 0]
    if task.kind == "multilabel":
        label = [[1, 0], [0, 1], [1, 1], [0, 0], [0, 1], *[[0, 0]] * 4, [1, 0]]
    return pd.DataFrame({"image_id": range(10), "label": label})


def write_request(path: Path, task: Task = CLASSES, n: int = 3, **change: Any) -> Path:
    frame = build_request(make_index(task), make_splits(), PIXELS, n).assign(**change)
    write_table(path, frame, REQUEST, {"task": task.kind, "classes": list(task.classes)})
    return path


def test_request_is_ordered_by_rank() -> None:
    request = build_request(make_index(CLASSES), make_splits(), PIXELS, 3)
    assert list(request.columns) == list(REQUEST.columns)
    assert request["request_rank"].tolist() == [0, 1, 2]
    assert request["identity"].tolist() == [6, 7, 5]
    assert request["label"].tolist() == [0, 1, 2]


def test_smaller_request_is_the_start_of_a_larger_one() -> None:
    request = build_request(make_index(CLASSES), make_splits(), PIXELS, 2)
    assert request["identity"].tolist() == [6, 7]


def test_request_holds_png_bytes_of_the_stored_pixels() -> None:
    request = build_request(make_index(CLASSES), make_splits(), PIXELS, 3)
    for data, image_id in zip(request["image"], [9, 4, 3], strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image), PIXELS[image_id].transpose(1, 2, 0))


def test_request_does_not_depend_on_the_order_of_rows() -> None:
    wanted = build_request(make_index(CLASSES), make_splits(), PIXELS, 3)
    found = build_request(make_index(CLASSES).iloc[::-1], make_splits().iloc[::-1], PIXELS, 3)
    pd.testing.assert_frame_equal(found, wanted)


@pytest.mark.parametrize("n", [0, 4])
def test_request_for_more_than_are_ranked_is_an_error(n: int) -> None:
    with pytest.raises(ConfigError, match=f"n = {n} identities .* allowed: 1 to 3"):
        build_request(make_index(CLASSES), make_splits(), PIXELS, n)


@pytest.mark.parametrize(
    ("task", "labels"),
    [(CLASSES, [0, 1, 2]), (ATTRIBUTES, [[1, 0], [0, 1], [0, 0]])],
    ids=["classes", "attributes"],
)
def test_round_trip_is_pixel_identical(tmp_path: Path, task: Task, labels: list[Any]) -> None:
    square = InputSpec(6, 0.0, 1 / 255)
    support = read_request(write_request(tmp_path / "r.parquet", task), task, square, CPU, stored_px=None)
    assert support.images.shape == (3, 3, 6, 6) and support.images.dtype == torch.float32
    assert support.labels.dtype == torch.int64 and support.labels.tolist() == labels
    assert support.identities.tolist() == [6, 7, 5]
    wanted = square.prepare(torch.from_numpy(PIXELS[[9, 4, 3]]))
    assert torch.equal(support.images, wanted)


def test_photos_of_the_inputs_size_are_not_resampled(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    support = read_request(
        write_request(tmp_path / "r.parquet", image=buffer.getvalue()), CLASSES, RAW, CPU, stored_px=None
    )
    assert np.array_equal(support.images[1].round().numpy(), image.transpose(2, 0, 1))


def test_photos_of_different_sizes_may_be_in_one_request(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    photos = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((8, 8), (5, 13), (40, 8))]
    data = []
    for photo in photos:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, format="PNG")
        data.append(buffer.getvalue())
    support = read_request(write_request(tmp_path / "r.parquet", image=data), CLASSES, RAW, CPU, stored_px=None)
    assert support.images.shape == (3, 3, 8, 8)
    for found, photo in zip(support.images, photos, strict=True):  # each as if it were alone
        assert torch.equal(found, RAW.prepare(torch.from_numpy(photo).permute(2, 0, 1)[None])[0])


@pytest.mark.parametrize("other", [Task("classification", ("young", "old", "oldest")), ATTRIBUTES])
def test_request_of_other_classes_is_an_error(tmp_path: Path, other: Task) -> None:
    path = write_request(tmp_path / "r.parquet")
    with pytest.raises(DataError, match=f"classification request with 3 classes, the model predicts {other.kind}"):
        read_request(path, other, RAW, CPU, stored_px=None)


def test_request_without_a_photo_is_an_error(tmp_path: Path) -> None:
    frame = build_request(make_index(CLASSES), make_splits(), PIXELS, 1).iloc[:0]
    write_table(tmp_path / "r.parquet", frame, REQUEST, {"task": "classification", "classes": list(CLASSES.classes)})
    with pytest.raises(DataError, match="nobody to forget"):
        read_request(tmp_path / "r.parquet", CLASSES, RAW, CPU, stored_px=None)


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_photo_that_cannot_be_decoded_is_an_error(tmp_path: Path, damage: str) -> None:
    images = build_request(make_index(CLASSES), make_splits(), PIXELS, 3)["image"].tolist()
    images[1] = {"empty": b"", "text": b"not a photo", "cut": images[1][:80]}[damage]
    path = write_request(tmp_path / "r.parquet", image=images)
    with pytest.raises(DataError, match=r"r\.parquet, row 1: the photo cannot be decoded"):
        read_request(path, CLASSES, RAW, CPU, stored_px=None)


def test_wrong_photos_are_of_validation_people_with_their_own_labels() -> None:
    splits = make_splits()
    splits.loc[splits["identity"].isin([8, 9]), "role"] = "val"  # images 5, 6 and 7, 8
    index = make_index(CLASSES).assign(label=[0, 1, 2, 2, 1, 1, 1, 2, 2, 0])
    right = build_request(index, splits, PIXELS, 2)
    wrong = build_wrong_photos(index, splits, PIXELS, 2, dataset="toy", seed=0)
    assert wrong[["request_rank", "identity"]].equals(right[["request_rank", "identity"]])
    pictures = [np.array(Image.open(io.BytesIO(data))).transpose(2, 0, 1) for data in wrong["image"]]
    shown = [next(i for i in range(10) if np.array_equal(picture, PIXELS[i])) for picture in pictures]
    assert len({5, 6} & set(shown)) == len({7, 8} & set(shown)) == 1
    assert wrong["label"].tolist() == [1 if image in (5, 6) else 2 for image in shown]
    first = build_wrong_photos(index, splits, PIXELS, 1, dataset="toy", seed=0)
    assert first["image"].tolist() == wrong["image"].tolist()[:1]
    with pytest.raises(ConfigError, match="n = 3 photos of other people are needed, but the validation set has 2"):
        build_wrong_photos(index, splits, PIXELS, 3, dataset="toy", seed=0)


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_a_photo_in_a_request_is_what_a_viewer_shows(tmp_path: Path) -> None:
    """Of requests that others write: the same rule as for images of a data set."""
    upright = Image.fromarray(PIXELS[0].transpose(1, 2, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    layered = upright.convert("RGBA")
    layered.putpixel((2, 3), (1, 2, 3, 0))
    photos = [encoded(upright), encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif), encoded(layered)]
    path = write_request(tmp_path / "r.parquet", image=photos)
    images = read_request(path, CLASSES, RAW, CPU, stored_px=[8, 6]).images
    assert torch.equal(images[0], images[1])
    white = upright.copy()
    white.putpixel((2, 3), (255, 255, 255))
    again = write_request(tmp_path / "white.parquet", image=[encoded(white)] * 3)
    assert torch.equal(images[2], read_request(again, CLASSES, RAW, CPU, stored_px=[8, 6]).images[0])


def test_a_photo_of_16_bits_in_a_request_is_refused(tmp_path: Path) -> None:
    deep = encoded(Image.fromarray(np.full((8, 6), 40_000, dtype=np.uint16)))
    path = write_request(tmp_path / "r.parquet", image=[deep] * 3)
    with pytest.raises(DataError, match=r"r\.parquet, row 0: the photo cannot be decoded \(more than 8 bits a channel"):
        read_request(path, CLASSES, RAW, CPU, stored_px=None)
