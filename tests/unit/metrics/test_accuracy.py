"""Accuracy and mean average precision, against hand-computed numbers and scikit-learn."""

from typing import Any

import hypothesis.extra.numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from oneshui.errors import DataError
from oneshui.metrics.accuracy import accuracy, mean_average_precision

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.1, 0.2, 0.3], [5.0, 4.0, 3.0]])


def random_multilabel(rows: int = 400, attributes: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    labels = (rng.random((rows, attributes)) < 0.3).astype(np.int8)
    return rng.normal(size=labels.shape) + labels, labels


def test_accuracy_counts_the_images_whose_largest_logit_is_right() -> None:
    assert accuracy(LOGITS, np.array([0, 1, 0, 1])) == 0.5
    assert accuracy(LOGITS, np.array([0, 1, 2, 0])) == 1.0
    assert accuracy(LOGITS, np.array([1, 0, 0, 2])) == 0.0


def test_of_equal_logits_the_first_class_counts() -> None:
    assert accuracy(np.zeros((4, 2)), np.array([0, 0, 0, 1])) == 0.75


def test_map_of_two_attributes_by_hand() -> None:
    logits = np.array([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    # first: positives at ranks 1 and 3, (1/1 + 2/3) / 2; second: at ranks 3 and 4, (1/3 + 2/4) / 2
    expected = ((1 + 2 / 3) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    measured, left_out = mean_average_precision(logits, labels)
    assert measured == pytest.approx(expected, abs=1e-12)
    assert left_out == 0


def test_map_leaves_out_and_counts_attributes_without_a_positive() -> None:
    logits = np.array([[4.0, 1.0, 0.0], [3.0, 2.0, 1.0]])
    labels = np.array([[1, 0, 0], [0, 0, 0]])
    assert mean_average_precision(logits, labels) == (1.0, 2)


def test_map_is_the_mean_of_scikit_learns_average_precision() -> None:
    logits, labels = random_multilabel()
    expected = np.mean([average_precision_score(labels[:, i], logits[:, i]) for i in range(labels.shape[1])])
    assert mean_average_precision(logits, labels)[0] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(
    hypothesis.extra.numpy.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.sampled_from(
        [-np.inf, -1.5, 0.0, 0.25, 3.0, np.inf])), st.randoms(use_true_random=False),
)  # fmt: skip
def test_map_with_ties_is_scikit_learns(logits: Any, random: Any) -> None:
    labels = np.array([[random.random() < 0.5 for _ in range(3)] for _ in logits], dtype=np.int8)
    labels[0, 0] = 1  # one attribute can be measured
    finite = np.clip(logits, -9, 9)  # scikit-learn refuses infinities
    values = [average_precision_score(labels[:, i], finite[:, i]) for i in range(3) if labels[:, i].any()]
    assert mean_average_precision(logits, labels)[0] == pytest.approx(np.mean(values), abs=1e-12)


def test_the_order_of_images_does_not_matter() -> None:
    logits, labels = random_multilabel()
    order = np.random.default_rng(1).permutation(len(labels))
    assert mean_average_precision(logits[order], labels[order])[0] == pytest.approx(
        mean_average_precision(logits, labels)[0], abs=1e-12
    )
    assert accuracy(logits[order], labels[order, 0]) == accuracy(logits, labels[:, 0])


def test_half_precision_logits_change_map_by_less_than_a_ten_thousandth() -> None:
    logits, labels = random_multilabel(1000, 40)
    exact, _ = mean_average_precision(logits, labels)
    half, _ = mean_average_precision(logits.astype(np.float16), labels)
    assert half == pytest.approx(exact, abs=1e-4)


def test_infinite_logits_rank_first_and_last() -> None:
    logits = np.array([[np.inf], [1.0], [-np.inf]], dtype=np.float16)
    assert mean_average_precision(logits, np.array([[1], [0], [0]]))[0] == 1.0
    assert mean_average_precision(logits, np.array([[0], [0], [1]]))[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("measure", [accuracy, mean_average_precision])
def test_nan_logits_are_refused_with_their_rows(measure: Any) -> None:
    logits = np.ones((4, 2))
    logits[2, 1] = np.nan
    labels = np.ones(4, dtype=int) if measure is accuracy else np.ones((4, 2), dtype=int)
    with pytest.raises(DataError, match=r"NaN in 1 of 4 images \(first rows: \[2\]\)"):
        measure(logits, labels)


@pytest.mark.parametrize(
    ("measure", "logits", "labels", "message"),
    [
        (accuracy, np.ones((0, 3)), np.ones(0, dtype=int), "not empty"),
        (accuracy, np.ones((3, 0)), np.ones(3, dtype=int), "not empty"),
        (accuracy, np.ones(3), np.ones(3, dtype=int), r"shape \(3,\)"),
        (accuracy, np.ones((3, 2)), np.ones(2, dtype=int), "for 2 labelled images"),
        (accuracy, np.ones((3, 2)), np.ones((3, 2), dtype=int), "needs mAP"),
        (accuracy, np.ones((2, 2)), np.array([0, 2]), r"allowed: 0\.\.1"),
        (accuracy, np.ones((2, 2)), np.array([-1, 0]), r"allowed: 0\.\.1"),
        (mean_average_precision, np.ones((0, 2)), np.ones((0, 2), dtype=int), "not empty"),
        (mean_average_precision, np.ones((3, 2)), np.ones((3, 3), dtype=int), "both must be"),
        (mean_average_precision, np.ones((2, 1)), np.array([[0], [2]]), "allowed: 0 and 1"),
        (mean_average_precision, np.ones((2, 2)), np.zeros((2, 2), dtype=int), "none of the 2 attributes"),
    ],
)
def test_impossible_input_is_refused(measure: Any, logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure(logits, labels)
