"""SCRUB against its loop written out: passes, divergences, momentum, clipping and cosine, in float64."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from tests.unit.methods.direct import (
    NETS,
    TASKS,
    DirectSGD,
    assert_moved_alike,
    direct_batches,
    direct_kl,
    direct_loss,
    length_ratio,
    make_net,
    make_set,
    same_weights,
    weights,
)
from torch import nn

from oneshui.errors import ConfigError, DataError
from oneshui.methods.base import Unlearned
from oneshui.methods.scrub import SCRUB
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet
from oneshui.tasks import Task

METHOD = SCRUB(
    lr=0.02, momentum=0.9, weight_decay=0.01, epochs=3, forget_epochs=2, alpha=0.7, gamma=0.9, temperature=2.5,
    clip_norm=0.2, forget_batch_size=64, retain_batch_size=64, crop_scale=(), kl="task",
)  # fmt: skip
ONCE = dataclasses.replace(METHOD, epochs=1, forget_epochs=1)
BATCHES = {"forget_batch_size": 4, "retain_batch_size": 4}  # 7 = 4 + 3 and 11 = 4 + 4 + 3
CASES = [*((net, kind, "task") for net in NETS for kind in TASKS), *(("vit", kind, "softmax") for kind in TASKS)]


def sets_of(task: Task) -> tuple[ImageSet, ImageSet]:
    return make_set(7, task, 2), make_set(11, task, 3)


def unlearned(method: SCRUB, model: nn.Module, forget: ImageSet, retain: ImageSet, seed: int = 0) -> Unlearned:
    return method.unlearn(model, forget, retain, seed=seed, rebuild=lambda _: pytest.fail("scrub needs no new net"))


def direct_scrub(method: SCRUB, model: nn.Module, forget: ImageSet, retain: ImageSet, seed: int) -> nn.Module:
    teacher, student = copy.deepcopy(model).eval(), copy.deepcopy(model).train()
    sgd = DirectSGD(student, method.lr, method.momentum, method.weight_decay, method.epochs)
    draw, kind = torch.Generator().manual_seed(seed_of("scrub-batches", seed)), retain.task.kind
    for epoch in range(method.epochs):
        passes = [(forget, method.forget_batch_size)] if epoch < method.forget_epochs else []
        for images_of, size in [*passes, (retain, method.retain_batch_size)]:
            for rows in direct_batches(len(images_of), size, draw):
                images, labels = images_of.pixels[rows], images_of.labels[rows]
                if method.crop_scale:
                    mirrored = torch.rand(len(rows), generator=draw) < 0.5
                    images = torch.stack([x.flip(2) if m else x for x, m in zip(images, mirrored, strict=True)])
                logits = student(images)
                kl = direct_kl(logits, teacher(images).detach(), kind, method.kl, method.temperature)
                kl = kl * method.temperature**2
                if images_of is forget:
                    sgd.step(-kl, epoch, method.clip_norm)
                else:
                    sgd.step(method.alpha * kl + method.gamma * direct_loss(logits, labels, kind), epoch)
    return student


def assert_direct(method: SCRUB, net: str, kind: str, seed: int = 0) -> None:
    model, (forget, retain) = make_net(net, TASKS[kind]), sets_of(TASKS[kind])
    start = weights(model)
    result = unlearned(method, model, forget, retain, seed)
    wanted = direct_scrub(method, model, forget, retain, seed)
    assert_moved_alike(start, result.model, wanted)
    assert result.diagnostics == {"relative_step": pytest.approx(length_ratio(start, wanted), rel=1e-9)}
    assert not any(module.training for module in result.model.modules())
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("net", "kind", "kl"), CASES)
def test_student_is_that_of_the_direct_loop_in_one_batch(net: str, kind: str, kl: str) -> None:
    assert_direct(dataclasses.replace(METHOD, kl=kl), net, kind)


@pytest.mark.parametrize("kind", TASKS)
def test_student_is_that_of_the_direct_loop_in_several_batches(kind: str) -> None:
    assert_direct(dataclasses.replace(METHOD, **BATCHES), "vit", kind)


OPTIONS: dict[str, dict[str, Any]] = {
    "no forget pass": {"forget_epochs": 0},
    "a forget pass each epoch": {"forget_epochs": 2},
    "gradients never clipped": {"clip_norm": 1e6},
    "only the labels": {"alpha": 0.0},
    "only the teacher": {"gamma": 0.0},
    "no momentum, no decay": {"momentum": 0.0, "weight_decay": 0.0},
    "one epoch": {"epochs": 1, "forget_epochs": 1},
    "softmax over attributes": {"kl": "softmax"},
    "mirrored": {"crop_scale": (1.0, 1.0)},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_student_is_that_of_the_direct_loop_with_option(option: str) -> None:
    method = dataclasses.replace(METHOD, **{**BATCHES, "epochs": 2, "forget_epochs": 1, **OPTIONS[option]})
    assert_direct(method, "vit", "multilabel", seed=5)


@pytest.mark.parametrize("kind", TASKS)
def test_last_batch_of_one_image_joins_the_one_before(kind: str) -> None:
    method = dataclasses.replace(ONCE, forget_batch_size=3, retain_batch_size=5)  # 7 = 3 + 4, 11 = 5 + 6
    assert_direct(method, "resnet", kind)


def test_without_forget_epochs_the_forget_set_does_not_matter() -> None:
    task = TASKS["classification"]
    model, (forget, retain) = make_net("resnet", task), sets_of(task)
    method = dataclasses.replace(ONCE, **BATCHES, forget_epochs=0)
    first, second = (unlearned(method, model, of, retain).model for of in (forget, make_set(3, task, 9)))
    assert same_weights(first, second)


def test_teacher_answers_in_evaluation_mode() -> None:
    task = TASKS["multilabel"]
    model, (forget, retain) = make_net("resnet", task), sets_of(task)
    start = weights(model)
    result = unlearned(ONCE, model.train(), forget, retain)
    assert_moved_alike(start, result.model, direct_scrub(ONCE, model, forget, retain, 0))
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_crop_scale_reaches_the_image_set() -> None:
    task = TASKS["multilabel"]
    method = dataclasses.replace(METHOD, crop_scale=(0.5, 1.0))
    with pytest.raises(ConfigError, match=r"crop_scale = \[0\.5, 1\.0\]: ready-made inputs"):
        unlearned(method, make_net("vit", task), *sets_of(task))


def test_dropout_draws_from_the_seed_and_leaves_torchs_generator_alone() -> None:
    task = TASKS["classification"]
    model, sets = make_net("vit", task), sets_of(task)
    model.patch_embed.proj = nn.Sequential(model.patch_embed.proj, nn.Dropout(0.5))
    before = torch.get_rng_state()
    first = unlearned(ONCE, model, *sets).model
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert same_weights(first, unlearned(ONCE, model, *sets).model)


def test_seed_decides_the_weights() -> None:
    task, method = TASKS["multilabel"], dataclasses.replace(ONCE, **BATCHES)
    model, sets = make_net("vit", task), sets_of(task)
    first, again, other = (unlearned(method, model, *sets, seed=seed).model for seed in (0, 0, 1))
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("momentum", 1.0), ("weight_decay", -0.1), ("epochs", 0), ("forget_epochs", -1),
        ("forget_epochs", 4), ("alpha", -0.1), ("gamma", -0.1), ("temperature", 0.0), ("clip_norm", 0.0),
        ("clip_norm", -1.0), ("temperature", -math.inf), ("alpha", math.nan), ("gamma", math.nan),
        ("temperature", math.nan), ("clip_norm", math.nan), ("forget_batch_size", 0), ("retain_batch_size", 0),
    ],
)  # fmt: skip
def test_impossible_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"scrub: .*{name} = {value}"):
        dataclasses.replace(METHOD, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("kl", "hard"), ("crop_scale", (0.0, 1.0))],
)
def test_unknown_form_or_crop_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"scrub: .*{name}"):
        dataclasses.replace(METHOD, **{name: value})


@pytest.mark.parametrize(("forget", "retain"), [(1, 8), (8, 1)])
def test_one_image_cannot_be_normalised(forget: int, retain: int) -> None:
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)
    )
    task = Task("classification", ("a", "b", "c"))
    sets = [
        ImageSet.of_inputs(torch.rand(n, 3, 4, 4), torch.zeros(n, dtype=torch.int64), task) for n in (forget, retain)
    ]
    with pytest.raises(DataError, match="two of each with batch normalisation"):
        METHOD.unlearn(model, *sets, seed=0, rebuild=lambda seed: model)
