"""A table with attacks and controls, from a finished grid on."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.workflow.conftest import Run, planned, toy_config, write_config

from oneshui.files import read_header
from oneshui.schemas import ATTACK, FEATURES, METRICS, REQUEST, SCORES, read_table

pytestmark = pytest.mark.slow


def privacy_config() -> dict[str, Any]:
    config = toy_config()
    config["tables"]["private"] = {**config["tables"]["toy"], "methods": ["ssd", "scrub"], "privacy": True}
    config["figures"] |= {
        "private_roc": {"kind": "roc", "table": "private"},
        "hardness": {"kind": "hardness", "table": "private"},
        "harm": {"kind": "harm", "table": "private"},
        "faces": {"kind": "hardest_identities", "table": "private", "blocks": [{"dataset": "toy", "n": 3}],
                  "show_faces": False},
    }  # fmt: skip
    return config


def test_attacks_and_controls_from_a_finished_grid(snakemake: Run, copied: Path) -> None:
    config = privacy_config()
    plan = planned(copied, config)
    # what the first table made is not made again
    assert plan["train_ceiling"] == 1 and not {"train_pretrain", "train_retrain", "score_pretrain"} & set(plan)
    assert plan["unlearn"] == 2 and plan["unlearn_with_data"] == 1  # ssd: reference and wrong photos; scrub: reference
    assert plan["attack_trained"] == plan["probe_trained"] == 3
    assert plan["attack_unlearned"] == plan["probe_unlearned"] == 2
    snakemake("--configfile", str(write_config(copied, config)), folder=copied)
    results, run = copied / "results", "toy/n3/seed0"
    table = pd.read_csv(results / "tables/private.csv").set_index("method")
    assert table.index.tolist() == ["pretrain", "retrain", "ceiling", "ssd", "scrub"]
    assert table["rmia_auc"].between(0, 100).all() and table["refit_forget_mean"].between(0, 100).all()
    assert table["wrong_photos_tow_mean"].notna().to_dict() == {name: name == "ssd" for name in table.index}
    text = (results / "tables/private.md").read_text()
    assert "Can an attacker tell?" in text and "missing" not in text
    for name in ("private_roc", "hardness", "harm"):
        assert (results / f"figures/{name}.png").stat().st_size > 0
    assert not (results / "figures/faces.png").exists()
    done = snakemake("--configfile", str(copied / "config.yaml"), "--", "results/figures/faces.pdf", folder=copied,
                     fails=True)  # fmt: skip
    assert "faces shows faces. Set its show_faces: true" in done.stdout
    config["figures"]["faces"]["show_faces"] = True
    snakemake("--configfile", str(write_config(copied, config)), "--", "figures", folder=copied)
    faces = pd.read_csv(results / "figures/faces.csv")
    assert len(faces) == 3 and faces["distance"].is_monotonic_decreasing
    assert planned(copied, config) == {}

    retrain, ceiling = (read_header(results / f"models/{run}/{name}.safetensors") for name in ("retrain", "ceiling"))
    assert retrain["n"] == ceiling["n"] == 3 and retrain["training"]["history"] != ceiling["training"]["history"]
    first, second = (
        read_table(results / f"requests/{run}{name}.parquet", REQUEST)[0] for name in ("", "_wrong_photos")
    )
    assert first["identity"].equals(second["identity"]) and not set(first["image"]) & set(second["image"])
    attack, meta = read_table(results / f"attacks/{run}/pretrain/ssd.parquet", ATTACK)
    scores, _ = read_table(results / f"scores/{run}/pretrain/ssd.parquet", SCORES)
    assert attack["is_member"].sum() == 3 * 5 and meta["row"] == "pretrain/ssd"
    assert set(scores["view"]) == {0, 1}
    control, _ = read_table(results / f"metrics/{run}/wrong_photos/ssd.parquet", METRICS)
    assert set(control["origin"]) == {"wrong_photos"}
    features, _ = read_table(results / f"features/{run}/pretrain/ssd.parquet", FEATURES)
    assert set(attack["image_id"]) <= set(features["image_id"])

    config["attack"]["gamma"] = 2.0  # a new attack asks no model anew, not even one that is gone
    plan = planned(copied, config)
    assert plan["attack_trained"] == 3 and not {"score_pretrain", "score_unlearned", "unlearn"} & set(plan)
    config["attack"]["views"] = 2
    assert planned(copied, config)["score_pretrain"] == 1
