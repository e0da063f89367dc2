"""Every rule through Snakemake, with every optional input there: no path of a script exists in unit tests only."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file
from tests.workflow.conftest import ROOT, Run, logs_of, planned, run_workflow, toy_config, write_config
from tests.workflow.test_initial_weights import TAG, TINY, write_weights

from oneshui.files import read_header, sha256_file
from oneshui.report.figures import KINDS
from oneshui.schemas import read_meta

pytestmark = pytest.mark.slow
RULE = re.compile(r"^(?:local)?rule (\w+):$", re.MULTILINE)


def full_config(folder: Path) -> dict[str, Any]:
    """The toy grid with initial weights, two seeds, attacks on paired seeds, every kind of figure, and selection."""
    config = toy_config()
    write_weights(folder / "weights" / f"{TAG}.safetensors")
    training = config["training"]["toy"]
    training |= {"model": TAG, "model_options": TINY, "init_weights": "timm", "epochs": 1, "warmup_epochs": 0}
    del training["mean"], training["std"]
    config["methods"]["one_by_one"] = {"of": "identity_edits", "in_turn": 1}
    table = {**config["tables"]["toy"], "methods": ["ssd", "scrub", "identity_edits", "one_by_one"]}
    table |= {"privacy": True, "traces": True}
    blocks = {"table": "toy", "blocks": [{"dataset": "toy", "n": 3}]}
    return {
        **config, "weights_root": str(folder / "weights"), "seeds": [0, 1], "tables": {"toy": table},
        "attack": {**config["attack"], "offline_a": "paired_seed", "references": "own"},
        "figures": {
            **{kind: {"kind": kind, "table": "toy"} for kind in KINDS}, "harm": {"kind": "harm", **blocks},
            "faces": {"kind": "hardest_identities", **blocks, "show_faces": True},
        },
        "selection": {
            "requests": 1, "seeds": [0, 1],
            "grids": {"jit": {"lr": [1e-4, 1e-3]}, "identity_edits": {"solve": ["sum", "joint"]}},
        },
    }  # fmt: skip


def rules_of_the_workflow() -> set[str]:
    """Names of all rules but targets, which run nothing."""
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = re.findall(r"^(?:use rule \w+ as|rule) (\w+)(?: with)?:$", text, re.MULTILINE)
    return set(named) - {"tables", "figures", "report"}


def studied(name: str, folder: Path, *arguments: str) -> str:
    """Return what a study of a finished run prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", str(folder / "config.yaml"), *arguments]
    done = subprocess.run(
        [*command, "--directory", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_rule_runs_with_every_optional_input(snakemake: Run, tmp_path: Path) -> None:
    config = full_config(tmp_path)
    arguments = ("--configfile", str(write_config(tmp_path, config)), "--")
    rankings = [f"results/selection/toy/n3/{name}.csv" for name in ("jit", "identity_edits")]
    snakemake(*arguments, "all", "report", "check_data", *rankings)
    known = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["training"]["demo"]  # whose speed is known
    arguments = ("--configfile", str(write_config(tmp_path, {**config, "training": {"toy": known}})), "--")
    snakemake(*arguments, "plan")
    assert set(RULE.findall("".join(logs_of(tmp_path)))) & rules_of_the_workflow() == rules_of_the_workflow()
    model = read_header(tmp_path / "results/models/toy/seed0/pretrain.safetensors")
    assert model["weights"] == sha256_file(tmp_path / "weights" / f"{TAG}.safetensors")
    edited = read_header(tmp_path / "results/unlearned/toy/n3/seed0/pretrain/identity_edits.safetensors")
    assert edited["health"]["unknown_identities"] == 0 and edited["health"]["relative_step"] > 0
    edits = read_header(tmp_path / "results/artefacts/toy/seed0/pretrain/identity_edits.safetensors")
    assert edits["n"] is None and edits["model"] == edited["model"]
    assert not list(tmp_path.glob("results/artefacts/**/one_by_one*"))  # it uses that of identity_edits
    folder = tmp_path / "results/unlearned/toy/n3/seed0/pretrain"
    together, in_turn = (load_file(folder / f"{name}.safetensors") for name in ("identity_edits", "one_by_one"))
    for name, tensor in in_turn.items():
        np.testing.assert_allclose(tensor, together[name], atol=1e-5, rtol=1e-4)
    fold = read_header(tmp_path / "results/models/toy/seed0/fold1of2.safetensors")
    assert fold["n"] is None and fold["training"]["images"] < 0.6 * model["training"]["images"]
    assert not (tmp_path / "results/unlearned/toy/n3/seed0/retrain/identity_edits.safetensors").exists()
    traces = pd.read_csv(tmp_path / "results/tables/toy.csv")[
        ["probe_50_mean", "probe_features_mean", "relearned_mean"]
    ]
    assert traces.notna().all(axis=None)
    paired = read_meta(tmp_path / "results/attacks/toy/n3/seed0/pretrain/ssd.parquet")
    assert paired["attack"]["offline_a"] == "paired_seed"
    assert [len(pd.read_csv(tmp_path / ranking)) for ranking in rankings] == [3, 3]
    bars = pd.read_csv(tmp_path / "results/figures/table_bars.csv")
    keys, of_seeds = ["method", "quantity"], bars["seed"].notna()
    means = bars[of_seeds].groupby(keys)["value"].mean()
    assert bars[of_seeds].groupby(keys).size().eq(2).all()
    np.testing.assert_allclose(means, bars[~of_seeds].set_index(keys)["value"].reindex(means.index), rtol=1e-6)

    served = pd.read_csv(tmp_path / "results/figures/in_turn.csv", keep_default_na=False).set_index("method")
    assert set(served.loc["one_by_one", "of"]) == {"identity_edits"} and set(served.loc["one_by_one", "in_turn"]) == {1}

    for study, more in (("one_person", ["--people", "3"]), ("artefact_attack", [])):
        printed = studied(study, tmp_path, "toy", "--methods", "identity_edits", *more)
        assert re.search(r"\| identity_edits \| [\d.]+ \|", printed) and "nan" not in printed, printed
    printed = studied("scoring_precision", tmp_path, "toy", "--people", "3")
    (bf16,), (float32,) = (
        re.findall(rf"\| {way} \| ([\de.+-]+) \|", printed) for way in ("bf16", "float32, other batches")
    )
    assert 100 * float(float32) < float(bf16) < 1, printed

    for more in ([], ["--together", "3"]):
        printed = studied("calibration", tmp_path, "toy", "--methods", "identity_edits", "--scales", "0", "1", *more)
        shown = {
            name: rest for name, *rest in re.findall(r"^\| ([a-z0-9_, ]+) \| ([\d.]+) \|.* ([\d.]+) \|$", printed, re.M)
        }
        assert shown["original"] == shown["identity_edits, 0 times"] != shown["identity_edits"], printed
        assert shown["2 fold models"][1] == "0.00"  # the judges themselves

    config["attack"] |= {"offline_a": 0.3, "references": "seeds"}
    run_workflow(tmp_path, "--configfile", str(write_config(tmp_path, config)))
    again = logs_of(tmp_path)[-1]
    assert {"attack_trained", "attack_unlearned"} <= set(RULE.findall(again))
    assert not {"train_pretrain", "score_pretrain", "unlearn", "fetch_weights"} & set(RULE.findall(again))
    several = read_meta(tmp_path / "results/attacks/toy/n3/seed0/pretrain/ssd.parquet")
    assert several["attack"]["references"] == "seeds"
    assert planned(tmp_path, config) == {}
