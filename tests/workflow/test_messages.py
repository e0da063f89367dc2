"""What a run that fails says: one block for each error, and no more."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.workflow.conftest import Run, annotate, toy_config, toy_with, write_config

from oneshui.data.raw_layouts import write_raw
from oneshui.data.synthetic import SyntheticSpec

pytestmark = pytest.mark.slow

OWN_METHOD = """
import dataclasses, os, signal

@dataclasses.dataclass(frozen=True)
class Failing:
    how: str

    def precompute(self, model, train, val, *, seed):
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError("nothing to divide by")

    def unlearn(self, model, support, artefact, *, seed):
        pass
"""


def with_manifest(folder: Path) -> dict[str, Any]:
    """Return the toy configuration with its faces as a manifest in ``folder``, which holds them."""
    config = toy_with("ssd")
    synthetic = config["datasets"]["toy"].pop("synthetic")
    config["datasets"]["toy"] |= {"layout": "manifest", "folder": "toy"}
    write_raw(SyntheticSpec.from_dict(synthetic), folder / "toy", "manifest")
    return config


@pytest.mark.parametrize("quiet", [(), ("--quiet", "all")])
def test_an_expected_error_of_a_job_is_one_block(snakemake: Run, tmp_path: Path, quiet: tuple[str, ...]) -> None:
    config = with_manifest(tmp_path / "data")
    image = sorted((tmp_path / "data/toy/images").iterdir())[0]
    image.write_bytes(b"no picture")
    said = snakemake("--configfile", str(write_config(tmp_path, config)), *quiet, "--", "tables", fails=True).stdout
    block = said[said.index("Error in index_dataset (dataset=toy)\nDataError: toy: 1 of ") :]
    assert f"images/{image.name} (manifest.csv:2): unreadable" in block
    assert "\nLog: results/logs/index_dataset/toy.log\n" in block
    assert "\n1 failed: index_dataset (dataset=toy)\n" in block
    assert said.count(image.name) == 1
    for noise in ("Traceback", "RuleException", "CalledProcessError", 'File "', "Exiting because", "WorkflowError"):
        assert noise not in said


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("unexpected", "ZeroDivisionError: nothing to divide by\nLog: results/logs/precompute_artefact/"),
        ("killed", "It was killed: the system may have had no memory left"),
    ],
)
def test_an_unexpected_error_shows_its_end_and_the_log_has_it_all(
    snakemake: Run, copied: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    (copied / "code").mkdir()
    (copied / "code/failing.py").write_text(OWN_METHOD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(copied / "code"), os.environ.get("PYTHONPATH", "")]))
    config = toy_config()
    config["methods"]["failing"] = {"kind": "failing:Failing", "needs": "artefact", "params": {"how": how}}
    artefact = "artefacts/toy/n3/seed0/pretrain/failing"
    target = f"results/{artefact}.safetensors"
    path = str(write_config(copied, config))
    said = snakemake("--configfile", path, "--", target, folder=copied, fails=True).stdout
    assert said.count(told) == 1 and said.count("ZeroDivisionError: ") == (how == "unexpected")
    assert "RuleException" not in said
    log = (copied / "results/logs/precompute_artefact/toy/n3/seed0/pretrain/failing.log").read_text()
    assert ("Traceback" in log and "failing.py" in log) == (how == "unexpected")


def test_check_data_reports_on_a_dataset_beside_one_that_is_missing(snakemake: Run, tmp_path: Path) -> None:
    config = with_manifest(tmp_path / "data")
    config["datasets"]["other"] = {**config["datasets"]["toy"], "folder": "other"}
    config["training"]["other"] = config["training"]["toy"]
    said = snakemake("--configfile", str(write_config(tmp_path, config)), "--", "check_data").stdout
    assert "data/other is not there. It needs manifest.csv." in said and "Dataset check: toy" in said
    annotate({"datasets": {"other": config["datasets"]["other"]}}, tmp_path / "data")
    said = snakemake("--configfile", str(tmp_path / "config.yaml"), "--", "check_data", fails=True).stdout
    assert "DataError: manifest.csv" in said and "Traceback" not in said


def test_a_file_that_was_named_and_is_not_there_is_one_line(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
    config["training"]["toy"]["init_weights"] = "none.safetensors"
    said = snakemake("--dry-run", "--configfile", str(write_config(tmp_path, config)), fails=True).stdout
    assert "ConfigError in config.yaml: training/toy/init_weights: none.safetensors is not there, allowed: " in said
    assert "affected files" not in said
    said = snakemake("--dry-run", "--configfile", "none.yaml", fails=True).stdout
    assert "\nFileNotFoundError: [Errno 2] No such file or directory: 'none.yaml'\n" in f"\n{said}"
    assert "Traceback" not in said
