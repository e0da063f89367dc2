"""What methods share that train a student beside a teacher: the divergence, the optimiser, the epochs and batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.log import logger
from oneshui.resume import Resume, State, generator_states, optimiser_state, restore_generators, restore_optimiser
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
        self._named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._parameters = [parameter for _, parameter in self._named]
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

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the momentum, and the learning rate with its schedule, JSON-like."""
        return optimiser_state(self._named, self._optimiser), {
            "lr": [group["lr"] for group in self._optimiser.param_groups], "schedule": self._schedule.state_dict(),
        }  # fmt: skip

    def restore(self, moments: dict[str, Tensor], rates: dict[str, Any]) -> None:
        """Put back what ``state`` returned."""
        restore_optimiser(self._named, self._optimiser, moments)
        self._schedule.load_state_dict(rates["schedule"])
        for group, lr in zip(self._optimiser.param_groups, rates["lr"], strict=True):
            group["lr"] = lr


def training_epochs(
    student: nn.Module, sgd: SGD, draw: torch.Generator, device: torch.device, epochs: int, resume: Resume
) -> Iterator[int]:
    """Yield the numbers of the epochs; those that a killed process has done are left out.

    Args:
        student: gets the weights that it had then.
        sgd: likewise; its learning rate falls after each epoch.
        draw: generator of batches and crops; gets the state that it had then, and so do torch's own.
        device: of the student.
        epochs: how many there are in all.
        resume: what to go on from.
    """
    loaded = resume.load()
    done = 0
    if loaded is not None:
        groups, note = loaded
        with resume.restoring():
            done = int(note["epoch"])
            student.load_state_dict(groups["student"])
            sgd.restore(groups.get("optimiser", {}), note["rates"])
            draw.set_state(groups["draw"]["state"].cpu())
            restore_generators(device, groups["generators"])
        logger.info("resuming after epoch %d of %d", done - 1, epochs)
    for epoch in range(done, epochs):
        yield epoch
        sgd.next_epoch()

        def state(done: int = epoch + 1) -> State:
            moments, rates = sgd.state()
            groups = {
                "student": student.state_dict(), "optimiser": moments, "draw": {"state": draw.get_state()},
                "generators": generator_states(device),
            }  # fmt: skip
            return groups, {"epoch": done, "rates": rates}

        if epoch + 1 < epochs:
            resume.save(state)


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
