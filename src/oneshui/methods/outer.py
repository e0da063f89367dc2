"""Outer objectives of meta-training: how well a simulated request was unlearned, and the gradient of that."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.errors import DataError
from oneshui.methods.distillation import kl_divergence
from oneshui.methods.metaloss import Backbone
from oneshui.metrics.measure import measure
from oneshui.sets import ImageSet
from oneshui.tasks import Task

#: a GPU replays few shapes, so micro-batches are filled up to a multiple of this many images
_FILL_UP = 8
#: devices on which outer passes may compute in bfloat16
LOWERED = ("cuda",)
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"smooth_l1": F.smooth_l1_loss, "l2": F.mse_loss}


@dataclass
class Outer:
    """Value of the outer objective and its gradient with respect to the unlearned parameters."""

    value: float
    gradient: dict[str, Tensor]
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationReference:
    """What the original model does on the validation set: mean loss and measure, computed once."""

    loss: float
    measure: float


class OuterSettings(Protocol):
    """The hyper-parameters of MetaUnlearn that outer objectives read."""

    @property
    def batch_size(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...
    @property
    def terms(self) -> str: ...
    @property
    def accuracy_weight(self) -> bool: ...
    @property
    def distance(self) -> str: ...
    @property
    def val_gradient(self) -> bool: ...
    @property
    def outer_precision(self) -> str: ...


@dataclass(frozen=True)
class _Answers:
    """What a network says of images, on the device; the loss is the mean, the gradient is of that."""

    loss: Tensor
    logits: Tensor
    labels: Tensor
    gradient: dict[str, Tensor]


class Eq6:
    """The outer objective A of one simulated request and its gradient (equations 5 and 6).

    The forget images are cut into batches; each is paired with as many validation images as a batch may hold, and A is
    the mean over batches weighted by their size. Within a pair A depends on theta_u through two mean losses only, so
    its gradient is those losses' gradients times two numbers, and may be accumulated over micro-batches.
    """

    def __init__(self, method: OuterSettings, backbone: Backbone, forget: ImageSet, val: ImageSet,
                 reference: ValidationReference, draw: np.random.Generator) -> None:  # fmt: skip
        self.method, self.backbone, self.reference = method, backbone, reference
        self.forget, self.val, self.draw = forget, val, draw

    def __call__(self, theta: dict[str, Tensor]) -> Outer:
        """Return A and dA/dtheta at the unlearned parameters ``theta``."""
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        gradient = {name: torch.zeros_like(value) for name, value in theta.items()}
        value, notes, n = 0.0, {"forget_loss": 0.0, "val_loss": 0.0, "val_measure": 0.0}, len(self.forget)
        for rows in torch.arange(n).split(self.method.batch_size):
            share = len(rows) / n
            n_val = min(self.method.batch_size, len(self.val))
            val = self.val.subset(torch.from_numpy(self.draw.permutation(len(self.val))[:n_val]))
            part, found = self._pair(leaves, self.forget.subset(rows), val, gradient, share)
            value += share * part
            notes = {key: notes[key] + share * found[key] for key in notes}
        return Outer(value, gradient, notes)

    def _pair(self, leaves: dict[str, Tensor], forget: ImageSet, val: ImageSet, gradient: dict[str, Tensor],
              share: float) -> tuple[float, dict[str, float]]:  # fmt: skip
        """Return A of one pair, and add its share of the gradient."""
        through_val = self.method.val_gradient and self.method.terms != "second"
        forgotten, unseen = self._ask(leaves, forget, with_gradient=True), self._ask(leaves, val, through_val)
        # the one place where the host waits for a GPU
        forget_loss, val_loss = torch.stack([forgotten.loss, unseen.loss]).tolist()
        forget_measure, val_measure = (
            measure_logits(images.task, of.logits, of.labels) for images, of in ((forget, forgotten), (val, unseen))
        )
        losses = torch.tensor([forget_loss, val_loss], dtype=torch.float64, requires_grad=True)
        weights = [1 - forget_measure, 1 - val_measure, 1 - self.reference.measure]
        if not self.method.accuracy_weight:
            weights = [1.0, 1.0, 1.0]
        original = torch.tensor(weights[2] * self.reference.loss, dtype=torch.float64)
        on_forget, on_val = weights[0] * losses[0], weights[1] * losses[1]
        distance = DISTANCES[self.method.distance]
        terms = {"first": distance(on_forget, on_val), "second": distance(on_forget, original)}
        total = terms["first"] + terms["second"] if self.method.terms == "both" else terms[self.method.terms]
        by_forget, by_val = torch.autograd.grad(total, losses)[0].tolist()
        for name in gradient:
            gradient[name].add_(forgotten.gradient[name], alpha=share * by_forget)
            if through_val:
                gradient[name].add_(unseen.gradient[name], alpha=share * by_val)
        notes = {"forget_loss": forget_loss, "val_loss": val_loss, "val_measure": val_measure}
        return float(total.detach()), notes

    def _ask(self, leaves: dict[str, Tensor], images: ImageSet, with_gradient: bool) -> _Answers:
        """Show ``images`` in micro-batches; without ``with_gradient`` the gradient is empty."""
        how = images.task, self.method.outer_precision, with_gradient
        ask = self.backbone.replayed(how, partial(_ask_some, self.backbone, *how))
        gradient = {name: torch.zeros_like(value) for name, value in leaves.items()} if with_gradient else {}
        total, logits_of, labels_of = _zeros((), images.device), [], []
        everyone = torch.full((), float(len(images)), device=images.device)
        for batch, labels in images.batches(self.method.micro_batch):
            whole = min(self.method.micro_batch, _FILL_UP * -(-len(batch) // _FILL_UP))
            some = _filled(batch, labels, whole if ask.records else len(batch))
            loss, logits, *parts = ask(*some, everyone, *leaves.values())
            for value, part in zip(gradient.values(), parts, strict=True):
                value += part
            total += loss
            logits_of.append(logits[: len(batch)])
            labels_of.append(labels)
        return _Answers(total, torch.cat(logits_of), torch.cat(labels_of), gradient)


def _filled(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``size`` images and labels, and weights (size,): 1, and 0 for the first image where it fills up."""
    rows = torch.arange(size, device=images.device)
    weights = (rows < len(images)).to(images.dtype)
    if size == len(images):
        return images, labels, weights
    rows = torch.where(rows < len(images), rows, 0)
    return images[rows], labels[rows], weights


def _ask_some(
    backbone: Backbone, task: Task, precision: str, with_gradient: bool, images: Tensor, labels: Tensor,
    weights: Tensor, everyone: Tensor, *theta: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return the share of some images in the mean loss, their logits, and the share's gradient if it is wanted.

    Args:
        backbone: the network.
        task: gives the losses.
        precision: ``outer_precision``.
        with_gradient: with respect to ``theta``.
        images: (B, 3, px, px).
        labels: of them.
        weights: (B,) 1, or 0 for an image that does not count.
        everyone: number of images that the mean is over, a scalar.
        theta: parameters in the order of the backbone's.
    """
    leaves = {name: value.detach().requires_grad_(with_gradient)
              for name, value in zip(backbone.theta, theta, strict=True)}  # fmt: skip
    with torch.set_grad_enabled(with_gradient):
        with lowered(precision, images.device):
            _, logits = backbone(leaves, images)
        logits = logits.to(images.dtype)
        loss = (task.losses(logits, labels) * weights).sum() / everyone
    gradient = torch.autograd.grad(loss, list(leaves.values())) if with_gradient else ()
    return loss.detach(), logits.detach(), *gradient


def lowered(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return a block in which the network computes as ``outer_precision`` says."""
    if precision == "bf16" and device.type in LOWERED:
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


class ScrubOuter:
    """SCRUB's objective as the outer one (the paper's Table 5): away from the original model on the forget images,
    towards it and the labels on as many retain images.

    A = -T^2 KL(teacher || unlearned) on D_f + alpha T^2 KL(teacher || unlearned) + gamma task loss on D_r, with SCRUB's
    own constants, KL as the task has it. Its gradient is a plain one and accumulates over micro-batches, where the
    published code ran out of memory with second-order graphs through four batches. It has no lower bound.
    """

    alpha, gamma, temperature = 0.001, 0.99, 4.0

    def __init__(self, method: OuterSettings, backbone: Backbone, forget: ImageSet, retain: ImageSet,
                 draw: np.random.Generator) -> None:  # fmt: skip
        self.method, self.backbone = method, backbone
        self.forget, self.retain, self.draw = forget, retain, draw

    def __call__(self, theta: dict[str, Tensor]) -> Outer:
        """Return A and dA/dtheta at the unlearned parameters ``theta``."""
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        gradient = {name: torch.zeros_like(value) for name, value in theta.items()}
        total, n = _zeros((3,), self.forget.device), len(self.forget)
        square = self.temperature**2
        for rows in torch.arange(n).split(self.method.batch_size):
            share = len(rows) / n
            chosen = self.draw.permutation(len(self.retain))[: min(self.method.batch_size, len(self.retain))]
            forget, retain = self.forget.subset(rows), self.retain.subset(torch.from_numpy(chosen))
            away, _ = self._add(leaves, forget, gradient, share, -square, 0.0)
            kept, loss = self._add(leaves, retain, gradient, share, self.alpha * square, self.gamma)
            total += share * torch.stack([away, kept, loss])
        notes = dict(zip(("forget_kl", "retain_kl", "retain_loss"), total.tolist(), strict=True))
        value = square * (self.alpha * notes["retain_kl"] - notes["forget_kl"]) + self.gamma * notes["retain_loss"]
        return Outer(value, gradient, notes)

    def _add(self, leaves: dict[str, Tensor], images: ImageSet, gradient: dict[str, Tensor], share: float,
             kl_weight: float, loss_weight: float) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return mean KL and task loss of ``images``, and add ``share`` of their weighted gradient."""
        total_kl, total_loss = _zeros((), images.device), _zeros((), images.device)
        for batch, labels in images.batches(self.method.micro_batch):
            with lowered(self.method.outer_precision, images.device):
                with torch.no_grad():
                    _, teacher = self.backbone(self.backbone.theta, batch)
                _, logits = self.backbone(leaves, batch)
            teacher, logits = teacher.to(batch.dtype), logits.to(batch.dtype)
            kl = kl_divergence(logits, teacher, task=images.task, form="task", temperature=self.temperature).sum()
            loss = images.task.losses(logits, labels).sum()
            total = (kl_weight * kl + loss_weight * loss) * (share / len(images))
            for name, part in zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True):
                gradient[name] += part
            total_kl, total_loss = total_kl + kl.detach(), total_loss + loss.detach()
        return total_kl / len(images), total_loss / len(images)


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Sums of float32 losses on the device, where adding to them makes nobody wait."""
    return torch.zeros(shape, dtype=torch.float64, device=device)


def validation_reference(model: nn.Module, val: ImageSet, micro_batch: int) -> ValidationReference:
    if not len(val):
        raise DataError("metaunlearn: the validation set is empty; its loss is what forgetting aims at")
    with torch.no_grad():
        logits = torch.cat([model(images) for images, _ in val.batches(micro_batch)])
    loss = float(val.task.losses(logits, val.labels).mean())
    return ValidationReference(loss, measure_logits(val.task, logits, val.labels))


def measure_logits(task: Task, logits: Tensor, labels: Tensor) -> float:
    """Accuracy or mAP of a few images; 0 where nothing is measurable, so that the weight (1 - measure) is 1."""
    try:
        return measure(task.kind, logits.float().cpu().numpy(), labels.cpu().numpy())
    except DataError:  # no attribute has a positive, or the unlearned model answers NaN
        return 0.0
