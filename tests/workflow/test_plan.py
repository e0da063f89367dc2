"""The plan of a configuration against Snakemake's own, job by job."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.workflow.conftest import ROOT, Run, annotate, toy_config, write_config

from oneshui.planning.jobs import Job, planned_jobs
from oneshui.schemas import INDEX, read_table

pytestmark = pytest.mark.slow

#: the row that a rule without a wildcard for it is about
ROWS = {
    "train_pretrain": "pretrain",
    "train_retrain": "retrain",
    "train_ceiling": "ceiling",
    "score_pretrain": "pretrain",
}


def dry_run(snakemake: Run, config: Path, *arguments: str) -> set[Job]:
    """Return the jobs that Snakemake would run from nothing for the target ``tables``."""
    output = snakemake("--dry-run", "--configfile", str(config), *arguments, "--", "tables").stdout
    blocks = re.split(r"^(?:local)?rule ", output, flags=re.MULTILINE)[1:]
    total = re.search(r"^total +(\d+)$", output, flags=re.MULTILINE)
    assert total is not None and int(total[1]) == len(blocks)
    return {job_of(block) for block in blocks}


def job_of(block: str) -> Job:
    """Return the job that a block of a dry run describes."""
    stage = block.partition(":")[0]
    line = re.search(r"^ *wildcards: (.*)$", block, flags=re.MULTILINE)
    w = dict(part.split("=") for part in line[1].split(", ")) if line else {}
    n, seed = (int(w[key]) if key in w else None for key in ("n", "seed"))
    fold = f"fold{w['fold']}of{w['folds']}" if "fold" in w else ""
    method = f"{w.get('origin', 'pretrain')}/{w['method']}" if "method" in w else ROWS.get(stage, fold)
    row = next((w[key] for key in ("trained", "retrained", "table", "model") if key in w), method)
    return Job(stage, w.get("dataset", ""), n, seed, row)


def own_methods(config: dict[str, Any]) -> dict[str, Any]:
    """Add methods of a user's own, one of each need."""
    for needs in ("artefact", "nothing", "data"):
        config["methods"][f"own_{needs}"] = {"kind": "mine:Mine", "needs": needs, "params": {}}
        config["tables"]["toy"]["methods"].append(f"own_{needs}")
    return config


@pytest.mark.parametrize("privacy", [False, True])
def test_toy_plan_is_snakemakes(snakemake: Run, tmp_path: Path, privacy: bool) -> None:
    config = own_methods(toy_config())
    config["tables"]["toy"]["privacy"] = privacy
    config["tables"]["toy"]["methods"] += ["fold_model", "identity_edits"]
    config["tables"]["toy"]["blocks"] = [{"dataset": "toy", "n": n} for n in (1, 3)]
    config["tables"]["toy"]["traces"] = privacy
    assert planned_jobs(config) == dry_run(snakemake, write_config(tmp_path, config))


def test_attacks_that_look_at_other_seeds_plan_no_more(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
    config["seeds"] = [0, 1, 2]
    config["tables"]["toy"] |= {"privacy": True, "blocks": [{"dataset": "toy", "n": n} for n in (1, 3)]}
    config["tables"]["plain"] = {**config["tables"]["toy"], "privacy": False, "methods": ["metaunlearn"]}
    config["attack"] |= {"references": "seeds"}
    assert planned_jobs(config) == dry_run(snakemake, write_config(tmp_path, config))


@pytest.mark.parametrize("name", ["config", "mufac_small", "demo"])
def test_plan_of_our_configurations_is_snakemakes(snakemake: Run, tmp_path: Path, name: str) -> None:
    path = ROOT / f"config/{name}.yaml"
    config = yaml.safe_load(path.read_text())
    annotate(config, tmp_path / "raw")
    jobs = dry_run(snakemake, path, "--config", f"data_root={tmp_path / 'raw'}")
    assert planned_jobs(config) == jobs


def test_the_plan_is_printed_and_counts_what_is_indexed(snakemake: Run, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    config["datasets"]["demo"]["synthetic"] |= {"n_identities": 60, "images_per_identity": [6, 11]}
    path = str(write_config(tmp_path, config))
    output = snakemake("--configfile", path, "--", "plan").stdout
    assert (tmp_path / "results/plan.txt").read_text() in output
    assert "demo: 510 images of 60 identities" in output  # expected
    assert "demo: 510 images" in snakemake("--configfile", path, "--", "plan").stdout  # though nothing has changed
    snakemake("--configfile", path, "--", "results/data/demo/index.parquet")
    index, _ = read_table(tmp_path / "results/data/demo/index.parquet", INDEX)
    assert len(index) != 510
    output = snakemake("--configfile", path, "--", "plan").stdout
    assert f"demo: {len(index)} images of 60 identities" in output
    totals = pd.read_csv(tmp_path / "results/plan.csv")
    assert f"{totals['jobs'].sum()} jobs" in output
