"""Backbones from timm, and checkpoints that rebuild their model: safetensors, never pickle."""

import difflib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from oneshui.config import Channels, TrainSpec, per_channel
from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.files import sha256_file
from oneshui.tasks import Task
from oneshui.tensors import load_tensors, save_tensors
from oneshui.weights import input_of_weights, read_weights


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

    @classmethod
    def of_training(cls, spec: TrainSpec, task: Task) -> "ModelSpec":
        """Return the model that ``spec`` trains. Mean and std that it does not give are those of the weights."""
        given = spec.mean is not None and spec.std is not None
        known = (None, None) if given else input_of_weights(spec.model)
        mean, std = (
            per_channel(own if own is not None else weights or ())
            for own, weights in zip((spec.mean, spec.std), known, strict=True)
        )
        return cls(spec.model, task, spec.input_px, mean, std, spec.model_options)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "ModelSpec":
        """Return the spec stored in a checkpoint's header."""
        task = Task(raw["task"]["kind"], tuple(raw["task"]["classes"]))
        return cls(**{**raw, "task": task})


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
    name = spec.architecture.split(".")[0] if weights is None else spec.architecture
    options: dict[str, Any] = {**spec.options, "num_classes": spec.task.n_outputs}
    given = {} if weights is None else read_weights(weights)
    if weights is not None:
        # timm keeps a classifier whose size its configuration says to be the wanted one; none has -1
        source = {"state_dict": given, "num_classes": -1, "custom_load": False}
        options |= {"pretrained": True, "pretrained_cfg_overlay": source}
    try:
        model = _create(name, options, spec.input_px)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        similar = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        fix = f"Names like it: {similar or 'none'}." if weights is None else f"Are {weights} the weights of this model?"
        raise ConfigError(f"timm cannot build model {spec.architecture!r} ({error}). {fix}") from error
    if weights is not None:
        model.pretrained_cfg = {**model.pretrained_cfg, "state_dict": None}  # type: ignore[dict-item,assignment]  # let go of them
        _check_taken(model, given, weights, spec.architecture)
    return model.eval().to(memory_format=torch.channels_last)  # convolutions are a quarter faster, also on the CPU


def _check_taken(model: nn.Module, given: dict[str, Tensor], weights: Path, architecture: str) -> None:
    """Refuse weights that lack more than a classifier: timm takes what fits and is silent about the rest."""
    heads = model.get_classifier()  # type: ignore[operator]  # every timm model has it
    heads = heads if isinstance(heads, tuple) else (heads,)
    classifiers = {f"{name}." for name, module in model.named_modules() if any(module is head for head in heads)}
    lost = {name for name in model.state_dict().keys() - given.keys() if not name.startswith(tuple(classifiers))}
    if lost:
        raise ConfigError(
            f"{weights} lacks {len(lost)} tensors of {architecture!r}, e.g. {min(lost)}. Are they the weights of this "
            "model?"
        )


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
    spec = ModelSpec.from_dict(metadata.pop("model_spec"))
    model = build_model(spec)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit {spec.architecture}: {error}") from error
    return Checkpoint(model.to(device).eval(), spec, metadata, sha256_file(path))
