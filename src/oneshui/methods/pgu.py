"""PGU: unlearn along directions that the training images do not use (Hoang et al. 2024)."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.errors import ArtefactError, ConfigError
from oneshui.methods.base import Artefact, ImageSet, Support, Unlearned, parameters_of, relative_change
from oneshui.schedule import cosine
from oneshui.tasks import Task

#: keeps -log(1 - p) finite (published)
_MARGIN = 0.05
_SPECTRA = ("clamp", "absolute")


@dataclass(frozen=True)
class PGU:
    """Gradient steps on the reverse cross-entropy of the support photos, projected off what the training data uses.

    For every linear and convolutional layer the Gram matrix of its inputs over D_tr is the artefact. Unlearning
    subtracts the support's, and takes the leading eigenvectors U_k that hold the fraction ``gamma`` of the sum of
    singular values of the inputs. Weights move by -lr G (I - U_k U_k^T); parameters without a projection (biases,
    norms, tokens) do not move. The learning rate follows a cosine over the epochs.

    Source: Hoang et al. 2024 (WACV), "Learn to unlearn for deep neural networks".
    Deviates: the patch embedding's inputs are its own patches (the published code takes one at every pixel); negative
        eigenvalues, which subtracting the support can leave, count as 0 (``spectrum: absolute`` folds them up, as
        published); for attributes p_y is the probability of the true bit of each, and the entropy that of each bit (the
        published code looks at the first two attributes only, and at a softmax over attributes).

    Attributes:
        lr: of plain SGD, > 0.
        epochs: steps over the support set, >= 1.
        gamma: share of the singular-value sum whose directions are kept free, in (0, 1).
        entropy_weight: of the answers' entropy, which rises, >= 0.
        spectrum: ``clamp`` or ``absolute`` eigenvalues of the difference of Gram matrices.
        batch_size: photos of one step, >= 1.
        micro_batch: images of one pass over D_tr, >= 1; memory only.
    """

    lr: float
    epochs: int
    gamma: float
    entropy_weight: float
    spectrum: str
    batch_size: int
    micro_batch: int

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 < self.gamma < 1 and self.entropy_weight >= 0):
            raise ConfigError(
                f"pgu: lr = {self.lr} must be > 0, gamma = {self.gamma} in (0, 1), entropy_weight = "
                f"{self.entropy_weight} >= 0"
            )
        for name in ("epochs", "batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"pgu: {name} = {getattr(self, name)} must be >= 1")
        if self.spectrum not in _SPECTRA:
            raise ConfigError(f"pgu: spectrum is {self.spectrum!r}, allowed: {', '.join(_SPECTRA)}")

    def precompute(self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int) -> Artefact:
        """Return the Gram matrix of every layer's inputs. Cost: one forward pass over D_tr."""
        grams = input_grams(model, (images for images, _ in train.batches(self.micro_batch)))
        return Artefact(grams, {"images": len(train)})

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the moved model. Cost: eigenvectors of every layer, ``epochs`` passes forward and backward over S."""
        if artefact is None:
            raise ArtefactError("pgu needs its artefact, the Gram matrices of the training data. Precompute it.")
        on_support = input_grams(model, iter(support.images.split(self.micro_batch)))
        projections = {name: self.projection(artefact.need(name), gram) for name, gram in on_support.items()}
        result = self.descend(model, support, projections)
        kept = sum(float(p.diagonal(dim1=-2, dim2=-1).sum()) for p in projections.values())
        size = sum(p.shape[0] * p.shape[1] for p in projections.values())
        step = relative_change(parameters_of(model), parameters_of(result))
        return Unlearned(result, {"relative_step": step, "protected_frac": kept / size})

    def projection(self, on_train: Tensor, on_support: Tensor) -> Tensor:
        """Return U_k U_k^T of one layer, (groups, d, d), from two Gram matrices of that shape."""
        difference = on_train.double() - on_support.double()
        values, vectors = _eigh(difference)  # ascending
        spectrum = values.abs() if self.spectrum == "absolute" else values.clamp(min=0)
        singular, order = spectrum.sqrt().sort(dim=-1, descending=True)
        share = singular.cumsum(-1) / singular.sum(-1, keepdim=True)
        k = (share <= self.gamma).sum(-1) + 1  # a layer without input has NaN shares: k = 1
        basis = vectors.gather(-1, order[..., None, :].expand_as(vectors))
        inside = torch.arange(basis.shape[-1], device=basis.device) < k[..., None]
        basis = basis * inside[..., None, :]
        projection: Tensor = (basis @ basis.mT).to(on_train.dtype)
        return projection

    def descend(self, model: nn.Module, support: Support, projections: dict[str, Tensor]) -> nn.Module:
        """Return the model after the projected steps; ``projections`` are by layer name."""
        result = copy.deepcopy(model)
        weights = {name: result.get_parameter(f"{name}.weight") for name in projections}
        for epoch in range(self.epochs):
            lr = self.lr * cosine(epoch, self.epochs)
            batches = zip(support.images.split(self.batch_size), support.labels.split(self.batch_size), strict=True)
            for images, labels in batches:
                loss = self.loss(result(images), labels, support.task)
                gradients = torch.autograd.grad(loss, list(weights.values()))
                with torch.no_grad():
                    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                        weight.sub_(off(gradient, projections[name]), alpha=lr)
        return result

    def loss(self, logits: Tensor, labels: Tensor, task: Task) -> Tensor:
        """Return the mean over images (and attributes) of -log(1 - p_y + 0.05) minus the weighted entropy.

        Falling p_y and rising entropy lower it.

        Args:
            logits: (B, C).
            labels: (B,) or (B, A) of 0/1.
            task: what the labels mean.
        """
        if task.kind == "classification":
            log_p = F.log_softmax(logits, dim=1)
            p_true = log_p.exp().gather(1, labels[:, None])
            entropy = -(log_p.exp() * log_p).sum(1).mean()
        else:
            p = torch.sigmoid(logits)
            p_true = torch.where(labels.bool(), p, 1 - p)
            entropy = -(p * F.logsigmoid(logits) + (1 - p) * F.logsigmoid(-logits)).mean()
        return -(1 - p_true + _MARGIN).log().mean() - self.entropy_weight * entropy


def _eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors; by a slower algorithm where the fast one does not converge.

    Few images in a wide layer leave many eigenvalues near 0, on which divide and conquer can fail.
    """
    try:
        values, vectors = torch.linalg.eigh(matrices)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        found = [eigh(matrix, driver="evr") for matrix in matrices.cpu().numpy()]
        parts = zip(*found, strict=True)
        values, vectors = (torch.from_numpy(np.stack(part)).to(matrices) for part in parts)
    return values, vectors


def off(gradient: Tensor, projection: Tensor) -> Tensor:
    """Return a weight's gradient without its part in the protected directions of the layer's inputs.

    Args:
        gradient: (out, in) or (out, in / groups, kh, kw).
        projection: (groups, d, d) with d the size of one row of the weight.
    """
    groups, d, _ = projection.shape
    rows = gradient.reshape(groups, -1, d)  # (groups, out / groups, d)
    return (rows - rows @ projection).reshape(gradient.shape)


def input_grams(model: nn.Module, batches: Iterator[Tensor]) -> dict[str, Tensor]:
    """Return X^T X of the inputs X of every linear and convolutional layer, (groups, d, d) float32 by layer name.

    A row of X is what one output is a product with: a token's features, or the pixels under a kernel at one place.
    """
    grams: dict[str, Tensor] = {}

    def add(name: str, inputs: Tensor) -> None:
        gram = inputs.mT @ inputs
        grams[name] = grams[name].add_(gram) if name in grams else gram

    with torch.no_grad(), _watching(model, add):
        for images in batches:
            model(images)
    return grams


@contextmanager
def _watching(model: nn.Module, add: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``add(name, X)`` with X (groups, rows, d) before each layer runs."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda layer, args: add(name, _rows(layer, args[0]))

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    for name, layer in layers.items():
        plain = type(layer).forward in (nn.Linear.forward, nn.Conv2d.forward)
        odd = isinstance(getattr(layer, "padding", 0), str) or getattr(layer, "padding_mode", "zeros") != "zeros"
        if not plain or odd:
            raise ConfigError(
                f"pgu: layer {name} ({type(layer).__name__}) pads its input or changes its weight in a way of its own, "
                "so its inputs cannot be read off. Choose a model of plain linear and convolutional layers."
            )
    hooks = [layer.register_forward_pre_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    assert isinstance(layer, nn.Conv2d)
    padding: Any = layer.padding
    patches = F.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)  # (B, C kh kw, places)
    batch, _, places = patches.shape
    grouped = patches.reshape(batch, layer.groups, -1, places)
    return grouped.permute(1, 0, 3, 2).reshape(layer.groups, batch * places, -1)
