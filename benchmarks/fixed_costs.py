"""What is paid before work starts: a job with and without torch, and planning the paper's grid.

    python -m benchmarks.fixed_costs

A job is a fresh Python process that imports what its script imports. CPU seconds are the process's own (user and
system), which depend little on what else is busy; wall seconds are what a user waits. Planning is ``snakemake
--dry-run`` of config/config.yaml (and of ten times as many seeds) in an empty folder, with empty raw folders. Medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from benchmarks.measuring import describe

from oneshui.data.layouts import annotation_files

ROOT = Path(__file__).resolve().parents[1]
_QUICKLY = "from oneshui.startup import quick_imports\nwith quick_imports():"
JOBS = {
    "nothing": "pass",
    "table, figure": "import oneshui.stages.make_table",
    "metrics": "import oneshui.stages.measure_model",
    "attack": "import oneshui.stages.attack_model",
    "score a model": f"{_QUICKLY} import oneshui.stages.score_model",
    "score a model, collecting garbage": "import oneshui.stages.score_model",
    "serve a request": f"{_QUICKLY} import oneshui.stages.serve_request, oneshui.methods.metaunlearn",
}
#: the same on a machine with a GPU: what of a start is whose
ON_A_GPU = {
    "torch": "import torch",
    "torch and a first number on the GPU": "import torch; torch.zeros(1, device='cuda').item()",
}


def timed(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Return wall seconds, CPU seconds, and what the command printed."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, done.stdout


def dry_run(times: int, folder: Path) -> tuple[float, float, int]:
    """Plan the paper's grid with this many times its seeds; return wall and CPU seconds and the number of jobs."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config |= {"seeds": list(range(len(config["seeds"]) * times)), "data_root": str(folder)}
    for entry in config["datasets"].values():
        raw = folder / entry["folder"]
        raw.mkdir(exist_ok=True)
        for name in annotation_files(entry["layout"], raw, entry["options"]):
            Path(name).touch()
    path = folder / f"config_{times}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
               "--workflow-profile", str(ROOT / "profiles/default"), "--cores", "8", "--dry-run", "--quiet", "rules",
               "--configfile", str(path), "--", "tables"]  # fmt: skip
    wall, cpu, printed = timed(command, folder)
    jobs = next(int(line.split()[1]) for line in printed.splitlines() if line.startswith("total"))
    return wall, cpu, jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=10, help="times the paper's grid, planned once; 0 leaves it out")
    args = parser.parse_args()
    print(f"{describe(torch.device('cpu'))}; Python {sys.version.split()[0]}; median of {args.rounds}\n")
    print("| what | wall, s | CPU, s |\n|---|---|---|")
    jobs_of = JOBS | ON_A_GPU if torch.cuda.is_available() else JOBS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # each once unmeasured (compiled files, disk cache), then in turns: a machine's speed drifts
        starts = [{job: timed([sys.executable, "-c", code], folder)[:2] for job, code in jobs_of.items()}
                  for _ in range(args.rounds + 1)]  # fmt: skip
        for job in jobs_of:
            wall, cpu = (statistics.median(start[job][i] for start in starts[1:]) for i in (0, 1))
            print(f"| a job's start: {job} | {wall:.2f} | {cpu:.2f} |")
        plans = [dry_run(1, folder) for _ in range(min(args.rounds, 3))]
        wall, cpu = (statistics.median(plan[i] for plan in plans) for i in (0, 1))
        print(f"| dry run of the paper's grid, {plans[0][2]:,} jobs | {wall:.1f} | {cpu:.1f} |", flush=True)
        if args.large:
            wall, cpu, jobs = dry_run(args.large, folder)
            print(f"| the same with {args.large} times the seeds, {jobs:,} jobs | {wall:.1f} | {cpu:.1f} |")


if __name__ == "__main__":
    main()
