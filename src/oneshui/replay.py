"""Computations of fixed shapes without the host in their way: a GPU records one as a CUDA graph, then replays it.

At a batch of 32 a GPU computes a training step faster than the host can launch its kernels one by one. A replay
launches all of them at once.
"""

import gc
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from oneshui.errors import first_line
from oneshui.log import logger

Computation = Callable[..., tuple[Tensor, ...]]

#: devices that record, unless ``ONESHUI_CUDA_GRAPHS=0``
RECORDING: tuple[str, ...] = () if os.environ.get("ONESHUI_CUDA_GRAPHS") == "0" else ("cuda",)
#: calls of one shape before it is recorded: libraries choose their algorithms, optimisers make their moments
WARM_UP = 3
#: shapes of one computation that are recorded, if its owner does not say how many
MOST_SHAPES = 8


class Replayed:
    """A computation that a recording device replays from the fourth call of one shape on. Others just call it.

    Every call computes once: the first ones as they are, and recording computes nothing. So what the computation
    changes in place (weights, moments, statistics of batches) and draws from torch's own generator ends where plain
    calls end, to rounding. The first shapes that come often enough are replayed; others are computed as they are. Each
    shape has outputs of its own. All of a computation share what else they need: inputs that are alike, activations.

    Args:
        computation: from tensors to tensors, all on ``device``. It must not wait for the device, and everything else
            that it reads must stay where it is in memory. Where it cannot be recorded, the log says so once and every
            call is plain.
        device: of the tensors.
        most: shapes that are recorded.
    """

    def __init__(self, computation: Computation, device: torch.device, most: int = MOST_SHAPES) -> None:
        self._computation, self._device, self._most = computation, device, most
        self._calls: dict[Any, int] = {}
        self._recordings: dict[Any, _Recording] = {}
        self._stream: torch.cuda.Stream | None = None
        self._plain = device.type not in RECORDING

    @property
    def records(self) -> bool:
        """Whether calls of one shape are replayed, or will be: then few shapes are worth more than fewer images."""
        return not self._plain

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what the computation makes of ``inputs``; the tensors are the caller's."""
        if self._plain:
            return self._computation(*inputs)
        shapes = tuple((each.shape, each.dtype) for each in inputs)
        if shapes not in self._recordings and len(self._recordings) < self._most:
            calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if calls <= WARM_UP:
                return self._beside(inputs)
            first = next(iter(self._recordings.values()), None)
            recording = _record(self._computation, inputs, self._device, first)
            if recording is None:
                self._plain = True
            else:
                self._recordings[shapes] = recording
        if shapes in self._recordings:
            return self._recordings[shapes].replay(inputs)
        return self._computation(*inputs)

    def _beside(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute as CUDA wants it before a recording: on another stream than the present one."""
        if self._device.type != "cuda":
            return self._computation(*inputs)
        present = torch.cuda.current_stream()
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            outputs = self._computation(*inputs)
        present.wait_stream(self._stream)
        return outputs


class _Recording:
    """Tensors that stay where they are, and the graph that computes the outputs from the inputs.

    They have no part in autograd. A tensor that stays and takes in one leaf after the other would hold all of them.
    """

    def __init__(
        self, computation: Computation, inputs: tuple[Tensor, ...], graph: torch.cuda.CUDAGraph,
        first: "_Recording | None",
    ) -> None:  # fmt: skip
        # one graph is replayed at a time, with inputs that were just copied, and its outputs are copied before the next
        alike: Sequence[Tensor | None] = first._inputs if first else [None] * len(inputs)
        self._inputs: list[Tensor] = [
            own if own is not None and (own.shape, own.dtype) == (given.shape, given.dtype) else given.detach().clone()
            for own, given in zip(alike, inputs, strict=True)
        ]
        self._graph = graph
        with torch.cuda.graph(graph, pool=first._graph.pool() if first else None):
            self._outputs = computation(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given.detach())
        self._graph.replay()
        return tuple(each.detach().clone() for each in self._outputs)


#: graphs whose recording failed: torch's allocator may still ask them which memory is theirs
_broken: list[torch.cuda.CUDAGraph] = []


def _record(
    computation: Computation, inputs: tuple[Tensor, ...], device: torch.device, first: _Recording | None
) -> _Recording | None:
    """Return the recording, or None where the computation cannot be recorded: then nothing was computed.

    It shares the memory of the computation's ``first``, if there is one. After one failure a process records nothing
    any more.
    """
    if _broken:
        return None
    if first is None:
        gc.collect()  # graphs of computations that are gone hold their memory until then
    generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    before, graph = generator.clone_state(), torch.cuda.CUDAGraph()
    try:
        # a recording that fails may leave its own stream as the present one
        with torch.cuda.stream(torch.cuda.current_stream()):
            return _Recording(computation, inputs, graph, first)
    except RuntimeError as error:
        _broken.append(graph)
        generator.graphsafe_set_state(before)  # it may still believe that it is being recorded
        logger.info("not recorded as a CUDA graph, so the host launches every kernel: %s", first_line(error))
        return None
