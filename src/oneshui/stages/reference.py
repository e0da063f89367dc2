"""Reference methods, which need the forget and the retain set themselves: no request can be served with them later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from oneshui.devices import Cost
from oneshui.methods import make_method
from oneshui.methods.base import DataUnlearningMethod
from oneshui.metrics.roles import metric_rows
from oneshui.models import ModelSpec, build_model, load_model, save_model
from oneshui.seeds import seed_of
from oneshui.stages.images import check_splits, input_of, open_run


def unlearn_with_data(
    model_path: Path, index_path: Path, images_path: Path, splits_path: Path, output_path: Path, *, method: str,
    origin: str, dataset: str, n: int, seed: int, spec: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Unlearn the ``n`` first-ranked identities with all their training images and those of everybody else.

    Raises:
        CheckpointError: the model was trained on other splits than those at ``splits_path``.
    """
    unlearner: DataUnlearningMethod = make_method(spec)
    checkpoint = load_model(model_path, device)
    run = open_run(index_path, images_path, splits_path, input_of(checkpoint.spec), device)
    check_splits(checkpoint, model_path, run.splits_id)
    rows = metric_rows(run.splits, n)
    with Cost(device) as cost:
        result = unlearner.unlearn(
            checkpoint.model, run.take(rows["forget"]), run.take(rows["retain"]),
            seed=seed_of("method", dataset, n, seed), rebuild=rebuilder(checkpoint.spec, device),
        )  # fmt: skip
    metadata = {
        "method": method, "origin": origin, "spec": dict(spec), "dataset": dataset, "n": n, "seed": seed,
        "health": result.health, "isolation": "none", **cost.metadata(), "model": checkpoint.sha256,
        "splits": run.splits_id, "stored_px": list(run.everything.pixels.shape[-2:]),
    }  # fmt: skip
    save_model(output_path, result.model, checkpoint.spec, metadata)


def rebuilder(spec: ModelSpec, device: torch.device) -> Any:
    """Return a function from a seed to a newly initialised network of ``spec``."""

    def rebuild(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(spec).to(device)

    return rebuild
