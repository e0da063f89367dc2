"""The linear probe: does a new linear classifier on a model's features find what the model was to forget?

A method that edits the last layer only can pass every test of the model's answers. Its features are still those of the
original model, and a new classifier on them answers as the original model did. Files call the probe ``refit``.
"""

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from oneshui.errors import DataError
from oneshui.log import logger

_MAX_ITERATIONS = 2000
#: features that vary less than this share of the typical one are not scaled up
_RARE = 1e-2


def probe_logits(
    fit: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    asked: npt.NDArray[np.floating],
    *,
    n_outputs: int,
    c: float,
) -> npt.NDArray[np.float64]:
    """Return what a new linear classifier answers, ``(M, n_outputs)``.

    L2-regularised logistic regression on standardised features: multinomial for a class label, one per attribute for
    0/1 labels.

    Args:
        fit: ``(N, D)`` features of the images it is trained on.
        labels: ``(N,)`` int classes in 0..n_outputs-1, or ``(N, n_outputs)`` of 0/1.
        asked: ``(M, D)`` features of the images it is asked about.
        n_outputs: classes or attributes. A class that no image has gets -inf, an attribute with one value only 0.
        c: inverse strength of the penalty, > 0.

    Raises:
        DataError: features are not finite, there are none, or all images have one class.
    """
    if not len(fit) or len(fit) != len(labels) or fit.shape[1:] != asked.shape[1:]:
        raise DataError(
            f"linear probe: features {fit.shape} with {len(labels)} labels to train on and {asked.shape} to ask about, "
            "needed: (N, D) with N labels, and (M, D), N >= 1"
        )
    wrong = int((~np.isfinite(fit)).any(1).sum() + (~np.isfinite(asked)).any(1).sum())
    if wrong:
        raise DataError(f"linear probe: features of {wrong} images are not finite: the model has diverged")
    mean, std = fit.mean(0, dtype=np.float64), fit.std(0, dtype=np.float64)
    typical = float(np.median(std[std > 0])) if (std > 0).any() else 1.0
    std[std < _RARE * typical] = typical  # a unit that hardly ever fires here must not drown all others where it does
    known, new = (fit - mean) / std, (asked - mean) / std
    if labels.ndim == 1:
        return _one_label(known, labels, new, n_outputs, c)
    columns = [
        _regression(known, column, c).decision_function(new) if column.min() < column.max() else np.zeros(len(new))
        for column in labels.T
    ]
    return np.stack(columns, axis=1)


def _one_label(
    fit: npt.NDArray[np.float64], labels: npt.NDArray[np.integer], asked: npt.NDArray[np.float64], n: int, c: float
) -> npt.NDArray[np.float64]:
    if labels.min() == labels.max():
        raise DataError(
            f"linear probe: all {len(labels)} images to train on have class {labels[0]}; needed: two classes or more"
        )
    model = _regression(fit, labels, c)
    found = model.decision_function(asked)
    if found.ndim == 1:  # two classes: the logit of the second
        found = np.stack([-found, found], axis=1)
    logits = np.full((len(asked), n), -np.inf)
    logits[:, model.classes_] = found
    return logits


def _regression(fit: npt.NDArray[np.float64], labels: npt.NDArray[np.integer], c: float) -> LogisticRegression:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(fit, labels)
    if any(issubclass(each.category, ConvergenceWarning) for each in caught):
        logger.warning("linear probe: logistic regression stopped after %d steps before it converged", _MAX_ITERATIONS)
    return model
