"""Starting quickly: what jobs that need torch import first. Measured by ``benchmarks/fixed_costs.py``."""

import atexit
import contextlib
import gc
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
        # frozen objects would outlive the interpreter's last collection, of which torch's bindings complain in 30 lines
        atexit.register(gc.unfreeze)
        if enabled:
            gc.enable()
