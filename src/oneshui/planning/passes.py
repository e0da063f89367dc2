"""What a job puts through the network, from the sizes of the sets and the hyper-parameters."""

from collections.abc import Mapping
from typing import Any

from oneshui.config import method_spec
from oneshui.diagnostics import RELEARN_STEPS
from oneshui.methods import METHODS
from oneshui.methods.costs import Passes, Sizes
from oneshui.planning.jobs import Job
from oneshui.runs import Model

#: rates of forward passes of a kind, and of training passes of a kind
FORWARD, TRAIN = ("forward_s", "gram_s"), ("train_s", "fisher_s")


def passes_of(config: Mapping[str, Any], run: Sizes, job: Job) -> Passes:
    """Return what a job puts through the network. Only training, scoring, traces and methods do."""
    if job.verb == "train":  # every epoch ends with a look at the validation set
        epochs = config["training"][job.dataset]["epochs"]
        return {"train_s": epochs * run.trained, "forward_s": epochs * run.val}
    if job.verb == "score":
        return {"forward_s": run.images + config["attack"]["views"] * (run.asked + run.test + run.reference)}
    if job.verb == "trace":  # activations; each step of relearning looks at the other half
        half = run.forget / 2
        forward = run.fit + run.forget + (RELEARN_STEPS + 2) * half
        return {"forward_s": forward, "train_s": RELEARN_STEPS * half}
    if job.verb in ("precompute", "unlearn"):
        spec = method_spec(config["methods"], Model.of(job.row).method, job.dataset, run.n)
        if spec["kind"] in METHODS:  # what a kind of one's own costs is not known
            cost = METHODS[spec["kind"]].cost
            passes = cost.unlearn if job.verb == "unlearn" else cost.precompute
            return passes(spec, run) if passes else {}
    return {}
