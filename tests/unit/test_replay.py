"""Computations that a GPU replays: nothing is computed twice or left out, and the numbers are those of plain calls.

The tests marked gpu need CUDA; the others stand in for its recording by one that computes when it is replayed.
"""

import dataclasses
import logging
import runpy
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.unit.recording import StandIn, record_on_the_cpu
from torch import Tensor, nn

from oneshui import replay
from oneshui.config import TrainSpec
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.ssd import SSD
from oneshui.models import ModelSpec, build_model
from oneshui.replay import WARM_UP, Replayed
from oneshui.resume import NEVER
from oneshui.sets import ImageSet, InputSpec
from oneshui.tasks import Task
from oneshui.training import Trainer

CPU = torch.device("cpu")
TASK = Task("classification", ("a", "b", "c"))
SPEC = TrainSpec.from_dict({
    "model": "resnet10t", "model_options": {}, "init_weights": "random", "input_px": 16, "mean": 0.5, "std": 0.5,
    "epochs": 3, "warmup_epochs": 1, "batch_size": 8, "optimiser": "sgd", "lr": 0.05, "momentum": 0.9,
    "weight_decay": 1e-3, "crop_scale": [0.5, 1.0], "precision": "fp32", "revision": 1,
})  # fmt: skip
gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(autouse=True)
def _cuda_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "RECORDING", ("cuda",))


def test_a_gpu_records_unless_it_is_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, wanted in (("", ("cuda",)), ("0", ()), ("1", ("cuda",))):
        monkeypatch.setenv("ONESHUI_CUDA_GRAPHS", asked)
        assert runpy.run_path(replay.__file__)["RECORDING"] == wanted


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """Let the CPU record, and return what was recorded."""
    return record_on_the_cpu(monkeypatch)


def images_on(device: torch.device, n: int = 36) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=draw)
    pixels = (torch.randint(100, (n, 3, 12, 12), generator=draw) + 70 * labels[:, None, None, None]).to(torch.uint8)
    ids = torch.arange(n)
    return ImageSet(pixels.to(device), ids.to(device), labels.to(device), ids, InputSpec(16, 0.5, 0.5), TASK, device)


class Empty:
    """A graph of nothing."""

    def replay(self) -> None:
        """Compute nothing."""

    def pool(self) -> str:
        """Return what stands for its memory."""
        return "memory"


class Waits(nn.Module):
    """A layer that asks the device for a number, which no recording can."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.0 if float(x.detach().sum()) > -1e9 else 2.0)


def trained(device: torch.device, *more: nn.Module, **changes: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train a network with statistics, dropout and moments; return the record and the weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 4, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), *more]
    model = nn.Sequential(*layers, nn.Linear(64, 3)).to(device)
    images = images_on(device)
    trainer = Trainer(model, dataclasses.replace(SPEC, **changes), images, images, stream=("test",), resume=NEVER)
    record = trainer.run()
    return record, {name: value.cpu() for name, value in model.state_dict().items()}


def test_a_device_that_cannot_record_is_just_called() -> None:
    calls: list[Tensor] = []

    def computation(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(x)
        return (x + 1,)

    replayed, given = Replayed(computation, CPU), torch.ones(2)
    for _ in range(WARM_UP + 2):
        replayed(given)
    assert all(each is given for each in calls) and len(calls) == WARM_UP + 2


def test_the_first_shapes_that_come_often_are_recorded_and_every_call_computes_once(
    recordings: list[StandIn],
) -> None:
    total = torch.zeros(())

    def computation(x: Tensor) -> tuple[Tensor, ...]:
        total.add_(x.sum())
        return (2 * x,)

    replayed = Replayed(computation, CPU, most=2)
    shapes = [4, 3, 4, 4, 4, 4, 3, 3, 3, 4, 5, 5, 5, 5, 5]
    for number, n in enumerate(shapes):
        (doubled,) = replayed(torch.full((n,), float(number)))
        assert doubled.tolist() == [2.0 * number] * n
    assert float(total) == sum(number * n for number, n in enumerate(shapes))
    assert [each.first for each in recordings] == [None, recordings[0]]
    assert [each.replays for each in recordings] == [3, 1]  # of four numbers and of three, after three that warmed up


def test_outputs_stay_what_they_are_when_the_next_call_computes(recordings: list[StandIn]) -> None:
    replayed = Replayed(lambda x: (x,), CPU)
    outputs = [replayed(torch.tensor([float(i)]))[0] for i in range(WARM_UP + 3)]
    assert [float(each) for each in outputs] == list(range(WARM_UP + 3))


def test_a_recording_holds_no_leaf_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each simulated request of meta-training would leave a copy of the network on the GPU."""
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: nullcontext())
    recording = replay._Recording(lambda x: (2 * x,), (torch.ones(2, requires_grad=True),), cast(Any, Empty()), None)
    for i in range(2):
        (output,) = recording.replay((torch.full((2,), float(i), requires_grad=True),))
    (own,) = recording._inputs
    assert own.tolist() == [1.0, 1.0]
    assert not own.requires_grad and own.grad_fn is None and not output.requires_grad


def test_recordings_of_a_computation_share_inputs_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[Any] = []
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: pools.append(pool) or nullcontext())

    def recording(n: int, first: replay._Recording | None) -> replay._Recording:
        return replay._Recording(lambda x, y: (2 * x, y), (torch.ones(n), torch.ones(2)), cast(Any, Empty()), first)

    first = recording(3, None)
    second = recording(4, first)
    assert pools == [None, "memory"]
    assert len(second._inputs[0]) == 4 and second._inputs[1] is first._inputs[1]


def test_a_recording_that_fails_leaves_every_call_as_it_is(
    recordings: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_record", lambda *_: None)
    calls: list[float] = []

    def computation(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(float(x))
        return (x + 1,)

    replayed = Replayed(computation, CPU)
    given = [float(i) for i in range(WARM_UP + 3)]
    assert replayed.records
    assert [float(replayed(torch.tensor(x))[0]) for x in given] == [x + 1 for x in given]
    assert calls == given and not replayed.records


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_training_with_replays_is_training(recordings: list[StandIn], optimiser: str) -> None:
    record, weights = trained(CPU, optimiser=optimiser)
    (made,) = recordings
    assert made.replays == 3 * 4 - WARM_UP  # of each epoch's five batches the last is smaller
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "RECORDING", ())
        plain, wanted = trained(CPU, optimiser=optimiser)
    assert record == plain
    assert all(torch.equal(value, wanted[name]) for name, value in weights.items())


@gpu
@needs_cuda
@pytest.mark.parametrize(
    ("optimiser", "precision", "bound"),
    [("sgd", "fp32", 1e-4), ("adamw", "fp32", 5e-3), ("sgd", "bf16", 1e-2)],
)
def test_a_recorded_training_ends_where_a_plain_one_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, optimiser: str, precision: str, bound: float
) -> None:
    device, changes = torch.device("cuda"), {"optimiser": optimiser, "precision": precision, "lr": 0.01}
    with caplog.at_level(logging.INFO, logger="oneshui"):
        record, weights = trained(device, **changes)
    assert "not recorded" not in caplog.text
    monkeypatch.setattr(replay, "RECORDING", ())
    plain, wanted = trained(device, **changes)
    for name, value in weights.items():
        assert float((value - wanted[name]).float().norm() / wanted[name].float().norm().clamp(min=1)) < bound, name
    for entry, same in zip(record["history"], plain["history"], strict=True):
        assert entry["train_loss"] == pytest.approx(same["train_loss"], rel=bound)


def meta_trained(device: torch.device) -> dict[str, Tensor]:
    task = Task("multilabel", tuple(f"a{i}" for i in range(6)))
    torch.manual_seed(0)
    options = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = build_model(ModelSpec("vit_tiny_patch16_224", task, 32, 0.5, 0.5, options)).to(device).eval()
    draw = torch.Generator().manual_seed(1)
    pixels, labels = torch.randn(90, 3, 32, 32, generator=draw), torch.randint(2, (90, 6), generator=draw)
    train = ImageSet.of_inputs(pixels.to(device), labels.to(device), task, torch.arange(90) // 5)
    val = ImageSet.of_inputs(pixels[:40].flip(3).to(device), labels[:40].to(device), task)
    method = MetaUnlearn(
        inner_lr=0.1, lr=1e-3, epochs=2, simulated_n=5, batch_size=16, micro_batch=16, hidden=16, dropout=0.0,
        inputs=("logits", "features", "target", "identity"), outer_loss="equation_6", terms="both",
        accuracy_weight=False, distance="smooth_l1", val_gradient=False, frozen=(), jvp="exact",
    )  # fmt: skip
    artefact = method.precompute(model, train, val, seed=0)
    squares = SSD(selection=1.0, dampening=1.0, fisher="image", batch_size=16, micro_batch=4)
    return artefact.tensors | squares.precompute(model, train, val, seed=0).tensors


def test_meta_training_with_replays_is_meta_training(
    recordings: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = meta_trained(CPU)
    sharing = [each for each in recordings if each.first is not None]
    assert sharing and all(each.replays for each in sharing)  # batches of 16 forget images, and of the 4 that are left
    monkeypatch.setattr(replay, "RECORDING", ())
    wanted = meta_trained(CPU)
    assert all(torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-6) for name, value in found.items())


def test_meta_training_goes_on_where_its_passes_cannot_be_recorded(
    recordings: list[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_record", lambda *_: None)
    found = meta_trained(CPU)
    monkeypatch.setattr(replay, "RECORDING", ())
    wanted = meta_trained(CPU)
    assert all(torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-6) for name, value in found.items())


@gpu
@needs_cuda
def test_recorded_passes_of_methods_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="oneshui"):
        found = meta_trained(torch.device("cuda"))
    assert "not recorded" not in caplog.text
    monkeypatch.setattr(replay, "RECORDING", ())
    for name, value in meta_trained(torch.device("cuda")).items():
        if value.is_floating_point():
            assert float((found[name] - value).norm()) <= 1e-2 * float(value.norm()) + 1e-12, name


@gpu
@needs_cuda
@pytest.mark.parametrize("resident", [True, False])
def test_the_host_never_waits_for_the_gpu_within_a_training_step(tmp_path: Path, resident: bool) -> None:
    cuda = torch.device("cuda")
    images = images_on(cuda)
    if not resident:
        images = dataclasses.replace(images, pixels=images.pixels.cpu(), image_ids=images.image_ids.cpu())
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(64, 3)).to(cuda)
    trainer = Trainer(model, SPEC, images, images, stream=("test",), resume=NEVER)
    generator = torch.Generator().manual_seed(0)

    def step(n: int) -> None:
        rows = torch.arange(n)
        trainer._step(rows, images.labels[:n], generator)

    for _ in range(WARM_UP + 2):  # libraries start, memory is pinned, the step is recorded
        step(8)
    step(5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype feature")
        try:
            torch.cuda.set_sync_debug_mode("error")
            step(8)  # replayed
            step(5)  # plain
        finally:
            torch.cuda.set_sync_debug_mode("default")


#: torch may still ask a graph whose recording failed which memory is its
_BROKEN: list[torch.cuda.CUDAGraph] = []


@gpu
@needs_cuda
def test_what_cannot_be_recorded_is_computed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = torch.device("cuda")
    monkeypatch.setattr(replay, "_broken", _BROKEN)  # or nothing is recorded any more after this test
    with caplog.at_level(logging.INFO, logger="oneshui"):
        _, weights = trained(device, Waits())
    assert caplog.text.count("not recorded as a CUDA graph") == 1
    monkeypatch.setattr(replay, "RECORDING", ())
    _, wanted = trained(device, Waits())
    assert all(torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-5) for name, value in weights.items())
