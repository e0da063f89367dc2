"""What one image costs on this machine, for every network of a configuration: the rates that plans are made from.

    python -m benchmarks.rates config/mufac_small.yaml resources/rates.csv
    python -m benchmarks.rates config/config.yaml resources/rates.csv          # ViT-B/16, where there is a GPU

Random images go through the package's own code: training steps, scoring, SSD's Fisher diagonal and PGU's Gram matrices
and eigenvectors, the last three where the configuration has these methods. On a GPU training steps are those of a
compiled network, as in long trainings, or with --plain of one that is not, as in short trainings; in the other
precision, in which methods train, always the second. Rounds take turns, the first one warms up, medians count. A GPU is
timed by the clock on the wall; on a CPU one thread computes and the time of the core counts, which depends little on
what else is busy. In OUT.csv a row of the same machine, network and precision is replaced, but for columns of methods
that this configuration does not have; other rows stay.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from benchmarks.measuring import TASK, describe, random_images

from oneshui.compiling import COMPILING
from oneshui.config import TrainSpec
from oneshui.devices import choose_device
from oneshui.errors import ConfigError
from oneshui.files import write_text
from oneshui.methods import make_method
from oneshui.methods.edit_points import edit_points, matrix_of
from oneshui.methods.pgu import input_grams
from oneshui.models import ModelSpec, build_model, features_and_logits, save_model
from oneshui.planning.rates import OPTIONAL, Rate, read_rates
from oneshui.resume import Resume
from oneshui.scoring import score_images
from oneshui.sets import ImageSet
from oneshui.stages.images import input_of
from oneshui.tensors import cut
from oneshui.training import Trainer

#: what a job does before it starts to work
WITH_TORCH = """
import sys
from pathlib import Path
from oneshui.startup import quick_imports
with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.models import load_model
    from oneshui.stages.score_model import score_model
load_model(Path(sys.argv[1]), choose_device(gpus=int(sys.argv[2]), threads=1))
"""
WITHOUT_TORCH = "import oneshui.stages.measure_model"


def clock(device: torch.device) -> float:
    """Seconds of the clock on the wall for a GPU, of this process's cores for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Return what ``work`` takes."""
    start = clock(device)
    work()
    return clock(device) - start


def one_epoch(trainer: Trainer, images: ImageSet) -> None:
    """Train on all images once."""
    trainer.model.train()
    generator = torch.Generator().manual_seed(0)
    for rows in cut(torch.arange(len(images)), trainer.spec.batch_size):
        trainer._step(rows, images.labels[rows.to(images.device)], generator)


def score(trainer: Trainer, images: ImageSet) -> None:
    """Put all images through the network as scoring does, in the trainer's precision."""
    trainer.model.eval()
    with trainer._autocast():
        score_images(trainer.model, images)


def work_of(trainer: Trainer, images: ImageSet, methods: Mapping[str, Any], few: int) -> dict[str, Any]:
    """Return what is timed, by the column of the rates: a function and how many images it takes."""
    model, n = trainer.model, len(images)
    work: dict[str, Any] = {
        "train_s": (lambda: one_epoch(trainer, images), n),
        "forward_s": (lambda: score(trainer, images), n),
    }
    some = images.subset(torch.arange(few))
    if "ssd" in methods:
        ssd = replace(methods["ssd"], fisher="image")
        work["fisher_s"] = (lambda: ssd.precompute(model.eval(), some, some, seed=0), few)
    if "pgu" in methods:
        pgu = methods["pgu"]
        grams = pgu.precompute(model.eval(), some, some, seed=0).tensors
        photo = input_grams(model, iter([some.images(torch.arange(1))]))
        work["gram_s"] = (lambda: pgu.precompute(model.eval(), some, some, seed=0), few)
        work["eigh_s"] = (lambda: [pgu.projection(gram, photo[name]) for name, gram in grams.items()], 1)
    return work


def measure(trainer: Trainer, images: ImageSet, methods: Mapping[str, Any], few: int, rounds: int) -> dict[str, Any]:
    """Return the rates of one network in one precision and the sizes of what it keeps."""
    work = work_of(trainer, images, methods, few)
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(1 + rounds):
        for name, (run, n) in work.items():
            found[name].append(timed(run, images.device) / n)
    one = images.images(torch.arange(1))
    with torch.no_grad():
        features = features_and_logits(trainer.model, one)[0].shape[1]
    sizes = {"parameters": sum(p.numel() for p in trainer.model.parameters()), "features": features}
    if "gram_s" in work:
        sizes["grams"] = sum(gram.numel() for gram in input_grams(trainer.model.eval(), iter([one])).values())
    with contextlib.suppress(ConfigError):  # there is no such layer
        points = edit_points(trainer.model.eval(), images.images(torch.arange(2)), 1)
        layers = [trainer.model.get_submodule(point.layer) for point in points]
        sizes["edit_width"] = sum(sum(matrix_of(layer).shape) for layer in layers)
    absent = dict.fromkeys(OPTIONAL, math.nan)
    return {**absent, **{name: statistics.median(values[1:]) for name, values in found.items()}, **sizes}


def start_of_a_job(device: torch.device, rounds: int) -> dict[str, float]:
    """Return seconds that a child process takes to import what a job needs, and with torch to load a tiny model."""
    spec = ModelSpec("test_resnet", TASK, 32, 0.5, 0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, build_model(spec), spec, {})
        arguments = [str(path), str(int(device.type == "cuda"))]
        found: dict[str, list[float]] = {"job_s": [], "light_job_s": []}
        for _ in range(1 + rounds):
            for name, code in zip(found, (WITH_TORCH, WITHOUT_TORCH), strict=True):
                start = children_clock(device)
                subprocess.run([sys.executable, "-c", code, *arguments], check=True)
                found[name].append(children_clock(device) - start)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def children_clock(device: torch.device) -> float:
    """Like ``clock``, for the work of child processes."""
    if device.type == "cuda":
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def networks(config: Mapping[str, Any], device: torch.device) -> dict[tuple[str, str, int, str], str]:
    """Return a dataset for each distinct network, with its precisions: training's, and fp32 for everything else."""
    found: dict[tuple[str, str, int, str], str] = {}
    for dataset, training in config["training"].items():
        options = json.dumps(training["model_options"], sort_keys=True)
        for precision in sorted({training["precision"], "fp32"} if device.type == "cuda" else {"fp32"}):
            key = (training["model"].partition(".")[0], options, training["input_px"], precision)
            found.setdefault(key, dataset)
    return found


def machine_name(device: torch.device) -> str:
    """Return the GPU's name, or the number of cores and what they are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor() or platform.machine()}"


def rates_of(config: Mapping[str, Any], device: torch.device, args: argparse.Namespace) -> Iterator[Rate]:
    """Yield the rates of each network of a configuration."""
    methods = {entry["kind"]: make_method({"kind": entry["kind"], **entry["params"]})
               for entry in reversed(config["methods"].values()) if entry["kind"] in ("ssd", "pgu")}  # fmt: skip
    start = start_of_a_job(device, args.rounds)
    measured = f"measured: median of {args.rounds}, {describe(device)}"
    for (model, options, px, precision), dataset in networks(config, device).items():
        spec = TrainSpec.from_dict({**config["training"][dataset], "precision": precision})
        model_spec = ModelSpec.of_training(replace(spec, input_px=px), TASK)
        images = random_images(
            args.images, tuple(config["datasets"][dataset]["stored_px"]), input_of(model_spec), device
        )
        torch.manual_seed(0)
        network = build_model(model_spec).to(device)
        trainer = Trainer(network, spec, images, images, stream=("rates",), resume=Resume(None, "", images.device))
        compiling = (
            device.type in COMPILING and not args.plain and precision == config["training"][dataset]["precision"]
        )
        if compiling:
            trainer._network = trainer._compiled()
            if trainer._network is network:
                raise SystemExit(f"{model} was not compiled; the log says why. --plain measures without")
        others = methods if precision == "fp32" else {}
        found = measure(trainer, images, others, min(args.few, args.images), args.rounds)
        print(f"{model} at {px} px, {precision}: {found}", flush=True)
        steps = f"training steps {'' if compiling else 'not '}compiled" if device.type == "cuda" else ""
        yield Rate(
            machine=args.machine or machine_name(device), device=device.type, model=model, options=options, px=px,
            precision=precision, **found, **start,
            source="; ".join(filter(None, [measured, steps, args.note])),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, help="of a training round; 256 on a CPU, 4096 on a GPU")
    parser.add_argument("--few", type=int, help="for Fisher diagonal and Gram matrices; 64 on a CPU, 512 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="training steps of networks that are not compiled")
    parser.add_argument("--machine", help="its name in the file")
    parser.add_argument("--note", help="what else there is to say about the figures")
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text())
    device = choose_device(gpus=int(config["device"] != "cpu"), threads=1)
    on_gpu = device.type == "cuda"
    args.images, args.few = args.images or (4096 if on_gpu else 256), args.few or (512 if on_gpu else 64)
    rates = {
        (rate.machine, rate.device, rate.key): rate for rate in (read_rates(args.out) if args.out.exists() else [])
    }
    for rate in rates_of(config, device, args):
        place = rate.machine, rate.device, rate.key
        known = {name: getattr(rates[place], name) for name in OPTIONAL} if place in rates else {}
        rates[place] = replace(
            rate, **{name: value for name, value in known.items() if math.isnan(getattr(rate, name))}
        )
        table = pd.DataFrame([asdict(each) for each in rates.values()])
        write_text(args.out, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


if __name__ == "__main__":
    main()
