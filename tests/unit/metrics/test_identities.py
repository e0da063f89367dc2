"""Measures, distances and correlations by identity, against numbers made by hand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oneshui.errors import DataError
from oneshui.metrics.identities import (
    centroids,
    equal_count_bins,
    identity_measure,
    nearest_distances,
    pearson,
    spearman,
)


def points(seed: Any, identity: Any, distance: Any, value: Any) -> pd.DataFrame:
    return pd.DataFrame({"seed": seed, "identity": identity, "distance": distance, "value": value})


def several_seeds(sizes: tuple[int, ...] = (8, 12), recurring: bool = False) -> pd.DataFrame:
    """Values that rise with distance within each seed, and fall from seed to seed."""
    draw = np.random.default_rng(0)
    seed = np.repeat(np.arange(len(sizes)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    identity = np.arange(len(seed)) - (first[seed] if recurring else 0)
    distance = draw.standard_normal(len(seed))
    value = distance + draw.standard_normal(len(seed))
    return points(seed, identity, distance + 10 * seed, value - 10 * seed)


def test_class_labels_are_measured_by_accuracy() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    assert identity_measure(logits, np.array([0, 1, 1])) == (pytest.approx(2 / 3), "accuracy")


def test_attributes_that_all_or_none_have_do_not_count() -> None:
    # the ranks of the second are present, absent, present: (1 + 2/3) / 2; of the third absent, present, absent: 1/2
    labels = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]])
    logits = np.array([[-9.0, 3.0, 2.0, 9.0], [9.0, 2.0, 1.0, 9.0], [9.0, 1.0, 0.0, -9.0]])
    assert identity_measure(logits, labels) == (pytest.approx((5 / 6 + 1 / 2) / 2), "map")


@pytest.mark.parametrize(
    ("labels", "logits", "value"),
    [
        ([[1, 1, 1, 0]], [[1.0, -1.0, -1.0, -1.0]], (1 / 3 + 1) / 2),
        ([[1, 0, 0], [1, 0, 0]], [[1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]], (1 / 2 + 3 / 4) / 2),
        ([[1, 1, 1]], [[1.0, 2.0, -1.0]], 2 / 3),  # nothing is absent
        ([[0, 0]], [[1.0, -1.0]], 1 / 2),  # nothing is present
        ([[1, 1]], [[0.0, 9.0]], 1 / 2),  # a logit of 0 does not find an attribute
    ],
)
def test_where_no_attribute_varies_recalls_are_balanced(labels: Any, logits: Any, value: float) -> None:
    assert identity_measure(np.array(logits), np.array(labels)) == (pytest.approx(value), "balanced_accuracy")


def test_order_of_images_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    logits, order = draw.standard_normal((6, 4)), draw.permutation(6)
    for labels in (draw.integers(0, 4, 6), draw.integers(0, 2, (6, 4)), np.ones((6, 4), int)):
        assert identity_measure(logits[order], labels[order]) == pytest.approx(identity_measure(logits, labels))


def test_answers_that_cannot_be_measured_are_one_error() -> None:
    present = np.ones((2, 3), int)
    for logits, labels in ((np.ones((2, 3)), present[:, :2]), (np.ones((0, 3)), present[:0]), (present, present[None])):
        with pytest.raises(DataError, match=r"allowed: \(images, classes\) with \(images,\)"):
            identity_measure(logits, labels)
    for logits, labels in ((np.array([[np.nan, 1.0]]), np.ones((1, 2))), (np.ones((1, 2)), np.array([[1, 2]]))):
        with pytest.raises(DataError, match="logits have NaN, or labels other values"):
            identity_measure(logits, labels)
    with pytest.raises(DataError, match="accuracy: labels reach"):
        identity_measure(np.ones((1, 2)), np.array([2]))


def test_a_centroid_is_the_plain_mean_of_an_identity() -> None:
    # of unit vectors the first would be (0.5, 0.5); summed as float16 the second would overflow
    features = np.array([[60000, 0], [0, 8], [2, 0], [60000, 0], [60000, 0]], dtype=np.float16)
    identities, means = centroids(features, np.array([7, 3, 3, 7, 7]))
    assert identities.tolist() == [3, 7]
    assert means.tolist() == [[1, 4], [float(np.float16(60000)), 0]]


def test_centroids_of_what_is_not_there_are_one_error() -> None:
    for features, identities in ((np.ones((0, 2)), np.ones(0, int)), (np.ones((2, 2)), np.ones(3, int))):
        with pytest.raises(DataError, match="allowed: \\(images, features\\) and \\(images,\\), at least one image"):
            centroids(features, identities)
    with pytest.raises(DataError, match="features of 1 of 2 images are not finite"):
        centroids(np.array([[1.0, np.inf], [1.0, 1.0]]), np.array([0, 1]))


def test_distances_are_euclidean_and_to_the_nearest() -> None:
    targets = np.array([[0.0, 0.0], [10.0, 0.0]])
    assert nearest_distances(np.array([[3.0, 4.0], [10.0, 2.0], [0.0, 0.0]]), targets).tolist() == [5.0, 2.0, 0.0]
    for wrong in (targets[:0], np.ones((1, 3))):
        with pytest.raises(DataError, match=r"allowed: \(P, D\) and \(T, D\), T >= 1"):
            nearest_distances(np.ones((2, 2)), wrong)


def test_bins_are_cut_in_each_seed_and_vary_over_seeds() -> None:
    # seed 1 has longer distances; its five identities are cut into three and two
    frame = points(
        [0] * 4 + [1] * 5, [3, 1, 0, 2, 9, 5, 7, 6, 8], [1, 2, 3, 4, 0.5, 9.5, 20, 30, 40],
        [0.0, 2.0, 4.0, 6.0, 1.0, 2.0, 3.0, 8.0, 10.0],
    )  # fmt: skip
    for given in (frame, frame.sample(frac=1, random_state=1)):
        bins = equal_count_bins(given, 2)
        assert bins["value"].tolist() == [(1 + 2) / 2, (5 + 9) / 2]
        assert bins["distance"].tolist() == [(1.5 + 10) / 2, (3.5 + 35) / 2]
        assert bins["std"].tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(8)])
        assert bins["n_points"].tolist() == [2 + 3, 2 + 2]


def test_equal_distances_are_cut_by_identity() -> None:
    frame = points(0, [3, 0, 2, 1], 1.0, [3.0, 0.0, 2.0, 1.0])
    assert equal_count_bins(frame, 2)["value"].tolist() == [0.5, 2.5]


def test_one_seed_has_no_spread() -> None:
    assert equal_count_bins(several_seeds((6,)), 3)["std"].isna().all()


@pytest.mark.parametrize("bins", [0, 9])
def test_bins_need_an_identity_each(bins: int) -> None:
    with pytest.raises(DataError, match=rf"{bins} bins .* have \[8, 12\] identities"):
        equal_count_bins(several_seeds(), bins)


def test_pearson_of_one_seed_is_the_usual_one() -> None:
    frame = several_seeds((28,))
    r = np.corrcoef(frame["distance"], frame["value"])[0, 1]
    found = pearson(frame)
    assert found.value == pytest.approx(r) and found.n_points == 28
    half = 1.959964 / math.sqrt(28 - 3)
    assert (found.low, found.high) == pytest.approx((np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)))


def test_spearman_of_a_small_permutation() -> None:
    frame = points(0, range(5), [1, 20, 300, 4000, 50000], [2.0, 1.0, 4.0, 3.0, 5.0])
    found = spearman(frame)
    assert found.value == pytest.approx(1 - 6 * 4 / (5 * 24))
    half = 1.959964 * math.sqrt((1 + 0.8**2 / 2) / 2)
    assert (found.low, found.high) == pytest.approx((np.tanh(np.arctanh(0.8) - half), np.tanh(np.arctanh(0.8) + half)))


def test_equal_values_share_a_rank() -> None:
    # ranks 1, 2, 3, 4 against 1.5, 1.5, 3, 4
    assert spearman(points(0, range(4), [1, 2, 3, 4], [5.0, 5.0, 6.0, 9.0])).value == pytest.approx(
        4.5 / math.sqrt(22.5)
    )


@pytest.mark.parametrize("kind", [pearson, spearman])
def test_what_differs_between_seeds_is_no_correlation(kind: Any) -> None:
    frame = several_seeds()
    assert np.corrcoef(frame["distance"], frame["value"])[0, 1] < -0.9
    found = kind(frame)
    assert found.value > 0.3
    moved = frame.assign(distance=frame["distance"] + 100 * frame["seed"])
    assert kind(moved).value == pytest.approx(found.value)
    assert kind(frame.sample(frac=1, random_state=0)).value == pytest.approx(found.value)


def test_correlation_of_several_seeds_is_that_of_what_the_seed_does_not_explain() -> None:
    frame = several_seeds()
    design = np.eye(2)[frame["seed"]]
    rest = [frame[c] - design @ np.linalg.lstsq(design, frame[c])[0] for c in ("distance", "value")]
    found = pearson(frame)
    r = np.corrcoef(*rest)[0, 1]
    assert found.value == pytest.approx(r)
    assert math.atanh(found.high) - math.atanh(r) == pytest.approx(1.959964 / math.sqrt(20 - 1 - 3))
    ranks = [frame.groupby("seed")[c].rank() / (design @ [8, 12]) for c in ("distance", "value")]
    ranks = [each - each.groupby(frame["seed"]).transform("mean") for each in ranks]
    assert spearman(frame).value == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("kind", [pearson, spearman])
def test_an_identity_of_several_seeds_counts_once_for_the_interval(kind: Any) -> None:
    own, recurring = kind(several_seeds((10, 10))), kind(several_seeds((10, 10), recurring=True))
    assert own.value == recurring.value and own.n_points == recurring.n_points == 20
    widths = [math.atanh(each.high) - math.atanh(each.low) for each in (own, recurring)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt((20 - 1 - 3) / (10 - 1 - 3)))


@pytest.mark.parametrize("kind", [pearson, spearman])
def test_what_has_no_interval_or_no_correlation(kind: Any) -> None:
    few = kind(points(0, range(3), [1, 2, 3], [1.0, 3.0, 2.0]))
    assert few.value == pytest.approx(0.5) and math.isnan(few.low) and math.isnan(few.high)
    perfect = kind(points(0, range(9), range(9), -np.arange(9.0) / 7))
    assert perfect.value == pytest.approx(-1) and math.isnan(perfect.low) and math.isnan(perfect.high)
    # 0.1 has a mean that differs from it by rounding
    for constant in (points(0, range(3), [1, 2, 3], 0.1), points([0, 0, 0, 1], range(4), [0.1, 0.1, 0.1, 7], range(4))):
        assert math.isnan(kind(constant).value)
    assert math.isnan(kind(several_seeds().head(0)).value)
    with pytest.raises(DataError, match="not finite"):
        kind(several_seeds().assign(value=np.nan))
