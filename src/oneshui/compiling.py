"""Networks that ``torch.compile`` made faster, where a training is long enough to earn what compiling takes.

On a GPU half of a training step of a transformer goes into small kernels: casts, norms, biases and their gradients.
The compiler makes few large ones of them. It takes half a minute, or a few seconds where the machine did it before.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from oneshui.errors import first_line
from oneshui.log import logger

#: devices for which networks are compiled, unless ``ONESHUI_COMPILE=0``
COMPILING: tuple[str, ...] = () if os.environ.get("ONESHUI_COMPILE") == "0" else ("cuda",)
#: steps from which on a training compiles its network. On one H200 the first of a network earned its compiling after
#: 6,700 and 8,000 steps, a later one after 1,800 (docs/benchmarks.md, "On a GPU"); a workflow trains three or more
PAYS_FROM = 4_000
#: dropout draws what it would draw without the compiler
_OPTIONS: dict[str, Any] = {"fallback_random": True}


def pays(device: torch.device, steps: int) -> bool:
    """Tell whether a training of so many steps on ``device`` should compile its network."""
    return device.type in COMPILING and steps >= PAYS_FROM


def compiled(
    model: nn.Module, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
) -> Callable[[Tensor], Tensor]:
    """Return what computes as ``model`` does in training, to rounding, for images of one shape.

    Both passes are tried at once. Where that fails, for want of a C compiler for example, the log says so and ``model``
    itself is returned. Weights and statistics stay as they are.

    Args:
        model: in training mode.
        images: (B, 3, px, px) of the only shape that it will be asked.
        autocast: makes the context that the network computes in.
    """
    kept = {name: value.clone() for name, value in model.named_buffers()}
    network: Callable[[Tensor], Tensor]
    started = time.monotonic()
    try:
        network = torch.compile(model, options=_OPTIONS)
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            with autocast():
                answer = network(images)
            answer.float().sum().backward()
    except Exception as error:  # whatever a compiler raises: the training can go on without it
        logger.info("the network was not compiled, so its steps are slower: %s", first_line(error))
        network = model
    else:
        logger.info("compiled the network in %.0f s", time.monotonic() - started)
    finally:
        model.zero_grad(set_to_none=True)
        for name, value in model.named_buffers():
            value.copy_(kept[name])
    return network
