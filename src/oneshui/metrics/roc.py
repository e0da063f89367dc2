"""What ranked scores say about membership: true positives at few false alarms, area under the curve, intervals."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, expit, logit, stdtrit

from oneshui.errors import ConfigError, DataError

#: of every interval here
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Roc:
    """The steps of an ROC curve: one per distinct score, none within a tie, and (0, 0) before the first.

    Attributes:
        thresholds: ``(T,)`` float64, falling, the first infinite; an image counts as a member from its threshold up.
        hits: ``(T,)`` int64, members at or above each threshold.
        false_alarms: ``(T,)`` int64, non-members at or above each threshold.
        members: how many there are.
        non_members: how many there are.
    """

    thresholds: npt.NDArray[np.float64]
    hits: npt.NDArray[np.int64]
    false_alarms: npt.NDArray[np.int64]
    members: int
    non_members: int

    @property
    def tpr(self) -> npt.NDArray[np.float64]:
        """True positive rate at each threshold, in [0, 1]."""
        return self.hits / self.members

    @property
    def fpr(self) -> npt.NDArray[np.float64]:
        """False positive rate at each threshold, in [0, 1]."""
        return self.false_alarms / self.non_members


@dataclass(frozen=True)
class TprAtFpr:
    """How many members are found when few non-members may be accused; rates in [0, 1].

    Attributes:
        fpr_asked: the false positive rate that was allowed.
        hits: members found.
        members: members there are.
        tpr: hits / members.
        low: lower end of the 95% Clopper-Pearson interval of ``tpr``.
        high: its upper end.
        fpr_used: the false positive rate that finding them costs, at most ``fpr_asked``.
        resolvable_fpr: 1 / non-members; below it, only "no false alarm at all" can be asked.
    """

    fpr_asked: float
    hits: int
    members: int
    tpr: float
    low: float
    high: float
    fpr_used: float
    resolvable_fpr: float


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with a 95% interval, in [0, 1].

    Attributes:
        value: probability that a member scores higher than a non-member, a tie counting half.
        low: lower end of the interval.
        high: its upper end.
        std_error: standard error of ``value``; NaN where one side has a single cluster.
    """

    value: float
    low: float
    high: float
    std_error: float


def roc_points(scores: npt.ArrayLike, is_member: npt.ArrayLike) -> Roc:
    """Return the steps of the ROC curve.

    Args:
        scores: ``(N,)`` float; the larger, the more an image looks like a member.
        is_member: ``(N,)`` bool.

    Raises:
        DataError: lengths differ, a score is not finite, or members or non-members are missing.
    """
    values, member = _checked(scores, is_member)
    distinct, members, others = _counts(values, member)
    return Roc(
        thresholds=np.concatenate([[math.inf], distinct[::-1]]),
        hits=np.concatenate([[0], np.cumsum(members[::-1])]),
        false_alarms=np.concatenate([[0], np.cumsum(others[::-1])]),
        members=int(members.sum()),
        non_members=int(others.sum()),
    )


def tpr_at_fpr(scores: npt.ArrayLike, is_member: npt.ArrayLike, fpr: float) -> TprAtFpr:
    """Return the largest true positive rate that a threshold reaches within a false positive rate.

    Never interpolated: a threshold inside a tie, or between two false alarms, does not exist. Where ``fpr`` is below
    1 / non-members, only thresholds without a false alarm count. The threshold is chosen on the non-members that it is
    judged by, so that without any leak ``floor(fpr N) + 1`` in ``N + 1`` members are found on average, slightly more
    than ``fpr``. The interval takes the threshold as given and members as independent; images of one person are not.

    Args:
        scores: ``(N,)`` float; the larger, the more an image looks like a member.
        is_member: ``(N,)`` bool.
        fpr: in [0, 1].

    Returns:
        The rate with its counts. Of thresholds that find as many members, the one with the fewest false alarms.

    Raises:
        DataError: lengths differ, a score is not finite, or members or non-members are missing.
        ConfigError: ``fpr`` is outside [0, 1].
    """
    if not 0.0 <= fpr <= 1.0:  # also refuses NaN
        raise ConfigError(f"false positive rate {fpr}, allowed: 0 to 1. Divide percentages by 100.")
    roc = roc_points(scores, is_member)
    last = np.flatnonzero(roc.fpr <= fpr)[-1]
    hits = int(roc.hits[last])
    low, high = clopper_pearson(hits, roc.members)
    return TprAtFpr(
        fpr_asked=fpr,
        hits=hits,
        members=roc.members,
        tpr=hits / roc.members,
        low=low,
        high=high,
        fpr_used=float(roc.fpr[np.searchsorted(roc.hits, hits)]),
        resolvable_fpr=1.0 / roc.non_members,
    )


def interpolated_tpr(scores: npt.ArrayLike, is_member: npt.ArrayLike, fpr: float) -> float:
    """Return the true positive rate on straight lines between the steps of the ROC curve, as published codes do.

    Below 1 / non-members this is a share of whatever the first false alarm brings: hits that nobody has seen. Only
    ``oneshui.metrics.membership.published_protocol`` uses it.

    Args and Raises: those of ``roc_points``.
    """
    roc = roc_points(scores, is_member)
    return float(np.interp(fpr, roc.fpr, roc.tpr))


def clopper_pearson(k: int, n: int, level: float = _LEVEL) -> tuple[float, float]:
    """Return the exact interval of a fraction of which ``k`` of ``n`` trials were seen.

    Args:
        k: successes, 0 to n.
        n: trials, at least 1.
        level: probability that the interval holds the fraction, at least; in (0, 1).

    Raises:
        DataError: k or n is impossible.
        ConfigError: ``level`` is.

    Source:
        Clopper and Pearson, 1934, by quantiles of the beta distribution.
    """
    if not 0 <= k <= n or n < 1:
        raise DataError(f"interval of a fraction: {k} of {n}, allowed: 0 to n, of n >= 1")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"interval of a fraction: level {level}, allowed: above 0, below 1")
    return _beta_interval(k, n, level)


def auc(scores: npt.ArrayLike, is_member: npt.ArrayLike, clusters: npt.ArrayLike) -> Auc:
    """Return the area under the ROC curve, exactly, and a 95% interval that knows which images belong together.

    Images of one person are not independent. So DeLong's structural components (for a member: the share of non-members
    below it; for a non-member: the share of members above it) are summed by cluster, and clusters are what varies.
    The interval is Student's on the logit scale, which stays inside (0, 1) and is skewed like the estimate near its
    ends; degrees of freedom are Satterthwaite's, since five identities are common. In simulations with five (the script
    ``benchmarks.rmia_calibration``) it held the truth in 90 to 97% of cases, with normal quantiles in 82 to 93%, with
    images taken as independent in 61 to 95%, by how alike they are; with two identities in 86 to 91%.

    Where clusters show no variation (areas of 0 and 1, or one score for all), or one side has a single cluster, nothing
    can be estimated from them. Then the interval is that of the least favourable case, in which each cluster is all or
    nothing: Clopper and Pearson's, of ``value`` in as many trials as the side with fewer clusters has.

    Args:
        scores: ``(N,)`` float; the larger, the more an image looks like a member.
        is_member: ``(N,)`` bool.
        clusters: ``(N,)`` identity of each image; one may have members and non-members.

    Raises:
        DataError: lengths differ, a score is not finite, or members or non-members are missing.

    Source:
        DeLong, DeLong and Clarke-Pearson, 1988; Obuchowski, 1997 (clusters); Brunner and Munzel, 2000 (degrees of
        freedom).
    """
    values, member = _checked(scores, is_member)
    cluster = np.asarray(clusters)
    if cluster.shape != values.shape:
        raise DataError(f"clusters have shape {cluster.shape} for {len(values)} scores, allowed: one for each image")
    value, component = _area(values, member)
    number, of_cluster = np.unique(cluster, return_inverse=True)
    by_member = _Side.of(component[member] - value, of_cluster[member], len(number))
    by_other = _Side.of(component[~member] - value, of_cluster[~member], len(number))
    fewest = min(by_member.clusters, by_other.clusters)
    if fewest < 2:
        return Auc(value, *_beta_interval(value * fewest, fewest, _LEVEL), math.nan)
    shared = len(number) / (len(number) - 1) * float(by_member.sums @ by_other.sums)
    variance = max(0.0, by_member.variance + by_other.variance + 2 * shared)
    if variance == 0.0:
        return Auc(value, *_beta_interval(value * fewest, fewest, _LEVEL), math.sqrt(variance))
    freedom = (by_member.variance + by_other.variance) ** 2 / (
        by_member.variance**2 / (by_member.clusters - 1) + by_other.variance**2 / (by_other.clusters - 1)
    )
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, (1 + _LEVEL) / 2)) * error / (value * (1 - value))
    low, high = (float(expit(logit(value) + sign * half)) for sign in (-1, 1))
    return Auc(value, low, high, error)


def _area(scores: npt.NDArray[np.float64], member: npt.NDArray[np.bool_]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the area under the ROC curve and the structural component of each image, whose mean it is on each side."""
    distinct, members, others = _counts(scores, member)
    below, above = np.cumsum(others) - others, members.sum() - np.cumsum(members)
    pairs = int(members.sum()) * int(others.sum())
    # integers up to the one division, so that equal rankings give equal areas bit for bit
    value = int((members * (2 * below + others)).sum()) / (2 * pairs)
    place = np.searchsorted(distinct, scores)
    of_member = (below + others / 2)[place] / others.sum()
    of_other = (above + members / 2)[place] / members.sum()
    return value, np.where(member, of_member, of_other)


@dataclass(frozen=True, eq=False)
class _Side:
    """Deviations of the members' (or the non-members') components, summed by cluster over their number of images."""

    sums: npt.NDArray[np.float64]
    clusters: int
    variance: float

    @classmethod
    def of(cls, deviations: npt.NDArray[np.float64], of_cluster: npt.NDArray[np.intp], count: int) -> "_Side":
        """``count``: all clusters; ``clusters``: those that have an image on this side."""
        sums = np.bincount(of_cluster, deviations, minlength=count) / len(deviations)
        clusters = len(np.unique(of_cluster))
        correction = clusters / (clusters - 1) if clusters > 1 else math.nan
        return cls(sums, clusters, correction * float(sums @ sums))


def _beta_interval(k: float, n: float, level: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval; ``k`` need not be whole."""
    low = float(betaincinv(k, n - k + 1, (1 - level) / 2)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, (1 + level) / 2)) if k < n else 1.0
    return low, high


def _counts(
    scores: npt.NDArray[np.float64], member: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct scores, rising, and how many members and non-members have each."""
    distinct, place = np.unique(scores, return_inverse=True)
    size = len(distinct)
    members = np.bincount(place[member], minlength=size).astype(np.int64)
    others = np.bincount(place[~member], minlength=size).astype(np.int64)
    return distinct, members, others


def _checked(scores: npt.ArrayLike, is_member: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values, member = np.asarray(scores, dtype=np.float64), np.asarray(is_member)
    if values.ndim != 1 or member.shape != values.shape or member.dtype != np.bool_:
        raise DataError(
            f"scores have shape {values.shape}, is_member has shape {member.shape} and type {member.dtype}; allowed: "
            "(images,) for both, and bool for is_member"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"scores are not finite in {len(bad)} of {len(values)} images (first rows: {bad[:5].tolist()}): the model "
            "has diverged, and an attack on it has no meaning. Leave it out."
        )
    found = int(member.sum())
    if found in (0, len(member)):
        missing = "member" if found == 0 else "non-member"
        raise DataError(f"membership: none of {len(member)} images is a {missing}, needed: at least one of each kind")
    return values, member
