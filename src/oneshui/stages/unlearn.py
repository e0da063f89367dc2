"""Both sides of the discard line: what is kept from the data, and unlearning without it."""

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from oneshui.config import from_mapping
from oneshui.data.support import read_request
from oneshui.errors import ArtefactError, CheckpointError, ConfigError, DataError
from oneshui.files import sha256_file
from oneshui.methods import METHODS
from oneshui.methods.base import Artefact, Support, UnlearningMethod
from oneshui.models import Checkpoint, load_model, save_model
from oneshui.schemas import read_meta
from oneshui.seeds import seed_of
from oneshui.stages.images import input_of, open_run


def make_method(spec: Mapping[str, Any]) -> UnlearningMethod:
    """Return the method described by ``spec``, a mapping with ``kind`` and the kind's hyper-parameters.

    Raises:
        ConfigError: the kind or a hyper-parameter is unknown, missing or out of range.
    """
    params = dict(spec)
    kind = params.pop("kind", None)
    if kind not in METHODS:
        raise ConfigError(f"method kind {kind!r} is unknown, allowed: {', '.join(METHODS)}")
    params.pop("revision", None)  # only there to make the workflow run the method again
    method: UnlearningMethod = from_mapping(METHODS[kind], params, kind)
    return method


def precompute_artefact(
    model_path: Path, index_path: Path, images_path: Path, splits_path: Path, output_path: Path, *, method: str,
    dataset: str, n: int, seed: int, spec: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Write what ``method`` keeps of the training data for later requests of ``n`` identities.

    Raises:
        CheckpointError: the model was trained on other splits than those at ``splits_path``.
        ConfigError: the method keeps nothing.
    """
    checkpoint = load_model(model_path, device)
    run = open_run(index_path, images_path, splits_path, input_of(checkpoint.spec), device)
    check_splits(checkpoint, model_path, run.splits_id)
    start = time.perf_counter()
    artefact = make_method(spec).precompute(
        checkpoint.model, run.role("train"), run.role("val"), seed=seed_of("method", dataset, n, seed)
    )
    if artefact is None:
        raise ConfigError(f"method {method} keeps no artefact; unlearn it directly")
    artefact.save(
        output_path,
        {
            "method": method, "spec": dict(spec), "model": checkpoint.sha256, "dataset": dataset, "n": n, "seed": seed,
            "seconds": time.perf_counter() - start, "peak_mb": peak_mb(device),
        },
    )  # fmt: skip


def unlearn(
    model_path: Path, request_path: Path, artefact_path: Path | None, output_path: Path, *, method: str, origin: str,
    dataset: str, n: int, seed: int, spec: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Unlearn the identities of a request with one photo of each; no training data is needed or opened.

    Raises:
        ArtefactError: the artefact belongs to another model or method.
    """
    unlearner = make_method(spec)
    checkpoint = load_model(model_path, device)
    support = Support(**read_request(request_path, checkpoint.spec.task, input_of(checkpoint.spec), device))
    asked = read_meta(request_path).get("splits")
    if asked is not None and asked != checkpoint.metadata.get("splits"):
        raise DataError(
            f"{request_path} was exported from another split than {model_path} was trained on; its photos may "
            "have been trained on. Export the request again."
        )
    artefact: Artefact | None = None
    header: dict[str, Any] = {}
    if artefact_path is not None:
        artefact, header = Artefact.load(artefact_path, device)
        _check_artefact(artefact_path, header, checkpoint, model_path, spec)
    start = time.perf_counter()
    result = unlearner.unlearn(checkpoint.model, support, artefact, seed=seed_of("method", dataset, n, seed))
    metadata = {
        "method": method, "origin": origin, "spec": dict(spec), "dataset": dataset, "n": n, "seed": seed,
        "health": result.health, "seconds": time.perf_counter() - start, "peak_mb": peak_mb(device),
        "precompute_seconds": header.get("seconds"), "precompute_peak_mb": header.get("peak_mb"),
        "model": checkpoint.sha256, "request": sha256_file(request_path), "splits": checkpoint.metadata.get("splits"),
    }  # fmt: skip
    save_model(output_path, result.model, checkpoint.spec, metadata)


def check_splits(checkpoint: Checkpoint, model_path: Path, splits_id: str) -> None:
    """Refuse a model of other splits: its training set would overlap what is measured as unseen."""
    if checkpoint.metadata.get("splits") != splits_id:
        raise CheckpointError(
            f"{model_path} was trained on other splits than the present ones (the data or its options changed). "
            "Trained models are protected: move it away to train again, or restore the old data."
        )


def _check_artefact(
    path: Path, header: Mapping[str, Any], checkpoint: Checkpoint, model_path: Path, spec: Mapping[str, Any]
) -> None:
    if header.get("model") != checkpoint.sha256:
        raise ArtefactError(
            f"{path} was made for another model than {model_path}. Run precompute_artefact for this one."
        )
    made = header.get("spec", {})
    if made.get("kind") != spec["kind"]:
        raise ArtefactError(
            f"{path} is an artefact of {made.get('kind')}, not of {spec['kind']}. Precompute the right one."
        )
    changed = [name for name in METHODS[spec["kind"]].artefact_fields if made.get(name) != spec[name]]
    if changed:
        differences = ", ".join(f"{name}: {made.get(name)} -> {spec[name]}" for name in changed)
        raise ArtefactError(f"{path} was made with other hyper-parameters ({differences}). Precompute it again.")


def peak_mb(device: torch.device) -> float:
    """Return the peak memory so far in MB: of the GPU's allocator, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
