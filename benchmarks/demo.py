"""The demo from an empty folder: time, and how busy it keeps the cores.

    python -m benchmarks.demo

The cores' time is that of Snakemake and all jobs, as the operating system counts it.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import torch
from benchmarks.fixed_costs import ROOT, timed
from benchmarks.measuring import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--targets", nargs="+", default=["all"], help="what is made of it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", name,
                   "--workflow-profile", str(ROOT / "profiles/default"), "--cores", str(args.cores), "--configfile",
                   str(ROOT / "config/demo.yaml"), "--", *args.targets]  # fmt: skip
        wall, cpu, printed = timed(command, folder)
        jobs = int(re.findall(r"^\[ *\d+/(\d+)\]", printed, re.MULTILINE)[-1])
        again, _, _ = timed(command, folder)
    print(f"{describe(torch.device('cpu'))}; once\n")
    print(
        "| jobs | wall, s | core-seconds | of the cores busy | the same command again, s |\n|---:|---:|---:|---:|---:|"
    )
    print(f"| {jobs} | {wall:.0f} | {cpu:.0f} | {cpu / wall / args.cores:.0%} | {again:.1f} |")


if __name__ == "__main__":
    main()
