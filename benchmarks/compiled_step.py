"""Time a training step of a network that ``torch.compile`` compiled against the same step as oneshui runs it.

python -m benchmarks.compiled_step                                          # two small networks, on the CPU or a GPU
python -m benchmarks.compiled_step --models vit_base_patch16_224:224 --batch-size 128 --precision bf16

Both steps train the same network on the same batch. Compiling is timed in this process with an empty cache of its own,
so it is what the first job of a machine pays. After ``steps to pay`` steps the compiled network is ahead.
"""

import argparse
import math
import os
import statistics
import tempfile

import torch
from benchmarks.measuring import TASK, describe
from torch import Tensor, nn

from oneshui.devices import Cost, choose_device
from oneshui.models import ModelSpec, build_model


def step_of(network: nn.Module, like: nn.Module, images: Tensor, labels: Tensor, precision: str) -> None:
    """One step of plain SGD on ``network``, whose parameters are those of ``like``."""
    bf16 = precision == "bf16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = network(images)
    TASK.losses(logits.float(), labels).mean().backward()
    with torch.no_grad():
        for parameter in like.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-3)
                parameter.grad = None


def measure(model: str, px: int, device: torch.device, args: argparse.Namespace) -> str:
    """Return a row of the table."""
    torch.manual_seed(0)
    plain = build_model(ModelSpec(model, TASK, px, 0.5, 0.5)).to(device).train()
    compiled = torch.compile(plain)
    labels = torch.randint(0, 2, (args.batch_size, TASK.n_outputs), device=device)

    def seconds(network: nn.Module, steps: int) -> float:
        images = torch.randn(args.batch_size, 3, px, px, device=device)
        with Cost(device) as cost:
            for _ in range(steps):
                step_of(network, plain, images, labels, args.precision)
        return cost.seconds / steps

    seconds(plain, 2)
    compiling = seconds(compiled, 1)
    seconds(compiled, 2)
    rounds = [(seconds(plain, args.steps), seconds(compiled, args.steps)) for _ in range(args.rounds)]
    eager, fast = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(before / after for before, after in rounds)
    pays = f"{math.ceil(compiling / (eager * (1 - 1 / ratio))):,}" if ratio > 1 else "never"
    return f"| `{model}`, {px} px | {1e3 * eager:.1f} | {1e3 * fast:.1f} | {ratio:.2f} | {compiling:.1f} | {pays} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet10t:64", "vit_tiny_patch16_224:224"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    print(f"Batches of {args.batch_size}, {args.precision}; {describe(device)}; median of {args.rounds}\n")
    print("| network | ms a step | compiled | ratio | s to compile | steps to pay |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for name in args.models:
            model, px = name.split(":")
            print(measure(model, int(px), device, args), flush=True)


if __name__ == "__main__":
    main()
