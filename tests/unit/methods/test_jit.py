"""JiT against the slope of the network written out image by image, in float64."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from tests.unit.methods.direct import (
    NETS,
    TASKS,
    assert_moved_alike,
    length_ratio,
    make_net,
    make_set,
    same_weights,
    weights,
)
from torch import Tensor, nn

from oneshui.errors import ConfigError
from oneshui.methods import jit
from oneshui.methods.jit import JiT
from oneshui.sets import Support
from oneshui.tasks import Task

METHOD = JiT(lr=0.02, noise_std=0.6, n_samples=3, batch_size=64)


def support_of(task: Task, n: int = 5) -> Support:
    """Return photos of different brightness and contrast: each batch has its own range of pixels."""
    asked = make_set(n, task, 7)
    scale, shift = torch.linspace(0.2, 1.5, n).double(), torch.linspace(2, -1, n).double()
    images = asked.pixels.tanh() * scale[:, None, None, None] + shift[:, None, None, None]
    return Support(images, asked.labels, asked.identities, task)


def direct_jit(model: nn.Module, images: Tensor, method: JiT, seed: int) -> tuple[nn.Module, list[float]]:
    """Return the model after one step per batch, with the loss before each."""
    model, losses = copy.deepcopy(model), []
    draw = torch.Generator().manual_seed(seed)
    for start in range(0, len(images), method.batch_size):
        batch = images[start : start + method.batch_size]
        low, high = float(batch.min()), float(batch.max())
        loss = torch.zeros((), dtype=torch.float64)
        for _ in range(method.n_samples):
            noise = method.noise_std * torch.randn(batch.shape, generator=draw)  # float32
            for image, e in zip(batch, noise, strict=True):
                noisy = (image + e).clip(low, high)
                change = model(image[None]) - model(noisy[None]).detach()
                distance = (image - noisy).square().sum().sqrt()
                loss = loss + change.square().sum().sqrt() / distance / method.n_samples
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.copy_(parameter - method.lr * gradient)
        losses.append(float(loss.detach()))
    return model, losses


def test_copies_that_are_shown_at_once_count_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, support = make_net("vit", TASKS["classification"]), support_of(TASKS["classification"])
    seen: list[int] = []
    model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    monkeypatch.setattr(jit, "_copies_at_once", lambda images: 2)
    found = METHOD.unlearn(model, support, None, seed=3)
    assert seen == [5, 10, 5]  # the photos; two copies of each, and one
    wanted, (loss,) = direct_jit(model, support.images, METHOD, 3)
    assert found.diagnostics["slope"] == pytest.approx(loss, rel=1e-9)
    assert_moved_alike(weights(model), found.model, wanted)


@pytest.mark.parametrize("batch_size", [64, 2])
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("net", NETS)
def test_each_batch_takes_one_step_down_its_own_slope(net: str, kind: str, batch_size: int) -> None:
    task = TASKS[kind]
    model, support = make_net(net, task), support_of(task)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over from elsewhere
    start, method = weights(model), dataclasses.replace(METHOD, batch_size=batch_size)
    result = method.unlearn(model, support, None, seed=3)
    wanted, losses = direct_jit(model, support.images, method, seed=3)
    assert len(losses) == (1 if batch_size == 64 else 3)
    assert_moved_alike(start, result.model, wanted)
    assert result.diagnostics["slope"] == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    assert result.diagnostics["relative_step"] == pytest.approx(length_ratio(start, wanted), rel=1e-9)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def linear(weight: float) -> nn.Module:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, weight)
    return model


def test_one_weight_by_hand() -> None:
    model = linear(3.0)
    images, noise = torch.tensor([[2.0], [4.0]]).double(), torch.ones(1, 2, 1).double()
    method = dataclasses.replace(METHOD, lr=0.1, noise_std=0.5, n_samples=1)
    # 2 goes to 2.5 and the answer from 6 to the constant 7.5; 4 is the brightest pixel and cannot go to 4.5
    assert method.step(model, images, noise) == pytest.approx(1.5 / 0.5, rel=1e-12)
    assert float(model.weight.detach()) == pytest.approx(3.0 + 0.1 * 2 / 0.5, rel=1e-12)


class Eye(nn.Module):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(1).double()), []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.flatten(1) * self.weight


def test_noisy_pixels_stay_in_the_range_of_the_batch() -> None:
    images = torch.stack([torch.linspace(-0.1, 0.1, 192), torch.linspace(-1, 3, 192)]).double().reshape(2, 3, 8, 8)
    noise = torch.randn(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    model = Eye()
    dataclasses.replace(METHOD, noise_std=5.0, n_samples=4).step(model, images, noise)
    clean, *noisy = model.seen
    assert torch.equal(clean, images)
    assert len(noisy) == 4
    for seen in noisy:  # the photo of little contrast reaches as far as the other
        assert seen.flatten(1).min(dim=1).values.tolist() == [-1.0, -1.0]
        assert seen.flatten(1).max(dim=1).values.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("net", NETS)
def test_a_photo_of_one_colour_changes_nothing(net: str) -> None:
    task = TASKS["multilabel"]
    model = make_net(net, task)
    grey = torch.full((1, 3, 32, 32), 0.3, dtype=torch.float64)
    result = METHOD.unlearn(model, Support(grey, torch.ones(1, 5), torch.tensor([0]), task), None, seed=0)
    assert same_weights(result.model, model)
    assert result.diagnostics == {"relative_step": 0.0, "slope": 0.0}


def test_seed_decides_the_weights() -> None:
    task = TASKS["classification"]
    model, support = make_net("vit", task), support_of(task)
    first, again, other = (METHOD.unlearn(model, support, None, seed=seed).model for seed in (3, 3, 4))
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_global_generator_is_not_touched() -> None:
    task = TASKS["classification"]
    model, before = make_net("vit", task), torch.random.get_rng_state()
    METHOD.unlearn(model, support_of(task), None, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_frozen_parameters_do_not_move() -> None:
    task = TASKS["classification"]
    model = make_net("vit", task)
    model.get_parameter("head.weight").requires_grad_(False)
    result = METHOD.unlearn(model, support_of(task), None, seed=3).model
    assert torch.equal(result.get_parameter("head.weight"), model.get_parameter("head.weight"))
    assert not torch.equal(result.get_parameter("norm.weight"), model.get_parameter("norm.weight"))


def test_nothing_is_kept_of_the_data() -> None:
    train = make_set(4, TASKS["classification"], 1)
    assert METHOD.precompute(make_net("vit", TASKS["classification"]), train, train, seed=0) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.0), ("lr", math.nan), ("noise_std", -0.5), ("noise_std", math.nan), ("n_samples", 0), ("batch_size", 0)],
)
def test_impossible_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"jit: .*{name} = {value}"):
        dataclasses.replace(METHOD, **{name: value})
