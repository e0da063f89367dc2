"""What a configuration costs before it runs: jobs, passes through the network, hours and disk space, by stage.

Jobs are those that Snakemake plans from nothing for the target ``tables`` (tests/workflow/test_plan.py compares them).
Passes follow from the sizes of the sets and the hyper-parameters, hours from rates that benchmarks/rates.py measured.
"""

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from oneshui.config import method_spec
from oneshui.errors import ConfigError, DataError
from oneshui.methods import METHODS, needs_of
from oneshui.paths import origin_and_method, reference_of, table_files

COLUMNS = ("stage", "jobs", "forward_images", "train_images", "hours", "disk_gb")

# --- jobs ------------------------------------------------------------------------------------------------------------

#: rules in the order of the flow; the last is the target, which starts no process
_STAGES = (
    "render_faces", "index_dataset", "pack_images", "split_identities", "export_request", "export_wrong_photos",
    "fetch_weights", "train_pretrain", "train_retrain", "train_ceiling", "precompute_artefact", "unlearn",
    "unlearn_with_data", "score_pretrain", "score_retrained", "score_unlearned", "measure_trained", "measure_unlearned",
    "attack_trained", "attack_unlearned", "refit_trained", "refit_unlearned", "summarise_attacks", "make_table",
    "tables",
)  # fmt: skip
#: first words of the rules that ask for a GPU; these and fetch_weights import torch
_GPU = ("train", "precompute", "unlearn", "score")
_RUN_FILE = re.compile(r"results/(metrics|attacks|refit)/([^/]+)/n(\d+)/seed(\d+)/(.+)\.parquet")
_VERBS = {"metrics": "measure", "attacks": "attack", "refit": "refit"}
_TRAINING = {"pretrain": "train_pretrain", "retrain": "train_retrain", "ceiling": "train_ceiling"}


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        stage: its rule.
        dataset: that it is about, if it is about one.
        n, seed: of the run; None where the job serves every n, or every seed.
        row: the model that it is about (oneshui.paths), of ``precompute_artefact`` ORIGIN/METHOD; the table of
            ``make_table`` and ``summarise_attacks``; the timm name of ``fetch_weights``.
    """

    stage: str
    dataset: str = ""
    n: int | None = None
    seed: int | None = None
    row: str = ""

    @property
    def verb(self) -> str:
        """The first word of the rule."""
        return self.stage.partition("_")[0]


def planned_jobs(config: Mapping[str, Any]) -> set[Job]:
    """Return every job that the target ``tables`` needs when there is nothing yet."""
    rules, found, waiting = _Rules(config), set[Job](), [Job("tables")]
    while waiting:
        job = waiting.pop()
        if job not in found:
            found.add(job)
            waiting += rules.inputs(job)
    return found


class _Rules:
    """What each rule under workflow/rules takes as input, as jobs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.needs = {name: needs_of(entry) for name, entry in config["methods"].items()}

    def inputs(self, job: Job) -> list[Job]:
        """Return the jobs that make the inputs of ``job``."""
        index, splits = Job("index_dataset", job.dataset), Job("split_identities", job.dataset, seed=job.seed)
        data = [index, Job("pack_images", job.dataset), splits]
        match job.verb:
            case "tables":
                return [Job("make_table", row=name) for name in self.config["tables"]]
            case "make" | "summarise":
                return self._of_table(job)
            case "measure":
                return [self._scores(job, job.row), self._scores(job, "retrain"), index, splits]
            case "attack":  # other seeds, which some attacks look at, are attacked themselves and so in the plan anyway
                return [self._scores(job, job.row), self._scores(job, reference_of(job.row)), splits]
            case "refit":
                return [self._scores(job, job.row), index, splits]  # scoring writes the features too
            case "score":
                return [self._model(job, job.row), *data]
            case "unlearn" | "precompute":
                return self._of_method(job, data)
            case "train":
                training = self.config["training"][job.dataset]
                fetched = [Job("fetch_weights", row=training["model"])] if training["init_weights"] == "timm" else []
                return [*data, *fetched]
            case "export":
                return data
            case "pack" | "split":
                return [index]
            case "index":
                return [Job("render_faces", job.dataset)] if "synthetic" in self.config["datasets"][job.dataset] else []
        return []

    def _of_table(self, job: Job) -> list[Job]:
        """A table is made from metrics, the refit attack and a summary of attacks; the summary from attacks."""
        data_methods = [name for name, needs in self.needs.items() if needs == "data"]
        files = table_files(self.config["tables"][job.row], self.config["seeds"], data_methods)
        if job.verb == "summarise":
            return [_job_of(file) for file in files["attacks"]]
        summary = [Job("summarise_attacks", row=job.row)] if files["attacks"] else []
        return [*summary, *(_job_of(file) for file in files["metrics"] + files["refit"])]

    def _of_method(self, job: Job, data: list[Job]) -> list[Job]:
        origin, method = origin_and_method(job.row)
        start = "retrain" if origin == "retrain" else "pretrain"
        model = self._model(job, start)
        if job.stage != "unlearn":
            return [model, *data]
        request = "export_wrong_photos" if origin == "wrong_photos" else "export_request"
        artefact = [Job("precompute_artefact", job.dataset, job.n, job.seed, f"{start}/{method}")]
        kept = artefact if self.needs[method] == "artefact" else []
        return [model, Job(request, job.dataset, job.n, job.seed), *kept]

    def _model(self, job: Job, row: str) -> Job:
        """The job that makes the model of a row, in the run of ``job``; a pretrained model serves every n."""
        if row in _TRAINING:
            return Job(_TRAINING[row], job.dataset, None if row == "pretrain" else job.n, job.seed, row)
        with_data = self.needs[origin_and_method(row)[1]] == "data"
        return Job("unlearn_with_data" if with_data else "unlearn", job.dataset, job.n, job.seed, row)

    def _scores(self, job: Job, row: str) -> Job:
        """The job that scores the model of a row, in the run of ``job``."""
        stages = {"pretrain": "score_pretrain", "retrain": "score_retrained", "ceiling": "score_retrained"}
        n = None if row == "pretrain" else job.n
        return Job(stages.get(row, "score_unlearned"), job.dataset, n, job.seed, row)


def _job_of(file: str) -> Job:
    """The job that makes one of the files of a table."""
    match = _RUN_FILE.fullmatch(file)
    assert match is not None, file
    kind, dataset, n, seed, row = match.groups()
    return Job(f"{_VERBS[kind]}_{'trained' if row in _TRAINING else 'unlearned'}", dataset, int(n), int(seed), row)


# --- sizes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How many images and identities of a dataset take part."""

    images: float
    identities: float

    def __post_init__(self) -> None:
        if not (self.identities >= 1 and self.images >= self.identities):
            raise ConfigError(f"a dataset cannot have {self.images} images of {self.identities} identities")


def size_of(dataset: str, entry: Mapping[str, Any], published: Mapping[str, Any]) -> Size:
    """Return the expected size of a dataset: what is rendered or published, or its share of a subset of identities.

    Args:
        dataset: its name, for the message.
        entry: its entry under ``datasets``.
        published: contents of resources/datasets.yaml.

    Raises:
        ConfigError: nobody has counted it.
    """
    if "synthetic" in entry:
        faces = entry["synthetic"]
        identities = faces["n_identities"]
        images = identities * sum(faces["images_per_identity"]) / 2
    elif entry["layout"] in published:
        images, identities = (published[entry["layout"]]["expected"][key] for key in ("images", "identities"))
    else:
        raise ConfigError(
            f"datasets/{dataset}: nobody has counted a dataset in the layout {entry['layout']}. Index yours first: "
            f"snakemake --cores 1 -- results/data/{dataset}/index.parquet"
        )
    chosen = entry["identities"] or identities
    return Size(images * chosen / identities, chosen)


@dataclass(frozen=True)
class Run:
    """Expected numbers of images in the sets that a job works on; every identity has the mean number of images.

    Attributes:
        images: of the dataset.
        trained: of the set that the job's model was trained on: D_tr, or D_r after retraining.
        people: identities among them, whole ones.
        each: images of an identity.
        val, test: of these sets.
        n: identities (and photos) of the request; 0 where the job serves every n.
        forget, retain: D_f and D_r.
        asked: training images of all identities that can ask, which every model is scored on.
        reference: images that stand for the population in an attack.
        fit: training images among these.
    """

    images: float
    trained: float
    people: int
    each: float
    val: float
    test: float
    n: int
    forget: float
    retain: float
    asked: float
    reference: float
    fit: float


def run_of(config: Mapping[str, Any], size: Size, job: Job) -> Run:
    """Return the sets that a job about a dataset of ``size`` works on."""
    split, n = config["datasets"][job.dataset]["split"], job.n or 0
    each, share = size.images / size.identities, (split["train"], split["val"])
    train, val = share[0] * size.images - split["n_ranked"], share[1] * size.images
    forget, asked = n * (each - 1), split["n_ranked"] * (each - 1)
    retrained = job.row.partition("/")[0] in ("retrain", "ceiling")
    population = train - asked + val
    reference = min(config["attack"]["max_reference"], population)
    return Run(
        images=size.images, trained=train - forget if retrained else train,
        people=round(share[0] * size.identities) - n * retrained, each=each, val=val,
        test=(1 - sum(share)) * size.images, n=n, forget=forget, retain=train - forget, asked=asked,
        reference=reference, fit=reference * (train - asked) / population,
    )  # fmt: skip


# --- passes ----------------------------------------------------------------------------------------------------------

#: images (of ``eigh_s``: requests) by the rate that prices one; forward passes of a kind and training passes of a kind
Passes = Mapping[str, float]
_FORWARD, _TRAIN = ("forward_s", "gram_s"), ("train_s", "fisher_s")
#: forward passes' worth of one forward-mode product, docs/benchmarks.md; a finite difference takes two passes
_JVP = {"exact": 3, "finite_difference": 2}


def _ssd(spec: Mapping[str, Any], images: float) -> Passes:
    """docs/methods/ssd.md: a gradient of every image, or of batches."""
    return {"fisher_s" if spec["fisher"] == "image" else "train_s": images}


def _pgu(spec: Mapping[str, Any], run: Run) -> Passes:
    """docs/methods/pgu.md: Gram matrices of the photos, eigenvectors of every layer, ``epochs`` steps on the photos."""
    return {"gram_s": run.n, "eigh_s": 1, "train_s": spec["epochs"] * run.n}


def _meta_training(spec: Mapping[str, Any], run: Run) -> Passes:
    """docs/methods/metaunlearn.md, docs/benchmarks.md: 376 forward passes' worth at 20 photos, 64 forget images.

    A request: step and J v on the photos, gradient on the forget images, which are paired in batches with validation
    images (retain images, seen by both models, for SCRUB's objective). Before and after: the whole validation set.
    """
    batch, n = spec["batch_size"], spec["simulated_n"]
    requests = spec["epochs"] * math.ceil(run.people / n)
    forget = n * (run.each - 1)
    pairs = math.ceil(round(forget) / batch)
    if spec["outer_loss"] == "scrub":
        beside = pairs * min(batch, run.trained - n * run.each)
        outer = {"forward": forget + beside, "train": forget + beside}
    else:
        val, through_val = pairs * min(batch, run.val), spec["val_gradient"] and spec["terms"] != "second"
        outer = {"forward": 0 if through_val else val, "train": forget + (val if through_val else 0)}
    return {
        "train_s": requests * (n + outer["train"]) + n,
        "forward_s": requests * (_JVP[spec["jvp"]] * n + outer["forward"]) + 2 * run.val,
    }


def _scrub(spec: Mapping[str, Any], run: Run) -> Passes:
    """docs/methods/scrub.md: trainings, each with a forward pass of the teacher."""
    images = spec["epochs"] * run.retain + spec["forget_epochs"] * run.forget
    return {"train_s": images, "forward_s": images}


def _bad_teacher(spec: Mapping[str, Any], run: Run) -> Passes:
    """docs/methods/bad_teacher.md: trainings, each with a forward pass of a teacher."""
    images = spec["epochs"] * (run.retain + run.forget)
    return {"train_s": images, "forward_s": images}


#: (kind, first word of the rule) -> passes of a job; a kind of one's own is not known
_METHODS: dict[tuple[str, str], Callable[[Mapping[str, Any], Run], Passes]] = {
    ("ssd", "precompute"): lambda spec, run: _ssd(spec, run.trained),
    ("ssd", "unlearn"): lambda spec, run: _ssd(spec, run.n),
    ("pgu", "precompute"): lambda spec, run: {"gram_s": run.trained},
    ("pgu", "unlearn"): _pgu,
    ("metaunlearn", "precompute"): _meta_training,
    ("metaunlearn", "unlearn"): lambda spec, run: {"train_s": run.n},
    # docs/methods/jit.md
    ("jit", "unlearn"): lambda spec, run: {"forward_s": spec["n_samples"] * run.n, "train_s": run.n},
    ("scrub", "unlearn"): _scrub,
    ("bad_teacher", "unlearn"): _bad_teacher,
}


def passes_of(config: Mapping[str, Any], run: Run, job: Job) -> Passes:
    """Return what a job puts through the network. Only training, scoring and methods do."""
    if job.verb == "train":  # every epoch ends with a look at the validation set
        epochs = config["training"][job.dataset]["epochs"]
        return {"train_s": epochs * run.trained, "forward_s": epochs * run.val}
    if job.verb == "score":
        return {"forward_s": run.images + config["attack"]["views"] * (run.asked + run.test + run.reference)}
    if job.verb in ("precompute", "unlearn"):
        spec = method_spec(config["methods"], origin_and_method(job.row)[1], job.dataset, run.n)
        cost = _METHODS.get((spec["kind"], job.verb))
        return cost(spec, run) if cost else {}
    return {}


# --- rates -----------------------------------------------------------------------------------------------------------

#: columns of rates that are empty where nothing was measured
OPTIONAL = ("fisher_s", "gram_s", "eigh_s", "grams")
_WORDS = {"device": ("cpu", "cuda"), "precision": ("bf16", "fp32")}
_RATE_OF = ["machine", "device", "model", "options", "px", "precision"]
_ADVICE = "Measure on the machine that it is to run on: python -m benchmarks.rates CONFIG resources/rates.csv"


@dataclass(frozen=True)
class Rate:
    """What one network costs on one machine. Seconds are of one image, of a core or a GPU; NaN: not measured.

    Attributes:
        machine: in words.
        device: ``cpu`` or ``cuda``.
        model: timm name without tag.
        options: JSON of further arguments of ``create_model``.
        px: side of the input.
        precision: ``bf16`` or ``fp32`` (with TF32 on a GPU; everything but training computes so).
        forward_s, train_s: scored; one training step.
        fisher_s, gram_s: in SSD's Fisher diagonal; in PGU's pass over the training set.
        eigh_s: of PGU's eigenvectors of all layers.
        job_s, light_job_s: of the start of a job with and without torch.
        parameters, grams: numbers in the weights; in PGU's Gram matrices.
        features: width of the pooled features.
        source: how the figures were come by; ``estimate: ...`` if they were not measured.
    """

    machine: str
    device: str
    model: str
    options: str
    px: int
    precision: str
    forward_s: float
    train_s: float
    fisher_s: float
    gram_s: float
    eigh_s: float
    job_s: float
    light_job_s: float
    parameters: int
    grams: float
    features: int
    source: str

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What it is the rate of."""
        return self.model, self.options, self.px, self.precision


def read_rates(path: str | Path) -> list[Rate]:
    """Return the rates in a CSV file that benchmarks/rates.py wrote.

    Raises:
        DataError: it cannot be read, or a row is impossible or there twice.
    """
    types = {field.name: str if field.type is str else float for field in fields(Rate)}
    try:
        frame = pd.read_csv(path, dtype=types)[list(types)]
    except (OSError, ValueError, KeyError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} is no readable table of rates ({error}). {_ADVICE}") from error
    for name, values in frame.items():
        good, allowed = values.notna().to_numpy(), "anything but nothing"
        if name in _WORDS:
            good, allowed = values.isin(_WORDS[str(name)]).to_numpy(), ", ".join(_WORDS[str(name)])
        elif types[str(name)] is float:
            good, allowed = values.between(0, math.inf, inclusive="neither").to_numpy(), "a number above 0"
        if name in OPTIONAL:
            good, allowed = good | values.isna().to_numpy(), f"{allowed}, or nothing"
        if not good.all():
            row = int(good.argmin())
            raise DataError(f"{path}:{row + 2}: {name} is {values.iloc[row]}, allowed: {allowed}")
    twice = frame.duplicated(_RATE_OF)
    if twice.any():
        row = int(twice.to_numpy().argmax())
        named = ", ".join(map(str, frame[_RATE_OF].to_numpy()[row]))
        raise DataError(f"{path}:{row + 2}: a second row of {named}, allowed: one")
    whole = frame.astype({field.name: int for field in fields(Rate) if field.type is int})
    return [Rate(**{str(name): value for name, value in row.items()}) for row in whole.to_dict("records")]


class _Machine:
    """The rates of one machine."""

    def __init__(self, config: Mapping[str, Any], rates: list[Rate]) -> None:
        self.training, self.rates = config["training"], {rate.key: rate for rate in rates}
        self.name, self.device = rates[0].machine, rates[0].device
        self.job_s, self.light_job_s = rates[0].job_s, rates[0].light_job_s
        self.estimated = any(rate.source.startswith("estimate") for rate in rates)

    def key_of(self, dataset: str, verb: str = "") -> tuple[str, str, int, str]:
        """Which rate a job has: training as configured, everything else in fp32; a CPU knows nothing but fp32."""
        training = self.training[dataset]
        precision = training["precision"] if verb == "train" and self.device == "cuda" else "fp32"
        options = json.dumps(training["model_options"], sort_keys=True)
        return training["model"].partition(".")[0], options, training["input_px"], precision

    def lacks(self, passes: Mapping[Job, Passes]) -> list[str]:
        """Return what is missing to price these jobs."""
        wanted = {(self.key_of(job.dataset, job.verb), name) for job, counts in passes.items() for name in counts}
        return sorted(
            f"{name} of {key[0]}{'' if key[1] == '{}' else ' ' + key[1]} at {key[2]} px in {key[3]}"
            for key, name in wanted
            if key not in self.rates or math.isnan(getattr(self.rates[key], name))
        )

    def hours(self, job: Job, passes: Passes) -> float:
        """Return what a job takes."""
        if job.stage == "tables":
            return 0.0
        fixed = self.job_s if job.verb in (*_GPU, "fetch") else self.light_job_s
        rate = self.rates[self.key_of(job.dataset, job.verb)] if passes else None
        return (fixed + sum(images * float(getattr(rate, name)) for name, images in passes.items())) / 3600


def _choose_machine(config: Mapping[str, Any], rates: Iterable[Rate], passes: Mapping[Job, Passes]) -> _Machine:
    """Return the first machine with every rate that is needed; those that were only estimated come last."""
    groups: dict[tuple[str, str], list[Rate]] = {}
    for rate in rates:
        if rate.device == "cpu" or config["device"] != "cpu":
            groups.setdefault((rate.machine, rate.device), []).append(rate)
    machines = [_Machine(config, group) for group in groups.values()]
    lacking = []
    for machine in sorted(machines, key=lambda machine: machine.estimated):
        missing = machine.lacks(passes)
        if not missing:
            return machine
        lacking.append(f"{machine.name} lacks {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    found = "; ".join(lacking) or f"there is none with device: {config['device']}"
    raise ConfigError(f"no machine has all rates that the plan needs: {found}. {_ADVICE}")


# --- disk ------------------------------------------------------------------------------------------------------------

#: logits of an image; of a task with more of them scores are larger
_OUTPUTS = 40
_EMBEDDING = 64


def _artefact_bytes(spec: Mapping[str, Any], run: Run, rate: Rate) -> float:
    if spec["kind"] == "ssd":  # a number per parameter
        return 4 * rate.parameters
    if spec["kind"] == "pgu":
        return 4 * rate.grams
    if spec["kind"] == "metaunlearn":  # table of identities, two layers (Table 8b), who they are
        sizes = {"logits": _OUTPUTS, "features": rate.features, "target": _OUTPUTS, "identity": _EMBEDDING}
        width, hidden = sum(sizes[name] for name in spec["inputs"]), int(spec["hidden"])
        return 4 * (_EMBEDDING * run.people + hidden * (width + hidden)) + 8 * run.people
    return 0.0


def bytes_of(config: Mapping[str, Any], run: Run | None, job: Job, rate: Rate) -> float:
    """Return the size of what a job leaves, not compressed; ``run`` is None for initial weights.

    A row of scores has 14 bytes, and float16 logits under the test transform; features are float16 (oneshui.schemas).
    """
    weights, kept = 4.0 * rate.parameters, config["keep_unlearned"]
    if run is None:
        return weights
    entry = config["datasets"][job.dataset]
    photo = 3 * float(math.prod(entry["stored_px"]))
    match job.verb:
        case "render":
            return run.images * 3 * float(entry["synthetic"]["image_px"] ** 2)
        case "pack":
            return run.images * photo
        case "export":
            return run.n * photo
        case "train":
            return weights
        case "precompute":
            spec = method_spec(config["methods"], origin_and_method(job.row)[1], job.dataset, run.n)
            return _artefact_bytes(spec, run, rate)
        case "unlearn":
            return weights if kept else 0.0
        case "score":
            views = int(config["attack"]["views"]) * (run.asked + run.test + run.reference)
            known = run.asked + run.test + run.fit + int(entry["split"]["n_ranked"])
            features = known * (4 + 2 * rate.features) if kept or job.stage != "score_unlearned" else 0.0
            return run.images * (14 + 2 * _OUTPUTS) + views * 14 + features
        case "attack":
            return 25 * (run.forget + run.test)
    return 0.0


# --- the plan --------------------------------------------------------------------------------------------------------


def plan(config: Mapping[str, Any], rates: Iterable[Rate], *, counts: Mapping[str, Size]) -> pd.DataFrame:
    """Return jobs, images, hours and disk space of the target ``tables``, one row per rule in the order of the flow.

    Hours are those of one GPU for rules that ask for a GPU, else of one core. What they rest on stands in ``attrs`` of
    the result, for ``to_text``.

    Args:
        config: a checked configuration.
        rates: of any number of machines; the first that has all that is needed counts, estimates last.
        counts: size of each dataset of the tables.

    Raises:
        ConfigError: a dataset has no count, or no machine has all rates.
    """
    jobs = sorted(planned_jobs(config), key=lambda job: _STAGES.index(job.stage))
    datasets = sorted({job.dataset for job in jobs if job.stage == "index_dataset"})
    uncounted = [dataset for dataset in datasets if dataset not in counts]
    if uncounted:
        raise ConfigError(f"nobody has counted {', '.join(uncounted)}; there are counts of: {', '.join(counts)}")
    runs = {job: run_of(config, counts[job.dataset], job) for job in jobs if job.dataset}
    passes = {job: passes_of(config, run, job) for job, run in runs.items()}
    machine = _choose_machine(config, rates, passes)
    rows = []
    for job in jobs:
        images, rate = passes.get(job, {}), _rate_of(config, machine, job)
        rows.append({
            "stage": job.stage, "jobs": 1, "forward_images": sum(images.get(name, 0.0) for name in _FORWARD),
            "train_images": sum(images.get(name, 0.0) for name in _TRAIN), "hours": machine.hours(job, images),
            "disk_gb": bytes_of(config, runs.get(job), job, rate) / 1e9 if rate else 0.0,
        })  # fmt: skip
    table = pd.DataFrame(rows).groupby("stage", sort=False, as_index=False)[list(COLUMNS[1:])].sum()
    notes = [*_sizes(config, counts, datasets), *_speeds(machine, datasets), *_limits(config, machine, runs)]
    table.attrs = {"machine": machine.name, "device": machine.device, "notes": notes}
    return table


def _rate_of(config: Mapping[str, Any], machine: _Machine, job: Job) -> Rate | None:
    """The rate that has the sizes of the files about a dataset's network, or about one that is fetched."""
    if job.stage == "fetch_weights":
        like = next(name for name, training in config["training"].items() if training["model"] == job.row)
        return machine.rates[machine.key_of(like)]
    return machine.rates[machine.key_of(job.dataset)] if job.dataset else None


def _sizes(config: Mapping[str, Any], counts: Mapping[str, Size], datasets: Iterable[str]) -> list[str]:
    notes = []
    for dataset in datasets:
        run, identities = run_of(config, counts[dataset], Job("", dataset)), counts[dataset].identities
        notes.append(
            f"{dataset}: {run.images:,.0f} images of {identities:,.0f} identities; {run.trained:,.0f} to train on, "
            f"{run.val:,.0f} to validate, {run.test:,.0f} to test with"
        )
    return notes


def _speeds(machine: _Machine, datasets: Iterable[str]) -> list[str]:
    notes = []
    for key in sorted({machine.key_of(dataset, verb) for dataset in datasets for verb in ("train", "score")}):
        rate = machine.rates[key]
        seconds = {"forward": rate.forward_s, "training": rate.train_s, "single gradients": rate.fisher_s}
        seconds |= {"Gram matrices": rate.gram_s}
        shown = ", ".join(f"{name} {1 / value:,.0f}" for name, value in seconds.items() if not math.isnan(value))
        notes.append(f"{rate.model} at {rate.px} px in {rate.precision}, images/s: {shown} ({rate.source})")
    return [*notes, f"a job starts in {machine.job_s:.1f} s with torch, in {machine.light_job_s:.1f} s without"]


def _limits(config: Mapping[str, Any], machine: _Machine, runs: Mapping[Job, Run]) -> list[str]:
    readers = [job for job in runs if job.verb in _GPU and job.stage != "unlearn"]
    stores = (
        sum(3 * math.prod(config["datasets"][job.dataset]["stored_px"]) * runs[job].images for job in readers) / 1e9
    )
    methods = {origin_and_method(job.row)[1] for job in runs if "/" in job.row}
    own = sorted(name for name in methods if config["methods"][name]["kind"] not in METHODS)
    return [
        "assumed: every identity has the mean number of images (where many have one, meta-training costs less); speeds "
        f"are the same for any batch; {_OUTPUTS} outputs; files are not compressed",
        f"not counted: reading the image stores, {stores:,.0f} GB in {len(readers):,} jobs; decoding images, metrics "
        "and attacks beyond the start of their jobs; how jobs that run at once slow each other; what is deleted on the "
        "way (resume files, what keep_unlearned does not keep); figures and selection",
        *([f"not counted: what methods of your own compute and keep ({', '.join(own)})"] if own else []),
    ]


def to_text(plan: pd.DataFrame) -> str:
    """Return a plan as a page to read: totals, an aligned table, and what it rests on."""
    gpu = plan["stage"].str.partition("_")[0].isin(_GPU) & (plan.attrs["device"] == "cuda")
    hours = f"{plan.loc[~gpu, 'hours'].sum():,.1f} core-hours"
    if gpu.any():
        hours = f"{plan.loc[gpu, 'hours'].sum():,.1f} GPU-hours, and {hours} of jobs without a GPU"
    total = {"stage": "total", **plan[list(COLUMNS[1:])].sum()}
    trainings = plan.loc[plan["stage"].str.startswith("train_"), "jobs"].sum()
    cells = [[name.replace("_", " ") for name in COLUMNS]]
    for row in [*plan.to_dict("records"), total]:
        cells.append([str(row["stage"]), *(f"{row[name]:,.0f}" for name in COLUMNS[1:4]),
                      *(f"{row[name]:,.2f}" for name in COLUMNS[4:])])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
    rule = "-" * len(lines[0])
    head = f"{total['jobs']:,.0f} jobs, {trainings:,} of them trainings; {hours}; {total['disk_gb']:,.1f} GB on disk"
    page = [head, f"on {plan.attrs['machine']}", "", lines[0], rule, *lines[1:-1], rule, lines[-1], ""]
    notes = [textwrap.fill(note, 118, initial_indent="- ", subsequent_indent="  ") for note in plan.attrs["notes"]]
    return "\n".join([*page, *notes]) + "\n"
