"""The divergence and the optimiser of the teacher-student methods against elementary formulas, in float64."""

import copy
import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from tests.unit.methods.direct import (
    TASKS,
    DirectSGD,
    assert_moved_alike,
    direct_kl,
    make_set,
    weights,
)
from torch import nn

from oneshui.errors import ConfigError
from oneshui.methods.bad_teacher import BadTeacher
from oneshui.methods.distillation import SGD, kl_divergence, shuffled_rows, views
from oneshui.methods.scrub import SCRUB
from oneshui.tasks import Task

NAN = float("nan")


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("form", ["task", "softmax"])
@pytest.mark.parametrize("kind", TASKS)
def test_divergence_of_each_image_is_the_formula(kind: str, form: str, temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, TASKS[kind].n_outputs, generator=draw, dtype=torch.float64)
    found = kl_divergence(student, teacher, task=TASKS[kind], form=form, temperature=temperature)
    rows = [direct_kl(s[None], t[None], kind, form, temperature) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-9, atol=0)
    assert found.min() > 0


@pytest.mark.parametrize(
    ("kind", "form", "wanted"),
    [
        # student 1/2, 1/2; teacher 3/4, 3/4
        ("multilabel", "task", 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
        ("multilabel", "softmax", 0.0),
        ("classification", "task", 0.0),
    ],
)
def test_divergence_by_hand(kind: str, form: str, wanted: float) -> None:
    student, teacher = (torch.full((1, 2), logit, dtype=torch.float64) for logit in (0.0, 2 * math.log(3)))
    task = Task(kind, ("a", "b"))
    found = kl_divergence(student, teacher, task=task, form=form, temperature=2.0)
    assert float(found) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("form", ["task", "softmax"])
@pytest.mark.parametrize("kind", TASKS)
def test_divergence_of_equal_logits_is_zero(kind: str, form: str) -> None:
    logits = torch.randn(6, TASKS[kind].n_outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = kl_divergence(logits, logits, task=TASKS[kind], form=form, temperature=3.0)
    assert torch.equal(found, torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "form", "wanted"),
    [("multilabel", "task", 1e4), ("multilabel", "softmax", 2e4), ("classification", "task", 2e4)],
)
def test_extreme_logits_keep_divergence_and_gradient_finite(
    kind: str, form: str, wanted: float, dtype: torch.dtype
) -> None:
    teacher = torch.tensor([[1e4, -1e4]], dtype=dtype)
    student = (-teacher).requires_grad_()
    found = kl_divergence(student, teacher, task=Task(kind, ("a", "b")), form=form, temperature=1.0)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    slope = 0.5 if form == "task" and kind == "multilabel" else 1.0  # a mean over the two attributes
    torch.testing.assert_close(gradient, torch.tensor([[-slope, slope]], dtype=dtype))


METHODS = {
    "bad_teacher": BadTeacher(
        lr=0.1, momentum=0.9, weight_decay=0.01, epochs=2, temperature=1.0, batch_size=8, crop_scale=(), kl="task"
    ),
    "scrub": SCRUB(
        lr=0.1, momentum=0.9, weight_decay=0.01, epochs=2, forget_epochs=1, alpha=1.0, gamma=1.0, temperature=1.0,
        clip_norm=1.0, forget_batch_size=8, retain_batch_size=8, crop_scale=(), kl="task",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", METHODS)
def test_unknown_form_of_divergence_is_an_error(kind: str) -> None:
    assert dataclasses.replace(METHODS[kind], kl="softmax").kl == "softmax"
    with pytest.raises(ConfigError, match=f"{kind}: kl = 'sigmoid', allowed: task or softmax"):
        dataclasses.replace(METHODS[kind], kl="sigmoid")


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("lr", NAN), ("momentum", -0.1), ("momentum", 1.0), ("momentum", NAN), ("weight_decay", -1e-9),
        ("weight_decay", NAN), ("epochs", 0), ("crop_scale", (0.5,)), ("crop_scale", (0.5, 0.7, 1.0)),
        ("crop_scale", (0.0, 1.0)), ("crop_scale", (0.8, 0.5)), ("crop_scale", (0.5, 1.1)), ("crop_scale", (NAN, 1.0)),
    ],
)  # fmt: skip
def test_impossible_training_hyper_parameter_is_an_error(kind: str, name: str, value: Any) -> None:
    shown = re.escape(str(list(value) if name == "crop_scale" else value))
    with pytest.raises(ConfigError, match=f"{kind}: .*{name} = {shown}, allowed: "):
        dataclasses.replace(METHODS[kind], **{name: value})


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    ("name", "value"),
    [("momentum", 0.0), ("weight_decay", 0.0), ("epochs", 1), ("crop_scale", (0.08, 1.0)), ("crop_scale", (1.0, 1.0))],
)
def test_training_hyper_parameter_at_its_limit_is_allowed(kind: str, name: str, value: Any) -> None:
    assert getattr(dataclasses.replace(METHODS[kind], **{name: value}), name) == value


@pytest.mark.parametrize("clip_norm", [None, 0.3, 1e6])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)])
def test_sgd_follows_the_formula(momentum: float, weight_decay: float, clip_norm: float | None) -> None:
    model = nn.Linear(3, 2).double()
    nn.init.constant_(model.weight, 0.7)
    nn.init.constant_(model.bias, -0.2)
    wanted, start, inputs = copy.deepcopy(model), weights(model), torch.tensor([[1.0, -2.0, 0.5]]).double()
    ours, direct = (make(net, 0.2, momentum, weight_decay, 3) for make, net in ((SGD, model), (DirectSGD, wanted)))
    for epoch in range(3):
        for _ in range(2):
            ours.step(model(inputs).square().sum(), clip_norm=clip_norm)
            direct.step(wanted(inputs).square().sum(), epoch, clip_norm or math.inf)
        ours.next_epoch()
    assert_moved_alike(start, model, wanted)


def test_sgd_leaves_frozen_parameters_alone() -> None:
    model = nn.Linear(3, 2)
    before = weights(model)
    model.bias.requires_grad_(False)
    SGD(model, 0.1, 0.9, 0.1, 1).step(model(torch.ones(1, 3)).square().sum(), clip_norm=1.0)
    assert torch.equal(model.bias.double(), before["bias"])
    assert not torch.equal(model.weight.double(), before["weight"])


@pytest.mark.parametrize(("n", "sizes"), [(7, [3, 4]), (8, [3, 3, 2]), (2, [2]), (1, [1])])
def test_an_epoch_holds_every_row_once_and_no_last_batch_of_one(n: int, sizes: list[int]) -> None:
    batches = shuffled_rows(n, 3, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(n))


def test_epochs_are_shuffled_differently() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.cat(shuffled_rows(50, 8, draw)) for _ in range(2))
    assert not torch.equal(first, second)


def test_views_are_augmented_only_with_a_crop_scale() -> None:
    images, rows = make_set(9, TASKS["multilabel"], 0), torch.tensor([8, 1, 3, 0, 2])
    assert torch.equal(views(images, rows, (), torch.Generator().manual_seed(0)), images.pixels[rows])
    seen = views(images, rows, (1.0, 1.0), torch.Generator().manual_seed(0))
    flip = torch.rand(5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert 0 < int(flip.sum()) < 5
    for view, row, mirrored in zip(seen, rows, flip, strict=True):
        assert torch.equal(view, images.pixels[row].flip(2) if mirrored else images.pixels[row])
    with pytest.raises(ConfigError, match=r"crop_scale = \[0\.25, 0\.5\]"):  # the set is told the scale
        views(images, rows, (0.25, 0.5), torch.Generator())
