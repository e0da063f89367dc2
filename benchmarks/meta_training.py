"""MetaUnlearn's meta-training at the size of CelebA-HQ, 20 people a request: before the data is deleted.

    python -m benchmarks.meta_training                              # one GPU: ViT-B/16, 18,000 images of 256 px
    python -m benchmarks.meta_training --model resnet10t --input-px 32 --stored-px 32 --images 600 --val 100 --epochs 1

Pixels and labels are random, which arithmetic does not notice; people have 5 images each, about as in CelebA-HQ (4.8).
Hyper-parameters are those of config/config.yaml, the method is called as ``precompute_artefact`` calls it.
"""

import argparse
from pathlib import Path

import torch
import yaml
from benchmarks.measuring import TASK, describe, random_images

from oneshui.config import method_spec
from oneshui.devices import Cost, choose_device
from oneshui.methods import make_method
from oneshui.models import ModelSpec, build_model
from oneshui.sets import InputSpec

ROOT = Path(__file__).resolve().parents[1]
EACH = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--images", type=int, default=18_000)
    parser.add_argument("--val", type=int, default=6_000)
    parser.add_argument("--stored-px", type=int, default=256)
    parser.add_argument("--input-px", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--outer-precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    spec = method_spec(config["methods"], "metaunlearn", "celebahq", 20)
    method = make_method({**spec, "epochs": args.epochs, "outer_precision": args.outer_precision})
    torch.manual_seed(0)
    model = build_model(ModelSpec(args.model, TASK, args.input_px, 0.5, 0.5)).to(device)
    stored, shown = (args.stored_px, args.stored_px), InputSpec(args.input_px, 0.5, 0.5)
    train, val = (random_images(n, stored, shown, device, each=EACH) for n in (args.images, args.val))
    with Cost(device) as cost:
        method.precompute(model, train, val, seed=0)
    requests = args.epochs * -(-(args.images // EACH) // method.simulated_n)
    print(f"{args.images:,} images of {args.images // EACH:,} people, {args.epochs} epochs, outer passes "
          f"in {args.outer_precision}; {describe(device)}; once\n")  # fmt: skip
    print("| network | simulated requests | s | s a request | peak MB |\n|---|---:|---:|---:|---:|")
    each = cost.seconds / requests
    print(f"| `{args.model}`, {args.input_px} px | {requests} | {cost.seconds:.1f} | {each:.3f} | {cost.peak_mb:.0f} |")


if __name__ == "__main__":
    main()
