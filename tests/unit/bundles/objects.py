"""A small image task that has nothing to do with faces: drawn objects, owned by people, with classes or attributes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tests.unit.methods.networks import NETWORKS, PARAMS

from oneshui.models import ModelSpec, build_model
from oneshui.tasks import Task

SHAPES, COLOURS = (
    ("circle", "square", "triangle"),
    {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 80, 220)},
)
#: whose objects they are; names that nothing else in a file looks like
OWNERS = (
    "Zuleika Oxenford",
    "Quentin Vandermeer",
    "Ådne Bjørnsgård",
    "Xochitl Yáñez",
    "Wenceslas 42",
    "Otto Nussbaum 7",
)
OTHERS = ("Val Erie", "Val Idus", "Val Or")
ATTRIBUTES = ("round", "red", "large")


def draw(shape: str, colour: str, px: int, rng: np.random.Generator) -> Image.Image:
    """Return a picture of one object on a grey ground with noise."""
    ground = rng.integers(90, 150, (px, px, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    pen, size = ImageDraw.Draw(image), int(rng.integers(px // 3, px - 4))
    left, top = (int(rng.integers(0, px - size)) for _ in range(2))
    box = (left, top, left + size, top + size)
    if shape == "circle":
        pen.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, fill=COLOURS[colour])
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=COLOURS[colour])
    return image


def write_objects(
    folder: Path, kind: str, owners: tuple[str, ...] = OWNERS, *, images: int = 4, px: int = 40, seed: int = 0
) -> dict[str, Path]:
    """Write a manifest with pictures into ``folder``, and return one more picture of each owner, which is not in it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    photos, rows = {}, []
    for number, owner in enumerate(owners):
        for i in range(images + 1):
            shape, colour = SHAPES[(number + i) % 3], list(COLOURS)[int(rng.integers(3))]
            image, name = draw(shape, colour, px, rng), f"{number:02}_{i}.png"
            if i == images:
                photos[owner] = folder.parent / f"asks_{number:02}.png"
                image.save(photos[owner])
                continue
            image.save(folder / name)
            bits = {"round": shape == "circle", "red": colour == "red", "large": bool(i % 2)}
            label = {"label": shape} if kind == "classification" else {k: int(v) for k, v in bits.items()}
            rows.append({"path": name, "identity": owner, **label})
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return photos


def write_model(path: Path, network: str, kind: str, seed: int = 0) -> dict[str, Any]:
    """Write weights of a tiny network of timm as its users would, and return what ``pack_model`` must be told of it."""
    _, px, options = NETWORKS[network]
    task = Task(kind, tuple(sorted(SHAPES)) if kind == "classification" else ATTRIBUTES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(ModelSpec(network, task, px, 0.5, 0.25, options))
        with torch.no_grad():  # batch norms and layer scales that start at 0 hide what is behind them
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.add_(0.02 * torch.randn(value.shape))
                    if not value.any():
                        value.add_(0.1)
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.abs_()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return {"weights": path, "model": network, "model_options": options, "input_px": px, "mean": 0.5, "std": 0.25}


def method(kind: str) -> dict[str, Any]:
    """Return ``kind`` with the least hyper-parameters."""
    return {"kind": kind, **PARAMS[kind]}


def manifest_options(kind: str) -> dict[str, Any]:
    """Return the options of the manifest that ``write_objects`` writes."""
    return {} if kind == "classification" else {"label_columns": list(ATTRIBUTES)}
