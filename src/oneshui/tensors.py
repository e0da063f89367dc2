"""Tensors with a JSON header in one safetensors file: models, artefacts and resume sidecars. Never pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from oneshui.files import HEADER_KEY, atomic_path, read_header, unreadable


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
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path, device=str(device))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise unreadable(path, error) from error
    return tensors, header


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
