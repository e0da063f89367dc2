"""What methods share that train a student beside a teacher: the divergence, the optimiser, the batches."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.sets import ImageSet
from oneshui.tasks import Task
from oneshui.tensors import cut


def kl_divergence(student: Tensor, teacher: Tensor, *, task: Task, form: str, temperature: float) -> Tensor:
    """Return KL(teacher || student) of each image in nats, (B,), without the factor T^2.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits.
        task: for a multi-label task the form ``task`` is the mean over attributes of the Bernoulli KL, on the scale of
            the task's loss; for a classification the softmax KL.
        form: ``task`` follows the task; ``softmax`` treats attributes as if they excluded each other, as the published
            codes do.
        temperature: divides both logits, > 0.
    """
    student, teacher = student / temperature, teacher / temperature
    if task.kind == "classification" or form == "softmax":
        log_teacher = F.log_softmax(teacher, dim=1)
        return (log_teacher.exp() * (log_teacher - F.log_softmax(student, dim=1))).sum(1)
    p = torch.sigmoid(teacher)
    ones = p * (F.logsigmoid(teacher) - F.logsigmoid(student))
    zeros = (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (ones + zeros).mean(1)


class SGD:
    """Stochastic gradient descent with momentum, its learning rate on a cosine over the epochs."""

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float, epochs: int) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimiser = torch.optim.SGD(self._parameters, lr, momentum, weight_decay=weight_decay)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, epochs)

    def step(self, loss: Tensor, *, clip_norm: float | None = None) -> None:
        """Go down ``loss``; gradients longer than ``clip_norm`` are shortened to it."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, clip_norm)
        self._optimiser.step()

    def next_epoch(self) -> None:
        """Lower the learning rate."""
        self._schedule.step()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let dropout and the like draw from ``seed`` in the block, and leave torch's own generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def shuffled_rows(n: int, batch_size: int, draw: torch.Generator) -> list[Tensor]:
    """Return one epoch of batches of row numbers."""
    return cut(torch.randperm(n, generator=draw), batch_size)


def views(images: ImageSet, rows: Tensor, crop_scale: tuple[float, ...], draw: torch.Generator) -> Tensor:
    """Return the images at ``rows``: cropped and mirrored at random, or under the test transform."""
    return images.augmented(rows, (crop_scale[0], crop_scale[1]), draw) if crop_scale else images.images(rows)
