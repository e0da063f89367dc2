"""All of MUFAC on one GPU: take it to a machine without a network, and make config/mufac_gpu.yaml's table there.

    python -m benchmarks.mufac wheels DIR/wheels                   # what a machine with torch, timm and pandas lacks
    python -m benchmarks.mufac pack DIR --data RAW/mufac [--weights FILE] [--wheels DIR/wheels]   # DIR/part1.zip ...
    python -m benchmarks.mufac unpack DIR/part*.zip --to PLACE     # there; one part after the other is fine
    python -m benchmarks.mufac run --place PLACE --out OUT         # at most eight minutes from decoded images

The images alone are two parts of less than 64 MB. ``run`` takes carried wheels by itself. It decodes the images, then
starts the clock. OUT/mufac.md says what every rule took and has the table; where the time runs out, both say how far
it came. ``--toy`` takes a tiny network, one method and no attack.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: packages that a machine for machine learning has, with what they need
THERE = ("torch", "torchvision", "timm", "pandas", "pyarrow", "scikit-learn", "matplotlib", "pytest")
#: packages of ours that tables and figures do without
_SPARED = ("vl-convert-python",)
#: packages that are published as source only: pure Python, so that a wheel made here fits every machine
BUILT = ("connection-pool",)
#: seconds that Snakemake gets to end what is running
_GRACE = 10
#: bytes that an archive adds to a file beside twice its name
_ENTRY = 150


# ---- taking it there


def carried(python: str) -> set[str]:
    """Return the packages that oneshui and its workflow need beyond ``THERE``, by what is installed here."""
    from packaging.requirements import Requirement  # another machine may lack it before it has the wheels
    from packaging.utils import canonicalize_name

    there = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}

    def with_all_they_need(wanted: Iterable[str]) -> set[str]:
        found: set[str] = set()
        left = list(wanted)
        while left:
            requirement = Requirement(left.pop())
            name = canonicalize_name(requirement.name)
            if name not in found and (not requirement.marker or requirement.marker.evaluate(there | {"extra": ""})):
                found.add(name)
                left += importlib.metadata.requires(name) or ()
        return found

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = with_all_they_need([*project["dependencies"], *project["optional-dependencies"]["workflow"]])
    return ours - with_all_they_need(THERE) - set(_SPARED)


def wheel_commands(folder: Path, python: str = "3.12") -> list[list[str]]:
    """Return the commands that put wheels of what is ``carried`` into ``folder``, as requirements.lock pins them.

    Args:
        folder: for the wheels.
        python: version of Python there, e.g. ``3.12``.

    Raises:
        SystemExit: one of them is not in requirements.lock.
    """
    pinned: dict[str, str] = {}
    for name, version, condition in re.findall(
        r"^([\w.-]+)==(\S+)(?: ; (.*?))? \\$", (ROOT / "requirements.lock").read_text(), re.M
    ):
        older = re.search(r"python_full_version < '3\.(\d+)'", condition)
        if not older or int(python.split(".")[1]) < int(older[1]):
            pinned[name] = version
    wanted = carried(python)
    unknown = sorted(wanted - set(pinned))
    if unknown:
        raise SystemExit(f"requirements.lock has no {', '.join(unknown)}")
    platforms = [f"manylinux{each}_x86_64" for each in ("_2_28", "_2_27", "_2_17", "_2_5", "2014", "1")]
    pip = [sys.executable, "-m", "pip"]
    return [
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
         *(word for each in platforms for word in ("--platform", each)), "--dest", str(folder),
         *(f"{name}=={pinned[name]}" for name in sorted(wanted.difference(BUILT)))],
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), *(f"{name}=={pinned[name]}" for name in BUILT)],
    ]  # fmt: skip


def pack(folder: Path, files: Iterable[tuple[Path, str]], part_mb: float) -> list[Path]:
    """Write files into as few archives as fit, each smaller than ``part_mb`` MB (of 10^6 bytes).

    Args:
        folder: for ``part1.zip``, ``part2.zip`` ...
        files: each with its name in the archive; images are compressed already, so nothing is.
        part_mb: largest size of an archive.

    Raises:
        SystemExit: a file is larger than an archive may be.
    """
    sized = sorted(((path.stat().st_size + 2 * len(name) + _ENTRY, name, path) for path, name in files), reverse=True)
    room = 1e6 * part_mb - _ENTRY
    parts: list[list[tuple[Path, str]]] = []
    left: list[float] = []
    for size, name, path in sized:
        if size > room:
            raise SystemExit(
                f"{path} has {size / 1e6:.1f} MB, and --part-mb allows {part_mb:g}. Allow more, or, if it holds "
                "weights, save them in half precision: they are read as float32"
            )
        place = next((i for i, free in enumerate(left) if size <= free), len(parts))
        if place == len(parts):
            parts.append([])
            left.append(room)
        parts[place].append((path, name))
        left[place] -= size
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, part in enumerate(parts, 1):
        written.append(folder / f"part{number}.zip")
        with zipfile.ZipFile(written[-1], "w", zipfile.ZIP_STORED) as archive:
            for path, name in sorted(part, key=lambda entry: entry[1]):
                archive.write(path, name)
    return written


def weights_name() -> str:
    """Return what the file of weights is called from which config/mufac_gpu.yaml starts."""
    model = re.search(r"^    model: (\S+)", (ROOT / "config/mufac_gpu.yaml").read_text(), re.MULTILINE)
    assert model
    return f"{model[1]}.safetensors"


def files_to_carry(data: Path, weights: Path | None, wheels: Path | None) -> list[tuple[Path, str]]:
    """Return every file with its place: ``data/mufac/...``, ``weights/...`` and ``wheels/...``."""
    files = [(path, f"data/mufac/{path.relative_to(data)}") for path in sorted(data.rglob("*")) if path.is_file()]
    files += [(weights, f"weights/{weights_name()}")] if weights else []
    return files + [(path, f"wheels/{path.name}") for path in (sorted(wheels.glob("*.whl")) if wheels else [])]


def unpack(parts: Iterable[Path], place: Path) -> None:
    """Put the contents of archives into a folder."""
    for part in parts:
        with zipfile.ZipFile(part) as archive:
            archive.extractall(place)


# ---- making the table there


def toy(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with a tiny network from random weights, one request size, one method, no attack."""
    dataset, training = config["datasets"]["mufac"], config["training"]["mufac"]
    dataset |= {"stored_px": [24, 24], "split": {**dataset["split"], "n_ranked": 2, "min_images_first": 4}}
    training |= {"model": "test_resnet", "init_weights": "random", "input_px": 32, "mean": 0.5, "std": 0.5,
                 "epochs": 1, "warmup_epochs": 0}  # fmt: skip
    config["tables"]["mufac"] |= {"blocks": [{"dataset": "mufac", "n": 2}], "methods": ["jit"], "privacy": False}
    config["tables"]["mufac_edits"] |= {"blocks": [{"dataset": "mufac", "n": 2}], "privacy": False, "traces": False}
    for method in config["methods"].values():
        method.pop("overrides", None)
        if "blocks" in method["params"]:
            method["params"]["blocks"] = min(method["params"]["blocks"], 2)  # the tiny network has four
    return {**config, "figures": {"mufac_bars": config["figures"]["mufac_bars"]}}


def python_with(wheels: Path | None, folder: Path) -> tuple[str, dict[str, str]]:
    """Return a Python that has carried wheels, and variables with which it finds oneshui beside this script.

    It is a virtual environment of its own: the isolated process of ``unlearn`` may open what lies in one, but no other
    folder that PYTHONPATH names.

    Args:
        wheels: folder of wheels, which may be empty or missing; None: there are none.
        folder: for the environment.
    """
    files = sorted(wheels.glob("*.whl")) if wheels else []
    python = Path(sys.executable)
    if files:
        venv.create(folder, with_pip=False, symlinks=True)
        python = folder / "bin/python"
        (packages,) = folder.glob("lib/python*/site-packages")
        unpack(files, packages)
        for moved in [*packages.glob("*.data/purelib"), *packages.glob("*.data/platlib")]:
            shutil.copytree(moved, packages, dirs_exist_ok=True)
        (packages / "carried.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    given = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return str(python), {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, given)), "PYTHONUNBUFFERED": "1"}


def snakemake(folder: Path, config: Path, place: Path, args: argparse.Namespace, targets: Sequence[str], python: str,
              variables: dict[str, str]) -> tuple[str, float]:  # fmt: skip
    """Run the workflow in ``folder``; return how it ended, and seconds. At the limit running jobs are ended."""
    limit_s = 60 * args.minutes
    command = [
        python, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(ROOT / "profiles/default"), "--cores", str(args.cores), "--configfile", str(config),
        "--config", f"data_root={place / 'data'}", f"weights_root={place / 'weights'}", f"device={args.device}",
        f"jobs_per_gpu={args.jobs_per_gpu}", "--resources", f"gpu={args.jobs_per_gpu}", "--", *targets,
    ]  # fmt: skip
    start = time.monotonic()
    with open(folder / "log", "a") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(limit_s)
            status = "finished" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit_s:.0f} s"
        seconds = time.monotonic() - start
        for end in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, end)
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    continue
    return status, seconds


def seconds_by_rule(folder: Path) -> list[dict[str, Any]]:
    """Return for each rule its finished jobs and their seconds, start included: in all, and of the longest.

    Snakemake keeps a file for each output; those of files that were temporary are gone.
    """
    jobs: dict[tuple[str, int], float] = {}
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            try:
                kept = json.loads(path.read_text())
            except ValueError:  # Snakemake was killed while it wrote this
                continue
            if not kept.get("incomplete"):
                jobs[kept["rule"], kept["job_hash"]] = kept["endtime"] - kept["starttime"]
    rules = []
    for rule in sorted({rule for rule, _ in jobs}):
        times = [seconds for (name, _), seconds in jobs.items() if name == rule]
        rules.append({"rule": rule, "jobs": len(times), "seconds": sum(times), "longest": max(times)})
    return sorted(rules, key=lambda each: -float(each["seconds"]))


def to_markdown(found: dict[str, Any]) -> str:
    """Return a page: how it ended, what the rules took, the table, and the log's end if it did not finish."""
    lines = [f"# MUFAC on {found['machine']}", "",
             f"{found['status'].capitalize()}. Decoding: {found['decoding_s']:.0f} s, everything after it: "
             f"{found['seconds']:.0f} s. Jobs at once on the GPU: {found['jobs_per_gpu']}.", "",
             "| rule | jobs | s in all | longest, s |", "|---|---:|---:|---:|"]  # fmt: skip
    lines += [f"| {each['rule']} | {each['jobs']} | {each['seconds']:.0f} | {each['longest']:.0f} |"
              for each in found["rules"]]  # fmt: skip
    if found["table"]:
        lines += ["", found["table"].strip()]
    if found["status"] != "finished":
        lines += ["", f"```\n{found['log']}\n```"]
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    """Make the table, and write what there is to say of it to ``args.out``."""
    args.out.mkdir(parents=True, exist_ok=True)
    place = args.place.resolve()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        python, variables = python_with(place / "wheels", folder / "python")
        if (place / "weights").exists() and not (place / "weights" / weights_name()).exists():
            raise SystemExit(f"{place / 'weights'} has no {weights_name()}. Without the folder, timm's hub is asked")
        if args.toy:
            # in a process of its own: only now can Python find YAML
            code = (
                "import sys, yaml; from benchmarks.mufac import toy;"
                "yaml.safe_dump(toy(yaml.safe_load(open(sys.argv[1]))), open(sys.argv[2], 'w'), sort_keys=False)"
            )
            config = folder / "mufac_gpu.yaml"
            source = str(ROOT / "config/mufac_gpu.yaml")
            subprocess.run([python, "-c", code, source, str(config)], env=variables, check=True)
        else:
            config = ROOT / "config/mufac_gpu.yaml"
        described = subprocess.run(
            [python, "-c", "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() "
             "else 'no GPU', 'with torch', torch.__version__)"],
            env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        decoded, wanted = ["results/data/mufac/images.npy"], ["results/tables/mufac.csv", "figures"]
        if args.edits:
            wanted = ["results/tables/mufac_edits.csv"]
        status, decoding = snakemake(folder, config, place, args, decoded, python, variables)
        seconds = 0.0
        if status == "finished":
            status, seconds = snakemake(folder, config, place, args, wanted, python, variables)
        table = folder / "results/tables" / ("mufac_edits.md" if args.edits else "mufac.md")
        found = {
            "machine": described.stdout.strip(), "status": status, "decoding_s": decoding, "seconds": seconds,
            "jobs_per_gpu": args.jobs_per_gpu, "rules": seconds_by_rule(folder),
            "table": table.read_text() if table.exists() else "", "log": (folder / "log").read_text()[-6000:],
        }  # fmt: skip
        if table.exists():
            shutil.copy(table.with_suffix(".csv"), args.out / "mufac.csv")
        (args.out / "mufac.json").write_text(json.dumps(found, indent=1) + "\n")
        (args.out / "mufac.md").write_text(to_markdown(found))
        print(to_markdown(found))
    return int(status != "finished")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    wheels = commands.add_parser("wheels", help="download what the other machine lacks")
    wheels.add_argument("folder", type=Path)
    wheels.add_argument("--python", default="3.12", help="version there")
    packing = commands.add_parser("pack", help="write archives")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--data", type=Path, required=True, help="raw folder of MUFAC")
    packing.add_argument("--weights", type=Path, help="initial weights, safetensors")
    packing.add_argument("--wheels", type=Path, help="folder of wheels")
    packing.add_argument("--part-mb", type=float, default=58, help="largest archive, MB")
    unpacking = commands.add_parser("unpack", help="read archives")
    unpacking.add_argument("parts", type=Path, nargs="+")
    unpacking.add_argument("--to", type=Path, required=True)
    running = commands.add_parser("run", help="make the table")
    running.add_argument("--place", type=Path, required=True, help="folder with data/mufac, weights, and wheels if any")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--minutes", type=float, default=8)
    running.add_argument("--cores", type=int, default=2 * (os.cpu_count() or 1), help="for Snakemake")
    running.add_argument("--jobs-per-gpu", type=int, default=8)
    running.add_argument("--device", choices=["auto", "cpu"], default="auto")
    running.add_argument("--edits", action="store_true", help="the table of fold models and identity edits instead")
    running.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    if args.command == "wheels":
        return max(subprocess.run(each, check=False).returncode for each in wheel_commands(args.folder, args.python))
    if args.command == "pack":
        for part in pack(args.folder, files_to_carry(args.data, args.weights, args.wheels), args.part_mb):
            print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")
        return 0
    if args.command == "unpack":
        unpack(args.parts, args.to)
        return 0
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
