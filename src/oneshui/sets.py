"""Sets of images as models see them, and the photos of a request. Nothing here opens a file.

Images are uint8 as stored until a batch is made: cropped, flipped, resized and normalised on the device.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from oneshui.config import Channels, per_channel
from oneshui.errors import ConfigError, DataError
from oneshui.tasks import Task
from oneshui.tensors import upload

#: tries per image before RandomResizedCrop falls back to the largest centred crop, as in torchvision
_CROP_TRIES = 10


def resample(pixels: Tensor, boxes: Tensor, out_px: int, flip: Tensor | None = None) -> Tensor:
    """Return crops of ``pixels`` resized to ``out_px`` squares, (B, 3, out_px, out_px) float32 in [0, 255].

    Bilinear with a triangle filter that widens where it shrinks the image: the same numbers as torchvision's
    ``resized_crop(antialias=True)`` without its rounding to integers. Each image is two small matrix products,
    rows and columns, so that a whole batch of different crops is one call.

    Args:
        pixels: (B, 3, H, W) uint8 or float.
        boxes: (B, 4) top, left, height, width in px, inside the image.
        out_px: side of the output, px.
        flip: (B,) bool, mirror left-right.
    """
    height, width = pixels.shape[-2:]
    rows = _filter_matrix(boxes[:, 0], boxes[:, 2], height, out_px)  # (B, out, H)
    columns = _filter_matrix(boxes[:, 1], boxes[:, 3], width, out_px)  # (B, out, W)
    if flip is not None:
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    wide = pixels.float() @ columns.transpose(1, 2)[:, None]  # (B, 3, H, out)
    return rows[:, None] @ wide


def _filter_matrix(start: Tensor, length: Tensor, size: int, out_px: int) -> Tensor:
    """Return (B, out_px, size) weights of the triangle filter over source pixels, each row summing to 1."""
    scale = (length / out_px)[:, None, None]
    centre = start[:, None, None] + (torch.arange(out_px, device=start.device)[None, :, None] + 0.5) * scale
    source = torch.arange(size, device=start.device)[None, None, :] + 0.5
    weights = (1 - (source - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    low, high = start[:, None, None], (start + length)[:, None, None]
    weights = weights * ((source > low) & (source < high))  # a crop does not see beyond its border
    return weights / weights.sum(dim=2, keepdim=True)


def random_crop_boxes(
    n: int, height: int, width: int, scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Return (n, 4) boxes (top, left, height, width; float32 whole numbers) as torchvision's RandomResizedCrop draws.

    Args:
        n: number of boxes.
        height: of the image, px.
        width: of the image, px.
        scale: range of the crop's share of the image's area, within (0, 1].
        generator: CPU generator.
    """
    area = height * width * torch.empty(n, _CROP_TRIES).uniform_(*scale, generator=generator)
    ratio = torch.empty(n, _CROP_TRIES).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    tall, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = torch.where(fits.any(1), fits.float().argmax(1), 0)[:, None]
    tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    place = torch.rand(n, 2, generator=generator)
    top, left = (place[:, 0] * (height - tall + 1)).floor(), (place[:, 1] * (width - wide + 1)).floor()
    boxes = torch.stack([top, left, tall, wide], 1)
    boxes[~fits.any(1)] = _central_box(height, width)
    return boxes


def _central_box(height: int, width: int) -> Tensor:
    """The largest centred crop with a ratio between 3/4 and 4/3."""
    tall, wide = height, width
    if width / height < 3 / 4:
        tall = round(width / (3 / 4))
    elif width / height > 4 / 3:
        wide = round(height * (4 / 3))
    return torch.tensor([(height - tall) // 2, (width - wide) // 2, tall, wide], dtype=torch.float32)


@cache
def _scale_and_shift(mean: Channels, std: Channels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return 1 / (255 std) and mean / std as (3, 1, 1) tensors, put on the device once."""
    with torch.inference_mode(False):  # kept for training, too
        scale, shift = (
            1 / (255 * torch.tensor(std, dtype=torch.float64)),
            (torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)),
        )
        scale, shift = (value.float()[:, None, None].to(device) for value in (scale, shift))
    return scale, shift


@dataclass(frozen=True)
class InputSpec:
    """How stored pixels become a model's input.

    Attributes:
        px: side of the square input.
        mean: of the values in [0, 1] of each channel; a number stands for all three.
        std: of the values in [0, 1] of each channel, > 0.
    """

    px: int
    mean: Channels
    std: Channels

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", per_channel(self.mean))
        object.__setattr__(self, "std", per_channel(self.std))

    def normalise(self, values: Tensor) -> Tensor:
        """Return values in [0, 255], (B, 3, H, W), as normalised input, in the memory layout of convolutions.

        ``values`` are overwritten.
        """
        scale, shift = _scale_and_shift(self.mean, self.std, values.device)
        return values.mul_(scale).sub_(shift).contiguous(memory_format=torch.channels_last)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return uint8 ``pixels`` (B, 3, H, W) under the test transform: resized to a square, normalised."""
        height, width = pixels.shape[-2:]
        if (height, width) == (self.px, self.px):
            return self.normalise(pixels.float())
        whole = upload(torch.tensor([0.0, 0.0, height, width]), pixels.device).expand(len(pixels), 4)
        return self.normalise(resample(pixels, whole, self.px))


@dataclass(frozen=True)
class ImageSet:
    """Some labelled images of known people, ready to be cut into batches on a device.

    Attributes:
        pixels: (N, 3, H, W) uint8, the whole dataset, on the device or memory-mapped.
        image_ids: (M,) int64, rows of ``pixels``, on the device of ``pixels``.
        labels: (M,) int64 or (M, A) of 0/1, on ``device``.
        identities: (M,) int64, on the CPU; -1 where nobody knows.
        input: how pixels become the model's input; None if they are the input already.
        task: what the labels mean.
        device: where batches are made.
        photos: photos of some of these people that no model was trained on, one each, to simulate requests with; None
            where there are none.
    """

    pixels: Tensor
    image_ids: Tensor
    labels: Tensor
    identities: Tensor
    input: InputSpec | None
    task: Task
    device: torch.device
    photos: "ImageSet | None" = None

    @classmethod
    def of_inputs(cls, images: Tensor, labels: Tensor, task: Task, identities: Tensor | None = None) -> "ImageSet":
        """Return a set of ready-made inputs, (M, 3, px, px) float: to call a method from Python.

        Args:
            images: normalised, as the model takes them.
            labels: (M,) int64 or (M, A) of 0/1.
            task: what the labels mean.
            identities: (M,) int64 on the CPU; None: nobody knows.
        """
        rows = torch.arange(len(images), device=images.device)
        known = torch.full((len(images),), -1) if identities is None else identities
        return cls(images, rows, labels, known, None, task, images.device)

    def __len__(self) -> int:
        return len(self.image_ids)

    def subset(self, rows: Tensor) -> "ImageSet":
        """Return the images at ``rows`` (int64 or bool), in that order."""
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        return replace(
            self,
            image_ids=self.image_ids[rows.to(self.image_ids.device)],
            labels=self.labels[rows.to(self.device)],
            identities=self.identities[rows.cpu()],
        )

    def images(self, rows: Tensor) -> Tensor:
        """Return the images at ``rows`` under the test transform, (B, 3, px, px) float32 on the device."""
        stored = self._stored(rows)
        return stored if self.input is None else self.input.prepare(stored)

    def augmented(self, rows: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
        """Return the images at ``rows`` under RandomResizedCrop(scale) and a horizontal flip.

        The random numbers are drawn on the CPU, so that a run sees the same crops on every device.

        Raises:
            ConfigError: ready-made inputs are to be cropped; they can only be mirrored, with a scale of (1, 1).
        """
        return self.augment(*self.draw(rows, scale, generator))

    def draw(self, rows: Tensor, scale: tuple[float, float], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return what ``augment`` makes a batch of ``augmented`` from: tensors on the device, whose shapes depend on
        the number of rows alone.
        """
        boxes: list[Tensor] = []
        if self.input is not None:
            height, width = self.pixels.shape[-2:]
            boxes = [random_crop_boxes(len(rows), height, width, scale, generator)]
        elif scale != (1.0, 1.0):
            raise ConfigError(f"crop_scale = {list(scale)}: ready-made inputs can only be mirrored, use [1.0, 1.0]")
        flip = torch.rand(len(rows), generator=generator) < 0.5
        return (self._stored(rows), *(upload(each, self.device) for each in (*boxes, flip)))

    def augment(self, stored: Tensor, *crop: Tensor) -> Tensor:
        """Return a batch from what ``draw`` returned. Nothing here waits for the device."""
        if self.input is None:
            (flip,) = crop
            return torch.where(flip[:, None, None, None], stored.flip(3), stored)
        boxes, flip = crop
        return self.input.normalise(resample(stored, boxes, self.input.px, flip))

    def cropped(self, rows: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
        """Return the images at ``rows`` cut to ``boxes`` (B, 4) and mirrored where ``flip`` (B,) says so."""
        assert self.input is not None, "ready-made inputs cannot be cropped"
        return self.augment(self._stored(rows), upload(boxes, self.device), upload(flip, self.device))

    def batches(self, batch_size: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) in order under the test transform, the last batch smaller, from batch ``first`` on."""
        for rows in torch.arange(len(self)).split(batch_size)[first:]:
            yield self.images(rows), self.labels[upload(rows, self.device)]

    def _stored(self, rows: Tensor) -> Tensor:
        return upload(self.pixels[self.image_ids[upload(rows, self.image_ids.device)]], self.device)


@dataclass(frozen=True)
class Support:
    """The support set S of a request: one photo of each identity that asks to be forgotten.

    Attributes:
        images: (N_S, 3, px, px) float32 under the test transform.
        labels: (N_S,) int64 or (N_S, A) of 0/1.
        identities: (N_S,) int64 on the CPU.
        task: what the labels mean.
    """

    images: Tensor
    labels: Tensor
    identities: Tensor
    task: Task

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.identities):
            raise DataError(
                f"a support set has {len(self.images)} images, {len(self.labels)} labels and "
                f"{len(self.identities)} identities; the three must agree"
            )
        if not len(self.images):
            raise DataError("the request holds no photo: there is nobody to forget. Give at least one support image.")
