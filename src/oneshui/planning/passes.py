"""What a job puts through the network, from the sizes of the sets and the hyper-parameters."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from oneshui.config import method_spec
from oneshui.paths import origin_and_method
from oneshui.planning.jobs import Job
from oneshui.planning.sizes import Run

#: images (of ``eigh_s``: requests) by the rate that prices one; forward passes of a kind and training passes of a kind
Passes = Mapping[str, float]
FORWARD, TRAIN = ("forward_s", "gram_s"), ("train_s", "fisher_s")
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
