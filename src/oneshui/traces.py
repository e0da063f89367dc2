"""What is left of images inside a model: activations at several depths, and how fast training brings them back."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from oneshui.diagnostics import RELEARN_STEPS
from oneshui.errors import ConfigError
from oneshui.log import logger
from oneshui.methods.edit_points import edit_points
from oneshui.metrics.measure import measure
from oneshui.models import blocks_of, features_and_logits, watched
from oneshui.sets import ImageSet

#: share of the blocks behind which activations are looked at, in percent
DEPTHS = (25, 50, 75, 90, 100)
#: Adam's learning rate
_LR = 1e-5
_BATCH = 256


def places_of(model: nn.Module, images: ImageSet) -> dict[str, tuple[str, bool]]:
    """Return the module at each depth of a network, and whether its input is meant (or its output), by depth.

    ``25`` to ``100`` are outputs of the block at that percentage of the network's blocks. Those before 100 are missing
    where they are the last block, too. ``projection`` is the input of the last layer that can be edited
    (``edit_points``), which an edit of that layer alone leaves as it was. It is missing where there is none.

    Args:
        model: a trained one. In one that was destroyed no layer can be edited.
        images: any two.
    """
    batch = images.images(torch.arange(min(2, len(images))))
    blocks = blocks_of(model, batch)
    if not blocks:
        return {}
    behind = {depth: blocks[-(-depth * len(blocks) // 100) - 1] for depth in DEPTHS}
    found = {str(depth): (block, False) for depth, block in behind.items() if block != blocks[-1]}
    try:
        found["projection"] = (edit_points(model, batch, 1)[-1].layer, True)
    except ConfigError as error:
        logger.info("no probe of the last projection: %s", error)
    return {**found, str(DEPTHS[-1]): (blocks[-1], False)}


def pooled_by_depth(model: nn.Module, images: ImageSet, places: Mapping[str, tuple[str, bool]]) -> dict[str, Tensor]:
    """Return activations (N, D) of the images on the CPU, by depth.

    Args:
        model: of the same architecture as the one of ``places``.
        images: N of them.
        places: as ``places_of`` gives them; activations there are averaged over positions. ``features``, what the
            classifier sees, are added.
    """
    kept: dict[str, list[Tensor]] = {name: [] for name in (*places, "features")}
    for rows in torch.arange(len(images)).split(_BATCH):
        with torch.inference_mode(), watched(model, places.values()) as values:
            features, _ = features_and_logits(model, images.images(rows))
        found = {(name, is_input): value for name, is_input, value in values}
        for depth, place in places.items():
            kept[depth].append(_pooled(found[place]).cpu())
        kept["features"].append(features.cpu())
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _pooled(value: Tensor) -> Tensor:
    """Return the mean over positions of (B, C, H, W), (B, H, W, C) or (B, N, C)."""
    if value.ndim == 4:
        channels_last = value.shape[1] == value.shape[2] != value.shape[3]
        return value.mean((1, 2) if channels_last else (2, 3))
    return value.mean(1) if value.ndim == 3 else value


def relearned(model: nn.Module, shown: ImageSet, held: ImageSet, *, seed: int) -> list[float]:
    """Return accuracy or mAP on ``held`` before and after each step of training a copy of the model on ``shown``.

    A step is one of Adam on all of ``shown``, or on 256 random ones. Batch norm keeps its statistics.

    Args:
        model: stays as it is.
        shown: images of some people.
        held: other images of the same people.
        seed: of the order.
    """
    student = copy.deepcopy(model).eval()
    optimiser = torch.optim.Adam(student.parameters(), lr=_LR)
    draw = torch.Generator().manual_seed(seed)
    found = [measure_on(student, held)]
    for _ in range(RELEARN_STEPS):
        rows = torch.randperm(len(shown), generator=draw)[:_BATCH]
        loss = shown.task.losses(student(shown.images(rows)), shown.labels[rows.to(shown.device)]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        found.append(measure_on(student, held))
    return found


def measure_on(model: nn.Module, images: ImageSet) -> float:
    """Return accuracy or mAP of a model on images."""
    with torch.inference_mode():
        logits = torch.cat([model(batch).float() for batch, _ in images.batches(_BATCH)])
    return measure(images.task.kind, logits.cpu().numpy(), images.labels.cpu().numpy())


def steps_until(values: Sequence[float], wanted: float) -> int:
    """Return the first step at which a value is at least ``wanted``; one more than there are if none is."""
    return next((step for step, value in enumerate(values) if value >= wanted), len(values))
