"""Backbones from timm, and checkpoints that rebuild their model: safetensors, never pickle."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from oneshui.checked import arguments
from oneshui.config import Channels, TrainSpec, per_channel
from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.files import TASK, sha256_file, wrong_entry
from oneshui.tasks import Task
from oneshui.tensors import load_tensors, misfit, not_finite, save_tensors, unlike
from oneshui.weights import config_of, input_of_weights, read_weights

#: arguments of ``timm.create_model`` that are no options of ours: what data and configuration give, and what makes it
#: open other files, some of them pickles
_GIVEN = {
    "num_classes", "in_chans", "img_size", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "model_name",
    "pretrained_strict", "pretrained_filter_fn", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit",
}  # fmt: skip
#: numbers and tensors that a network may make beside those that its file of weights holds: buffers, initialisation
_SPARE_NUMBERS, _SPARE_TENSORS = 2**26, 20_000
_LARGEST_INPUT = 4096


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a model and to feed it.

    Attributes:
        architecture: timm model name; a pretrained tag after the dot is kept for the record.
        task: what the logits mean.
        input_px: side of the square input, px.
        mean: subtracted from the values in [0, 1] of each channel; a number stands for all three.
        std: divisor after that, > 0.
        options: further keyword arguments of ``timm.create_model`` (e.g. ``patch_size``).

    Raises:
        ConfigError: a value is out of its range.
    """

    architecture: str
    task: Task
    input_px: int
    mean: Channels
    std: Channels
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", per_channel(self.mean))
        object.__setattr__(self, "std", per_channel(self.std))
        if not 1 <= self.input_px <= _LARGEST_INPUT:
            raise ConfigError(f"input_px = {self.input_px}, allowed: 1 to {_LARGEST_INPUT}")
        if not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"mean = {list(self.mean)}, allowed: finite numbers")
        if not (all(map(math.isfinite, self.std)) and min(self.std) > 0):
            raise ConfigError(f"std = {list(self.std)}, allowed: finite numbers > 0")

    @classmethod
    def of_training(cls, spec: TrainSpec, task: Task) -> "ModelSpec":
        """Return the model that ``spec`` trains. Mean and std that it does not give are those of the weights."""
        if spec.mean is None or spec.std is None:
            weights_mean, weights_std = input_of_weights(spec.model)
        mean = weights_mean if spec.mean is None else per_channel(spec.mean)
        std = weights_std if spec.std is None else per_channel(spec.std)
        return cls(spec.model, task, spec.input_px, mean, std, spec.model_options)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str = "model_spec") -> "ModelSpec":
        """Return the spec stored in a checkpoint's header.

        Raises:
            ConfigError: an entry is missing, unknown, of another type or out of its range.
        """
        rest = dict(raw)
        task = rest.pop("task", None)
        wrong = wrong_entry(task, TASK, TASK)
        if wrong:
            raise ConfigError(f"{where}: task has {wrong}")
        return cls(task=Task(task["kind"], tuple(task["classes"])), **arguments(_Stored, rest, where))


@dataclass(frozen=True)
class _Stored:
    """What a header holds of a ``ModelSpec`` beside the task."""

    architecture: str
    input_px: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)


def build_model(spec: ModelSpec, *, weights: Path | None = None) -> nn.Module:
    """Return the timm model of ``spec`` in evaluation mode, randomly initialised or from ``weights``.

    Random initialisation draws from torch's generator: seed it inside ``torch.random.fork_rng``.

    Args:
        spec: the model to build.
        weights: a local safetensors file with initial (ImageNet) weights in timm's names. Its classifier is dropped,
            also one of the same size: its classes are others. Position embeddings are resized, as timm does.

    Raises:
        ConfigError: timm has no such model, or ``weights`` do not fit it.
    """
    given = sorted(_GIVEN & spec.options.keys())
    if given:
        raise ConfigError(
            f"model_options: leave out {', '.join(given)}, which data and configuration give, or which would open "
            "other files"
        )
    name = (
        spec.architecture if weights is not None and config_of(spec.architecture) else spec.architecture.split(".")[0]
    )
    options: dict[str, Any] = {**spec.options, "num_classes": spec.task.n_outputs}
    if weights is not None:
        tensors = read_weights(weights)
        # timm keeps a classifier whose size its configuration says to be the wanted one; none has -1
        source = {"state_dict": dict(tensors), "num_classes": -1, "custom_load": False}
        options |= {"pretrained": True, "pretrained_cfg_overlay": source}
    try:
        if not timm.is_model(name):  # timm would take it for a repository on the hub, or for a folder
            raise RuntimeError("it knows no network of that name")
        with _loads() as loads:
            model = _create(name, options, spec.input_px)
        # convolutions are a quarter faster in this layout, also on the CPU
        model = model.eval().to(memory_format=torch.channels_last)
    except ConfigError:
        raise
    except Exception as error:  # networks raise many types where options are not what they expect
        if not timm.is_model(name):
            similar = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
            fix = f"Names like it: {similar or 'none'}."
        else:
            fix = "Does it know these model_options and this input_px?"
            fix = fix if weights is None else f"Are {weights} the weights of this model?"
        raise ConfigError(f"timm cannot build model {spec.architecture!r} ({error}). {fix}") from error
    if weights is not None:
        model.pretrained_cfg = {**model.pretrained_cfg, "state_dict": None}  # type: ignore[dict-item,assignment]
        _check_loaded(model, loads[-1], weights, spec.architecture)
        _check_kinds(model, tensors, weights)
    return model


@contextmanager
def _loads() -> Iterator[list[Any]]:
    """Collect what ``load_state_dict`` reports within the block: timm takes what fits and is silent about the rest."""
    original, reports = nn.Module.load_state_dict, []

    def load(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        reports.append(original(module, *args, **kwargs))
        return reports[-1]

    with mock.patch.object(nn.Module, "load_state_dict", load):
        yield reports


def _check_loaded(model: nn.Module, report: Any, weights: Path, architecture: str) -> None:
    """Refuse weights that lack more than a classifier, or have more than the network, under timm's names."""
    heads = model.get_classifier()  # type: ignore[operator]  # every timm model has it
    heads = heads if isinstance(heads, tuple) else (heads,)
    classifiers = tuple(f"{name}." for name, module in model.named_modules() if any(module is head for head in heads))
    counters = "num_batches_tracked"  # of batch norm; old files have none, and nothing reads them
    lost = [n for n in report.missing_keys if not n.startswith(classifiers) and not n.endswith(counters)]
    for names, what in (
        (lost, "lacks {} tensors of {!r}"),
        (report.unexpected_keys, "has {} tensors that {!r} has not"),
    ):
        if names:
            said = what.format(len(names), architecture)
            raise ConfigError(f"{weights} {said}, e.g. {min(names)}. Are they the weights of this model?")


def _check_kinds(model: nn.Module, tensors: Mapping[str, Tensor], weights: Path) -> None:
    """Refuse whole numbers where the network has fractions: torch would convert them without a word."""
    for name, value in model.state_dict().items():
        wrong = (
            unlike(tensors[name], torch.empty_like(tensors[name], dtype=value.dtype, device="meta"))
            if name in tensors
            else ""
        )
        if wrong:
            raise ConfigError(f"{weights}: {name!r} {wrong}. Are they the weights of this model?")


def _create(name: str, options: dict[str, Any], input_px: int) -> nn.Module:
    """Networks with position embeddings must be told their input size; others do not know the word."""
    try:
        sized: nn.Module = timm.create_model(name, img_size=input_px, **options)
        return sized
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    free: nn.Module = timm.create_model(name, **options)
    return free


def check_model(model: nn.Module, spec: ModelSpec, device: torch.device) -> None:
    """Refuse, before hours of training, a network that cannot serve as a backbone here.

    Raises:
        ConfigError: one vector of features an image, and the logits, cannot be read off it.
    """
    image = torch.linspace(-1, 1, 3 * spec.input_px**2, device=device).reshape(1, 3, spec.input_px, spec.input_px)
    training = model.training
    try:
        with torch.no_grad():
            expected, (features, logits) = model.eval()(image), features_and_logits(model, image)
        fits = features.ndim == 2 and logits.shape == (1, spec.task.n_outputs)
        fits = fits and torch.allclose(expected, logits, rtol=1e-3, atol=1e-4)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{spec.architecture} does not work at {spec.input_px} px as a backbone ({error})") from error
    finally:
        model.train(training)
    if not fits:
        raise ConfigError(
            f"{spec.architecture} has no vector of features before its classifier, which methods read. Choose another "
            "timm model; docs/networks.md lists some."
        )


def features_and_logits(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pooled pre-logits features (B, D) and the logits (B, C) of ``images`` (B, 3, H, W).

    For a ViT the features are the class token after the final norm (what the paper feeds to its meta-loss); for a
    distilled one, with two tokens and two classifiers, the mean of both tokens.
    """
    tokens = model.forward_features(images)  # type: ignore[operator]  # timm models all have these three
    features: Tensor = model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
    classifier = model.get_classifier()  # type: ignore[operator]
    one = isinstance(classifier, nn.Linear)
    # other classifiers are two, or want another shape: ask the head once more
    logits: Tensor = classifier(features) if one else model.forward_head(tokens)  # type: ignore[operator]
    return features, logits


def blocks_of(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of a network's blocks, the innermost repeated parts with two layers or more, as they run.

    Args:
        model: in evaluation mode.
        images: (B, 3, px, px); any do.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    listed, alike = [], []
    for name, module in model.named_modules():
        for child, part in module.named_children():
            path = f"{name}.{child}" if name else child
            if sum(layer.startswith(f"{path}.") for layer in layers) < 2:
                continue
            if isinstance(module, nn.Sequential | nn.ModuleList):
                listed.append(path)
            elif sum(type(other) is type(part) for other in module.children()) > 1:
                alike.append(path)
    large = listed or alike
    inner = [part for part in large if not any(other.startswith(f"{part}.") for other in large)]
    with watched(model, [(name, False) for name in inner]) as values, torch.no_grad():
        model(images)
    return list(dict.fromkeys(name for name, _, _ in values))


@contextmanager
def watched(model: nn.Module, places: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool, Tensor]]]:
    """Yield a list to which what modules take (True) or give (False) is appended as they run.

    Values are copies, because activations may overwrite what they were given.

    Args:
        model: whose modules run within the block.
        places: names of modules, and which side of them.
    """
    values: list[tuple[str, bool, Tensor]] = []

    def keep(name: str, is_input: bool, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            values.append((name, is_input, value.detach().clone()))

    with ExitStack() as hooks:
        for name, is_input in dict.fromkeys(places):
            module = model.get_submodule(name)
            if is_input:
                handle = module.register_forward_pre_hook(lambda _, taken, name=name: keep(name, True, taken[0]))
            else:
                handle = module.register_forward_hook(lambda _, __, given, name=name: keep(name, False, given))
            hooks.callback(handle.remove)
        yield values


def has_finite_weights(model: nn.Module) -> bool:
    """Tell whether all parameters and buffers are finite."""
    return not not_finite(model.state_dict())


def save_model(path: str | Path, model: nn.Module, spec: ModelSpec, metadata: dict[str, Any]) -> None:
    """Write the model's weights with ``spec`` and the JSON-like ``metadata`` atomically to a safetensors file."""
    save_tensors(path, model.state_dict(), {**metadata, "model_spec": asdict(spec)})


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a file."""

    model: nn.Module
    spec: ModelSpec
    metadata: dict[str, Any]
    sha256: str


def load_model(path: str | Path, device: torch.device) -> Checkpoint:
    """Return the model stored at ``path``, in evaluation mode on ``device``.

    Raises:
        CheckpointError: the file is missing, damaged, not one of ours, or its weights do not fit its own spec.
    """
    try:
        tensors, metadata = load_tensors(path, device)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if "model_spec" not in metadata:
        raise CheckpointError(f"{path} has no model_spec in its header: it is not a model. Name a model file.")
    try:
        spec = ModelSpec.from_dict(metadata.pop("model_spec"))
        with _Bounded(tensors):
            model = build_model(spec)
    except ConfigError as error:
        raise CheckpointError(
            f"{path}: its header describes no model that can be built: {error}. Name a model that the workflow made."
        ) from error
    wrong = misfit(tensors, model.state_dict())
    if wrong:
        raise CheckpointError(
            f"the weights in {path} do not fit {spec.architecture}: {wrong}. Name a model that the workflow made."
        )
    model.load_state_dict(tensors)
    return Checkpoint(model.to(device).eval(), spec, metadata, sha256_file(path))


class _Bounded(TorchDispatchMode):
    """Refuses, within its block, to make many more numbers than a file of weights holds: its header may ask for any."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = 2 * sum(tensor.numel() for tensor in tensors.values()) + _SPARE_NUMBERS
        self._tensors = 20 * len(tensors) + _SPARE_TENSORS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "device" in (kwargs or {}) and not any(isinstance(arg, Tensor) for arg in args):  # it makes something new
            self._numbers -= func(*args, **{**kwargs, "device": torch.device("meta")}).numel()
            self._tensors -= 1
            if self._numbers < 0 or self._tensors < 0:
                raise ConfigError("the network that it describes is far larger than the weights in the file")
        return func(*args, **(kwargs or {}))
