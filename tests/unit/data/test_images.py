"""Images as a model's input: the same crops and the same numbers as torchvision's transforms, in batches."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from oneshui.data.images import open_pixels
from oneshui.errors import DataError
from oneshui.sets import ImageSet, InputSpec, random_crop_boxes, resample
from oneshui.tasks import Task

CPU = torch.device("cpu")

# ---- resample


def torchvision_crop(pixels: Tensor, box: Tensor, px: int, flip: bool) -> Tensor:
    from torchvision.transforms.v2 import functional

    top, left, height, width = (int(value) for value in box)
    wanted = functional.resized_crop(pixels.float(), top, left, height, width, [px, px], antialias=True)
    return functional.horizontal_flip(wanted) if flip else wanted


@pytest.mark.parametrize("px", [7, 32, 90])  # shrinks, about keeps and enlarges
@pytest.mark.parametrize(("height", "width"), [(48, 48), (60, 37)])
def test_resample_agrees_with_torchvision(height: int, width: int, px: int) -> None:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (8, 3, height, width), generator=draw, dtype=torch.uint8)
    boxes = random_crop_boxes(8, height, width, (0.1, 1.0), draw)
    boxes[0] = torch.tensor([0.0, 0.0, height, width])
    boxes[1] = torch.tensor([height - 5.0, width - 9.0, 5.0, 9.0])
    flip = torch.tensor([True, False] * 4)
    found = resample(pixels, boxes, px, flip)
    assert found.shape == (8, 3, px, px) and found.dtype == torch.float32
    for row in range(8):
        wanted = torchvision_crop(pixels[row], boxes[row], px, bool(flip[row]))
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-3)


def test_resample_of_two_pixels_by_hand() -> None:
    pixels = torch.tensor([0.0, 80.0]).expand(1, 3, 2, 2)
    whole = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    # centres of the four outputs lie at 0.25, 0.75, 1.25, 1.75 px, those of the inputs at 0.5 and 1.5
    assert resample(pixels, whole, 4)[0, 0, 0].tolist() == [0.0, 20.0, 60.0, 80.0]
    assert resample(pixels, whole, 1)[0, :, 0, 0].tolist() == [40.0, 40.0, 40.0]
    assert resample(pixels, whole, 4, torch.tensor([True]))[0, 0, 0].tolist() == [80.0, 60.0, 20.0, 0.0]


def test_a_crop_does_not_see_beyond_its_border() -> None:
    pixels = torch.zeros(1, 3, 10, 10)
    pixels[:, :, 2:8, 2:8] = 7.0
    found = resample(pixels, torch.tensor([[2.0, 2.0, 6.0, 6.0]]), 4)
    torch.testing.assert_close(found, torch.full((1, 3, 4, 4), 7.0))


# ---- crop boxes


@pytest.mark.parametrize(("height", "width", "scale"), [(64, 64, (0.08, 1.0)), (90, 60, (0.3, 0.9))])
def test_crop_boxes_are_distributed_as_torchvision_draws_them(
    height: int, width: int, scale: tuple[float, float]
) -> None:
    from torchvision.transforms import RandomResizedCrop

    n = 4000
    boxes = random_crop_boxes(n, height, width, scale, torch.Generator().manual_seed(0))
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = torch.tensor(
            [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(n)], dtype=torch.float32
        )
    for statistic in (
        lambda b: b[:, 2] * b[:, 3] / (height * width),
        lambda b: (b[:, 3] / b[:, 2]).log(),
        lambda b: b[:, 0] / (height - b[:, 2] + 1),
        lambda b: b[:, 1] / (width - b[:, 3] + 1),
    ):
        ours, wanted = statistic(boxes), statistic(theirs)
        error = float((ours.var() / n + wanted.var() / n).sqrt())
        assert abs(float(ours.mean() - wanted.mean())) < 4 * error
        assert float(ours.std()) == pytest.approx(float(wanted.std()), rel=0.06)
        # largest distance of the two empirical distributions; 1.95 sqrt(2 / n) is exceeded once in a thousand draws
        both = torch.cat([ours, wanted])
        share = [(torch.searchsorted(part.sort().values, both, right=True) / n) for part in (ours, wanted)]
        assert float((share[0] - share[1]).abs().max()) < 1.95 * (2 / n) ** 0.5


def test_crop_boxes_lie_inside_the_image_and_are_whole() -> None:
    boxes = random_crop_boxes(3000, 40, 30, (0.05, 1.0), torch.Generator().manual_seed(0))
    top, left, tall, wide = boxes.T
    assert torch.equal(boxes, boxes.round())
    assert top.min() >= 0 and left.min() >= 0 and tall.min() >= 1 and wide.min() >= 1
    assert (top + tall).max() == 40 and (left + wide).max() == 30  # the border is reached, and not crossed


@pytest.mark.parametrize(
    ("height", "width", "wanted", "share"),
    [
        (10, 400, [0, 193, 10, 13], 1.0),  # 4/3 as wide as high, in the middle
        (400, 9, [194, 0, 12, 9], 1.0),  # 3/4
        (100, 120, [0, 0, 100, 120], 0.8),  # the whole image, unless by rounding a crop like it fits
    ],
)
def test_shapes_that_no_crop_fits_fall_back_to_the_centre(
    height: int, width: int, wanted: list[int], share: float
) -> None:
    boxes = random_crop_boxes(200, height, width, (1.0, 1.0), torch.Generator().manual_seed(0))
    central = (boxes == torch.tensor(wanted, dtype=torch.float32)).all(1)
    assert float(central.float().mean()) >= share


def test_crop_boxes_depend_on_the_generator_only() -> None:
    first, again, other = (
        random_crop_boxes(5, 64, 64, (0.1, 1.0), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ---- InputSpec and ImageSet

TASK = Task("classification", ("a", "b", "c"))
PIXELS = torch.randint(256, (6, 3, 20, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make_set(px: int = 8) -> ImageSet:
    return ImageSet(
        PIXELS, torch.tensor([4, 0, 5, 2]), torch.tensor([1, 2, 0, 1]), torch.tensor([40, 0, 50, 20]),
        InputSpec(px, 0.4, 0.25), TASK, CPU,
    )  # fmt: skip


def test_normalise_by_hand() -> None:
    values = torch.tensor([0.0, 255.0, 102.0]).reshape(1, 3, 1, 1)
    found = InputSpec(8, 0.4, 0.25).normalise(values)
    torch.testing.assert_close(found.flatten(), torch.tensor([-1.6, 2.4, 0.0]))


def test_prepare_of_the_stored_size_only_normalises() -> None:
    square = PIXELS[:, :, :16]
    found = InputSpec(16, 0.5, 0.5).prepare(square)
    torch.testing.assert_close(found, square.float() / 127.5 - 1)
    assert square.dtype == torch.uint8  # and is left as it was


def test_prepare_squashes_the_whole_image() -> None:
    found = InputSpec(8, 0.4, 0.25).prepare(PIXELS)
    wanted = torchvision_crop(PIXELS[2], torch.tensor([0, 0, 20, 16]), 8, False)
    torch.testing.assert_close(found[2], (wanted / 255 - 0.4) / 0.25, rtol=0, atol=1e-5)


def test_subset_takes_numbers_in_their_order_or_a_mask() -> None:
    images = make_set()
    some = images.subset(torch.tensor([3, 0]))
    assert (some.image_ids.tolist(), some.labels.tolist(), some.identities.tolist()) == ([2, 4], [1, 1], [20, 40])
    assert torch.equal(some.images(torch.tensor([1])), images.images(torch.tensor([0])))
    masked = images.subset(torch.tensor([False, True, True, False]))
    assert (len(masked), masked.image_ids.tolist()) == (2, [0, 5])
    assert masked.subset(torch.tensor([1])).image_ids.tolist() == [5]


def test_batches_are_all_images_in_order() -> None:
    images = make_set()
    batches = list(images.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == [1, 2, 0, 1]
    wanted = InputSpec(8, 0.4, 0.25).prepare(PIXELS[[4, 0, 5, 2]])
    torch.testing.assert_close(torch.cat([pixels for pixels, _ in batches]), wanted)


def test_images_can_be_asked_for_twice() -> None:
    images = make_set(16)  # normalising works in place; the stored pixels must not change
    before = PIXELS.clone()
    first = images.images(torch.tensor([0, 1])).clone()
    assert torch.equal(images.images(torch.tensor([0, 1])), first)
    assert torch.equal(PIXELS, before)


def test_augmented_images_depend_on_the_generator_only() -> None:
    rows = torch.tensor([0, 2, 3])
    first, again, other = (
        make_set().augmented(rows, (0.2, 1.0), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (3, 3, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmented_images_are_flipped_half_of_the_time() -> None:
    left = torch.arange(16).expand(1, 3, 16, 16).to(torch.uint8).contiguous()  # darker on the left
    images = ImageSet(left, torch.zeros(400, dtype=torch.int64), torch.zeros(400, dtype=torch.int64),
                      torch.zeros(400, dtype=torch.int64), InputSpec(8, 0.5, 0.5), TASK, CPU)  # fmt: skip
    made = images.augmented(torch.arange(400), (0.5, 1.0), torch.Generator().manual_seed(0))
    flipped = (made[:, 0, 0, 0] > made[:, 0, 0, -1]).float().mean()
    assert 0.4 < float(flipped) < 0.6


# ---- open_pixels


def test_pixels_are_read_without_warning(tmp_path: Path) -> None:
    array = PIXELS.numpy()
    np.save(tmp_path / "images.npy", array)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it may not write
        pixels = open_pixels(tmp_path / "images.npy", CPU)
    assert torch.equal(pixels, PIXELS)
    pixels[0] = 0  # copy on write
    assert np.array_equal(np.load(tmp_path / "images.npy"), array)


def test_what_does_not_fit_on_the_gpu_stays_on_disk_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "images.npy", PIXELS.numpy())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (PIXELS.numel(), 2 * PIXELS.numel()))
    caplog.set_level(logging.INFO, logger="oneshui")
    assert open_pixels(tmp_path / "images.npy", torch.device("cuda")).device == CPU
    assert "stays on disk" in caplog.text


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 4, 4), dtype=np.float32),
        np.zeros((2, 4, 4, 3), dtype=np.uint8),
        np.zeros((3, 4, 4), dtype=np.uint8),
    ],
)
def test_pixels_of_another_kind_are_an_error(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(DataError, match=r"expected uint8 \(N, 3, H, W\)"):
        open_pixels(tmp_path / "images.npy", CPU)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "pickle"])
def test_unreadable_pixels_are_an_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "images.npy"
    np.save(path, PIXELS.numpy() if damage != "pickle" else np.array([{"a": 1}]), allow_pickle=True)
    if damage == "missing":
        path.unlink()
    elif damage != "pickle":
        path.write_bytes({"empty": b"", "text": b"hello", "cut": path.read_bytes()[:-10]}[damage])
    with pytest.raises(DataError, match="not a readable image store"):
        open_pixels(path, CPU)
