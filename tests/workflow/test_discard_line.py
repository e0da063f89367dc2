"""Unlearning without the training data: the same weights, and no way to it."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from tests.workflow.conftest import ROOT, SUPPORT_ONLY, Run, tensor_hashes, toy_config, write_config

from oneshui.files import read_header

pytestmark = pytest.mark.slow


def test_unlearning_after_the_data_is_gone_gives_the_same_weights(snakemake: Run, copied: Path) -> None:
    """The benchmark's tables need the data again; a request does not, of whatever method and origin."""
    folder = "results/unlearned/toy/n3/seed0"
    targets = [f"{folder}/{o}/{m}.safetensors" for o in ("pretrain", "retrain") for m in SUPPORT_ONLY]
    arguments = ("--configfile", str(write_config(copied, toy_config())), "--", *targets)
    snakemake(*arguments, folder=copied)  # the artefacts of the retrained model are made with the data
    before = {target: tensor_hashes(copied / target) for target in targets}
    for target in targets:
        assert read_header(copied / target)["isolation"] in ("landlock", "audit hook")
        (copied / target).unlink()
    for gone in ("raw", "data", "splits"):
        (copied / "results" / gone).rename(copied.parent / gone)
    snakemake(*arguments, folder=copied)
    assert {target: tensor_hashes(copied / target) for target in targets} == before


def test_a_method_that_reads_an_image_fails_loudly(snakemake: Run, copied: Path, monkeypatch: pytest.MonkeyPatch
                                                   ) -> None:  # fmt: skip
    (copied / "code").mkdir()
    (copied / "code/peeking.py").write_text("""
import dataclasses, numpy

@dataclasses.dataclass(frozen=True)
class Peeking:
    path: str

    def precompute(self, model, train, val, *, seed):
        return None

    def unlearn(self, model, support, artefact, *, seed):
        numpy.load(self.path, mmap_mode="r")
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(copied / "code"), os.environ.get("PYTHONPATH", "")]))
    config, images = toy_config(), copied / "results/data/toy/images.npy"
    config["methods"]["peeking"] = {"kind": "peeking:Peeking", "needs": "nothing", "params": {"path": str(images)}}
    target = "results/unlearned/toy/n3/seed0/pretrain/peeking.safetensors"
    configfile = str(write_config(copied, config))
    done = snakemake("--configfile", configfile, "--", target, folder=copied, fails=True)
    assert re.search(rf"(Permission denied|may open): '{re.escape(str(images))}'", done.stdout)
    assert not (copied / target).exists()


def test_own_method_of_the_documentation_runs_to_a_table(
    snakemake: Run, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/own_method.md").read_text()
    code, entry = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("python", "yaml"))
    assert code is not None and entry is not None
    assert sum(bool(line.strip()) for line in code[1].splitlines()) <= 30
    (copied / "head_ascent.py").write_text(code[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(copied), os.environ.get("PYTHONPATH", "")]))
    config = toy_config()
    config["methods"] |= yaml.safe_load(entry[1])["methods"]
    config["tables"]["toy"]["methods"].append("head_ascent")
    snakemake("--configfile", str(write_config(copied, config)), "--", "tables", folder=copied)
    row = pd.read_csv(copied / "results/tables/toy.csv").set_index("method").loc["head_ascent"]
    assert row["forget_mean"] >= 0 and row["unlearn_s"] > 0 and row["precompute_s"] > 0
    before = load_file(copied / "results/models/toy/seed0/pretrain.safetensors")
    after = load_file(copied / "results/unlearned/toy/n3/seed0/pretrain/head_ascent.safetensors")
    assert {name for name, tensor in after.items() if not tensor.equal(before[name])} == {"fc.weight", "fc.bias"}
