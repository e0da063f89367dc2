"""Training a model from packed images to a checkpoint, and fetching initial weights."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from oneshui.config import TrainSpec
from oneshui.files import atomic_path, sha256_file, spec_hash
from oneshui.log import logger
from oneshui.models import ModelSpec, build_model, check_model, save_model
from oneshui.schemas import read_meta
from oneshui.seeds import seed_of
from oneshui.stages.images import input_of, open_run
from oneshui.tasks import Task
from oneshui.training import Trainer
from oneshui.weights import find_weights


def train_model(
    index_path: Path, images_path: Path, splits_path: Path, output_path: Path, *, weights_path: Path | None, role: str,
    dataset: str, n: int | None, seed: int, spec: Mapping[str, Any], device: torch.device,
) -> None:  # fmt: skip
    """Train on D_tr (role ``pretrain``) or on D_r of the request of size ``n`` (roles ``retrain`` and ``ceiling``).

    An interrupted run goes on from ``output_path`` + ".resume", and ends with the weights of an uninterrupted one.
    Pretrain and retrain of a seed start from the same initial weights, as one seed does in the published code; the
    ceiling, a second retrained model, from others (of pretrained weights: with another classifier).

    Args:
        index_path: of the dataset.
        images_path: packed images.
        splits_path: of this seed.
        output_path: checkpoint, written atomically.
        weights_path: initial weights in safetensors, or None for random ones.
        role: pretrain, retrain or ceiling.
        dataset: name for random streams and metadata.
        n: forget identities that are left out, None for pretrain.
        seed: of the run.
        spec: ``{"dataset": ..., "training": ...}`` of the config; stored with the model.
        device: where to train.
    """
    train_spec = TrainSpec.from_dict(spec["training"])
    model_spec = ModelSpec.of_training(train_spec, Task.from_meta(read_meta(index_path)))
    run = open_run(index_path, images_path, splits_path, input_of(model_spec), device)
    train = run.training_set(n)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("init-ceiling" if role == "ceiling" else "init", dataset, seed))
        model = build_model(model_spec, weights=weights_path).to(device)
    check_model(model, model_spec, device)
    weights = None if weights_path is None else sha256_file(weights_path)
    identity = {"spec": spec, "splits": run.splits_id, "weights": weights, "role": role, "n": n, "seed": seed}
    sidecar = Path(f"{output_path}.resume")
    trainer = Trainer(
        model, train_spec, train, run.role("val"), stream=(role, dataset, n or 0, seed), sidecar=sidecar,
        fingerprint=spec_hash(
            {**identity, "model": asdict(model_spec), "device": device.type, "threads": torch.get_num_threads()}
        ),
    )  # fmt: skip
    record = trainer.run()
    save_model(output_path, model, model_spec, {**identity, "dataset": dataset, "training": record})
    sidecar.unlink(missing_ok=True)


def fetch_weights(model: str, output_path: Path, *, weights_root: str | None) -> None:
    """Copy the initial weights of timm's ``model`` (name with tag) to ``output_path``.

    Raises:
        CheckpointError: they cannot be had; the message says where was looked and what to do.
    """
    source = find_weights(model, weights_root)
    logger.info("initial weights of %s: %s", model, source)
    with atomic_path(output_path) as temporary:
        shutil.copyfile(source, temporary)
