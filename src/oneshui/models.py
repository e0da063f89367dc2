"""Backbones from timm, and checkpoints that rebuild their model: safetensors, never pickle."""

import difflib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.files import sha256_file
from oneshui.tasks import Task
from oneshui.tensors import load_tensors, save_tensors


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a model and to feed it.

    Attributes:
        architecture: timm model name; a pretrained tag after the dot is kept for the record.
        task: what the logits mean.
        input_px: side of the square input, px.
        mean: subtracted from channel values in [0, 1], the same for the three channels.
        std: divisor after that, > 0.
        options: further keyword arguments of ``timm.create_model`` (e.g. ``patch_size``).
    """

    architecture: str
    task: Task
    input_px: int
    mean: float
    std: float
    options: dict[str, Any] = field(default_factory=dict)

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
        weights: a local safetensors file with initial (ImageNet) weights in timm's names; a classifier of another
            size is dropped, and position embeddings are resized, as timm does.

    Raises:
        ConfigError: timm has no such model, or ``weights`` do not fit it.
    """
    name = spec.architecture.split(".")[0] if weights is None else spec.architecture
    options: dict[str, Any] = {**spec.options, "num_classes": spec.task.n_outputs}
    if weights is not None:
        given = _names_in(weights)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights), "custom_load": False}}
    try:
        model = _create(name, options, spec.input_px)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        similar = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        fix = f"Names like it: {similar or 'none'}." if weights is None else f"Are {weights} the weights of this model?"
        raise ConfigError(f"timm cannot build model {spec.architecture!r} ({error}). {fix}") from error
    if weights is not None:
        head = model.get_classifier()  # type: ignore[operator]  # every timm model has it
        classifier = {f"{name}." for name, module in model.named_modules() if module is head}
        lost = {n for n in model.state_dict().keys() - given if not n.startswith(tuple(classifier))}
        if lost:  # timm takes what fits and is silent about the rest
            raise ConfigError(
                f"{weights} lacks {len(lost)} tensors of {spec.architecture!r}, e.g. {min(lost)}. Are they the weights "
                "of this model?"
            )
    return model.eval().to(memory_format=torch.channels_last)  # convolutions are a quarter faster, also on the CPU


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
        ConfigError: features and logits cannot be read off it, or its classifier is not one linear layer on them.
    """
    image = torch.linspace(-1, 1, 3 * spec.input_px**2, device=device).reshape(1, 3, spec.input_px, spec.input_px)
    training = model.training
    try:
        with torch.no_grad():
            expected, (features, logits) = model.eval()(image), features_and_logits(model, image)
        fits = features.ndim == 2 and logits.shape == (1, spec.task.n_outputs)
        fits = fits and torch.allclose(expected, logits, rtol=1e-3, atol=1e-4)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{spec.architecture} does not work at {spec.input_px} px as a backbone ({error})") from error
    finally:
        model.train(training)
    if not fits:
        raise ConfigError(
            f"{spec.architecture}: its logits are not one linear layer on pooled features, which methods read. "
            "Choose another timm model, e.g. a vit_, resnet or convnext."
        )


def _names_in(weights: Path) -> set[str]:
    """Return the names of the tensors in a safetensors file; timm would read any other file as a pickle."""
    try:
        if weights.suffix != ".safetensors":
            raise OSError("its name does not end in .safetensors")
        with safetensors.safe_open(weights, framework="pt") as file:
            return set(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"the initial weights {weights} are not a readable safetensors file ({error}).") from error


def features_and_logits(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pooled pre-logits features (B, D) and the logits (B, C) of ``images`` (B, 3, H, W).

    For a ViT the features are the class token after the final norm (what the paper feeds to its meta-loss).
    """
    tokens = model.forward_features(images)  # type: ignore[operator]  # timm models all have these three
    features: Tensor = model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
    logits: Tensor = model.get_classifier()(features)  # type: ignore[operator]
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
