"""Configuration as values: strict conversion to dataclasses, and how a method's entry is resolved.

Only the standard library is imported with it, because the workflow reads it at every start.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from oneshui.errors import ConfigError

T = TypeVar("T")

#: a value for each of the three colour channels
Channels = tuple[float, ...]

#: rows of tables that are trained, not unlearned; the ceiling is a second retrained model from another initialisation
TRAINED = ("pretrain", "retrain", "ceiling")


def from_mapping(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """Return ``cls(**raw)`` for a dataclass, refusing unknown and missing keys and values of other types.

    Lists become tuples. Numbers must be finite, and whole ones written without a point.

    Raises:
        ConfigError: naming ``where``, the key, and what is allowed.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; allowed: {', '.join(known)}")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in raw]
    if missing:
        raise ConfigError(f"{where}: missing key {', '.join(missing)}; it has: {', '.join(raw) or 'nothing'}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    hints = get_type_hints(cls)
    for key, value in values.items():
        if not _fits(value, hints[key]):
            # YAML takes 1e-3 for text
            told = " (a number in YAML needs a point: 1.0e-3)" if isinstance(value, str) else ""
            raise ConfigError(f"{where}: {key} is {raw[key]!r}, allowed: {_words(hints[key])}{told}")
    return cls(**values)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the annotated type; types that no configuration can hold are not judged."""
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(each, kinds[0]) for each in value)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (bool, str, NoneType) else True


def _words(kind: Any) -> str:
    """What a type is called in an error."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_words, get_args(kind)))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return f"a list, each: {_words(kinds[0])}"
        return f"a list of {len(kinds)}: {', '.join(map(_words, kinds))}"
    names = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text", NoneType: "null"}
    return names.get(kind, str(kind))


def per_channel(value: float | Sequence[float]) -> Channels:
    """Return one value for each of red, green and blue; a number stands for all three.

    Raises:
        ConfigError: there are not three.
    """
    values = (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
    if len(values) != 3:
        raise ConfigError(f"{list(values)} must be a number, or one for each of red, green and blue")
    return values


_OPTIMISERS = ("sgd", "adamw")
_PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class SplitSpec:
    """How a dataset is split.

    Attributes:
        train: share of the images whose identities are trained on, in (0, 1).
        val: share for validation, in (0, 1); the test set is the rest.
        n_ranked: number of train identities that can ask to be forgotten; every request n is at most this.
        min_images_first: images that the identity of rank 0 has at least (n = 1 needs a measurable forget set).
        min_images: images that every other ranked identity has at least: one support image and one to forget.
        dedup: keep one picture of each group of near-identical ones before splitting.
    """

    train: float
    val: float
    n_ranked: int
    min_images_first: int
    min_images: int
    dedup: bool

    def __post_init__(self) -> None:
        if not (0 < self.train < 1 and 0 < self.val < 1 and self.train + self.val < 1):
            raise ConfigError(f"split: train = {self.train} and val = {self.val} must be > 0 and sum to less than 1")
        if self.n_ranked < 1 or self.min_images < 2 or self.min_images_first < self.min_images:
            raise ConfigError(
                f"split: n_ranked = {self.n_ranked} must be >= 1, min_images = {self.min_images} >= 2 (a photo to ask "
                f"with and one to forget), min_images_first = {self.min_images_first} >= min_images"
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "SplitSpec":
        """Return the spec in ``raw``; unknown or missing keys are a ConfigError."""
        return from_mapping(cls, raw, "split")


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """How models of a dataset are trained (paper, appendix A).

    Attributes:
        model: timm name, with the tag of its weights where ``init_weights`` is not random.
        model_options: further keyword arguments of timm's ``create_model``.
        init_weights: ``random``, ``timm`` (by the tag: ``oneshui.weights.find_weights``), or the path of a local
            safetensors file.
        input_px: side of the network's input, px, >= 8.
        mean: of channel values in [0, 1]: a number, or one for each of red, green and blue; None is what the tag's
            weights were trained with, and must be given where they are random.
        std: likewise, > 0.
        epochs: passes over the training set, >= 1.
        warmup_epochs: of linear warm-up from 0, >= 0; then cosine to 0.
        batch_size: >= 1.
        optimiser: ``sgd`` (the paper), or ``adamw``, which learns small sets by heart in fewer epochs.
        lr: peak learning rate, > 0.
        momentum: of SGD, or the first beta of AdamW, in [0, 1).
        weight_decay: >= 0.
        crop_scale: area range of RandomResizedCrop, within (0, 1].
        precision: ``bf16`` autocast on CUDA (the CPU always computes in fp32), or ``fp32``.
        revision: raise it when a change of code changes results, to train again.
    """

    model: str
    model_options: dict[str, Any]
    init_weights: str
    input_px: int
    mean: float | tuple[float, float, float] | None = None
    std: float | tuple[float, float, float] | None = None
    epochs: int
    warmup_epochs: int
    batch_size: int
    optimiser: str
    lr: float
    momentum: float
    weight_decay: float
    crop_scale: tuple[float, float]
    precision: str
    revision: int

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        given = self.mean is not None and self.std is not None
        checks = {
            "mean and std given where init_weights is random": self.init_weights != "random" or given,
            "mean in [0, 1]": self.mean is None or all(0 <= value <= 1 for value in per_channel(self.mean)),
            "epochs >= 1": self.epochs >= 1,
            "warmup_epochs in [0, epochs]": 0 <= self.warmup_epochs <= self.epochs,
            "batch_size >= 1": self.batch_size >= 1,
            "lr > 0": self.lr > 0,
            "momentum in [0, 1)": 0 <= self.momentum < 1,
            "weight_decay >= 0": self.weight_decay >= 0,
            "std > 0": self.std is None or min(per_channel(self.std)) > 0,
            "input_px >= 8": self.input_px >= 8,
            "0 < crop_scale[0] <= crop_scale[1] <= 1": 0 < low <= high <= 1,
            f"optimiser in {_OPTIMISERS}": self.optimiser in _OPTIMISERS,
            f"precision in {_PRECISIONS}": self.precision in _PRECISIONS,
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise ConfigError(f"training: {'; '.join(broken)} does not hold for {asdict(self)}")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "TrainSpec":
        """Return the spec in ``raw``; unknown or missing keys are a ConfigError."""
        return from_mapping(cls, raw, "training")


_COMBINE = ("mean_log_ratio", "majority")
_REFERENCES = ("own", "seeds")
PAIRED_SEED = "paired_seed"


@dataclass(frozen=True)
class AttackSpec:
    """What an attacker looks at and how (paper, appendix B; docs/metrics.md).

    Attributes:
        views: random crops, mirrored at random, that are scored beside the test transform, >= 0; the same for every
            model of a dataset.
        crop_scale: area range of these crops, within (0, 1].
        max_reference: at most this many images of people who are never asked about stand for the population (z in
            equation 8), >= 1.
        gamma: threshold of the likelihood ratio (equation 9), > 0.
        offline_a: weight of the reference model in the denominator of the ratio, in [0, 1]; or ``paired_seed``: the one
            that attacks the same method on the next seed best, never chosen on the attacked model.
        combine: over views, ``mean_log_ratio``, or ``majority`` of the views for each pair of images.
        references: ``own``: the retrained model of the seed; ``seeds``: also those of other seeds, each for the images
            that are test images there, which it has neither learned nor chosen its best epoch by.
    """

    views: int
    crop_scale: tuple[float, float]
    max_reference: int
    gamma: float
    offline_a: float | str
    combine: str
    references: str

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        checks = {
            "views >= 0": self.views >= 0,
            "0 < crop_scale[0] <= crop_scale[1] <= 1": 0 < low <= high <= 1,
            "max_reference >= 1": self.max_reference >= 1,
            "gamma > 0": self.gamma > 0,
            f"offline_a in [0, 1] or {PAIRED_SEED}": self.offline_a == PAIRED_SEED
            or (not isinstance(self.offline_a, str) and 0 <= self.offline_a <= 1),
            f"combine in {_COMBINE}": self.combine in _COMBINE,
            f"references in {_REFERENCES}": self.references in _REFERENCES,
            f"references: own with offline_a: {PAIRED_SEED}": self.offline_a != PAIRED_SEED or self.references == "own",
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise ConfigError(f"attack: {'; '.join(broken)} does not hold for {asdict(self)}")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "AttackSpec":
        """Return the spec in ``raw``, the config's ``attack``; unknown or missing keys are a ConfigError."""
        return from_mapping(cls, {key: value for key, value in raw.items() if key != "refit_c"}, "attack")

    def queries(self) -> dict[str, Any]:
        """Return the part that scores depend on."""
        return {"views": self.views, "crop_scale": list(self.crop_scale), "max_reference": self.max_reference}


@dataclass(frozen=True)
class RefitSpec:
    """The refit attack (docs/metrics.md).

    Attributes:
        max_reference: as in ``AttackSpec``; the classifier is trained on the training images among them.
        refit_c: inverse strength of the classifier's L2 penalty, > 0.
    """

    max_reference: int
    refit_c: float

    def __post_init__(self) -> None:
        if not (self.max_reference >= 1 and self.refit_c > 0):
            raise ConfigError(f"attack: max_reference >= 1 and refit_c > 0 do not hold for {asdict(self)}")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "RefitSpec":
        """Return the spec in ``raw``; unknown or missing keys are a ConfigError."""
        return from_mapping(cls, raw, "attack")


def method_spec(methods: Mapping[str, Any], method: str, dataset: str, n: int) -> dict[str, Any]:
    """Return the hyper-parameters of ``method`` for one dataset and request size, with its ``kind``.

    An entry has ``kind``, ``params`` and ``overrides`` (and ``needs``, if the kind is not ours); overrides named
    after the dataset, then after ``dataset/nN``, replace single params, e.g. ``overrides: {celeba: {lr: 1.0e-4},
    mufac/n5: {lr: 1.0e-2}}``.

    Raises:
        ConfigError: there is no such method.
    """
    if method not in methods:
        raise ConfigError(f"method {method!r} is not in the config; it has: {', '.join(methods)}")
    entry = methods[method]
    overrides = entry.get("overrides", {})
    merged = {**entry.get("params", {}), **overrides.get(dataset, {}), **overrides.get(f"{dataset}/n{n}", {})}
    needs = {"needs": entry["needs"]} if "needs" in entry else {}
    return {"kind": entry["kind"], **needs, **merged}


def check_methods(config: Mapping[str, Any], schema_folder: str | Path, own: Callable[[str], bool]) -> None:
    """Refuse hyper-parameters that the schema of their kind refuses, for every dataset and size that a table asks for.

    Args:
        config: the whole configuration.
        schema_folder: has one ``KIND.schema.yaml`` per kind.
        own: tells whether a kind is ours; others check their own parameters.

    Raises:
        ConfigError: naming the method, dataset and size.
    """
    import yaml
    from jsonschema import Draft202012Validator

    validators: dict[str, Any] = {}
    for dataset, n, method in grid_points(config["tables"]):
        spec = method_spec(config["methods"], method, dataset, n)
        kind = spec["kind"]
        if not own(kind):
            continue
        if kind not in validators:
            text = Path(schema_folder, f"{kind}.schema.yaml").read_text(encoding="utf-8")
            validators[kind] = Draft202012Validator(yaml.safe_load(text))
        for error in validators[kind].iter_errors(spec):
            at = "/".join(map(str, error.absolute_path))
            raise ConfigError(f"methods/{method} for {dataset}, n = {n}{at and ', '}{at}: {error.message}")


def index_options(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a dataset's entry that its index depends on."""
    return {key: entry[key] for key in ("layout", "options", "identities", "min_images", "duplicate_distance")}


def raw_path(config: Mapping[str, Any], dataset: str) -> str:
    """Return the folder of a dataset's raw images: the user's, or the one that ``render_faces`` fills."""
    entry = config["datasets"][dataset]
    if "synthetic" in entry:
        return f"results/raw/{dataset}"
    return os.path.join(str(config["data_root"]), str(entry["folder"]))


def training_data_paths(config: Mapping[str, Any]) -> list[str]:
    """Return all that an unlearning process must not be able to open: raw images, indices, image stores and splits."""
    raw = [raw_path(config, dataset) for dataset in config["datasets"]]
    return [config["data_root"], *raw, "results/data", "results/splits"]


def grid_points(tables: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return the distinct (dataset, n, method) that the tables ask for, sorted."""
    points = {
        (block["dataset"], block["n"], method)
        for table in tables.values()
        for block in table["blocks"]
        for method in table["methods"]
    }
    return sorted(points)


def check_grid(config: Mapping[str, Any]) -> None:
    """Refuse, before anything runs, what no single value shows to be wrong.

    That is: splits and training with contradicting values, tables that name an unknown dataset or method or more forget
    identities than are ranked, figures of unknown tables, and overrides that would never be used.

    Raises:
        ConfigError: naming the entry and what exists.
    """
    for dataset, entry in config["datasets"].items():
        _at(f"datasets/{dataset}", SplitSpec.from_dict, entry["split"])
    for dataset, entry in config["training"].items():
        _at(f"training/{dataset}", TrainSpec.from_dict, entry)
    attack = _at("attack", AttackSpec.from_dict, config["attack"])
    _at("attack", RefitSpec.from_dict, {key: config["attack"][key] for key in ("max_reference", "refit_c")})
    if attack.offline_a == PAIRED_SEED and len(config["seeds"]) < 2:
        raise ConfigError(f"attack: offline_a: {PAIRED_SEED} needs a second seed to choose it on; seeds has one")
    for name, table in config["tables"].items():
        for block in table["blocks"]:
            _check_block(config, f"tables/{name}", block, table["methods"])
    for name, figure in config["figures"].items():
        if figure["table"] not in config["tables"]:
            raise ConfigError(f"figures/{name}: no table {figure['table']!r}; there are: {', '.join(config['tables'])}")
        known = [(block["dataset"], block["n"]) for block in config["tables"][figure["table"]]["blocks"]]
        for block in figure.get("blocks", []):
            if (block["dataset"], block["n"]) not in known:
                raise ConfigError(f"figures/{name}: block {block} is not in tables/{figure['table']}; it has: {known}")
        if figure["kind"] == "roc" and not config["tables"][figure["table"]]["privacy"]:
            raise ConfigError(f"figures/{name}: tables/{figure['table']} has privacy: false, so nothing is attacked")
    for name, method in config["methods"].items():
        for scope, params in method.get("overrides", {}).items():
            _check_override(config, f"methods/{name}/overrides/{scope}", scope, set(params) - set(method["params"]))


def _at(where: str, check: Callable[[Mapping[str, Any]], T], raw: Mapping[str, Any]) -> T:
    try:
        return check(raw)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_override(config: Mapping[str, Any], where: str, scope: str, unknown: set[str]) -> None:
    dataset, _, size = scope.partition("/n")
    if dataset not in config["datasets"]:
        raise ConfigError(f"{where}: no dataset {dataset!r}; there are: {', '.join(config['datasets'])}")
    ranked = config["datasets"][dataset]["split"]["n_ranked"]
    if size and not (size == str(int(size)) and 1 <= int(size) <= ranked):
        raise ConfigError(f"{where}: n{size} is no request size of {dataset}; allowed: n1 to n{ranked}")
    if unknown:
        raise ConfigError(f"{where}: {', '.join(sorted(unknown))} is not among the method's params")


def _check_block(config: Mapping[str, Any], where: str, block: Mapping[str, Any], methods: Iterable[str]) -> None:
    dataset, n = block["dataset"], block["n"]
    if dataset not in config["datasets"]:
        raise ConfigError(f"{where}: no dataset {dataset!r}; there are: {', '.join(config['datasets'])}")
    if dataset not in config["training"]:
        raise ConfigError(f"{where}: dataset {dataset!r} has no entry under training")
    ranked = config["datasets"][dataset]["split"]["n_ranked"]
    if n > ranked:
        raise ConfigError(
            f"{where}: n = {n}, but datasets/{dataset}/split/n_ranked = {ranked}. Raise n_ranked (which changes the "
            "split and so re-trains every model) or lower n."
        )
    for method in methods:
        if method in TRAINED:
            raise ConfigError(f"{where}: {method} is a row of every table already; leave it out of methods")
        method_spec(config["methods"], method, dataset, n)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return lines like ``lr: 0.1 -> 0.2`` for the leaves in which two nested mappings differ."""
    lines = []
    for key in sorted({*old, *new}):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += changed_keys(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before} -> {after}")
    return lines
