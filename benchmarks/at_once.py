"""Trainings that share one device, against the same trainings one after the other.

    python -m benchmarks.at_once                                      # a small network, on the CPU or a GPU
    python -m benchmarks.at_once --model vit_small_patch14_dinov2 --px 224 --precision bf16 --trainings 3

Each is a process of its own, as jobs are. All are ready before anything is timed; then the first one runs alone, then
all run at once. A share below 1 says that the device had time left while one ran alone.
"""

import argparse
import subprocess
import sys
import time

import torch
from benchmarks.measuring import describe, random_images
from benchmarks.training_step import seconds, trainer_on

from oneshui.devices import choose_device
from oneshui.replay import WARM_UP
from oneshui.sets import InputSpec


def serve(args: argparse.Namespace) -> None:
    """Train for a while whenever a line comes in, and say so when it is done."""
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    images = random_images(1024, (128, 128), InputSpec(args.px, 0.5, 0.5), device)
    trainer = trainer_on(images, args.model, args.precision, args.batch_size)
    seconds(trainer, WARM_UP + 2)
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds(trainer, args.steps)
        print("done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--trainings", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args)
        return
    options = [f"--{name.replace('_', '-')}={value}" for name, value in vars(args).items() if name != "serve"]
    command = [sys.executable, "-m", "benchmarks.at_once", "--serve", *options]
    jobs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(args.trainings)]  # fmt: skip

    def timed(some: list[subprocess.Popen[str]]) -> float:
        start = time.perf_counter()
        for job in some:
            print(file=job.stdin, flush=True)
        if any(not job.stdout.readline() for job in some):
            raise SystemExit("a training ended before it was done")
        return time.perf_counter() - start

    if any(not job.stdout.readline() for job in jobs):
        raise SystemExit("a training ended before it began")
    alone, together = timed(jobs[:1]), timed(jobs)
    for job in jobs:
        job.stdin.close()
        job.wait()
    rate = args.steps * args.batch_size
    device = torch.device(args.device)
    print(f"{args.trainings} trainings, batches of {args.batch_size}, {args.precision}; {describe(device)}; once\n")
    print("| network | alone, images/s | at once, images/s in all | share of the time one after the other |")
    print("|---|---:|---:|---:|")
    print(f"| `{args.model}`, {args.px} px | {rate / alone:,.0f} | {args.trainings * rate / together:,.0f} | "
          f"{together / (args.trainings * alone):.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
