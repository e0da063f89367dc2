"""Unlearning methods: one file each, one literal registry. Importing this package loads neither torch nor a method."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from oneshui.config import from_mapping
from oneshui.errors import ConfigError

#: what a method needs at unlearning time beside the model and the request: its artefact, nothing, or D_f and D_r
NEEDS = ("artefact", "nothing", "data")


@dataclass(frozen=True)
class Kind:
    """What the workflow must know of a kind of method without importing it.

    Attributes:
        target: where it lives, ``module:Class``.
        needs: one of ``NEEDS``.
        artefact_params: hyper-parameters that its artefact depends on; the others change without a new one.
    """

    target: str
    needs: str
    artefact_params: tuple[str, ...] = ()


_META_LOSS = (
    "inner_lr", "lr", "epochs", "simulated_n", "batch_size", "hidden", "dropout", "inputs", "outer_loss", "terms",
    "accuracy_weight", "distance", "val_gradient", "frozen", "jvp",
)  # fmt: skip
#: kind in the config -> frozen dataclass of hyper-parameters
METHODS: dict[str, Kind] = {
    "bad_teacher": Kind("oneshui.methods.bad_teacher:BadTeacher", "data"),
    "jit": Kind("oneshui.methods.jit:JiT", "nothing"),
    "metaunlearn": Kind("oneshui.methods.metaunlearn:MetaUnlearn", "artefact", _META_LOSS),
    "pgu": Kind("oneshui.methods.pgu:PGU", "artefact"),
    "scrub": Kind("oneshui.methods.scrub:SCRUB", "data"),
    "ssd": Kind("oneshui.methods.ssd:SSD", "artefact", ("fisher", "batch_size")),
}


def needs_of(entry: Mapping[str, Any]) -> str:
    """Return what the method of a config entry needs, one of ``NEEDS``.

    Raises:
        ConfigError: the kind is unknown, or is your own and does not say what it needs.
    """
    kind = _known_kind(entry)
    if kind in METHODS:
        return METHODS[kind].needs
    if entry.get("needs") not in NEEDS:
        raise ConfigError(f"method kind {kind!r} must say what it needs, one of: {', '.join(NEEDS)}")
    return str(entry["needs"])


def _known_kind(entry: Mapping[str, Any]) -> str:
    kind = entry.get("kind")
    if not isinstance(kind, str) or (kind not in METHODS and ":" not in kind):
        raise ConfigError(f"method kind {kind!r} is unknown, allowed: {', '.join(METHODS)}, or your own module:Class")
    return kind


def artefact_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a method's spec that its artefact depends on; for a kind of your own that is all of it."""
    if spec["kind"] not in METHODS:
        return dict(spec)
    kept = ("kind", "revision", *METHODS[spec["kind"]].artefact_params)
    return {key: value for key, value in spec.items() if key in kept}


def make_method(spec: Mapping[str, Any]) -> Any:
    """Return the method described by ``spec``, a mapping with ``kind`` and the kind's hyper-parameters.

    Raises:
        ConfigError: the kind or a hyper-parameter is unknown, missing or out of range.
    """
    params = {key: value for key, value in spec.items() if key not in ("kind", "needs", "revision")}
    kind = _known_kind(spec)
    target = METHODS[kind].target if kind in METHODS else kind
    module_name, _, class_name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method kind {kind!r} cannot be loaded ({error}). Is its folder in PYTHONPATH?") from error
    if not is_dataclass(cls) or not isinstance(cls, type):
        raise ConfigError(f"method kind {kind!r} is no dataclass: decorate it with @dataclass(frozen=True)")
    return from_mapping(cls, params, kind)
