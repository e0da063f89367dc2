"""RMIA against the dense matrix and a published implementation; what each attack finds when there is or is no leak."""

import itertools
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from oneshui.errors import ConfigError, DataError
from oneshui.metrics import membership
from oneshui.metrics.membership import COMBINE, likelihood_ratios, loss_scores, published_protocol, rmia_scores
from oneshui.metrics.roc import auc, clopper_pearson, tpr_at_fpr

GOLDEN = Path(os.environ.get("ONESHUI_GOLDEN") or Path(__file__).parents[2] / "golden") / "rmia.npz"
with np.load(GOLDEN) as _arrays:
    PUBLISHED = dict(_arrays)
#: every published score: weight of the reference, and gamma
CASES = [key.removeprefix("a").split("_score_gamma") for key in PUBLISHED if "_score_gamma" in key]


def dense(ratio_x: Any, ratio_z: Any, gamma: float) -> Any:
    """Equation 9 with every pair of one view divided."""
    with np.errstate(over="ignore"):
        return (np.asarray(ratio_x)[:, None] / np.asarray(ratio_z)[None, :] >= gamma).mean(1)


def one_view(ratio_x: Any, ratio_z: Any, gamma: float = 1.0) -> Any:
    return rmia_scores(np.asarray(ratio_x)[None], np.asarray(ratio_z)[None], gamma=gamma, combine="mean_log_ratio")


def losses(rng: Any, *shape: int) -> Any:
    return rng.lognormal(-0.5, 1.0, shape)


def attacked(rng: Any, members: int, others: int, population: int, leak: float, alike: float = 0.0) -> Any:
    """RMIA scores, membership and identities (of 10 images) after a training that lowered members' losses by ``leak``.

    An image has a difficulty that both models share; each model adds noise of its own, ``alike`` within an identity.
    """
    count = members + others + population
    identity = np.arange(count) // 10
    difficulty = rng.normal(-0.5, 1.0, count)
    target, reference = (
        difficulty + 0.5 * (alike**0.5 * rng.normal(size=count)[identity] + (1 - alike) ** 0.5 * rng.normal(size=count))
        for _ in range(2)
    )
    member = np.arange(count) < members
    ratio = likelihood_ratios(np.exp(target)[None] * (1 - leak * member), np.exp(reference)[None, None], a=0.3)
    tested = members + others
    return one_view(ratio[0, :tested], ratio[0, tested:]), member[:tested], identity[:tested]


@pytest.mark.parametrize(("a", "gamma"), CASES)
def test_parity_rmia(a: str, gamma: str) -> None:
    parts = {name: PUBLISHED[f"a{a}_{name}"] for name in ("target_x", "reference_x", "target_z", "reference_z")}
    nats = {name: -np.log(probability) for name, probability in parts.items()}
    x = likelihood_ratios(nats["target_x"][None], nats["reference_x"][None, None], a=float(a))
    z = likelihood_ratios(nats["target_z"][None], nats["reference_z"][None, None], a=float(a))
    for combine in COMBINE:
        found = rmia_scores(x, z, gamma=float(gamma), combine=combine)
        np.testing.assert_allclose(found, PUBLISHED[f"a{a}_score_gamma{gamma}"], rtol=0, atol=1e-12)


def test_ratios_by_hand() -> None:
    target, reference = -np.log([[0.9, 0.5]]), -np.log([[[0.6, 0.5]]])
    np.testing.assert_allclose(likelihood_ratios(target, reference, a=1.0), [[1.5, 1.0]], rtol=1e-15)
    np.testing.assert_allclose(likelihood_ratios(target, reference, a=0.0), [[0.9 / 0.8, 0.5 / 0.75]], rtol=1e-15)
    # 0.6 x 0.6 + 0.4 = 0.76 and 0.6 x 0.5 + 0.4 = 0.7
    np.testing.assert_allclose(likelihood_ratios(target, reference, a=0.2), [[0.9 / 0.76, 0.5 / 0.7]], rtol=1e-15)


def test_each_image_has_the_mean_probability_of_the_models_that_may_be_used_for_it() -> None:
    probability = np.array([[[0.2, 0.4, 0.8]], [[0.6, 0.5, 0.1]], [[0.1, 0.3, 0.9]]])  # (models, 1 view, images)
    usable = np.array([[True, True, False], [True, False, True], [False, True, False]])
    reference = np.where(usable[:, None], -np.log(probability), np.nan)  # what may not be used may be missing
    found = likelihood_ratios(np.zeros((1, 3)), reference, a=1.0, usable=usable)
    np.testing.assert_allclose(1 / found, [[0.4, 0.35, 0.1]], rtol=1e-14)
    everything = likelihood_ratios(np.zeros((1, 3)), -np.log(probability), a=1.0)
    np.testing.assert_allclose(1 / everything, [[0.3, 0.4, 0.6]], rtol=1e-14)


def test_losses_beyond_700_nats_count_as_700() -> None:
    target, reference = np.array([[0.0, 700.0, 5000.0]]), np.array([[[5000.0, 700.0, 0.0]]])
    ratio = likelihood_ratios(target, reference, a=1.0)
    assert ratio[0, 1] == 1.0 and ratio[0, 0] == 1 / ratio[0, 2] == pytest.approx(math.exp(700))
    assert one_view(ratio[0], ratio[0]).tolist() == [1.0, 2 / 3, 1 / 3]


@pytest.mark.parametrize(("views", "a"), [(1, 0.0), (1, 1.0), (3, 0.3), (3, 1.0)])
def test_equal_losses_give_equal_ratios_bit_for_bit_wherever_they_lie(views: int, a: float) -> None:
    rng = np.random.default_rng(0)
    target, reference = losses(rng, views, 101), losses(rng, 20, views, 101)  # NumPy sums 20 numbers in a row in pairs
    ratio = likelihood_ratios(target, reference, a=a)
    alone = [likelihood_ratios(target[:, i : i + 1], reference[:, :, i : i + 1], a=a) for i in range(101)]
    np.testing.assert_array_equal(ratio, np.concatenate(alone, axis=1))
    wide = np.repeat(target, 5, axis=1), np.repeat(reference, 5, axis=2)
    np.testing.assert_array_equal(ratio, likelihood_ratios(wide[0][:, ::5], wide[1][:, :, ::5], a=a))
    for combine in COMBINE:  # and so they dominate each other at gamma 1
        assert rmia_scores(ratio[:, 7:8], ratio[:, [7, 7]], gamma=1.0, combine=combine) == 1.0


FLOATS = [5e-324, 1e-310, 2.2250738585072014e-308, 9.86e-305, 1e-16, 1 / 3, 0.1, 1.0, 1 + 2**-52, 1 - 2**-53, 3.0, 7.0,
          49.0, 1e16, 1e304, 1.7976931348623157e308]  # fmt: skip
GAMMAS = [1.0, 2.0, 4.0, 8.0, 1 / 3, 0.1, 3.3, 1 + 2**-52, 49.0, 5e-324, 1e-300, 1e300]
positive = st.one_of(st.sampled_from(FLOATS), st.floats(min_value=5e-324, max_value=1.7976931348623157e308))


@settings(deadline=None)
@given(
    st.lists(positive, min_size=1, max_size=20), st.lists(positive, min_size=1, max_size=40), st.sampled_from(GAMMAS)
)
def test_sorting_is_the_dense_matrix_exactly(ratio_x: list[float], ratio_z: list[float], gamma: float) -> None:
    # x at the boundary of each z, as exactly as floats can be, and duplicates
    with np.errstate(over="ignore"):
        edges = np.multiply(gamma, ratio_z)
        edges = [*edges, *np.nextafter(edges, 0), *np.nextafter(edges, np.inf)]
    x = np.array(ratio_x + [edge for edge in edges if 0 < edge < np.inf])
    z = np.array(ratio_z + ratio_z[::2])
    np.testing.assert_array_equal(one_view(x, z, gamma), dense(x, z, gamma))


@pytest.mark.parametrize("gamma", [1 / 3, 3.3, 7.0, 1.0])
def test_sorting_is_exact_where_division_rounds_onto_the_boundary(gamma: float) -> None:
    rng = np.random.default_rng(1)
    z = np.repeat(rng.lognormal(size=500), rng.integers(1, 4, 500))
    x = gamma * z
    for _ in range(3):
        x = np.unique(np.concatenate([np.nextafter(x, 0), x, np.nextafter(x, np.inf)]))
    expected = dense(x, z, gamma)
    np.testing.assert_array_equal(one_view(x, z, gamma), expected)
    moved = np.searchsorted(np.sort(z), x / gamma, side="right") / len(z)
    assert (moved != expected).any() == (gamma != 1.0)  # a division on the other side rounds otherwise


def test_a_population_of_one_and_a_single_tested_image() -> None:
    assert one_view([2.0], [2.0]).tolist() == [1.0]
    assert one_view([2.0], [np.nextafter(2.0, 3.0)]).tolist() == [0.0]
    assert one_view([4.0], [1.0, 2.0, 3.0, 4.0], gamma=2.0).tolist() == [0.5]


@pytest.mark.parametrize(("views", "gamma"), [(2, 1.0), (3, 1.0), (8, 2.0), (8, 0.5), (300, 1.0)])
def test_several_views_are_their_dense_formulas(views: int, gamma: float) -> None:
    rng = np.random.default_rng(views)
    x, z = (rng.choice([0.1, 1 / 3, 0.5, 1.0, 2.0, 3.0, 7.0], (views, count)) for count in (23, 31))
    x[:, 0] = 100.0  # every view says so
    pairs = x[:, :, None] / z[:, None, :] >= gamma
    majority = (pairs.sum(0) > views / 2).mean(1)
    np.testing.assert_array_equal(rmia_scores(x, z, gamma=gamma, combine="majority"), majority)
    logs = np.log(x).mean(0)[:, None] - np.log(z).mean(0)[None, :] - math.log(gamma)
    clear = abs(logs) > 1e-9  # the sum of logarithms cannot tell which side of gamma the others are on
    found = rmia_scores(x, z, gamma=gamma, combine="mean_log_ratio")
    assert ((clear & (logs > 0)).mean(1) <= found).all() and (found <= (~clear | (logs > 0)).mean(1)).all()
    assert clear.mean() > 0.8


def test_half_of_the_views_are_no_majority() -> None:
    z = np.ones((4, 1))
    for wins in range(5):
        x = np.where(np.arange(4) < wins, 2.0, 0.5)[:, None]
        assert rmia_scores(x, z, gamma=1.0, combine="majority") == (wins > 2)


@pytest.mark.parametrize("views", [1, 2, 7])
@pytest.mark.parametrize("combine", COMBINE)
def test_copies_of_one_view_say_what_it_says(combine: str, views: int) -> None:
    rng = np.random.default_rng(2)
    x = np.array([*rng.lognormal(size=80), 1.7976931348623157e308])
    z = np.concatenate([x / 3, rng.lognormal(size=50), [5e-324]])
    found = rmia_scores(np.tile(x, (views, 1)), np.tile(z, (views, 1)), gamma=3.0, combine=combine)
    np.testing.assert_array_equal(found, dense(x, z, 3.0))


@pytest.mark.parametrize("combine", COMBINE)
def test_the_order_of_images_and_the_company_they_are_in_do_not_matter(combine: str) -> None:
    rng = np.random.default_rng(3)
    x, z = rng.lognormal(size=(9, 40)), rng.lognormal(size=(9, 60))
    found = rmia_scores(x, z, gamma=1.0, combine=combine)
    order_x, order_z = rng.permutation(40), rng.permutation(60)
    shuffled = rmia_scores(x[:, order_x], z[:, order_z], gamma=1.0, combine=combine)
    np.testing.assert_array_equal(shuffled, found[order_x])
    alone = [rmia_scores(x[:, i : i + 1], z, gamma=1.0, combine=combine)[0] for i in range(40)]
    np.testing.assert_array_equal(alone, found)


@pytest.mark.parametrize("combine", COMBINE)
def test_a_population_too_large_for_short_ranks(combine: str) -> None:
    rng = np.random.default_rng(4)
    x, z = rng.lognormal(size=(2, 5)), rng.lognormal(size=(2, 2**16 + 99))
    x[:, 0], x[:, 1] = z.max() * 2, z.min() / 2
    pairs = x[:, :, None] / z[:, None, :] >= 1.0
    means = np.exp(np.log(x).mean(0))[:, None] / np.exp(np.log(z).mean(0))[None, :] >= 1.0
    expected = pairs.all(0).mean(1) if combine == "majority" else means.mean(1)
    found = rmia_scores(x, z, gamma=1.0, combine=combine)
    np.testing.assert_allclose(found, expected, atol=1.5 / z.shape[1] if combine == "mean_log_ratio" else 0)
    assert found[:2].tolist() == [1.0, 0.0]


def test_a_majority_needs_little_memory_and_the_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    x, z = rng.lognormal(size=(8, 700)), rng.lognormal(size=(8, 9000))
    tracemalloc.start()
    found = rmia_scores(x, z, gamma=1.0, combine="majority")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # beside the budget: ranks, bounds and a sort, each no larger than the input; the matrix of votes alone has 6.3 MB
    assert peak < membership._VOTE_BYTES + 2 * (x.nbytes + z.nbytes) < 3e6
    for budget in (1, 50_000, 10**9):
        monkeypatch.setattr(membership, "_VOTE_BYTES", budget)
        np.testing.assert_array_equal(rmia_scores(x, z, gamma=1.0, combine="majority"), found)


def test_inputs_are_left_as_they_are() -> None:
    rng = np.random.default_rng(6)
    given = [losses(rng, 2, 5), losses(rng, 1, 2, 5), losses(rng, 2, 9), losses(rng, 1, 2, 9), np.arange(5) < 2]
    before = [part.copy() for part in given]
    published_protocol(*given)
    ratio_x, ratio_z = given[0].copy(), given[2].copy()
    for combine in COMBINE:
        rmia_scores(ratio_x, ratio_z, gamma=1.0, combine=combine)
    loss_scores(given[0])
    for part, copy in zip([*given, ratio_x, ratio_z], [*before, before[0], before[2]], strict=True):
        np.testing.assert_array_equal(part, copy)


def test_the_loss_attack_ranks_small_mean_losses_first_and_streisand_last() -> None:
    scores = loss_scores([[1.0, 0.5, 4.0], [3.0, 0.0, 2.0]])
    assert scores.tolist() == [-2.0, -0.25, -3.0]
    member, identity = np.array([False, True, False]), np.arange(3)
    assert (auc(scores, member, identity).value, auc(-scores, member, identity).value) == (1.0, 0.0)


def test_the_published_protocol_is_the_best_of_sixteen_on_the_attacked_data() -> None:
    rng = np.random.default_rng(7)
    member = np.arange(140) < 40
    shared_x, shared_z = losses(rng, 8, 140), losses(rng, 8, 90)
    given = [shared_x * np.where(member, 0.5, 1.0), shared_x[None] * losses(rng, 1, 8, 140), shared_z,
             shared_z[None] * losses(rng, 1, 8, 90), member]  # fmt: skip
    target_x, reference_x, target_z, reference_z = (np.exp(-part) for part in given[:4])
    tried = {}
    for gamma, a in itertools.product((1, 2, 4, 8), (0.2, 0.3, 0.5, 1)):
        x = target_x / ((1 + a) / 2 * reference_x[0] + (1 - a) / 2)
        z = target_z / ((1 + a) / 2 * reference_z[0] + (1 - a) / 2)
        votes = (x[:, :, None] / z[:, None, :] >= gamma).sum(0)
        fpr, tpr, _ = roc_curve(member, (votes > 4).mean(1))
        tried[float(gamma), float(a)] = float(np.interp(1e-4, fpr, tpr))
    found = published_protocol(*given)
    assert found["tpr"] == pytest.approx(max(tried.values()), abs=1e-12)
    assert found["tpr"] == pytest.approx(tried[found["gamma"], found["a"]], abs=1e-12)
    assert len({round(value, 9) for value in tried.values()}) > 4  # it matters which one is picked


def test_the_published_protocol_finds_a_leak_where_there_is_none() -> None:
    rng = np.random.default_rng(8)
    member = np.arange(1080) < 80
    published, ours = [], 0
    for _ in range(25):
        shared = rng.normal(-0.5, 1.0, 1580)
        target, reference = (np.exp(shared + 0.5 * rng.normal(size=1580))[None] for _ in range(2))
        given = target[:, :1080], reference[None, :, :1080], target[:, 1080:], reference[None, :, 1080:]
        published.append(published_protocol(*given, member)["tpr"])
        ratios = [likelihood_ratios(given[i], given[i + 1], a=0.3) for i in (0, 2)]
        ours += tpr_at_fpr(rmia_scores(*ratios, gamma=1.0, combine="majority"), member, 1e-4).hits
    assert np.mean(published) > 20 * 1e-4
    assert clopper_pearson(ours, 25 * 80, 0.999)[0] < 1 / 1001


def test_without_a_leak_the_attack_finds_what_was_asked_for_and_an_area_of_one_half() -> None:
    rng = np.random.default_rng(9)
    cases = [attacked(rng, 100, 500, 4000, leak=0.0, alike=0.3) for _ in range(250)]
    areas = [auc(*case) for case in cases]
    for fpr in (0.01, 0.05):
        hits = sum(tpr_at_fpr(scores, member, fpr).hits for scores, member, _ in cases)
        low, high = clopper_pearson(hits, 250 * 100, 0.999)
        assert low <= (math.floor(fpr * 500) + 1) / 501 <= high
    values = np.array([area.value for area in areas])
    assert abs(values.mean() - 0.5) < 3 * values.std() / math.sqrt(len(values))
    assert 0.91 <= np.mean([area.low <= 0.5 <= area.high for area in areas]) <= 0.98


def test_the_larger_the_leak_the_more_is_found() -> None:
    rng = np.random.default_rng(10)
    found = []
    for leak in (0.0, 0.3, 0.6, 0.9):
        cases = [attacked(rng, 100, 1000, 2000, leak) for _ in range(20)]
        rates = [np.mean([tpr_at_fpr(case[0], case[1], fpr).tpr for case in cases]) for fpr in (0.001, 0.01)]
        found.append([np.mean([auc(*case).value for case in cases]), *rates])
    area, at_thousandth, at_hundredth = np.transpose(found)
    assert (np.diff(area) > 0.08).all() and abs(area[0] - 0.5) < 0.02
    assert (np.diff(at_hundredth) > 0.01).all() and at_hundredth[0] < 0.02
    assert at_thousandth[-1] > at_thousandth[0] + 0.02


@pytest.mark.parametrize("a", [-0.1, 1.1, math.nan])
def test_an_impossible_weight_is_refused(a: float) -> None:
    with pytest.raises(ConfigError, match="offline_a is"):
        likelihood_ratios(np.ones((1, 2)), np.ones((1, 1, 2)), a=a)


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_gamma_is_refused(gamma: float) -> None:
    with pytest.raises(ConfigError, match="gamma is"):
        rmia_scores(np.ones((1, 2)), np.ones((1, 2)), gamma=gamma, combine="majority")


def test_an_unknown_way_to_combine_views_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"combine is 'mean', allowed: mean_log_ratio, majority"):
        rmia_scores(np.ones((1, 2)), np.ones((1, 2)), gamma=1.0, combine="mean")


ONES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("target", "reference", "usable", "message"),
    [
        (np.ones(3), np.ones((1, 1, 3)), None, r"target losses have shape \(3,\)"),
        (np.ones((0, 3)), np.ones((1, 0, 3)), None, "not empty"),
        (np.ones((2, 0)), np.ones((1, 2, 0)), None, "not empty"),
        (ONES, np.ones((2, 3)), None, r"reference losses have shape \(2, 3\)"),
        (ONES, np.ones((1, 3, 3)), None, "same views and images"),
        (ONES, np.ones((0, 2, 3)), None, r"shape \(0, 2, 3\)"),
        (ONES * [1, math.nan, math.inf], np.ones((1, 2, 3)), None, "4 of 6 target losses"),
        (ONES * [1, -1, 1], np.ones((1, 2, 3)), None, "2 of 6 target losses are negative"),
        (ONES, np.full((1, 2, 3), math.nan), None, "6 of 6 reference losses"),
        (ONES, np.full((1, 2, 3), -0.1), None, "6 of 6 reference losses"),
        (ONES, np.ones((1, 2, 3)), np.ones((2, 3), dtype=bool), r"usable has shape \(2, 3\)"),
        (ONES, np.ones((1, 2, 3)), np.ones((1, 3), dtype=int), "type int64"),
        (ONES, np.ones((1, 2, 3)), np.array([[True, False, False]]), r"2 of 3 images have no .* \(first: \[1, 2\]\)"),
    ],
)
def test_impossible_losses_are_refused(target: Any, reference: Any, usable: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        likelihood_ratios(target, reference, a=0.3, usable=usable)


@pytest.mark.parametrize(
    ("ratio_x", "ratio_z", "message"),
    [
        (np.ones((1, 0)), np.ones((1, 2)), r"tested ratios have shape \(1, 0\)"),
        (np.ones((1, 2)), np.ones((1, 0)), r"population ratios have shape \(1, 0\)"),
        (np.ones(2), np.ones((1, 2)), r"tested ratios have shape \(2,\)"),
        (np.ones((2, 4)), np.ones((3, 4)), "2 views, the population 3"),
        (np.array([[1.0, 0.0, -2.0]]), np.ones((1, 2)), "2 of 3 tested ratios"),
        (np.ones((1, 2)), np.array([[math.nan, math.inf, 1.0]]), "2 of 3 population ratios"),
    ],
)
@pytest.mark.parametrize("combine", COMBINE)
def test_impossible_ratios_are_refused(ratio_x: Any, ratio_z: Any, message: str, combine: str) -> None:
    with pytest.raises(DataError, match=message):
        rmia_scores(ratio_x, ratio_z, gamma=1.0, combine=combine)


@pytest.mark.parametrize("broken", [np.ones(3), np.ones((0, 3)), np.array([[1.0, math.nan]]), np.array([[-1.0]])])
def test_the_loss_attack_refuses_what_is_no_loss(broken: Any) -> None:
    with pytest.raises(DataError, match="target losses"):
        loss_scores(broken)
