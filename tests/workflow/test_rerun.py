"""What runs again after a change, and what is refused."""

import re
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.workflow.conftest import SUPPORT_ONLY, WITH_DATA, Run, planned, toy_config, toy_with, write_config
from tests.workflow.same_results import differences, results

from oneshui.files import sha256_file

pytestmark = pytest.mark.slow


def test_table_has_every_row_and_its_differences(finished: Path) -> None:
    table = pd.read_csv(finished / "results/tables/toy.csv")
    assert table["method"].tolist() == ["pretrain", "retrain", *SUPPORT_ONLY, *WITH_DATA]
    assert table["n_seeds"].eq(1).all()
    assert table["forget_mean"].between(0, 100).all()
    pretrain = table.set_index("method").loc["pretrain"]
    others = table.set_index("method").loc[[*SUPPORT_ONLY, *WITH_DATA]]
    assert table.set_index("method")["access_to_data"].to_dict() == {
        name: name in WITH_DATA for name in table["method"]
    }
    assert others["unlearn_s"].gt(0).all() and others["unlearn_peak_mb"].gt(0).all()
    assert others["precompute_s"].notna().to_dict() == {
        name: name in ("ssd", "pgu", "metaunlearn") for name in others.index
    }
    difference = others["tow_mean"] - pretrain["tow_mean"]
    assert (difference - others["tow_minus_pretrain_mean"]).abs().max() < 1e-6
    for suffix in ("md", "tex"):
        assert (finished / f"results/tables/toy.{suffix}").stat().st_size > 0


def test_second_run_does_nothing(snakemake: Run, copied: Path) -> None:
    assert planned(copied, toy_config()) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_jobs_that_are_forks_make_what_jobs_make_by_themselves(
    snakemake: Run, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = "results/metrics/toy/n3/seed0/pretrain/metaunlearn.parquet"
    config = str(write_config(tmp_path, toy_config()))
    monkeypatch.setenv("ONESHUI_FORK", "0")
    snakemake("--configfile", config, "--", target)
    for base, kind in ((finished, "as a fork"), (tmp_path, "by itself")):
        logs = [path.read_text().splitlines()[-1] for path in (base / "results/logs").rglob("*.log")]
        assert len(logs) > 10 and all(f" s {kind}, " in line for line in logs), logs
    assert set(differences(finished, tmp_path)) == results(finished).keys() - results(tmp_path).keys()


def test_table_option_reruns_tables_and_their_figures_only(snakemake: Run, copied: Path) -> None:
    config = toy_config()
    config["tables"]["toy"]["decimals"] = 2
    assert set(planned(copied, config)) == {"all", "make_table", "make_figure"}


def test_a_deleted_metrics_file_rebuilds_what_depends_on_it(snakemake: Run, copied: Path) -> None:
    """And nothing else; the numbers are the same again."""
    config = toy_config()
    config["tables"]["other"] = {**config["tables"]["toy"], "methods": ["jit"]}
    targets = ("--configfile", str(write_config(copied, config)), "--", "tables", "figures", "report")
    snakemake(*targets, folder=copied)
    results = copied / "results"
    tables = {path: path.read_bytes() for path in results.glob("tables/*")}
    before = {
        path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file() and "logs" not in path.parts
    }
    (results / "metrics/toy/n3/seed0/pretrain/ssd.parquet").unlink()
    snakemake(*targets, folder=copied)
    changed = {str(path.relative_to(results)) for path, time in before.items() if path.stat().st_mtime_ns != time}
    made = {f"tables/toy{end}" for end in (".csv", "_tidy.csv", ".md", ".tex")}
    made |= {f"figures/toy_bars.{end}" for end in ("csv", "pdf", "png")}
    assert changed == {"metrics/toy/n3/seed0/pretrain/ssd.parquet", *made, "report.html"}
    assert tables == {path: path.read_bytes() for path in tables}


def test_method_parameter_reruns_that_method_only(snakemake: Run, copied: Path) -> None:
    config = toy_config()
    config["methods"]["ssd"]["params"]["fisher"] = "batch"
    plan = planned(copied, config)
    assert plan["precompute_artefact"] == plan["unlearn"] == plan["score_unlearned"] == plan["measure_unlearned"] == 1
    assert not {"train_pretrain", "train_retrain", "score_pretrain", "measure_trained"} & set(plan)


def test_parameter_of_unlearning_alone_keeps_the_artefact(copied: Path) -> None:
    """So it can be changed after the data is gone."""
    config = toy_config()
    config["methods"]["pgu"]["params"]["lr"] = 0.02
    plan = planned(copied, config)
    assert plan["unlearn"] == plan["score_unlearned"] == 1
    assert "precompute_artefact" not in plan


def test_training_parameter_is_refused_and_models_stay(snakemake: Run, copied: Path) -> None:
    config = toy_config()
    old = config["training"]["toy"]["lr"]
    config["training"]["toy"]["lr"] = 0.123
    model = copied / "results/models/toy/seed0/pretrain.safetensors"
    before = sha256_file(model)
    done = snakemake("--configfile", str(write_config(copied, config)), folder=copied, fails=True)
    assert "trained models are protected" in done.stdout
    assert f"training.lr: {old} -> 0.123" in done.stdout
    assert sha256_file(model) == before


def test_newer_index_retrains_nothing(snakemake: Run, copied: Path) -> None:
    for name in ("splits/toy/seed0.parquet", "data/toy/index.parquet"):
        path = copied / "results" / name
        pq.write_table(pq.read_table(path), path, compression="none")  # other bytes: Snakemake compares small files
    plan = planned(copied, toy_config())
    assert not {"train_pretrain", "train_retrain"} & set(plan)
    assert plan["precompute_artefact"] == 3
    assert plan["unlearn_with_data"] == 2


def test_changed_label_is_refused_and_the_table_stays(snakemake: Run, copied: Path) -> None:
    raw, table = copied / "results/raw/toy", copied / "results/tables/toy.csv"
    before, made = table.read_bytes(), table.stat().st_mtime_ns
    manifest = pd.read_csv(raw / "manifest.csv", dtype=str)
    common, other = manifest["label"].value_counts().index[:2]  # every class keeps an image
    manifest.loc[manifest.index[manifest["label"] == common][0], "label"] = other
    manifest.to_csv(raw / "manifest.csv", index=False)
    marker = raw / "rendered.json"
    marker.write_text(marker.read_text() + "\n")  # a new time stamp alone is not enough for snakemake
    done = snakemake("--configfile", str(write_config(copied, toy_config())), "--", "tables", folder=copied, fails=True)
    assert re.search(r"trained on (another split|other splits)|exported from another split", done.stdout)
    assert (table.read_bytes(), table.stat().st_mtime_ns) == (before, made)


def test_new_seed_trains_its_own_models_only(snakemake: Run, copied: Path) -> None:
    models = copied / "results/models"
    before = {path: (sha256_file(path), path.stat().st_mtime_ns) for path in models.rglob("*.safetensors")}
    assert len(before) == 2
    config = toy_config() | {"seeds": [0, 1]}
    plan = planned(copied, config)
    assert plan["train_pretrain"] == plan["train_retrain"] == plan["split_identities"] == 1
    assert plan["measure_trained"] == 2
    assert not {"render_faces", "index_dataset", "pack_images"} & set(plan)
    snakemake("--configfile", str(write_config(copied, config)), folder=copied)
    assert {path: (sha256_file(path), path.stat().st_mtime_ns) for path in before} == before
    added = {path.relative_to(models).as_posix() for path in models.rglob("*.safetensors") if path not in before}
    assert added == {"toy/seed1/pretrain.safetensors", "toy/n3/seed1/retrain.safetensors"}
    assert pd.read_csv(copied / "results/tables/toy.csv")["n_seeds"].eq(2).all()


def test_unlearned_models_are_removed_where_they_are_not_kept(snakemake: Run, tmp_path: Path) -> None:
    config = toy_with("ssd", "scrub") | {"keep_unlearned": False}
    snakemake("--configfile", str(write_config(tmp_path, config)))
    assert (tmp_path / "results/tables/toy.csv").exists()
    assert [path for path in (tmp_path / "results/unlearned").rglob("*") if path.is_file()] == []
    assert planned(tmp_path, config) == {}
