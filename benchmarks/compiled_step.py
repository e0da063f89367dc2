"""A training step whose network ``torch.compile`` compiled against the same step without.

    python -m benchmarks.compiled_step                                      # two small networks in batches of 32
    python -m benchmarks.compiled_step --models vit_base_patch16_224:224:128 --precision bf16

Both are the package's own steps with their input; a GPU replays both. Compiling is timed in a process of its own with
an empty cache, so it is what the first job of a machine pays, and again with what that left, as later jobs pay it.
After ``steps to pay`` steps the compiled network is ahead.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile

import torch
from benchmarks.measuring import describe, random_images
from benchmarks.training_step import seconds, trainer_on

from oneshui.devices import Cost, choose_device
from oneshui.replay import WARM_UP
from oneshui.sets import ImageSet, InputSpec
from oneshui.training import Trainer


def compiled_trainer(images: ImageSet, model: str, precision: str, batch_size: int) -> tuple[Trainer, float]:
    """Return a trainer whose network is compiled, and the seconds that it took."""
    trainer = trainer_on(images, model, precision, batch_size)
    with Cost(images.device) as cost:
        trainer._network = trainer._compiled()
    if trainer._network is trainer.model:
        raise SystemExit(f"{model} was not compiled; the log says why")
    return trainer, cost.seconds


def measure(name: str, device: torch.device, args: argparse.Namespace) -> str:
    """Return a row of the table, or with ``--only-compile`` the seconds that compiling took."""
    model, px, batch_size = name.split(":")[0], *map(int, name.split(":")[1:])
    images = random_images(1024, (args.stored_px, args.stored_px), InputSpec(px, 0.5, 0.5), device)
    what = images, model, args.precision, batch_size
    if args.only_compile:
        return str(compiled_trainer(*what)[1])
    command = [sys.executable, "-m", "benchmarks.compiled_step", *sys.argv[1:], "--only-compile", name]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        compiling, again = (
            float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
            for _ in range(2)
        )
        fast, _ = compiled_trainer(*what)
    trainers = (trainer_on(*what), fast)
    for trainer in trainers:
        seconds(trainer, WARM_UP + 2 if device.type == "cuda" else 2)
    rounds = [[seconds(trainer, args.steps) / args.steps for trainer in trainers] for _ in range(args.rounds)]
    before, after = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other in rounds)
    pays = [f"{math.ceil(each / (before - after)):,}" if ratio > 1 else "never" for each in (compiling, again)]
    cells = [f"{1e3 * before:.2f}", f"{1e3 * after:.2f}", f"{ratio:.2f}", f"{batch_size / after:,.0f}",
             f"{compiling:.1f}", pays[0], f"{again:.1f}", pays[1]]  # fmt: skip
    return f"| `{model}`, {px} px, {batch_size} images | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet10t:64:32", "vit_tiny_patch16_224:224:32"],
                        metavar="NETWORK:PX:BATCH")  # fmt: skip
    parser.add_argument("--stored-px", type=int, default=128, help="side of the decoded images")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only-compile", metavar="NETWORK:PX:BATCH", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    if args.only_compile:
        print(measure(args.only_compile, device, args))
        return
    print(f"Images of {args.stored_px} px, {args.precision}; {describe(device)}; median of {args.rounds}\n")
    print("| network | ms a step | compiled | ratio | compiled, images/s | s to compile | steps to pay "
          "| s to compile again | steps to pay |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for name in args.models:
        print(measure(name, device, args), flush=True)


if __name__ == "__main__":
    main()
