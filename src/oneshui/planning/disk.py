"""How large what a job leaves is."""

import math
from collections.abc import Mapping
from typing import Any

from oneshui.config import method_spec
from oneshui.methods import METHODS
from oneshui.methods.costs import OUTPUTS, Sizes
from oneshui.planning.jobs import Job
from oneshui.planning.rates import Rate
from oneshui.runs import Model


def bytes_of(config: Mapping[str, Any], run: Sizes | None, job: Job, rate: Rate) -> float:
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
            spec = method_spec(config["methods"], Model.of(job.row).method, job.dataset, run.n)
            size = METHODS[spec["kind"]].cost.artefact_bytes if spec["kind"] in METHODS else None
            return size(spec, run, rate) if size else 0.0
        case "unlearn":
            return weights if kept else 0.0
        case "score":
            views = int(config["attack"]["views"]) * (run.asked + run.test + run.reference)
            known = run.asked + run.test + run.fit + int(entry["split"]["n_ranked"])
            features = known * (4 + 2 * rate.features) if kept or job.stage != "score_unlearned" else 0.0
            return run.images * (14 + 2 * OUTPUTS) + views * 14 + features
        case "attack":
            return 25 * (run.forget + run.test)
    return 0.0
