"""What is paid before work starts: a job with and without torch, and planning the paper's grid.

    python -m benchmarks.fixed_costs

A job is a Python process that imports what its script imports, by itself or in a fork (`oneshui.forks`). CPU seconds
are those of the process and its fork (user and system), which depend little on what else is busy; wall seconds are what
a user waits. Planning is ``snakemake --dry-run`` of config/config.yaml (and of ten times as many seeds) in an empty
folder, with empty raw folders. Medians.
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
from benchmarks.gpu import FIRST_ON_A_GPU
from benchmarks.measuring import describe

from oneshui.data.layouts import annotation_files
from oneshui.forks import start_server

ROOT = Path(__file__).resolve().parents[1]
#: what each job's script imports, and what it does then
JOBS = {
    "table": "from oneshui.stages.make_table import make_table",
    "figure": "from oneshui.stages.make_figure import make_figure",
    "metrics": "from oneshui.stages.measure_model import measure_model",
    "attack": "from oneshui.stages.attack_model import attack_model",
    "score a model": "from oneshui.stages.score_model import score_model",
    "serve a request": "from oneshui.stages.serve_request import serve_request",
}
ON_A_GPU = {FIRST_ON_A_GPU: JOBS["score a model"]}
_SCRIPT = """from oneshui.forks import is_fork, quick_start
with quick_start():
    {imports}
import time
if {gpu}:
    import torch
    torch.zeros(1, device="cuda").item()
print(int(is_fork()), time.process_time())
"""


def timed(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Return wall seconds, CPU seconds, and what the command printed."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, done.stdout


def start(script: Path, *, fork: bool) -> tuple[float, float]:
    """Return wall and CPU seconds of a job that does nothing, and refuse one that did not start as it should."""
    wall, cpu, printed = timed([sys.executable, str(script)], script.parent)
    forked, own = printed.splitlines()[-1].split()
    if int(forked) != fork:
        raise SystemExit(f"the job that runs {script.read_text()!r} was {'no' if fork else 'a'} fork")
    return wall, cpu + float(own) if fork else cpu


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
    parser.add_argument("--jobs", nargs="+", choices=[*JOBS, *ON_A_GPU], help="default: all that this machine can run")
    parser.add_argument("--plans", type=int, default=3, help="dry runs of the paper's grid")
    parser.add_argument("--large", type=int, default=10, help="times the paper's grid, planned once; 0 leaves it out")
    args = parser.parse_args()
    print(f"{describe(torch.device('cpu'))}; Python {sys.version.split()[0]}; median of {args.rounds}\n")
    print("| what | by itself: wall, s | CPU, s | in a fork: wall, s | CPU, s |\n|---|---:|---:|---:|---:|")
    chosen = args.jobs or [*JOBS, *(ON_A_GPU if torch.cuda.is_available() else {})]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_server()
        server = os.environ.pop("ONESHUI_FORKSERVER")
        for number, job in enumerate(chosen):
            script = folder / f"{number}.py"
            script.write_text(_SCRIPT.format(imports=(JOBS | ON_A_GPU)[job], gpu=job in ON_A_GPU))
            alone, forked = [], []
            # each once unmeasured (compiled files, disk cache, the server's imports), then in turns: speed drifts
            for _ in range(args.rounds + 1):
                alone.append(start(script, fork=False))
                os.environ["ONESHUI_FORKSERVER"] = server
                forked.append(start(script, fork=True))
                del os.environ["ONESHUI_FORKSERVER"]
            cells = [statistics.median(column) for way in (alone, forked) for column in zip(*way[1:], strict=True)]
            print(f"| a job's start: {job} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)
        if args.plans:
            plans = [dry_run(1, folder) for _ in range(args.plans)]
            wall, cpu = (statistics.median(plan[i] for plan in plans) for i in (0, 1))
            print(f"| dry run of the paper's grid, {plans[0][2]:,} jobs | {wall:.1f} | {cpu:.1f} | | |", flush=True)
        if args.plans and args.large:
            wall, cpu, jobs = dry_run(args.large, folder)
            print(f"| the same with {args.large} times the seeds, {jobs:,} jobs | {wall:.1f} | {cpu:.1f} | | |")


if __name__ == "__main__":
    main()
