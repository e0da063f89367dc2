"""How differently two models answer the same images."""

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit, log_softmax

from oneshui.errors import DataError


def mean_kl(reference: npt.NDArray[np.floating], answers: npt.NDArray[np.floating], *, task: str) -> float:
    """Return the mean over images of KL(reference || answers) in nats; over attributes it is summed.

    Args:
        reference: (N, C) logits of the model that is compared with.
        answers: (N, C) logits of the other, of the same images.
        task: ``classification`` (softmax) or ``multilabel`` (one sigmoid each).

    Raises:
        DataError: the shapes differ, or there are no images.
    """
    if reference.shape != answers.shape or not len(reference):
        raise DataError(
            f"logits have the shapes {reference.shape} and {answers.shape}, needed: the same (N, C), N >= 1"
        )
    p, q = reference.astype(np.float64), answers.astype(np.float64)
    if task == "multilabel":
        yes = expit(p) * (log_expit(p) - log_expit(q))
        return float((yes + expit(-p) * (log_expit(-p) - log_expit(-q))).sum(1).mean())
    log_p = log_softmax(p, axis=1)
    return float((np.exp(log_p) * (log_p - log_softmax(q, axis=1))).sum(1).mean())
