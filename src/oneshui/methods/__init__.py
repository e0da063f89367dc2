"""Unlearning methods: one file each, one literal registry. Importing this package loads neither torch nor a method."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from pydantic import Field

from oneshui.checked import Count, Spec, arguments, checked, read
from oneshui.config import NEEDS
from oneshui.errors import ConfigError
from oneshui.methods import params
from oneshui.methods.costs import Cost
from oneshui.runs import RETRAINED, Model, Run


@dataclass(frozen=True, kw_only=True)
class Kind:
    """All that the workflow must know of a kind of method without importing it.

    Attributes:
        target: where it lives, ``module:Class``.
        params: the typed model of its hyper-parameters, the base of that class.
        needs: one of ``NEEDS``.
        label: its name in print.
        colour: its colour in every figure, ``#RRGGBB``.
        cost: what it computes and keeps.
        artefact_params: hyper-parameters that its artefact depends on; the others change without a new one.
        network_params: hyper-parameters on which it depends what ``try_on`` asks of a network.
        folds: its artefact is made with fold models, as many as its hyper-parameter ``folds`` says. Then it has
            something for each training identity, leaves a model as it is for anybody else, and serves every request
            size.
        stays: what its artefact holds of all training people together, which cannot be taken apart; for receipts.
        unknown: what it does for somebody whom its artefact does not know, beside looking at photo and label.

    Raises:
        ConfigError: the cost is missing or does not fit what the method needs, or a parameter is not one of ``params``.
    """

    target: str
    params: type[Spec]
    needs: str
    label: str
    colour: str
    cost: Cost
    artefact_params: tuple[str, ...] = ()
    network_params: tuple[str, ...] = ()
    folds: bool = False
    stays: str = ""
    unknown: str = ""

    def __post_init__(self) -> None:
        if self.needs not in NEEDS:
            raise ConfigError(f"{self.target}: needs = {self.needs!r}, allowed: {', '.join(NEEDS)}")
        if not isinstance(self.cost, Cost):
            raise ConfigError(f"{self.target}: cost = {self.cost!r}, allowed: a Cost, or the plan would price it 0")
        kept = self.needs == "artefact"
        if {self.cost.precompute is not None, self.cost.artefact_bytes is not None} != {kept}:
            raise ConfigError(
                f"{self.target}: a method that needs {self.needs} must{'' if kept else ' not'} state the cost of "
                "precompute and the bytes of an artefact"
            )
        unknown = {*self.artefact_params, *self.network_params} - {field.name for field in fields(self.params)}  # type: ignore[arg-type]
        if unknown:
            raise ConfigError(f"{self.target}: {', '.join(sorted(unknown))} is no field of its params")


#: kind in the config -> what the workflow knows of it
METHODS: dict[str, Kind] = {
    "bad_teacher": Kind(
        target="oneshui.methods.bad_teacher:BadTeacher", params=params.BadTeacher, needs="data", label="Bad Teacher",
        colour="#CC79A7", cost=params.BAD_TEACHER_COST,
    ),
    "fold_model": Kind(
        target="oneshui.methods.fold_model:FoldModel", params=params.FoldModel, needs="artefact", label="Fold model",
        colour="#8C564B", cost=params.FOLD_MODEL_COST, artefact_params=("folds",), folds=True,
    ),
    "identity_edits": Kind(
        target="oneshui.methods.identity_edits:IdentityEdits", params=params.IdentityEdits, needs="artefact",
        label="Identity edits", colour="#F0E442", cost=params.IDENTITY_EDITS_COST,
        artefact_params=(
            "folds", "blocks", "rank", "weight", "weight_earlier", "ridge", "spread", "calibrate",
            "max_positions",
        ),
        network_params=("blocks",), folds=True,
        stays=(
            "in each edited layer, a sum over the inputs of all training images; the edits of others, which were made "
            "with models that had seen who asked"
        ),
    ),
    "jit": Kind(
        target="oneshui.methods.jit:JiT", params=params.JiT, needs="nothing", label="JiT", colour="#009E73",
        cost=params.JIT_COST,
    ),
    "metaunlearn": Kind(
        target="oneshui.methods.metaunlearn:MetaUnlearn", params=params.MetaUnlearn, needs="artefact",
        label="MetaUnlearn", colour="#D55E00", cost=params.METAUNLEARN_COST,
        artefact_params=(
            "inner_lr", "lr", "epochs", "simulated_n", "batch_size", "hidden", "dropout", "inputs", "outer_loss",
            "terms", "accuracy_weight", "distance", "val_gradient", "frozen", "jvp", "outer_precision",
        ),
        network_params=("micro_batch", "jvp"),
        stays="the meta-loss, which was trained on requests of all training people",
        unknown="uses the mean entry of its table of people",
    ),
    "pgu": Kind(
        target="oneshui.methods.pgu:PGU", params=params.PGU, needs="artefact", label="PGU", colour="#56B4E9",
        cost=params.PGU_COST, network_params=("micro_batch",),
        stays="in each layer, a sum over the inputs of all training images",
    ),
    "scrub": Kind(
        target="oneshui.methods.scrub:SCRUB", params=params.SCRUB, needs="data", label="SCRUB", colour="#0072B2",
        cost=params.SCRUB_COST,
    ),
    "ssd": Kind(
        target="oneshui.methods.ssd:SSD", params=params.SSD, needs="artefact", label="SSD", colour="#E69F00",
        cost=params.SSD_COST, artefact_params=("fisher", "batch_size"), network_params=("fisher", "micro_batch"),
        stays="a sum over the squared gradients of all training images",
    ),
}  # fmt: skip


@checked("revision")
class Revision(Spec):
    """A key that the params of every kind may have; no method sees it."""

    revision: Count = Field(
        default=1,
        description="raise it after a change of code that changes results, to unlearn again",
    )


def needs_of(entry: Mapping[str, Any]) -> str:
    """Return what the method of a config entry needs, one of ``NEEDS``.

    Raises:
        ConfigError: the kind is unknown, or is your own and does not say what it needs.
    """
    kind = known_kind(entry)
    if kind in METHODS:
        return METHODS[kind].needs
    if entry.get("needs") not in NEEDS:
        raise ConfigError(f"method kind {kind!r} must say what it needs, one of: {', '.join(NEEDS)}")
    return str(entry["needs"])


def known_kind(entry: Mapping[str, Any], where: str = "") -> str:
    """Return the kind of a config entry: one of ``METHODS``, or ``module:Class``.

    Args:
        entry: of a method, or its spec.
        where: its place in a file, for the message.

    Raises:
        ConfigError: there is no such kind.
    """
    kind = entry.get("kind")
    if not isinstance(kind, str) or (kind not in METHODS and ":" not in kind):
        said = f"{where} = {kind!r}" if where else f"method kind {kind!r} is unknown"
        raise ConfigError(f"{said}, allowed: {', '.join(METHODS)}, or your own module:Class")
    return kind


@cache
def params_of(kind: str) -> type[Spec]:
    """Return the model of all keys that ``params`` of a kind of ours may have."""
    params_, said = METHODS[kind].params, {"__doc__": METHODS[kind].params.__doc__, "__module__": __name__}
    return checked(kind)(type(params_.__name__, (Revision, params_), said))


def artefact_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a method's spec that its artefact depends on; for a kind of your own that is all of it."""
    if spec["kind"] not in METHODS:
        return {key: value for key, value in spec.items() if key != "in_turn"}
    kept = ("kind", "revision", *METHODS[spec["kind"]].artefact_params)
    return {key: value for key, value in spec.items() if key in kept}


def make_method(spec: Mapping[str, Any]) -> Any:
    """Return the method described by ``spec``, a mapping with ``kind`` and the kind's hyper-parameters.

    Raises:
        ConfigError: the kind or a hyper-parameter is unknown, missing or out of range.
    """
    values = {key: value for key, value in spec.items() if key not in ("kind", "needs", "in_turn", "revision")}
    kind = known_kind(spec)
    target = METHODS[kind].target if kind in METHODS else kind
    module_name, _, class_name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method kind {kind!r} cannot be loaded ({error}). Is its folder in PYTHONPATH?") from error
    if kind in METHODS:
        return read(cls, values, kind)
    if not is_dataclass(cls) or not isinstance(cls, type):
        raise ConfigError(f"method kind {kind!r} is no dataclass: decorate it with @dataclass(frozen=True)")
    return cls(**arguments(cls, values, kind))


def reference_of(methods: Mapping[str, Any], model: Model) -> Model:
    """Return the reference model of an attack on ``model``: one that did not see the forget set.

    A method that leaves the model as it is for people it does not know makes of the retrained model that model itself.

    Args:
        methods: section of the configuration.
        model: that is attacked.
    """
    kind = methods[model.method]["kind"] if model.method else ""
    return RETRAINED if kind in METHODS and METHODS[kind].folds else model.reference


def keeper_of(methods: Mapping[str, Any], method: str) -> str:
    """Return the method of which ``method`` uses the artefact: itself, or the one that it is ``of``."""
    return str(methods[method].get("of", method))


def serves_every_n(entry: Mapping[str, Any]) -> bool:
    """Return whether the artefact of a config entry's method, or of its spec, is the same for every request size."""
    return entry["kind"] in METHODS and METHODS[entry["kind"]].folds


def artefact_of(entry: Mapping[str, Any], run: Run, model: Model) -> str:
    """Return the path of what the method of ``model`` kept for a run; ``entry`` is of the config, or its spec."""
    return (run.of_every_n if serves_every_n(entry) else run).artefact(model)


def folds_of(spec: Mapping[str, Any]) -> int:
    """Return how many fold models the artefact of a method's spec is made with."""
    return int(spec["folds"]) if spec["kind"] in METHODS and METHODS[spec["kind"]].folds else 0
