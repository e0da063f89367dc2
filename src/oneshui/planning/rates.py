"""What an image costs on a machine, as benchmarks/rates.py measured it."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from oneshui.errors import ConfigError, DataError
from oneshui.methods.costs import Passes
from oneshui.planning.jobs import GPU_VERBS, Job

#: columns of rates that are empty where nothing was measured
OPTIONAL = ("fisher_s", "gram_s", "eigh_s", "grams", "edit_width")
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
        edit_width: inputs and outputs of the last block's layers that identity edits change; NaN: it has none.
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
    edit_width: float
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


class Machine:
    """The rates of one machine."""

    def __init__(self, config: Mapping[str, Any], rates: list[Rate]) -> None:
        self.training, self.rates = config["training"], {rate.key: rate for rate in rates}
        self.name, self.device = rates[0].machine, rates[0].device
        keys = {self.key_of(dataset, verb) for dataset in self.training for verb in ("train", "")}
        start = next((rate for rate in rates if rate.key in keys), rates[0])  # each was measured another day
        self.job_s, self.light_job_s = start.job_s, start.light_job_s
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
        fixed = self.job_s if job.verb in (*GPU_VERBS, "fetch") else self.light_job_s
        rate = self.rates[self.key_of(job.dataset, job.verb)] if passes else None
        return (fixed + sum(images * float(getattr(rate, name)) for name, images in passes.items())) / 3600


def choose_machine(config: Mapping[str, Any], rates: Iterable[Rate], passes: Mapping[Job, Passes]) -> Machine:
    """Return the first machine with every rate that is needed; those that were only estimated come last."""
    groups: dict[tuple[str, str], list[Rate]] = {}
    for rate in rates:
        if rate.device == "cpu" or config["device"] != "cpu":
            groups.setdefault((rate.machine, rate.device), []).append(rate)
    machines = [Machine(config, group) for group in groups.values()]
    lacking = []
    for machine in sorted(machines, key=lambda machine: machine.estimated):
        missing = machine.lacks(passes)
        if not missing:
            return machine
        lacking.append(f"{machine.name} lacks {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    found = "; ".join(lacking) or f"there is none with device: {config['device']}"
    raise ConfigError(f"no machine has all rates that the plan needs: {found}. {_ADVICE}")
