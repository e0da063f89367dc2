"""Activations at several depths, and relearning."""

import pytest
import torch
from tests.unit.methods.networks import NETWORKS, TASKS
from torch import nn

from oneshui.diagnostics import RELEARN_STEPS
from oneshui.methods.edit_points import edit_points
from oneshui.models import ModelSpec, build_model, features_and_logits
from oneshui.sets import ImageSet
from oneshui.traces import places_of, pooled_by_depth, relearned, steps_until


def network(name: str) -> tuple[nn.Module, int]:
    _, px, tiny = NETWORKS[name]
    options = {**tiny, "depth": 4} if "vit" in name else tiny
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(ModelSpec(name, TASKS["classification"], px, 0.5, 0.5, options)), px


def pooled(model: nn.Module, images: ImageSet) -> dict[str, torch.Tensor]:
    return pooled_by_depth(model, images, places_of(model, images))


def some_images(px: int, n: int = 6, seed: int = 0) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    return ImageSet.of_inputs(
        torch.randn(n, 3, px, px, generator=draw), torch.randint(0, 3, (n,), generator=draw), TASKS["classification"]
    )


def test_depths_of_a_resnet_are_outputs_of_its_blocks_averaged_over_the_image() -> None:
    model, px = network("resnet18")  # two blocks in each of four layers
    for parameter in model.parameters():
        if not parameter.any():  # before training the scale of each block's last layer is 0: it gives nothing
            nn.init.ones_(parameter)
    images = some_images(px)
    found = pooled(model, images)
    value = model.get_submodule("maxpool")(model.get_submodule("act1")(model.get_submodule("bn1")(
        model.get_submodule("conv1")(images.pixels))))  # fmt: skip
    with torch.no_grad():
        for depth, layer in zip((25, 50, 75, 100), ("layer1", "layer2", "layer3", "layer4"), strict=True):
            if depth == 100:  # of its two blocks the last is looked at from inside, too
                first, last = (model.get_submodule(f"layer4.{i}") for i in (0, 1))
                inner = first(value)
                for name in ("conv1", "bn1", "drop_block", "act1", "aa"):
                    inner = last.get_submodule(name)(inner)
                torch.testing.assert_close(found["projection"], inner.mean((2, 3)))
            value = model.get_submodule(layer)(value)
            torch.testing.assert_close(found[str(depth)], value.mean((2, 3)))
        assert "90" not in found  # it would be the eighth of eight blocks
        torch.testing.assert_close(found["features"], features_and_logits(model, images.pixels)[0])


def test_an_edit_of_one_layer_leaves_what_it_reads() -> None:
    model, px = network("tf_efficientnet_lite0")
    images = some_images(px)
    before = pooled(model, images)
    (point,) = edit_points(model, images.pixels, 1)
    with torch.no_grad():
        for weight in model.get_submodule(point.layer).parameters():
            weight.add_(0.1)
    after = pooled(model, images)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"100", "features"}


def test_a_network_without_a_last_projection_has_the_other_depths() -> None:
    model, px = network("densenet121")
    assert set(places_of(model, some_images(px))) == {"25", "50", "75", "100"}


def test_depths_of_a_vit_are_averaged_over_its_tokens() -> None:
    model, px = network("vit_tiny_patch16_224")
    images = some_images(px)
    found = pooled(model, images)
    assert {name: tuple(value.shape) for name, value in found.items()} == dict.fromkeys(
        ("25", "50", "75", "100", "features"), (6, 32)
    ) | {"projection": (6, 128)}
    with torch.no_grad():
        tokens = model.forward_features(images.pixels)  # type: ignore[operator]
        norm = model.get_submodule("norm")
        last = []
        handle = norm.register_forward_pre_hook(lambda _, taken: last.append(taken[0]))
        model(images.pixels)
        handle.remove()
    assert tokens.shape[1] == last[0].shape[1]
    torch.testing.assert_close(found["100"], last[0].mean(1))


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0"])
def test_every_layout_of_activations_gives_one_vector_an_image(name: str) -> None:
    model, px = network(name)
    found = pooled(model, some_images(px))
    assert all(value.ndim == 2 and len(value) == 6 for value in found.values())
    if "swin" in name:
        assert found["100"].shape == (6, 32)  # channels come last there


def test_relearning_starts_at_what_the_model_knows_and_leaves_it_as_it_is() -> None:
    model, px = network("resnet10t")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shown, held = some_images(px, 12), some_images(px, 8, 1)
    curve = relearned(model, shown, held, seed=0)
    assert len(curve) == RELEARN_STEPS + 1
    with torch.no_grad():
        assert curve[0] == pytest.approx(float((model(held.pixels).argmax(1) == held.labels).float().mean()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert curve == relearned(model, shown, held, seed=0)


def test_what_is_shown_is_learned() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))
    shown, others = some_images(64, 12), some_images(64, 200, 1)
    assert relearned(model, shown, shown, seed=0)[-1] == 1.0
    assert relearned(model, shown, others, seed=0)[-1] < 0.5


def test_the_first_step_that_reaches_a_value() -> None:
    assert steps_until([0.1, 0.5, 0.4, 0.9], 0.5) == 1
    assert steps_until([0.6, 0.5], 0.5) == 0
    assert steps_until([0.1, 0.2], 0.5) == 2
