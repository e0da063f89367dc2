"""The input of a network with initial weights, against the transform of the library that trained them."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from oneshui.config import TrainSpec
from oneshui.models import ModelSpec, build_model
from oneshui.stages.images import input_of
from oneshui.tasks import Task

TASK = Task("classification", ("a", "b", "c"))
#: mean and deviation of ImageNet's channels; CLIP's; one half for each
TAGS = ["vit_small_patch14_dinov2.lvd142m", "vit_base_patch16_clip_224.openai", "tf_efficientnet_lite0.in1k"]
PERMUTED = [2, 0, 1]


def spec_of(tag: str, px: int) -> ModelSpec:
    """The model of a configuration that leaves mean and std to the tag."""
    training = {
        "model": tag, "model_options": {}, "init_weights": "timm", "input_px": px, "epochs": 1, "warmup_epochs": 0,
        "batch_size": 1, "optimiser": "sgd", "lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "crop_scale": [1.0, 1.0],
        "precision": "fp32", "revision": 1,
    }  # fmt: skip
    return ModelSpec.of_training(TrainSpec.from_dict(training), TASK)


def timms(tag: str, image: np.ndarray, px: int) -> Tensor:
    """What timm makes of an (H, W, 3) image: resized by PIL, which rounds to whole grey levels, and normalised."""
    config = timm.get_pretrained_cfg(tag)
    transform = create_transform(
        (3, px, px), is_training=False, mean=config.mean, std=config.std, crop_pct=1.0, crop_mode="squash",
        interpolation="bilinear",
    )  # fmt: skip
    return transform(Image.fromarray(image))


def ours(tag: str, image: np.ndarray, px: int) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return input_of(spec_of(tag, px)).prepare(pixels)[0]


def faces_like(height: int, width: int) -> np.ndarray:
    """A smooth image with another mean in each channel, (height, width, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 6, 3)) * np.array([1.0, 0.7, 0.4])
    return np.array(Image.fromarray(coarse.astype("uint8")).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("px", [48, 128, 224])
def test_channels_are_normalised_as_timm_does(tag: str, px: int) -> None:
    image = faces_like(px, px)
    for shown in (image, image[..., PERMUTED]):
        torch.testing.assert_close(ours(tag, shown, px), timms(tag, shown, px), rtol=0, atol=1e-5)
    moved = (ours(tag, image[..., PERMUTED], px) - ours(tag, image, px)[PERMUTED]).abs().max()
    assert (float(moved) > 0.1) == (tag != "tf_efficientnet_lite0.in1k")  # all channels alike there


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("stored", [(218, 178), (256, 256), (128, 128)])
def test_resized_images_differ_from_timms_by_its_rounding_only(tag: str, stored: tuple[int, int]) -> None:
    std = min(timm.get_pretrained_cfg(tag).std)
    image = faces_like(*stored)[..., PERMUTED]
    torch.testing.assert_close(ours(tag, image, 224), timms(tag, image, 224), rtol=0, atol=1.01 / 255 / std)


def test_answer_to_permuted_channels_changes_as_timms_does() -> None:
    tag, px = "vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224
    image = faces_like(px, px)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(ModelSpec(tag, TASK, px, 0.5, 0.5, {"embed_dim": 32, "depth": 2, "num_heads": 2}))
    tag = TAGS[0]  # this input for that network
    with torch.no_grad():
        plain, permuted, wanted = (
            model(each[None]) for each in (
                ours(tag, image, px), ours(tag, image[..., PERMUTED], px), timms(tag, image[..., PERMUTED], px),
            )
        )  # fmt: skip
    torch.testing.assert_close(permuted, wanted, rtol=0, atol=1e-5)
    assert float((permuted - plain).abs().max()) > 1e-3
