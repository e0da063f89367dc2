"""Where a network can be edited: linear layers whose output is only added to what later layers read.

Such a layer is the last projection of a block (``conv_pwl``, ``mlp.fc2``, ``attn.proj``, the last convolution of a
residual block). A change of its weights moves the sum behind it linearly, so the change that moves the sum to where it
should be is the solution of a least-squares problem. Points are found by trying, not by names: a network of another
family needs no line here.
"""

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneshui.errors import ConfigError
from oneshui.models import blocks_of, features_and_logits, watched

#: relative error up to which a response counts as linear
_LINEAR = 1e-4


@dataclass(frozen=True)
class EditPoint:
    """A layer that can be edited, and the sum that its output goes into.

    Attributes:
        layer: name of the convolution or linear layer.
        read: name of the module that the sum is read at.
        is_input: whether the sum is what that module takes, or what it gives.
        scale: (d_out,) change of the sum per change of the layer's output: that of a batch norm or a layer scale
            between them, or 1.
        positions: (P,) int64, the positions that the features depend on: all; of the last block of a ViT whose
            features are the class token, that one.
    """

    layer: str
    read: str
    is_input: bool
    scale: Tensor
    positions: Tensor


def edit_points(model: nn.Module, images: Tensor, blocks: int) -> list[EditPoint]:
    """Return the edit points of the last blocks, in the order of depth.

    Args:
        model: in evaluation mode.
        images: (B, 3, px, px), at least two; any images do.
        blocks: how many blocks, counted from the end.

    Raises:
        ConfigError: the network has fewer blocks with such a layer.
    """
    found: list[dict[str, _Sum]] = []
    model, images = copy.deepcopy(model).double(), images.double()  # some layers start with a scale of 1e-6
    names = blocks_of(model, images)
    calls = _calls_of(model, names, images)
    for block in reversed(names):
        layers = _layers_of(model, block, calls[block])
        if not layers and not found:
            break  # what the last block knows would stay
        found = [layers, *found] if layers else found
        if len(found) == blocks:
            sums = {name: behind for layers in found for name, behind in layers.items()}
            positions = _positions_of(model, list(sums.values()), images)
            return [
                EditPoint(name, behind.value.module, behind.value.is_input, behind.scale, where)
                for (name, behind), where in zip(sums.items(), positions, strict=True)
            ]
    raise ConfigError(
        f"blocks = {blocks}, allowed: at most {len(found)}, of whose layers one gives what is only added to what "
        "follows. Lower blocks, or choose another network."
    )


def layer_inputs(layer: nn.Module, taken: Tensor) -> Tensor:
    """Return what a layer multiplies with its weights, (B, P, d_in): one row for each position of its output."""
    if isinstance(layer, nn.Linear):
        return taken.reshape(len(taken), -1, taken.shape[-1])
    assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
    return F.unfold(taken, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)


def matrix_of(layer: nn.Module) -> Tensor:
    """Return the weights that a layer multiplies its inputs (``layer_inputs``) with, (d_out, d_in)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().flatten(1)


def rows_of(value: Tensor, channels: int) -> Tensor:
    """Return activations as (B, P, C), whatever their layout: vectors, tokens, maps with channels first or last."""
    if value.ndim == 4 and value.shape[1] == channels:
        value = value.movedim(1, -1)
    return value.reshape(len(value), -1, channels)


class Recorder:
    """Runs a network and keeps what flows through its edit points.

    Args:
        model: in evaluation mode; its weights may change between calls.
        points: of this network, or of one of the same architecture.
    """

    def __init__(self, model: nn.Module, points: list[EditPoint]) -> None:
        self.model, self.points = model, points

    def __call__(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return the inputs z (B, P, d_in) and sums h (B, P, d_out) of each point in float64, and the logits."""
        places = [place for point in self.points for place in ((point.layer, True), (point.read, point.is_input))]
        with torch.no_grad(), watched(self.model, places) as values:
            logits: Tensor = self.model(images)
        found = {(name, is_input): value for name, is_input, value in values}
        keys, sums = [], []
        for point in self.points:
            z = layer_inputs(self.model.get_submodule(point.layer), found[point.layer, True])
            h = rows_of(found[point.read, point.is_input], len(point.scale))
            keys.append(z[:, point.positions].double())
            sums.append(h[:, point.positions].double())
        return keys, sums, logits


@dataclass(frozen=True)
class _Value:
    """What a module took or gave."""

    module: str
    is_input: bool
    value: Tensor


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a linear map of all its channels whose inputs ``layer_inputs`` knows."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


@dataclass(frozen=True)
class _Call:
    """A module, and what it is called with."""

    module: nn.Module
    positional: tuple[Any, ...]
    named: dict[str, Any]

    def again(self) -> None:
        """Run the module."""
        positional, named = copy.deepcopy((self.positional, self.named))  # it may overwrite them
        self.module(*positional, **named)


def _calls_of(model: nn.Module, blocks: list[str], images: Tensor) -> dict[str, _Call]:
    """Return what makes each block run as it does in the network."""
    found: dict[str, list[_Call]] = {block: [] for block in blocks}
    with torch.no_grad(), ExitStack() as hooks:
        for block, calls in found.items():
            hook = model.get_submodule(block).register_forward_pre_hook(
                lambda *call, calls=calls: calls.append(_Call(call[0], *copy.deepcopy(call[1:]))), with_kwargs=True
            )
            hooks.callback(hook.remove)
        model(images)
    # one that runs more than once takes what it gave
    return {block: calls[0] if len(calls) == 1 else _Call(model, (images,), {}) for block, calls in found.items()}


def _layers_of(model: nn.Module, block: str, call: _Call) -> dict[str, "_Sum"]:
    """Return the layers of one block that can be edited: they see what another layer of it gave, not the block's input.

    Their output is added to a shortcut, or is what the block gives, before its activation.
    """
    trial = _Trial(model, block, call)
    found, inner = dict[str, _Sum](), set[str]()
    for name in dict.fromkeys(each.module for each in trial.plain):
        if _is_layer(model.get_submodule(name)):
            behind, reached = trial.behind(name)
            if behind is not None and name in inner and (behind.has_shortcut or trial.ends(behind.value)):
                found[name] = behind
            inner |= reached
    return found


@dataclass(frozen=True)
class _Sum:
    """A value that a layer's output is only added to, by ``scale`` (d_out,); and whether something else is, too."""

    value: _Value
    scale: Tensor
    has_shortcut: bool


class _Trial:
    """What flows through a block, and how it moves when the output of one of its layers is moved.

    Args:
        model: in evaluation mode.
        block: its name.
        call: makes it run.
    """

    def __init__(self, model: nn.Module, block: str, call: _Call) -> None:
        self.model, self.block, self.call = model, block, call
        inside = [name for name, _ in model.named_modules() if name == block or name.startswith(f"{block}.")]
        self._places = [(name, is_input) for name in inside for is_input in (True, False)]
        self.plain = self._run()

    def behind(self, name: str) -> tuple[_Sum | None, set[str]]:
        """Return the last value that a layer's output is only added to, and the modules whose input it changes.

        The output is moved twice, by other amounts at each position. Where both move a value by the same multiples,
        one for each channel, the value is such a sum. One of the moves is so large that no activation passes it.
        """
        layer = self.model.get_submodule(name)
        place = next(i for i, each in enumerate(self.plain) if each.module == name and not each.is_input)
        own = self.plain[place].value
        channels = own.shape[1] if isinstance(layer, nn.Conv2d) else own.shape[-1]
        rows = rows_of(own, channels)
        draw = torch.Generator().manual_seed(0)
        changes, moved = [], []
        for size in (1.0, 100.0):
            amount = (torch.rand(rows.shape[1:], generator=draw) + 0.5).to(rows) * size * rows.std().clamp(min=1e-3)
            changes.append(amount * torch.where(torch.rand(amount.shape, generator=draw) < 0.5, -1.0, 1.0).to(rows))
            moved.append(self._run(name, changes[-1], own.shape))
        reached = {
            before.module
            for before, after in zip(self.plain, moved[0], strict=True)
            if before.is_input and not torch.equal(before.value, after.value)
        }
        z = layer_inputs(layer, next(each.value for each in self.plain if each.module == name and each.is_input))
        if z.shape[:2] != rows.shape[:2] or not _agree(_answer(layer, z), rows):
            return None, reached  # a padding of its own, or weights that are made anew for each call
        last = None
        for i, before in enumerate(self.plain[place:], place):
            if before.value.numel() != own.numel() or channels not in before.value.shape[1:]:
                continue
            base = rows_of(before.value, channels)
            if base.shape != rows.shape:
                continue
            factors = [
                (rows_of(run[i].value, channels) - base) / change for run, change in zip(moved, changes, strict=True)
            ]
            scale = factors[0].mean((0, 1))
            if bool(scale.any()) and all(_agree(factor, scale.expand_as(factor)) for factor in factors):
                rest = base - scale * rows
                has_shortcut = bool((rest - rest.mean((0, 1))).abs().max() > _LINEAR * base.abs().max())
                last = _Sum(before, scale, has_shortcut)
        return last, reached

    def ends(self, value: _Value) -> bool:
        """Whether a value is what the block gives, or what its last activation takes."""
        given = {each.module: each.value for each in self.plain if not each.is_input}
        end, here = given[self.block], value.value if not value.is_input else given[value.module]
        return end.shape == here.shape and torch.equal(end, here)

    def _run(self, name: str = "", change: Tensor | None = None, shape: torch.Size | None = None) -> list[_Value]:
        """Return what flows through the block, the output of a layer moved by ``change`` (P, C)."""
        with torch.no_grad(), ExitStack() as hooks:
            if change is not None and shape is not None:
                layer = self.model.get_submodule(name)
                maps = isinstance(layer, nn.Conv2d)
                by = change.T.reshape(shape[1:]) if maps else change.reshape(shape[1:])
                hooks.callback(layer.register_forward_hook(lambda _, __, given: given + by).remove)
            values = hooks.enter_context(watched(self.model, self._places))
            self.call.again()
        return [_Value(*each) for each in values]


def _positions_of(model: nn.Module, sums: list[_Sum], images: Tensor) -> list[Tensor]:
    """Return the positions of each sum on which the features depend."""
    kept: dict[int, Tensor] = {}

    def watch(i: int, tensor: Tensor) -> Tensor:
        kept.setdefault(i, tensor)
        return tensor.clone()  # what follows may overwrite it

    with torch.enable_grad(), ExitStack() as hooks:
        for i, value in enumerate(behind.value for behind in sums):
            module = model.get_submodule(value.module)
            if value.is_input:
                hook = module.register_forward_pre_hook(lambda _, taken, i=i: (watch(i, taken[0]), *taken[1:]))
            else:
                hook = module.register_forward_hook(lambda _, __, given, i=i: watch(i, given))
            hooks.callback(hook.remove)
        features, _ = features_and_logits(model, images.clone().requires_grad_())
        # a plain sum is constant behind a layer norm
        weights = torch.linspace(0.5, 1.5, features.shape[1], device=features.device)
        gradients = torch.autograd.grad((features * weights).sum(), [kept[i] for i in range(len(sums))])
    found = [rows_of(gradient, len(behind.scale)) for gradient, behind in zip(gradients, sums, strict=True)]
    return [gradient.abs().sum((0, 2)).nonzero()[:, 0] for gradient in found]


def _answer(layer: nn.Module, z: Tensor) -> Tensor:
    """Return what a layer gives for its inputs (B, P, d_in)."""
    bias = layer.bias
    return z @ matrix_of(layer).T + (bias.detach() if isinstance(bias, Tensor) else 0.0)


def _agree(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= _LINEAR * other.abs().max())
