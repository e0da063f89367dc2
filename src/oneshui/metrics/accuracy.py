"""How often a model is right: top-1 accuracy, and mean average precision for several attributes per image."""

import numpy as np
import numpy.typing as npt

from oneshui.errors import DataError


def accuracy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Return the fraction of images whose largest logit is at their label.

    Args:
        logits: ``(N, C)`` float; of equal logits the first counts as the largest.
        labels: ``(N,)`` int in 0..C-1.

    Returns:
        Top-1 accuracy in [0, 1].

    Raises:
        DataError: the input is empty, has NaN, or logits and labels do not fit together.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if labels.ndim != 1:
        raise DataError(f"accuracy: labels have shape {labels.shape}, allowed: (images,). Multi-label data needs mAP.")
    _check_logits(logits, len(labels))
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"accuracy: labels reach from {labels.min()} to {labels.max()}, but the model has {classes} outputs "
            f"(allowed: 0..{classes - 1}). Score a model that was trained on this dataset."
        )
    return float(np.mean(logits.argmax(axis=1) == labels))


def mean_average_precision(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> tuple[float, int]:
    """Return the mean over attributes of the average precision, and how many attributes could not be measured.

    An attribute that no image has is left out and counted: its average precision is not defined. Scores keep their
    precision from float32 upwards; infinite ones (overflow of float16) rank above or below all others.

    Args:
        logits: ``(N, A)`` float.
        labels: ``(N, A)`` of 0 and 1.

    Returns:
        Mean average precision in [0, 1], and the number of attributes left out.

    Raises:
        DataError: the input is empty, has NaN, does not fit together, or has no attribute with a positive.
    """
    # imported here because it takes a second or two, which a classification job need not spend
    from sklearn.metrics import average_precision_score

    logits, labels = np.asarray(logits), np.asarray(labels)
    if labels.shape != logits.shape:
        raise DataError(
            f"mAP: logits have shape {logits.shape}, labels {labels.shape}; both must be (images, attributes)"
        )
    _check_logits(logits, len(labels))
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"mAP: labels contain {np.unique(labels)[:5].tolist()}, allowed: 0 and 1")
    # scikit-learn refuses infinities; the largest finite number keeps their rank
    scores = np.nan_to_num(logits.astype(np.promote_types(logits.dtype, np.float32), copy=False))
    measurable = np.flatnonzero(labels.any(axis=0))
    if not len(measurable):
        raise DataError(f"mAP: none of the {labels.shape[1]} attributes has a positive among {len(labels)} images")
    values = [average_precision_score(labels[:, each], scores[:, each]) for each in measurable]
    return float(np.mean(values)), labels.shape[1] - len(measurable)


def _check_logits(logits: npt.NDArray[np.floating], images: int) -> None:
    if logits.ndim != 2 or len(logits) != images or not logits.size:
        raise DataError(
            f"logits have shape {logits.shape} for {images} labelled images, allowed: (images, outputs), not empty"
        )
    rows = np.flatnonzero(np.isnan(logits).any(axis=1))
    if len(rows):
        raise DataError(
            f"logits are NaN in {len(rows)} of {images} images (first rows: {rows[:5].tolist()}): "
            "the model has diverged. Train or unlearn it again with smaller steps."
        )
