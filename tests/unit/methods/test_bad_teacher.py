"""Bad Teacher against its loop written out: two teachers, momentum and cosine, in float64."""

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
    length_ratio,
    make_net,
    make_set,
    same_weights,
    weights,
)
from torch import Tensor, nn

from oneshui.errors import ConfigError
from oneshui.methods.bad_teacher import BadTeacher
from oneshui.methods.base import Unlearned
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet
from oneshui.tasks import Task

METHOD = BadTeacher(
    lr=0.1, momentum=0.9, weight_decay=0.01, epochs=3, temperature=2.5, batch_size=64, crop_scale=(), kl="task"
)
ONCE = dataclasses.replace(METHOD, epochs=1)
N_FORGET, N_RETAIN = 4, 7
CASES = [*((net, kind, "task") for net in NETS for kind in TASKS), *(("vit", kind, "softmax") for kind in TASKS)]


def sets_of(task: Task) -> tuple[ImageSet, ImageSet]:
    return make_set(N_FORGET, task, 2), make_set(N_RETAIN, task, 3)


class Case:
    """One net and its sets, unlearned by the package and by the loop written out."""

    def __init__(self, net: str, kind: str) -> None:
        self.kind = kind
        self.model, self.ignorant = make_net(net, TASKS[kind]), make_net(net, TASKS[kind], seed=2)
        self.forget, self.retain = sets_of(TASKS[kind])
        self.start, self.asked = weights(self.model), list[int]()

    def ours(self, method: BadTeacher, seed: int = 0) -> Unlearned:
        return method.unlearn(self.model, self.forget, self.retain, seed=seed, rebuild=self._rebuild)

    def _rebuild(self, seed: int) -> nn.Module:
        self.asked.append(seed)
        return copy.deepcopy(self.ignorant).train()  # it must answer in evaluation mode all the same

    def direct(self, method: BadTeacher, seed: int = 0) -> nn.Module:
        competent, student = copy.deepcopy(self.model).eval(), copy.deepcopy(self.model).train()
        sgd = DirectSGD(student, method.lr, method.momentum, method.weight_decay, method.epochs)
        draw = torch.Generator().manual_seed(seed_of("bad-teacher-batches", seed))
        for epoch in range(method.epochs):
            for rows in direct_batches(N_FORGET + N_RETAIN, method.batch_size, draw):
                images, wanted = [], []
                forgotten, kept = [r for r in rows if r < N_FORGET], [r - N_FORGET for r in rows if r >= N_FORGET]
                for of, some, teacher in ((self.forget, forgotten, self.ignorant), (self.retain, kept, competent)):
                    if some:
                        images.append(self._mirrored(of.pixels[some], draw) if method.crop_scale else of.pixels[some])
                        wanted.append(teacher(images[-1]).detach())
                logits = student(torch.cat(images))
                kl = direct_kl(logits, torch.cat(wanted), self.kind, method.kl, method.temperature)
                sgd.step(kl, epoch)
        return student

    def _mirrored(self, images: Tensor, draw: torch.Generator) -> Tensor:
        flips = torch.rand(len(images), generator=draw) < 0.5
        return torch.stack([image.flip(2) if flip else image for image, flip in zip(images, flips, strict=True)])

    def assert_direct(self, method: BadTeacher, seed: int = 0) -> None:
        result, wanted = self.ours(method, seed), self.direct(method, seed)
        assert_moved_alike(self.start, result.model, wanted)
        assert result.diagnostics == {"relative_step": pytest.approx(length_ratio(self.start, wanted), rel=1e-9)}
        assert not any(module.training for module in result.model.modules())
        assert all(torch.equal(value, self.start[name]) for name, value in self.model.state_dict().items())


@pytest.mark.parametrize(("net", "kind", "kl"), CASES)
def test_student_is_that_of_the_direct_loop_in_one_batch(net: str, kind: str, kl: str) -> None:
    Case(net, kind).assert_direct(dataclasses.replace(METHOD, kl=kl))


@pytest.mark.parametrize("kind", TASKS)
def test_student_is_that_of_the_direct_loop_in_several_batches(kind: str) -> None:
    Case("vit", kind).assert_direct(dataclasses.replace(METHOD, batch_size=4))  # 11 = 4 + 4 + 3


OPTIONS: dict[str, dict[str, Any]] = {
    "single images": {"batch_size": 1, "epochs": 1},  # every batch lacks one of the two sets, but for the last
    "no momentum, no decay": {"momentum": 0.0, "weight_decay": 0.0},
    "one epoch": {"epochs": 1},
    "softmax over attributes": {"kl": "softmax"},
    "mirrored": {"crop_scale": (1.0, 1.0)},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_student_is_that_of_the_direct_loop_with_option(option: str) -> None:
    method = dataclasses.replace(METHOD, **{"batch_size": 3, "epochs": 2, "temperature": 1.0, **OPTIONS[option]})
    Case("vit", "multilabel").assert_direct(method, seed=5)


@pytest.mark.parametrize("kind", TASKS)
def test_last_batch_of_one_image_joins_the_one_before(kind: str) -> None:
    Case("resnet", kind).assert_direct(dataclasses.replace(ONCE, batch_size=5))  # 11 = 5 + 6


def test_competent_teacher_answers_in_evaluation_mode() -> None:
    case = Case("resnet", "multilabel")
    case.model.train()
    case.assert_direct(ONCE)


@pytest.mark.parametrize("seed", [0, 3])
def test_ignorant_teacher_is_built_once_from_the_named_seed(seed: int) -> None:
    case = Case("vit", "classification")
    case.ours(ONCE, seed)
    assert case.asked == [seed_of("bad-teacher", seed)]


def test_crop_scale_reaches_the_image_set() -> None:
    with pytest.raises(ConfigError, match=r"crop_scale = \[0\.5, 1\.0\]: ready-made inputs"):
        Case("vit", "multilabel").ours(dataclasses.replace(METHOD, crop_scale=(0.5, 1.0)))


def test_seed_decides_the_weights() -> None:
    case, method = Case("vit", "classification"), dataclasses.replace(ONCE, batch_size=3)
    first, again, other = (case.ours(method, seed).model for seed in (0, 0, 1))
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("momentum", 1.0), ("weight_decay", -0.1), ("epochs", 0), ("temperature", 0.0),
        ("temperature", -1.0), ("temperature", math.nan), ("batch_size", 0),
    ],
)  # fmt: skip
def test_impossible_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"bad_teacher: .*{name} = {value}"):
        dataclasses.replace(METHOD, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("kl", "hard"), ("crop_scale", (0.8, 0.5))])
def test_unknown_form_or_crop_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"bad_teacher: {name}"):
        dataclasses.replace(METHOD, **{name: value})
