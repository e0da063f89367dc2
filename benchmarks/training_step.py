"""A training step with its input (crop, flip, resize, normalise) against the same step on a batch that is ready.

    python -m benchmarks.training_step                                                          # CPU
    python -m benchmarks.training_step --models vit_base_patch16_224:224 --batch-size 128 --precision bf16     # GPU

Both call the package's own step, the second with an input that costs nothing. They take turns; the share is the median
over rounds of the ratio of their times. On a GPU, which replays the step, a third one has the host launch every kernel.
"""

import argparse
import statistics
from dataclasses import dataclass

import torch
from benchmarks.measuring import TASK, describe, random_images
from torch import Tensor

from oneshui.config import TrainSpec
from oneshui.devices import Cost, choose_device
from oneshui.models import ModelSpec, build_model
from oneshui.replay import WARM_UP
from oneshui.resume import Resume
from oneshui.sets import ImageSet, InputSpec
from oneshui.training import Trainer
from oneshui.utilisation import forward_flop, peak_of, training_rate


@dataclass(frozen=True, kw_only=True)
class Ready(ImageSet):
    """Images whose every batch is the same one, made before."""

    batch: Tensor

    def draw(self, rows: Tensor, scale: tuple[float, float], generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def augment(self, *drawn: Tensor) -> Tensor:
        return self.batch


def trainer_on(images: ImageSet, model: str, precision: str, batch_size: int) -> Trainer:
    """Return a trainer of a freshly built model."""
    spec = TrainSpec.from_dict({
        "model": model, "model_options": {}, "init_weights": "random", "input_px": images.input.px, "mean": 0.5,
        "std": 0.5, "epochs": 1, "warmup_epochs": 0, "batch_size": batch_size, "optimiser": "sgd", "lr": 1e-3,
        "momentum": 0.9, "weight_decay": 1e-3, "crop_scale": [0.5, 1.0], "precision": precision, "revision": 1,
    })  # fmt: skip
    torch.manual_seed(0)
    network = build_model(ModelSpec(model, TASK, images.input.px, 0.5, 0.5)).to(images.device).train()
    return Trainer(network, spec, images, images, stream=("step",), resume=Resume(None, "", images.device))


def seconds(trainer: Trainer, steps: int) -> float:
    """Return what some steps take, on fresh rows and crops."""
    images, n = trainer.train, trainer.spec.batch_size
    generator = torch.Generator().manual_seed(torch.seed() % 2**31)
    with Cost(images.device) as cost:
        for _ in range(steps):
            rows = torch.randint(len(images), (n,), generator=generator)
            trainer._step(rows, images.labels[:n], generator)
    return cost.seconds


def measure(model: str, px: int, device: torch.device, args: argparse.Namespace) -> str:
    """Return a row of the table."""
    images = random_images(1024, (args.stored_px, args.stored_px), InputSpec(px, 0.5, 0.5), device)
    ready = Ready(**vars(images), batch=images.images(torch.arange(args.batch_size)))
    trainers = [trainer_on(each, model, args.precision, args.batch_size) for each in (images, ready)]
    if device.type == "cuda":
        trainers.append(trainer_on(images, model, args.precision, args.batch_size))
        trainers[-1]._update = trainers[-1]._plain_update
    for trainer in trainers:
        seconds(trainer, WARM_UP + 2 if device.type == "cuda" else 2)
    rounds = [[seconds(trainer, args.steps) for trainer in trainers] for _ in range(args.rounds)]
    whole = statistics.median(times[0] for times in rounds)
    share = statistics.median(times[1] / times[0] for times in rounds)
    peak = peak_of(device, args.precision)
    rate = training_rate(args.steps * args.batch_size, whole, forward_flop(trainers[0].model, px), peak)
    cells = [f"`{model}`, {px} px", rate, f"{share:.3f}"]
    if device.type == "cuda":
        launched = statistics.median(times[2] for times in rounds)
        cells += [f"{1e3 * each / args.steps:.2f}" for each in (whole, launched)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet10t:64", "vit_tiny_patch16_224:224"])
    parser.add_argument("--stored-px", type=int, default=128, help="side of the decoded images")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = choose_device(gpus=int(args.device == "cuda"), threads=args.threads)
    print(f"Batches of {args.batch_size} from {args.stored_px} px, {args.precision}; {describe(device)}; "
          f"median of {args.rounds}\n")  # fmt: skip
    more = (" ms a step | ms, every kernel launched |", "---:|---:|") if device.type == "cuda" else ("", "")
    print(f"| network | with its input | share of the rate on a fixed batch |{more[0]}\n|---|---|---:|{more[1]}")
    for name in args.models:
        model, px = name.split(":")
        print(measure(model, int(px), device, args), flush=True)


if __name__ == "__main__":
    main()
