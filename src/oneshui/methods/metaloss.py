"""h_phi and what it looks at: the learned loss of MetaUnlearn, and the backbone as a function of its parameters."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from oneshui.models import features_and_logits
from oneshui.replay import Computation, Replayed

_EMBEDDING_DIM = 64


class MetaLoss(nn.Module):
    """h_phi: maps what the backbone says of a support photo to a positive number (paper, Table 8b).

    An identity that meta-training has not seen uses the mean of the identity table.
    """

    def __init__(self, *, n_outputs: int, n_features: int, n_identities: int, inputs: tuple[str, ...], hidden: int,
                 dropout: float) -> None:  # fmt: skip
        super().__init__()
        sizes = {"logits": n_outputs, "features": n_features, "target": n_outputs, "identity": _EMBEDDING_DIM}
        self.inputs = inputs
        self.embed = nn.Embedding(n_identities, _EMBEDDING_DIM)
        self.input_block = nn.Sequential(
            nn.Linear(sum(sizes[name] for name in inputs), hidden), nn.LayerNorm(hidden), nn.Linear(hidden, hidden)
        )
        self.dropout = nn.Dropout(dropout)
        self.output_block = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 1))

    def forward(self, features: Tensor, logits: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """Return h of each photo, (B,), > 0.

        Args:
            features: (B, D) pooled pre-logits features.
            logits: (B, C); h_phi sees their sigmoid, for either task, as the published code does.
            target: (B, C) one-hot or multi-hot label.
            rows: (B,) int64 rows of the identity table; -1 is an unknown identity.
        """
        known = self.embed(rows.clamp(min=0))
        embedding = torch.where((rows >= 0)[:, None], known, self.embed.weight.mean(0))
        parts = {"logits": logits.sigmoid(), "features": features, "target": target, "identity": embedding}
        z = torch.cat([parts[name].to(embedding.dtype) for name in self.inputs], dim=1)
        hidden = self.dropout(F.gelu(self.input_block(z)))
        return F.softplus(self.output_block(hidden))[:, 0]


class _WithFeatures(nn.Module):
    """Lets ``functional_call`` return features and logits of a timm model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return features_and_logits(self.model, images)


class Backbone:
    """The network as a function of its parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.module = _WithFeatures(model.eval())
        self.buffers = dict(self.module.named_buffers())
        self.theta = {name: value.detach() for name, value in self.module.named_parameters()}
        self._replayed: dict[Hashable, Replayed] = {}

    def replayed(self, key: Hashable, computation: Computation) -> Replayed:
        """Return ``computation`` with this network as a GPU replays it, the same for every call with ``key``.

        It must read nothing that differs between these calls but its arguments.
        """
        if key not in self._replayed:
            device = next(iter(self.theta.values())).device
            self._replayed[key] = Replayed(computation, device)
        return self._replayed[key]

    def __call__(self, theta: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features, logits) of ``images`` under the parameters ``theta``."""
        features, logits = functional_call(self.module, {**theta, **self.buffers}, (images,))
        return features, logits


@dataclass(frozen=True)
class SupportBatch:
    """A support set as h_phi sees it: (N_S, ...) images, targets (one- or multi-hot), rows of the identity table."""

    images: Tensor
    targets: Tensor
    rows: Tensor

    def chunks(self, size: int) -> Iterator["SupportBatch"]:
        """Cut into micro-batches."""
        for parts in zip(self.images.split(size), self.targets.split(size), self.rows.split(size), strict=True):
            yield SupportBatch(*parts)
