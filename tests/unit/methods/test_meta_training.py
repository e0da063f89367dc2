"""Meta-training from end to end, in float64, against a plain loop with double backward and Adam written out."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.methods.direct import TASKS, assert_moved_alike, direct_kl, direct_loss, inputs_of, weights
from tests.unit.recording import record_on_the_cpu
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.methods.metaloss import MetaLoss, SupportBatch
from oneshui.methods.metaunlearn import InnerStep, MetaUnlearn
from oneshui.methods.simulation import simulate_requests
from oneshui.seeds import seed_of, stream
from oneshui.sets import ImageSet
from oneshui.tasks import Task

SEED, N_FEATURES, N_VAL = 11, 6, 9
# numbers of images of the train identities: 4 and 9 cannot be simulated; five others in requests of two, so that the
# last request of an epoch is filled up
COUNTS = {12: 3, 4: 1, 30: 2, 7: 4, 21: 2, 9: 1, 15: 5}
TRAIN_IDENTITIES = torch.from_numpy(
    np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
)
# batch_size cuts forget sets of 4 images and more; a request's support photos are one micro-batch
METHOD = MetaUnlearn(
    inner_lr=0.5, lr=1e-2, epochs=2, simulated_n=2, batch_size=3, micro_batch=64, hidden=8, dropout=0.0,
    inputs=("logits", "features", "target", "identity"), outer_loss="equation_6",
    terms="both", accuracy_weight=True, distance="smooth_l1", val_gradient=False, frozen=(), jvp="exact",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """Make h_phi, which takes the default type, a float64 one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Smooth(nn.Module):
    """A network of two tanh layers and a classifier, with the methods of a timm model."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first, self.second = nn.Linear(12, 8), nn.Linear(8, N_FEATURES)
            self.head = nn.Linear(N_FEATURES, n_outputs)
            for layer in (self.first, self.second, self.head):
                layer.weight.data *= 2

    def forward_features(self, images: Tensor) -> Tensor:
        return self.first(images.flatten(1)).tanh()

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        features = self.second(tokens).tanh()
        return features if pre_logits else self.head(features)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def make_images(model: nn.Module, task: Task, identities: Tensor, seed: int) -> ImageSet:
    """Return random images; the model is right about a third at least, so that measures are not 0."""
    draw, n = torch.Generator().manual_seed(seed), len(identities)
    pixels = torch.randn(n, 3, 2, 2, generator=draw)
    with torch.no_grad():
        logits = model(pixels)
    if task.kind == "multilabel":
        answers, labels = (logits > 0).long(), torch.randint(2, logits.shape, generator=draw)
    else:
        answers, labels = logits.argmax(1), torch.randint(task.n_outputs, (n,), generator=draw)
    labels[::3] = answers[::3]
    return ImageSet.of_inputs(pixels, labels, task, identities)


def make_data(kind: str) -> tuple[nn.Module, ImageSet, ImageSet]:
    """Return a model, its train set and its validation set."""
    model = Smooth(TASKS[kind].n_outputs).eval()
    train = make_images(model, TASKS[kind], TRAIN_IDENTITIES, 2)
    return model, train, make_images(model, TASKS[kind], torch.arange(100, 100 + N_VAL), 3)


def new_meta_loss(method: MetaUnlearn, task: Task) -> MetaLoss:
    """Return h_phi as meta-training starts with it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of("metaunlearn-init", SEED))
        return MetaLoss(
            n_outputs=task.n_outputs, n_features=N_FEATURES, n_identities=len(COUNTS), inputs=method.inputs,
            hidden=method.hidden, dropout=method.dropout,
        )  # fmt: skip


# ---- the plain loop


class DirectAdam:
    """Adam with AMSGrad written out; like PyTorch it takes the maximum before the bias is corrected."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters, self.n_steps = list(module.parameters()), 0
        self.mean, self.square, self.largest = ([torch.zeros_like(p) for p in self.parameters] for _ in range(3))

    def step(self, loss: Tensor, lr: float) -> None:
        gradients = torch.autograd.grad(loss, self.parameters)
        self.n_steps += 1
        with torch.no_grad():
            for i, gradient in enumerate(gradients):
                self.mean[i] = 0.9 * self.mean[i] + 0.1 * gradient
                self.square[i] = 0.999 * self.square[i] + 0.001 * gradient**2
                self.largest[i] = torch.maximum(self.largest[i], self.square[i])
                mean = self.mean[i] / (1 - 0.9**self.n_steps)
                largest = self.largest[i] / (1 - 0.999**self.n_steps)
                self.parameters[i] -= lr * mean / (largest.sqrt() + 1e-8)


def outputs(theta: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and logits of the network above with the parameters ``theta``."""
    hidden = (images.flatten(1) @ theta["first.weight"].T + theta["first.bias"]).tanh()
    features = (hidden @ theta["second.weight"].T + theta["second.bias"]).tanh()
    return features, features @ theta["head.weight"].T + theta["head.bias"]


def direct_measure(logits: Tensor, labels: Tensor, kind: str) -> float:
    """Accuracy, or the mean average precision of the attributes that somebody has."""
    if kind == "classification":
        return float((logits.argmax(1) == labels).double().mean())
    precisions = []
    for scores, bits in zip(logits.T.tolist(), labels.T.tolist(), strict=True):
        have = [score for score, bit in zip(scores, bits, strict=True) if bit]
        if have:
            ratios = [sum(s >= score for s in have) / sum(s >= score for s in scores) for score in have]
            precisions.append(sum(ratios) / len(ratios))
    return sum(precisions) / len(precisions) if precisions else 0.0


def weighted_loss(theta: dict[str, Tensor], images: ImageSet) -> Tensor:
    """Return the mean loss times one minus accuracy or mAP, which is a constant."""
    _, logits = outputs(theta, inputs_of(images))
    kind = images.task.kind
    return (1 - direct_measure(logits, images.labels, kind)) * direct_loss(logits, images.labels, kind)


def equation_6(theta: dict[str, Tensor], moved: dict[str, Tensor], forget: ImageSet, val: ImageSet,
               draw: np.random.Generator, batch_size: int) -> Tensor:  # fmt: skip
    """Each batch of forget images beside as many validation images; only the forget loss carries a gradient."""
    total, original = torch.zeros(()), weighted_loss(theta, val).detach()
    for rows in torch.arange(len(forget)).split(batch_size):
        unseen = weighted_loss(moved, val.subset(torch.from_numpy(draw.permutation(len(val))[:batch_size]))).detach()
        forgotten = weighted_loss(moved, forget.subset(rows))
        part = F.smooth_l1_loss(forgotten, unseen) + F.smooth_l1_loss(forgotten, original)
        total = total + part * len(rows) / len(forget)
    return total


def scrub(theta: dict[str, Tensor], moved: dict[str, Tensor], forget: ImageSet, retain: ImageSet,
          draw: np.random.Generator, batch_size: int) -> Tensor:  # fmt: skip
    """Away from the original model on forget images, towards it and the labels on as many retain images."""
    total, kind = torch.zeros(()), forget.task.kind
    for rows in torch.arange(len(forget)).split(batch_size):
        kept = retain.subset(torch.from_numpy(draw.permutation(len(retain))[:batch_size]))
        pairs = [(outputs(moved, x)[1], outputs(theta, x)[1].detach()) for x in (forget.images(rows), inputs_of(kept))]
        away, near = (16 * direct_kl(student, teacher, kind, "task", 4.0) for student, teacher in pairs)
        part = -away + 0.001 * near + 0.99 * direct_loss(pairs[1][0], kept.labels, kind)
        total = total + part * len(rows) / len(forget)
    return total


def direct_training(method: MetaUnlearn, model: nn.Module, train: ImageSet, val: ImageSet) -> MetaLoss:
    """Return h_phi after Algorithm 1: a graph through the unlearning step and the outer loss, and Adam on phi."""
    task, table = train.task, sorted(COUNTS)
    theta = dict(model.named_parameters())
    h = new_meta_loss(method, task).train()
    adam = DirectAdam(h)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of("metaunlearn-dropout", SEED))
        for epoch in range(method.epochs):
            lr = method.lr * (1 + math.cos(math.pi * epoch / method.epochs)) / 2
            draw = stream("metaunlearn-val", SEED, epoch)
            for request in simulate_requests(train.identities.numpy(), method.simulated_n, seed=SEED, epoch=epoch):
                support, forget = request.support.tolist(), request.forget.tolist()
                asked = [int(train.identities[row]) for row in support]
                labels = train.labels[support]
                targets = labels.double() if task.kind == "multilabel" else torch.eye(task.n_outputs)[labels]
                rows = torch.tensor([table.index(identity) for identity in asked])
                mean_h = h(*outputs(theta, train.pixels[support]), targets, rows).mean()
                steps = torch.autograd.grad(mean_h, list(theta.values()), create_graph=True)
                moved = {n: p - method.inner_lr * step for (n, p), step in zip(theta.items(), steps, strict=True)}
                chosen = train.subset(torch.tensor(forget))
                if method.outer_loss == "scrub":
                    others = [row for row, identity in enumerate(train.identities.tolist()) if identity not in asked]
                    loss = scrub(theta, moved, chosen, train.subset(torch.tensor(others)), draw, method.batch_size)
                else:
                    loss = equation_6(theta, moved, chosen, val, draw, method.batch_size)
                adam.step(loss, lr)
    return h


# ---- tests


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("outer_loss", ["equation_6", "scrub"])
@pytest.mark.parametrize("kind", TASKS)
def test_meta_training_is_the_plain_loop(kind: str, outer_loss: str, dropout: float) -> None:
    """Every tensor of phi goes where double backward and AMSGrad take it, to 1e-9 of the way."""
    method = dataclasses.replace(METHOD, outer_loss=outer_loss, dropout=dropout)
    model, train, val = make_data(kind)
    artefact = method.precompute(model, train, val, seed=SEED)
    phi = {name.removeprefix("phi."): t for name, t in artefact.tensors.items() if name.startswith("phi.")}
    assert all(value.dtype == torch.float64 for value in phi.values())
    assert artefact.tensors.keys() == {*(f"phi.{name}" for name in phi), "identities"}
    assert artefact.tensors["identities"].tolist() == sorted(COUNTS)
    found, start = new_meta_loss(method, train.task), weights(new_meta_loss(method, train.task))
    found.load_state_dict(phi)
    assert_moved_alike(start, found, direct_training(method, model, train, val))


@pytest.mark.parametrize("kind", TASKS)
def test_meta_training_with_replays_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Batches are filled up to one shape, whose passes a GPU replays; what fills them up counts for nothing."""
    model, train, val = make_data(kind)
    recordings, method = record_on_the_cpu(monkeypatch), dataclasses.replace(METHOD, micro_batch=3)
    artefact = method.precompute(model, train, val, seed=SEED)
    found, start = new_meta_loss(METHOD, train.task), weights(new_meta_loss(METHOD, train.task))
    found.load_state_dict({name: artefact.tensors[f"phi.{name}"] for name in start})
    assert len(recordings) == 5  # answers on photos, J^T g, forget images, validation images, J v
    assert all(each.replays for each in recordings)
    assert sorted({len(each.inputs[0]) for each in recordings}) == [METHOD.simulated_n, 3]
    assert_moved_alike(start, found, direct_training(METHOD, model, train, val))


@pytest.mark.parametrize("outer_loss", ["equation_6", "scrub"])
def test_rows_of_people_never_asked_about_stay(outer_loss: str) -> None:
    """Identities with one image are in no request: their embeddings are those of the start."""
    model, train, val = make_data("classification")
    method = dataclasses.replace(METHOD, outer_loss=outer_loss)
    table = method.precompute(model, train, val, seed=SEED).tensors["phi.embed.weight"]
    moved = (table != new_meta_loss(method, train.task).embed.weight).any(1).tolist()
    assert dict(zip(sorted(COUNTS), moved, strict=True)) == {i: COUNTS[i] > 1 for i in sorted(COUNTS)}


def test_support_and_forget_images_are_apart_but_of_the_same_people() -> None:
    """A request is one photo of each of two people, and all their other photos."""
    for epoch in range(METHOD.epochs):
        requests = simulate_requests(TRAIN_IDENTITIES.numpy(), 2, seed=SEED, epoch=epoch)
        assert len(requests) == 3
        for request in requests:
            asked = [int(TRAIN_IDENTITIES[row]) for row in request.support]
            assert len(set(asked)) == 2
            assert not {*request.support.tolist()} & {*request.forget.tolist()}
            assert {int(TRAIN_IDENTITIES[row]) for row in request.forget} == {*asked}
            assert len(request.support) + len(request.forget) == sum(COUNTS[identity] for identity in asked)


def test_reserved_photos_take_the_place_of_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SupportBatch] = []
    forgotten: list[Tensor] = []
    inner_step, outer = MetaUnlearn.inner_step, MetaUnlearn._outer

    def watched(self: MetaUnlearn, backbone: Any, meta_loss: Any, support: SupportBatch) -> InnerStep:
        seen.append(support)
        return inner_step(self, backbone, meta_loss, support)

    def forgetting(self: MetaUnlearn, backbone: Any, train: ImageSet, val: ImageSet, request: Any, *rest: Any) -> Any:
        forgotten.append(train.identities[request.forget])
        return outer(self, backbone, train, val, request, *rest)

    monkeypatch.setattr(MetaUnlearn, "inner_step", watched)
    monkeypatch.setattr(MetaUnlearn, "_outer", forgetting)
    model, train, val = make_data("classification")
    people = torch.unique(train.identities)
    photos = ImageSet.of_inputs(train.pixels[: len(people)] + 9, train.labels[: len(people)], train.task, people)
    table = METHOD.precompute(model, dataclasses.replace(train, photos=photos), val, seed=SEED).tensors["identities"]
    assert len(forgotten) >= METHOD.epochs
    for support, identities in zip(seen, forgotten, strict=False):
        rows = [int((people == person).nonzero()) for person in table[support.rows]]
        assert torch.equal(support.images, photos.pixels[rows])
        counts = torch.isin(train.identities, table[support.rows])
        assert torch.equal(identities.sort().values, train.identities[counts].sort().values)


def test_support_photos_come_with_their_own_label_and_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What h_phi sees of a simulated photo is its own label, and the row of its identity in the stored table."""
    seen: list[SupportBatch] = []
    inner_step = MetaUnlearn.inner_step

    def watched(self: MetaUnlearn, backbone: Any, meta_loss: Any, support: SupportBatch) -> InnerStep:
        seen.append(support)
        return inner_step(self, backbone, meta_loss, support)

    monkeypatch.setattr(MetaUnlearn, "inner_step", watched)
    model, train, val = make_data("classification")
    table = METHOD.precompute(model, train, val, seed=SEED).tensors["identities"]
    requests = [
        request
        for epoch in range(METHOD.epochs)
        for request in simulate_requests(train.identities.numpy(), 2, seed=SEED, epoch=epoch)
    ]
    assert len(seen) >= len(requests) == 6
    for request, support in zip(requests, seen, strict=False):  # at the end the trained h_phi is judged on one more
        assert torch.equal(support.images, train.pixels[request.support])
        assert support.targets.argmax(1).tolist() == train.labels[request.support].tolist()
        assert table[support.rows].tolist() == train.identities[request.support].tolist()
