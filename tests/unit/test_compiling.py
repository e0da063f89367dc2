"""Networks that are compiled train as they would without, and where compiling fails, training goes on."""

import dataclasses
import functools
import logging
import runpy
from typing import Any

import pytest
import torch
from tests.unit.test_replay import CPU, SPEC, images_on
from torch import Tensor, nn

from oneshui import compiling
from oneshui.resume import NEVER
from oneshui.training import Trainer

TRACED = functools.partial(torch.compile, backend="aot_eager", options=None)


def trained(device: torch.device, **changes: Any) -> tuple[Trainer, dict[str, Any], dict[str, Tensor]]:
    """Train a network with statistics and dropout; return the trainer, the record and the weights."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 4, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
    model = nn.Sequential(*layers, nn.Linear(64, 3)).to(device)
    images = images_on(device)
    trainer = Trainer(model, dataclasses.replace(SPEC, **changes), images, images, stream=("test",), resume=NEVER)
    return trainer, trainer.run(), {name: value.cpu() for name, value in model.state_dict().items()}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compile on the CPU, with a backend that is quick, from 15 steps on; return the batches that it was asked."""
    sizes: list[int] = []

    def traced(model: nn.Module, options: dict[str, Any]) -> Any:
        network = TRACED(model)

        def call(images: Tensor) -> Tensor:
            sizes.append(len(images))
            answer: Tensor = network(images)
            return answer

        assert options["fallback_random"]
        return call

    monkeypatch.setattr(compiling, "COMPILING", ("cpu",))
    monkeypatch.setattr(compiling, "PAYS_FROM", 15)
    monkeypatch.setattr(torch, "compile", traced)
    return sizes


def test_a_compiled_network_trains_as_the_network_does(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, record, weights = trained(CPU)
    assert trainer._network is not trainer.model
    assert calls == [8] * (1 + 3 * 4)  # once to compile; of each epoch's five batches the last is smaller
    monkeypatch.setattr(compiling, "COMPILING", ())
    trainer, plain, wanted = trained(CPU)
    assert trainer._network is trainer.model
    assert list(weights) == list(wanted)
    assert all(torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-6) for name, value in weights.items())
    assert int(weights["1.num_batches_tracked"]) == 3 * 5
    for entry, same in zip(record["history"], plain["history"], strict=True):
        assert entry["train_loss"] == pytest.approx(same["train_loss"], rel=1e-4)


def test_a_short_training_does_not_compile(calls: list[int]) -> None:
    trainer, _, _ = trained(CPU, epochs=2)
    assert trainer._network is trainer.model and not calls


@pytest.mark.parametrize("where", ["at once", "forward", "backward"])
def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(
    calls: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if where == "forward":
                raise RuntimeError("no C compiler\nand more")
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *_: Tensor) -> Tensor:
            raise RuntimeError("no C compiler\nand more")

    def broken(model: nn.Module, options: dict[str, Any]) -> Any:
        if where == "at once":
            raise RuntimeError("no C compiler\nand more")
        return lambda images: Breaks.apply(model(images))  # statistics have changed, gradients have not

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.INFO, logger="oneshui"):
        trainer, record, weights = trained(CPU)
    assert trainer._network is trainer.model
    assert "not compiled, so its steps are slower: no C compiler" in caplog.text and "more" not in caplog.text
    monkeypatch.setattr(compiling, "COMPILING", ())
    _, plain, wanted = trained(CPU)
    assert record == plain
    assert all(torch.equal(value, wanted[name]) for name, value in weights.items())


def test_compiling_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, wanted in (("", ("cuda",)), ("0", ()), ("1", ("cuda",))):
        monkeypatch.setenv("ONESHUI_COMPILE", asked)
        assert runpy.run_path(compiling.__file__)["COMPILING"] == wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.filterwarnings("default")  # the compiler warns
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("bf16", 1e-2)])
def test_on_a_gpu_a_compiled_training_ends_where_a_plain_one_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, precision: str, bound: float
) -> None:
    device, changes = torch.device("cuda"), {"precision": precision, "lr": 0.01}
    monkeypatch.setattr(compiling, "PAYS_FROM", 1)
    with caplog.at_level(logging.INFO, logger="oneshui"):
        _, record, weights = trained(device, **changes)
    assert "compiled the network in" in caplog.text and "not recorded" not in caplog.text
    monkeypatch.setattr(compiling, "COMPILING", ())
    _, plain, wanted = trained(device, **changes)
    for name, value in weights.items():
        assert float((value - wanted[name]).float().norm() / wanted[name].float().norm().clamp(min=1)) < bound, name
    for entry, same in zip(record["history"], plain["history"], strict=True):
        assert entry["train_loss"] == pytest.approx(same["train_loss"], rel=bound)
