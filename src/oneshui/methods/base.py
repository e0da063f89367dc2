"""What an unlearning method sees, keeps and returns. The signatures are the privacy rule.

``precompute`` runs while the training data exists; what it returns is the artefact, all that may be kept.
``unlearn`` has no parameter through which training data could reach it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from oneshui.errors import ArtefactError, ConfigError, DataError
from oneshui.tasks import Task
from oneshui.tensors import load_tensors, save_tensors


class ImageSet(Protocol):
    """Labelled images of known identities, cut into batches on a device (see oneshui.data.images)."""

    @property
    def labels(self) -> Tensor:
        """(M,) int64 or (M, A) of 0/1."""

    @property
    def identities(self) -> Tensor:
        """(M,) int64 on the CPU."""

    @property
    def task(self) -> Task:
        """What the labels mean."""

    @property
    def device(self) -> torch.device:
        """Where batches are made."""

    def __len__(self) -> int: ...

    def subset(self, rows: Tensor) -> Self:
        """The images at ``rows``."""

    def images(self, rows: Tensor) -> Tensor:
        """The images at ``rows`` under the test transform, (B, 3, px, px) float32."""

    def augmented(self, rows: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
        """The images at ``rows``, cropped to an area share in ``scale`` and mirrored at random; a CPU generator."""

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All (images, labels) in order."""


@dataclass(frozen=True)
class TensorSet:
    """An ImageSet of ready-made input tensors: for calling a method from Python, and for tests on exact inputs."""

    pixels: Tensor
    labels: Tensor
    task: Task
    identities: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, rows: Tensor) -> "TensorSet":
        identities = self.identities[rows] if len(self.identities) else self.identities
        return TensorSet(self.pixels[rows], self.labels[rows], self.task, identities)

    def images(self, rows: Tensor) -> Tensor:
        return self.pixels[rows]

    def augmented(self, rows: Tensor, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
        """The images at ``rows``, mirrored at random; they are ready-made and are not cropped."""
        if scale != (1.0, 1.0):
            raise ConfigError(f"crop_scale = {list(scale)}: ready-made tensors can only be mirrored, use [1.0, 1.0]")
        flip = torch.rand(len(rows), generator=generator) < 0.5
        pixels = self.pixels[rows]
        return torch.where(flip.to(pixels.device)[:, None, None, None], pixels.flip(3), pixels)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.arange(len(self)).split(batch_size):
            yield self.pixels[rows], self.labels[rows]


@dataclass(frozen=True)
class Support:
    """The support set S of a request: one photo of each identity that asks to be forgotten.

    Attributes:
        images: (N_S, 3, px, px) float32 under the test transform.
        labels: (N_S,) int64 or (N_S, A) of 0/1.
        identities: (N_S,) int64 on the CPU.
        task: what the labels mean.
    """

    images: Tensor
    labels: Tensor
    identities: Tensor
    task: Task

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.identities):
            raise DataError(
                f"a support set has {len(self.images)} images, {len(self.labels)} labels and "
                f"{len(self.identities)} identities; the three must agree"
            )
        if not len(self.images):
            raise DataError("the request holds no photo: there is nobody to forget. Give at least one support image.")


@dataclass(frozen=True)
class Artefact:
    """Data-derived tensors kept past the discard line, with what there is to say about them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, header: dict[str, Any]) -> None:
        """Write the artefact atomically; ``header`` says which model and method it belongs to."""
        save_tensors(path, self.tensors, {**header, "artefact": self.metadata})

    @classmethod
    def load(cls, path: str | Path, device: torch.device) -> tuple["Artefact", dict[str, Any]]:
        """Return the artefact at ``path`` and its header.

        Raises:
            ArtefactError: the file is missing or damaged.
        """
        try:
            tensors, header = load_tensors(path, device)
        except DataError as error:
            raise ArtefactError(f"{error} That is: run precompute_artefact again.") from error
        return cls(tensors, header.pop("artefact", {})), header

    def need(self, name: str) -> Tensor:
        """Return the tensor ``name``.

        Raises:
            ArtefactError: it is not there.
        """
        if name not in self.tensors:
            raise ArtefactError(f"the artefact has no {name!r}, only: {', '.join(self.tensors)}. Precompute it again.")
        return self.tensors[name]


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model with what the method noticed while making it.

    Attributes:
        model: a new module; the one that was given is untouched.
        health: numbers and flags for the metrics, e.g. ``saturated``, ``blown_up``, ``relative_step``.
    """

    model: nn.Module
    health: dict[str, float | bool] = field(default_factory=dict)


class UnlearningMethod(Protocol):
    """A method that needs only the model, the support set and its artefact: it may run after the data is gone.

    Methods are frozen dataclasses of their hyper-parameters. ``seed`` feeds the method's own generators. A method that
    asks a network for more than answers and their gradient has ``try_on(model, images, labels, task)``, too: it does
    that once, and raises where a network cannot (``oneshui.networks``).
    """

    def precompute(self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int) -> Artefact | None:
        """Return what must be kept from the training data; ``train`` is D_tr, without any support image."""

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return a new model that should behave as if it had never seen the identities of ``support``."""


#: a newly initialised network of the model's architecture, from a seed
Rebuild = Callable[[int], nn.Module]


class DataUnlearningMethod(Protocol):
    """A reference method: it needs the forget set and the retain set themselves, so it cannot serve a request later."""

    def unlearn(
        self, model: nn.Module, forget: ImageSet, retain: ImageSet, *, seed: int, rebuild: Rebuild
    ) -> Unlearned:
        """Return a new model; ``forget`` is D_f without the support images, ``retain`` is D_r."""


def relative_change(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Return ||after - before|| / ||before|| over all the tensors together."""
    step = torch.stack([(after[name].double() - tensor.double()).square().sum() for name, tensor in before.items()])
    size = torch.stack([tensor.double().square().sum() for tensor in before.values()])
    return float((step.sum() / size.sum()).sqrt())


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters by name, detached: every one of them moves unless a method says otherwise."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
