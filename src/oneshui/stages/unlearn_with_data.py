"""Reference methods, which need the forget and the retain set themselves: no request can be served with them later."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from oneshui.devices import Cost
from oneshui.methods import make_method
from oneshui.methods.base import DataUnlearningMethod, filled_in
from oneshui.metrics.roles import metric_rows
from oneshui.models import ModelSpec, build_model, save_model
from oneshui.resume import Resume, fingerprint
from oneshui.runs import DataFiles, Model, Run
from oneshui.stages.images import open_trained


def unlearn_with_data(
    model_path: Path, data: DataFiles, output_path: Path, *, run: Run, model: Model, spec: Mapping[str, Any],
    device: torch.device,
) -> None:  # fmt: skip
    """Unlearn the ``run.n`` first-ranked people with all their training images and those of everybody else.

    An interrupted run goes on from ``output_path`` + ".resume".

    Args:
        model_path: the start model.
        data: images of the run.
        output_path: the unlearned model.
        run: dataset, request size and seed.
        model: the model that is made.
        spec: ``kind`` and hyper-parameters of the method.
        device: where to compute.

    Raises:
        CheckpointError: the start model was trained on other splits.
    """
    assert run.n is not None
    unlearner: DataUnlearningMethod = make_method(spec)
    checkpoint, images = open_trained(model_path, data, device)
    rows = metric_rows(images.splits, run.n)
    identity = {
        **model.header, "spec": dict(spec), **asdict(run), "model": checkpoint.sha256, **images.bound_to
    }  # fmt: skip
    resume = Resume.beside(output_path, fingerprint(identity, device), device)
    with Cost(device) as cost:
        result = filled_in(unlearner.unlearn, resume=resume)(
            checkpoint.model, images.take(rows["forget"]), images.take(rows["retain"]), seed=run.method_seed,
            rebuild=rebuilder(checkpoint.spec, device),
        )  # fmt: skip
    cost.seconds += resume.seconds
    metadata = {
        **identity, "health": result.checked(), "isolation": "none", **cost.metadata(),
        "stored_px": list(images.everything.pixels.shape[-2:]),
    }  # fmt: skip
    save_model(output_path, result.model, checkpoint.spec, metadata)
    resume.clear()


def rebuilder(spec: ModelSpec, device: torch.device) -> Any:
    """Return a function from a seed to a newly initialised network of ``spec``."""

    def rebuild(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(spec).to(device)

    return rebuild
