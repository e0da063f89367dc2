"""Where a GPU's time goes: kernels of a training step and of simulated requests, and attention in float32.

    python -m benchmarks.kernels                                                    # ViT-B/16, ViT-S/14 on one GPU
    python -m benchmarks.kernels --models test_resnet:32 --meta test_resnet:32 --batch-size 4 --people 40 --heads 2

On a CPU the profiler tells operations, which hold one another, in place of kernels.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import yaml
from benchmarks.measuring import TASK, describe, random_images
from benchmarks.training_step import seconds, trainer_on
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from oneshui.config import method_spec
from oneshui.devices import Cost, choose_device
from oneshui.methods import make_method
from oneshui.models import ModelSpec, build_model
from oneshui.replay import WARM_UP
from oneshui.sets import InputSpec

ROOT = Path(__file__).resolve().parents[1]
EACH = 5


def kernels(work: Callable[[], object], units: float, device: torch.device, most: int) -> str:
    """Return a table of what took most of ``work``, which does so many units of something."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiled:
        work()
    found: dict[str, list[float]] = {}
    for event in profiled.events() or []:
        if is_kernel(event) or not cuda:
            found.setdefault(event.name, []).append((event.device_time if cuda else event.cpu_time) / 1e3)
    total = sum(map(sum, found.values()))
    lines = [f"{total / units:.2f} ms\n", "| ms | share | calls | kernel |", "|---:|---:|---:|---|"]
    for name, times in sorted(found.items(), key=lambda each: -sum(each[1]))[:most]:
        spent = sum(times)
        lines.append(f"| {spent / units:.3f} | {spent / total:.1%} | {len(times) / units:.1f} | `{name[:90]}` |")
    return "\n".join(lines)


def is_kernel(event: FunctionEvent) -> bool:
    """Tell kernels from what the host did, and from ranges that it named."""
    return event.device_type.name == "CUDA" and not event.is_user_annotation


def attention(shape: tuple[int, ...], device: torch.device) -> str:
    """Return a table of fused attention and of plain matrix products: time and distance from float64."""
    inputs = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    by_output = torch.randn(shape, device=device)

    def both(*given: Tensor) -> tuple[Tensor, ...]:
        answer = scaled_dot_product_attention(*given)
        return answer, *torch.autograd.grad(answer, given, by_output.to(answer.dtype))

    def milliseconds(run: Callable[[], object]) -> float:
        times = []
        for _ in range(10):
            with Cost(device) as cost:
                run()
            times.append(1e3 * cost.seconds)
        return statistics.median(times[3:])

    exact = [each.detach().double().requires_grad_() for each in inputs]
    with sdpa_kernel(SDPBackend.MATH):
        wanted = both(*exact)
    lines = ["| attention | ms | with its gradient, ms | largest distance from float64's |", "|---|---:|---:|---:|"]
    fused = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION]
    for name, backends in (("fused", fused), ("matrix products", [SDPBackend.MATH])):
        with sdpa_kernel(backends):
            forward = milliseconds(lambda: scaled_dot_product_attention(*inputs))
            whole = milliseconds(lambda: both(*inputs))
            found = both(*inputs)
        distances = [float((one.double() - other).norm() / other.norm())
                     for one, other in zip(found, wanted, strict=True)]  # fmt: skip
        lines.append(f"| {name} | {forward:.3f} | {whole:.3f} | {max(distances):.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_base_patch16_224:224", "vit_small_patch14_dinov2:224"])
    parser.add_argument("--meta", default="vit_base_patch16_224:224", help="network of the simulated requests")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--people", type=int, default=200, help="of the simulated requests")
    parser.add_argument("--heads", type=int, default=12, help="of attention, 64 images of 197 tokens on a GPU")
    parser.add_argument("--most", type=int, default=20, help="rows of a table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    stored = (256, 256) if device.type == "cuda" else (64, 64)
    print(f"Training in bf16, the rest in float32; {describe(device)}; once")
    for name in args.models:
        model, px = name.split(":")
        trainer = trainer_on(
            random_images(1024, stored, InputSpec(int(px), 0.5, 0.5), device), model, "bf16", args.batch_size
        )
        seconds(trainer, WARM_UP + 2)
        steps = kernels(partial(seconds, trainer, 5), 5, device, args.most)
        print(f"\nA step of `{name}`, {args.batch_size} images: {steps}", flush=True)
    model, px = args.meta.split(":")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    method = make_method({**method_spec(config["methods"], "metaunlearn", "celebahq", 20), "epochs": 1})
    network = build_model(ModelSpec(model, TASK, int(px), 0.5, 0.5)).to(device)
    train, val = (random_images(n, stored, InputSpec(int(px), 0.5, 0.5), device, each=EACH)
                  for n in (args.people * EACH, 320))  # fmt: skip
    requests = args.people / method.simulated_n
    found = kernels(lambda: method.precompute(network, train, val, seed=0), requests, device, args.most)
    print(f"\nA simulated request of `{args.meta}`, {method.simulated_n} people: {found}\n", flush=True)
    print(attention((64 if device.type == "cuda" else 2, args.heads, 197, 64), device))


if __name__ == "__main__":
    main()
