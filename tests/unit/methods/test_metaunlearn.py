"""MetaUnlearn: simulated requests, and the way from a model to an unlearned one through the stored artefact."""

import dataclasses
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oneshui.errors import ArtefactError, ConfigError, DataError
from oneshui.methods.base import Artefact, Unlearned
from oneshui.methods.metaloss import Backbone, MetaLoss, SupportBatch
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.simulation import simulate_requests
from oneshui.models import ModelSpec, build_model
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task

CPU = torch.device("cpu")
TASK = Task("classification", ("a", "b", "c", "d"))
METHOD = MetaUnlearn(
    inner_lr=0.1, lr=1e-3, epochs=2, simulated_n=2, batch_size=8, micro_batch=4, hidden=16, dropout=0.5,
    inputs=("logits", "features", "target", "identity"), outer_loss="equation_6",
    terms="both", accuracy_weight=True, distance="smooth_l1", val_gradient=False, frozen=(), jvp="exact",
)  # fmt: skip

# ---- simulated requests

# image counts 3, 1, 2, 4, 1, 2, 5 of identities 10, 11, ..., in mixed order
COUNTS = {10: 3, 11: 1, 12: 2, 13: 4, 14: 1, 15: 2, 16: 5}
IDENTITIES = np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
USABLE = {10, 12, 13, 15, 16}


def as_lists(requests: list[Any]) -> list[tuple[list[int], list[int]]]:
    return [(r.support.tolist(), r.forget.tolist()) for r in requests]


def test_an_epoch_asks_for_every_usable_identity_once() -> None:
    requests = simulate_requests(IDENTITIES, 1, seed=0, epoch=0)
    asked = [IDENTITIES[request.support].tolist() for request in requests]
    assert sorted(identity for one in asked for identity in one) == sorted(USABLE)


def test_forget_images_are_all_other_images_of_the_asked_identities() -> None:
    for request in simulate_requests(IDENTITIES, 2, seed=0, epoch=0):
        asked = IDENTITIES[request.support]
        assert len(set(asked)) == 2
        everything = np.flatnonzero(np.isin(IDENTITIES, asked))
        assert sorted([*request.support, *request.forget]) == everything.tolist()


def test_last_request_is_filled_from_the_start_of_the_order() -> None:
    requests = simulate_requests(IDENTITIES, 3, seed=0, epoch=0)
    asked = [identity for request in requests for identity in IDENTITIES[request.support]]
    assert [len(request.support) for request in requests] == [3, 3]
    assert set(asked[:5]) == USABLE
    assert asked[5] == asked[0]


def test_requests_depend_on_seed_and_epoch_only() -> None:
    first = as_lists(simulate_requests(IDENTITIES, 2, seed=0, epoch=0))
    assert as_lists(simulate_requests(IDENTITIES, 2, seed=0, epoch=0)) == first
    assert as_lists(simulate_requests(IDENTITIES, 2, seed=1, epoch=0)) != first
    assert as_lists(simulate_requests(IDENTITIES, 2, seed=0, epoch=1)) != first


def test_support_image_is_drawn_anew_every_epoch() -> None:
    drawn = Counter(
        int(row)
        for epoch in range(40)
        for request in simulate_requests(IDENTITIES, 5, seed=0, epoch=epoch)
        for row in request.support
        if IDENTITIES[row] == 16
    )
    assert len(drawn) == 5
    assert sum(drawn.values()) == 40


def test_photos_that_were_never_trained_on_are_asked_with_and_all_images_forgotten() -> None:
    photos = np.array([16, 11, 13, 10])  # nobody else has one; 11 has a single training image
    requests = simulate_requests(IDENTITIES, 2, seed=0, epoch=0, photos=photos)
    asked = [photos[request.support].tolist() for request in requests]
    assert sorted(identity for one in asked for identity in one) == [10, 11, 13, 16]
    for people, request in zip(asked, requests, strict=True):
        assert request.forget.tolist() == np.flatnonzero(np.isin(IDENTITIES, people)).tolist()


def test_too_few_usable_identities_is_an_error() -> None:
    with pytest.raises(DataError, match="simulated_n = 6, but only 5 train identities"):
        simulate_requests(IDENTITIES, 6, seed=0, epoch=0)


# ---- h_phi


@pytest.mark.parametrize("inputs", [("identity", "logits"), ("features", "target", "logits", "identity")])
def test_meta_loss_is_the_formula_of_table_8b(inputs: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    h = MetaLoss(n_outputs=3, n_features=5, n_identities=4, inputs=inputs, hidden=6, dropout=0.5).double().eval()
    features, logits = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    target, rows = torch.eye(3, dtype=torch.float64)[:2], torch.tensor([2, -1])
    p = {name: value.detach() for name, value in h.named_parameters()}
    embedding = torch.stack([p["embed.weight"][2], p["embed.weight"].mean(0)])  # -1: the mean of all
    parts = {"logits": 1 / (1 + (-logits).exp()), "features": features, "target": target, "identity": embedding}

    def norm(x: Tensor, block: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return scaled * p[f"{block}.weight"] + p[f"{block}.bias"]

    x = torch.cat([parts[name] for name in inputs], 1) @ p["input_block.0.weight"].T + p["input_block.0.bias"]
    x = norm(x, "input_block.1") @ p["input_block.2.weight"].T + p["input_block.2.bias"]
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    x = norm(x, "output_block.0") @ p["output_block.1.weight"].T + p["output_block.1.bias"]
    wanted = (1 + x.exp()).log()[:, 0]
    torch.testing.assert_close(h(features, logits, target, rows).detach(), wanted, rtol=1e-12, atol=0)


# ---- precompute, then unlearn


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"channels": (8, 8, 8, 8), "stem_width": 8}
        return build_model(ModelSpec("resnet10t", TASK, 32, 0.5, 0.5, options))


def make_set(identities: list[int], seed: int) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(len(identities), 3, 32, 32, generator=draw)
    labels = torch.randint(4, (len(identities),), generator=draw)
    return ImageSet.of_inputs(images, labels, TASK, torch.tensor(identities))


TRAIN = make_set([7, 7, 7, 3, 3, 9, 9, 9, 9, 4, 5, 5], seed=1)  # identity 4 cannot be simulated
VAL = make_set([1, 1, 2, 2, 2, 2], seed=2)


def support_of(identities: list[int]) -> Support:
    asked = make_set(identities, seed=3)
    return Support(asked.pixels, asked.labels, asked.identities, TASK)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def artefact(model: nn.Module) -> Artefact:
    return METHOD.precompute(model, TRAIN, VAL, seed=0)


def unlearn(model: nn.Module, artefact: Artefact, identities: list[int], **changes: Any) -> Unlearned:
    return dataclasses.replace(METHOD, **changes).unlearn(model, support_of(identities), artefact, seed=0)


def test_precompute_keeps_the_model_and_says_what_happened(model: nn.Module) -> None:
    before = weights(model)
    state = torch.get_rng_state()
    artefact = METHOD.precompute(model, TRAIN, VAL, seed=0)
    assert equal(weights(model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert artefact.tensors["identities"].tolist() == [3, 4, 5, 7, 9]
    # 4 usable identities in requests of 2, for 2 epochs
    assert [entry["epoch"] for entry in artefact.metadata["history"]] == [0, 0, 1, 1]
    keys = {"outer_loss", "mean_h", "gradient_norm", "relative_step", "finite"}
    keys |= {"epoch", "forget_loss", "val_loss", "val_measure"}
    assert all(set(entry) == keys for entry in artefact.metadata["history"])
    assert artefact.metadata["health"]["saturated"] is False
    assert artefact.metadata["n_features"] == 8 and artefact.metadata["n_outputs"] == 4


def test_precompute_depends_on_its_seed_only(model: nn.Module, artefact: Artefact) -> None:
    torch.manual_seed(99)
    assert equal(METHOD.precompute(model, TRAIN, VAL, seed=0).tensors, artefact.tensors)
    assert not equal(METHOD.precompute(model, TRAIN, VAL, seed=1).tensors, artefact.tensors)


def test_meta_training_lowers_the_outer_loss(model: nn.Module) -> None:
    method = dataclasses.replace(METHOD, lr=1e-2, epochs=12, dropout=0.0, accuracy_weight=False)
    history = method.precompute(model, TRAIN, VAL, seed=0).metadata["history"]
    first, last = (np.mean([e["outer_loss"] for e in history if e["epoch"] == epoch]) for epoch in (0, 11))
    assert last < 0.7 * first


def test_meta_learning_rate_falls_as_a_cosine(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def meta_step(self: MetaUnlearn, backbone: Any, meta_loss: Any, optimiser: Any, *_: Any) -> dict[str, float]:
        used.append(optimiser.param_groups[0]["lr"])
        return dict.fromkeys(("outer_loss", "relative_step", "val_measure", "finite"), 1.0)

    monkeypatch.setattr(MetaUnlearn, "_meta_step", meta_step)
    dataclasses.replace(METHOD, lr=2.0, epochs=4, simulated_n=4).precompute(model, TRAIN, VAL, seed=0)
    assert used == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])


def test_unlearning_is_one_step_of_size_inner_lr(model: nn.Module, artefact: Artefact) -> None:
    before = weights(model)
    half, whole = (unlearn(model, artefact, [7, 9], inner_lr=lr) for lr in (0.05, 0.1))
    assert equal(weights(model), before)
    assert whole.diagnostics["relative_step"] == pytest.approx(2 * half.diagnostics["relative_step"], rel=1e-5)
    for name, start in model.named_parameters():
        moved = whole.model.get_parameter(name) - start
        torch.testing.assert_close(moved, 2 * (half.model.get_parameter(name) - start), rtol=1e-2, atol=1e-6)
    for name, buffer in model.named_buffers():
        assert torch.equal(whole.model.get_buffer(name), buffer)
    assert not equal(weights(whole.model), before)
    assert whole.diagnostics["saturated"] is False and whole.diagnostics["unknown_identities"] == 0


def test_unlearning_does_not_drop_units_of_the_meta_loss(model: nn.Module, artefact: Artefact) -> None:
    torch.manual_seed(1)
    first = weights(unlearn(model, artefact, [7, 9]).model)
    torch.manual_seed(2)
    assert equal(weights(unlearn(model, artefact, [7, 9]).model), first)


def test_the_step_can_be_the_mean_over_dropout_masks(model: nn.Module, artefact: Artefact) -> None:
    """The gradient of the mean of h over masks is the mean of the gradients that meta-training steps with."""
    torch.manual_seed(1)
    several = unlearn(model, artefact, [7, 9], dropout_samples=3)
    torch.manual_seed(2)
    assert equal(weights(unlearn(model, artefact, [7, 9], dropout_samples=3).model), weights(several.model))
    meta_loss, rows = METHOD._restore(artefact, support_of([7, 9]), 8)
    asked, backbone = support_of([7, 9]), Backbone(model)
    batch = SupportBatch(asked.images, TASK.target_vectors(asked.labels), rows)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of("metaunlearn-unlearn", 0))
        # micro_batch 4 holds both photos, so the masks of one pass are drawn one after the other
        single = [METHOD.inner_step(backbone, meta_loss.train(), batch).theta for _ in range(3)]
    for name, value in several.model.named_parameters():
        wanted = torch.stack([theta[f"model.{name}"] for theta in single]).mean(0)
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)
    assert not equal(weights(several.model), weights(unlearn(model, artefact, [7, 9]).model))


def test_frozen_parameters_stay(model: nn.Module, artefact: Artefact) -> None:
    result = unlearn(model, artefact, [7], frozen=("fc.weight",)).model
    assert torch.equal(result.get_parameter("fc.weight"), model.get_parameter("fc.weight"))
    assert not torch.equal(result.get_parameter("fc.bias"), model.get_parameter("fc.bias"))


def test_frozen_name_of_no_parameter_is_an_error(model: nn.Module, artefact: Artefact) -> None:
    names = ("fc.weight", "cls_token", "pos_embed")
    message = "metaunlearn: frozen names no parameter of this model: cls_token, pos_embed"
    with pytest.raises(ConfigError, match=message):
        unlearn(model, artefact, [7], frozen=names)
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(METHOD, frozen=names).precompute(model, TRAIN, VAL, seed=0)


def test_stored_artefact_unlearns_bit_for_bit(model: nn.Module, artefact: Artefact, tmp_path: Path) -> None:
    artefact.save(tmp_path / "a.safetensors", {"method": "mine", "n": 2})
    loaded, header = Artefact.load(tmp_path / "a.safetensors", CPU)
    assert header == {"method": "mine", "n": 2}
    assert loaded.metadata == artefact.metadata
    wanted = weights(unlearn(model, artefact, [7, 9]).model)
    assert equal(weights(unlearn(model, loaded, [7, 9]).model), wanted)


def test_identity_map_finds_the_row_of_each_identity(model: nn.Module, artefact: Artefact) -> None:
    # with equal rows but for one, only that identity's step differs
    table = artefact.tensors["phi.embed.weight"].clone()
    table[:] = table[0]
    level = Artefact({**artefact.tensors, "phi.embed.weight": table}, artefact.metadata)
    raised = table.clone()
    raised[3] += 1  # identities 3, 4, 5, 7, 9: row 3 is 7
    changed = Artefact({**artefact.tensors, "phi.embed.weight": raised}, artefact.metadata)
    assert equal(weights(unlearn(model, level, [9]).model), weights(unlearn(model, changed, [9]).model))
    assert not equal(weights(unlearn(model, level, [7]).model), weights(unlearn(model, changed, [7]).model))


@pytest.mark.parametrize("unknown", [0, 6, 1000])
def test_unknown_identity_uses_the_mean_embedding(model: nn.Module, artefact: Artefact, unknown: int) -> None:
    result = unlearn(model, artefact, [unknown])
    assert result.diagnostics["unknown_identities"] == 1
    table = artefact.tensors["phi.embed.weight"]
    mean = Artefact({**artefact.tensors, "phi.embed.weight": table.mean(0).expand_as(table)}, artefact.metadata)
    wanted = weights(unlearn(model, mean, [7]).model)
    for name, value in result.model.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-7)


def test_saturated_meta_loss_is_reported(
    model: nn.Module, artefact: Artefact, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = {**artefact.tensors, "phi.output_block.1.bias": torch.tensor([-200.0])}
    with caplog.at_level(logging.WARNING, "oneshui"):
        result = unlearn(model, Artefact(tensors, artefact.metadata), [7, 9])
    assert result.diagnostics["saturated"] is True
    assert "metaunlearn: saturated: the relative step is" in caplog.text
    assert equal(weights(result.model), weights(model))


def test_a_step_far_below_the_simulated_ones_forgot_nothing(
    model: nn.Module, artefact: Artefact, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen on real MUFAC: simulated steps of 1.5e-3, a real one of 9e-7, which float32 resolves."""
    own = unlearn(model, artefact, [7, 9]).diagnostics["relative_step"]
    for simulated, saturated in ((99 * own, False), (101 * own, True)):
        metadata = {**artefact.metadata, "health": {**artefact.metadata["health"], "relative_step": simulated}}
        with caplog.at_level(logging.WARNING, "oneshui"):
            result = unlearn(model, Artefact(artefact.tensors, metadata), [7, 9])
        assert result.diagnostics["saturated"] is saturated
    assert caplog.text.count("nothing was forgotten") == 1


def test_saturation_in_meta_training_is_reported(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "oneshui"):
        artefact = dataclasses.replace(METHOD, inner_lr=1e-12).precompute(model, TRAIN, VAL, seed=0)
    assert artefact.metadata["health"]["saturated"] is True
    assert "saturated: the gradient of h_phi vanished" in caplog.text


def test_blown_up_model_is_reported(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    method = dataclasses.replace(METHOD, inner_lr=1e30)
    with caplog.at_level(logging.WARNING, "oneshui"):
        artefact = method.precompute(model, TRAIN, VAL, seed=0)
    assert artefact.metadata["health"]["blown_up"] is True
    assert "destroys the model" in caplog.text
    assert all(torch.isfinite(value).all() for value in artefact.tensors.values())
    assert method.unlearn(model, support_of([7]), artefact, seed=0).diagnostics["blown_up"] is True


class Turn(MetaUnlearn):
    """Meta-training that leaves h_phi alone, and a step after which the network answers the next class."""

    def _meta_step(self, *_: Any) -> dict[str, float]:
        return {"outer_loss": 1.0, "relative_step": 1.0, "val_measure": 1.0, "finite": 1.0}

    def inner_step(self, backbone: Any, *arguments: Any) -> Any:
        step = super().inner_step(backbone, *arguments)
        head = {name: backbone.theta[name].roll(1, 0) for name in ("model.fc.weight", "model.fc.bias")}
        return dataclasses.replace(step, theta={**backbone.theta, **head})


@pytest.mark.parametrize(("right", "drop"), [(21, 0.05), (23, 0.15), (40, 1.0), (10, -0.5)])
def test_health_is_measured_on_the_whole_validation_set(model: nn.Module, right: int, drop: float) -> None:
    pixels = make_set([1] * 40, seed=2).pixels
    with torch.no_grad():
        answers = model(pixels).argmax(1)
    # right on the first of 40 images before the step, on all others after it; a sample of four would be all or nothing
    labels = torch.where(torch.arange(40) < right, answers, (answers + 1) % 4)
    method = Turn(**{field.name: getattr(METHOD, field.name) for field in dataclasses.fields(METHOD)})
    method = dataclasses.replace(method, batch_size=4)
    val = ImageSet.of_inputs(pixels, labels, TASK, torch.ones(40, dtype=torch.int64))
    health = method.precompute(model, TRAIN, val, seed=0).metadata["health"]
    assert health["val_drop"] == pytest.approx(drop)
    assert health["blown_up"] is (drop > 0.1)


def test_empty_validation_set_is_an_error(model: nn.Module) -> None:
    with pytest.raises(DataError, match="validation set is empty"):
        METHOD.precompute(model, TRAIN, VAL.subset(torch.empty(0, dtype=torch.int64)), seed=0)


def test_artefact_that_does_not_fit_is_an_error(model: nn.Module, artefact: Artefact) -> None:
    with pytest.raises(ArtefactError, match="needs its artefact"):
        METHOD.unlearn(model, support_of([7]), None, seed=0)
    with pytest.raises(ArtefactError, match="does not fit these hyper-parameters"):
        unlearn(model, artefact, [7], hidden=32)
    with pytest.raises(ArtefactError, match="has no 'identities'"):
        unlearn(model, Artefact({}, artefact.metadata), [7])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inner_lr", 0.0),
        ("inner_lr", math.inf),
        ("inner_lr", math.nan),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("epochs", 0),
        ("simulated_n", 0),
        ("batch_size", 0),
        ("micro_batch", 0),
        ("hidden", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("inputs", ()),
        ("inputs", ("logits", "age")),
        ("inputs", ("target", "identity")),
        ("outer_loss", "equation 7"),
        ("terms", "third"),
        ("distance", "l1"),
        ("jvp", "backward"),
    ],
)
def test_impossible_hyper_parameter_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"metaunlearn: {name}"):
        dataclasses.replace(METHOD, **{name: value})
