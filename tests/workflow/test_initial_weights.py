"""Initial weights as a user names them, each through Snakemake: a folder, a path, a cache, and what is wrong."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from safetensors.torch import load_file
from tests.workflow.conftest import Run, run_workflow, toy_config, write_config
from torch import Tensor

from oneshui.files import read_header, sha256_file

pytestmark = pytest.mark.slow
TAG = "resnet10t.c3_in1k"
TINY = {"channels": [8, 8, 8, 8], "stem_width": 8}
MODEL = "results/models/toy/seed0/pretrain.safetensors"


def write_weights(
    path: Path, dtype: torch.dtype = torch.float32, *, of: str = "resnet10t", num_classes: int = 1000
) -> dict[str, Tensor]:
    """Write random weights in timm's names, with ImageNet's classifier, and return them."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = timm.create_model(of, **(TINY if of == "resnet10t" else {}), num_classes=num_classes).state_dict()
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, path)
    return state


def weights_config(**training: Any) -> dict[str, Any]:
    """A toy run that hardly moves the weights that it starts from, with the input that they were trained with."""
    config = toy_config()
    entry = config["training"]["toy"]
    entry |= {
        "model": TAG,
        "model_options": TINY,
        "init_weights": "timm",
        "epochs": 1,
        "warmup_epochs": 0,
        "lr": 1e-12,
        "weight_decay": 0.0,
    }
    del entry["mean"], entry["std"]
    entry |= training
    return config


@pytest.fixture(scope="module")
def with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and splits, ready to train."""
    folder = tmp_path_factory.mktemp("images")
    config = write_config(folder, weights_config())
    run_workflow(
        folder, "--configfile", str(config), "--", "results/splits/toy/seed0.parquet", "results/data/toy/images.npy"
    )
    return folder


@pytest.fixture
def ready(with_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, on a machine that cannot reach the model hub and has nothing in its cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "run"
    shutil.copytree(with_images, folder, copy_function=shutil.copy2)
    return folder


def train(folder: Path, config: dict[str, Any], *arguments: str, fails: bool = False) -> str:
    """Train the toy's pretrained model and return what Snakemake and its jobs printed."""
    path = str(write_config(folder, config))
    said: str = run_workflow(folder, "--configfile", path, *arguments, "--", MODEL, fails=fails).stdout
    logs = (folder / "results/logs").rglob("*.log")
    return said + "".join(log.read_text() for log in logs)


def assert_started_from(folder: Path, wanted: dict[str, Tensor]) -> None:
    """Assert that the trained model has these weights, but for a classifier of its own and running statistics."""
    found = load_file(folder / MODEL)
    same = {name for name in wanted if not name.startswith("fc.") and "running" not in name and "batches" not in name}
    assert len(same) > 10
    for name in same:
        torch.testing.assert_close(found[name], wanted[name].float(), rtol=0, atol=1e-6)
    assert found["fc.weight"].shape[0] == 8
    assert not torch.equal(found["fc.weight"][0], wanted["fc.weight"][0].float())
    assert {value.dtype for value in found.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_root_is_looked_into_first(ready: Path, dtype: torch.dtype) -> None:
    """Half precision, too, is computed in float32. Mean and deviation are those of the tag, for each channel."""
    file = ready / f"elsewhere/{TAG}.safetensors"
    wanted = write_weights(file, dtype=dtype)
    train(ready, weights_config(), "--config", f"weights_root={ready / 'elsewhere'}")
    assert_started_from(ready, wanted)
    header = read_header(ready / MODEL)
    assert header["weights"] == sha256_file(file)
    config = timm.get_pretrained_cfg(TAG)
    assert (header["model_spec"]["mean"], header["model_spec"]["std"]) == (list(config.mean), list(config.std))
    assert len(set(config.mean)) == 3  # the channels differ, or this shows little


def test_weights_of_a_path(ready: Path) -> None:
    """Their classifier has as many outputs as ours; it is dropped all the same."""
    wanted = write_weights(ready / "mine.safetensors", num_classes=8)
    train(ready, weights_config(init_weights="mine.safetensors", mean=[0.1, 0.2, 0.3], std=0.25))
    assert_started_from(ready, wanted)
    header = read_header(ready / MODEL)
    assert (header["model_spec"]["mean"], header["model_spec"]["std"]) == ([0.1, 0.2, 0.3], [0.25] * 3)


def test_weights_in_the_hubs_cache(ready: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"hub/hub/models--timm--{TAG}"
    wanted = write_weights(folder / "snapshots/abc/model.safetensors")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    train(ready, weights_config(), "--config", f"weights_root={tmp_path}")  # where there is no file of that name
    assert_started_from(ready, wanted)


def test_missing_weights_say_where_was_looked_and_what_to_do(ready: Path) -> None:
    said = train(ready, weights_config(), "--config", "weights_root=nowhere", fails=True)
    for part in (
        f"no initial weights '{TAG}'", f"nowhere/{TAG}.safetensors does not exist",
        f"the hub's cache has no timm/{TAG}", "the hub could not be asked",
        f"FOLDER/{TAG}.safetensors and set weights_root: FOLDER", "init_weights: random",
    ):  # fmt: skip
        assert part in said
    said = train(ready, weights_config(model="resnet10t.other"), fails=True)
    assert "weights_root is not set" in said
    assert f"timm knows no pretrained weights of that name (names like it: {TAG})" in said
    assert not (ready / MODEL).exists()


def test_path_that_is_not_there_is_named(ready: Path) -> None:
    said = train(ready, weights_config(init_weights="mine.safetensors"), fails=True)
    assert "training/toy/init_weights: mine.safetensors is not there, allowed: random, timm, or a file" in said


def test_weights_of_another_network_are_refused(ready: Path) -> None:
    write_weights(ready / f"elsewhere/{TAG}.safetensors", of="test_vit")
    said = train(ready, weights_config(), "--config", f"weights_root={ready / 'elsewhere'}", fails=True)
    assert "are they the weights of this model?" in said.lower()
    assert not (ready / MODEL).exists()


def test_random_weights_must_be_told_their_input(ready: Path) -> None:
    config = weights_config(init_weights="random")
    assert "training/toy: mean and std must be given where init_weights is random" in train(ready, config, fails=True)
    train(ready, weights_config(init_weights="random", mean=0.5, std=0.5))
    assert read_header(ready / MODEL)["weights"] is None


def test_network_that_a_method_cannot_work_with_is_refused_when_planned(snakemake: Run, tmp_path: Path) -> None:
    """One that the table lists and one that it does not; nothing is trained, and the second is tried once."""
    config = toy_config()
    training = config["training"]["toy"]
    training["model"] = "tf_efficientnet_cc_b0_4e"
    path = str(write_config(tmp_path, config))
    said = snakemake("--dry-run", "--configfile", path, fails=True).stdout
    assert (
        "training/toy: method pgu cannot work with tf_efficientnet_cc_b0_4e: pgu: the network multiplies with" in said
    )
    assert "Networks that it works with: test_resnet, resnetblur18" in said
    training["model"] = "tf_efficientnet_cc_b0_8e"
    path = str(write_config(tmp_path, config))
    for _ in range(2):
        said = snakemake("--dry-run", "--configfile", path, fails=True).stdout
        assert "training/toy: method pgu cannot work with tf_efficientnet_cc_b0_8e" in said
    assert len(list((tmp_path / ".snakemake/oneshui/networks").glob("*.json"))) == 1
    config["tables"]["toy"]["methods"].remove("pgu")
    snakemake("--dry-run", "--configfile", str(write_config(tmp_path, config)))
    for model, options, reason in (
        ("resnet999", {}, "timm cannot build model 'resnet999'"),
        ("resnet18", {"nonsense": 1}, "timm cannot build model 'resnet18'"),  # listed, but not with this option
        ("resnet18", {"num_classes": 3}, "model_options: leave out num_classes"),
    ):
        training |= {"model": model, "model_options": options}
        said = snakemake("--dry-run", "--configfile", str(write_config(tmp_path, config)), fails=True).stdout
        assert f"config.yaml: training/toy: {reason}" in said
        assert "Traceback" not in said and 'File "' not in said
        assert ("Names like it" in said) == (model == "resnet999")
