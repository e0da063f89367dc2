"""Training a model from packed images to a checkpoint, and fetching initial weights."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from oneshui.config import TrainSpec
from oneshui.data.images import InputSpec
from oneshui.errors import CheckpointError
from oneshui.files import sha256_file, spec_hash
from oneshui.models import ModelSpec, build_model, check_model, save_model
from oneshui.seeds import seed_of
from oneshui.stages.images import open_run
from oneshui.training import Trainer


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
    input_spec = InputSpec(train_spec.input_px, train_spec.mean, train_spec.std)
    run = open_run(index_path, images_path, splits_path, input_spec, device)
    train = run.training_set(n)
    model_spec = ModelSpec(
        train_spec.model, train.task, train_spec.input_px, train_spec.mean, train_spec.std, train_spec.model_options
    )
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


def fetch_weights(model: str, output_path: Path) -> None:
    """Download the safetensors weights of timm's ``model`` (name with tag) to ``output_path``.

    Raises:
        CheckpointError: they cannot be had; the message says how to bring them from another machine.
    """
    import shutil

    import timm
    from huggingface_hub import hf_hub_download

    from oneshui.files import atomic_path

    advice = (
        f"On a machine that reaches the model hub, fetch model.safetensors of timm/{model} and name the file under "
        "training/DATASET/init_weights, or set init_weights: random."
    )
    if not timm.is_model_pretrained(model):
        raise CheckpointError(f"timm has no pretrained weights called {model!r}. {advice}")
    config = timm.get_pretrained_cfg(model)
    repository = (config and config.hf_hub_id) or f"timm/{model}"
    try:
        source = hf_hub_download(repo_id=repository, filename="model.safetensors")
    except Exception as error:  # the hub's client raises many kinds; each means that the file cannot be had
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"the weights of {model} could not be fetched ({reason}). {advice}") from error
    with atomic_path(output_path) as temporary:
        shutil.copyfile(source, temporary)
