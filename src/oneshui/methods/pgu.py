"""PGU: unlearn along directions that the training images do not use (Hoang et al. 2024)."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from oneshui.errors import ArtefactError, ConfigError
from oneshui.methods import params
from oneshui.methods.base import Artefact, Unlearned, parameters_of, relative_change, resumed_batches
from oneshui.resume import NEVER, Resume
from oneshui.schedule import cosine
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task

#: keeps -log(1 - p) finite (published)
_MARGIN = 0.05


class PGU(params.PGU):
    """Gradient steps on the reverse cross-entropy of the support photos, projected off what the training data uses.

    For every linear and convolutional layer the Gram matrix of its inputs over D_tr is the artefact. Unlearning
    subtracts the support's, and takes the leading eigenvectors U_k that hold the fraction ``gamma`` of the sum of
    singular values of the inputs. Weights move by -lr G (I - U_k U_k^T); parameters without a projection (biases,
    norms, tokens) do not move. The learning rate follows a cosine over the epochs. Inputs are read as the layer pads
    them. Where a layer standardises its weight, the standardised weight is what moves in these directions.

    Source: Hoang et al. 2024 (WACV), "Learn to unlearn for deep neural networks".
    Deviates: the patch embedding's inputs are its own patches (the published code takes one at every pixel); negative
        eigenvalues, which subtracting the support can leave, count as 0 (``spectrum: absolute`` folds them up, as
        published); for attributes p_y is the probability of the true bit of each, and the entropy that of each bit (the
        published code looks at the first two attributes only, and at a softmax over attributes).
    """

    def try_on(self, model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> None:
        """Look at every product of the network, without keeping its inputs."""
        parameters = dict(model.named_parameters(remove_duplicate=False))

        def look(name: str, product: Product) -> None:
            standardised(parameters.get(f"{name}.weight", parameters.get(name, product.weight)), product.weight)

        with torch.enable_grad(), Products(model, look):  # gradients tell weights from fixed filters
            model(images)

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, resume: Resume = NEVER
    ) -> Artefact:
        """Return the Gram matrix of every layer's inputs. Cost: one forward pass over D_tr."""
        self.try_on(model, train.images(torch.arange(1)), train.labels[:1], train.task)
        grams: dict[str, Tensor] = {}
        batches = resumed_batches(train, self.micro_batch, grams, resume)
        return Artefact(input_grams(model, (images for images, _ in batches), grams), {"images": len(train)})

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the moved model. Cost: eigenvectors of every layer, ``epochs`` passes forward and backward over S."""
        if artefact is None:
            raise ArtefactError("pgu needs its artefact, the Gram matrices of the training data. Precompute it.")
        on_support = input_grams(model, iter(support.images.split(self.micro_batch)))
        projections = {name: self.projection(artefact.need(name, gram), gram) for name, gram in on_support.items()}
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
        parameters = dict(result.named_parameters(remove_duplicate=False))
        weights = {name: parameters[name if name in parameters else f"{name}.weight"] for name in projections}
        used: dict[str, Tensor] = {}
        for epoch in range(self.epochs):
            lr = self.lr * cosine(epoch, self.epochs)
            batches = zip(support.images.split(self.batch_size), support.labels.split(self.batch_size), strict=True)
            for images, labels in batches:
                with Products(result, lambda name, product: used.update({name: product.weight})):
                    loss = self.loss(result(images), labels, support.task)
                gradients = torch.autograd.grad(loss, list(weights.values()))
                with torch.no_grad():
                    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                        weight.sub_(step_of(weight, used[name], gradient, projections[name]), alpha=lr)
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


def off(gradient: Tensor, projection: Tensor, also: Tensor | None = None) -> Tensor:
    """Return a weight's gradient without its part in the protected directions of the layer's inputs.

    Args:
        gradient: (out, in) or (out, in / groups, kh, kw).
        projection: (groups, d, d) with d the size of one row of the weight.
        also: (2, out, d) directions of each row that it must not have a part in either.
    """
    groups, d, _ = projection.shape
    rows = gradient.reshape(groups, -1, d)  # (groups, out / groups, d)
    rows = rows - rows @ projection
    if also is not None:
        first, second = (each.reshape(rows.shape) for each in also)
        first = _unit(first - first @ projection)
        second = second - second @ projection
        second = _unit(second - (second * first).sum(-1, keepdim=True) * first)
        for direction in (first, second):
            rows = rows - (rows * direction).sum(-1, keepdim=True) * direction
    return rows.reshape(gradient.shape)


def _unit(rows: Tensor) -> Tensor:
    """Return rows of length 1; those that vanish but for rounding stay 0."""
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-5 * rows.shape[-1] ** 0.5, rows / length, torch.zeros_like(rows))


@dataclass(frozen=True)
class Product:
    """What a linear or convolutional layer multiplied, as it was multiplied: inputs padded, weight standardised.

    Attributes:
        inputs: (groups, rows, d): a row is what one output is a product with: a token's features, or the pixels under
            a kernel at one place.
        weight: (out, in) or (out, in / groups, kh, kw): the layer's parameter itself, or what was made of it.
    """

    inputs: Callable[[], Tensor]
    weight: Tensor


class Products(TorchFunctionMode):
    """While it is entered, every matrix product and convolution of a network's parameters is shown to ``see``.

    That is done where torch is asked for the product, so that it does not matter how a layer pads its input or what it
    makes of its weight (timm's TensorFlow padding, weight standardisation). Fixed filters are passed over. Recurrent
    layers and products that are written out with ``@`` are not seen.

    Args:
        model: the network.
        see: gets the name of the weight's layer, and the product.

    Raises:
        ConfigError: with gradients enabled, a weight is made of parameters, but not by one layer of its own.
    """

    def __init__(self, model: nn.Module, see: Callable[[str, Product], None]) -> None:
        super().__init__()
        self._see, self._running = see, ""
        self._names = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
        self._layers = {
            name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
        }

    def __enter__(self) -> Self:
        self._hooks = [
            hook
            for name, layer in self._layers.items()
            for hook in (
                layer.register_forward_pre_hook(lambda layer, inputs, name=name: self._run(name)),
                layer.register_forward_hook(lambda layer, inputs, outputs: self._run("")),
            )
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _run(self, name: str) -> None:
        """Note the layer that runs; no layer runs another."""
        self._running = name

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            inputs = args[0] if args else kwargs["input"]
            self._show(weight, lambda: inputs.reshape(1, -1, inputs.shape[-1]))
        elif func is F.conv2d:
            asked = _Convolution(*args, **kwargs)
            self._show(asked.weight, asked.rows)
        return func(*args, **kwargs)

    def _show(self, weight: Tensor, inputs: Callable[[], Tensor]) -> None:
        """Show a product of a parameter, or of what the layer that runs made of its own."""
        name, layer = self._names.get(id(weight)), self._layers.get(self._running)
        if name is None and layer is not None and layer.weight.shape == weight.shape:
            name = self._running
        if name is not None:
            self._see(name.removesuffix(".weight"), Product(inputs, weight))
        elif weight.requires_grad:  # a fixed filter does not
            raise ConfigError(
                "pgu: the network multiplies with a weight that it makes of several parameters, so no direction of it "
                "can be kept. docs/networks.md lists networks that work."
            )


@dataclass(frozen=True)
class _Convolution:
    """The arguments of torch's conv2d."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def rows(self) -> Tensor:
        """Return (groups, B places, d): what lies under the kernel at each place."""
        kernel = self.weight.shape[2:]
        inputs, padding = self.input, self.padding
        if padding == "same":
            across = [d * (k - 1) for d, k in zip(_pair(self.dilation), kernel, strict=True)]
            before = [total // 2 for total in across]
            top, left = before
            inputs = F.pad(inputs, (left, across[1] - left, top, across[0] - top))
        patches = F.unfold(inputs, kernel, self.dilation, 0 if isinstance(padding, str) else padding, self.stride)
        batch, _, places = patches.shape  # (B, C kh kw, places)
        grouped = patches.reshape(batch, self.groups, -1, places)
        return grouped.permute(1, 0, 3, 2).reshape(self.groups, batch * places, -1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def input_grams(
    model: nn.Module, batches: Iterator[Tensor], grams: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return X^T X of the inputs X of every linear and convolutional layer, (groups, d, d) float32 by layer name.

    A row of X is what one output is a product with: a token's features, or the pixels under a kernel at one place.

    Args:
        model: the network.
        batches: images.
        grams: what they are added to; None: nothing yet.
    """
    grams = {} if grams is None else grams

    def add(name: str, product: Product) -> None:
        inputs = product.inputs()
        gram = inputs.mT @ inputs
        grams[name] = grams[name].add_(gram) if name in grams else gram

    with torch.no_grad(), Products(model, add):
        for images in batches:
            model(images)
    return grams


def step_of(weight: Tensor, used: Tensor, gradient: Tensor, projection: Tensor) -> Tensor:
    """Return the step of a layer's parameter with which the weight that it uses moves off ``projection``.

    A standardised weight cannot move along itself or along a row of ones; these parts of the step are left out.
    """
    slope = standardised(weight, used)
    if slope is None:
        return off(gradient, projection)
    rows = used.detach().flatten(1)
    step = off(gradient, projection, also=torch.stack([torch.ones_like(rows), rows]))
    dead = slope.abs() < 1e-12  # all weights of a row are alike: it is not moved
    return torch.where(dead, 0, step.flatten(1) / slope.square()).reshape(gradient.shape)


def standardised(parameter: Tensor, used: Tensor) -> Tensor | None:
    """Return by how much a weight-standardised layer's weight moves for each step of its parameter, (out, 1).

    Such a layer uses ``used = c (w - mean(w))`` for each row w of its parameter, with c one over the row's standard
    deviation, times a gain. A step of w that has no part along the row of ones and along ``used`` moves ``used`` by c
    times as much, to first order.

    Returns:
        c, or None where the layer uses the parameter as it is.

    Raises:
        ConfigError: what it uses is something else.
    """
    if used is parameter:
        return None
    rows, own = used.detach().flatten(1), parameter.flatten(1)
    own = own - own.mean(1, keepdim=True)
    slope = (rows * own).sum(1, keepdim=True) / own.square().sum(1, keepdim=True).clamp(min=1e-30)
    if not torch.allclose(rows, slope * own, rtol=1e-3, atol=1e-3 * float(rows.abs().max())):
        raise ConfigError(
            "pgu: a layer makes another weight of its parameter than a standardised one, so no direction of it can be "
            "kept. docs/networks.md lists networks that work."
        )
    return slope
