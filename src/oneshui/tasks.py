"""The two tasks of the benchmark: one label of C classes, or A independent binary attributes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oneshui.errors import ConfigError

KINDS = ("classification", "multilabel")


@dataclass(frozen=True)
class Task:
    """What a model predicts.

    Attributes:
        kind: ``classification`` (softmax, cross-entropy) or ``multilabel`` (sigmoids, binary cross-entropy).
        classes: names of the classes, or of the binary attributes.
    """

    kind: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"task is {self.kind!r}, allowed: {', '.join(KINDS)}")
        if not self.classes:
            raise ConfigError(f"a {self.kind} task needs at least one class name")

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "Task":
        """Return the task described by a table's or a model's metadata."""
        return cls(str(meta["task"]), tuple(str(name) for name in meta["classes"]))

    @property
    def n_outputs(self) -> int:
        """Number of logits."""
        return len(self.classes)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image in nats, (B,); for attributes their mean.

        Args:
            logits: (B, C) float.
            labels: (B,) int64 class numbers, or (B, A) of 0/1.
        """
        if self.kind == "classification":
            return F.cross_entropy(logits, labels, reduction="none")
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)

    def target_vectors(self, labels: Tensor) -> Tensor:
        """Return labels as (B, C) float32 vectors: one-hot, or the 0/1 attributes themselves."""
        if self.kind == "classification":
            return F.one_hot(labels, self.n_outputs).float()
        return labels.float()

    def label_tensor(self, labels: Any) -> Tensor:
        """Return labels read from a table as an int64 tensor, (B,) or (B, A)."""
        return torch.as_tensor(labels, dtype=torch.int64)
