"""How large what a job leaves is."""

import math
from collections.abc import Mapping
from typing import Any

from oneshui.config import method_spec
from oneshui.paths import origin_and_method
from oneshui.planning.jobs import Job
from oneshui.planning.rates import Rate
from oneshui.planning.sizes import Run

#: logits of an image; of a task with more of them scores are larger
OUTPUTS = 40
_EMBEDDING = 64


def _artefact_bytes(spec: Mapping[str, Any], run: Run, rate: Rate) -> float:
    if spec["kind"] == "ssd":  # a number per parameter
        return 4 * rate.parameters
    if spec["kind"] == "pgu":
        return 4 * rate.grams
    if spec["kind"] == "metaunlearn":  # table of identities, two layers (Table 8b), who they are
        sizes = {"logits": OUTPUTS, "features": rate.features, "target": OUTPUTS, "identity": _EMBEDDING}
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
            return run.images * (14 + 2 * OUTPUTS) + views * 14 + features
        case "attack":
            return 25 * (run.forget + run.test)
    return 0.0
