"""Models of one's own: any image task, and networks of timm of every family, packed and unlearned."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.bundles.conftest import ANN, BOB
from tests.unit.bundles.objects import OTHERS, OWNERS, manifest_options, method, write_model, write_objects

import oneshui

pytestmark = pytest.mark.slow
NETWORKS = {
    "resnet18": "ssd", "convnext_atto": "metaunlearn", "vit_tiny_patch16_224": "pgu", "tf_efficientnet_b0": "jit",
    "deit_tiny_distilled_patch16_224": "metaunlearn", "resnet10t": "pgu",
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "kind"), list(zip(NETWORKS, itertools.cycle(["classification", "multilabel"]), strict=False))
)
def test_networks_of_ones_own_are_packed_and_unlearned(tmp_path: Path, network: str, kind: str) -> None:
    photos = write_objects(tmp_path / "photos", kind)
    write_objects(tmp_path / "others/photos", kind, OTHERS, seed=1)
    model = write_model(tmp_path / "weights.safetensors", network, kind)
    made = oneshui.pack_model(
        tmp_path / "bundle", images=tmp_path / "photos", validation=tmp_path / "others/photos", cpu=True,
        method=method(NETWORKS[network]), options=manifest_options(kind), **model,
    )  # fmt: skip
    assert len(made.people) == len(OWNERS) and made.task["kind"] == kind
    shutil.rmtree(tmp_path / "photos")
    shutil.rmtree(tmp_path / "others")
    receipt = oneshui.forget(tmp_path / "bundle", {ANN: photos[ANN], BOB: photos[BOB]}, out=tmp_path / "new", cpu=True)
    assert receipt["outcome"] in ("served", "saturated") and receipt["people_after"] == len(OWNERS) - 2
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("bundle", "new"))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)  # of batch norm
    assert all(
        each["holds"] for each in oneshui.verify(tmp_path / "new-receipt.json", tmp_path / "bundle", tmp_path / "new")
    )
    labels = [each["label"] for each in receipt["people"]]
    assert all(isinstance(label, str if kind == "classification" else list) for label in labels)
