"""Which jobs Snakemake plans from nothing for the target ``tables``; tests/workflow/test_plan.py compares them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oneshui.config import method_spec
from oneshui.methods import folds_of, keeper_of, needs_of, reference_of, serves_every_n
from oneshui.runs import Model, Run, measured_of

#: rules in the order of the flow; the last is the target, which starts no process
STAGES = (
    "render_faces", "index_dataset", "pack_images", "split_identities", "export_request", "export_wrong_photos",
    "fetch_weights", "train_pretrain", "train_retrain", "train_ceiling", "train_fold", "precompute_artefact",
    "precompute_for_every_n", "unlearn", "unlearn_with_data", "score_pretrain", "score_retrained", "score_unlearned",
    "measure_trained", "measure_unlearned", "trace_trained", "trace_unlearned", "attack_trained", "attack_unlearned",
    "probe_trained", "probe_unlearned", "summarise_attacks", "make_table", "tables",
)  # fmt: skip
#: first words of the rules that ask for a GPU; these and fetch_weights import torch
GPU_VERBS = ("train", "precompute", "unlearn", "score", "trace")
_VERBS = {"metrics": "measure", "attacks": "attack", "refit": "probe", "traces": "trace"}
_TRAINING = {"pretrain": "train_pretrain", "retrain": "train_retrain", "ceiling": "train_ceiling"}


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        stage: its rule.
        dataset: that it is about, if it is about one.
        n, seed: of the run; None where the job serves every n, or every seed.
        row: the model that it is about (oneshui.runs), of ``precompute_*`` ORIGIN/METHOD; the table of
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
            case "trace":
                return [self._model(job, job.row), self._model(job, "pretrain"), *data]
            case "measure":
                return [self._scores(job, job.row), self._scores(job, "retrain"), index, splits]
            case "attack":  # other seeds, which some attacks look at, are attacked themselves and so in the plan anyway
                reference = reference_of(self.config["methods"], Model.of(job.row))
                return [self._scores(job, job.row), self._scores(job, str(reference)), splits]
            case "probe":
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
        """A table is made from metrics, linear probes and a summary of attacks; the summary from attacks."""
        data_methods = [name for name, needs in self.needs.items() if needs == "data"]
        found = measured_of(self.config["tables"][job.row], self.config["seeds"], data_methods)
        jobs = {kind: [_job_of(kind, run, model) for run, model in those] for kind, those in found.items()}
        if job.verb == "summarise":
            return jobs["attacks"]
        summary = [Job("summarise_attacks", row=job.row)] if jobs["attacks"] else []
        return [*summary, *jobs["metrics"], *jobs["refit"], *jobs["traces"]]

    def _of_method(self, job: Job, data: list[Job]) -> list[Job]:
        made = Model.of(job.row)
        model = self._model(job, str(made.start))
        if job.verb == "precompute":
            folds = folds_of(method_spec(self.config["methods"], made.method, job.dataset, job.n))
            models = [Model.of_fold(fold, folds) for fold in range(folds)]
            return [model, *data, *(Job("train_fold", job.dataset, seed=job.seed, row=str(each)) for each in models)]
        if job.stage != "unlearn":
            return [model, *data]
        request = "export_wrong_photos" if made.wrong_photos else "export_request"
        every_n = serves_every_n(self.config["methods"][made.method])
        rule, n = ("precompute_for_every_n", None) if every_n else ("precompute_artefact", job.n)
        artefact = [
            Job(rule, job.dataset, n, job.seed, f"{made.start}/{keeper_of(self.config['methods'], made.method)}")
        ]
        kept = artefact if self.needs[made.method] == "artefact" else []
        return [model, Job(request, job.dataset, job.n, job.seed), *kept]

    def _model(self, job: Job, row: str) -> Job:
        """The job that makes a model, in the run of ``job``. The original model serves every n."""
        if row in _TRAINING:
            return Job(_TRAINING[row], job.dataset, None if row == "pretrain" else job.n, job.seed, row)
        with_data = self.needs[Model.of(row).method] == "data"
        return Job("unlearn_with_data" if with_data else "unlearn", job.dataset, job.n, job.seed, row)

    def _scores(self, job: Job, row: str) -> Job:
        """The job that scores the model of a row, in the run of ``job``."""
        stages = {"pretrain": "score_pretrain", "retrain": "score_retrained", "ceiling": "score_retrained"}
        n = None if row == "pretrain" else job.n
        return Job(stages.get(row, "score_unlearned"), job.dataset, n, job.seed, row)


def _job_of(kind: str, run: Run, model: Model) -> Job:
    """The job that measures a model for a table."""
    rule = f"{_VERBS[kind]}_{'trained' if model.is_trained else 'unlearned'}"
    return Job(rule, run.dataset, run.n, run.seed, str(model))
