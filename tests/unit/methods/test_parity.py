"""Agreement with the published implementations: inputs and outputs in the folder named by ONESHUI_GOLDEN."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oneshui.methods.bad_teacher import BadTeacher
from oneshui.methods.jit import JiT
from oneshui.methods.metaloss import Backbone, MetaLoss, SupportBatch
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.outer import Eq6, validation_reference
from oneshui.methods.pgu import PGU, input_grams
from oneshui.methods.scrub import SCRUB
from oneshui.methods.ssd import SSD
from oneshui.models import ModelSpec, build_model
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task

GOLDEN = Path(os.environ.get("ONESHUI_GOLDEN") or Path(__file__).parents[2] / "golden")
README: dict[str, Any] = json.loads((GOLDEN / "README.json").read_text())
CASES: dict[str, Any] = README["cases"]
META = [case for case in CASES if "/meta_" in case]
KINDS = sorted({case.split("/")[0] for case in CASES})


def task_of(kind: str) -> Task:
    return Task(kind, tuple(f"c{i}" for i in range(README["model"]["num_classes"])))


def data_of(kind: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{kind}_data.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def model_of(kind: str, weights: str = "pretrain") -> nn.Module:
    described = README["model"]
    options = {key: described[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}
    model = build_model(ModelSpec(described["name"], task_of(kind), described["img_size"], 0.5, 0.5, options))
    model.load_state_dict(load_file(GOLDEN / f"{kind}_{weights}.safetensors"))
    return model


def support_of(kind: str) -> Support:
    data = data_of(kind)
    n = len(data["support_x"])
    return Support(data["support_x"], data["support_y"], torch.arange(n), task_of(kind))


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    assert set(wanted) <= set(found)
    return sum(float((found[name] - value).detach().double().square().sum()) for name, value in wanted.items()) ** 0.5


def assert_same_change(found: dict[str, Tensor], kind: str, reference: str) -> None:
    """The distance to the reference is at most 1e-3 of the way that the reference method went."""
    wanted = load_file(GOLDEN / f"{kind}_{reference}.safetensors")
    start = load_file(GOLDEN / f"{kind}_pretrain.safetensors")
    way = distance(start, wanted)
    assert way > 0
    assert distance(found, wanted) <= 1e-3 * way


def assert_close(found: dict[str, Tensor], file: str) -> None:
    wanted = load_file(GOLDEN / file)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        error = float((found[name] - value).double().norm() / value.double().norm())
        assert error <= 1e-4, f"{name}: relative error {error:.2g}"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if f"{kind}/ssd" in CASES])
def test_parity_ssd(kind: str) -> None:
    case, data = CASES[f"{kind}/ssd"], data_of(kind)
    method = SSD(
        selection=case["alpha_selection_weighting"], dampening=case["lambda_dampening_constant"], fisher="batch",
        batch_size=8, micro_batch=8,
    )  # fmt: skip
    train = ImageSet.of_inputs(
        torch.cat([data["retain_x"], data["forget_x"]]), torch.cat([data["retain_y"], data["forget_y"]]), task_of(kind)
    )
    artefact = method.precompute(model_of(kind), train, train, seed=0)
    assert_close(artefact.tensors, f"{kind}_ssd_importance_train.safetensors")
    result = method.unlearn(model_of(kind), support_of(kind), artefact, seed=0)
    assert_same_change(dict(result.model.named_parameters()), kind, "ssd")


def kinds_of(method: str) -> list[str]:
    """The tasks that have a case of this method."""
    return [kind for kind in KINDS if f"{kind}/{method}" in CASES]


def set_of(kind: str, part: str) -> ImageSet:
    data = data_of(kind)
    return ImageSet.of_inputs(data[f"{part}_x"], data[f"{part}_y"], task_of(kind))


@pytest.mark.parametrize("kind", kinds_of("jit"))
def test_parity_jit(kind: str) -> None:
    case = CASES[f"{kind}/jit"]
    with np.load(GOLDEN / f"{kind}_jit_noise.npz") as arrays:
        noise = torch.from_numpy(arrays["standard_normal"])
    model, support = model_of(kind), support_of(kind)
    method = JiT(
        lr=case["lr"], noise_std=case["noise_std"], n_samples=case["n_samples"], batch_size=len(support.images)
    )
    method.step(model, support.images, noise)
    assert_same_change(dict(model.named_parameters()), kind, "jit")


@pytest.mark.parametrize("kind", kinds_of("pgu"))
def test_parity_pgu(kind: str) -> None:
    """The linear layers' projections, and the weights with the projections of the file (whose patches overlap)."""
    case, support = CASES[f"{kind}/pgu"], support_of(kind)
    method = PGU(
        lr=case["lr"], epochs=case["epochs"], gamma=case["gamma"], entropy_weight=case["entropy_weight"],
        spectrum="absolute", batch_size=128, micro_batch=8,
    )  # fmt: skip
    data = data_of(kind)
    train = ImageSet.of_inputs(
        torch.cat([data["retain_x"], data["forget_x"]]), torch.cat([data["retain_y"], data["forget_y"]]), task_of(kind)
    )
    model, wanted = model_of(kind), load_file(GOLDEN / f"{kind}_pgu_projections.safetensors")
    artefact = method.precompute(model, train, train, seed=0)
    on_support = input_grams(model, iter([support.images]))
    assert set(on_support) == set(wanted)
    linear = {name: p for name, p in wanted.items() if isinstance(model.get_submodule(name), nn.Linear)}
    assert len(linear) >= 2
    for name, projection in linear.items():
        found = method.projection(artefact.need(name), on_support[name])[0]
        assert float((found - projection).norm() / projection.norm()) <= 1e-4, name
    result = method.descend(model, support, {name: projection[None] for name, projection in wanted.items()})
    assert_same_change(dict(result.named_parameters()), kind, "pgu")


@pytest.mark.parametrize("kind", kinds_of("scrub"))
def test_parity_scrub(kind: str) -> None:
    case = CASES[f"{kind}/scrub"]
    method = SCRUB(
        lr=case["lr"], momentum=case["momentum"], weight_decay=case["weight_decay"], epochs=case["epochs"],
        forget_epochs=case["forgetting_epochs"], alpha=case["alpha_scrub"], gamma=case["gamma_scrub"],
        temperature=case["temperature_scrub"], clip_norm=case["clip_grad_norm_on_forget"],
        forget_batch_size=case["forget_batch"], retain_batch_size=case["retain_batch"], crop_scale=(), kl="softmax",
    )  # fmt: skip
    result = method.unlearn(
        model_of(kind), set_of(kind, "forget"), set_of(kind, "retain"), seed=0, rebuild=lambda seed: nn.Identity()
    )
    assert_same_change(dict(result.model.named_parameters()), kind, "scrub")


@pytest.mark.parametrize("kind", kinds_of("bad_teacher"))
def test_parity_bad_teacher(kind: str) -> None:
    case = CASES[f"{kind}/bad_teacher"]
    forget, retain = set_of(kind, "forget"), set_of(kind, "retain")
    method = BadTeacher(
        lr=case["lr"], momentum=case["momentum"], weight_decay=case["weight_decay"], epochs=case["epochs"],
        temperature=case["temperature"], batch_size=len(forget) + len(retain), crop_scale=(), kl="softmax",
    )  # fmt: skip
    result = method.unlearn(
        model_of(kind), forget, retain, seed=0, rebuild=lambda seed: model_of(kind, "bad_teacher_weights")
    )
    assert_same_change(dict(result.model.named_parameters()), kind, "bad_teacher")


def meta_method(case: str) -> MetaUnlearn:
    _, terms, weighted = case.split("/")[1].split("_")
    hidden = load_file(GOLDEN / f"{case.split('/')[0]}_meta_loss.safetensors")["input_block.0.bias"].shape[0]
    return MetaUnlearn(
        inner_lr=CASES[case]["eta"], lr=1e-3, epochs=1, simulated_n=4, batch_size=64, micro_batch=64, hidden=hidden,
        dropout=0.0, inputs=("logits", "features", "target", "identity"),
        outer_loss="equation_6",
        terms={"full": "both", "original": "second", "unlearned": "first"}[terms], accuracy_weight=weighted == "acc",
        distance="smooth_l1", val_gradient=False, frozen=("cls_token", "pos_embed"), jvp="exact",
    )  # fmt: skip


def meta_parts(case: str, method: MetaUnlearn) -> tuple[Backbone, MetaLoss, SupportBatch]:
    kind = case.split("/")[0]
    support, state = support_of(kind), load_file(GOLDEN / f"{kind}_meta_loss.safetensors")
    meta_loss = MetaLoss(
        n_outputs=support.task.n_outputs, n_features=README["model"]["embed_dim"],
        n_identities=len(state["embed.weight"]), inputs=method.inputs, hidden=method.hidden, dropout=0.0,
    )  # fmt: skip
    meta_loss.load_state_dict(state)
    batch = SupportBatch(support.images, support.task.target_vectors(support.labels), support.identities)
    return Backbone(model_of(kind)), meta_loss, batch


@pytest.mark.parametrize("micro_batch", [64, 3])
@pytest.mark.parametrize("case", META)
def test_parity_meta_gradient(case: str, micro_batch: int) -> None:
    kind, data = case.split("/")[0], data_of(case.split("/")[0])
    method = dataclasses.replace(meta_method(case), micro_batch=micro_batch)
    backbone, meta_loss, batch = meta_parts(case, method)
    step = method.inner_step(backbone, meta_loss, batch)
    # the file gives the sum over the support set, the published step follows the mean
    assert step.mean_h * len(batch.images) == pytest.approx(CASES[case]["meta_loss"], rel=1e-4)
    forget = ImageSet.of_inputs(data["forget_x"], data["forget_y"], task_of(kind))
    val = ImageSet.of_inputs(data["val_x"], data["val_y"], task_of(kind))
    reference = validation_reference(model_of(kind), val, 64)
    outer = Eq6(method, backbone, forget, val, reference, np.random.default_rng(0))(step.theta)
    assert outer.value == pytest.approx(CASES[case]["aux_loss"], rel=1e-4)
    method.accumulate_meta_gradient(backbone, batch, step, outer.gradient)
    gradients = {name: value.grad for name, value in meta_loss.named_parameters() if value.grad is not None}
    assert_close(gradients, f"{case.replace('/', '_')}_grads.safetensors")


@pytest.mark.parametrize("kind", sorted({case.split("/")[0] for case in META}))
def test_parity_meta_unlearned_weights(kind: str) -> None:
    case = next(case for case in META if case.startswith(kind))
    method = dataclasses.replace(meta_method(case), frozen=())
    backbone, meta_loss, batch = meta_parts(case, method)
    step = method.inner_step(backbone, meta_loss, batch)
    moved = {name.removeprefix("model."): value for name, value in step.theta.items()}
    assert_same_change(moved, kind, "meta_unlearned")
