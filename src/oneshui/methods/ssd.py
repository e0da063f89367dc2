"""Selective Synaptic Dampening: shrink the parameters that matter more to the support set than to the training set."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneshui.errors import ArtefactError
from oneshui.methods import params
from oneshui.methods.base import Artefact, Unlearned, parameters_of, relative_change, resumed_batches
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
        self._importance(model, images, labels, task)

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, resume: Resume = NEVER
    ) -> Artefact:
        """Return I_D, one tensor shaped like each parameter. Cost: one forward and backward pass over D_tr."""
        total: dict[str, Tensor] = {}
        for images, labels in resumed_batches(train, self.batch_size, total, resume):
            for name, value in self._importance(model, images, labels, train.task).items():
                total[name] = total[name] + value if name in total else value
        n = len(train) if self.fisher == "image" else math.ceil(len(train) / self.batch_size)
        return Artefact({name: value / n for name, value in total.items()}, {"images": len(train)})

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the dampened model. Cost: one forward and backward pass over S."""
        if artefact is None:
            raise ArtefactError("ssd needs its artefact, the Fisher diagonal of the training data. Precompute it.")
        n = len(support.images) if self.fisher == "image" else 1
        on_support = self._importance(model, support.images, support.labels, support.task)
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

    def _importance(self, model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> dict[str, Tensor]:
        """Return the sum over images (or the one value of the batch) of squared gradients, by parameter."""
        if self.fisher == "batch":
            return squared_batch_gradient(model, images, labels, task)
        return squared_image_gradients(model, images, labels, task, self.micro_batch)


def squared_batch_gradient(model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> dict[str, Tensor]:
    """Return the squared gradient of the batch's mean loss, by parameter."""
    parameters = dict(model.named_parameters())
    loss = task.losses(model(images), labels).mean()
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return {name: gradient.square() for name, gradient in zip(parameters, gradients, strict=True)}


def squared_image_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, task: Task, micro_batch: int
) -> dict[str, Tensor]:
    """Return the sum over images of squared single-image gradients, by parameter.

    Args:
        model: in evaluation mode, so that images do not influence each other.
        images: (B, 3, px, px).
        labels: (B,) or (B, A).
        task: gives the loss.
        micro_batch: images whose gradients are held at once; 1 is one plain backward pass per image, which is the
            faster way for convolutions on a CPU.
    """
    if micro_batch == 1:
        summed: dict[str, Tensor] = {}
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            for name, square in squared_batch_gradient(model, image, label, task).items():
                summed[name] = summed[name].add_(square) if name in summed else square
        return summed
    parameters, buffers = parameters_of(model), dict(model.named_buffers())

    def loss_of_one(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, {**values, **buffers}, (image[None],))
        return task.losses(logits, label[None])[0]

    per_image = vmap(grad(loss_of_one), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no batching rule for gradients
        for some, theirs in zip(images.split(micro_batch), labels.split(micro_batch), strict=True):
            for name, gradients in per_image(parameters, some, theirs).items():
                total[name] += gradients.square().sum(0)
    return total
