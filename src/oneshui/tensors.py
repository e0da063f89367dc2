"""Tensors with a JSON header in one safetensors file: models, artefacts and resume sidecars. Never pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from oneshui.files import HEADER_KEY, atomic_path, read_header, require_regular, unreadable


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-like ``header`` atomically; the same contents give the same bytes.

    The header is one entry, because safetensors writes several in any order.
    """
    text = json.dumps(dict(header), sort_keys=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(plain, temporary, metadata={HEADER_KEY: text})


def load_tensors(path: str | Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what ``save_tensors`` wrote, on ``device``.

    Raises:
        DataError: the file is missing, damaged, or not one of ours.
    """
    header = read_header(path)
    try:
        return read_tensors(path, device), header
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def read_tensors(path: str | Path, device: torch.device) -> dict[str, Tensor]:
    """Return the tensors of any safetensors file: the only code that opens one for more than its header.

    The library compares types, shapes and places of all tensors with the size of the file before it takes memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or holds what torch has no type for.
    """
    require_regular(path)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path, device=str(device))
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return tensors


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return in words how tensors that were read differ in name, shape or kind from those that are needed, or nothing.

    Any floating point type does for any other.
    """
    said = []
    for names, what in ((wanted.keys() - found.keys(), "lack"), (found.keys() - wanted.keys(), "have")):
        if names:
            other = "" if what == "lack" else " that it has not"
            said.append(f"they {what} {len(names)} tensors{other}, e.g. {min(names)!r}")
    for name in sorted(wanted.keys() & found.keys()):
        wrong = unlike(found[name], wanted[name])
        if wrong:
            return "; ".join([*said, f"{name!r} {wrong}"])
    return "; ".join(said)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold numbers that are not finite, sorted."""
    small = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.element_size() == 1]
    return sorted(
        name for name, tensor in tensors.items()
        if not bool((tensor.float() if name in small else tensor).isfinite().all())
    )  # fmt: skip


def unlike(found: Tensor, wanted: Tensor) -> str:
    """Return in words how one tensor differs from another in shape or kind, or nothing."""
    if found.shape != wanted.shape:
        return f"has the shape {list(found.shape)}, needed: {list(wanted.shape)}"
    if found.dtype != wanted.dtype and not (found.is_floating_point() and wanted.is_floating_point()):
        kinds = [str(each.dtype).removeprefix("torch.") for each in (found, wanted)]
        return f"holds {kinds[0]}, needed: {kinds[1]}"
    return ""


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device`` without waiting for what a GPU is doing, as a plain copy to it would."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def cut(order: Tensor, batch_size: int) -> list[Tensor]:
    """Return ``order`` in batches; a last batch of one joins the one before, for batch norm needs two images."""
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
