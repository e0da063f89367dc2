"""PGU against explicit unfolding, an explicit spectrum and explicit descent, in float64."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.methods import direct
from tests.unit.methods.direct import TASKS, assert_moved_alike, length_ratio, make_set, weights
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from oneshui.errors import ArtefactError, ConfigError
from oneshui.methods.base import Artefact
from oneshui.methods.pgu import PGU, Products, input_grams
from oneshui.sets import Support
from oneshui.tasks import Task

METHOD = PGU(lr=0.05, epochs=3, gamma=0.7, entropy_weight=0.3, spectrum="clamp", batch_size=2, micro_batch=3)
NETS = ("vit", "resnet", "grouped")
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3},
    "oblong": {"kernel_size": (2, 3)},
    "stride": {"kernel_size": 3, "stride": (2, 3)},
    "padding": {"kernel_size": 3, "padding": (2, 1)},
    "dilation": {"kernel_size": (3, 2), "dilation": (1, 3)},
    "grouped": {"kernel_size": 3, "groups": 2, "stride": 2, "padding": 1},
    "depthwise": {"kernel_size": (3, 2), "groups": 4, "padding": 1, "dilation": 2},
}


def make_net(net: str, task: Task) -> nn.Module:
    if net != "grouped":
        return direct.make_net(net, task)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=3, padding=2, groups=3), nn.GELU(), nn.GroupNorm(2, 6),
            nn.Conv2d(6, 8, (3, 2), dilation=2, groups=2, bias=False), nn.GELU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, task.n_outputs),
        )  # fmt: skip
    return layers.double().eval()


def support_of(task: Task, n: int = 5) -> Support:
    asked = make_set(n, task, 7)
    return Support(0.5 * asked.pixels, asked.labels, asked.identities, task)


def unfolded(layer: nn.Linear | nn.Conv2d, inputs: Tensor) -> Tensor:
    """Return what each output is a product with, (groups, outputs, d), one place of the kernel after another."""
    if isinstance(layer, nn.Linear):
        return inputs.flatten(0, -2)[None]
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    n, channels, height, width = inputs.shape
    padded = inputs.new_zeros(n, channels, height + 2 * ph, width + 2 * pw)
    padded[:, :, ph : ph + height, pw : pw + width] = inputs
    places = [
        padded[:, :, top : top + dh * (kh - 1) + 1 : dh, left : left + dw * (kw - 1) + 1 : dw]
        for top in range(0, height + 2 * ph - dh * (kh - 1), sh)
        for left in range(0, width + 2 * pw - dw * (kw - 1), sw)
    ]
    each = channels // layer.groups
    groups = [[place[:, g * each : (g + 1) * each].flatten(1) for place in places] for g in range(layer.groups)]
    return torch.stack([torch.cat(rows) for rows in groups])


def direct_grams(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the sum of outer products of each layer's inputs."""
    inputs: dict[str, Tensor] = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    model = copy.deepcopy(model)
    for name in layers:
        model.get_submodule(name).register_forward_hook(lambda _, args, __, name=name: inputs.update({name: args[0]}))
    with torch.no_grad():
        model(images)
    rows = {name: unfolded(layer, inputs[name]) for name, layer in layers.items()}
    return {name: torch.einsum("gri,grj->gij", x, x) for name, x in rows.items()}


def direct_basis(difference: Tensor, gamma: float, spectrum: str) -> np.ndarray:
    """Return U_k, (d, k), of one group's difference of Gram matrices."""
    values, vectors = np.linalg.eigh(difference.numpy())
    values = np.abs(values) if spectrum == "absolute" else np.maximum(values, 0)
    order = sorted(range(len(values)), key=lambda i: -values[i])
    singular = [math.sqrt(values[i]) for i in order]
    k = 1 + sum(sum(singular[: i + 1]) / sum(singular) <= gamma for i in range(len(singular)))
    return vectors[:, order[:k]]


def direct_bases(model: nn.Module, train: Tensor, asked: Tensor, method: PGU) -> dict[str, list[np.ndarray]]:
    """Return U_k of each group of each layer."""
    on_support = direct_grams(model, asked)
    differences = {name: gram - on_support[name] for name, gram in direct_grams(model, train).items()}
    return {name: [direct_basis(d, method.gamma, method.spectrum) for d in of] for name, of in differences.items()}


def direct_loss(logits: Tensor, labels: Tensor, kind: str, entropy_weight: float) -> Tensor:
    """Return the mean over images of the loss, from the probabilities of one answer at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits, labels, strict=True):
        if kind == "classification":
            answers = [(row.exp() / row.exp().sum(), int(label))]
        else:
            answers = [(torch.stack([1 - p, p]), int(y)) for p, y in zip(1 / (1 + (-row).exp()), label, strict=True)]
        for p, y in answers:
            loss = -(1.05 - p[y]).log() + entropy_weight * (p * p.log()).sum()
            total = total + loss / len(answers) / len(logits)
    return total


def direct_descent(model: nn.Module, support: Support, bases: dict[str, list[np.ndarray]], method: PGU) -> nn.Module:
    """Return the model after the projected steps."""
    model = copy.deepcopy(model)
    names = list(bases)
    parameters = [model.get_parameter(f"{name}.weight") for name in names]
    for epoch in range(method.epochs):
        lr = method.lr * 0.5 * (1 + math.cos(math.pi * epoch / method.epochs))
        for start in range(0, len(support.images), method.batch_size):
            images, labels = (of[start : start + method.batch_size] for of in (support.images, support.labels))
            loss = direct_loss(model(images), labels, support.task.kind, method.entropy_weight)
            for name, weight, gradient in zip(names, parameters, torch.autograd.grad(loss, parameters), strict=True):
                each = len(weight) // len(bases[name])
                for group, u in enumerate(bases[name]):
                    rows = slice(group * each, (group + 1) * each)
                    flat, basis = gradient[rows].flatten(1), torch.from_numpy(u)
                    weight.data[rows] -= lr * (flat - (flat @ basis) @ basis.T).reshape(weight[rows].shape)
    return model


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).norm()) <= 1e-12 * float(wanted.norm())


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gram_of_a_convolution_is_that_of_its_patches(name: str) -> None:
    layer = nn.Conv2d(4, 8, **CONVOLUTIONS[name], bias=False).double()
    images = torch.randn(3, 4, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = input_grams(nn.Sequential(layer), iter([images[:2], images[2:]]))
    rows = unfolded(layer, images)
    products = torch.cat([x @ w.flatten(1).T for x, w in zip(rows, layer.weight.chunk(layer.groups), strict=True)], 1)
    outputs = layer(images).permute(2, 3, 0, 1).flatten(0, 2)  # (places, channels), in the order of the rows
    torch.testing.assert_close(products, outputs, rtol=1e-9, atol=1e-12)  # these are the layer's patches
    assert list(found) == ["0"]
    assert_close(found["0"], torch.stack([sum(torch.outer(row, row) for row in x) for x in rows]))


@pytest.mark.parametrize("shape", [(5, 6), (2, 7, 6), (2, 3, 2, 6)])
def test_gram_of_a_linear_layer_is_over_all_its_rows(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = input_grams(nn.Sequential(nn.Linear(6, 2).double()), iter([inputs]))
    assert_close(found["0"][0], sum(torch.outer(row, row) for row in inputs.reshape(-1, 6)))
    assert found["0"].shape == (1, 6, 6)


@pytest.mark.parametrize("micro_batch", [1, 3, 64])
@pytest.mark.parametrize("net", NETS)
def test_artefact_is_the_gram_matrix_of_every_layer_for_any_micro_batch(net: str, micro_batch: int) -> None:
    task = TASKS["classification"]
    model, train = make_net(net, task), make_set(7, task, 1)
    artefact = dataclasses.replace(METHOD, micro_batch=micro_batch).precompute(model, train, train, seed=0)
    wanted = direct_grams(model, train.pixels)
    assert artefact.tensors.keys() == wanted.keys()
    for name, gram in wanted.items():
        assert_close(artefact.tensors[name], gram)
    assert artefact.metadata == {"images": 7}
    assert not any(module._forward_pre_hooks for module in model.modules())  # nobody watches any more


@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("spectrum", ["clamp", "absolute"])
def test_projection_is_on_the_leading_eigenvectors(spectrum: str, gamma: float) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, asked = (torch.randn(3, 9, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    on_train, on_support = rows.mT @ rows, asked.mT @ asked
    assert (torch.linalg.eigvalsh(on_train - on_support) < -1).any(dim=1).all()  # the two spectra differ
    found = dataclasses.replace(METHOD, gamma=gamma, spectrum=spectrum).projection(on_train, on_support)
    bases = [direct_basis(difference, gamma, spectrum) for difference in on_train - on_support]
    torch.testing.assert_close(found, torch.stack([torch.from_numpy(u @ u.T) for u in bases]), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("spectrum", "gamma", "wanted"),
    [
        # singular values 3, 1, 0, 0: shares 0.75, 1
        ("clamp", 0.7, [1, 0, 0, 0]),
        ("clamp", 0.75, [1, 1, 0, 0]),  # holding exactly the share is not yet enough
        ("clamp", 0.99, [1, 1, 0, 0]),
        # singular values 4, 3, 1, 0: shares 0.5, 0.875, 1
        ("absolute", 0.49, [0, 0, 1, 0]),
        ("absolute", 0.5, [1, 0, 1, 0]),
        ("absolute", 0.9, [1, 1, 1, 0]),
    ],
)
def test_projection_by_hand(spectrum: str, gamma: float, wanted: list[int]) -> None:
    on_train, on_support = torch.diag(torch.tensor([9.0, 2, 4, 0])), torch.diag(torch.tensor([0.0, 1, 20, 0]))
    found = dataclasses.replace(METHOD, gamma=gamma, spectrum=spectrum).projection(on_train[None], on_support[None])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], torch.diag(torch.tensor(wanted, dtype=torch.float32)))


def test_projection_of_a_layer_without_input_is_finite() -> None:
    found = METHOD.projection(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    assert float(found.sum()) == 1.0
    assert float(found.diagonal(dim1=1, dim2=2).max()) == 1.0


@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
@pytest.mark.parametrize("kind", TASKS)
def test_loss_is_the_formula(kind: str, entropy_weight: float) -> None:
    task = TASKS[kind]
    logits = 2 * torch.randn(6, task.n_outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = make_set(6, task, 1).labels
    found = dataclasses.replace(METHOD, entropy_weight=entropy_weight).loss(logits, labels, task)
    assert float(found) == pytest.approx(float(direct_loss(logits, labels, kind, entropy_weight)), rel=1e-12)


@pytest.mark.parametrize(("kind", "labels"), [("multilabel", [[1, 0]]), ("classification", [1])])
def test_loss_of_an_undecided_answer_by_hand(kind: str, labels: list[Any]) -> None:
    found = METHOD.loss(torch.zeros(1, 2, dtype=torch.float64), torch.tensor(labels), Task(kind, ("a", "b")))
    assert float(found) == pytest.approx(-math.log(0.55) - 0.3 * math.log(2), rel=1e-12)


@pytest.mark.parametrize("kind", TASKS)
def test_certain_answers_keep_loss_and_gradient_finite(kind: str) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    labels = torch.tensor([[1, 0], [1, 0]]) if kind == "multilabel" else torch.tensor([0, 0])
    loss = METHOD.loss(logits, labels, Task(kind, ("a", "b")))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == pytest.approx(-(math.log(0.05) + math.log(1.05)) / 2, rel=1e-5)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("net", "kind", "changes"),
    [
        *((net, kind, {}) for net in NETS for kind in TASKS),
        ("vit", "multilabel", {"spectrum": "absolute", "batch_size": 64, "micro_batch": 64}),
        ("resnet", "classification", {"spectrum": "absolute", "gamma": 0.4, "epochs": 1}),
    ],
)
def test_only_weights_move_and_off_what_training_uses(net: str, kind: str, changes: dict[str, Any]) -> None:
    task, method = TASKS[kind], dataclasses.replace(METHOD, **changes)
    model, train, support = make_net(net, task), make_set(7, task, 1), support_of(task)
    start = weights(model)
    result = method.unlearn(model, support, method.precompute(model, train, train, seed=0), seed=0)
    bases = direct_bases(model, train.pixels, support.images, method)
    wanted = direct_descent(model, support, bases, method)
    assert_moved_alike(start, result.model, wanted)
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, start[name]) != (name.removesuffix(".weight") in bases)
    for name, of in bases.items():
        moved = result.model.get_parameter(f"{name}.weight").detach() - start[f"{name}.weight"]
        for part, u in zip(moved.chunk(len(of)), of, strict=True):
            assert float((part.flatten(1) @ torch.from_numpy(u)).norm()) <= 1e-9 * float(moved.norm())
    kept, size = (sum(u.shape[axis] for of in bases.values() for u in of) for axis in (1, 0))
    assert result.diagnostics["protected_frac"] == pytest.approx(kept / size, rel=1e-9)
    assert result.diagnostics["relative_step"] == pytest.approx(length_ratio(start, wanted), rel=1e-9)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_missing_artefact_or_layer_is_an_error() -> None:
    task = TASKS["classification"]
    model = make_net("resnet", task)
    with pytest.raises(ArtefactError, match="pgu needs its artefact"):
        METHOD.unlearn(model, support_of(task), None, seed=0)
    with pytest.raises(ArtefactError, match=r"has no 'conv1\.0'"):
        METHOD.unlearn(model, support_of(task), Artefact({"other": torch.zeros(1)}), seed=0)


#: layers that pad their input or change their weight in a way of their own
ODD_LAYERS: dict[str, tuple[type[nn.Conv2d], dict[str, Any]]] = {
    "same": (nn.Conv2d, {"kernel_size": (3, 4), "padding": "same", "dilation": (1, 2)}),
    "reflect": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    "TensorFlow": (Conv2dSame, {"kernel_size": 3, "stride": 2}),
    "standardised": (StdConv2d, {"kernel_size": 3, "padding": 1}),
    "standardised, TensorFlow": (StdConv2dSame, {"kernel_size": 3, "stride": 2, "groups": 2}),
    "scaled": (ScaledStdConv2d, {"kernel_size": 3, "gamma": 1.7}),
    "scaled, TensorFlow": (ScaledStdConv2dSame, {"kernel_size": (2, 3), "groups": 2}),
}


@pytest.mark.parametrize("layer", ODD_LAYERS)
def test_rows_times_the_weight_are_the_layers_answer(layer: str) -> None:
    """However a layer pads, and whatever it makes of its parameter: its answer is the product that is read off."""
    make, own = ODD_LAYERS[layer]
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(make(4, 6, bias=False, **own)).double()
        images = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    with (
        torch.no_grad(),
        Products(model, lambda name, product: seen.update({name: (product.inputs(), product.weight)})),
    ):
        answer = model(images)
    ((name, (rows, weight)),) = seen.items()
    products = (
        rows @ weight.flatten(1).reshape(rows.shape[0], -1, rows.shape[-1]).mT
    )  # (groups, B places, out / groups)
    torch.testing.assert_close(
        products.permute(0, 2, 1).flatten(0, 1), answer.transpose(0, 1).flatten(1), atol=1e-12, rtol=0
    )
    assert name == "0"
    torch.testing.assert_close(input_grams(model, iter([images]))["0"], rows.mT @ rows)


@pytest.mark.parametrize("make", [StdConv2d, ScaledStdConv2d])
def test_standardised_weight_moves_off_what_training_uses(make: type[nn.Conv2d]) -> None:
    """The weight that the layer uses moves by -lr times its own gradient, but for what it can't or must not do."""
    task, lr = TASKS["classification"], 1e-7
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = make(3, 6, 3, stride=2, padding=1, bias=False)
        model = nn.Sequential(
            first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, task.n_outputs)
        ).double()  # fmt: skip
    if hasattr(first, "gain"):
        nn.init.uniform_(first.gain, 0.5, 2)
    train, support = make_set(1, task, 1), support_of(task)
    train = dataclasses.replace(train, pixels=train.pixels[:, :, :8, :8].contiguous())  # leaves directions free
    method = dataclasses.replace(METHOD, lr=lr, epochs=1, batch_size=64, gamma=0.8)
    on_train = input_grams(model, iter([train.pixels]))["0"]
    projection = method.projection(on_train, torch.zeros_like(on_train))

    def used(net: nn.Module) -> Tensor:
        found: list[Tensor] = []
        with Products(net, lambda name, product: found.append(product.weight) if name == "0" else None):
            net(support.images)
        return found[0]

    weight = used(model).detach().requires_grad_()
    answer = model[1:](nn.functional.conv2d(support.images, weight, stride=2, padding=1))
    (gradient,) = torch.autograd.grad(method.loss(answer, support.labels, task), weight)
    moved = method.descend(model, support, {"0": projection})
    difference = (used(moved) - used(model)).detach().flatten(1)
    assert float((difference @ projection[0]).norm()) < 1e-5 * float(difference.norm())
    for row, own, step in zip(gradient.flatten(1), used(model).detach().flatten(1), difference, strict=True):
        walls = np.linalg.svd(np.column_stack([projection[0].numpy(), np.ones(len(own)), own.numpy()]))
        basis = walls.U[:, walls.S > 1e-9]
        free = row.numpy() - basis @ (basis.T @ row.numpy())
        np.testing.assert_allclose(step.numpy(), -lr * free, rtol=1e-4, atol=1e-4 * lr * np.abs(free).max())


def test_row_of_equal_weights_stays_and_harms_nobody() -> None:
    """A dead filter of a standardised layer, whose weights cannot be told from their mean."""
    task = TASKS["classification"]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            StdConv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, task.n_outputs)
        ).double()  # fmt: skip
    nn.init.constant_(model[0].weight[2], 0.3)
    train = make_set(4, task, 1)
    start = model[0].weight.detach().clone()
    result = METHOD.unlearn(model, support_of(task), METHOD.precompute(model, train, train, seed=0), seed=0)
    moved = result.model[0].weight.detach() - start
    assert bool(moved.isfinite().all()) and not moved[2].any() and bool(moved[[0, 1, 3, 4, 5]].flatten(1).any(1).all())


def test_fixed_filters_are_passed_over() -> None:
    """They take part in no direction, also where they have the shape of the layer before them."""
    task = TASKS["classification"]

    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernel", torch.full((4, 1, 3, 3), 1 / 9))

        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.conv2d(images, self.kernel.clone(), stride=2, groups=4)

    before = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4)]
    after = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, task.n_outputs)]
    model, plain = nn.Sequential(*before, Blur(), *after).double(), nn.Sequential(*before).double()
    train = make_set(4, task, 1)
    grams = METHOD.precompute(model, train, train, seed=0).tensors
    assert set(grams) == {"0", "1", "5"}
    torch.testing.assert_close(grams["1"], direct_grams(plain, train.pixels)["1"])


class _Mixed(nn.Conv2d):
    """A layer whose weight is made anew for every batch, as in CondConv."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight * images.mean(), self.bias)


def test_weight_that_is_made_in_another_way_is_an_error() -> None:
    task = TASKS["classification"]
    model = nn.Sequential(_Mixed(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, task.n_outputs)).double()
    train = make_set(4, task, 1)
    with pytest.raises(ConfigError, match=r"pgu: a layer makes another weight of its parameter"):
        METHOD.unlearn(model, support_of(task), METHOD.precompute(model, train, train, seed=0), seed=0)


def test_weight_of_another_shape_is_an_error() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList([nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))])

        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.linear(images.mean((2, 3)), torch.cat(list(self.parts)))

    train = make_set(4, TASKS["classification"], 1)
    with pytest.raises(ConfigError, match="a weight that it makes of several parameters"):
        METHOD.precompute(Both().double(), train, train, seed=0)


def test_nobody_watches_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError, match="channels"):
        input_grams(model, iter([torch.zeros(1, 2, 8, 8)]))
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0), ("lr", math.nan), ("gamma", 0.0), ("gamma", 1.0), ("gamma", math.nan), ("entropy_weight", -0.1),
        ("entropy_weight", math.nan), ("epochs", 0), ("batch_size", 0), ("micro_batch", 0), ("spectrum", "fold"),
    ],
)  # fmt: skip
def test_impossible_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"pgu: .*{name} (=|is) '?{value}"):
        dataclasses.replace(METHOD, **{name: value})


def test_a_spectrum_on_which_the_fast_algorithm_fails_is_solved_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    on_train, on_support = (
        rows.transpose(1, 2) @ rows for rows in torch.randn(2, 3, 9, 7, generator=draw, dtype=torch.float64)
    )
    wanted = METHOD.projection(on_train, on_support)

    def fails(matrix: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    torch.testing.assert_close(METHOD.projection(on_train, on_support), wanted, rtol=1e-9, atol=1e-9)
