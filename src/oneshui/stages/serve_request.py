"""Serving a request inside the isolated process (``oneshui.stages.unlearn`` starts it)."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oneshui.config import changed_keys
from oneshui.data.store import naming
from oneshui.data.support import read_request
from oneshui.devices import Cost, choose_device
from oneshui.errors import ArtefactError, CheckpointError, DataError
from oneshui.files import sha256_file, stored_px_of
from oneshui.log import logger
from oneshui.methods import artefact_spec, make_method
from oneshui.methods.base import Artefact, UnlearningMethod, unlearn_in_turn
from oneshui.models import Checkpoint, has_finite_weights, load_model, save_model
from oneshui.runs import Model, Run
from oneshui.schemas import read_meta
from oneshui.stages.images import input_of


def serve_request(
    model_path: str, request_path: str, artefact_path: str | None, output_path: str, *, run: Mapping[str, Any],
    model: str, spec: Mapping[str, Any], gpus: int, threads: int, isolation: str,
) -> None:  # fmt: skip
    """Unlearn the people of a request with one photo of each. Arguments are plain values: they come through a pipe.

    Args:
        model_path: the start model.
        request_path: the photos.
        artefact_path: what the method kept, or None.
        output_path: the unlearned model.
        run: ``dataset``, ``n`` and ``seed``.
        model: name of the model that is made (``oneshui.runs.Model``).
        spec: ``kind`` and hyper-parameters of the method.
        gpus: GPUs that the job was given.
        threads: of the CPU.
        isolation: what keeps this process from the data; goes into the header.

    Raises:
        ArtefactError: the artefact belongs to another model or method.
        DataError: the request was made for another model, or holds no photo.
    """
    made, served = Model.of(model), Run(**run)
    unlearner: UnlearningMethod = make_method(spec)
    device = choose_device(gpus=gpus, threads=threads)
    checkpoint = load_model(model_path, device)
    check_finite(model_path, checkpoint)
    stored_px = stored_px_of(checkpoint.metadata)
    support = read_request(request_path, checkpoint.spec.task, input_of(checkpoint.spec), device, stored_px=stored_px)
    _check_origin(request_path, model_path, checkpoint.metadata)
    artefact: Artefact | None = None
    kept: dict[str, Any] = {}
    if artefact_path is not None:
        artefact, header = Artefact.load(artefact_path, device)
        check_artefact(artefact_path, header, checkpoint.sha256, model_path, spec)
        kept = {f"precompute_{key}": header[key] for key in ("seconds", "peak_mb") if key in header}
        # of the numbers, not of the file: its header says how long it took, in as many digits as it takes
        kept["artefact_mb"] = sum(tensor.nbytes for tensor in artefact.tensors.values()) / 1e6
        if "floats_per_person" in artefact.metadata:
            kept["artefact_floats_per_person"] = artefact.metadata["floats_per_person"]
    with Cost(device) as cost:
        size = int(spec.get("in_turn", len(support.images)))
        result = unlearn_in_turn(unlearner, checkpoint.model, support, artefact, size=size, seed=served.method_seed)
    diagnostics = result.checked()
    if diagnostics.get("blown_up"):
        logger.warning("%s: the model has diverged. Lower the method's learning rate.", made.method)
    metadata = {
        **made.header, "spec": dict(spec), **asdict(served), "health": diagnostics, "isolation": isolation,
        **cost.metadata(), **kept,
        "model": checkpoint.sha256, "request": sha256_file(request_path), "splits": checkpoint.metadata.get("splits"),
        "stored_px": stored_px, **naming(checkpoint.metadata.get("pictures")),
    }  # fmt: skip
    save_model(output_path, result.model, checkpoint.spec, metadata)


def _check_origin(request_path: str, model_path: str, model: Mapping[str, Any]) -> None:
    """Refuse a request that was exported from other data than the model was trained on; a real one says nothing."""
    asked = read_meta(request_path)
    if asked.get("splits", model.get("splits")) != model.get("splits"):
        raise DataError(
            f"{request_path} was exported from another split than {model_path} was trained on; its photos may "
            "have been trained on. Export the request again."
        )
    if "pictures" in model and asked.get("pictures", model["pictures"]) != model["pictures"]:
        raise DataError(
            f"{request_path} was exported from other pictures than {model_path} was trained on: the files have the "
            "same names and other contents. Restore the old pictures and export the request again, or move the model "
            "away to train it again."
        )


def check_finite(path: str, checkpoint: Checkpoint) -> None:
    """Refuse a model that was destroyed.

    Raises:
        CheckpointError: it has weights that are not finite.
    """
    if not has_finite_weights(checkpoint.model):
        raise CheckpointError(
            f"{path} has weights that are not finite: nothing can be unlearned from it. Train it again."
        )


def check_artefact(
    path: str | Path, header: Mapping[str, Any], model_sha256: str, model_path: str | Path, spec: Mapping[str, Any]
) -> None:
    """Refuse an artefact of another model, method, or hyper-parameters on which it depends.

    Raises:
        ArtefactError: it is one.
    """
    if header.get("model") != model_sha256:
        raise ArtefactError(
            f"{path} was made for another model than {model_path}. Run precompute_artefact for this one."
        )
    made, wanted = header.get("spec", {}), artefact_spec(spec)
    if made.get("kind") != spec["kind"]:
        raise ArtefactError(
            f"{path} is an artefact of {made.get('kind')}, not of {spec['kind']}. Precompute the right one."
        )
    changes = changed_keys(made, wanted)
    if changes:
        raise ArtefactError(f"{path} was made with other hyper-parameters ({'; '.join(changes)}). Precompute it again.")
