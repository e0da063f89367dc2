"""Selective Synaptic Dampening against single-image backward passes and the direct formula, in float64."""

import dataclasses
from typing import Any

import pytest
import torch
from tests.unit.methods.direct import NETS, TASKS, make_net, make_set
from tests.unit.recording import record_on_the_cpu
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.errors import ArtefactError, ConfigError
from oneshui.methods.base import Artefact
from oneshui.methods.ssd import SSD
from oneshui.sets import Support
from oneshui.tasks import Task

METHOD = SSD(selection=1.5, dampening=0.4, fisher="image", batch_size=4, micro_batch=3)


def support_of(task: Task, n: int = 3) -> Support:
    asked = make_set(n, task, 7)
    return Support(asked.pixels, asked.labels, asked.identities, task)


def plain_fisher(model: nn.Module, images: Tensor, labels: Tensor, kind: str) -> dict[str, Tensor]:
    """Mean over images of the squared gradient of one image's loss, one backward pass at a time."""
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for image, label in zip(images, labels, strict=True):
        logits = model(image[None])
        if kind == "classification":
            loss = -F.log_softmax(logits, 1)[0, label]
        else:
            p = logits.sigmoid()[0]
            loss = -(label * p.log() + (1 - label) * (1 - p).log()).mean()
        model.zero_grad()
        loss.backward()
        for name, value in model.named_parameters():
            total[name] += value.grad.square() / len(images)
    model.zero_grad()
    return total


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        # a key's bias cancels in the softmax: its gradient is rounding alone
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-25)


@pytest.mark.parametrize("micro_batch", [1, 3, 64])
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("net", NETS)
def test_fisher_is_the_mean_of_squared_image_gradients(net: str, kind: str, micro_batch: int) -> None:
    task = TASKS[kind]
    model, train = make_net(net, task), make_set(7, task, 1)
    method = dataclasses.replace(METHOD, micro_batch=micro_batch)
    artefact = method.precompute(model, train, train, seed=0)
    assert_same(artefact.tensors, plain_fisher(model, train.pixels, train.labels, kind))
    assert artefact.metadata == {"images": 7}


def test_fisher_with_replays_is_the_mean_of_squared_image_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["multilabel"]
    model, train = make_net("vit", task), make_set(11, task, 1)
    recordings = record_on_the_cpu(monkeypatch)
    found = dataclasses.replace(METHOD, micro_batch=2).precompute(model, train, train, seed=0)
    assert [each.replays for each in recordings] == [2]  # of five pairs; the last image is alone
    assert_same(found.tensors, plain_fisher(model, train.pixels, train.labels, "multilabel"))


def test_batch_fisher_squares_the_gradient_of_each_batch_mean() -> None:
    task = TASKS["classification"]
    model, train = make_net("resnet", task), make_set(7, task, 1)
    found = dataclasses.replace(METHOD, fisher="batch").precompute(model, train, train, seed=0)
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for rows in (slice(0, 4), slice(4, 7)):
        model.zero_grad()
        F.cross_entropy(model(train.pixels[rows]), train.labels[rows]).backward()
        for name, value in model.named_parameters():
            total[name] += value.grad.square() / 2
    assert_same(found.tensors, total)


@pytest.mark.parametrize(("net", "kind"), [("vit", "classification"), ("resnet", "multilabel")])
def test_parameters_are_dampened_by_the_formula(net: str, kind: str) -> None:
    task = TASKS[kind]
    model, train, support = make_net(net, task), make_set(7, task, 1), support_of(task)
    before = weights(model)
    artefact = METHOD.precompute(model, train, train, seed=0)
    result = METHOD.unlearn(model, support, artefact, seed=0)
    on_support = plain_fisher(model, support.images, support.labels, kind)
    damped = total = 0
    for name, start in model.named_parameters():
        on_train, here = artefact.tensors[name], on_support[name]
        chosen = here > 1.5 * on_train
        wanted = torch.where(chosen, start * torch.minimum(0.4 * on_train / here, torch.tensor(1.0)), start)
        torch.testing.assert_close(result.model.get_parameter(name), wanted.detach(), rtol=1e-9, atol=0)
        damped, total = damped + int(chosen.sum()), total + chosen.numel()
    assert 0 < damped < total
    # the 32 biases of the keys may fall either way: their gradients are rounding alone
    assert result.diagnostics["damped_frac"] == pytest.approx(damped / total, abs=32 / total)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def one_weight(value: float, on_train: float, on_support: float, **changes: float) -> float:
    """Return what becomes of one weight whose squared gradient on the support photo is ``on_support``."""
    model = nn.Linear(1, 2, bias=False).double()
    nn.init.constant_(model.weight, value)
    task = Task("classification", ("a", "b"))
    image = torch.tensor([[2 * on_support**0.5]], dtype=torch.float64)  # p = 1/2, so the gradient is half of it
    support = Support(image, torch.tensor([0]), torch.tensor([0]), task)
    artefact = Artefact({"weight": torch.full((2, 1), on_train, dtype=torch.float64)})
    result = dataclasses.replace(METHOD, **changes).unlearn(model, support, artefact, seed=0)
    return float(result.model.weight.detach()[0, 0])


@pytest.mark.parametrize(
    ("on_train", "on_support", "changes", "wanted"),
    [
        (1.0, 4.0, {}, 5 * 0.4 / 4),  # 4 > 1.5 * 1: dampened
        (1.0, 1.4, {}, 5.0),  # not chosen
        (1.0, 4.0, {"selection": 5.0}, 5.0),  # not chosen
        (1.0, 4.0, {"dampening": 100.0}, 5.0),  # never enlarged
        (0.0, 4.0, {}, 0.0),  # of no importance to the training set
        (0.0, 0.0, {}, 5.0),  # of no importance at all: not 0 / 0
    ],
)
def test_one_weight_by_hand(on_train: float, on_support: float, changes: dict[str, float], wanted: float) -> None:
    assert one_weight(5.0, on_train, on_support, **changes) == pytest.approx(wanted, rel=1e-12)


def test_micro_batch_does_not_change_the_unlearned_model() -> None:
    task = TASKS["multilabel"]
    model, train = make_net("vit", task), make_set(7, task, 1)
    artefact = METHOD.precompute(model, train, train, seed=0)
    first, second = (
        dataclasses.replace(METHOD, micro_batch=size).unlearn(model, support_of(task, 5), artefact, seed=0).model
        for size in (1, 64)
    )
    for name, value in first.named_parameters():
        torch.testing.assert_close(second.get_parameter(name), value, rtol=1e-9, atol=1e-15)


def test_missing_artefact_or_tensor_is_an_error() -> None:
    task = TASKS["classification"]
    model = make_net("resnet", task)
    with pytest.raises(ArtefactError, match="ssd needs its artefact"):
        METHOD.unlearn(model, support_of(task), None, seed=0)
    with pytest.raises(ArtefactError, match=r"has no 'conv1\.0\.weight'"):
        METHOD.unlearn(model, support_of(task), Artefact({"other": torch.zeros(1)}), seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selection", 0.0),
        ("dampening", -1.0),
        ("selection", float("nan")),
        ("fisher", "pixel"),
        ("batch_size", 0),
        ("micro_batch", 0),
    ],
)
def test_impossible_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"ssd: .*{name.split('_')[0]}"):
        dataclasses.replace(METHOD, **{name: value})
