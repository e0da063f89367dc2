"""Everything that docs/benchmarks.md says of a GPU, in one command that ends in time.

    python -m benchmarks.gpu --minutes 8 --out DIR
    python -m benchmarks.gpu --toy --device cpu --out DIR       # the same at toy size, to try it

First the tests marked gpu, then each measurement in order of worth: what docs/benchmarks.md lacks comes first. Eight
minutes are too few for all of them; ``--only`` chooses. Each is a process of its own with a limit of its own, so a slow
or broken one never costs the rest. DIR/gpu.jsonl gets a line, and DIR/gpu.md is written anew, after each; what a
measurement printed before its limit is kept. Rates go to DIR/rates.csv. CUDA graphs are on; ONESHUI_CUDA_GRAPHS=0
measures without. The measurements find oneshui beside this script. What a machine with torch and timm lacks: ``python
-m benchmarks.mufac wheels DIR`` downloads it, ``--wheels DIR`` uses it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mufac import ROOT, python_with

#: of ``benchmarks.fixed_costs``, which imports torch
FIRST_ON_A_GPU = "score a model, with a first number on the GPU"

#: seconds that are kept back to write the last results
_RESERVE = 5
#: seconds in which no measurement can end
_SHORTEST = 5
#: characters of an output that are kept
_KEPT = 20_000
_MACHINE = """
import os, platform, timm, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"{gpu}; {os.cpu_count()} cores; torch {torch.__version__}, CUDA {torch.version.cuda}; timm {timm.__version__}; "
      f"Python {platform.python_version()}")
import oneshui.stages.train_model, oneshui.methods.metaunlearn
"""


@dataclass(frozen=True)
class Measurement:
    """One process.

    Attributes:
        name: of it, unique.
        what: it says, with the goal.
        command: after ``python``.
        toy: what takes the place of the command's options at toy size.
        limit_s: seconds that it may take at most.
    """

    name: str
    what: str
    command: Sequence[str]
    toy: Sequence[str]
    limit_s: float

    def arguments(self, toy: bool, device: str) -> list[str]:
        """Return the whole command after ``python``."""
        options = [*self.command[:2], *self.toy] if toy else list(self.command)
        takes_device = self.command[0] == "-m" and self.command[1] not in _NO_DEVICE
        return [*options, *(["--device", device] if takes_device else [])]


_NO_DEVICE = ("pytest", "benchmarks.rates", "benchmarks.fixed_costs")
_VIT_B, _VIT_S = "vit_base_patch16_224", "vit_small_patch14_dinov2"


def gpu_tests() -> list[str]:
    """Return the test files that have tests marked gpu: other files may import what the machine lacks."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if "mark.gpu" in path.read_text()]


def measurements() -> list[Measurement]:
    """Return all of them, the most worth first."""
    tests = ("-m", "pytest", "-m", "gpu", "-v", "-W", "default", "-p", "no:cacheprovider", *gpu_tests())
    return [
        Measurement("machine", "", ("-c", _MACHINE), (), 60),
        Measurement("tests", "Every test marked gpu.", tests, tests[2:], 150),
        Measurement(
            "start of a job", "Goal: 4 s with torch, 1.5 s without.",
            ("-m", "benchmarks.fixed_costs", "--rounds", "1", "--plans", "0", "--jobs", "table", "score a model",
             FIRST_ON_A_GPU),
            ("--rounds", "1", "--plans", "1", "--large", "0", "--jobs", "table"), 90,
        ),
        Measurement(
            "trainings at once", "Goal: at most 1.",
            ("-m", "benchmarks.at_once", "--model", _VIT_S, "--px", "224", "--precision", "bf16",
             "--trainings", "2", "--steps", "100"),
            ("--model", "test_resnet", "--px", "32", "--batch-size", "4", "--steps", "1"), 60,
        ),
        Measurement(
            "single gradients", "SSD. Goal: 3 times faster.",
            ("-m", "benchmarks.fisher", "--models", f"{_VIT_B}:224", "--images", "128", "--micro-batches", "16", "32",
             "--rounds", "2"),
            ("--models", "test_resnet:32", "--images", "4", "--micro-batches", "1", "2", "--rounds", "1"), 60,
        ),
        Measurement(
            "Gram matrices", "PGU. Goal: 2 GB.", ("-m", "benchmarks.pgu_statistics"),
            ("--model", "vit_tiny_patch16_224", "--px", "32", "--batch-size", "8", "--threads", "1"), 45,
        ),
        Measurement(
            "meta-gradient", "Goal: not slower than double backward, a third of the memory.",
            ("-m", "benchmarks.meta_gradient", "--model", _VIT_B, "--support", "50", "--forget", "200",
             "--micro-batch", "50", "--sizes"),
            ("--px", "32", "--support", "4", "--forget", "8", "--micro-batch", "2", "--repeats", "1", "--threads", "1",
             "--sizes"), 120,
        ),
        Measurement(
            "compiled step", "Goals: 3,500, 2,400 and 5,000 images/s. Each takes a minute.",
            ("-m", "benchmarks.compiled_step", "--models", f"{_VIT_B}:224:128", f"{_VIT_B}:224:32", f"{_VIT_S}:224:32",
             "--stored-px", "256", "--precision", "bf16", "--steps", "20", "--rounds", "3"),
            ("--models", "test_resnet:32:4", "--steps", "1", "--rounds", "1", "--threads", "1"), 210,
        ),
        Measurement(
            "meta-training", "One epoch of three. Goal: 15 s.", ("-m", "benchmarks.meta_training", "--epochs", "1"),
            ("--model", "test_resnet", "--input-px", "32", "--stored-px", "32", "--images", "200", "--val", "40",
             "--epochs", "1", "--threads", "1"), 90,
        ),
        Measurement(
            "kernels", "What the GPU does in a step and in a simulated request.", ("-m", "benchmarks.kernels"),
            ("--models", "test_resnet:32", "--meta", "test_resnet:32", "--batch-size", "4", "--people", "40",
             "--heads", "1", "--most", "3", "--threads", "1"), 60,
        ),
        Measurement(
            "steps", "With their input, against a fixed batch. Goal: 0.95.",
            ("-m", "benchmarks.training_step", "--models", f"{_VIT_B}:224", f"{_VIT_S}:224", "--batch-size", "32",
             "--steps", "30", "--rounds", "3", "--stored-px", "256", "--precision", "bf16"),
            ("--models", "test_resnet:32", "--batch-size", "4", "--steps", "1", "--rounds", "1", "--threads", "1"), 90,
        ),
        Measurement(
            "rates", "For resources/rates.csv.",
            ("-m", "benchmarks.rates", "config/config.yaml", "{out}/rates.csv", "--images", "1024", "--few", "64",
             "--rounds", "2"),
            ("config/demo.yaml", "{out}/rates.csv", "--images", "8", "--few", "4", "--rounds", "1"), 120,
        ),
        Measurement(
            "outer precision", "", ("-m", "benchmarks.outer_precision", "--px", "224", "--requests", "3"),
            ("--px", "32", "--support", "2", "--forget", "4", "--requests", "1", "--threads", "1"), 60,
        ),
        Measurement(
            "input", "Goal: 2, 8 and 10 times faster.", ("-m", "benchmarks.input_speed", "--rounds", "3"),
            ("--share", "0.03", "--rounds", "1", "--workers", "1"), 60,
        ),
    ]  # fmt: skip


def run(
    measurement: Measurement, limit_s: float, python: str, variables: Mapping[str, str], out: Path, *, toy: bool,
    device: str,
) -> dict[str, Any]:  # fmt: skip
    """Run one, end it with all its children at its limit, and return what there is to say of it.

    Files that it makes go to ``out``.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [each.replace("{out}", str(out.resolve())) for each in measurement.arguments(toy, device)]
        with open(Path(folder, "out"), "w+") as printing, open(Path(folder, "err"), "w+") as saying:
            process = subprocess.Popen(
                [python, *arguments], stdout=printing, stderr=saying, stdin=subprocess.DEVNULL, cwd=ROOT,
                env={**variables, **hidden}, start_new_session=True,
            )  # fmt: skip
            try:
                status = "ok" if process.wait(limit_s) == 0 else f"failed with {process.returncode}"
            except subprocess.TimeoutExpired:
                status = f"stopped at its limit of {limit_s:.0f} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            printed, said = (file.seek(0) or file.read()[-_KEPT:] for file in (printing, saying))
    return {
        "name": measurement.name, "what": measurement.what, "status": status, "seconds": time.monotonic() - start,
        "printed": printed, "said": said,
    }  # fmt: skip


def to_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return a page: a line for each measurement, then what each printed, with its last words where it failed."""
    lines = ["# What one GPU did", "", "| measurement | status | s |", "|---|---|---:|"]
    lines += [f"| {each['name']} | {each['status']} | {each['seconds']:.0f} |" for each in results]
    for each in results:
        printed = each["printed"].strip()
        lines += ["", f"## {each['name']}", *(["", each["what"]] if each["what"] else [])]
        lines += ["", printed if "\n|" in printed else f"```\n{printed}\n```"] if printed else []
        if each["status"] != "ok":
            lines += ["", f"{each['status']}:", "", f"```\n{each['said'].strip()[-3000:]}\n```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    every = measurements()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="for all measurements together")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.jsonl, gpu.md and rates.csv")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that this machine lacks")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[each.name for each in every])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--toy", action="store_true", help="tiny networks and sets")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes - _RESERVE
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    with open(args.out / "gpu.jsonl", "w") as file, tempfile.TemporaryDirectory() as folder:
        python, variables = python_with(args.wheels, Path(folder, "python"))
        for each in every:
            if args.only and each.name not in args.only:
                continue
            left = end - time.monotonic()
            if left < _SHORTEST:
                found = {"name": each.name, "what": each.what, "status": "no time left", "seconds": 0.0,
                         "printed": "", "said": ""}  # fmt: skip
            else:
                limit_s = left if args.toy else min(each.limit_s, left)
                found = run(each, limit_s, python, variables, args.out, toy=args.toy, device=args.device)
            results.append(found)
            print(json.dumps(found), file=file, flush=True)
            os.fsync(file.fileno())
            (args.out / "gpu.md").write_text(to_markdown(results))
            print(f"{found['name']}: {found['status']}, {found['seconds']:.0f} s", flush=True)
    print(f"results: {args.out / 'gpu.md'}")
    return int(any(each["status"] != "ok" for each in results))


if __name__ == "__main__":
    sys.exit(main())
