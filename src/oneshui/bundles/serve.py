"""Serving a request of a bundle, inside the isolated process (``oneshui.bundles.forget`` starts it)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneshui.bundles.bundle import ANSWERS, ARTEFACT, MODEL
from oneshui.data.pack import decode
from oneshui.devices import Cost, choose_device
from oneshui.errors import CheckpointError, DataError
from oneshui.files import sha256_file, write_text
from oneshui.methods import artefact_spec, make_method
from oneshui.methods.base import Artefact, KeepsPeople, UnlearningMethod, relative_change, without
from oneshui.models import Checkpoint, has_finite_weights, load_model, save_model
from oneshui.sets import Support
from oneshui.stages.images import input_of
from oneshui.stages.serve_request import check_artefact, check_finite
from oneshui.tasks import Task


def serve(
    model_path: str, artefact_path: str | None, photos: Sequence[Mapping[str, Any]], output_path: str, *,
    spec: Mapping[str, Any], stored_px: Sequence[int], seed: int, natural: Sequence[int], dry_run: bool, gpus: int,
    threads: int, isolation: str,
) -> None:  # fmt: skip
    """Unlearn people, one photo each, and take out of the artefact what it keeps of them.

    Arguments are plain values: they come through a pipe.

    Args:
        model_path: the bundle's weights.
        artefact_path: what its method keeps, or None.
        photos: one mapping a person: ``path``; ``number``, which stands for the person; ``label``, a class number or
            0/1 for every attribute, or None for the model's own answer.
        output_path: folder to make, of a model and an artefact, and of what is to be said in ``ANSWERS``.
        spec: ``kind`` and hyper-parameters of the method.
        stored_px: height and width to which training images were decoded.
        seed: of the method.
        natural: numbers of the people in the natural order of their names, in which the workflow has them.
        dry_run: look at the photos and unlearn nothing.
        gpus: 1 to compute on a GPU.
        threads: of the CPU.
        isolation: what keeps this process from other files.

    Raises:
        CheckpointError: the model is not finite, or would not be.
        DataError: a photo cannot be used.
        ArtefactError: the artefact belongs to another model or method.
    """
    device = choose_device(gpus=gpus, threads=threads)
    method: UnlearningMethod = make_method(spec)
    checkpoint = load_model(model_path, device)
    check_finite(model_path, checkpoint)
    task, output = checkpoint.spec.task, Path(output_path)
    images = torch.cat([_input(each["path"], stored_px, checkpoint, device) for each in photos])
    with torch.no_grad():
        before = checkpoint.model(images)
    answers = [_label_of(task, row) for row in before]
    labels = task.label_tensor([each["label"] if each["label"] is not None else answer
                                for each, answer in zip(photos, answers, strict=True)]).to(device)  # fmt: skip
    told = [
        {"label": _named(task, label), "before": _answer(task, row, label)}
        for row, label in zip(before, labels, strict=True)
    ]
    output.mkdir()
    said: dict[str, Any] = {"isolation": isolation, "people": told}
    if not dry_run:
        numbers = torch.tensor([each["number"] for each in photos], dtype=torch.int64)
        support = Support(images, labels, numbers, task)
        artefact, header = Artefact.load(artefact_path, device) if artefact_path else (None, {})
        if artefact_path:
            check_artefact(artefact_path, header, checkpoint.sha256, model_path, spec)
        with Cost(device) as cost:
            result = method.unlearn(checkpoint.model, support, _in_order(method, artefact, natural), seed=seed)
        model = result.model.eval()
        said |= {"diagnostics": result.checked(), **cost.metadata(),
                 "moved": relative_change(_floats(checkpoint.model), _floats(model))}  # fmt: skip
        with torch.no_grad():
            after = model(images)
        if not (has_finite_weights(model) and bool(after.isfinite().all())):
            raise CheckpointError(
                "the model would be destroyed: its weights or answers are not finite. Lower the method's learning rate."
            )
        for entry, row, label in zip(told, after, labels, strict=True):
            entry["after"] = _answer(task, row, label)
        save_model(output / MODEL, model, checkpoint.spec, {"stored_px": list(stored_px)})
        if artefact is not None:
            left = without(method, artefact, numbers)
            if isinstance(method, KeepsPeople):
                people, kept = left.need("identities").tolist(), method.numbers_of_people(left).tolist()
                said["kept"] = dict(zip(people, kept, strict=True))
            left.save(output / ARTEFACT, {"model": sha256_file(output / MODEL), "spec": artefact_spec(spec)})
    write_text(output / ANSWERS, json.dumps(said))


def _input(path: str, stored_px: Sequence[int], checkpoint: Checkpoint, device: torch.device) -> Tensor:
    """Return a photo as the model takes its training images, (1, 3, px, px)."""
    height, width = stored_px
    try:
        pixels = torch.from_numpy(decode(Path(path), height, width).copy())
    except DataError as error:
        raise DataError(
            f"{error} Hand in another photo, or the same one saved again as a JPEG or 8-bit PNG."
        ) from error
    return input_of(checkpoint.spec).prepare(pixels.to(device)[None])


def _in_order(method: UnlearningMethod, artefact: Artefact | None, natural: Sequence[int]) -> Artefact | None:
    """Return the artefact with the people who ask in the order that they have in the workflow.

    Sums over people depend on it in their last bit, and in a bundle people stand in the order of their hashes.
    """
    if artefact is None or not isinstance(method, KeepsPeople):
        return artefact
    numbers = artefact.need("identities").tolist()
    place = {number: row for row, number in enumerate(numbers)}
    asked = [place[number] for number in natural if number in place]
    if asked == sorted(asked):
        return artefact
    others = [row for row in range(len(numbers)) if row not in set(asked)]
    return method.of_people(artefact, torch.tensor(asked + others))


def _floats(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def _label_of(task: Task, logits: Tensor) -> int | list[int]:
    """Return the model's answer to a photo, as a label."""
    return int(logits.argmax()) if task.kind == "classification" else (logits > 0).int().tolist()


def _named(task: Task, label: Tensor) -> str | list[str]:
    """Return a label in words."""
    if task.kind == "classification":
        return task.classes[int(label)]
    return [name for name, bit in zip(task.classes, label.tolist(), strict=True) if bit]


def _answer(task: Task, logits: Tensor, label: Tensor) -> dict[str, Any]:
    """Return what a model answers, and how sure it is of a label: a probability, of attributes their geometric mean."""
    sure = float((-task.losses(logits[None].float(), label[None])).exp())
    return {"answer": _named(task, torch.tensor(_label_of(task, logits))), "sure_of_label": sure}
