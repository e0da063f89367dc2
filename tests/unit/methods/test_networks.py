"""Every family of timm with every method; the slow half of it is the point of the table."""

import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from tests.unit.methods.networks import (
    KINDS,
    MARK,
    NETWORKS,
    PAGE,
    PARAMS,
    TABLE,
    TASKS,
    outcome,
    page_table,
    row_of,
    shipped,
    tried_row_of,
)

from oneshui.errors import ConfigError
from oneshui.methods import METHODS
from oneshui.networks import problems_of
from oneshui.planning import networks

KNOWN = pd.read_csv(TABLE, keep_default_na=False)
TRAINING = {
    "init_weights": "random", "mean": 0.5, "std": 0.5, "epochs": 1, "warmup_epochs": 0, "batch_size": 1,
    "optimiser": "sgd", "lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "crop_scale": [1.0, 1.0], "precision": "fp32",
    "revision": 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_table_says_what_works_and_trying_finds_the_same(network: str) -> None:
    found = row_of(network)
    (row,) = KNOWN[(KNOWN["network"] == network) & ~KNOWN["family"].str.startswith("as in")].to_dict("records")
    assert row == found
    _, px, options = NETWORKS[network]
    training = {**TRAINING, "model": network, "model_options": options, "input_px": px}
    tried = problems_of(training, {kind: [{"kind": kind, **params}] for kind, params in PARAMS.items()})
    assert tried == {kind: found[kind] for kind in KINDS if found[kind]}


@pytest.mark.slow
@pytest.mark.parametrize("key", shipped(), ids=str)
def test_networks_of_our_configurations_work_as_large_as_they_are(key: tuple[str, str, int]) -> None:
    found = tried_row_of(key)
    assert found in KNOWN.to_dict("records")
    assert not any(found[kind] for kind in KINDS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_every_method_works_on_a_gpu(method: str, task: str) -> None:
    assert outcome("vit_tiny_patch16_224", method, task, "cuda") == ""


def test_table_has_every_network_and_method_and_the_page_has_the_table() -> None:
    assert KNOWN["network"].tolist() == [*NETWORKS, *(key[0] for key in shipped())]
    assert KNOWN.columns.tolist() == ["network", "options", "px", "family", *KINDS]
    assert set(KINDS) <= set(METHODS)  # a kind without a column is tried where a network is planned for it
    assert f"{MARK}\n{page_table(KNOWN)}\n<!-- end -->" in PAGE.read_text()


class Tried:
    """Stands in for the process that tries a network, and remembers what it was asked."""

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems, self.asked = problems, []

    def __call__(self, training: object, methods: dict[str, object], cache: Path, where: str) -> dict[str, str]:
        self.asked.append(sorted(methods))
        return {name: problem for name, problem in self.problems.items() if name in methods}


def test_a_network_is_tried_where_oneshui_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that it was carried to: it lies in a folder, and no package index knows its version."""

    def version(name: str) -> str:
        if name == "oneshui":
            raise PackageNotFoundError(name)
        return "1"

    said = subprocess.CompletedProcess[str]([], 0, stdout='{"problems": {"ssd": "It cannot."}}', stderr="")
    monkeypatch.setattr(networks, "version", version)
    monkeypatch.setattr(networks.subprocess, "run", lambda *_, **__: said)
    training = {**TRAINING, "model": "test_resnet", "model_options": {}, "input_px": 32}
    assert networks._tried(training, {"ssd": [{"kind": "ssd"}]}, tmp_path, "here") == {"ssd": "It cannot."}


def test_a_kind_without_a_column_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, config = tmp_path / "networks.csv", yaml.safe_load((TABLE.parents[1] / "config/demo.yaml").read_text())
    KNOWN.drop(columns="ssd").to_csv(table, index=False)
    for problem in ("", "It cannot."):
        tried = Tried({"ssd": problem})
        monkeypatch.setattr(networks, "_tried", tried)
        if problem:
            with pytest.raises(
                ConfigError, match=r"method ssd cannot work with .*It cannot.*works with: none is known"
            ):
                networks.refuse_networks(config, table, tmp_path)
        else:
            networks.refuse_networks(config, table, tmp_path)
        assert tried.asked == [["ssd"]]  # and not metaunlearn, which has a column
        networks.refuse_networks(config, TABLE, tmp_path)
        assert tried.asked == [["ssd"]]


@pytest.mark.slow  # two processes
def test_edits_of_more_blocks_than_the_table_was_made_with_are_tried(tmp_path: Path) -> None:
    config = yaml.safe_load((TABLE.parents[1] / "config/demo.yaml").read_text())
    (dataset,) = config["training"]
    (row,) = KNOWN[KNOWN["family"] == "ResNet"].to_dict("records")[:1]
    config["training"][dataset] |= {"model": row["network"], "model_options": {}, "input_px": row["px"]}
    few = PARAMS["identity_edits"]
    edits = {"kind": "identity_edits", "params": few | {"blocks": 50}}
    config["methods"] = {"edits": edits, "same": edits, "few": {"kind": "identity_edits", "params": few}}
    config["tables"] = {"t": {"blocks": [{"dataset": dataset, "n": 1}], "methods": ["same", "few"]}}
    with pytest.raises(ConfigError, match=r"method same cannot work with .*: blocks = 50, allowed: at most \d+"):
        networks.refuse_networks(config, TABLE, tmp_path)
    config["tables"]["t"]["methods"] = ["edits", "same"]
    problems = networks._tried(config["training"][dataset], networks._asked(config)[dataset], tmp_path, "c")
    assert set(problems) == {"edits", "same"} and problems["edits"] == problems["same"]
