"""Training a model, from packed images to a checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from oneshui.config import TrainSpec
from oneshui.data.splits import fold_of
from oneshui.files import sha256_file
from oneshui.models import ModelSpec, build_model, check_model, save_model
from oneshui.resume import Resume, fingerprint
from oneshui.runs import SECOND_RETRAINED, DataFiles, Model, Run
from oneshui.schemas import read_meta
from oneshui.seeds import seed_of
from oneshui.stages.images import input_of, open_run
from oneshui.tasks import Task
from oneshui.training import Trainer


def train_model(
    data: DataFiles, output_path: Path, *, weights_path: Path | None, run: Run, model: Model, spec: Mapping[str, Any],
    device: torch.device,
) -> None:  # fmt: skip
    """Train the original model on D_tr, a retrained model on D_r of the run's request, or a fold model on other folds.

    An interrupted run goes on from ``output_path`` + ".resume", and ends with the weights of an uninterrupted one.
    All models of a seed start from the same initial weights, as in the published code, but for the second retrained
    model, which starts from others (of pretrained weights: with another classifier).

    Args:
        data: images of the run.
        output_path: checkpoint, written atomically.
        weights_path: initial weights in safetensors, or None for random ones.
        run: dataset, request size (None for the original model and fold models) and seed.
        model: which model is trained.
        spec: ``{"dataset": ..., "training": ...}`` of the config; stored with the model.
        device: where to train.
    """
    train_spec = TrainSpec.from_dict(spec["training"])
    model_spec = ModelSpec.of_training(train_spec, Task.from_meta(read_meta(data.index)))
    images = open_run(data, input_of(model_spec), device)
    train = images.training_set(run.n, _left_out(images.splits, run, model))
    with torch.random.fork_rng(devices=[]):
        stream = "init-ceiling" if model == SECOND_RETRAINED else "init"
        torch.manual_seed(seed_of(stream, run.dataset, run.seed))
        network = build_model(model_spec, weights=weights_path).to(device)
    check_model(network, model_spec, device)
    weights = None if weights_path is None else sha256_file(weights_path)
    identity = {
        "spec": spec, **images.bound_to, "weights": weights, **model.header, "n": run.n, "seed": run.seed
    }  # fmt: skip
    resume = Resume.beside(output_path, fingerprint({**identity, "model": asdict(model_spec)}, device), device)
    trainer = Trainer(
        network, train_spec, train, images.role("val"), stream=(model.trained, run.dataset, run.n or 0, run.seed),
        resume=resume,
    )  # fmt: skip
    record = trainer.run()
    save_model(output_path, network, model_spec, {**identity, "dataset": run.dataset, "training": record})
    resume.clear()


def _left_out(splits: pd.DataFrame, run: Run, model: Model) -> np.ndarray | None:
    """Return the identities that a fold model is trained without."""
    return None if model.fold is None else fold_of(splits, *model.fold, dataset=run.dataset, seed=run.seed)
