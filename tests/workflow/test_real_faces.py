"""The paper's regime on real faces: the two real configurations, shrunk, from pretrained weights to their tables."""

import copy
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.workflow.conftest import ROOT, Run, write_config

from oneshui.files import read_header, sha256_file

pytestmark = [pytest.mark.slow, pytest.mark.realdata]
DATA = Path(os.environ.get("ONESHUI_DATA") or ROOT.parent / "shared/data").resolve()
WEIGHTS = Path(os.environ.get("ONESHUI_WEIGHTS") or ROOT.parent / "shared/weights").resolve()
TAG = "tf_efficientnet_lite0.in1k"


def shrunk(name: str) -> dict[str, Any]:
    """A configuration with fewer people, one seed, one request size and the methods that are quick."""
    config: dict[str, Any] = copy.deepcopy(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    config["datasets"][name] |= {"identities": {"celeba_small": 30, "mufac_small": 60}[name]}
    config["training"][name] |= {"epochs": 5}
    table = config["tables"][name]
    table |= {"blocks": [{"dataset": name, "n": 5}], "methods": ["scrub", "jit"], "privacy": False}
    figures = {key: value for key, value in config["figures"].items() if value["kind"] != "roc"}
    return {**config, "seeds": [0], "figures": figures}


@pytest.mark.parametrize(("name", "measure"), [("celeba_small", "map"), ("mufac_small", "accuracy")])
def test_pretrained_network_knows_the_people_it_was_trained_on(
    snakemake: Run, tmp_path: Path, name: str, measure: str
) -> None:
    if not (DATA.is_dir() and WEIGHTS.is_dir()):
        pytest.skip("needs the folders named by ONESHUI_DATA and ONESHUI_WEIGHTS")
    path = str(write_config(tmp_path, shrunk(name)))
    roots = (f"data_root={DATA}", f"weights_root={WEIGHTS}")
    snakemake("--configfile", path, "--config", *roots, "--", "tables", "figures")
    model = read_header(tmp_path / f"results/models/{name}/seed0/pretrain.safetensors")
    assert model["weights"] == sha256_file(WEIGHTS / f"{TAG}.safetensors")
    assert model["model_spec"]["mean"] == model["model_spec"]["std"] == [0.5] * 3
    table = pd.read_csv(tmp_path / f"results/tables/{name}.csv").set_index("method")
    assert table["measure"].eq(measure).all()
    original, retrained = table.loc["pretrain"], table.loc["retrain"]
    assert original["forget_mean"] - original["test_mean"] > 15
    assert original["forget_mean"] - retrained["forget_mean"] > 15
