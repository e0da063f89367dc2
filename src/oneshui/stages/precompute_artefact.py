"""Before the discard line: what a method keeps of the training data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from oneshui.devices import Cost
from oneshui.errors import ConfigError
from oneshui.methods import artefact_spec, make_method
from oneshui.methods.base import FoldMethod, UnlearningMethod, filled_in
from oneshui.resume import Resume, fingerprint
from oneshui.runs import DataFiles, Model, Run
from oneshui.stages.folds import naming_folds, open_folds
from oneshui.stages.images import open_trained


def precompute_artefact(
    model_path: Path, data: DataFiles, output_path: Path, *, run: Run, model: Model, spec: Mapping[str, Any],
    device: torch.device, fold_paths: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Write what a method keeps of the training data of its start model, for later requests.

    The training data of a retrained model is D_r: an attack's reference must not learn of the forget set by way of an
    artefact either.

    An interrupted one goes on from ``output_path`` + ".resume".

    Args:
        model_path: the start model.
        data: images of the run.
        output_path: artefact to write.
        run: dataset, request size (None: every one) and seed.
        model: the model that the method will make.
        spec: ``kind`` and hyper-parameters of the method.
        device: where to compute.
        fold_paths: fold models, in the order of their folds; none where the method needs none.

    Raises:
        CheckpointError: the start model or a fold model was trained on other splits.
        ConfigError: the method keeps nothing.
    """
    checkpoint, images = open_trained(model_path, data, device)
    unlearner: UnlearningMethod | FoldMethod = make_method(spec)
    train, val = images.training_set(checkpoint.metadata.get("n")), images.role("val")
    out_of_fold = open_folds(fold_paths, images, run, device)
    identity = {
        "method": model.method, "spec": artefact_spec(spec), "model": checkpoint.sha256, **asdict(run),
        **naming_folds(fold_paths),
    }  # fmt: skip
    # all parameters: with another micro_batch the artefact stays valid, but a pass over the data stands elsewhere
    computation = {**identity, "spec": dict(spec), **images.bound_to}
    resume = Resume.beside(output_path, fingerprint(computation, device), device)
    precompute = filled_in(unlearner.precompute, resume=resume, out_of_fold=out_of_fold)
    with Cost(device) as cost:
        artefact = precompute(checkpoint.model, train, val, seed=run.method_seed)
    if artefact is None:
        raise ConfigError(f"method {model.method} keeps no artefact; unlearn it directly")
    cost.seconds += resume.seconds
    artefact.save(output_path, {**identity, **cost.metadata()})
    resume.clear()
