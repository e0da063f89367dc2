"""The paper's grid: every published number has one cell, every hyper-parameter is the published one."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from oneshui.config import method_spec
from oneshui.report.tables import make_table
from oneshui.runs import Model, models_of
from oneshui.schemas import METRICS

ROOT = Path(__file__).parents[3]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PUBLISHED = pd.read_csv(ROOT / "resources/paper/published_results.csv")
MEASURE = {"celebahq": "map", "celeba": "map", "mufac": "accuracy"}


def metrics_of(spec: dict[str, Any]) -> pd.DataFrame:
    """Return invented metrics of every model of a table."""
    rows = []
    for block in spec["blocks"]:
        for row in map(str, models_of(spec)):
            key = (block["dataset"], block["n"], 0, *Model.of(row).columns.values())
            rows += [(*key, split, MEASURE[block["dataset"]], 0.5) for split in ("retain", "forget", "test")]
            rows.append((*key, "all", "tow", 0.5))
    return pd.DataFrame(rows, columns=list(METRICS.columns))


def cells() -> Counter[tuple[int, str, int, str, float, float]]:
    """Return (table, dataset, n, metric, mean, std) of every published number in our tables, and how often."""
    found: Counter[tuple[int, str, int, str, float, float]] = Counter()
    for number in range(1, 8):
        spec = CONFIG["tables"][f"table{number}"]
        table = make_table(metrics_of(spec), spec, PUBLISHED, seeds=[0])
        for row in table.to_dict("records"):
            for quantity in ("retain", "forget", "test", "tow", "mia"):
                mean, std = row[f"published_{quantity}"], row[f"published_{quantity}_std"]
                if not math.isnan(mean):
                    found[number, row["dataset"], row["n"], quantity, mean, -1.0 if math.isnan(std) else std] += 1
    return found


def test_every_published_number_is_in_exactly_one_cell() -> None:
    wanted: Counter[tuple[int, str, int, str, float, float]] = Counter()
    for row in PUBLISHED.dropna(subset=["mean"]).to_dict("records"):
        metric = str(row["metric"])
        quantity = {"tow": "tow", "tpr_at_fpr_0.0001": "mia"}.get(metric, metric.rsplit("_", 1)[-1])
        std = -1.0 if math.isnan(row["std"]) else row["std"]
        wanted[row["table"], row["dataset"], row["n_identities"], quantity, row["mean"], std] += 1
    assert cells() == wanted
    assert sum(wanted.values()) == len(PUBLISHED) - 1  # one cell of Table 5 ran out of memory in the paper


@pytest.mark.parametrize(
    ("number", "method", "column", "metric"),
    [
        (1, "jit", "published_tow", "tow"),
        (3, "metaunlearn", "published_forget", "accuracy_forget"),
        (2, "pgu", "published_mia", "tpr_at_fpr_0.0001"),
    ],
)
def test_a_published_number_stands_in_its_own_row_and_column(
    number: int, method: str, column: str, metric: str
) -> None:
    spec = CONFIG["tables"][f"table{number}"]
    table = make_table(metrics_of(spec), spec, PUBLISHED, seeds=[0])
    for block in spec["blocks"]:
        own = table[(table["method"] == method) & (table["n"] == block["n"])][column].item()
        chosen = (PUBLISHED["table"] == number) & (PUBLISHED["method"] == method) & (PUBLISHED["metric"] == metric)
        assert own == PUBLISHED.loc[chosen & (PUBLISHED["n_identities"] == block["n"]), "mean"].item()


SGD = {"momentum": 0.9, "weight_decay": 5e-4}
#: DESIGN section 10, cell by cell: method, dataset, n, what the paper's grid uses
CELLS: list[tuple[str, str, int, dict[str, Any]]] = [
    *(("metaunlearn", "celebahq", n, {"epochs": 3, "lr": 1e-4, "inner_lr": 0.1, "batch_size": 64, "simulated_n": s})
      for n, s in ((20, 20), (50, 50), (1, 50))),
    *(("metaunlearn", "celeba", n, {"epochs": 3, "lr": lr, "inner_lr": 0.1, "batch_size": 64, "simulated_n": s})
      for n, s, lr in ((5, 5, 1e-4), (10, 10, 1e-4), (1, 10, 1e-3))),
    ("metaunlearn", "mufac", 5, {"epochs": 10, "lr": 1e-2, "inner_lr": 1e-3, "batch_size": 64, "simulated_n": 5}),
    ("metaunlearn", "mufac", 10, {"epochs": 3, "lr": 1e-3, "inner_lr": 1e-3, "batch_size": 64, "simulated_n": 10}),
    *(("ssd", "celebahq", n, {"dampening": 0.1, "selection": 50.0, "batch_size": 128}) for n in (1, 20)),
    ("ssd", "celebahq", 50, {"dampening": 0.5, "selection": 10.0, "batch_size": 128}),
    *(("ssd", "celeba", n, {"dampening": 2.0, "selection": 50.0, "batch_size": 128}) for n in (1, 5, 10)),
    ("ssd", "mufac", 5, {"dampening": 0.1, "selection": 50.0}),
    ("ssd", "mufac", 10, {"dampening": 0.1, "selection": 1.0}),
    *(("jit", dataset, n, {"lr": 0.01, "noise_std": 30.0, "n_samples": 25, "batch_size": 128})
      for dataset, n in (("celebahq", 20), ("celeba", 5), ("mufac", 5), ("mufac", 10))),
    *(("pgu", dataset, n, {"lr": 0.1, "epochs": 5, "gamma": 0.9, "batch_size": 128, "entropy_weight": 0.2})
      for dataset, n in (("celebahq", 1), ("celebahq", 50), ("celeba", 10))),
    ("pgu", "mufac", 5, {"lr": 0.01, "epochs": 5, "gamma": 0.9}),
    ("pgu", "mufac", 10, {"lr": 0.1, "epochs": 10, "gamma": 0.75}),
    *(("scrub", "celebahq", n, {"lr": 1e-2, "forget_epochs": 5, "epochs": 10, "alpha": 0.001, "gamma": 0.99,
                                "temperature": 4.0, "crop_scale": [0.08, 1.0], **SGD}) for n in (20, 50)),
    ("scrub", "celeba", 5, {"lr": 5e-3, "forget_epochs": 5, "epochs": 10, "crop_scale": [], **SGD}),
    ("scrub", "mufac", 5, {"lr": 1e-3, "forget_epochs": 7, "epochs": 10, "crop_scale": [], **SGD}),
    ("scrub", "mufac", 10, {"lr": 1e-3, "forget_epochs": 5, "epochs": 10, "crop_scale": [0.08, 1.0], **SGD}),
    *(("bad_teacher", dataset, n, {"lr": 1e-4, "epochs": 5, "crop_scale": [], **SGD})
      for dataset, n in (("celebahq", 20), ("celeba", 10))),
    *(("bad_teacher", "mufac", n, {"lr": 1e-3, "epochs": 5, "crop_scale": [0.08, 1.0], **SGD}) for n in (5, 10)),
    *(("metaunlearn_other_size", dataset, n, {"simulated_n": other})
      for dataset, n, other in (("celebahq", 20, 50), ("celebahq", 50, 20), ("celeba", 5, 10), ("celeba", 10, 5))),
]  # fmt: skip


@pytest.mark.parametrize(("method", "dataset", "n", "wanted"), CELLS)
def test_hyper_parameters_are_the_published_ones(method: str, dataset: str, n: int, wanted: dict[str, Any]) -> None:
    spec = method_spec(CONFIG["methods"], method, dataset, n)
    assert {name: spec[name] for name in wanted} == wanted


@pytest.mark.parametrize(("dataset", "weight_decay"), [("celebahq", 1e-3), ("celeba", 1e-4), ("mufac", 1e-4)])
def test_training_is_the_published_one(dataset: str, weight_decay: float) -> None:
    training = CONFIG["training"][dataset]
    assert training["model"].startswith("vit_base_patch16_224") and training["init_weights"] == "timm"
    wanted = {
        "optimiser": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": weight_decay, "epochs": 30,
        "warmup_epochs": 2, "batch_size": 32, "input_px": 224, "mean": 0.5, "std": 0.5, "precision": "bf16",
    }  # fmt: skip
    assert {name: training[name] for name in wanted} == wanted


def test_sizes_and_seeds_are_the_published_ones() -> None:
    sizes = {(block["dataset"], block["n"]) for table in CONFIG["tables"].values() for block in table["blocks"]}
    assert sizes == {("celebahq", 20), ("celebahq", 50), ("celebahq", 1), ("celeba", 5), ("celeba", 10), ("celeba", 1),
                     ("mufac", 5), ("mufac", 10)}  # fmt: skip
    assert CONFIG["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("metaunlearn_scrub", {"outer_loss": "scrub"}),
        ("metaunlearn_first", {"terms": "first", "accuracy_weight": False}),
        ("metaunlearn_first_accuracy", {"terms": "first"}),
        ("metaunlearn_second", {"terms": "second", "accuracy_weight": False}),
        ("metaunlearn_second_accuracy", {"terms": "second"}),
        ("metaunlearn_both", {"accuracy_weight": False}),
        ("metaunlearn_logits", {"inputs": ["logits"]}),
        ("metaunlearn_logits_features", {"inputs": ["logits", "features"]}),
        ("metaunlearn_logits_features_identity", {"inputs": ["logits", "features", "identity"]}),
    ],
)
def test_an_ablation_changes_one_thing(method: str, changed: dict[str, Any]) -> None:
    for dataset, n in (("celebahq", 20), ("celebahq", 50), ("celeba", 5), ("celeba", 10)):
        assert method_spec(CONFIG["methods"], method, dataset, n) == {
            **method_spec(CONFIG["methods"], "metaunlearn", dataset, n), **changed,
        }  # fmt: skip
