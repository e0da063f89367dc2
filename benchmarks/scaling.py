"""What larger collections of faces would need: what two cores can show, measured; the rest from measured rates.

    python -m benchmarks.scaling                                  # 10,000, 100,000 and a million identities

First the steps that hold a table of all images: near-identical pictures, splits and their id, each in a process of
its own on made-up rows (10 images an identity). Then what ``oneshui.planning`` makes of resources/rates.csv for one
model of config/config.yaml's CelebA, one request, every method that needs only the photo.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from benchmarks.measuring import describe

from oneshui.config import SplitSpec
from oneshui.data.probe import duplicate_groups
from oneshui.data.splits import content_id, split_identities
from oneshui.planning.plan import plan
from oneshui.planning.rates import read_rates
from oneshui.planning.sizes import Size

ROOT = Path(__file__).resolve().parents[1]
EACH = 10
SPLIT = {"train": 0.6, "val": 0.2, "n_ranked": 1000, "min_images_first": 6, "min_images": 2, "dedup": False}


def rows_of(identities: int) -> pd.DataFrame:
    """Return an index of made-up images."""
    image = np.arange(identities * EACH, dtype=np.int32)
    identity = (image // EACH).astype(np.int32)
    names = pd.Series(identity).astype("string[pyarrow]")
    return pd.DataFrame({
        "image_id": image, "identity": identity, "identity_name": names, "path": "images/" + names + ".jpg",
        "label": image % 8, "duplicate_group": image,
    })  # fmt: skip


def step(name: str, identities: int, folder: Path) -> None:
    """Do one step and print its seconds and the process's peak memory as JSON."""
    if name == "near-identical pictures":
        hashes = np.random.default_rng(0).integers(0, 2**63, identities * EACH, dtype=np.uint64)
        start = time.perf_counter()
        duplicate_groups(hashes, 2)
    else:
        index = rows_of(identities)
        start = time.perf_counter()
        frame = split_identities(index, SplitSpec.from_dict(SPLIT), dataset="large", seed=0)
        if name == "splits with their id":
            content_id(index, frame, ["a"])
        frame.to_parquet(folder / "splits.parquet")
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gb": peak}))


def measured(identities: int) -> list[str]:
    """Return rows of the table of measured steps."""
    lines = []
    for name in ("near-identical pictures", "splits", "splits with their id"):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "benchmarks.scaling",
                "--step",
                name,
                folder,
                "--identities",
                str(identities),
            ]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
        lines.append(f"| {identities:,} | {name} | {found['seconds']:.1f} | {found['peak_gb']:.1f} |")
    return lines


def planned(identities: int) -> list[str]:
    """Return rows of the table of what is planned."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    methods = [name for name in config["tables"]["table2"]["methods"] if name not in ("scrub", "bad_teacher")]
    table = {
        **config["tables"]["table2"],
        "blocks": [{"dataset": "celeba", "n": 5}],
        "methods": methods,
        "privacy": False,
    }
    config |= {"seeds": [0], "tables": {"large": table}}
    found = plan(
        config, read_rates(ROOT / "resources/rates.csv"), counts={"celeba": Size(identities * EACH, identities)}
    )
    by_stage = found.set_index("stage")
    shown = ["pack_images", "train_pretrain", "precompute_artefact", "unlearn", "score_pretrain"]
    rows = [(stage, *by_stage.loc[stage, ["jobs", "hours", "disk_gb"]]) for stage in shown]
    rows.append(("all", found["jobs"].sum(), found["hours"].sum(), found["disk_gb"].sum()))
    return [
        f"| {identities:,} | {stage} | {jobs:.0f} | {hours:.2f} | {disk:.1f} |" for stage, jobs, hours, disk in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step(args.step[0], args.identities[0], Path(args.step[1]))
        return
    print(f"{EACH} images an identity; {describe(torch.device('cpu'))}\n")
    print("| identities | step | s | peak GiB |\n|---|---|---|---|")
    for identities in args.identities:
        print("\n".join(measured(identities)), flush=True)
    rates = {rate.machine for rate in read_rates(ROOT / "resources/rates.csv") if rate.device == "cuda"}
    print(f"\nPlanned, one model and one request, on {' or '.join(sorted(rates))}:\n")
    print("| identities | stage | jobs | hours | disk, GB |\n|---|---|---|---|---|")
    for identities in args.identities:
        print("\n".join(planned(identities)))


if __name__ == "__main__":
    main()
