"""What the membership attack reports where nothing leaks, and how its power grows with a planted leak, as a figure.

    python -m benchmarks.rmia_calibration docs/figures/rmia_calibration.png

Losses are simulated, no model is trained. An image has a difficulty that both models share (log loss normal, mean -0.5,
standard deviation 1); target and reference model each add noise of their own (0.5), of which a part is common to the
images of an identity. A leak lowers the members' losses under the target by a percentage. The attack: gamma 1, a 0.3.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import logit, ndtr

from oneshui.metrics.membership import likelihood_ratios, published_protocol, rmia_scores
from oneshui.metrics.roc import auc, clopper_pearson, tpr_at_fpr
from oneshui.report.style import DOUBLE_COLUMN, RC, RUN_COLOURS

Floats = npt.NDArray[np.float64]
Attack = tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.int64]]

MEMBERS, NON_MEMBERS, POPULATION, PER_IDENTITY = 100, 7_000, 20_000, 10
TESTED = MEMBERS + NON_MEMBERS
#: share of a model's own noise that images of an identity have in common
ALIKE = 0.3
ASKED = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
#: percent by which a leak lowers the members' losses
LEAKS = (0, 20, 40, 60, 70, 80, 90, 95)


def simulated_losses(rng: np.random.Generator, leak: float) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return losses under the target and the reference, and identities: of members, non-members and the population."""
    identity = np.arange(TESTED + POPULATION) // PER_IDENTITY
    difficulty = rng.normal(-0.5, 1.0, len(identity))
    losses = []
    for _ in ("target", "reference"):
        common, own = rng.normal(size=identity[-1] + 1)[identity], rng.normal(size=len(identity))
        losses.append(np.exp(difficulty + 0.5 * (ALIKE**0.5 * common + (1 - ALIKE) ** 0.5 * own)))
    losses[0][:MEMBERS] *= 1 - leak
    return losses[0], losses[1], identity


def attack(rng: np.random.Generator, leak: float) -> Attack:
    """Return scores, membership and identities of one simulated attack; ``leak`` is a fraction of the loss."""
    target, reference, identity = simulated_losses(rng, leak)
    ratio = likelihood_ratios(target[None], reference[None, None], a=0.3)
    scores = rmia_scores(ratio[:, :TESTED], ratio[:, TESTED:], gamma=1.0, combine="mean_log_ratio")
    return scores, np.arange(TESTED) < MEMBERS, identity[:TESTED]


def published_without_leak(rng: np.random.Generator) -> float:
    """Return the true positive rate that the published protocol reports of one simulation without a leak."""
    target, reference, _ = simulated_losses(rng, leak=0.0)
    parts = (slice(None, TESTED), slice(TESTED, None))
    tested, population = ((target[None, part], reference[None, None, part]) for part in parts)
    return published_protocol(*tested, *population, np.arange(TESTED) < MEMBERS)["tpr"]


def draw_rates(axes: Axes, attacks: list[Attack]) -> None:
    """How many members are found where nothing leaks, over the rate that was asked for."""
    trials = len(attacks) * MEMBERS
    for fpr in ASKED:
        hits = sum(tpr_at_fpr(scores, member, fpr).hits for scores, member, _ in attacks)
        low, high = (end / fpr for end in clopper_pearson(hits, trials))
        axes.plot([fpr, fpr], [low, high], color=RUN_COLOURS[0], lw=1.2)
        axes.plot(fpr, hits / trials / fpr, "o", ms=3.5, color=RUN_COLOURS[0], mec="white", mew=0.4)
        print(f"asked {fpr:g}: {hits} of {trials} found, {hits / trials / fpr:.3f} [{low:.3f}, {high:.3f}] of it")
    # the best threshold lies just below the first non-member that may not be accused
    expected = [(math.floor(fpr * NON_MEMBERS) + 1) / (NON_MEMBERS + 1) / fpr for fpr in ASKED]
    axes.plot(ASKED, expected, "_", ms=11, mew=1.2, color="#999999", zorder=0, label="expected of the step rule")
    axes.plot([], [], "o-", ms=3.5, color=RUN_COLOURS[0], label="found, with 95% interval")
    axes.axhline(1.0, color="black", lw=0.6, ls=(0, (4, 2)), zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(ASKED[0] * 0.6, ASKED[-1] * 1.6)
    axes.set_ylim(0, 3)
    axes.set_xlabel("false positive rate asked for")
    axes.set_ylabel("members found / asked for")
    axes.legend(loc="upper right")


def draw_areas(axes: Axes, attacks: list[Attack]) -> None:
    """Areas under the curve where nothing leaks, and how often their intervals hold one half."""
    areas = [auc(*each) for each in attacks]
    values = np.array([area.value for area in areas])
    held = np.mean([area.low <= 0.5 <= area.high for area in areas])
    alone = [auc(scores, member, np.arange(len(member))) for scores, member, _ in attacks]
    held_alone = np.mean([area.low <= 0.5 <= area.high for area in alone])
    bins = np.arange(0.335, 0.67, 0.01)  # one is centred on 0.5
    axes.hist(values, bins=bins.tolist(), color=RUN_COLOURS[5], edgecolor="white", lw=0.3)
    top = axes.get_ylim()[1]
    axes.plot([0.5, 0.5], [0, top], color="black", lw=0.6, ls=(0, (4, 2)))
    text = f"95% intervals hold 0.5:\n{held:.1%} of them by identity,\n{held_alone:.1%} image by image"
    axes.text(0.5, 0.98, text, transform=axes.transAxes, ha="center", va="top", fontsize=7.5)
    axes.set_ylim(0, top * 1.42)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("area under the curve")
    print(f"AUC {values.mean():.4f} +- {values.std():.4f}; 0.5 held by {held:.3f}, images apart {held_alone:.3f}")


def draw_power(axes: Axes, rng: np.random.Generator, runs: int) -> None:
    """Area and true positive rates over the size of a leak: means, and the range of 90% of the runs."""
    found = np.empty((len(LEAKS), runs, 3))
    for i, leak in enumerate(LEAKS):
        for run in range(runs):
            each = attack(rng, leak / 100)
            rates = [tpr_at_fpr(each[0], each[1], fpr).tpr for fpr in (0.01, 0.001)]
            found[i, run] = [100 * auc(*each).value, *(100 * rate for rate in rates)]
        print(f"leak {leak}%: AUC, TPR at 1% and 0.1%:", *(f"{value:.1f}" for value in found[i].mean(axis=0)))
    names = ("AUC", "TPR at FPR 1%", "TPR at FPR 0.1%")
    for j, (name, colour) in enumerate(zip(names, (RUN_COLOURS[5], RUN_COLOURS[1], RUN_COLOURS[2]), strict=True)):
        low, high = np.percentile(found[:, :, j], [5, 95], axis=1)
        axes.fill_between(LEAKS, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(LEAKS, found[:, :, j].mean(axis=1), "o-", ms=2.5, color=colour, label=name)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("members' loss lowered by (%)")
    axes.set_ylabel("%")
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.5))


def coverage(rng: np.random.Generator, identities: int, alike: float, shift: float, runs: int) -> Floats:
    """Return how often 95% intervals hold the true area: ours, with normal quantiles, and with images independent.

    Normal scores of 10 images of each of ``identities`` members and 100 non-members, members higher by ``shift``.
    """
    identity = np.repeat(np.arange(identities + 100), 10)
    member = identity < identities
    truth = float(ndtr(shift / math.sqrt(2)))
    held = np.zeros(3)
    for _ in range(runs):
        common, own = rng.normal(size=identity[-1] + 1)[identity], rng.normal(size=len(identity))
        scores = alike**0.5 * common + (1 - alike) ** 0.5 * own + shift * member
        ours, alone = auc(scores, member, identity), auc(scores, member, np.arange(len(member)))
        half = 1.96 * ours.std_error / (ours.value * (1 - ours.value))
        normal = abs(float(logit(ours.value) - logit(truth))) <= half
        held += [ours.low <= truth <= ours.high, normal, alone.low <= truth <= alone.high]
    return held / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="PNG to write")
    parser.add_argument("--runs", type=int, default=1000, help="simulated attacks without a leak")
    parser.add_argument("--power-runs", type=int, default=100, help="simulated attacks for each size of a leak")
    parser.add_argument("--published-runs", type=int, default=200, help="without a leak, by the published protocol")
    parser.add_argument("--coverage-runs", type=int, default=300, help="for each kind of score, AUC intervals only")
    args = parser.parse_args()
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    attacks = [attack(rng, leak=0.0) for _ in range(args.runs)]
    with rc_context(RC):
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.3), layout="constrained")
        found, areas, power = figure.subplots(1, 3, width_ratios=(1.1, 0.9, 1.1))
        draw_rates(found, attacks)
        found.set_title(f"nothing leaks ({args.runs:,} attacks)", loc="left", fontweight="bold")
        draw_areas(areas, attacks)
        areas.set_title("nothing leaks", loc="left", fontweight="bold")
        draw_power(power, rng, args.power_runs)
        power.set_title("a planted leak", loc="left", fontweight="bold")
        figure.savefig(args.path, dpi=200)
    rates = np.array([published_without_leak(rng) for _ in range(args.published_runs)])
    print(f"published protocol without a leak: TPR at FPR 0.01% {100 * rates.mean():.3f}% on average of {len(rates)}, "
          f"above 0.01% in {(rates > 1e-4).mean():.0%}, at most {100 * rates.max():.2f}%")  # fmt: skip
    for identities in (2, 5, 10):
        cases = itertools.product((0.0, 0.2, 0.5), (0.0, 1.0, 2.0))
        shares = [coverage(rng, identities, alike, shift, args.coverage_runs) for alike, shift in cases]
        ranges = [f"{min(part):.0%} to {max(part):.0%}" for part in zip(*shares, strict=True)]
        print(f"{identities} member identities: 95% intervals hold the true AUC in {ranges[0]} of cases; with normal "
              f"quantiles in {ranges[1]}, with images independent in {ranges[2]}")  # fmt: skip
    print(f"{args.path}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
