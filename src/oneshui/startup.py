"""Starting quickly: what jobs that need torch import first. Measured by ``benchmarks/fixed_costs.py``."""

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import without collecting garbage: torch and timm make a million objects that live as long as the process.

    Python would search them for garbage again and again, a quarter of the start. What is there at the end is not
    searched later either.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.unregister(silence_end)
        atexit.register(silence_end)
        if enabled:
            gc.enable()


def silence_end() -> None:
    """Keep what compiled modules write to stderr after Python's end from the user.

    Objects that are never collected outlive Python, and the bindings of torch's compiler list them in 30 lines. To
    collect them instead takes more than a second of every job.
    """
    with contextlib.suppress(OSError, ValueError):  # a stream that is closed already
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
