"""The one learning-rate schedule of training and of methods."""

import math


def cosine(step: int, n_steps: int) -> float:
    """Return the share of the peak at ``step``: 1 at 0, 0 at ``n_steps``."""
    return (1 + math.cos(math.pi * step / n_steps)) / 2
