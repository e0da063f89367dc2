"""What the benchmark scripts share: the machine's description, and a task and images that stand for CelebA's."""

import platform

import torch

from oneshui.sets import ImageSet, InputSpec
from oneshui.tasks import Task

TASK = Task("multilabel", tuple(f"attribute{i}" for i in range(40)))


def describe(device: torch.device) -> str:
    """Return machine and versions, for the head of a table."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{name}{threads}; torch {torch.__version__}"


def random_images(
    n: int, stored_px: tuple[int, int], input_spec: InputSpec, device: torch.device, *, each: int = 1
) -> ImageSet:
    """Return random images as a job has them, decoded and on the device, of people with ``each`` images."""
    pixels = torch.randint(0, 256, (n, 3, *stored_px), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 2, (n, TASK.n_outputs), device=device)
    ids = torch.arange(n)
    return ImageSet(pixels, ids.to(device), labels, ids // each, input_spec, TASK, device)
