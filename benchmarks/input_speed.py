"""Augmented images a second, ready on the device: ours, decoded once, against a DataLoader with two workers.

    python -m benchmarks.input_speed                     # CPU, two cores
    python -m benchmarks.input_speed --device cuda

The reference decodes every JPEG anew with Pillow and augments it with torchvision's RandomResizedCrop (antialiased),
horizontal flip and normalisation. Ours draws the same augmentation from pixels that were decoded once, at the stored
size; what the decoding takes is a column. Both take turns over the same images; medians of images a second count.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmarks.measuring import describe
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from oneshui.data.pack import decode
from oneshui.sets import ImageSet, InputSpec
from oneshui.tasks import Task

#: side of the JPEG files, number of them, side they are stored at, side of the input, px
CASES = [(128, 1024, 128, 224), (128, 1024, 128, 64), (1024, 128, 256, 224)]
SCALE, BATCH = (0.5, 1.0), 32


class Files(Dataset[torch.Tensor]):
    """JPEG files under the usual transforms."""

    def __init__(self, paths: list[Path], px: int) -> None:
        self.paths = paths
        steps = [transforms.RandomResizedCrop(px, SCALE, antialias=True), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            result: torch.Tensor = self.transform(image.convert("RGB"))
        return result


def write_faces(folder: Path, px: int, n: int) -> list[Path]:
    """Write smooth random pictures, which compress like photographs."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize(
            (px, px), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 4, (px, px, 3))
        paths.append(folder / f"{i}.jpg")
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def rate(run: Callable[[], int], device: torch.device) -> float:
    """Return images a second."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    n = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return n / (time.perf_counter() - start)


def measure(case: tuple[int, int, int, int], rounds: int, workers: int, device: torch.device) -> str:
    """Return a row of the table."""
    file_px, n, stored_px, px = case
    with tempfile.TemporaryDirectory() as folder:
        paths = write_faces(Path(folder), file_px, n)
        start = time.perf_counter()
        pixels = torch.from_numpy(np.stack([decode(path, stored_px, stored_px) for path in paths]))
        decoding = time.perf_counter() - start
        rows = torch.arange(n)
        labels = torch.zeros(n, dtype=torch.int64, device=device)
        task = Task("classification", ("a", "b"))
        images = ImageSet(pixels.to(device), rows, labels, rows, InputSpec(px, 0.5, 0.5), task, device)
        loader = DataLoader(Files(paths, px), BATCH, shuffle=True, num_workers=workers, persistent_workers=True,
                            pin_memory=device.type == "cuda")  # fmt: skip
        generator = torch.Generator().manual_seed(0)

        def reference() -> int:
            return sum(len(batch.to(device, non_blocking=True)) for batch in loader)

        def ours() -> int:
            order = torch.randperm(n, generator=generator)
            return sum(len(images.augmented(part, SCALE, generator)) for part in order.split(BATCH))

        reference(), ours()
        rates = [(rate(ours, device), rate(reference, device)) for _ in range(rounds)]
    own, other = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    return f"| {file_px} px | {px} px | {own:,.0f} | {other:,.0f} | {ratio:.1f} | {1000 * decoding / n:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the images of each case, above 0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(2)
    print(f"batches of {BATCH}; {args.workers} workers; {describe(device)}; median of {args.rounds}\n")
    print("| JPEG | input | ours, images/s | DataLoader, images/s | times faster | decoded once, ms an image |")
    print("|---|---|---|---|---|---|")
    for file_px, n, stored_px, px in CASES:
        case = (file_px, max(1, round(args.share * n)), stored_px, px)
        print(measure(case, args.rounds, args.workers, device), flush=True)


if __name__ == "__main__":
    main()
