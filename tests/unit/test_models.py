"""Models from timm, and checkpoints that rebuild them bit for bit."""

import json
import pickle
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from oneshui.errors import CheckpointError, ConfigError
from oneshui.files import sha256_file
from oneshui.models import ModelSpec, build_model, check_model, features_and_logits, load_model, save_model
from oneshui.tasks import Task
from oneshui.weights import input_of_weights

CPU = torch.device("cpu")
TASK = Task("classification", ("a", "b", "c"))
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
RESNET = {"channels": (8, 8, 8, 8), "stem_width": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "resnet10t": RESNET,
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
}


def spec_of(architecture: str, task: Task = TASK, px: int = 32, **options: Any) -> ModelSpec:
    return ModelSpec(architecture, task, px, 0.5, 0.5, {**ARCHITECTURES[architecture.split(".")[0]], **options})


def build(spec: ModelSpec, seed: int = 0, weights: Path | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(spec, weights=weights)
        if weights is None:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_()
        return model


def images(px: int = 32) -> Tensor:
    return torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_and_logits_are_the_models(architecture: str) -> None:
    model = build(spec_of(architecture))
    with torch.no_grad():
        features, logits = features_and_logits(model, images())
        assert torch.equal(logits, model(images()))
        assert features.shape == (4, model.num_features)
        assert torch.equal(model.get_classifier()(features), logits)


def test_features_of_a_vit_are_its_class_token() -> None:
    model = build(spec_of("vit_tiny_patch16_224"))
    with torch.no_grad():
        features, _ = features_and_logits(model, images())
        assert torch.equal(features, model.forward_features(images())[:, 0])


@pytest.mark.parametrize("px", [32, 48])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stored_model_is_rebuilt_bit_for_bit(tmp_path: Path, architecture: str, px: int) -> None:
    spec = spec_of(f"{architecture}.some_tag", px=px)
    model = build(spec)
    record = {"seed": 3, "training": {"history": [{"loss": 0.1}]}, "n": None}
    save_model(tmp_path / "m.safetensors", model, spec, record)
    loaded = load_model(tmp_path / "m.safetensors", CPU)
    assert loaded.metadata == record
    assert loaded.sha256 == sha256_file(tmp_path / "m.safetensors")
    assert loaded.spec == ModelSpec.from_dict(json.loads(json.dumps(asdict(spec))))  # tuples are lists in JSON
    assert (loaded.spec.architecture, loaded.spec.task, loaded.spec.input_px) == (f"{architecture}.some_tag", TASK, px)
    assert not loaded.model.training
    wanted, found = model.state_dict(), loaded.model.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
    with torch.no_grad():
        assert torch.equal(loaded.model(images(px)), model(images(px)))


def test_initial_weights_come_from_torchs_generator() -> None:
    first, again, other = (build(spec_of("resnet10t"), seed).conv1[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_unknown_architecture_is_an_error_that_names_others() -> None:
    with pytest.raises(ConfigError, match=r"timm cannot build model 'resnet999' .*Names like it: .*resnet") as caught:
        build_model(ModelSpec("resnet999", TASK, 32, 0.5, 0.5))
    assert "none" not in str(caught.value).rsplit("Names like it", 1)[1]


def test_impossible_option_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'resnet10t'"):
        build_model(spec_of("resnet10t", no_such_option=1))


# ---- networks that can serve as a backbone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backbone_passes_and_stays_as_it_was(architecture: str, training: bool) -> None:
    spec = spec_of(architecture)
    model = build(spec).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_model(model, spec, CPU)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("architecture", "px", "options"),
    [
        ("resnetv2_50", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_chs": 8}),  # a 1x1 convolution
        ("levit_128s", 64, {"embed_dim": (16, 16, 16), "depth": (1, 1, 1), "num_heads": (1, 1, 1)}),  # two classifiers
    ],
)
def test_network_without_a_linear_classifier_says_its_features_and_logits(
    architecture: str, px: int, options: dict[str, Any]
) -> None:
    spec = ModelSpec(architecture, TASK, px, 0.5, 0.5, options)
    model = build(spec)
    check_model(model, spec, CPU)
    with torch.no_grad():
        features, logits = features_and_logits(model, images(px))
        assert torch.equal(logits, model(images(px)))
    assert features.shape == (4, model.num_features)


@pytest.mark.parametrize("px", [32, 64])
def test_network_that_must_know_its_input_size_is_told(px: int) -> None:
    mixer = ModelSpec("mixer_s32_224", TASK, px, 0.5, 0.5, {})
    model = build(mixer)
    check_model(model, mixer, CPU)
    with torch.no_grad():
        assert model(images(px)).shape == (4, 3)


def test_network_whose_name_looks_like_a_vit_is_not_told() -> None:
    spec = ModelSpec("efficientvit_b0", TASK, 64, 0.5, 0.5, {})
    model = build(spec)
    check_model(model, spec, CPU)
    with torch.no_grad():
        assert model(images(64)).shape == (4, 3)


# ---- initial weights from a local file


def local_weights(path: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """Write weights under timm's names, as they come from its hub."""
    state = {name: value.contiguous() for name, value in build(spec, seed=5).state_dict().items()}
    safetensors.torch.save_file(state, path)
    return state


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "resnet10t"])
def test_local_weights_are_used_but_for_a_classifier_of_another_size(tmp_path: Path, architecture: str) -> None:
    path = tmp_path / "w.safetensors"
    thousand = Task("classification", tuple(f"c{i}" for i in range(1000)))
    state = local_weights(path, spec_of(architecture, thousand))
    found = build(spec_of(architecture), weights=path).state_dict()
    head = "head." if architecture.startswith("vit") else "fc."
    assert found[f"{head}weight"].shape[0] == 3
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items() if not name.startswith(head))


def test_position_embeddings_are_resized_to_the_input(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = local_weights(path, spec_of("vit_tiny_patch16_224", px=32))
    model = build(spec_of("vit_tiny_patch16_224", px=48), weights=path)
    assert model.pos_embed.shape == (1, 1 + 36, 32)
    assert torch.equal(model.pos_embed[:, 0], state["pos_embed"][:, 0])  # the class token's
    assert torch.equal(model.state_dict()["norm.weight"], state["norm.weight"])
    assert model(images(48)).shape == (4, 3)


def test_weights_of_another_model_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    local_weights(path, spec_of("resnet10t"))
    with pytest.raises(ConfigError, match=r"lacks \d+ tensors of 'vit_.*, e\.g\. blocks\.0\."):
        build(spec_of("vit_tiny_patch16_224"), weights=path)


@pytest.mark.parametrize(
    ("architecture", "block"), [("vit_tiny_patch16_224", "blocks.0.mlp."), ("resnet10t", "layer3.0.conv2.")]
)
def test_weights_that_lack_one_block_are_an_error(tmp_path: Path, architecture: str, block: str) -> None:
    path = tmp_path / "w.safetensors"
    state = local_weights(path, spec_of(architecture))
    kept = {name: value for name, value in state.items() if not name.startswith(block)}
    assert 0 < len(state) - len(kept) < 5
    safetensors.torch.save_file(kept, path)
    message = rf"lacks {len(state) - len(kept)} tensors of '{architecture}', e\.g\. {re.escape(block)}.*weights of this"
    with pytest.raises(ConfigError, match=message):
        build(spec_of(architecture), weights=path)


@pytest.mark.parametrize(("architecture", "head"), [("vit_tiny_patch16_224", "head."), ("resnet10t", "fc.")])
def test_weights_may_lack_the_classifier(tmp_path: Path, architecture: str, head: str) -> None:
    path = tmp_path / "w.safetensors"
    state = local_weights(path, spec_of(architecture))
    kept = {name: value for name, value in state.items() if not name.startswith(head)}
    safetensors.torch.save_file(kept, path)
    found = build(spec_of(architecture), weights=path).state_dict()
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_weights_of_a_deeper_network_are_an_error(tmp_path: Path) -> None:
    """All that the network needs is in the file, and more."""
    path = tmp_path / "deep.safetensors"
    deep = spec_of("vit_tiny_patch16_224", depth=2)
    local_weights(path, deep)
    build(deep, weights=path)
    with pytest.raises(ConfigError, match=r"has 12 tensors that 'vit_tiny_patch16_224' has not, e\.g\. blocks\.1\."):
        build(spec_of("vit_tiny_patch16_224"), weights=path)


def test_old_weights_without_counters_of_batch_norm_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    state = local_weights(path, spec_of("resnet10t"))
    safetensors.torch.save_file({name: value for name, value in state.items() if "num_batches" not in name}, path)
    found = build(spec_of("resnet10t"), weights=path).state_dict()
    assert torch.equal(found["conv1.0.weight"], state["conv1.0.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Also where position embeddings are resized, which rounds in half precision if timm does it there."""
    path = tmp_path / "half.safetensors"
    state = {name: value.to(dtype) for name, value in local_weights(path, spec_of("vit_tiny_patch16_224")).items()}
    safetensors.torch.save_file({name: value.float() for name, value in state.items()}, tmp_path / "full.safetensors")
    safetensors.torch.save_file(state, path)
    larger = spec_of("vit_tiny_patch16_224", px=48)
    found, wanted = (
        build(larger, weights=tmp_path / name).state_dict() for name in ("half.safetensors", "full.safetensors")
    )
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == torch.float32 for name in wanted)


def test_weights_of_ones_own_under_a_tag_that_timm_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    state = local_weights(path, spec_of("resnet10t"))
    found = build(spec_of("resnet10t.mine"), weights=path).state_dict()
    assert torch.equal(found["conv1.0.weight"], state["conv1.0.weight"])
    with pytest.raises(ConfigError, match=r"what input 'resnet10t\.mine' was trained with\. Set mean and std"):
        input_of_weights("resnet10t.mine")


def test_options_that_the_configuration_gives_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave out num_classes"):
        build_model(spec_of("resnet10t", num_classes=7))


@pytest.mark.parametrize("damage", ["missing", "cut", "pickle", "name"])
def test_unreadable_weights_are_an_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / ("w.bin" if damage == "name" else "w.safetensors")
    state = local_weights(path, spec_of("resnet10t"))
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "pickle":
        torch.save(state, path)
    with pytest.raises(ConfigError, match=r"initial weights .* are not a readable safetensors file"):
        build(spec_of("resnet10t"), weights=path)


# ---- files that are no checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    spec = spec_of("resnet10t")
    save_model(tmp_path / "m.safetensors", build(spec), spec, {})
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize("keep", [0, 5, 200, -10])
def test_damaged_file_is_an_error(checkpoint: Path, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"m\.safetensors is not a readable safetensors file"):
        load_model(checkpoint, CPU)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not there\. Name another file"):
        load_model(tmp_path / "m.safetensors", CPU)


def test_foreign_safetensors_file_is_an_error(tmp_path: Path) -> None:
    local_weights(tmp_path / "w.safetensors", spec_of("resnet10t"))
    with pytest.raises(CheckpointError, match="was not written by oneshui"):
        load_model(tmp_path / "w.safetensors", CPU)


def test_weights_that_do_not_fit_their_spec_are_an_error(tmp_path: Path) -> None:
    five = Task("classification", tuple("abcde"))
    save_model(tmp_path / "m.safetensors", build(spec_of("resnet10t")), spec_of("resnet10t", five), {})
    with pytest.raises(CheckpointError, match="do not fit resnet10t"):
        load_model(tmp_path / "m.safetensors", CPU)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_pickle_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(tmp_path / name, CPU)
    torch.save({"model": Bomb(mark)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(tmp_path / name, CPU)
    assert not mark.exists()


def test_model_of_an_earlier_version_has_one_mean_for_all_channels() -> None:
    spec = spec_of("resnet10t")
    old = {**asdict(spec), "mean": 0.5, "std": 0.25}
    found = ModelSpec.from_dict(json.loads(json.dumps(old)))
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    now = ModelSpec.from_dict(json.loads(json.dumps(asdict(spec))))
    assert (now.mean, now.std) == (spec.mean, spec.std)
