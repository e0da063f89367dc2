"""Named random streams: the same names give the same numbers, on every machine.

No function of the package draws from a global generator. A stream is named after what it is for and the
coordinates of the run, e.g. ``stream("split", "mufac", 0)``; adding a new stream never shifts an old one.
"""

import hashlib

import numpy as np


def seed_of(*names: str | int) -> int:
    """Return the 63-bit seed of the stream called ``names``."""
    if not names:
        raise ValueError("a random stream needs a name")
    # json-like separators keep ("a", "b/c") and ("a/b", "c") apart
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*names: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator for the stream called ``names``."""
    return np.random.Generator(np.random.PCG64(seed_of(*names)))
