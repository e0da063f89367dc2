"""What the meta-gradient of MetaUnlearn loses if the outer passes compute in bfloat16 (``outer_precision``).

    python -m benchmarks.outer_precision
    python -m benchmarks.outer_precision --model vit_small_patch14_dinov2 --px 224 --weights FILE       # real weights

One simulated request in float64, in float32, on a GPU in TF32 (float32 whose matrix products round, as jobs there
compute), and with outer passes in bfloat16 while the rest of a request (step, J v) is as without it. Medians over
requests of random images.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from benchmarks.measuring import TASK, describe
from torch import Tensor

from oneshui.devices import choose_device
from oneshui.methods import outer
from oneshui.methods.metaloss import Backbone, MetaLoss, SupportBatch
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.outer import Eq6, ValidationReference
from oneshui.models import ModelSpec, build_model
from oneshui.sets import ImageSet

#: numbers, precision of the outer passes, and of float32's matrix products (``high``: TF32 on a GPU, as in every job)
CASES = {
    "float64": (torch.float64, "fp32", "highest"),
    "float32": (torch.float32, "fp32", "highest"),
    "TF32": (torch.float32, "fp32", "high"),
    "bf16": (torch.float32, "bf16", "high"),
}


def gradient(case: str, request: int, args: argparse.Namespace, device: torch.device) -> tuple[Tensor, float]:
    """Return the meta-gradient of one request, flat, and A."""
    dtype, precision, products = CASES[case]
    torch.set_float32_matmul_precision(products)
    torch.manual_seed(0)
    spec = ModelSpec(args.model, TASK, args.px, 0.5, 0.5)
    backbone = Backbone(build_model(spec, weights=args.weights).to(device, dtype))
    width = backbone(backbone.theta, torch.zeros(1, 3, args.px, args.px, device=device, dtype=dtype))[0].shape[1]
    inputs = ("logits", "features", "target", "identity")
    meta_loss = MetaLoss(n_outputs=40, n_features=width, n_identities=args.support, inputs=inputs, hidden=512,
                         dropout=0.0).to(device, dtype)  # fmt: skip
    method = MetaUnlearn(
        inner_lr=args.inner_lr, lr=1e-4, epochs=1, simulated_n=args.support, batch_size=args.forget, hidden=512,
        micro_batch=args.forget, dropout=0.0, inputs=inputs, outer_loss="equation_6", terms="both",
        accuracy_weight=True, distance="smooth_l1", val_gradient=False, frozen=(), jvp="exact",
        outer_precision=precision,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(request + 1)

    def images(n: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randn(n, 3, args.px, args.px, generator=draw)
        return pixels.to(device, dtype), torch.randint(0, 2, (n, 40), generator=draw).to(device)

    photos, labels = images(args.support)
    support = SupportBatch(photos, labels.to(dtype), torch.arange(args.support, device=device))
    forget, val = (ImageSet.of_inputs(*images(args.forget), TASK) for _ in range(2))
    step = method.inner_step(backbone, meta_loss, support)
    found = Eq6(method, backbone, forget, val, ValidationReference(0.6, 0.6), np.random.default_rng(0))(step.theta)
    method.accumulate_meta_gradient(backbone, support, step, found.gradient)
    parts = [value.grad.double().flatten() for value in meta_loss.parameters() if value.grad is not None]
    return torch.cat(parts), found.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--weights", type=Path, help="initial weights, safetensors; random without")
    parser.add_argument("--support", type=int, default=10)
    parser.add_argument("--forget", type=int, default=32, help="as many validation images")
    parser.add_argument("--inner-lr", type=float, default=0.01)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    outer.LOWERED = ("cpu", "cuda")
    weights = args.weights.name if args.weights else "random weights"
    print(f"`{args.model}` at {args.px} px, {weights}; {args.support} support, {args.forget} forget and validation "
          f"images; {describe(device)}; median of {args.requests}\n")  # fmt: skip
    print("| outer passes in | distance of the meta-gradient from float64's | cosine with it | distance of A |")
    print("|---|---:|---:|---:|")
    cases = ("float32", "TF32", "bf16") if device.type == "cuda" else ("float32", "bf16")
    rows: dict[str, list[tuple[float, float, float]]] = {case: [] for case in cases}
    for request in range(args.requests):
        wanted, value = gradient("float64", request, args, device)
        for case, found in rows.items():
            got, here = gradient(case, request, args, device)
            cosine = float(torch.nn.functional.cosine_similarity(got, wanted, dim=0))
            found.append((float((got - wanted).norm() / wanted.norm()), cosine, abs(here - value) / abs(value)))
    for case, found in rows.items():
        distance, cosine, of_value = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {case} | {distance:.1e} | {cosine:.6f} | {of_value:.1e} |")


if __name__ == "__main__":
    main()
