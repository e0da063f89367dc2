"""The exact meta-gradient of MetaUnlearn against double backward: time and peak memory of one simulated request.

    python -m benchmarks.meta_gradient                        # CPU, vit_tiny at 224 px, 20 support, 64 forget images
    python -m benchmarks.meta_gradient --model vit_base_patch16_224 --support 50 --forget 200 --micro-batch 50 # GPU

Every measurement runs in a process of its own, so that peak memory is its own; variants take turns. Both variants
compute the same thing: the unlearning step, A on the forget images paired with validation images (equation 6), and
dA/dphi. The reference keeps the whole second-order graph, as published codes do.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from benchmarks.measuring import TASK, describe
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneshui.devices import choose_device
from oneshui.methods.metaloss import Backbone, MetaLoss, SupportBatch
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.outer import Eq6, ValidationReference
from oneshui.models import ModelSpec, build_model
from oneshui.replay import WARM_UP
from oneshui.sets import ImageSet

#: variant -> (jvp, cut into micro-batches)
VARIANTS = {
    "double backward": None,
    "exact jvp": ("exact", False),
    "exact jvp, micro-batches": ("exact", True),
    "finite difference, micro-batches": ("finite_difference", True),
}


def inputs(
    args: argparse.Namespace, device: torch.device
) -> tuple[Backbone, MetaLoss, SupportBatch, ImageSet, ImageSet]:
    """Return fresh random inputs of the asked sizes."""
    torch.manual_seed(args.seed)
    model = build_model(ModelSpec(args.model, TASK, args.px, 0.5, 0.5)).to(device)
    backbone = Backbone(model)
    features = backbone(backbone.theta, torch.zeros(1, 3, args.px, args.px, device=device))[0].shape[1]
    meta_loss = MetaLoss(
        n_outputs=40, n_features=features, n_identities=args.support, hidden=512, dropout=0.0,
        inputs=("logits", "features", "target", "identity"),
    ).to(device)  # fmt: skip

    def images(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 3, args.px, args.px, device=device), torch.randint(0, 2, (n, 40), device=device)

    photos, labels = images(args.support)
    support = SupportBatch(photos, labels.float(), torch.arange(args.support, device=device))
    return (
        backbone,
        meta_loss,
        support,
        ImageSet.of_inputs(*images(args.forget), TASK),
        ImageSet.of_inputs(*images(64), TASK),
    )


def ours(args: argparse.Namespace, variant: str, backbone: Backbone, meta_loss: MetaLoss, support: SupportBatch,
         forget: ImageSet, val: ImageSet) -> float:  # fmt: skip
    """One meta-gradient by vector-Jacobian product and jvp; returns its norm."""
    jvp, micro = VARIANTS[variant] or ("exact", False)
    size = args.micro_batch if micro else 10**6
    method = MetaUnlearn(
        inner_lr=0.1, lr=1e-4, epochs=1, simulated_n=args.support, batch_size=10**6, micro_batch=size, hidden=512,
        dropout=0.0, inputs=meta_loss.inputs, outer_loss="equation_6", terms="both", accuracy_weight=False,
        distance="smooth_l1", val_gradient=False, frozen=(), jvp=jvp,
    )  # fmt: skip
    step = method.inner_step(backbone, meta_loss, support)
    outer = Eq6(method, backbone, forget, val, ValidationReference(0.7, 0.5), np.random.default_rng(0))(step.theta)
    method.accumulate_meta_gradient(backbone, support, step, outer.gradient)
    return norm(meta_loss)


def double_backward(backbone: Backbone, meta_loss: MetaLoss, support: SupportBatch, forget: ImageSet,
                    val: ImageSet) -> float:  # fmt: skip
    """The same gradient through a second-order graph over the whole network."""
    theta = {name: value.clone().requires_grad_() for name, value in backbone.theta.items()}

    def logits_of(parameters: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(backbone.module, {**parameters, **backbone.buffers}, (images,))

    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        features, logits = logits_of(theta, support.images)
        h = meta_loss(features, logits, support.targets, support.rows).mean()
        gradients = torch.autograd.grad(h, list(theta.values()), create_graph=True)
        moved = {name: value - 0.1 * g for (name, value), g in zip(theta.items(), gradients, strict=True)}
        forgotten = TASK.losses(logits_of(moved, forget.pixels)[1], forget.labels).mean()
        with torch.no_grad():
            unseen = TASK.losses(logits_of(moved, val.pixels)[1], val.labels).mean()
        outer = F.smooth_l1_loss(forgotten, unseen) + F.smooth_l1_loss(
            forgotten, torch.tensor(0.7, device=unseen.device)
        )
        outer.backward(inputs=list(meta_loss.parameters()))
    return norm(meta_loss)


def norm(meta_loss: MetaLoss) -> float:
    """Norm of the gradient, a check that variants agree."""
    return float(torch.stack([p.grad.norm() for p in meta_loss.parameters() if p.grad is not None]).norm())


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Run one variant ``repeats`` times in this process."""
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    parts = inputs(args, device)
    before = peak_mb(device)
    seconds = []
    warm_up = WARM_UP + 2 if device.type == "cuda" else 1  # imports, caches, recordings
    for _ in range(warm_up + args.repeats):
        for parameter in parts[1].parameters():
            parameter.grad = None
        start = time.perf_counter()
        found = double_backward(*parts) if args.variant == "double backward" else ours(args, args.variant, *parts)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[warm_up:]), "mb": peak_mb(device) - before, "norm": found}


def peak_mb(device: torch.device) -> float:
    """Return the peak memory so far: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def in_process(args: argparse.Namespace, variant: str, support: int) -> dict[str, float]:
    """Measure one variant in a fresh process."""
    given = {**vars(args), "variant": variant, "support": support}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if name != "sizes"]
    command = [sys.executable, "-m", "benchmarks.meta_gradient", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--support", type=int, default=20)
    parser.add_argument("--forget", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[10, 30, 100], help="support images for the memory table"
    )
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args)))
        return
    torch.set_num_threads(args.threads)
    print(f"{args.model} at {args.px} px, {args.support} support, {args.forget} forget, 64 validation images; "
          f"{describe(torch.device(args.device))}; median of {args.repeats}\n")  # fmt: skip
    print("| variant | s | times faster | peak MB | share of memory | gradient norm |\n|---|---|---|---|---|---|")
    found = {variant: in_process(args, variant, args.support) for variant in VARIANTS}
    base = found["double backward"]
    for variant, r in found.items():
        print(f"| {variant} | {r['seconds']:.2f} | {base['seconds'] / r['seconds']:.2f} | {r['mb']:.0f} | "
              f"{r['mb'] / base['mb']:.2f} | {r['norm']:.6g} |")  # fmt: skip
    print(f"\nPeak MB by support images (micro-batches of {args.micro_batch}):\n")
    print("| support | exact jvp, micro-batches | double backward |\n|---|---|---|")
    for size in args.sizes:
        cells = [f"{in_process(args, v, size)['mb']:.0f}" for v in ("exact jvp, micro-batches", "double backward")]
        print(f"| {size} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
