"""Selective Synaptic Dampening: shrink the parameters that matter more to the support set than to the training set."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneshui.errors import ArtefactError
from oneshui.methods import params
from oneshui.methods.base import Artefact, Unlearned, parameters_of, relative_change, resumed_batches
from oneshui.replay import Replayed
from oneshui.resume import NEVER, Resume
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task


class SSD(params.SSD):
    """Dampen theta_i by min(dampening * I_D / I_S, 1) wherever I_S > selection * I_D.

    I_D and I_S are the diagonals of the empirical Fisher information on D_tr (the artefact) and on S.

    Source: Foster et al. 2024 (AAAI), equations 4 to 6.
    Deviates: the published codes square the gradient of a batch mean, which inflates I_S by the ratio of batch
        sizes; ``fisher: batch`` does the same.
    """

    def try_on(self, model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> None:
        """Take the gradients of single images, which some layers have no rule for in batches."""
        self._importance(model, task)(images, labels)

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, resume: Resume = NEVER
    ) -> Artefact:
        """Return I_D, one tensor shaped like each parameter. Cost: one forward and backward pass over D_tr."""
        total: dict[str, Tensor] = {}
        importance = self._importance(model, train.task)
        for images, labels in resumed_batches(train, self.batch_size, total, resume):
            for name, value in importance(images, labels).items():
                total[name] = total[name] + value if name in total else value
        n = len(train) if self.fisher == "image" else math.ceil(len(train) / self.batch_size)
        return Artefact({name: value / n for name, value in total.items()}, {"images": len(train)})

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the dampened model. Cost: one forward and backward pass over S."""
        if artefact is None:
            raise ArtefactError("ssd needs its artefact, the Fisher diagonal of the training data. Precompute it.")
        n = len(support.images) if self.fisher == "image" else 1
        on_support = self._importance(model, support.task)(support.images, support.labels)
        result = copy.deepcopy(model)
        damped = 0
        with torch.no_grad():
            for name, parameter in result.named_parameters():
                on_train, here = artefact.need(name, parameter), on_support[name] / n
                chosen = here > self.selection * on_train
                factor = (self.dampening * on_train / here).clamp(max=1)
                parameter.mul_(torch.where(chosen, factor, torch.ones_like(factor)))
                damped += int(chosen.sum())
        total = sum(parameter.numel() for parameter in result.parameters())
        step = relative_change(parameters_of(model), parameters_of(result))
        return Unlearned(result, {"relative_step": step, "damped_frac": damped / total})

    def _importance(self, model: nn.Module, task: Task) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
        """Return what makes of images and labels the sum of squared gradients (or the one square of the batch)."""
        if self.fisher == "batch":
            return lambda images, labels: squared_batch_gradient(model, images, labels, task)
        return ImageGradients(model, task, self.micro_batch)


def squared_batch_gradient(model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> dict[str, Tensor]:
    """Return the squared gradient of the batch's mean loss, by parameter."""
    parameters = dict(model.named_parameters())
    loss = task.losses(model(images), labels).mean()
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return {name: gradient.square() for name, gradient in zip(parameters, gradients, strict=True)}


class ImageGradients:
    """Sums over images of squared single-image gradients, by parameter, of one network.

    Args:
        model: in evaluation mode, so that images do not influence each other.
        task: gives the loss.
        micro_batch: images whose gradients are held at once; 1 is one plain backward pass per image, which is the
            faster way for convolutions on a CPU.
    """

    def __init__(self, model: nn.Module, task: Task, micro_batch: int) -> None:
        self.model, self.task, self.micro_batch = model, task, micro_batch
        self._parameters, self._buffers = parameters_of(model), dict(model.named_buffers())
        self._per_image = vmap(grad(self._loss_of_one), in_dims=(None, 0, 0))
        self._some = Replayed(self._squares, next(iter(self._parameters.values())).device)

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the sums over ``images`` (B, 3, px, px) with ``labels`` (B,) or (B, A)."""
        if self.micro_batch == 1:
            summed: dict[str, Tensor] = {}
            for image, label in zip(images.split(1), labels.split(1), strict=True):
                for name, square in squared_batch_gradient(self.model, image, label, self.task).items():
                    summed[name] = summed[name].add_(square) if name in summed else square
            return summed
        total = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        for some, theirs in zip(images.split(self.micro_batch), labels.split(self.micro_batch), strict=True):
            for value, squares in zip(total.values(), self._some(some, theirs), strict=True):
                value += squares
        return total

    def _loss_of_one(self, values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(self.model, {**values, **self._buffers}, (image[None],))
        return self.task.losses(logits, label[None])[0]

    def _squares(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no batching rule for gradients
            gradients = self._per_image(self._parameters, images, labels)
        return tuple(gradients[name].square().sum(0) for name in self._parameters)
