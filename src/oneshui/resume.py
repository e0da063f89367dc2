"""Going on with a long computation that was killed: its state, saved now and then in a file beside its output.

Training, meta-training, what other methods make of the training data, and the choice of hyper-parameters save after
each part of theirs. A state is tied to a fingerprint of all that the result depends on and is used for nothing else.
With the states of the random number generators in it, the end is, on the CPU, bit for bit that of a run that nobody
disturbed.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from oneshui.errors import DataError
from oneshui.files import spec_hash
from oneshui.log import logger
from oneshui.presence import is_orphan
from oneshui.tensors import load_tensors, save_tensors

#: saving may take at most this share of the time
_SHARE = 0.05
#: bytes/s of a slow disk: says how long the first state will take to write
_BYTES_PER_S = 5e8

#: tensors by group and name, and what else there is to say, JSON-like
State = tuple[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]]


class Resume:
    """The state of one computation, which lies in one file.

    Args:
        path: of the file; None: nothing is ever saved.
        fingerprint: of everything that the result depends on; a file with another one is ignored.
        device: where tensors go when they are loaded.

    Attributes:
        seconds: wall time that earlier processes spent on the loaded state.
    """

    def __init__(self, path: Path | None, fingerprint: str, device: torch.device) -> None:
        self.path, self.fingerprint, self.device = path, fingerprint, device
        self.seconds = 0.0
        self._started = self._saved = time.monotonic()
        self._pause: float | None = None  # seconds that must pass before the next is saved

    @classmethod
    def beside(cls, output: Path, fingerprint: str, device: torch.device) -> Self:
        """Return that of the job which makes ``output``."""
        return cls(Path(f"{output}.resume"), fingerprint, device)

    def load(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """Return what was saved last, or None if there is nothing of this very computation."""
        if self.path is None or not self.path.exists():
            return None
        try:
            tensors, header = load_tensors(self.path, self.device)
        except DataError as error:
            logger.warning("%s cannot be read (%s); starting from the beginning", self.path, error)
            return None
        if header.get("fingerprint") != self.fingerprint:
            logger.warning("%s belongs to another run; starting from the beginning", self.path)
            return None
        self.seconds = float(header.get("seconds", 0.0))
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, key = name.partition("/")
            groups.setdefault(group, {})[key] = tensor
        state = header.get("state")
        return groups, state if isinstance(state, dict) else {}

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Put back in this block what was loaded. A file that was changed may hold anything, so it may fail half-way.

        Raises:
            DataError: it failed.
        """
        try:
            yield
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise DataError(
                f"{self.path} holds no state of this job ({error!r:.200}): it was changed. Delete it, then run "
                "the same command again."
            ) from error

    def save(self, state: Callable[[], State]) -> None:
        """Save what ``state`` returns, unless that would take more than a small share of the time since the last one.

        Args:
            state: makes the state; asked only when it is wanted. Names of groups have no slash.
        """
        if self.path is None:
            return
        started = time.monotonic()
        if self._pause is not None and started - self._saved < self._pause:
            return
        groups, note = state()
        tensors = {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
        if self._pause is None:
            self._pause = sum(tensor.nbytes for tensor in tensors.values()) / _BYTES_PER_S / _SHARE
            if started - self._saved < self._pause:
                return
        seconds = self.seconds + started - self._started
        try:
            save_tensors(self.path, tensors, {"fingerprint": self.fingerprint, "state": note, "seconds": seconds})
        except DataError as error:  # a full disk: the output may be smaller, or there is room by then
            logger.warning("the state is not saved, so a kill would lose what was done since the last one: %s", error)
        self._saved = time.monotonic()
        self._pause = (self._saved - started) / _SHARE

    def clear(self) -> None:
        """Remove the file: the output is safe, unless nobody is there any more who notes that it is finished."""
        if self.path is not None and not is_orphan():
            self.path.unlink(missing_ok=True)


#: for computations that nobody goes on with
NEVER = Resume(None, "", torch.device("cpu"))


def fingerprint(identity: Mapping[str, Any], device: torch.device) -> str:
    """Return the name of a computation: what it depends on, and where and with how many threads it runs.

    Args:
        identity: configuration and contents of all inputs, JSON-like.
        device: where it computes.
    """
    return spec_hash({**identity, "device": device.type, "threads": torch.get_num_threads()})


def optimiser_state(
    parameters: Iterable[tuple[str, nn.Parameter]], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return the moments of an optimiser by ``PARAMETER/KEY``."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters
        for key, value in optimiser.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimiser(
    parameters: Iterable[tuple[str, nn.Parameter]], optimiser: torch.optim.Optimizer, moments: Mapping[str, Tensor]
) -> None:
    """Put back what ``optimiser_state`` returned, in the memory layout of the parameters."""
    by_name, fused = dict(parameters), any(group.get("fused") for group in optimiser.param_groups)
    for path, value in moments.items():
        name, _, key = path.partition("/")
        like = by_name[name] if value.shape == by_name[name].shape else value
        value = torch.empty_like(like).copy_(value)
        optimiser.state[by_name[name]][key] = value if key != "step" or fused else value.cpu()


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's own generators, which dropout and the like draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Put back what ``generator_states`` returned."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
