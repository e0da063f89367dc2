"""Peak memory and time of PGU's Gram matrices, beyond the model, for one batch.

python -m benchmarks.pgu_statistics                      # ViT-B/16 at 224 px, a batch of 128
"""

import argparse

import torch
from benchmarks.measuring import TASK, describe

from oneshui.devices import Cost, choose_device
from oneshui.methods.pgu import input_grams
from oneshui.models import ModelSpec, build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    model = build_model(ModelSpec(args.model, TASK, args.px, 0.5, 0.5)).to(device)
    images = torch.randn(args.batch_size, 3, args.px, args.px, device=device)
    with Cost(device) as cost:
        grams = input_grams(model, iter([images]))
    own = sum(gram.numel() * gram.element_size() for gram in grams.values()) / 1e6
    print(f"{args.model} at {args.px} px, batch {args.batch_size}; {describe(device)}")
    print(
        f"{cost.peak_mb:.0f} MB beyond the model and the batch, {own:.0f} MB of them the matrices; {cost.seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
