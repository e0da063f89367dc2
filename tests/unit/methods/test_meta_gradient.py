"""The meta-gradient is exact: against double backward through the whole backbone, in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from tests.unit.methods.direct import inputs_of, make_set
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneshui.methods import outer as outer_module
from oneshui.methods.metaloss import Backbone, MetaLoss, SupportBatch
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.outer import Eq6, ScrubOuter, ValidationReference, validation_reference
from oneshui.models import ModelSpec, build_model
from oneshui.sets import ImageSet
from oneshui.tasks import Task

N_SUPPORT, N_FORGET, N_VAL, N_RETAIN, PX = 5, 7, 6, 9, 32
NETS = {
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}),
    "resnet": ("resnet10t", {"channels": (8, 16, 32, 64), "stem_width": 8}),
}
TASKS = {
    "multilabel": Task("multilabel", tuple(f"a{i}" for i in range(40))),
    "classification": Task("classification", tuple(f"c{i}" for i in range(8))),
}
PAIRS = [(net, kind) for net in NETS for kind in TASKS]
METHOD = MetaUnlearn(
    inner_lr=0.3, lr=1e-3, epochs=1, simulated_n=4, batch_size=64, micro_batch=64, hidden=16, dropout=0.0,
    inputs=("logits", "features", "target", "identity"), outer_loss="equation_6",
    terms="both", accuracy_weight=True, distance="smooth_l1", val_gradient=False, frozen=(), jvp="exact",
)  # fmt: skip


def make_net(net: str, task: Task) -> nn.Module:
    name, options = NETS[net]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build_model(ModelSpec(name, task, PX, 0.5, 0.5, options)).double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that matter: not mean 0, variance 1
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)  # with 0, as timm starts, residual branches have no gradient
    return model


class Case:
    """One simulated request on one net, with the meta-gradient computed in two ways."""

    def __init__(self, net: str, kind: str, method: MetaUnlearn) -> None:
        self.method, self.task = method, TASKS[kind]
        self.model = make_net(net, self.task)
        self.forget, self.val = make_set(N_FORGET, self.task, 2), make_set(N_VAL, self.task, 3)
        self.retain = make_set(N_RETAIN, self.task, 8)
        asked = make_set(N_SUPPORT, self.task, 4)
        targets = self.task.target_vectors(asked.labels).double()
        self.support = SupportBatch(asked.pixels, targets, torch.tensor([3, 0, 5, 1, 4]))
        self.reference = validation_reference(self.model, self.val, 64)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.meta_loss = MetaLoss(
                n_outputs=self.task.n_outputs, n_features=self.model.num_features, n_identities=6,
                inputs=method.inputs, hidden=method.hidden, dropout=method.dropout,
            ).double()  # fmt: skip

    def single(self) -> None:
        """Go on in float32, which autocast lowers; it leaves float64 alone."""
        self.model.float(), self.meta_loss.float()
        self.forget, self.val, self.retain = (
            dataclasses.replace(each, pixels=each.pixels.float()) for each in (self.forget, self.val, self.retain)
        )
        support = self.support
        self.support = SupportBatch(support.images.float(), support.targets.float(), support.rows)

    def ours(self) -> tuple[float, Tensor]:
        """Return A and dA/dphi as the package computes them."""
        backbone = Backbone(self.model)
        self.meta_loss.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(6)  # the dropout mask
            step = self.method.inner_step(backbone, self.meta_loss, self.support)
        draw = np.random.default_rng(7)
        if self.method.outer_loss == "scrub":
            outer = ScrubOuter(self.method, backbone, self.forget, self.retain, draw)(step.theta)
        else:
            outer = Eq6(self.method, backbone, self.forget, self.val, self.reference, draw)(step.theta)
        self.method.accumulate_meta_gradient(backbone, self.support, step, outer.gradient)
        return outer.value, self._flat({n: p.grad for n, p in self.meta_loss.named_parameters()})

    def plain(self) -> tuple[float, Tensor]:
        """Return A and dA/dphi by ``create_graph=True`` through the backbone."""
        with sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng():
            torch.manual_seed(6)
            theta = dict(self.model.named_parameters())
            features, logits = self._outputs(theta, self.support.images)
            h = self.meta_loss(features, logits, self.support.targets, self.support.rows).mean()
            gradients = torch.autograd.grad(h, list(theta.values()), create_graph=True, materialize_grads=True)
            moved = {
                name: value if name in self.method.frozen else value - self.method.inner_lr * gradient
                for (name, value), gradient in zip(theta.items(), gradients, strict=True)
            }
            value = self._scrub(moved) if self.method.outer_loss == "scrub" else self._outer(moved)
            found = torch.autograd.grad(value, list(self.meta_loss.parameters()), allow_unused=True)
        return float(value.detach()), self._flat(dict(zip(dict(self.meta_loss.named_parameters()), found, strict=True)))

    def _outputs(self, theta: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []  # the classifier's input
        hook = self.model.get_classifier().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits = functional_call(self.model, {**theta, **dict(self.model.named_buffers())}, (images,))
        hook.remove()
        return seen[0], logits

    def _outer(self, theta: dict[str, Tensor]) -> Tensor:
        """Equation 6, or the part of it that the method's options leave."""
        method, draw = self.method, np.random.default_rng(7)
        total = torch.zeros((), dtype=torch.float64)
        for rows in torch.arange(N_FORGET).split(method.batch_size):
            val = self.val.subset(torch.from_numpy(draw.permutation(N_VAL)[: method.batch_size]))
            on_forget, on_val = self._weighted(theta, self.forget.subset(rows)), self._weighted(theta, val)
            on_val = on_val if method.val_gradient else on_val.detach()
            weight = 1 - self.reference.measure if method.accuracy_weight else 1
            original = torch.tensor(weight * self.reference.loss, dtype=torch.float64)
            distance = {"smooth_l1": F.smooth_l1_loss, "l2": lambda a, b: (a - b) ** 2}[method.distance]
            terms = {"first": distance(on_forget, on_val), "second": distance(on_forget, original)}
            part = terms["first"] + terms["second"] if method.terms == "both" else terms[method.terms]
            total = total + part * len(rows) / N_FORGET
        return total

    def _scrub(self, theta: dict[str, Tensor]) -> Tensor:
        """Away from the original model on forget images, towards it and the labels on as many retain images."""
        draw, total = np.random.default_rng(7), torch.zeros((), dtype=torch.float64)
        for rows in torch.arange(N_FORGET).split(self.method.batch_size):
            retain = self.retain.subset(torch.from_numpy(draw.permutation(N_RETAIN)[: self.method.batch_size]))
            kept = self._outputs(theta, inputs_of(retain))[1]
            loss = self.task.losses(kept, retain.labels).mean()
            away = 16 * self._kl(self._outputs(theta, self.forget.pixels[rows])[1], self.forget.pixels[rows])
            part = -away + 0.001 * 16 * self._kl(kept, inputs_of(retain)) + 0.99 * loss
            total = total + part * len(rows) / N_FORGET
        return total

    def _kl(self, logits: Tensor, images: Tensor) -> Tensor:
        """KL from the original model's answer at temperature 4: of each attribute's bit, or of the class."""
        with torch.no_grad():
            original = self.model(images)
        if self.task.kind == "multilabel":
            p, q = (original / 4).sigmoid(), (logits / 4).sigmoid()
            return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
        p, q = (original / 4).softmax(1), (logits / 4).softmax(1)
        return (p * (p / q).log()).sum(1).mean()

    def _weighted(self, theta: dict[str, Tensor], images: ImageSet) -> Tensor:
        _, logits = self._outputs(theta, inputs_of(images))
        loss = self.task.losses(logits, images.labels).mean()
        return loss * (1 - self._measure(logits, images.labels)) if self.method.accuracy_weight else loss

    def _measure(self, logits: Tensor, labels: Tensor) -> float:
        if self.task.kind == "classification":
            return float((logits.argmax(1) == labels).double().mean())
        precisions = []
        for scores, bits in zip(logits.T, labels.T, strict=True):
            if bits.any():
                ranked = bits[scores.argsort(descending=True)]
                precision = ranked.cumsum(0).double() / torch.arange(1, len(ranked) + 1)
                precisions.append(float(precision[ranked == 1].mean()))
        return float(np.mean(precisions))

    def _flat(self, gradients: dict[str, Tensor | None]) -> Tensor:
        known = self.meta_loss.named_parameters()
        parts = [torch.zeros_like(p) if gradients[name] is None else gradients[name] for name, p in known]
        return torch.cat([part.flatten() for part in parts])


def assert_exact(case: Case, bound: float = 1e-9) -> None:
    value, gradient = case.ours()
    wanted_value, wanted = case.plain()
    assert value == pytest.approx(wanted_value, rel=1e-12)
    assert wanted.norm() > 0
    error = float((gradient - wanted).norm() / wanted.norm())
    assert error <= bound, f"relative error {error:.2g}"


@pytest.mark.parametrize("micro_batch", [2, 64])
@pytest.mark.parametrize(("net", "kind"), PAIRS)
def test_meta_gradient_is_exact(net: str, kind: str, micro_batch: int) -> None:
    assert_exact(Case(net, kind, dataclasses.replace(METHOD, micro_batch=micro_batch)))


@pytest.mark.parametrize(("net", "kind"), PAIRS)
def test_meta_gradient_uses_one_dropout_mask(net: str, kind: str) -> None:
    case = Case(net, kind, dataclasses.replace(METHOD, dropout=0.5))
    assert_exact(case)
    _, dropped = case.ours()
    case.meta_loss.eval()
    assert not torch.allclose(case.ours()[1], dropped)  # the mask did something


OPTIONS: dict[str, dict[str, object]] = {
    "first": {"terms": "first"},
    "second": {"terms": "second"},
    "no accuracy weight": {"accuracy_weight": False},
    "l2": {"distance": "l2"},
    "through validation": {"val_gradient": True, "micro_batch": 4},
    "through validation, first": {"val_gradient": True, "terms": "first"},
    "through validation, second": {"val_gradient": True, "terms": "second"},
    "several batches": {"batch_size": 3, "micro_batch": 2},
    "several batches through validation": {"batch_size": 3, "val_gradient": True},
    "scrub": {"outer_loss": "scrub"},
    "scrub in several batches": {"outer_loss": "scrub", "batch_size": 3, "micro_batch": 2},
    "logits": {"inputs": ("logits",)},
    "features": {"inputs": ("features",)},
    "no identity": {"inputs": ("target", "features", "logits")},
    "logits, identity": {"inputs": ("logits", "identity"), "micro_batch": 2},
}


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *(("classification", option) for option in OPTIONS),
        ("multilabel", "several batches through validation"),
        ("multilabel", "scrub in several batches"),
    ],
)
def test_meta_gradient_is_exact_with_option(kind: str, option: str) -> None:
    assert_exact(Case("vit", kind, dataclasses.replace(METHOD, **OPTIONS[option])))


@pytest.mark.parametrize(
    ("net", "frozen"), [("vit", ("cls_token", "pos_embed", "blocks.0.attn.qkv.weight")), ("resnet", ("fc.weight",))]
)
def test_meta_gradient_is_exact_with_frozen_parameters(net: str, frozen: tuple[str, ...]) -> None:
    case = Case(net, "classification", dataclasses.replace(METHOD, frozen=frozen))
    assert_exact(case)
    everything = Case(net, "classification", METHOD)
    assert not torch.allclose(everything.ours()[1], case.ours()[1])


@pytest.mark.parametrize("distance", ["smooth_l1", "l2"])
def test_meta_gradient_is_exact_where_losses_are_far_apart(distance: str) -> None:
    case = Case("vit", "classification", dataclasses.replace(METHOD, distance=distance))
    case.reference = ValidationReference(loss=9.0, measure=0.25)  # beyond the square part of smooth L1
    assert_exact(case)


# measured: 3e-5 and 1e-5 for the smooth ViT; 1 to 5% for ReLUs, whose kinks lie between the two points
@pytest.mark.parametrize(("net", "bound"), [("vit", 1e-4), ("resnet", 0.1)])
@pytest.mark.parametrize("kind", TASKS)
def test_finite_difference_is_close(net: str, kind: str, bound: float) -> None:
    assert_exact(Case(net, kind, dataclasses.replace(METHOD, jvp="finite_difference", micro_batch=2)), bound)


def test_inner_step_reports_its_size() -> None:
    case = Case("vit", "classification", METHOD)
    backbone = Backbone(case.model)
    step = METHOD.inner_step(backbone, case.meta_loss, case.support)
    before, after = (torch.cat([v.flatten() for v in t.values()]) for t in (backbone.theta, step.theta))
    moved = float((after - before).norm())
    assert step.gradient_norm == pytest.approx(moved / METHOD.inner_lr, rel=1e-9)
    assert step.relative_step == pytest.approx(moved / float(before.norm()), rel=1e-9)
    assert step.relative_step > 1e-4


@pytest.mark.parametrize("outer_loss", ["equation_6", "scrub"])
def test_outer_passes_in_bf16_keep_the_direction_of_the_meta_gradient(
    monkeypatch: pytest.MonkeyPatch, outer_loss: str
) -> None:
    exact = Case("vit", "multilabel", dataclasses.replace(METHOD, outer_loss=outer_loss))
    lower = Case("vit", "multilabel", dataclasses.replace(exact.method, outer_precision="bf16"))
    wanted, ignored = exact.ours()[1], lower.ours()[1]
    assert torch.equal(ignored, wanted)  # the CPU computes in the precision of the weights
    for case in (exact, lower):
        case.single()
    wanted = exact.ours()[1]
    monkeypatch.setattr(outer_module, "LOWERED", ("cpu",))
    found = lower.ours()[1]
    assert found.dtype == torch.float32
    # its length follows the difference of two losses, which is small beside their rounding
    assert float((found - wanted).norm() / wanted.norm()) > 1e-4
    assert float(F.cosine_similarity(found, wanted, dim=0)) > 0.99
