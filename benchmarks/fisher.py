"""SSD's per-image Fisher diagonal against one backward pass per image.

    python -m benchmarks.fisher                                             # CPU
    python -m benchmarks.fisher --models vit_base_patch16_224:224 --images 512 --micro-batches 16 32    # GPU

Both compute the sum over images of squared gradients of each image's loss. Variants take turns on fresh images; the
figures are medians of the ratio in one round.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from benchmarks.measuring import TASK, describe
from torch import Tensor, nn

from oneshui.devices import Cost, choose_device
from oneshui.methods.ssd import ImageGradients
from oneshui.models import ModelSpec, build_model


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The plain way: a backward pass per image."""
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        TASK.losses(model(image[None]), label[None])[0].backward()
        for name, value in model.named_parameters():
            assert value.grad is not None
            total[name] += value.grad.square()
    return total


def timed(run: Callable[[], dict[str, Tensor]], device: torch.device) -> tuple[float, dict[str, Tensor]]:
    """Return wall time and result of ``run``."""
    with Cost(device) as cost:
        result = run()
    return cost.seconds, result


def one_round(
    model: nn.Module, gradients: ImageGradients, px: int, n: int, device: torch.device
) -> tuple[float, float, float]:
    """Return seconds of ours and of the plain way on the same fresh images, and the largest relative error."""
    images = torch.randn(n, 3, px, px, device=device)
    labels = torch.randint(0, 2, (n, 40), device=device)
    ours, found = timed(lambda: gradients(images, labels), device)
    plain, wanted = timed(lambda: one_by_one(model, images, labels), device)
    return ours, plain, max(float((found[name] - w).norm() / w.norm()) for name, w in wanted.items() if w.any())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet10t:64", "vit_tiny_patch16_224:64"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    print(f"{args.images} images, 40 attributes; {describe(device)}; median of {args.rounds}\n")
    print("| model | micro_batch | ms an image | one backward an image, ms | times faster | largest relative error |")
    print("|---|---|---|---|---|---|")
    for name in args.models:
        architecture, px = name.split(":")
        torch.manual_seed(0)
        model = build_model(ModelSpec(architecture, TASK, int(px), 0.5, 0.5)).to(device)
        for micro_batch in args.micro_batches:
            gradients = ImageGradients(model, TASK, micro_batch)
            one_round(model, gradients, int(px), args.images, device)  # warm-up
            rounds = [one_round(model, gradients, int(px), args.images, device) for _ in range(args.rounds)]
            ours, plain, error = zip(*rounds, strict=True)
            ratio = statistics.median(p / o for o, p in zip(ours, plain, strict=True))
            each = [1000 * statistics.median(part) / args.images for part in (ours, plain)]
            print(f"| {name} | {micro_batch} | {each[0]:.2f} | {each[1]:.2f} | {ratio:.2f} | {max(error):.1g} |")


if __name__ == "__main__":
    main()
