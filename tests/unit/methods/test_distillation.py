"""The divergence and the optimiser of the teacher-student methods against elementary formulas, in float64."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oneshui.errors import ConfigError
from oneshui.methods.base import TensorSet
from oneshui.methods.distillation import SGD, check_kl, check_sgd, kl_divergence, shuffled_rows, views
from oneshui.models import ModelSpec, build_model
from oneshui.tasks import Task

TASKS = {
    "multilabel": Task("multilabel", tuple(f"a{i}" for i in range(5))),
    "classification": Task("classification", tuple(f"c{i}" for i in range(8))),
}
NETS = {
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}),
    "resnet": ("resnet10t", {"channels": (8, 8, 8, 8), "stem_width": 8}),
}
SGD_FIELDS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "epochs": 2, "crop_scale": ()}
NAN = float("nan")


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


def make_set(n: int, task: Task, seed: int) -> TensorSet:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 32, 32, generator=draw, dtype=torch.float64)
    size, most = ((n, task.n_outputs), 2) if task.kind == "multilabel" else ((n,), task.n_outputs)
    return TensorSet(images, torch.randint(most, size, generator=draw), task, torch.arange(n))


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


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("form", ["task", "softmax"])
@pytest.mark.parametrize("kind", TASKS)
def test_divergence_of_each_image_is_the_formula(kind: str, form: str, temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, TASKS[kind].n_outputs, generator=draw, dtype=torch.float64)
    found = kl_divergence(student, teacher, task=TASKS[kind], form=form, temperature=temperature)
    rows = [direct_kl(s[None], t[None], kind, form, temperature) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-9, atol=0)
    assert found.min() > 0


@pytest.mark.parametrize(
    ("kind", "form", "wanted"),
    [
        # student 1/2, 1/2; teacher 3/4, 3/4
        ("multilabel", "task", 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
        ("multilabel", "softmax", 0.0),
        ("classification", "task", 0.0),
    ],
)
def test_divergence_by_hand(kind: str, form: str, wanted: float) -> None:
    student, teacher = (torch.full((1, 2), logit, dtype=torch.float64) for logit in (0.0, 2 * math.log(3)))
    task = Task(kind, ("a", "b"))
    found = kl_divergence(student, teacher, task=task, form=form, temperature=2.0)
    assert float(found) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("form", ["task", "softmax"])
@pytest.mark.parametrize("kind", TASKS)
def test_divergence_of_equal_logits_is_zero(kind: str, form: str) -> None:
    logits = torch.randn(6, TASKS[kind].n_outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = kl_divergence(logits, logits, task=TASKS[kind], form=form, temperature=3.0)
    assert torch.equal(found, torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "form", "wanted"),
    [("multilabel", "task", 1e4), ("multilabel", "softmax", 2e4), ("classification", "task", 2e4)],
)
def test_extreme_logits_keep_divergence_and_gradient_finite(
    kind: str, form: str, wanted: float, dtype: torch.dtype
) -> None:
    teacher = torch.tensor([[1e4, -1e4]], dtype=dtype)
    student = (-teacher).requires_grad_()
    found = kl_divergence(student, teacher, task=Task(kind, ("a", "b")), form=form, temperature=1.0)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    slope = 0.5 if form == "task" and kind == "multilabel" else 1.0  # a mean over the two attributes
    torch.testing.assert_close(gradient, torch.tensor([[-slope, slope]], dtype=dtype))


def test_unknown_form_of_divergence_is_an_error() -> None:
    check_kl("scrub", "task")
    check_kl("scrub", "softmax")
    with pytest.raises(ConfigError, match="scrub: kl is 'sigmoid', allowed: task, softmax"):
        check_kl("scrub", "sigmoid")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("lr", NAN), ("momentum", -0.1), ("momentum", 1.0), ("momentum", NAN), ("weight_decay", -1e-9),
        ("weight_decay", NAN), ("epochs", 0), ("crop_scale", (0.5,)), ("crop_scale", (0.5, 0.7, 1.0)),
        ("crop_scale", (0.0, 1.0)), ("crop_scale", (0.8, 0.5)), ("crop_scale", (0.5, 1.1)), ("crop_scale", (NAN, 1.0)),
    ],
)  # fmt: skip
def test_impossible_training_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    shown = f"\\[{', '.join(map(str, value))}\\]" if name == "crop_scale" else value
    with pytest.raises(ConfigError, match=f"bad_teacher: .*{name} = {shown}"):
        check_sgd("bad_teacher", **{**SGD_FIELDS, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("momentum", 0.0), ("weight_decay", 0.0), ("epochs", 1), ("crop_scale", (0.08, 1.0)), ("crop_scale", (1.0, 1.0))],
)
def test_training_hyper_parameter_at_its_limit_is_allowed(name: str, value: Any) -> None:
    check_sgd("scrub", **{**SGD_FIELDS, name: value})


@pytest.mark.parametrize("clip_norm", [None, 0.3, 1e6])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)])
def test_sgd_follows_the_formula(momentum: float, weight_decay: float, clip_norm: float | None) -> None:
    model = nn.Linear(3, 2).double()
    nn.init.constant_(model.weight, 0.7)
    nn.init.constant_(model.bias, -0.2)
    wanted, start, inputs = copy.deepcopy(model), weights(model), torch.tensor([[1.0, -2.0, 0.5]]).double()
    ours, direct = (make(net, 0.2, momentum, weight_decay, 3) for make, net in ((SGD, model), (DirectSGD, wanted)))
    for epoch in range(3):
        for _ in range(2):
            ours.step(model(inputs).square().sum(), clip_norm=clip_norm)
            direct.step(wanted(inputs).square().sum(), epoch, clip_norm or math.inf)
        ours.next_epoch()
    assert_moved_alike(start, model, wanted)


def test_sgd_leaves_frozen_parameters_alone() -> None:
    model = nn.Linear(3, 2)
    before = weights(model)
    model.bias.requires_grad_(False)
    SGD(model, 0.1, 0.9, 0.1, 1).step(model(torch.ones(1, 3)).square().sum(), clip_norm=1.0)
    assert torch.equal(model.bias.double(), before["bias"])
    assert not torch.equal(model.weight.double(), before["weight"])


@pytest.mark.parametrize(("n", "sizes"), [(7, [3, 4]), (8, [3, 3, 2]), (2, [2]), (1, [1])])
def test_an_epoch_holds_every_row_once_and_no_last_batch_of_one(n: int, sizes: list[int]) -> None:
    batches = shuffled_rows(n, 3, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(n))


def test_epochs_are_shuffled_differently() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.cat(shuffled_rows(50, 8, draw)) for _ in range(2))
    assert not torch.equal(first, second)


def test_views_are_augmented_only_with_a_crop_scale() -> None:
    images, rows = make_set(9, TASKS["multilabel"], 0), torch.tensor([8, 1, 3, 0, 2])
    assert torch.equal(views(images, rows, (), torch.Generator().manual_seed(0)), images.pixels[rows])
    seen = views(images, rows, (1.0, 1.0), torch.Generator().manual_seed(0))
    flip = torch.rand(5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert 0 < int(flip.sum()) < 5
    for view, row, mirrored in zip(seen, rows, flip, strict=True):
        assert torch.equal(view, images.pixels[row].flip(2) if mirrored else images.pixels[row])
    with pytest.raises(ConfigError, match=r"crop_scale = \[0\.25, 0\.5\]"):  # the set is told the scale
        views(images, rows, (0.25, 0.5), torch.Generator())
