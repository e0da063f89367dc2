"""The one measure of each task, by its name in metric files."""

from typing import Any

import numpy.typing as npt

from oneshui.metrics.accuracy import accuracy, mean_average_precision

#: kind of task -> name of its measure
MEASURES = {"classification": "accuracy", "multilabel": "map"}


def measure(kind: str, logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Return accuracy or mean average precision, in [0, 1], whichever belongs to the task ``kind``."""
    if kind == "multilabel":
        return mean_average_precision(logits, labels)[0]
    return accuracy(logits, labels)
