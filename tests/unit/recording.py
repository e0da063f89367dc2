"""A stand-in for recording on a GPU, with which the CPU takes the same paths."""

from typing import Any

import pytest
import torch
from torch import Tensor

from oneshui import replay


class StandIn:
    """What a recording does, without CUDA: it computes from tensors that stay, and its outputs stay."""

    def __init__(
        self, computation: replay.Computation, inputs: tuple[Tensor, ...], device: torch.device, first: "StandIn | None"
    ) -> None:
        self.computation, self.inputs = computation, [each.detach().clone() for each in inputs]
        self.replays, self.first = 0, first

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given.detach())
        self.replays += 1
        return tuple(each.detach().clone() for each in self.computation(*self.inputs))


def record_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """Let the CPU record, and return what will have been recorded."""
    made: list[StandIn] = []

    def record(*args: Any) -> StandIn:
        made.append(StandIn(*args))
        return made[-1]

    monkeypatch.setattr(replay, "RECORDING", ("cpu", "cuda"))
    monkeypatch.setattr(replay, "_record", record)
    return made
