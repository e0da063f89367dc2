"""Training: the schedule, the best epoch, and runs that end the same whether or not they were killed."""

import dataclasses
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from oneshui import resume
from oneshui.config import TrainSpec
from oneshui.errors import ConfigError, DataError
from oneshui.models import load_model
from oneshui.resume import NEVER, Resume
from oneshui.runs import ORIGINAL, RETRAINED, DataFiles
from oneshui.runs import Run as Which
from oneshui.schemas import INDEX, SPLITS, read_table, write_table
from oneshui.sets import ImageSet, InputSpec
from oneshui.stages import train_model as stage
from oneshui.stages.split_identities import split_identities
from oneshui.tasks import Task
from oneshui.training import Trainer, lr_factor

CPU = torch.device("cpu")
TASK = Task("classification", ("a", "b", "c"))
RAW: dict[str, Any] = {
    "model": "resnet10t", "model_options": {"channels": [4, 4, 4, 4], "stem_width": 4, "drop_rate": 0.2},
    "init_weights": "random", "input_px": 16, "mean": 0.5, "std": 0.5, "epochs": 4, "warmup_epochs": 1,
    "batch_size": 8, "optimiser": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3,
    "crop_scale": [0.5, 1.0], "precision": "fp32", "revision": 1,
}  # fmt: skip
SPEC = TrainSpec.from_dict(RAW)


def make_images(n: int, seed: int) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=draw)
    pixels = torch.randint(100, (n, 3, 12, 12), generator=draw) + 70 * labels[:, None, None, None]
    ids = torch.arange(n)
    return ImageSet(pixels.to(torch.uint8), ids, labels, ids, InputSpec(16, 0.5, 0.5), TASK, CPU)


TRAIN, VAL = make_images(20, 0), make_images(10, 1)


def make_trainer(sidecar: Path, fingerprint: str = "mine", model: nn.Module | None = None, **changes: Any) -> Trainer:
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # what a resumed run must get right: statistics, the random numbers of dropout, momentum
            layers = [nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)]
            model = nn.Sequential(*layers, nn.Linear(64, 3))
    spec = dataclasses.replace(SPEC, **changes)
    return Trainer(model, spec, TRAIN, VAL, stream=("toy", 0), resume=Resume(sidecar, fingerprint, CPU))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


# ---- schedule and steps


def test_learning_rate_by_hand() -> None:
    found = [lr_factor(step, 4, 12) for step in (0, 1, 2, 3, 4, 6, 8, 10, 12)]
    root = math.sqrt(0.5)
    wanted = [0.25, 0.5, 0.75, 1, 1, (1 + root) / 2, 0.5, (1 - root) / 2, 0]
    assert found == pytest.approx(wanted, abs=1e-15)


def test_learning_rate_without_warm_up_starts_at_its_peak() -> None:
    assert lr_factor(0, 0, 10) == 1
    assert lr_factor(5, 0, 10) == pytest.approx(0.5)


def test_learning_rate_of_the_last_step_of_each_epoch(tmp_path: Path) -> None:
    history = make_trainer(tmp_path / "r").run()["history"]
    # 20 images are 3 batches an epoch: 3 steps of warm-up, 9 of cosine
    wanted = [1.0, *((1 + math.cos(math.pi * step / 9)) / 2 for step in (2, 5, 8))]
    assert [entry["lr"] for entry in history] == pytest.approx([0.05 * share for share in wanted])
    keys = {"epoch", "lr", "train_loss", "train_measure", "val_loss", "val_measure"}
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3]
    assert all(set(entry) == keys for entry in history)


def test_one_epoch_is_sgd_with_momentum_and_weight_decay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    draw = ImageSet.draw

    def spy(self: ImageSet, rows: Tensor, *args: Any) -> tuple[Tensor, ...]:
        drawn = draw(self, rows, *args)
        seen.append((self.augment(*drawn).flatten(1).double(), self.labels[rows]))
        return drawn

    monkeypatch.setattr(ImageSet, "draw", spy)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3, bias=False))
    weight = model[1].weight.detach().double()
    record = make_trainer(tmp_path / "r", model=model, epochs=1, warmup_epochs=0, lr=0.01).run()
    momentum, losses = torch.zeros_like(weight), []
    for step, (x, y) in enumerate(seen):
        p = torch.softmax(x @ weight.T, 1)
        losses += (-p[torch.arange(len(y)), y].log()).tolist()
        gradient = (p - torch.eye(3)[y]).T @ x / len(y) + 1e-3 * weight
        momentum = 0.9 * momentum + gradient
        weight = weight - 0.01 * (1 + math.cos(math.pi * step / 3)) / 2 * momentum
    torch.testing.assert_close(model[1].weight.detach().double(), weight, rtol=1e-4, atol=1e-6)
    assert record["history"][0]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert sorted(torch.cat([y for _, y in seen]).tolist()) == sorted(TRAIN.labels.tolist())


def test_first_step_of_adamw_is_of_size_lr_after_the_decay(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3, bias=False))
    start = model[1].weight.detach().clone()
    changes: dict[str, Any] = {"optimiser": "adamw", "lr": 0.01, "weight_decay": 2.0, "batch_size": 64}
    make_trainer(tmp_path / "r", model=model, epochs=1, warmup_epochs=0, **changes).run()
    step = model[1].weight.detach() - start * (1 - 0.01 * 2)
    torch.testing.assert_close(step.abs(), torch.full_like(step, 0.01), rtol=1e-3, atol=1e-6)


def test_training_learns(tmp_path: Path) -> None:
    record = make_trainer(tmp_path / "r", epochs=12).run()
    assert record["history"][-1]["val_loss"] < 0.8 * record["history"][0]["val_loss"]
    assert record["measure"] == "accuracy" and record["images"] == 20


def force_measures(monkeypatch: pytest.MonkeyPatch, measures: list[float]) -> list[dict[str, Tensor]]:
    """Let validation find these values; return the list that will hold the weights of each epoch."""
    found: list[dict[str, Tensor]] = []

    def validate(self: Trainer) -> dict[str, float]:
        found.append(weights(self))
        return {"val_loss": 1.0, "val_measure": measures[len(found) - 1]}

    monkeypatch.setattr(Trainer, "_validate", validate)
    return found


def test_the_first_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = force_measures(monkeypatch, [0.2, 0.9, 0.5, 0.9])
    trainer = make_trainer(tmp_path / "r")
    record = trainer.run()
    assert record["best_epoch"] == 1
    assert equal(weights(trainer), found[1])
    assert not equal(found[1], found[3])
    assert not trainer.model.training


def test_a_useless_model_is_kept_rather_than_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = force_measures(monkeypatch, [0.0, 0.0, 0.0, 0.0])
    trainer = make_trainer(tmp_path / "r")
    assert trainer.run()["best_epoch"] == 0
    assert equal(weights(trainer), found[0])


def test_training_ignores_and_keeps_the_global_generator(tmp_path: Path) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        trainer = make_trainer(tmp_path / "r", epochs=1)
        trainer.run()
        assert torch.equal(torch.get_rng_state(), state)
        results.append(weights(trainer))
    assert equal(*results)


@pytest.mark.parametrize("lr", [1e30, 1e6])
def test_divergence_is_an_error(tmp_path: Path, lr: float) -> None:
    with pytest.raises(DataError, match="diverged"):
        make_trainer(tmp_path / "r", lr=lr, warmup_epochs=0, epochs=6).run()


@pytest.mark.parametrize("empty", ["train", "val"])
def test_training_without_images_is_an_error(tmp_path: Path, empty: str) -> None:
    none = TRAIN.subset(torch.empty(0, dtype=torch.int64))
    sets = {"train": TRAIN, "val": VAL, empty: none}
    with pytest.raises(DataError, match="training needs images"):
        Trainer(nn.Linear(1, 1), SPEC, sets["train"], sets["val"], stream=("toy",), resume=NEVER)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("warmup_epochs", 5),
        ("warmup_epochs", -1),
        ("batch_size", 0),
        ("lr", 0.0),
        ("momentum", 1.0),
        ("weight_decay", -1e-3),
        ("std", 0.0),
        ("input_px", 4),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.9, 0.5)),
        ("crop_scale", (0.5, 1.1)),
        ("optimiser", "adam"),
        ("precision", "fp16"),
    ],
)
def test_impossible_spec_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"training: {name} = .*, allowed: "):
        dataclasses.replace(SPEC, **{name: value})


def test_unknown_key_of_the_spec_is_an_error() -> None:
    with pytest.raises(ConfigError, match="training: unknown key rate"):
        TrainSpec.from_dict({**RAW, "rate": 1})


# ---- resuming


class Killed(Exception):
    """Stands for a kill in the middle of an epoch."""


def interrupt(monkeypatch: pytest.MonkeyPatch, sidecar: Path, steps: int, **changes: Any) -> None:
    """Train for so many steps, with a sidecar after every epoch."""
    step, done = Trainer._step, []

    def fragile(self: Trainer, *args: Any) -> Any:
        if len(done) == steps:
            raise Killed
        done.append(1)
        return step(self, *args)

    monkeypatch.setattr(resume, "_SHARE", 1e9)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_step", fragile)
        make_trainer(sidecar, **changes).run()


def count_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    train_epoch, epochs = Trainer._train_epoch, []

    def counted(self: Trainer, epoch: int) -> dict[str, float]:
        epochs.append(epoch)
        return train_epoch(self, epoch)

    monkeypatch.setattr(Trainer, "_train_epoch", counted)
    return epochs


@pytest.mark.parametrize(("optimiser", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("adamw", 0.9)])
def test_interrupted_run_ends_bit_for_bit_where_another_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str, momentum: float
) -> None:
    changes: dict[str, Any] = {"optimiser": optimiser, "momentum": momentum}
    straight = make_trainer(tmp_path / "straight", **changes)
    wanted = straight.run()
    interrupt(monkeypatch, tmp_path / "r", 7, **changes)  # two epochs of three steps, and one more step
    epochs = count_epochs(monkeypatch)
    resumed = make_trainer(tmp_path / "r", **changes)
    assert resumed.run() == wanted
    assert epochs == [2, 3]
    assert equal(weights(resumed), weights(straight))


def test_best_epoch_before_the_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = force_measures(monkeypatch, [0.9, 0.1, 0.2, 0.3])
    interrupt(monkeypatch, tmp_path / "r", 7)
    resumed = make_trainer(tmp_path / "r")
    assert resumed.run()["best_epoch"] == 0
    assert equal(weights(resumed), found[0])


def test_interrupted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = make_trainer(tmp_path / "straight")
    wanted = straight.run()
    interrupt(monkeypatch, tmp_path / "r", 4)
    interrupt(monkeypatch, tmp_path / "r", 5)
    resumed = make_trainer(tmp_path / "r")
    assert resumed.run() == wanted
    assert equal(weights(resumed), weights(straight))


def test_sidecar_of_another_run_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(monkeypatch, tmp_path / "r", 7, fingerprint="other", lr=0.3)
    straight = make_trainer(tmp_path / "straight")
    wanted = straight.run()
    epochs = count_epochs(monkeypatch)
    with caplog.at_level(logging.WARNING, "oneshui"):
        again = make_trainer(tmp_path / "r")
        assert again.run() == wanted
    assert "belongs to another run" in caplog.text
    assert epochs == [0, 1, 2, 3]
    assert equal(weights(again), weights(straight))


@pytest.mark.parametrize("keep", [0, 300, -50])
def test_damaged_sidecar_is_ignored_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    interrupt(monkeypatch, tmp_path / "r", 4)
    (tmp_path / "r").write_bytes((tmp_path / "r").read_bytes()[:keep])
    epochs = count_epochs(monkeypatch)
    with caplog.at_level(logging.WARNING, "oneshui"):
        make_trainer(tmp_path / "r").run()
    assert "cannot be read" in caplog.text
    assert epochs == [0, 1, 2, 3]


def test_sidecars_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [0.0], []
    save_file = safetensors.torch.save_file

    def slow_save(*args: Any, **kwargs: Any) -> None:
        now[0] += 1
        written.append(len(epochs) - 1)
        save_file(*args, **kwargs)

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0] + 6 * len(epochs)  # only epochs and writes take time

    epochs = count_epochs(monkeypatch)
    monkeypatch.setattr(resume, "time", Clock)
    monkeypatch.setattr(safetensors.torch, "save_file", slow_save)
    make_trainer(tmp_path / "r", epochs=10).run()
    # a write takes 1 s, so 20 s must pass to the next; an epoch takes 6 s; none is written after the last epoch
    assert written == [0, 4, 8]


# ---- the stage


def write_run(folder: Path) -> DataFiles:
    """Write index, images and splits of 24 identities with four images of 12 px each."""
    n = 96
    images = make_images(n, 3)
    frame = pd.DataFrame({"image_id": range(n), "path": [f"{i}.png" for i in range(n)], "identity": np.arange(n) // 4})
    frame["identity_name"] = "p" + frame["identity"].astype(str)
    frame = frame.assign(label=images.labels.numpy(), width=12, height=12, duplicate_group=range(n))
    data = DataFiles(folder / "index.parquet", folder / "images.npy", folder / "splits.parquet")
    write_table(data.index, frame, INDEX, {"task": TASK.kind, "classes": list(TASK.classes)})
    np.save(data.images, images.pixels.numpy())
    spec = {"train": 0.6, "val": 0.2, "n_ranked": 3, "min_images_first": 4, "min_images": 2, "dedup": False}
    split_identities(data.index, data.splits, run=Which("toy", None, 0), spec=spec)
    return data


def train(data: DataFiles, output: Path, n: int | None = None, seed: int = 0, **changes: Any) -> None:
    spec = {"dataset": {"layout": "toy"}, "training": {**RAW, **changes}}
    model = ORIGINAL if n is None else RETRAINED
    stage.train_model(
        data, output, weights_path=None, run=Which("toy", n, seed), model=model, spec=spec, device=CPU
    )  # fmt: skip


class Seen(Trainer):
    """A trainer that keeps what it was given and does not train."""

    runs: list["Seen"]

    def run(self) -> dict[str, Any]:
        self.start = weights(self)
        self.runs.append(self)
        return {}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    Seen.runs = []
    monkeypatch.setattr(stage, "Trainer", Seen)
    return Seen.runs


def test_retraining_leaves_out_exactly_the_forget_identities(tmp_path: Path, seen: list[Seen]) -> None:
    data = write_run(tmp_path)
    splits, _ = read_table(data.splits, SPLITS)
    train(data, tmp_path / "pretrain.safetensors")
    for n in (1, 3):
        train(data, tmp_path / f"retrain{n}.safetensors", n=n)
    used = [set(run.train.image_ids.tolist()) for run in seen]
    trained_on = splits[(splits["role"] == "train") & ~splits["is_support"]]
    assert used[0] == set(trained_on["image_id"])
    for images, n in zip(used[1:], (1, 3), strict=True):
        forgotten = trained_on.loc[trained_on["request_rank"] < n, "image_id"]
        assert len(forgotten) == 3 * n
        assert images == used[0] - set(forgotten)
    val = set(splits.loc[splits["role"] == "val", "image_id"])
    assert all(set(run.val.image_ids.tolist()) == val for run in seen)


def test_both_roles_start_from_the_weights_of_their_seed(tmp_path: Path, seen: list[Seen]) -> None:
    data = write_run(tmp_path)
    train(data, tmp_path / "a.safetensors")
    torch.manual_seed(5)
    train(data, tmp_path / "b.safetensors", n=2)
    train(data, tmp_path / "c.safetensors", seed=1)
    assert equal(seen[0].start, seen[1].start)
    assert not equal(seen[0].start, seen[2].start)


def test_fingerprint_names_everything_the_run_depends_on(tmp_path: Path, seen: list[Seen]) -> None:
    data = write_run(tmp_path)
    out = tmp_path / "m.safetensors"
    train(data, out)
    train(data, out)
    assert seen[0].resume.fingerprint == seen[1].resume.fingerprint
    train(data, out, n=1)
    train(data, out, n=2)
    train(data, out, seed=1)
    train(data, out, lr=0.1)
    train(data, out, revision=2)
    splits, meta = read_table(data.splits, SPLITS)
    write_table(data.splits, splits, SPLITS, {**meta, "content": "other"})
    train(data, out)
    assert len({run.resume.fingerprint for run in seen}) == 7
    assert len({run.stream for run in seen}) == 4  # role, n and seed


def test_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    data = write_run(tmp_path)
    out = tmp_path / "models" / "m.safetensors"
    train(data, out, n=2, epochs=1)
    metadata = load_model(out, CPU).metadata
    assert (metadata["role"], metadata["n"], metadata["seed"], metadata["dataset"]) == ("retrain", 2, 0, "toy")
    assert metadata["splits"] == read_table(data.splits, SPLITS)[1]["content"]
    assert metadata["spec"]["training"]["lr"] == 0.05
    assert metadata["training"]["best_epoch"] == 0 and len(metadata["training"]["history"]) == 1
    assert [path.name for path in out.parent.iterdir()] == ["m.safetensors"]  # the sidecar is gone


CHILD = """
import sys, time, torch
from pathlib import Path
import test_training as t

torch.set_num_threads(int(sys.argv[2]))
validate, calls = t.Trainer._validate, []
def hang(self):
    calls.append(1)
    if len(calls) == 3:
        time.sleep(600)
    return validate(self)
t.Trainer._validate = hang
folder = Path(sys.argv[1])
t.train(t.write_run(folder), folder / "m.safetensors")
"""


@pytest.mark.slow
def test_killed_process_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    killed.mkdir(), straight.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", CHILD, str(killed), str(torch.get_num_threads())]
    child = subprocess.Popen(command, env=environment)
    sidecar = killed / "m.safetensors.resume"
    deadline = time.monotonic() + 120
    while not sidecar.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert sidecar.exists() and not (killed / "m.safetensors").exists()
    for folder in (killed, straight):
        train(write_run(folder), folder / "m.safetensors")
    # not the bytes: safetensors writes the entries of its header in any order
    resumed, whole = (load_model(folder / "m.safetensors", CPU) for folder in (killed, straight))
    assert resumed.metadata == whole.metadata
    assert equal(resumed.model.state_dict(), whole.model.state_dict())
    assert not sidecar.exists()


def test_the_log_says_what_the_device_was_used_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="oneshui"):
        make_trainer(tmp_path / "resume").run()
    rates = [record.getMessage().partition("; ")[2] for record in caplog.records if "epoch" in record.getMessage()]
    assert len(rates) == SPEC.epochs
    assert all(re.fullmatch(r"[\d,]+ images/s, [\d.e-]+ TFLOP/s", rate) for rate in rates), rates


def test_inputs_are_made_in_float32_whatever_the_network_computes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path / "resume", epochs=1, warmup_epochs=0)
    monkeypatch.setattr(trainer, "_autocast", lambda: torch.autocast("cpu", torch.bfloat16))
    seen, answered = [], []

    def watch(model: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        seen.append(inputs[0].clone())
        answered.append(logits.dtype)

    trainer.model.register_forward_hook(watch)
    trainer._validate()
    assert set(answered) == {torch.bfloat16}
    assert all(torch.equal(got, wanted) for got, (wanted, _) in zip(seen, VAL.batches(256), strict=True))
