"""RMIA scores by sorting against the dense matrix of ratios: time, peak memory, and whether they are the same.

    python -m benchmarks.rmia                               # 7,000 tested images, a population of 30,000, 8 views

The dense reference divides every pair and compares, as published codes do: once with the whole matrix in memory, and
once in chunks of rows that a core's cache holds, the fastest way to write it. Variants take turns on fresh numbers;
the figures are medians of the ratio in one round. Peak memory is that of one more call, beyond its input.
"""

import argparse
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from oneshui.metrics.membership import rmia_scores

FloatArray = npt.NDArray[np.float64]

#: name -> views (0: as many as asked for), combine
CASES = {
    "one view": (1, "mean_log_ratio"),
    "mean log ratio": (0, "mean_log_ratio"),
    "majority": (0, "majority"),
}


def dense(ratio_x: FloatArray, ratio_z: FloatArray, gamma: float, combine: str, rows: int) -> FloatArray:
    """The plain way: every pair of images divided, ``rows`` tested images at a time."""
    if combine == "mean_log_ratio" and len(ratio_x) > 1:
        ratio_x, ratio_z = (np.exp(np.log(ratios).mean(axis=0))[None] for ratios in (ratio_x, ratio_z))
    scores = []
    for start in range(0, ratio_x.shape[1], rows):
        votes = np.zeros((len(ratio_x[0, start : start + rows]), ratio_z.shape[1]), dtype=np.uint8)
        for x, z in zip(ratio_x[:, start : start + rows], ratio_z, strict=True):
            votes += x[:, None] / z[None, :] >= gamma
        scores.append((votes > len(ratio_x) / 2).mean(axis=1))
    return np.concatenate(scores)


def timed(run: Callable[[], FloatArray]) -> tuple[float, FloatArray]:
    """Return seconds and result of ``run``."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def peak_mb(run: Callable[[], FloatArray]) -> float:
    """Return the most memory that ``run`` holds, MB."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def variants(args: argparse.Namespace, views: int, combine: str) -> list[Callable[[], FloatArray]]:
    """Return ours and both dense ways, on fresh ratios."""
    rng = np.random.default_rng()
    x, z = rng.lognormal(size=(views, args.tested)), rng.lognormal(size=(views, args.population))
    return [
        lambda: rmia_scores(x, z, gamma=args.gamma, combine=combine),
        lambda: dense(x, z, args.gamma, combine, args.tested),
        lambda: dense(x, z, args.gamma, combine, args.chunk),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tested", type=int, default=7_000)
    parser.add_argument("--population", type=int, default=30_000)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--chunk", type=int, default=10, help="rows of the chunked dense matrix")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{args.tested} tested images, population of {args.population}, {args.views} views; {platform.machine()} "
          f"CPU, 1 thread; NumPy {np.__version__}; median of {args.rounds}\n")  # fmt: skip
    print("| case | ms | whole matrix, ms | times faster | in chunks, ms | times faster | peak MB | whole matrix, MB | "
          "scores |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, (views, combine) in CASES.items():
        rounds, same = [], True
        for number in range(args.rounds + 1):
            taken, found = zip(*(timed(run) for run in variants(args, views or args.views, combine)), strict=True)
            same = same and all(np.array_equal(found[0], other) for other in found[1:])
            if number:  # the first is a warm-up, in which the whole matrix takes up to ten times as long
                rounds.append(taken)
        ours, whole, chunked = (1000 * statistics.median(part) for part in zip(*rounds, strict=True))
        faster = [statistics.median(taken[i] / taken[0] for taken in rounds) for i in (1, 2)]
        peaks = [peak_mb(run) for run in variants(args, views or args.views, combine)[:2]]
        print(f"| {name} | {ours:.2f} | {whole:.0f} | {faster[0]:.1f} | {chunked:.0f} | {faster[1]:.1f} | "
              f"{peaks[0]:.1f} | {peaks[1]:.0f} | {'equal' if same else 'DIFFERENT'} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
