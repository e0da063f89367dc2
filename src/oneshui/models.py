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
    options: dict[str, Any] = {"num_classes": spec.task.n_outputs, **spec.options}
    if _takes_img_size(name):
        options["img_size"] = spec.input_px
    if weights is not None:
        given = _names_in(weights)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights), "custom_load": False}}
    try:
        model: nn.Module = timm.create_model(name, **options)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        similar = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        fix = f"Names like it: {similar or 'none'}." if weights is None else f"Are {weights} the weights of this model?"
        raise ConfigError(f"timm cannot build model {spec.architecture!r} ({error}). {fix}") from error
    if weights is not None and 2 * len(model.state_dict().keys() & given) < len(model.state_dict()):
        raise ConfigError(  # timm takes what fits and is silent about the rest
            f"{weights} lacks most tensors of {spec.architecture!r}, e.g. {min(model.state_dict().keys() - given)}. "
            "Are they the weights of this model?"
        )
    return model.eval().to(memory_format=torch.channels_last)  # convolutions are a quarter faster, also on the CPU


def _names_in(weights: Path) -> set[str]:
    """Return the names of the tensors in a safetensors file; timm would read any other file as a pickle."""
    try:
        if weights.suffix != ".safetensors":
            raise OSError("its name does not end in .safetensors")
        with safetensors.safe_open(weights, framework="pt") as file:
            return set(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"the initial weights {weights} are not a readable safetensors file ({error}).") from error


def _takes_img_size(name: str) -> bool:
    """Transformers with position embeddings must be told their input size; timm's convolutional nets refuse it."""
    return any(part in name for part in ("vit_", "deit", "swin", "beit", "eva"))


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
