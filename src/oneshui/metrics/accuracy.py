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

    Average precision is the sum over thresholds of precision times gain in recall, without interpolation, images of
    equal score together: scikit-learn's ``average_precision_score``, which takes 100 times as long for the batches of
    meta-training. An attribute that no image has is left out and counted: its average precision is not defined.

    Args:
        logits: ``(N, A)`` float.
        labels: ``(N, A)`` of 0 and 1.

    Returns:
        Mean average precision in [0, 1], and the number of attributes left out.

    Raises:
        DataError: the input is empty, has NaN, does not fit together, or has no attribute with a positive.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if labels.shape != logits.shape:
        raise DataError(
            f"mAP: logits have shape {logits.shape}, labels {labels.shape}; both must be (images, attributes)"
        )
    _check_logits(logits, len(labels))
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"mAP: labels contain {np.unique(labels)[:5].tolist()}, allowed: 0 and 1")
    measurable = np.flatnonzero(labels.any(axis=0))
    if not len(measurable):
        raise DataError(f"mAP: none of the {labels.shape[1]} attributes has a positive among {len(labels)} images")
    return float(_average_precision(logits[:, measurable], labels[:, measurable]).mean()), labels.shape[1] - len(
        measurable
    )


def _average_precision(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the average precision of each column of (N, A) scores and 0/1 labels, each with a positive."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked, hits = np.take_along_axis(scores, order, 0), np.take_along_axis(labels, order, 0)
    ranks = np.arange(1, len(scores) + 1)[:, None]
    last_of_ties = np.vstack([ranked[:-1] != ranked[1:], np.ones_like(ranked[:1], dtype=bool)])
    # a tied image counts at the rank where its ties end: the next such rank, found from below
    ends = np.minimum.accumulate(np.where(last_of_ties, ranks, len(scores))[::-1], axis=0)[::-1]
    precision = np.take_along_axis(np.cumsum(hits, axis=0, dtype=np.int64), ends - 1, 0) / ends
    values: npt.NDArray[np.float64] = (precision * hits).sum(0) / hits.sum(0)
    return values


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
