"""Rates by the step rule, areas and intervals: by hand, against scikit-learn and direct sums, and by simulation."""

import math
from typing import Any

import hypothesis.extra.numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from oneshui.errors import ConfigError, DataError
from oneshui.metrics.roc import Auc, auc, clopper_pearson, interpolated_tpr, roc_points, tpr_at_fpr


def ranked(letters: str) -> tuple[Any, Any]:
    """Scores and membership of a ranking, best first: m, n; images in parentheses are tied."""
    scores, members, height, tied = [], [], 0, False
    for letter in letters:
        tied = letter == "(" or (tied and letter != ")")
        if letter in "mn":
            scores.append(-float(height))
            members.append(letter == "m")
        height += not tied
    return np.array(scores), np.array(members)


def clustered(rng: Any, members: int, others: int, size: int, alike: float, shift: float = 0.0) -> tuple[Any, Any, Any]:
    """Normal scores of ``members`` and ``others`` identities of ``size`` images, correlated by ``alike`` within one."""
    identity = np.repeat(np.arange(members + others), size)
    own = rng.normal(size=members + others)[identity] * math.sqrt(alike)
    scores = own + rng.normal(size=len(identity)) * math.sqrt(1 - alike)
    member = identity < members
    return scores + shift * member, member, identity


def grouped(rng: Any, images: int = 60) -> tuple[Any, Any, Any]:
    """Scores with ties, and identities of different sizes that have members and non-members."""
    scores = rng.integers(0, 15, images) / 4
    return scores, rng.random(images) < 0.4, rng.integers(0, 12, images)


def test_points_are_the_distinct_thresholds_from_zero_on() -> None:
    roc = roc_points(*ranked("mn(mmn)n"))
    assert roc.thresholds[0] == np.inf and (np.diff(roc.thresholds) < 0).all()
    assert roc.hits.tolist() == [0, 1, 1, 3, 3]
    assert roc.false_alarms.tolist() == [0, 0, 1, 2, 3]
    assert (roc.members, roc.non_members) == (3, 3)
    assert roc.tpr.tolist() == [0, 1 / 3, 1 / 3, 1, 1] and roc.fpr.tolist() == [0, 0, 1 / 3, 2 / 3, 1]


@pytest.mark.parametrize(
    ("ranking", "fpr", "hits", "false_alarms"),
    [
        ("mmnmnmnn", 0.25, 3, 1),  # one of four non-members may be accused
        ("mmnmnmnn", 0.49, 3, 1),  # half a non-member cannot
        ("mmnmnmnn", 0.5, 4, 2),
        ("mmnmnmnn", 0.24, 2, 0),  # below 1/4: only without any false alarm
        ("mmnmnmnn", 0.0, 2, 0),
        ("mmnmnmnn", 1.0, 4, 2),  # the two further false alarms would find nobody
        ("nmmmmnnn", 0.2, 0, 0),
        ("nmmmmnnn", 0.25, 4, 1),
        ("m(mn)mmnnn", 0.2, 1, 0),  # the tie stays together: its member costs its non-member
        ("m(mn)mmnnn", 0.25, 4, 1),
        ("(mmmmnnnn)", 0.9, 0, 0),
        ("(mmmmnnnn)", 1.0, 4, 4),
        ("mmmmnnnn", 0.75, 4, 0),
    ],
)
def test_step_rule_by_hand(ranking: str, fpr: float, hits: int, false_alarms: int) -> None:
    found = tpr_at_fpr(*ranked(ranking), fpr)
    assert (found.hits, found.members, found.tpr) == (hits, 4, hits / 4)
    assert (found.fpr_asked, found.fpr_used, found.resolvable_fpr) == (fpr, false_alarms / 4, 0.25)
    assert (found.low, found.high) == clopper_pearson(hits, 4)


@pytest.mark.parametrize("percent", [7, 14, 28, 29, 55, 56, 57, 58])
def test_decimal_rates_allow_exactly_their_share_of_non_members(percent: int) -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point, and 0.07 * 100 is 7.000000000000001
    scores, member = np.arange(200.0), np.tile([False, True], 100)
    assert tpr_at_fpr(scores, member, percent / 100).hits == percent + 1
    assert tpr_at_fpr(scores[1::2], np.arange(100) == 0, percent / 100).fpr_used == 0.0


@settings(deadline=None)
@given(
    hypothesis.extra.numpy.arrays(np.int8, st.integers(2, 40), elements=st.integers(0, 12)),
    st.randoms(use_true_random=False), st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.25, 0.5, 1.0]),
)  # fmt: skip
def test_the_step_rule_is_the_best_of_all_thresholds(scores: Any, random: Any, fpr: float) -> None:
    member = np.array([random.random() < 0.5 for _ in scores])
    member[:2] = [True, False]
    costs = [((scores[~member] >= t).sum(), (scores[member] >= t).sum()) for t in [*scores, 99]]
    allowed = [(hits, -alarms) for alarms, hits in costs if alarms / (~member).sum() <= fpr]
    hits, alarms = max(allowed)
    found = tpr_at_fpr(scores, member, fpr)
    assert (found.hits, found.fpr_used) == (hits, -alarms / (~member).sum())


def test_interpolation_is_scikit_learns_roc_and_invents_hits_below_the_resolution() -> None:
    scores, member = np.random.default_rng(3).integers(0, 60, 300), np.arange(300) < 90
    fpr, tpr, _ = roc_curve(member, scores)
    for asked in (0.0, 1e-4, 0.01, 0.3, 1.0):
        assert interpolated_tpr(scores, member, asked) == pytest.approx(np.interp(asked, fpr, tpr), abs=1e-15)
    # one false alarm of 100 brings all members at once: 1% of the way there, 1% of them are "found"
    scores, member = np.repeat([1.0, 0.0], [11, 99]), np.arange(110) < 10
    assert interpolated_tpr(scores, member, 1e-4) == pytest.approx(0.01)
    found = tpr_at_fpr(scores, member, 1e-4)
    assert (found.hits, found.resolvable_fpr) == (0, 0.01)


@pytest.mark.parametrize(
    ("k", "n", "percent"),
    [  # counts behind published percentages; the last is what R's binom.test answers
        (8, 83, (4.3, 18.1)),
        (6, 83, (2.7, 15.1)),
        (32, 168, (13, 26)),
        (42, 168, (19, 32)),
        (1, 10, (0.25, 44.50)),
    ],
)
def test_clopper_pearson_of_published_counts(k: int, n: int, percent: tuple[float, float]) -> None:
    digits = len(str(percent[0]).partition(".")[2])
    assert tuple(round(100 * end, digits) for end in clopper_pearson(k, n)) == percent


@pytest.mark.parametrize(("k", "n", "level"), [(3, 20, 0.95), (1, 7, 0.9), (19, 20, 0.99), (40, 80, 0.95)])
def test_clopper_pearson_ends_are_where_the_count_becomes_unlikely(k: int, n: int, level: float) -> None:
    def tail(p: float, counts: range) -> float:
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in counts)

    low, high = clopper_pearson(k, n, level)
    assert tail(low, range(k, n + 1)) == pytest.approx((1 - level) / 2, rel=1e-9)
    assert tail(high, range(k + 1)) == pytest.approx((1 - level) / 2, rel=1e-9)


def test_clopper_pearson_of_none_and_all() -> None:
    none, all_of_them = clopper_pearson(0, 30), clopper_pearson(30, 30)
    assert none[0] == 0.0 and none[1] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert all_of_them[0] == pytest.approx(0.025 ** (1 / 30)) and all_of_them[1] == 1.0


@settings(deadline=None)
@given(
    hypothesis.extra.numpy.arrays(np.float32, st.integers(2, 60), elements=st.sampled_from(
        [-1e30, -1.5, 0.0, 1e-45, 0.25, 3.0, 3.0000002, 1e30])), st.randoms(use_true_random=False),
)  # fmt: skip
def test_auc_with_ties_is_scikit_learns(scores: Any, random: Any) -> None:
    member = np.array([random.random() < 0.5 for _ in scores])
    member[:2] = [True, False]
    assert auc(scores, member, np.arange(len(scores))).value == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


def variance_by_direct_sums(scores: Any, member: Any, clusters: Any) -> float:
    """Obuchowski's variance with every pair compared and every cluster summed on its own."""
    x, y = scores[member], scores[~member]
    wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    area, m, n = wins.mean(), len(x), len(y)
    of_x, of_y = wins.mean(1), wins.mean(0)
    sums = [
        (of_x[clusters[member] == c].sum() - (clusters[member] == c).sum() * area,
         of_y[clusters[~member] == c].sum() - (clusters[~member] == c).sum() * area)
        for c in np.unique(clusters)
    ]  # fmt: skip
    i10, i01, i = len(np.unique(clusters[member])), len(np.unique(clusters[~member])), len(sums)
    s10 = i10 / ((i10 - 1) * m) * sum(a * a for a, _ in sums)
    s01 = i01 / ((i01 - 1) * n) * sum(b * b for _, b in sums)
    s11 = i / (i - 1) * sum(a * b for a, b in sums)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


def test_variance_is_obuchowskis_also_where_identities_have_members_and_non_members() -> None:
    for seed in range(5):
        scores, member, clusters = grouped(np.random.default_rng(seed))
        expected = variance_by_direct_sums(scores, member, clusters)
        assert auc(scores, member, clusters).std_error ** 2 == pytest.approx(expected, rel=1e-10)
        assert (clusters[member][:, None] == clusters[~member]).any()


def test_one_image_a_cluster_gives_delongs_variance() -> None:
    scores, member, _ = grouped(np.random.default_rng(5))
    x, y = scores[member], scores[~member]
    wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    delong = wins.mean(1).var(ddof=1) / len(x) + wins.mean(0).var(ddof=1) / len(y)
    found = auc(scores, member, np.arange(len(scores))).std_error ** 2
    assert found == pytest.approx(delong, rel=1e-10)


def test_copies_of_images_within_an_identity_add_no_certainty() -> None:
    scores, member, clusters = clustered(np.random.default_rng(6), 8, 20, 3, 0.3, 0.5)
    once = auc(scores, member, clusters)
    scores, member, clusters = (np.repeat(part, 7) for part in (scores, member, clusters))
    copied, apart = auc(scores, member, clusters), auc(scores, member, np.arange(len(scores)))
    assert [copied.value, copied.low, copied.high] == pytest.approx([once.value, once.low, once.high], abs=1e-12)
    assert apart.std_error < 0.6 * once.std_error


def test_names_of_clusters_do_not_matter() -> None:
    scores, member, clusters = grouped(np.random.default_rng(7))
    found = auc(scores, member, clusters)
    for names in (np.array([f"person {c}" for c in clusters]), 1000 - clusters):
        renamed = auc(scores, member, names)
        assert [renamed.value, renamed.std_error] == pytest.approx([found.value, found.std_error], abs=1e-12)


@pytest.mark.parametrize("monotone", [np.exp, lambda s: s**3, lambda s: 5 * s - 2, lambda s: np.arctan(s / 9)])
def test_any_strictly_rising_function_of_the_scores_changes_nothing(monotone: Any) -> None:
    scores, member, clusters = grouped(np.random.default_rng(8))
    assert auc(monotone(scores), member, clusters) == auc(scores, member, clusters)
    for fpr in (0.0, 0.05, 0.3):
        assert tpr_at_fpr(monotone(scores), member, fpr) == tpr_at_fpr(scores, member, fpr)


def test_the_order_of_images_does_not_matter() -> None:
    scores, member, clusters = grouped(np.random.default_rng(9))
    order = np.random.default_rng(1).permutation(len(scores))
    shuffled, found = auc(scores[order], member[order], clusters[order]), auc(scores, member, clusters)
    assert shuffled.value == found.value
    assert [shuffled.low, shuffled.high] == pytest.approx([found.low, found.high], abs=1e-12)
    assert tpr_at_fpr(scores[order], member[order], 0.1) == tpr_at_fpr(scores, member, 0.1)


def test_swapping_members_and_non_members_mirrors_area_and_interval() -> None:
    scores, member, clusters = clustered(np.random.default_rng(10), 6, 15, 4, 0.3, 0.7)
    found = auc(scores, member, clusters)
    for swapped in (auc(scores, ~member, clusters), auc(-scores, member, clusters)):
        mirrored = [1 - swapped.value, 1 - swapped.high, 1 - swapped.low, swapped.std_error]
        assert mirrored == pytest.approx([found.value, found.low, found.high, found.std_error], abs=1e-12)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(("shift", "value"), [(99.0, 1.0), (-99.0, 0.0)])
def test_perfect_separation_is_as_certain_as_the_smaller_number_of_identities(shift: float, value: float) -> None:
    scores, member, clusters = clustered(np.random.default_rng(11), 5, 40, 10, 0.2, shift)
    found = auc(scores, member, clusters)
    assert (found.value, found.std_error) == (value, 0.0)
    assert (found.low, found.high) == pytest.approx(clopper_pearson(5 if value else 0, 5))


def test_scores_that_are_all_equal_leave_a_wide_interval() -> None:
    _, member, clusters = clustered(np.random.default_rng(12), 4, 9, 5, 0.0)
    found = auc(np.zeros(len(member)), member, clusters)
    # in the least favourable case two of four identities rank above all others, two below
    assert found == Auc(0.5, *clopper_pearson(2, 4), 0.0)


@pytest.mark.parametrize("members", [1, 2])
def test_a_single_identity_says_nothing_about_others(members: int) -> None:
    scores, member, clusters = clustered(np.random.default_rng(13), members, 30, 20, 0.0, 1.5)
    for found in (auc(scores, member, clusters), auc(-scores, ~member, clusters)):
        assert math.isnan(found.std_error) == (members == 1)
        assert (found.high - found.low > 0.9) == (members == 1)
        assert found.low <= found.value <= found.high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(14)
    cases = [clustered(rng, 5, 30, 8, 0.4) for _ in range(800)]
    held = [found.low <= 0.5 <= found.high for found in (auc(*case) for case in cases)]
    assert 0.92 <= np.mean(held) <= 0.98
    blind = [auc(scores, member, np.arange(len(scores))) for scores, member, _ in cases[:300]]
    assert np.mean([found.low <= 0.5 <= found.high for found in blind]) < 0.75  # and that is why it needs clusters


def test_without_a_leak_as_many_are_found_as_were_asked_for() -> None:
    rng = np.random.default_rng(15)
    member = np.arange(1100) < 100
    scores = [rng.normal(size=1100) for _ in range(400)]
    for fpr in (1e-4, 0.001, 0.01, 0.1):
        hits = sum(tpr_at_fpr(values, member, fpr).hits for values in scores)
        low, high = clopper_pearson(hits, 400 * 100, 0.999)
        assert low <= (math.floor(fpr * 1000) + 1) / 1001 <= high


BAD = [
    ("lengths", [1.0, 2.0, 3.0], [True, False], r"shape \(3,\), is_member has shape \(2,\)"),
    ("shape", [[1.0, 2.0]], [[True, False]], r"shape \(1, 2\)"),
    ("numbers for membership", [1.0, 2.0], [1, 0], "type int64"),
    ("nan", [1.0, math.nan, math.inf], [True, False, False], r"not finite in 2 of 3 images \(first rows: \[1, 2\]\)"),
    ("no members", [1.0, 2.0], [False, False], "none of 2 images is a member"),
    ("no non-members", [1.0, 2.0], [True, True], "none of 2 images is a non-member"),
    ("empty", [], np.zeros(0, dtype=bool), "none of 0 images is a member"),
]


@pytest.mark.parametrize(("scores", "member", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_impossible_scores_are_refused(scores: Any, member: Any, message: str) -> None:
    for measure in (
        lambda: roc_points(scores, member),
        lambda: tpr_at_fpr(scores, member, 0.1),
        lambda: interpolated_tpr(scores, member, 0.1),
        lambda: auc(scores, member, np.arange(len(scores))),
    ):
        with pytest.raises(DataError, match=message):
            measure()


@pytest.mark.parametrize("clusters", [[1], [1, 2, 3], [[1, 2]]])
def test_clusters_must_fit_the_scores(clusters: Any) -> None:
    with pytest.raises(DataError, match=r"clusters have shape .* for 2 scores"):
        auc([1.0, 2.0], [True, False], clusters)


@pytest.mark.parametrize("fpr", [-0.01, 1.01, 10.0, math.nan])
def test_an_impossible_false_positive_rate_is_refused(fpr: float) -> None:
    with pytest.raises(ConfigError, match="allowed: 0 to 1"):
        tpr_at_fpr([1.0, 2.0], [True, False], fpr)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_an_impossible_count_is_refused(k: int, n: int) -> None:
    with pytest.raises(DataError, match=f"{k} of {n}"):
        clopper_pearson(k, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, math.nan])
def test_an_impossible_level_is_refused(level: float) -> None:
    with pytest.raises(ConfigError, match="level"):
        clopper_pearson(1, 5, level)
