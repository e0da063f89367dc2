"""Small networks and sets, and what the methods do written out from elementary formulas, in float64."""

import math

import torch
from torch import Tensor, nn

from oneshui.models import ModelSpec, build_model
from oneshui.sets import ImageSet
from oneshui.tasks import Task

TASKS = {
    "multilabel": Task("multilabel", tuple(f"a{i}" for i in range(5))),
    "classification": Task("classification", tuple(f"c{i}" for i in range(8))),
}
NETS = {
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}),
    "resnet": ("resnet10t", {"channels": (8, 8, 8, 8), "stem_width": 8}),
}


def make_net(net: str, task: Task, seed: int = 1) -> nn.Module:
    """Return a net in evaluation mode whose batch norms matter: not mean 0, variance 1, nor timm's factor 0."""
    name, options = NETS[net]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(ModelSpec(name, task, 32, 0.5, 0.5, options)).double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)  # with 0, as timm starts, residual branches have no gradient
    return model


def make_set(n: int, task: Task, seed: int) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 32, 32, generator=draw, dtype=torch.float64)
    size, most = ((n, task.n_outputs), 2) if task.kind == "multilabel" else ((n,), task.n_outputs)
    return ImageSet.of_inputs(images, torch.randint(most, size, generator=draw), task, torch.arange(n))


def inputs_of(images: ImageSet) -> Tensor:
    """Return all inputs of a set, in order."""
    return images.images(torch.arange(len(images)))


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters and buffers."""
    return {name: value.clone().double() for name, value in model.state_dict().items()}


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    others = weights(second)
    return all(torch.equal(value, others[name]) for name, value in weights(first).items())


def assert_moved_alike(start: dict[str, Tensor], found: nn.Module, wanted: nn.Module) -> None:
    """Assert that each tensor of ``found`` went from ``start`` as far and where it did in ``wanted``."""
    here, there = weights(found), weights(wanted)
    assert here.keys() == there.keys() == start.keys()
    assert any(not torch.equal(value, start[name]) for name, value in there.items())
    for name, value in there.items():
        error, moved = float((here[name] - value).norm()), float((value - start[name]).norm())
        assert error <= 1e-9 * moved, f"{name} is wrong by {error:.2g}, it should move by {moved:.2g}"


def length_ratio(start: dict[str, Tensor], model: nn.Module) -> float:
    """Return ||theta - start|| / ||start|| over the parameters."""
    moved = sum(float((value.detach() - start[name]).square().sum()) for name, value in model.named_parameters())
    return math.sqrt(moved / sum(float(start[name].square().sum()) for name, _ in model.named_parameters()))


def direct_kl(student: Tensor, teacher: Tensor, kind: str, form: str, temperature: float) -> Tensor:
    """Return the mean over images of KL(teacher || student) from probabilities."""
    if kind == "multilabel" and form == "task":
        q, p = (1 / (1 + (-logits / temperature).exp()) for logits in (student, teacher))
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / student.numel()
    grown = [(logits / temperature).exp() for logits in (student, teacher)]
    q, p = (e / e.sum(1, keepdim=True) for e in grown)
    return (p * (p / q).log()).sum() / len(student)


def direct_loss(logits: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Return the mean loss of a batch from probabilities."""
    if kind == "classification":
        grown = logits.exp()
        return -(grown / grown.sum(1, keepdim=True))[torch.arange(len(labels)), labels].log().mean()
    p = 1 / (1 + (-logits).exp())
    return -torch.where(labels == 1, p, 1 - p).log().mean()


def direct_batches(n: int, size: int, draw: torch.Generator) -> list[list[int]]:
    """Return an epoch's batches; one that covers everything is in the order of the set, which must not matter."""
    order = torch.randperm(n, generator=draw).tolist()
    if size >= n:
        return [list(range(n))]
    batches = [order[start : start + size] for start in range(0, n, size)]
    return [*batches[:-2], batches[-2] + batches[-1]] if len(batches[-1]) == 1 else batches


class DirectSGD:
    """Momentum, weight decay, clipping and cosine written out."""

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float, epochs: int) -> None:
        self.parameters = list(model.parameters())
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.lr, self.momentum, self.weight_decay, self.epochs = lr, momentum, weight_decay, epochs

    def step(self, loss: Tensor, epoch: int, clip_norm: float = math.inf) -> None:
        gradients = torch.autograd.grad(loss, self.parameters)
        length = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        factor = min(1.0, clip_norm / (length + 1e-6))  # PyTorch adds 1e-6
        lr = self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        with torch.no_grad():
            for parameter, gradient, velocity in zip(self.parameters, gradients, self.velocity, strict=True):
                velocity.mul_(self.momentum).add_(factor * gradient + self.weight_decay * parameter)
                parameter.sub_(lr * velocity)
