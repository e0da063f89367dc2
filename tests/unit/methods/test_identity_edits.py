"""Identity edits against a direct formula in float64, and what a request does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.methods.networks import TASKS
from torch import Tensor, nn

from oneshui import resume as resume_module
from oneshui.errors import ArtefactError
from oneshui.methods import folds_of, make_method
from oneshui.methods.base import Artefact, OutOfFold
from oneshui.methods.edit_points import edit_points
from oneshui.methods.fold_model import FoldModel
from oneshui.methods.identity_edits import (
    Edit,
    IdentityEdits,
    _add,
    _Precompute,
    _Ridge,
    folds_of_identities,
    stacked,
)
from oneshui.models import ModelSpec, build_model
from oneshui.resume import Resume
from oneshui.sets import ImageSet, Support

METHOD = IdentityEdits(
    folds=2, blocks=1, rank=None, weight=20.0, weight_earlier=5.0, ridge=0.05, spread=1.0, calibrate="none",
    solve="sum", max_positions=64, batch_size=5,
)  # fmt: skip
TASK = TASKS["classification"]
#: 8 people with 3 images each, 4 validation people with 3 each; at 64 px the last block has 2 x 2 positions
PEOPLE = torch.arange(8).repeat_interleave(3)


def network(seed: int) -> nn.Module:
    options = {"channels": (8, 8, 8, 8), "stem_width": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(ModelSpec("resnet10t", TASK, 64, 0.5, 0.5, options))
        with torch.no_grad():
            for value in model.parameters():
                if value.ndim == 1:
                    value.uniform_(0.5, 1.5)
            torch.manual_seed(seed)
            for value in model.parameters():
                value.add_(0.05 * torch.randn_like(value))
    return model.double()


def images(people: Tensor, seed: int) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(len(people), 3, 64, 64, generator=draw, dtype=torch.float64)
    return ImageSet.of_inputs(pixels, torch.randint(0, 3, (len(people),), generator=draw), TASK, people)


TRAIN, VAL = images(PEOPLE, 1), images(torch.arange(100, 104).repeat_interleave(3), 2)


def fold_models(folds: int) -> list[OutOfFold]:
    return [OutOfFold(torch.arange(8)[k::folds], lambda k=k: network(10 + k)) for k in range(folds)]


FOLDS = fold_models(2)


def ask(*people: int) -> Support:
    n = len(people)
    return Support(torch.zeros(n, 3, 64, 64), torch.zeros(n, dtype=torch.int64), torch.tensor(people), TASK)


def precomputed(method: IdentityEdits = METHOD) -> Artefact:
    return method.precompute(network(0), TRAIN, VAL, seed=0, out_of_fold=fold_models(method.folds))


def flow(model: nn.Module, pixels: Tensor, block: str) -> tuple[Tensor, Tensor]:
    """Inputs of a block's second convolution, unfolded, and the sum before its activation: (B, P, .), by hand."""
    seen = {}
    layer, act = model.get_submodule(f"{block}.conv2"), model.get_submodule(f"{block}.act2")
    handles = [
        layer.register_forward_pre_hook(lambda _, x: seen.__setitem__("z", x[0].clone())),
        act.register_forward_pre_hook(lambda _, x: seen.__setitem__("h", x[0].clone())),
    ]
    with torch.no_grad():
        model(pixels)
    for handle in handles:
        handle.remove()
    z = nn.functional.unfold(seen["z"], 3, padding=1).transpose(1, 2)
    return z, seen["h"].flatten(2).transpose(1, 2)


def ridge_map(x: Tensor, y: Tensor, penalty: float) -> Callable[[Tensor], Tensor]:
    """The map from rows x to rows y with an intercept, centred by hand."""
    centre_x, centre_y = x.mean(0), y.mean(0)
    a = x - centre_x
    weights = torch.linalg.inv(a.T @ a + penalty * x.square().sum(0).mean() * torch.eye(x.shape[1])) @ (
        a.T @ (y - centre_y)
    )
    return lambda rows: (rows - centre_x) @ weights + centre_y


def mapping(number: int, folds: int, block: str, spread: float = METHOD.spread) -> Callable[[Tensor], Tensor]:
    """From the sums of a fold model to the model's: of images that both know or neither, spread as on unseen ones."""
    model, other, even = network(0), fold_models(folds)[number].load(), VAL.identities % 2 == 0
    fit_on = torch.cat([TRAIN.pixels[number != PEOPLE % folds], VAL.pixels[even]])
    x, y = (flow(net, fit_on, block)[1].flatten(0, 1) for net in (other, model))
    at = ridge_map(x, y, 1e-3)
    if not spread:
        return at
    x, y = (flow(net, VAL.pixels[~even], block)[1].flatten(0, 1) for net in (other, model))
    centre = at(x).mean(0)
    factor = ((y - y.mean(0)).square().sum() / (at(x) - centre).square().sum()) ** (spread / 2)
    assert factor > 1.01  # else it would be as if nothing was done
    return lambda rows: centre + factor * (at(rows) - centre)


def change_of(z_own: Tensor, target: Tensor, z_all: Tensor, weight: float, ridge: float) -> Tensor:
    """argmin_D weight |D z - t|^2 over a person's rows + |D z|^2 over all + penalty |D|^2, by its normal equations."""
    gram = z_all.T @ z_all
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
    return weight * target.T @ z_own @ torch.linalg.inv(weight * z_own.T @ z_own + gram)


def direct(
    person: int, blocks: tuple[str, ...], weights: dict[str, float], folds: int, spread: float
) -> dict[str, Tensor]:
    """The changes of a person's edit: one layer after the other, each with the earlier ones applied."""
    edited, model, fold = network(0), network(0), person % folds
    own = TRAIN.pixels[person == PEOPLE]
    changes = {}
    for block in blocks:
        z_all, _ = flow(model, TRAIN.pixels, block)
        _, plain = flow(model, own, block)
        mapped = []
        for number, other in enumerate(fold_models(folds)):
            at = mapping(number, folds, block, spread)
            mapped.append(at(flow(other.load(), own, block)[1].flatten(0, 1)))
        target = mapped[fold]
        if block != blocks[-1]:
            others = [each for number, each in enumerate(mapped) if number != fold]
            target = plain.flatten(0, 1) + mapped[fold] - sum(others) / (folds - 1)
        z, here = flow(edited, own, block)
        change = change_of(
            z.flatten(0, 1), target - here.flatten(0, 1), z_all.flatten(0, 1), weights[block], METHOD.ridge
        )
        norm = model.get_submodule(f"{block}.bn2")
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        changes[block] = (change / scale[:, None]).reshape(8, 8, 3, 3).detach()
        with torch.no_grad():
            edited.get_submodule(f"{block}.conv2").weight.add_(changes[block])
    return changes


@pytest.mark.parametrize(("folds", "spread"), [(2, 1.0), (3, 0.5), (2, 0.0)])
@pytest.mark.parametrize("blocks", [("layer4.0",), ("layer3.0", "layer4.0")])
def test_the_unlearned_weights_are_those_of_the_direct_formula(
    blocks: tuple[str, ...], folds: int, spread: float
) -> None:
    method = dataclasses.replace(METHOD, blocks=len(blocks), folds=folds, spread=spread)
    result = method.unlearn(network(0), ask(3, 4), precomputed(method), seed=0).model
    weights = {block: 20.0 if block == "layer4.0" else 5.0 for block in blocks}
    expected = [direct(person, blocks, weights, folds, spread) for person in (3, 4)]
    for name, before in network(0).state_dict().items():
        block = name.removesuffix(".conv2.weight")
        moved = sum(change[block] for change in expected) if block in blocks else torch.zeros_like(before)
        # an artefact is float32
        torch.testing.assert_close(result.state_dict()[name] - before, moved, rtol=2e-4, atol=1e-6)


def vit(seed: int) -> nn.Module:
    """Three attributes, two blocks; its last block can be edited at two layers, of which the class token counts."""
    options = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(ModelSpec("vit_tiny_patch16_224", TASKS["multilabel"], 32, 0.5, 0.5, options))
        torch.manual_seed(seed)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(0.05 * torch.randn_like(value))
    return model.double()


def class_token(model: nn.Module, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Inputs of a layer of the last block and the sum behind it at the class token, (B, .), by hand."""
    seen = {}
    block, norm, projection = (model.get_submodule(name) for name in ("blocks.1", "blocks.1.norm2", layer))
    handles = [projection.register_forward_pre_hook(lambda _, x: seen.__setitem__("z", x[0][:, 0].clone()))]
    if layer.endswith("attn.proj"):
        handles.append(norm.register_forward_pre_hook(lambda _, x: seen.__setitem__("h", x[0][:, 0].clone())))
    else:
        handles.append(block.register_forward_hook(lambda _, __, y: seen.__setitem__("h", y[:, 0].clone())))
    with torch.no_grad():
        model(pixels)
    for handle in handles:
        handle.remove()
    return seen["z"], seen["h"]


def test_the_edits_of_a_vit_with_attributes_are_those_of_the_direct_formula() -> None:
    method = dataclasses.replace(METHOD, spread=0.0)
    draw = torch.Generator().manual_seed(5)
    train, val = (
        ImageSet.of_inputs(
            torch.randn(len(people), 3, 32, 32, generator=draw, dtype=torch.float64),
            torch.randint(0, 2, (len(people), 3), generator=draw), TASKS["multilabel"], people,
        )
        for people in (PEOPLE, VAL.identities)
    )  # fmt: skip
    folds = [OutOfFold(torch.arange(8)[k::2], lambda k=k: vit(10 + k)) for k in range(2)]
    artefact = method.precompute(vit(0), train, val, seed=0, out_of_fold=folds)
    photo = Support(train.pixels[:1], train.labels[:1], torch.tensor([3]), TASKS["multilabel"])
    result = method.unlearn(vit(0), photo, artefact, seed=0).model

    model, edited, own = vit(0), vit(0), train.pixels[PEOPLE == 3]
    for layer, weight in (("blocks.1.attn.proj", 5.0), ("blocks.1.mlp.fc2", 20.0)):
        mapped = []
        for number, fold in enumerate(folds):
            fit_on = torch.cat([train.pixels[number != PEOPLE % 2], val.pixels[val.identities % 2 == 0]])
            at = ridge_map(class_token(fold.load(), fit_on, layer)[1], class_token(model, fit_on, layer)[1], 1e-3)
            mapped.append(at(class_token(fold.load(), own, layer)[1]))
        inside, outside = mapped  # person 3 is in fold 1
        is_last = weight == 20.0
        target = outside if is_last else class_token(model, own, layer)[1] + outside - inside
        z, here = class_token(edited, own, layer)
        change = change_of(z, target - here, class_token(model, train.pixels, layer)[0], weight, METHOD.ridge)
        with torch.no_grad():
            edited.get_submodule(layer).weight.add_(change)
    for name, before in model.state_dict().items():
        moved = edited.state_dict()[name] - before
        assert bool(moved.any()) == (name in ("blocks.1.attn.proj.weight", "blocks.1.mlp.fc2.weight"))
        torch.testing.assert_close(result.state_dict()[name] - before, moved, rtol=2e-4, atol=1e-6)


def test_a_joint_solution_is_that_of_all_rows_at_once() -> None:
    artefact = precomputed()
    result = dataclasses.replace(METHOD, solve="joint").unlearn(network(0), ask(3, 4), artefact, seed=0).model
    z_all, _ = flow(network(0), TRAIN.pixels, "layer4.0")
    rows, targets = [], []
    for person in (3, 4):
        own = TRAIN.pixels[person == PEOPLE]
        z, here = flow(network(0), own, "layer4.0")
        theirs = flow(FOLDS[person % 2].load(), own, "layer4.0")[1].flatten(0, 1)
        mapped = mapping(person % 2, 2, "layer4.0")(theirs)
        rows.append(z.flatten(0, 1))
        targets.append(mapped - here.flatten(0, 1))
    change = change_of(torch.cat(rows), torch.cat(targets), z_all.flatten(0, 1), 20.0, METHOD.ridge)
    norm = network(0).get_submodule("layer4.0.bn2")
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    name = "layer4.0.conv2.weight"
    moved = result.state_dict()[name] - network(0).state_dict()[name]
    torch.testing.assert_close(moved, (change / scale[:, None]).reshape(8, 8, 3, 3).detach(), rtol=2e-4, atol=1e-6)


def test_where_no_image_is_unseen_or_all_predictions_are_the_same_targets_stay_as_predicted() -> None:
    weights = torch.cat([torch.zeros(4, 5), torch.randn(1, 5)]).double()
    assert torch.equal(_Ridge().spread(weights, 1.0), weights)
    ridge = _Ridge()
    ridge.add(torch.randn(20, 4).double(), torch.randn(20, 5).double())
    assert torch.equal(ridge.spread(weights, 1.0), weights)


def test_with_one_validation_person_targets_stay_as_predicted(caplog: pytest.LogCaptureFixture) -> None:
    val = dataclasses.replace(VAL, identities=torch.full((len(VAL),), -1))  # nobody knows who they are
    made = [
        dataclasses.replace(METHOD, spread=spread).precompute(network(0), TRAIN, val, seed=0, out_of_fold=FOLDS)
        for spread in (0.0, 1.0)
    ]
    assert all(torch.equal(tensor, made[1].tensors[name]) for name, tensor in made[0].tensors.items())
    assert "spread cannot be measured" in caplog.text


#: of the inputs of some layer: lower triangular
ROOT = torch.linalg.cholesky(torch.eye(9, dtype=torch.float64) + 0.3)


def some_edit(rows: int, seed: int) -> Edit:
    draw = torch.Generator().manual_seed(seed)
    return Edit(
        torch.randn(rows, 9, generator=draw, dtype=torch.float64),
        torch.randn(rows, 5, generator=draw, dtype=torch.float64),
    )


def test_an_edit_with_more_rows_than_inputs_is_the_same_change_from_fewer() -> None:
    many, other = some_edit(40, 0), some_edit(4, 1)
    few = many.thinned()
    assert few.keys.shape == (9, 9) and few.changes.shape == (9, 5) and other.thinned() is other
    torch.testing.assert_close(few.change(3.0, ROOT), many.change(3.0, ROOT))
    torch.testing.assert_close(stacked([few, other]).change(3.0, ROOT), stacked([many, other]).change(3.0, ROOT))


def test_a_low_rank_is_the_truncated_svd_of_the_whitened_change() -> None:
    edit = some_edit(7, 0)
    u, s, v = torch.linalg.svd(edit.change(3.0, ROOT) @ ROOT)
    for rank in (1, 2, 4):
        kept = edit.of_rank(rank, 3.0)
        assert kept.keys.shape == (rank, 9) and kept.changes.shape == (rank, 5)
        torch.testing.assert_close(kept.change(3.0, ROOT) @ ROOT, (u[:, :rank] * s[:rank]) @ v[:rank])
    assert edit.of_rank(7, 3.0) is edit


def test_edits_of_people_whose_inputs_are_far_apart_do_not_meet_in_a_joint_solution() -> None:
    one, other = some_edit(2, 0), some_edit(2, 1)
    apart = [Edit(edit.keys * mask, edit.changes) for edit, mask in zip((one, other), masks(), strict=True)]
    total = sum((edit.change(3.0, ROOT) for edit in apart), torch.zeros(5, 9, dtype=torch.float64))
    torch.testing.assert_close(stacked(apart).change(3.0, ROOT), total)
    both = [one, other]
    assert not torch.allclose(stacked(both).change(3.0, ROOT), one.change(3.0, ROOT) + other.change(3.0, ROOT))


def without(artefact: Artefact, *people: int) -> Artefact:
    known = artefact.tensors["identities"]
    return METHOD.of_people(artefact, (~torch.isin(known, torch.tensor(people))).nonzero()[:, 0])


def masks() -> tuple[Tensor, Tensor]:
    first = (torch.arange(9) < 4).double()
    return first, 1 - first


@pytest.mark.parametrize("rank", [None, 2])
def test_requests_one_after_another_are_one_request(rank: int | None) -> None:
    method = dataclasses.replace(METHOD, rank=rank, calibrate="person")
    artefact = precomputed(method)
    together = method.unlearn(network(0), ask(1, 4, 6), artefact, seed=0).model
    model = network(0)
    for person in (6, 1, 4):
        model = method.unlearn(model, ask(person), artefact, seed=0).model
        artefact = without(artefact, person)
    for name, value in together.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-10, atol=1e-12)


def test_after_a_request_the_artefact_holds_nothing_of_that_person() -> None:
    artefact = precomputed()
    left = without(artefact, 2, 5)
    assert left.tensors["identities"].tolist() == [0, 1, 3, 4, 6, 7]
    layer = "layer4.0.conv2"
    assert left.tensors[f"{layer}/rows"].tolist() == [12] * 6
    kept = torch.arange(8 * 12).reshape(8, 12)[[0, 1, 3, 4, 6, 7]].flatten()
    for name in ("keys", "changes"):
        assert torch.equal(left.tensors[f"{layer}/{name}"], artefact.tensors[f"{layer}/{name}"][kept])
    same = METHOD.unlearn(network(0), ask(7), left, seed=0).model.state_dict()
    expected = METHOD.unlearn(network(0), ask(7), artefact, seed=0).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in same.items())
    gone = METHOD.unlearn(network(0), ask(2), left, seed=0)
    assert gone.diagnostics == {"relative_step": 0.0, "unknown_identities": 1.0}


def test_people_change_places_with_their_edits() -> None:
    """Not only equal numbers of rows: a person's part of the tensors begins where those before end."""
    artefact = precomputed(dataclasses.replace(METHOD, blocks=2))
    layer = artefact.metadata["layers"][0]
    rows = artefact.tensors[f"{layer}/rows"]
    artefact.tensors[f"{layer}/rows"] = torch.tensor([*(rows[:1] - 3), *rows[1:-1], *(rows[-1:] + 3)])
    turned = METHOD.of_people(artefact, torch.tensor([7, 0, 3]))
    assert turned.tensors["identities"].tolist() == [7, 0, 3]
    numbers = METHOD.numbers_of_people(artefact)
    assert (
        METHOD.numbers_of_people(turned).tolist() == numbers[[7, 0, 3]].tolist()
        and numbers[7] > numbers[3] > numbers[0]
    )
    sizes = [t.numel() for name, t in artefact.tensors.items() if name.endswith(("/keys", "/changes"))]
    assert int(numbers.sum()) == sum(sizes)
    for person in (0, 3, 7):
        wanted = METHOD.unlearn(network(0), ask(person), artefact, seed=0).model.state_dict()
        found = METHOD.unlearn(network(0), ask(person), turned, seed=0).model.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in wanted.items())


def test_of_fold_models_those_are_left_that_were_not_trained_on_who_asked() -> None:
    method, models = FoldModel(folds=3), [network(n) for n in range(3)]
    folds = torch.tensor([0, 1, 2, 0, 1, 2])
    tensors = {f"fold{n}/{name}": value for n, model in enumerate(models) for name, value in model.state_dict().items()}
    artefact = Artefact({**tensors, "identities": torch.arange(10, 16), "folds": folds})

    def left(*rows: int) -> tuple[set[str], list[int], list[int]]:
        found = method.of_people(artefact, torch.tensor(rows, dtype=torch.int64))
        models_left = {name.partition("/")[0] for name in found.tensors if "/" in name}
        assert method.numbers_of_people(found).tolist() == [1] * len(found.tensors["identities"])
        return models_left, found.tensors["identities"].tolist(), found.tensors["folds"].tolist()

    everyone = {"fold0", "fold1", "fold2"}
    assert left(5, 4, 3, 2, 1, 0) == (everyone, [15, 14, 13, 12, 11, 10], [2, 1, 0, 2, 1, 0])
    assert left(0, 2, 3, 4, 5) == ({"fold1"}, [14], [1])  # 11 asked: the others' models know 11
    assert left(0, 2, 3, 5) == ({"fold1"}, [], [])
    assert left(1, 2, 4, 5) == ({"fold0"}, [], [])
    assert left(2, 3, 4, 5) == (set(), [], [])  # 10 and 11 are in two folds: each model knows one of them


def test_the_relative_step_is_that_of_the_sum_behind_the_layer_on_the_training_images() -> None:
    result = dataclasses.replace(METHOD, ridge=1e-6).unlearn(
        network(0), ask(3, 4), precomputed(dataclasses.replace(METHOD, ridge=1e-6)), seed=0
    )
    name = "layer4.0.conv2"
    z, h = flow(network(0), TRAIN.pixels, "layer4.0")
    norm = network(0).get_submodule("layer4.0.bn2")
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    before, after = (
        scale[:, None] * model.get_submodule(name).weight.detach().flatten(1) for model in (network(0), result.model)
    )
    wanted = ((after - before) @ z.flatten(0, 1).T).norm() / h.norm()
    assert result.diagnostics["relative_step"] == pytest.approx(float(wanted), rel=1e-3)


def test_the_model_stays_as_it_is_for_people_whom_nobody_knows() -> None:
    result = METHOD.unlearn(network(0), ask(77, 78), precomputed(), seed=0)
    assert result.diagnostics == {"relative_step": 0.0, "unknown_identities": 2.0}
    assert result.checked()["saturated"]
    assert all(torch.equal(t, network(0).state_dict()[name]) for name, t in result.model.state_dict().items())


def test_a_person_s_edits_are_scaled_until_the_model_is_as_sure_as_is_wanted() -> None:
    points = edit_points(network(0), TRAIN.pixels[:8], 1)
    made = _Precompute(METHOD, network(0), [fold.load() for fold in FOLDS], points, TRAIN)
    made.fit(VAL, PEOPLE % 2)
    own = TRAIN.subset(PEOPLE == 3)
    (edit,), _ = made.edits_of(own, 1)
    changes = [edit.change(METHOD.weight, made.roots[0])]
    batch = own.images(torch.arange(3))

    def sureness(gain: float, person: ImageSet) -> float:
        change = gain * edit.change(METHOD.weight, made.roots[0])
        model = network(0)
        _add(model.get_submodule("layer4.0.conv2"), change, points[0].scale)
        with torch.no_grad():
            return float(model(batch).softmax(1)[torch.arange(3), person.labels].mean())

    # as if they had been learned by heart: the class that the edit makes less likely
    people = [dataclasses.replace(own, labels=torch.full((3,), label)) for label in range(3)]
    person = min(people, key=lambda each: sureness(1.0, each) - sureness(0.0, each))
    original = sureness(0.0, person)
    assert sureness(1.0, person) < sureness(0.5, person) < original
    for gain in (0.4, 1.1):
        assert made._gain(batch, person, changes, sureness(gain, person), original) == pytest.approx(gain, rel=0.05)
    assert made._gain(batch, person, changes, -1.0, original) == pytest.approx(2.0)
    assert made._gain(batch, person, changes, original + 0.1, original) == 0.0
    assert torch.equal(
        made.edited.state_dict()["layer4.0.conv2.weight"], network(0).state_dict()["layer4.0.conv2.weight"]
    )


def test_nothing_is_edited_where_the_model_knows_no_more_than_one_without_the_person() -> None:
    same = [OutOfFold(fold.identities, lambda: network(0)) for fold in FOLDS]
    method = dataclasses.replace(METHOD, calibrate="person")
    artefact = method.precompute(network(0), TRAIN, VAL, seed=0, out_of_fold=same)
    assert artefact.metadata["mean_gain"] == 0.0
    assert not artefact.tensors["layer4.0.conv2/changes"].any()


def test_halfway_is_between_the_own_scale_and_the_mean_of_all() -> None:
    plain, own, halfway = (
        precomputed(dataclasses.replace(METHOD, calibrate=kind)) for kind in ("none", "person", "halfway")
    )
    name = "layer4.0.conv2/changes"
    scales = [
        float((own.tensors[name][rows] / plain.tensors[name][rows]).median()) for rows in torch.arange(96).split(12)
    ]
    assert len({round(scale, 3) for scale in scales}) > 1
    mean = sum(scales) / 8
    for rows, scale in zip(torch.arange(96).split(12), scales, strict=True):
        wanted = (scale + mean) / 2 * plain.tensors[name][rows]
        torch.testing.assert_close(halfway.tensors[name][rows], wanted, rtol=1e-4, atol=1e-6)
    assert halfway.metadata["mean_gain"] == pytest.approx(mean, rel=1e-4)


def test_a_killed_precompute_goes_on_after_the_last_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = dataclasses.replace(METHOD, calibrate="halfway")
    straight, asked, real = precomputed(method), list[int](), _Precompute.edits_of
    monkeypatch.setattr(resume_module, "_SHARE", 1e9)  # a state after every person

    def edits_of(self: _Precompute, images: ImageSet, fold: int) -> Any:
        asked.append(int(images.identities[0]))
        if asked == [0, 1, 2, 3]:
            raise KeyboardInterrupt
        return real(self, images, fold)

    monkeypatch.setattr(_Precompute, "edits_of", edits_of)
    resume = Resume(tmp_path / "a.resume", "mine", torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        method.precompute(network(0), TRAIN, VAL, seed=0, out_of_fold=FOLDS, resume=resume)
    monkeypatch.setattr(_Precompute, "fit", lambda *_: pytest.fail("it was fitted before"))
    resume = Resume(tmp_path / "a.resume", "mine", torch.device("cpu"))
    after = method.precompute(network(0), TRAIN, VAL, seed=0, out_of_fold=FOLDS, resume=resume)
    assert asked == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert all(torch.equal(value, after.tensors[name]) for name, value in straight.tensors.items())
    assert after.metadata == straight.metadata


LAYER = "layer4.0.conv2"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"identities": torch.zeros(8, dtype=torch.int64)}, "'identities' are no different whole numbers"),
        ({f"{LAYER}/rows": torch.tensor([12] * 7 + [11])}, "rows' do not say whose its edits are"),
        ({f"{LAYER}/rows": torch.tensor([12] * 6 + [-12, 36])}, "rows' do not say whose its edits are"),
        ({f"{LAYER}/rows": torch.tensor([12] * 8).float()}, "rows' holds float32, needed: int64"),
        ({f"{LAYER}/root": torch.eye(71)}, r"root' has the shape \[71, 71\], needed: \[72, 72\]"),
        ({f"{LAYER}/keys": torch.zeros(96, 71)}, "does not fit the layer layer4.0.conv2"),
        ({"layers": []}, r"layers = \[\], allowed: a list of different names"),
        ({"layers": ["layer4.0.bn2"]}, "the artefact has no 'layer4.0.bn2/rows'"),
    ],
    ids=lambda part: str(part)[:30] if isinstance(part, str) else "",
)
def test_an_artefact_that_was_changed_is_refused(changed: dict[str, Any], said: str) -> None:
    artefact = precomputed()
    tensors = {name: value for name, value in changed.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in changed.items() if name not in tensors}
    other = Artefact({**artefact.tensors, **tensors}, {**artefact.metadata, **rest})
    with pytest.raises(ArtefactError, match=said):
        METHOD.unlearn(network(0), ask(1), other, seed=0)


def test_an_artefact_that_edits_no_layer_of_the_model_is_refused() -> None:
    artefact = precomputed()
    tensors = {name.replace("conv2", "bn2"): value for name, value in artefact.tensors.items()}
    with pytest.raises(ArtefactError, match=r"edits the layer 'layer4.0.bn2', which the model has not"):
        METHOD.unlearn(network(0), ask(1), Artefact(tensors, {"layers": ["layer4.0.bn2"]}), seed=0)


def test_memory_of_a_person_is_stated() -> None:
    full, low = precomputed(), precomputed(dataclasses.replace(METHOD, rank=2))
    assert full.metadata["floats_per_person"] == 3 * 4 * (72 + 8)
    assert low.metadata["floats_per_person"] == 2 * (72 + 8)


def test_few_positions_are_looked_at_where_that_is_asked_for() -> None:
    artefact = precomputed(dataclasses.replace(METHOD, max_positions=3))
    assert artefact.tensors["layer4.0.conv2/rows"].tolist() == [9] * 8


def test_somebody_in_no_fold_is_noticed() -> None:
    with pytest.raises(ArtefactError, match="4 training identities are in no fold"):
        folds_of_identities(TRAIN, FOLDS[:1])


def test_the_fold_model_is_served_as_it_is() -> None:
    method = FoldModel(folds=2)
    artefact = method.precompute(network(0), TRAIN, VAL, seed=0, out_of_fold=FOLDS)
    served = method.unlearn(network(0), ask(5), artefact, seed=0)
    assert all(torch.equal(t, network(11).state_dict()[name]) for name, t in served.model.state_dict().items())
    assert served.diagnostics == {"forgotten_share": 1.0, "unknown_identities": 0.0}
    most = method.unlearn(network(0), ask(1, 2, 4), artefact, seed=0)
    assert all(torch.equal(t, network(10).state_dict()[name]) for name, t in most.model.state_dict().items())
    assert most.diagnostics["forgotten_share"] == pytest.approx(2 / 3)
    unknown = method.unlearn(network(0), ask(77), artefact, seed=0)
    assert unknown.diagnostics == {"relative_step": 0.0, "unknown_identities": 1.0}
    assert artefact.metadata["floats_per_person"] == pytest.approx(
        2 * sum(t.numel() for t in network(0).state_dict().values()) / 8
    )


@pytest.mark.parametrize("folds", [[5] * 8, [-1] * 8, [2**40] * 8])
def test_a_fold_model_that_is_not_there_is_refused(folds: list[int]) -> None:
    method = FoldModel(folds=2)
    artefact = method.precompute(network(0), TRAIN, VAL, seed=0, out_of_fold=FOLDS)
    other = Artefact({**artefact.tensors, "folds": torch.tensor(folds)}, artefact.metadata)
    with pytest.raises(ArtefactError, match=f"fold{folds[0]}/ does not fit the model: they lack"):
        method.unlearn(network(0), ask(1), other, seed=0)


def test_the_workflow_knows_how_many_fold_models_a_method_needs() -> None:
    spec = {"kind": "identity_edits", **dataclasses.asdict(METHOD)}
    assert folds_of(spec) == 2 and make_method(spec) == METHOD
    assert folds_of({"kind": "ssd"}) == folds_of({"kind": "own.module:Class"}) == 0
