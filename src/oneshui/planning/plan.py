"""What a configuration costs before it runs: jobs, passes through the network, hours and disk space, by stage.

Passes follow from the sizes of the sets and the hyper-parameters, hours from rates that benchmarks/rates.py measured.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from oneshui.errors import ConfigError
from oneshui.methods import METHODS
from oneshui.methods.costs import OUTPUTS, Sizes
from oneshui.planning.disk import bytes_of
from oneshui.planning.jobs import GPU_VERBS, STAGES, Job, planned_jobs
from oneshui.planning.passes import FORWARD, TRAIN, passes_of
from oneshui.planning.rates import Machine, Rate, choose_machine
from oneshui.planning.sizes import Size, run_of
from oneshui.runs import Model

COLUMNS = ("stage", "jobs", "forward_images", "train_images", "hours", "disk_gb")


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
    jobs = sorted(planned_jobs(config), key=lambda job: STAGES.index(job.stage))
    datasets = sorted({job.dataset for job in jobs if job.stage == "index_dataset"})
    uncounted = [dataset for dataset in datasets if dataset not in counts]
    if uncounted:
        raise ConfigError(f"nobody has counted {', '.join(uncounted)}; there are counts of: {', '.join(counts)}")
    runs = {job: run_of(config, counts[job.dataset], job) for job in jobs if job.dataset}
    passes = {job: passes_of(config, run, job) for job, run in runs.items()}
    machine = choose_machine(config, rates, passes)
    rows = []
    for job in jobs:
        images, rate = passes.get(job, {}), _rate_of(config, machine, job)
        rows.append({
            "stage": job.stage, "jobs": 1, "forward_images": sum(images.get(name, 0.0) for name in FORWARD),
            "train_images": sum(images.get(name, 0.0) for name in TRAIN), "hours": machine.hours(job, images),
            "disk_gb": bytes_of(config, runs.get(job), job, rate) / 1e9 if rate else 0.0,
        })  # fmt: skip
    table = pd.DataFrame(rows).groupby("stage", sort=False, as_index=False)[list(COLUMNS[1:])].sum()
    notes = [*_sizes(config, counts, datasets), *_speeds(machine, datasets), *_limits(config, machine, runs)]
    table.attrs = {"machine": machine.name, "device": machine.device, "notes": notes}
    return table


def _rate_of(config: Mapping[str, Any], machine: Machine, job: Job) -> Rate | None:
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


def _speeds(machine: Machine, datasets: Iterable[str]) -> list[str]:
    notes = []
    for key in sorted({machine.key_of(dataset, verb) for dataset in datasets for verb in ("train", "score")}):
        rate = machine.rates[key]
        seconds = {"forward": rate.forward_s, "training": rate.train_s, "single gradients": rate.fisher_s}
        seconds |= {"Gram matrices": rate.gram_s}
        shown = ", ".join(f"{name} {1 / value:,.0f}" for name, value in seconds.items() if not math.isnan(value))
        notes.append(f"{rate.model} at {rate.px} px in {rate.precision}, images/s: {shown} ({rate.source})")
    return [
        *notes,
        f"a job starts in {machine.job_s:.1f} s with torch, in {machine.light_job_s:.1f} s without, as on a cluster; "
        "jobs on one machine are forks, which start in less",
    ]


def _limits(config: Mapping[str, Any], machine: Machine, runs: Mapping[Job, Sizes]) -> list[str]:
    readers = [job for job in runs if job.verb in GPU_VERBS and job.stage != "unlearn"]
    stores = (
        sum(3 * math.prod(config["datasets"][job.dataset]["stored_px"]) * runs[job].images for job in readers) / 1e9
    )
    methods = {Model.of(job.row).method for job in runs} - {""}
    own = sorted(name for name in methods if config["methods"][name]["kind"] not in METHODS)
    return [
        "assumed: every identity has the mean number of images (where many have one, meta-training costs less); speeds "
        f"are the same for any batch; {OUTPUTS} outputs; files are not compressed",
        f"not counted: reading the image stores, {stores:,.0f} GB in {len(readers):,} jobs; decoding images, metrics "
        "and attacks beyond the start of their jobs; how jobs that run at once slow each other; what is deleted on the "
        "way (resume files, what keep_unlearned does not keep); figures and selection",
        *([f"not counted: what methods of your own compute and keep ({', '.join(own)})"] if own else []),
    ]


def to_text(plan: pd.DataFrame) -> str:
    """Return a plan as a page to read: totals, an aligned table, and what it rests on."""
    gpu = plan["stage"].str.partition("_")[0].isin(GPU_VERBS) & (plan.attrs["device"] == "cuda")
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
