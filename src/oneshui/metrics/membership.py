"""Membership inference by relative likelihood ratios (RMIA), in O((K + Z) log Z) and exact; and two plainer attacks."""

import functools
import itertools
import math
from typing import get_args

import numpy as np
import numpy.typing as npt

from oneshui.config import Combine
from oneshui.errors import ConfigError, DataError
from oneshui.metrics.roc import interpolated_tpr

FloatArray = npt.NDArray[np.float64]

COMBINE = get_args(Combine)
#: what the published protocol tries, and the false positive rate that it reads off
PUBLISHED_GAMMAS = (1.0, 2.0, 4.0, 8.0)
PUBLISHED_WEIGHTS = (0.2, 0.3, 0.5, 1.0)
PUBLISHED_FPR = 1e-4

#: nats; e^-700 is 1e-304, so probabilities stay positive and ratios finite: no 0/0, and 700 nats are wrong beyond doubt
_LARGEST_LOSS = 700.0
#: bytes that the temporaries of a majority vote may take: what a core's cache holds is faster than more
_VOTE_BYTES = 2**20


def likelihood_ratios(
    target_loss: npt.ArrayLike, reference_loss: npt.ArrayLike, *, a: float, usable: npt.ArrayLike | None = None
) -> FloatArray:
    """Return how much likelier each image is under the attacked model than it would be without its training.

    p = exp(-loss); ratio = p_target / ((1 + a) / 2 p_reference + (1 - a) / 2). The denominator guesses the average over
    models that have seen the image and models that have not from the latter alone; at a = 1 it is theirs.

    Args:
        target_loss: ``(V, N)`` float, nats, of V views of N images under the attacked model. Above 700 counts as 700.
        reference_loss: ``(M, V, N)`` the same under M reference models, which have not been trained on the images.
        a: weight of the reference, in [0, 1].
        usable: ``(M, N)`` bool, which models are a reference for which image: p_reference is the mean over these, at
            least one; the losses of the others are ignored, also where they are NaN. None: all.

    Returns:
        ``(V, N)`` ratios, positive and finite. Equal losses give equal ratios bit for bit.

    Raises:
        DataError: shapes do not fit together, a loss is negative or not finite, or an image has no usable reference.
        ConfigError: ``a`` is outside [0, 1].

    Source:
        The paper's equation 8 (one of its two factors); Zarifzadeh et al., 2024, for ``a``.
    """
    if not 0.0 <= a <= 1.0:  # also refuses NaN
        raise ConfigError(f"membership: offline_a is {a}, allowed: 0 to 1")
    target = _losses(target_loss, 2, "target", "(views, images)")
    reference = np.asarray(reference_loss, dtype=np.float64)
    if reference.ndim != 3 or not len(reference) or reference.shape[1:] != target.shape:
        raise DataError(
            f"membership: reference losses have shape {reference.shape}, target losses {target.shape}; allowed: "
            "(models, views, images), with the same views and images"
        )
    used = _usable(usable, (len(reference), target.shape[1]))
    reference = np.where(used[:, None], reference, 0.0)  # so that the check sees only what is used
    chances = np.where(
        used[:, None], _probabilities(_losses(reference, 3, "reference", "(models, views, images)")), 0.0
    )
    p_reference = _sum_of_rows(chances) / used.sum(axis=0)
    ratios: FloatArray = _probabilities(target) / ((1 + a) / 2 * p_reference + (1 - a) / 2)
    return ratios


def rmia_scores(ratio_x: npt.ArrayLike, ratio_z: npt.ArrayLike, *, gamma: float, combine: str) -> FloatArray:
    """Return for each tested image the fraction of the population z that it dominates: ratio_x / ratio_z >= gamma.

    Equal to the mean over the dense matrix ``ratio_x[:, None] / ratio_z[None, :] >= gamma`` bit for bit: rounded
    division falls as z rises, so the z that pass are the smallest ones, and a bisection that divides finds how many.

    Args:
        ratio_x: ``(V, K)`` likelihood ratios of the tested images in V views, positive.
        ratio_z: ``(V, Z)`` those of the population, in the same views.
        gamma: > 0.
        combine: of several views. ``mean_log_ratio``: an image's ratio is the geometric mean over its views.
            ``majority``: a pair counts if more than half of the views say so; a tie of an even number does not, as in
            the code of RMIA's authors (``torch.mode``). This takes O(V K Z), though little memory.

    Returns:
        ``(K,)`` scores in [0, 1]; the larger, the more an image looks like a member.

    Raises:
        DataError: there are no images on one side, views differ, or a ratio is not positive and finite.
        ConfigError: ``gamma`` or ``combine`` is impossible.

    Source:
        The paper's equation 9; Zarifzadeh et al., 2024.
    """
    if not 0.0 < gamma < math.inf:
        raise ConfigError(f"membership: gamma is {gamma}, allowed: above 0, finite")
    if combine not in COMBINE:
        raise ConfigError(f"membership: combine is {combine!r}, allowed: {', '.join(COMBINE)}")
    tested, population = _ratios(ratio_x, "tested"), _ratios(ratio_z, "population")
    if len(tested) != len(population):
        raise DataError(
            f"membership: tested images have {len(tested)} views, the population {len(population)}; needed: the same"
        )
    if combine == "majority" and len(tested) > 1:
        return _majority_scores(tested, population, gamma)
    dominated = _n_dominated(_geometric_mean(tested), np.sort(_geometric_mean(population)), gamma)
    scores: FloatArray = dominated / population.shape[1]
    return scores


def loss_scores(target_loss: npt.ArrayLike) -> FloatArray:
    """Return minus the mean loss of each image: the loss-threshold attack, which needs no reference model.

    Read the other way round (its negative) it is the Streisand attack: a model that was made to fail on the forgotten
    images gives them away by losses far above those of images that it has never seen.

    Args:
        target_loss: ``(V, N)`` float, nats, of V views of N images under the attacked model.

    Returns:
        ``(N,)``; the larger, the more an image looks like a member.

    Raises:
        DataError: the input is empty, or a loss is negative or not finite.
    """
    losses = _losses(target_loss, 2, "target", "(views, images)")
    return -_sum_of_rows(losses) / len(losses)


def published_protocol(
    target_x: npt.ArrayLike,
    reference_x: npt.ArrayLike,
    target_z: npt.ArrayLike,
    reference_z: npt.ArrayLike,
    is_member: npt.ArrayLike,
) -> dict[str, float]:
    """Return what the published protocol would report, to be held beside our numbers, never in their place.

    The best of 16 attacks (gamma and a) by the true positive rate at a false positive rate of 0.01%, interpolated
    between the steps of the ROC curve; views vote by majority. It cannot be trusted: the best is picked on the very
    images and labels that it is reported for, so that chance alone raises it; and where there are fewer than 10,000
    non-members, no threshold has that false positive rate, and what is read off is a share of the first false alarm's
    hits. Not reproduced, as plain mistakes: the published code puts losses where equation 8 has probabilities, divides
    by the reference twice, and lets different images vote as views of one (CelebA). So the number shows how optimistic
    the protocol is, not what was published.

    Args:
        target_x: ``(V, K)`` losses of the tested images under the attacked model, nats.
        reference_x: ``(M, V, K)`` under the reference models.
        target_z: ``(V, Z)`` losses of the population under the attacked model.
        reference_z: ``(M, V, Z)`` under the reference models.
        is_member: ``(K,)`` bool.

    Returns:
        ``tpr`` in [0, 1], and the ``gamma`` and ``a`` that gave it; of equals the first in the published order.

    Raises:
        DataError: what ``likelihood_ratios``, ``rmia_scores`` and ``roc_points`` refuse.
    """
    ratios = {
        a: (likelihood_ratios(target_x, reference_x, a=a), likelihood_ratios(target_z, reference_z, a=a))
        for a in PUBLISHED_WEIGHTS
    }
    outcomes = []
    for gamma, a in itertools.product(PUBLISHED_GAMMAS, PUBLISHED_WEIGHTS):
        scores = rmia_scores(*ratios[a], gamma=gamma, combine="majority")
        outcomes.append({"tpr": interpolated_tpr(scores, is_member, PUBLISHED_FPR), "gamma": gamma, "a": a})
    return max(outcomes, key=lambda outcome: outcome["tpr"])


def _n_dominated(tested: FloatArray, population: FloatArray, gamma: float) -> npt.NDArray[np.int64]:
    """Return for each x how many z of a rising population satisfy x / z >= gamma; these are the first ones.

    Bisection, all x at once and bit by bit of the answer. It asks the division itself, so that rounding at the boundary
    is the dense matrix's own; ``searchsorted`` can only ask a rearranged question.
    """
    bits = len(population).bit_length()
    padded = np.full(2**bits - 1, np.inf)  # nothing dominates infinity
    padded[: len(population)] = population
    found = np.zeros(len(tested), dtype=np.int64)
    with np.errstate(over="ignore"):  # an infinite quotient passes, as it should
        for bit in reversed(range(bits)):
            step = 2**bit
            found += step * (tested / padded[found + (step - 1)] >= gamma)
    return found


def _majority_scores(tested: FloatArray, population: FloatArray, gamma: float) -> FloatArray:
    """Return scores by majority over views. In each, z passes if its rank is below x's number of dominated z."""
    views, size = population.shape
    # the narrowest integers: comparing them takes a fraction of the time of dividing floats
    ranks = np.empty(population.shape, dtype=np.min_scalar_type(size))
    bounds = np.empty(tested.shape, dtype=ranks.dtype)
    for view in range(views):
        order = np.argsort(population[view])
        ranks[view, order] = np.arange(size)
        bounds[view] = _n_dominated(tested[view], population[view, order], gamma)
    voters = np.min_scalar_type(views)
    rows = max(1, _VOTE_BYTES // (size * (1 + voters.itemsize)))
    counts = np.empty(tested.shape[1], dtype=np.int64)
    for start in range(0, len(counts), rows):
        chunk = slice(start, start + rows)
        votes = np.zeros((len(counts[chunk]), size), dtype=voters)
        passes = np.empty(votes.shape, dtype=np.bool_)
        for view in range(views):
            np.less(ranks[view], bounds[view, chunk, None], out=passes)
            votes += passes
        np.greater(votes, views // 2, out=passes)  # more than half, for even and odd numbers
        counts[chunk] = [np.count_nonzero(row) for row in passes]  # along an axis this takes ten times as long
    scores: FloatArray = counts / size
    return scores


def _geometric_mean(ratios: FloatArray) -> FloatArray:
    """Return the geometric mean over views, between the smallest and the largest one whatever the rounding."""
    means: FloatArray = ratios[0]
    if len(ratios) > 1:
        with np.errstate(over="ignore"):  # rounding can exceed the largest float; clipped
            means = np.exp(_sum_of_rows(np.log(ratios)) / len(ratios))
        means = np.clip(means, ratios.min(axis=0), ratios.max(axis=0))
    return means


def _sum_of_rows(rows: FloatArray) -> FloatArray:
    """Return the sum over the first axis, in its order for any shape, so that equal columns have equal sums."""
    total: FloatArray = functools.reduce(np.add, rows)
    return total


def _probabilities(losses: FloatArray) -> FloatArray:
    chances: FloatArray = np.exp(-np.minimum(losses, _LARGEST_LOSS))
    return chances


def _losses(values: npt.ArrayLike, ndim: int, owner: str, allowed: str) -> FloatArray:
    losses = np.asarray(values, dtype=np.float64)
    if losses.ndim != ndim or not losses.size:
        raise DataError(f"membership: {owner} losses have shape {losses.shape}, allowed: {allowed}, not empty")
    bad = int(np.count_nonzero(~(np.isfinite(losses) & (losses >= 0))))
    if bad:
        raise DataError(
            f"membership: {bad} of {losses.size} {owner} losses are negative, infinite or NaN, allowed: 0 or more "
            "nats, finite. If the model has diverged, leave it out."
        )
    return losses


def _usable(usable: npt.ArrayLike | None, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the (models, images) mask, checked."""
    mask = np.ones(shape, dtype=np.bool_) if usable is None else np.asarray(usable)
    if mask.shape != shape or mask.dtype != np.bool_:
        raise DataError(
            f"membership: usable has shape {mask.shape} and type {mask.dtype}, allowed: {shape} (models, images), bool"
        )
    without = np.flatnonzero(~mask.any(axis=0))
    if len(without):
        raise DataError(
            f"membership: {len(without)} of {shape[1]} images have no usable reference model (first: "
            f"{without[:5].tolist()}), needed: at least one that was not trained on the image"
        )
    return mask


def _ratios(values: npt.ArrayLike, owner: str) -> FloatArray:
    # contiguous: NumPy may compute the logarithm of strided rows by another routine, whose last bit can differ
    ratios = np.asarray(values, dtype=np.float64, order="C")
    if ratios.ndim != 2 or not ratios.size:
        raise DataError(f"membership: {owner} ratios have shape {ratios.shape}, allowed: (views, images), not empty")
    bad = int(np.count_nonzero(~(np.isfinite(ratios) & (ratios > 0))))
    if bad:
        raise DataError(f"membership: {bad} of {ratios.size} {owner} ratios are not positive and finite")
    return ratios
