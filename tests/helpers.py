"""Small stand-ins that several tests share."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from oneshui.tasks import Task


@dataclass(frozen=True)
class TensorSet:
    """An image set whose images are given as a tensor; for tests of methods on exact inputs."""

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

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.arange(len(self)).split(batch_size):
            yield self.pixels[rows], self.labels[rows]
