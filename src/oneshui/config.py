"""The configuration as typed models: every key with its type, range, unit and meaning; and how an entry is resolved.

The workflow passes on the values as they were written, never these models: it records a job's parameters, and 1.0 in
place of 1 would train a model again. No torch here: the workflow reads this module at every start.
"""

import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import fields
from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from oneshui.checked import (
    ABSENT,
    Count,
    CountRange,
    CropScale,
    Fraction,
    Name,
    NonNegative,
    Once,
    Positive,
    Spec,
    checked,
    read,
)
from oneshui.errors import ConfigError

#: a value for each of the three colour channels
Channels = tuple[float, ...]

#: models of a table that are trained, not unlearned; ``ceiling`` is the second retrained model
TRAINED = ("pretrain", "retrain", "ceiling")
#: value of ``attack/offline_a`` that chooses it on the next seed
PAIRED_SEED = "paired_seed"

#: what a method needs at unlearning time beside the model and the request: its artefact, nothing, or D_f and D_r
Needs = Literal["artefact", "nothing", "data"]
NEEDS = get_args(Needs)
#: how the views of an image become one score of an attack
Combine = Literal["mean_log_ratio", "majority"]
#: keys of ``attack`` that say what a model is asked: what scores, attacks and linear probes depend on, and no more
QUERIES = ("views", "crop_scale", "max_reference")
#: labels that a published layout holds; any other holds both
LABELS = {"mufac": "classification", "celeba": "multilabel", "celebahq": "multilabel"}
MUFAC_CLASSES = 8
#: fewest and most age classes of drawn faces: they are named by one letter, as in MUFAC
AGE_CLASSES = (2, 26)

#: what to do about weights in another format
NO_PICKLES = (
    "Files that end in .pth, .pt, .bin or .ckpt are pickles, which can run any program when they are loaded: get the "
    "weights as .safetensors (most models have them on the model hub), or have whoever made them save them so."
)

#: kind of the only figure that shows faces
FACES = "hardest_identities"

_Index = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_StoredPx = Annotated[int, Field(ge=8, le=4096)]
#: what an override is for
_Scope = Annotated[
    str, Field(pattern="^[A-Za-z0-9_]+(/n[0-9]+)?$", json_schema_extra={"$comment": "DATASET or DATASET/nN"})
]
_Channel = Annotated[float, Field(ge=0, le=1)]
#: no place on a disk or the hub, which timm takes for a name as well
_TimmName = Annotated[
    str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$", json_schema_extra={"$comment": "the name of a model of timm"})
]


def per_channel(value: float | Sequence[float]) -> Channels:
    """Return one value for each of red, green and blue; a number stands for all three.

    Raises:
        ConfigError: there are not three.
    """
    values = (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
    if len(values) != 3:
        raise ConfigError(f"{list(values)} must be a number, or one for each of red, green and blue")
    return values


@checked("split")
class SplitSpec(Spec):
    """How a dataset is split."""

    train: _Share = Field(description="share of the images to train on; no identity is in two sets")
    val: _Share = Field(description="share of the images for validation; the rest is the test set")
    n_ranked: Count = Field(description="training identities that can ask to be forgotten: the largest n of a request")
    min_images_first: int = Field(ge=2, description="images that the first of them has at least (for requests of one)")
    min_images: int = Field(
        ge=2, description="images that each of them has at least: one photo to ask with, one to forget"
    )
    dedup: bool = Field(description="keep one picture of each group of near-identical ones before splitting")
    reserve_supports: Literal["ranked", "all"] = Field(
        default="ranked",
        description="whose photo is never trained on: of those who can ask (as published), or of every training"
        " identity, so that simulated requests are like real ones (paper, section 4.1)",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.train + self.val >= 1:
            raise ValueError(f"train = {self.train} and val = {self.val}, allowed: shares that sum to less than 1")
        if self.min_images_first < self.min_images:
            raise ValueError(f"min_images_first = {self.min_images_first}, allowed: >= min_images = {self.min_images}")
        return self


@checked("synthetic")
class SyntheticSpec(Spec):
    """Cartoon faces that oneshui draws itself, and how they are labelled."""

    task: Literal["classification", "multilabel"] = Field(
        description="`classification`: one class, the age shown; `multilabel`: the 40 attributes of CelebA"
    )
    n_identities: Count = Field(description="number of identities")
    images_per_identity: CountRange = Field(description="smallest and largest number of images of an identity")
    image_px: int = Field(ge=16, description="width and height, px")
    n_classes: int = Field(description="age classes, 2 to 26 (8 in the `mufac` layout); ignored for `multilabel`")
    memorised_frac: Fraction = Field(
        description="share of identities (of identity-attribute pairs for `multilabel`) whose label is drawn at random"
        " once, whatever the images show"
    )
    noise_frac: Fraction = Field(description="share of images whose class is random, or of attributes that are flipped")
    seed: _Index = Field(description="other faces for each seed")

    @model_validator(mode="after")
    def _classes(self) -> Self:
        fewest, most = AGE_CLASSES
        if self.task == "classification" and not fewest <= self.n_classes <= most:
            raise ValueError(f"n_classes = {self.n_classes}, allowed: a whole number in [{fewest}, {most}]")
        return self


def layout_problem(spec: SyntheticSpec, layout: str) -> str:
    """Return why synthetic faces cannot be written in a layout, or nothing."""
    labels = LABELS.get(layout, spec.task)
    if spec.task != labels:
        return f"synthetic.task is {spec.task!r}, but the {layout} layout holds {labels} labels. Set it so."
    if layout == "mufac" and spec.n_classes != MUFAC_CLASSES:
        return f"synthetic.n_classes is {spec.n_classes}, but the mufac layout has {MUFAC_CLASSES} classes. Set it so."
    return ""


@checked("datasets")
class Dataset(Spec):
    """One dataset: where its images are and how they are split."""

    layout: Name = Field(description="how the raw folder is laid out (config/README.md)")
    folder: str = Field(default=ABSENT, description="raw folder below `data_root`; left out for synthetic faces")
    options: dict[str, Any] = Field(
        description="options of the layout, e.g. the column names of a manifest; {} for none"
    )
    identities: Annotated[int, Field(ge=3)] | None = Field(
        description="size of a random subset of the identities; null: all"
    )
    min_images: Count = Field(description="identities with fewer images are left out")
    duplicate_distance: int = Field(
        ge=0, le=64, description="bits of 64 in which the perceptual hashes of near-identical pictures may differ"
    )
    stored_px: tuple[_StoredPx, _StoredPx] = Field(description="height and width at which images are kept, px")
    split: SplitSpec = Field(description="how its identities are split")
    synthetic: SyntheticSpec = Field(default=ABSENT, description="draw the faces and write them in this layout first")

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.layout == "synthetic":
            if self.synthetic is None:
                raise ValueError("missing key synthetic, which says what to draw")
            if self.folder is not None:
                raise ValueError("unknown key folder: with layout: synthetic oneshui writes and finds the faces itself")
            if self.options:
                raise ValueError(f"options = {self.options}, allowed: {{}}, with layout: synthetic")
        elif (self.folder is None) == (self.synthetic is None):
            raise ValueError(f"either folder or synthetic must be given with layout: {self.layout}, and not both")
        problem = layout_problem(self.synthetic, self.layout) if self.synthetic is not None else ""
        if problem:
            raise ValueError(problem)
        return self


@checked("training")
class TrainSpec(Spec):
    """How models of a dataset are trained (paper, appendix A)."""

    model: _TimmName = Field(description="timm name, with the tag of its weights where `init_weights` is not `random`")
    model_options: dict[str, Any] = Field(description="keyword arguments of `timm.create_model`; {} for none")
    init_weights: str = Field(
        description="`random`, `timm` (the weights of the tag), or the path of a local safetensors file"
    )
    input_px: int = Field(ge=8, le=4096, description="side of the network's input, px")
    mean: _Channel | tuple[_Channel, _Channel, _Channel] | None = Field(
        default=None,
        description="mean of channel values in [0, 1]: one number, or one for each channel; null or left out:"
        " what the weights were trained with",
    )
    std: Positive | tuple[Positive, Positive, Positive] | None = Field(
        default=None, description="standard deviation of channel values, likewise"
    )
    epochs: Count = Field(description="passes over the training set")
    warmup_epochs: _Index = Field(description="epochs in which the learning rate rises from 0; then a cosine to 0")
    batch_size: Count = Field(description="images of a step")
    optimiser: Literal["sgd", "adamw"] = Field(
        description="`sgd`: the paper's; `adamw` learns small sets by heart in fewer epochs"
    )
    lr: Positive = Field(description="peak learning rate")
    momentum: Fraction = Field(description="momentum of SGD; the first beta of AdamW")
    weight_decay: NonNegative = Field(description="weight decay of the optimiser")
    crop_scale: CropScale = Field(description="smallest and largest area of a random crop, as a share of the image")
    precision: Literal["bf16", "fp32"] = Field(description="number format on a GPU; the CPU always computes in fp32")
    revision: Count = Field(description="raise it after a change of code that changes results, to train again")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.init_weights == "random" and (self.mean is None or self.std is None):
            raise ValueError("mean and std must be given where init_weights is random")
        if self.init_weights not in ("random", "timm") and not self.init_weights.endswith(".safetensors"):
            raise ValueError(
                f"init_weights = {self.init_weights!r}, allowed: random, timm, or a file that ends in .safetensors. "
                f"{NO_PICKLES}"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs}, allowed: <= epochs = {self.epochs}")
        return self


_RefitC = Annotated[float, Field(gt=0, description="inverse strength of the linear probe's L2 penalty")]
_References = Annotated[
    int, Field(ge=1, description="images of people who never ask, at most; they stand for the population")
]


@checked("attack")
class AttackSpec(Spec):
    """What an attacker looks at, and how (paper, appendix B; docs/metrics.md)."""

    views: _Index = Field(description="random crops that are scored beside the test transform")
    crop_scale: CropScale = Field(description="smallest and largest area of these crops, as a share of the image")
    max_reference: _References = Field()
    gamma: Positive = Field(description="threshold of the likelihood ratio (equation 9)")
    offline_a: _Channel | Literal["paired_seed"] = Field(
        description="weight of the reference model in the ratio's denominator; `paired_seed`: the weight that attacks"
        " the same method best on the next seed"
    )
    combine: Combine = Field(description="how the views of an image become one score")
    references: Literal["own", "seeds"] = Field(
        description="`own`: the retrained model of the seed; `seeds`: also those of other seeds, for images that are"
        " test images there"
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.offline_a == PAIRED_SEED and self.references != "own":
            raise ValueError(f"references = {self.references!r}, allowed: own, with offline_a: {PAIRED_SEED}")
        return self

    def queries(self) -> dict[str, Any]:
        """Return the part that scores depend on."""
        values = {name: getattr(self, name) for name in QUERIES}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@checked("attack")
class ProbeSpec(Spec):
    """The linear probe (docs/metrics.md)."""

    max_reference: _References = Field()
    refit_c: _RefitC = Field()


@checked("attack")
class Attack(AttackSpec):
    """The whole section ``attack``."""

    refit_c: _RefitC = Field()


#: what a method takes from the one that it is ``of``
_OF = ("kind", "needs", "params", "overrides")


@checked("methods")
class Method(Spec):
    """A method of the tables: a kind with its hyper-parameters."""

    kind: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*(:[A-Za-z_][A-Za-z0-9_]*)?$")] = Field(
        default=ABSENT,
        json_schema_extra={"$comment": "a kind of ours, or `module:Class`"},
        description="one of ours (docs/methods), or your own, `module:Class` (docs/own_method.md)",
    )
    needs: Needs = Field(
        default=ABSENT, description="what a kind of your own needs beside model and request; ours know it"
    )
    label: str = Field(default=ABSENT, description="how tables and figures write the method")
    params: dict[str, Any] = Field(
        default=ABSENT, description="its hyper-parameters: the table in docs/methods/KIND.md"
    )
    overrides: dict[_Scope, dict[str, Any]] = Field(
        default_factory=dict, description="hyper-parameters replaced for `DATASET`, then for `DATASET/nN`"
    )
    of: Name = Field(
        default=ABSENT,
        description="another method, in place of `kind` and `params`: the same, with what that one keeps of the data,"
        " but people are served `in_turn`",
    )
    in_turn: Count = Field(
        default=ABSENT,
        description="people at a time: a request is served in parts of so many, one after the other, each with the"
        " model and the artefact that the last one left",
    )

    @model_validator(mode="after")
    def _of(self) -> Self:
        if (self.of is None) != (self.in_turn is None):
            raise ValueError("of and in_turn belong together: this method of that one, in turn")
        for key in ("kind", "params"):
            if getattr(self, key) is None and self.of is None:
                raise ValueError(f"missing key {key}, or of and in_turn")
        return self

    @model_validator(mode="after")
    def _needs(self) -> Self:
        if self.kind is None:
            return self  # it comes from the method that this one is of
        if ":" in self.kind and self.needs is None:
            raise ValueError("missing key needs: a kind of your own must say what it needs: artefact, nothing or data")
        if ":" not in self.kind and self.needs is not None:
            raise ValueError(f"unknown key needs: kind {self.kind} knows what it needs")
        return self


@checked("blocks")
class Block(Spec):
    """A dataset and a size of request."""

    dataset: Name = Field(description="a name under `datasets`")
    n: Count = Field(description="identities that ask to be forgotten, at most `n_ranked` of the dataset")


@checked("published")
class Published(Spec):
    """The paper's table beside which a table stands."""

    table: int = Field(ge=1, le=7, description="number of the paper's table")
    variants: dict[Name, str | dict[_Scope, str]] = Field(
        default=ABSENT, description="method: name of its variant in the paper, or a name for each `DATASET/nN`"
    )


@checked("tables")
class Table(Spec):
    """One table of results."""

    title: str = Field(description="its caption")
    blocks: Once[Block] = Field(min_length=1, description="settings: datasets and sizes of request")
    methods: Once[Name] = Field(min_length=1, description="names under `methods`")
    decimals: int = Field(ge=0, le=4, description="decimals of percentages")
    layout: Literal["tow"] = Field(
        default=ABSENT, description="`tow`: tug of war only, a row for each method and a column for each setting"
    )
    published: Published = Field(default=ABSENT, description="the paper's table that stands beside it")
    privacy: bool = Field(
        description="attacks and controls, too: second retrained model, wrong photos, linear probe; twice the jobs, and"
        " one more training for each seed and n"
    )
    traces: bool = Field(
        default=False,
        description="what is left beneath the answers, too: linear probes by depth and relearning; needs"
        " `keep_unlearned: true`",
    )


@checked("figures")
class Figure(Spec):
    """One figure."""

    kind: Name = Field(description="what it shows; config/README.md lists the kinds")
    table: Name = Field(description="the table whose models it shows")
    blocks: Once[Block] = Field(
        default=ABSENT, min_length=1, description="settings of that table; left out: all. `hardest_identities` has one"
    )
    show_faces: bool = Field(
        default=ABSENT, description="`hardest_identities` only: it shows faces, so it is drawn only if this is true"
    )

    @model_validator(mode="after")
    def _faces(self) -> Self:
        if self.kind != FACES and self.show_faces is not None:
            raise ValueError(f"unknown key show_faces: kind {self.kind} shows no faces")
        if self.kind == FACES and (self.show_faces is None or self.blocks is None or len(self.blocks) > 1):
            raise ValueError("kind: hardest_identities needs show_faces, and blocks with one entry")
        return self


@checked("selection")
class Selection(Spec):
    """The choice of hyper-parameters on simulated requests (docs/selection.md)."""

    requests: Count = Field(description="simulated requests for each candidate")
    seeds: tuple[_Index, ...] = Field(
        min_length=1, description="seeds whose original models are used; the tables may have others"
    )
    grids: dict[Name, Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=1)]] = (
        Field(description="method: hyper-parameter: values to try")
    )


@checked("config")
class Config(Spec):
    """Configuration of oneshui. Unknown keys are errors; nothing that changes a published number has a default."""

    data_root: str = Field(
        description="folder with the raw folders of the datasets; usually `--config data_root=FOLDER`"
    )
    weights_root: str | None = Field(
        default=None,
        description="folder of initial weights, `TAG.safetensors`; looked into before the model hub; usually"
        " `--config weights_root=FOLDER`",
    )
    device: Literal["auto", "cpu"] = Field(
        description="`auto`: GPU rules ask for `gpu=1` and use a GPU where there is one; `cpu`: several jobs at once on"
        " the cores"
    )
    jobs_per_gpu: Count = Field(
        default=1, description="jobs that may share a GPU; start with `--resources gpu=GPUS x jobs_per_gpu`"
    )
    seeds: Once[_Index] = Field(min_length=1, description="one split, original model and request for each seed")
    keep_unlearned: bool = Field(description="keep the weights of unlearned models after they are scored")
    datasets: dict[Name, Dataset] = Field(description="name: a dataset")
    training: dict[Name, TrainSpec] = Field(description="name of a dataset: how its models are trained")
    methods: dict[Name, Method] = Field(description="name: a method")
    tables: dict[Name, Table] = Field(description="name: a table")
    figures: dict[Name, Figure] = Field(description="name: a figure")
    attack: Attack = Field(description="what an attacker looks at, and how")
    selection: Selection = Field(description="choice of hyper-parameters")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse what no single entry shows to be wrong; each problem stands on a line of its own."""
        problems = [*self._of_names(), *self._of_selection()]
        for name, table in self.tables.items():
            problems += self._of_table(f"tables/{name}", table)
        for name, figure in self.figures.items():
            problems += self._of_figure(f"figures/{name}", figure)
        for name, method in self.methods.items():
            problems += self._of_base(f"methods/{name}", method)
            for scope, params in method.overrides.items() if method.params is not None else ():
                where = f"methods/{name}/overrides/{scope}"
                problems += [*self._of_scope(where, scope), *_unknown(where, params, method)]
        if self.attack.offline_a == PAIRED_SEED and len(self.seeds) < 2:
            problems.append(f"attack: offline_a: {PAIRED_SEED} needs a second seed to choose it on; seeds has one")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _of_names(self) -> list[str]:
        return [
            *(
                f"methods/{name}: {name} is the name of a trained model; call the method something else"
                for name in self.methods
                if name in TRAINED
            ),
            *(f"training/{name}: {self._no('dataset', name)}" for name in self.training if name not in self.datasets),
        ]

    def _of_base(self, where: str, method: Method) -> list[str]:
        """What is wrong with the method that another is of."""
        if method.of is None:
            return []
        base = self.methods.get(method.of)
        if base is None or base.of is not None:
            there = ", ".join(name for name, each in self.methods.items() if each.of is None) or "none"
            return [f"{where}/of = {method.of}, allowed: a method with kind and params; there are: {there}"]
        own = {key: getattr(method, key) for key in _OF if getattr(method, key)}  # a checked configuration has them
        wrong = [key for key, value in own.items() if value != getattr(base, key)]
        return [f"{where}: {', '.join(wrong)}: these are those of {method.of}; leave them out"] if wrong else []

    def _of_selection(self) -> list[str]:
        problems = []
        for name, grid in self.selection.grids.items():
            where = f"selection/grids/{name}"
            if name not in self.methods:
                problems.append(f"{where}: {self._no('method', name)}")
            elif self.methods[name].of is not None:
                problems.append(
                    f"{where}: try the hyper-parameters of {self.methods[name].of}, which {name} takes over"
                )
            else:
                problems += _unknown(where, grid, self.methods[name])
        return problems

    def _no(self, noun: str, name: str) -> str:
        there = ", ".join(getattr(self, f"{noun}s")) or "none"
        return f"no {noun} {name!r}; there are: {there}"

    def _of_table(self, where: str, table: Table) -> list[str]:
        problems = []
        if table.traces and not self.keep_unlearned:
            problems.append(f"{where}: traces: true looks at unlearned models; set keep_unlearned: true")
        if where.endswith("_tidy"):
            problems.append(f"{where}: the name must not end in _tidy, as the second file of a table does")
        for block in table.blocks:
            if block.dataset not in self.datasets:
                problems.append(f"{where}: {self._no('dataset', block.dataset)}")
                continue
            if block.dataset not in self.training:
                problems.append(f"{where}: dataset {block.dataset!r} has no entry under training")
            ranked = self.datasets[block.dataset].split.n_ranked
            if block.n > ranked:
                problems.append(
                    f"{where}: n = {block.n}, but datasets/{block.dataset}/split/n_ranked = {ranked}. Raise n_ranked "
                    "(which changes the split and so re-trains every model) or lower n."
                )
        for method in table.methods:
            if method in TRAINED:
                problems.append(f"{where}: {method} is a row of every table already; leave it out of methods")
            elif method not in self.methods:
                there = ", ".join(self.methods) or "none"
                problems.append(f"{where}: method {method!r} is not in the config; it has: {there}")
        return problems + self._of_variants(f"{where}/published/variants", table)

    def _of_variants(self, where: str, table: Table) -> list[str]:
        variants = (table.published.variants if table.published is not None else None) or {}
        settings = [f"{block.dataset}/n{block.n}" for block in table.blocks]
        problems = []
        for name, variant in variants.items():
            if name not in table.methods:
                problems.append(f"{where}/{name}: the table has no such method; it has: {', '.join(table.methods)}")
            for setting in variant if isinstance(variant, Mapping) else ():
                if setting not in settings:
                    has = ", ".join(settings)
                    problems.append(f"{where}/{name}/{setting}: the table has no such setting; it has: {has}")
        return problems

    def _of_figure(self, where: str, figure: Figure) -> list[str]:
        table = self.tables.get(figure.table)
        if table is None:
            return [f"{where}: {self._no('table', figure.table)}"]
        known = [(block.dataset, block.n) for block in table.blocks]
        asked = [(block.dataset, block.n) for block in figure.blocks or ()]
        problems = [
            f"{where}: block {block} is not in tables/{figure.table}; it has: {known}"
            for block in asked
            if block not in known
        ]
        if figure.kind == "roc" and not table.privacy:
            problems.append(f"{where}: tables/{figure.table} has privacy: false, so nothing is attacked")
        return problems

    def _of_scope(self, where: str, scope: str) -> list[str]:
        dataset, sized, size = scope.partition("/n")
        if dataset not in self.datasets:
            return [f"{where}: {self._no('dataset', dataset)}"]
        ranked = self.datasets[dataset].split.n_ranked
        if sized and size not in map(str, range(1, ranked + 1)):
            return [f"{where}: n{size} is no request size of {dataset}; allowed: n1 to n{ranked}"]
        return []


def _unknown(where: str, names: Iterable[str], method: Method) -> list[str]:
    """Return what is wrong with values for parameters that a method does not have."""
    unknown = sorted(set(names) - set(method.params))
    has = ", ".join(method.params) or "none"
    return [f"{where}: {', '.join(unknown)} is not among the method's params; they are: {has}"] if unknown else []


def check_config(config: MutableMapping[str, Any], where: str = "the configuration") -> None:
    """Refuse a configuration that is wrong before anything runs, and add the keys that were left out.

    Args:
        config: as it was written. Its values stay as they are.
        where: the file, for the message.

    Raises:
        ConfigError: it names every problem that was found, and what is allowed.
    """
    for key in ("data_root", "weights_root") if isinstance(config, Mapping) else ():
        if isinstance(config.get(key), int | float | date):
            raise ConfigError(
                f"the configuration: {key} = {config[key]}, allowed: text. A folder whose name reads like a number is "
                f'written --config {key}=./NAME, or in a file {key}: "NAME"'
            )
    model = read(Config, config, where)
    for field in fields(Config):
        config.setdefault(field.name, getattr(model, field.name))
    for entry in config["methods"].values():
        if "of" in entry:
            entry |= {key: value for key, value in config["methods"][entry["of"]].items() if key in _OF}


def method_spec(methods: Mapping[str, Any], method: str, dataset: str, n: int | None) -> dict[str, Any]:
    """Return the hyper-parameters of ``method`` for one dataset and request size (None: for all), with its ``kind``.

    An entry has ``kind``, ``params`` and ``overrides`` (and ``needs``, if the kind is not ours; ``in_turn``, if people
    are not served together); overrides named
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
    return {"kind": entry["kind"], **{key: entry[key] for key in ("needs", "in_turn") if key in entry}, **merged}


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
    """Return all that an unlearning process must not be able to open: raw images, indices, image stores and splits.

    The folder that holds the datasets is not among them: it may be the one that holds the results, too.
    """
    raw = [raw_path(config, dataset) for dataset in config["datasets"]]
    return [*raw, "results/data", "results/splits"]


def grid_points(tables: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return the distinct (dataset, n, method) that the tables ask for, sorted."""
    points = {
        (block["dataset"], block["n"], method)
        for table in tables.values()
        for block in table["blocks"]
        for method in table["methods"]
    }
    return sorted(points)


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
