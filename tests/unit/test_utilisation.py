"""Rates against arithmetic by hand."""

import pytest
import torch
from torch import nn

from oneshui.models import ModelSpec, build_model
from oneshui.tasks import Task
from oneshui.utilisation import forward_flop, peak_flop_per_s, training_rate


def test_multiplications_and_additions_of_a_small_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 5, bias=False))
    assert forward_flop(model, 4) == 2 * (16 * 8 * 3 * 9 + 8 * 16 * 5)


def test_a_vit_needs_what_its_authors_say() -> None:
    model = build_model(ModelSpec("vit_tiny_patch16_224", Task("classification", ("a", "b")), 224, 0.5, 0.5))
    tokens, width, depth = 197, 192, 12
    dense = 2 * tokens * 12 * width**2
    attention = 2 * 2 * tokens**2 * width
    assert forward_flop(model, 224) == pytest.approx(depth * (dense + attention) + 2 * 196 * 768 * width, rel=0.01)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward_flop(model, 4)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [("NVIDIA H100 80GB HBM3", "bf16", 989.5e12), ("NVIDIA H100 PCIe", "bf16", 756e12),
     ("NVIDIA H200", "fp32", 494.7e12), ("NVIDIA GeForce GTX 970", "fp32", None)],
)  # fmt: skip
def test_peaks(name: str, precision: str, peak: float | None) -> None:
    assert peak_flop_per_s(name, precision) == peak


def test_the_phrase() -> None:
    assert training_rate(5000, 2.0, 34e9, 989e12) == "2,500 images/s, 255 TFLOP/s, 26% of its peak"
    assert training_rate(50, 2.0, 1e9, None) == "25 images/s, 0.075 TFLOP/s"
