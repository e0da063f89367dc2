"""Layers that can be edited: which ones are found, and that a change of their weights does what it says."""

from typing import Any

import pytest
import torch
from tests.unit.methods.networks import NETWORKS, TASKS
from torch import Tensor, nn

from oneshui.errors import ConfigError
from oneshui.methods.edit_points import Recorder, edit_points
from oneshui.methods.identity_edits import _add
from oneshui.models import ModelSpec, build_model

DEEP = {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
#: network -> options, layers that are found in its last two blocks
FOUND: dict[str, tuple[dict[str, Any], list[str]]] = {
    "resnet10t": ({}, ["layer3.0.conv2", "layer4.0.conv2"]),
    "resnet18": ({}, ["layer4.0.conv2", "layer4.1.conv2"]),
    "test_resnet": ({}, ["layer3.0.conv3", "layer4.0.conv2"]),
    "regnetx_002": ({}, ["s4.b6.conv3.conv", "s4.b7.conv3.conv"]),
    "tf_efficientnet_lite0": ({}, ["blocks.5.3.conv_pwl", "blocks.6.0.conv_pwl"]),
    "mobilenetv3_small_050": ({}, ["blocks.4.1.conv_pwl", "blocks.4.2.conv_pwl"]),
    "convnext_atto": ({}, ["stages.2.blocks.0.mlp.fc2", "stages.3.blocks.0.mlp.fc2"]),
    "vit_tiny_patch16_224": (
        DEEP, ["blocks.1.attn.proj", "blocks.1.mlp.fc2", "blocks.2.attn.proj", "blocks.2.mlp.fc2"],
    ),
    "vit_small_patch14_reg4_dinov2": (
        DEEP, ["blocks.1.attn.proj", "blocks.1.mlp.fc2", "blocks.2.attn.proj", "blocks.2.mlp.fc2"],
    ),
}  # fmt: skip


def trained_like(name: str, options: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """Return a network none of whose weights are at 0, where timm starts some, and images."""
    _, px, tiny = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_model(ModelSpec(name, TASKS["classification"], px, 0.5, 0.5, {**tiny, **options}))
        with torch.no_grad():
            for value in model.parameters():
                if value.ndim == 1:
                    value.uniform_(0.5, 1.5)
        return model, torch.randn(8, 3, px, px)


@pytest.mark.parametrize("name", FOUND)
def test_the_last_projections_of_the_last_blocks_are_found(name: str) -> None:
    options, layers = FOUND[name]
    model, images = trained_like(name, options)
    assert [point.layer for point in edit_points(model, images, 2)] == layers


@pytest.mark.parametrize("name", FOUND)
def test_a_change_of_the_weights_moves_the_sum_by_that_much(name: str) -> None:
    model, images = trained_like(name, FOUND[name][0])
    points = edit_points(model, images, 2)
    for i, point in enumerate(points):
        model, images = trained_like(name, FOUND[name][0])
        recorder = Recorder(model, points)
        keys, before, _ = recorder(images)
        change = torch.randn(before[i].shape[-1], keys[i].shape[-1], dtype=torch.float64) * 0.1
        _add(model.get_submodule(point.layer), change, point.scale)
        _, after, _ = recorder(images)
        wanted = keys[i] @ change.T
        assert ((after[i] - before[i]) - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_of_a_vits_last_block_only_the_class_token_counts() -> None:
    model, images = trained_like("vit_tiny_patch16_224", DEEP)
    points = {point.layer: point for point in edit_points(model, images, 2)}
    assert points["blocks.2.mlp.fc2"].positions.tolist() == [0]
    assert points["blocks.2.attn.proj"].positions.tolist() == [0]
    assert points["blocks.1.mlp.fc2"].positions.tolist() == list(range(17))


def test_networks_are_left_as_they_were() -> None:
    model, images = trained_like("resnet10t", {})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    edit_points(model, images, 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["nf_regnet_b0", pytest.param("tf_efficientnet_cc_b0_4e", marks=pytest.mark.slow)])
def test_a_network_whose_last_block_cannot_be_edited_is_refused(name: str) -> None:
    model, images = trained_like(name, {})
    with pytest.raises(
        ConfigError, match=r"blocks = 1, allowed: at most 0, of whose layers one gives what is only add"
    ):
        edit_points(model, images, 1)


def test_more_blocks_than_there_are_is_refused() -> None:
    model, images = trained_like("vit_tiny_patch16_224", DEEP)
    with pytest.raises(ConfigError, match="blocks = 4, allowed: at most 3"):
        edit_points(model, images, 4)
