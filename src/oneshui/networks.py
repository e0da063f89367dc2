"""Does a network work with the methods? Tried on two random images, before anything is trained.

``python -m oneshui.networks`` reads what to try as JSON and prints, as JSON, what does not work; the workflow asks it
while it plans, for networks that ``resources/networks.csv`` does not list.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oneshui.config import TrainSpec
from oneshui.errors import OneShuiError, first_line
from oneshui.methods import make_method
from oneshui.models import ModelSpec, build_model, check_model
from oneshui.tasks import Task

#: what a task may be; the classes are stand-ins
_TASKS = tuple(Task(kind, ("a", "b", "c")) for kind in ("classification", "multilabel"))


def problems_of(training: Mapping[str, Any], methods: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, str]:
    """Return why a network does not work, by method; empty if all is well.

    Args:
        training: keys of ``TrainSpec``; the weights are random whatever it says.
        methods: name -> specs, each with ``kind`` and hyper-parameters.

    Raises:
        ConfigError: timm has no such network, or it cannot serve as a backbone at all.
    """
    found: dict[str, str] = {}
    for task in _TASKS:
        spec = ModelSpec.of_training(TrainSpec.from_dict(training), task)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_model(spec)
            images = torch.randn(2, 3, spec.input_px, spec.input_px)
        check_model(model, spec, torch.device("cpu"))
        labels = torch.tensor([0, 1]) if task.kind == "classification" else torch.tensor([[0, 1, 0], [1, 0, 1]])
        for name, specs in methods.items():
            for method in specs:
                problem = _problem(method, model, images, labels, task)
                if problem:
                    found.setdefault(name, problem)
    return found


def _problem(method: Mapping[str, Any], model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> str:
    """Return why ``method`` cannot work with the network, or nothing."""
    tried = getattr(make_method(method), "try_on", _gradients)
    try:
        tried(model, images, labels, task)
    except Exception as error:  # whatever a layer of somebody else's lacks
        return first_line(error)
    return ""


def _gradients(model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> None:
    """Ask for an answer and its gradient, of which all that a method without ``try_on`` needs is made."""
    loss = task.losses(model(images), labels).mean()
    torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def main() -> None:
    """Answer one question on standard input: ``problems``, or the ``error`` of a network that is none for us."""
    asked = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"problems": problems_of(asked["training"], asked["methods"])}
    except OneShuiError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
