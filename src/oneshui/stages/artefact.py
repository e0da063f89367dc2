"""Before the discard line: what a method keeps of the training data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from oneshui.devices import Cost
from oneshui.errors import ConfigError
from oneshui.methods import artefact_spec, make_method
from oneshui.methods.base import UnlearningMethod
from oneshui.models import load_model
from oneshui.seeds import seed_of
from oneshui.stages.images import check_splits, input_of, open_run


def precompute_artefact(
    model_path: Path, index_path: Path, images_path: Path, splits_path: Path, output_path: Path, *, method: str,
    dataset: str, n: int, seed: int, spec: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Write what ``method`` keeps of the model's own training data for later requests of ``n`` identities.

    For a retrained model that is D_r: an attack's reference must not know the forget set by way of an artefact either.

    Raises:
        CheckpointError: the model was trained on other splits than those at ``splits_path``.
        ConfigError: the method keeps nothing.
    """
    checkpoint = load_model(model_path, device)
    run = open_run(index_path, images_path, splits_path, input_of(checkpoint.spec), device)
    check_splits(checkpoint, model_path, run.splits_id)
    unlearner: UnlearningMethod = make_method(spec)
    train, val = run.training_set(checkpoint.metadata.get("n")), run.role("val")
    with Cost(device) as cost:
        artefact = unlearner.precompute(checkpoint.model, train, val, seed=seed_of("method", dataset, n, seed))
    if artefact is None:
        raise ConfigError(f"method {method} keeps no artefact; unlearn it directly")
    header = {
        "method": method, "spec": artefact_spec(spec), "model": checkpoint.sha256, "dataset": dataset, "n": n,
        "seed": seed, **cost.metadata(),
    }  # fmt: skip
    artefact.save(output_path, header)
