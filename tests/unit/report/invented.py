"""Invented results of a whole run, as the files that a report is made from; nothing in them was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneshui.metrics.roc import clopper_pearson, roc_points
from oneshui.report import attacks, tables
from oneshui.runs import Model, models_of
from oneshui.schemas import IDENTITIES, METRICS, SPLITS, write_table

PUBLISHED = Path(__file__).parents[3] / "resources" / "paper" / "published_results.csv"
#: how far a method goes from the pretrained (0) to the retrained (1) model, and what it costs on retain images
STRENGTH = {
    "pretrain": (0.0, 0.0), "retrain": (1.0, 0.0), "ceiling": (1.0, 0.005), "bad_teacher": (1.1, 0.25),
    "scrub": (0.3, -0.02), "ssd": (0.02, 0.0), "pgu": (0.25, 0.03), "jit": (0.1, 0.01), "metaunlearn": (0.6, 0.015),
}  # fmt: skip


def config_of(
    *, methods: Sequence[str] = ("scrub", "ssd", "metaunlearn"), blocks: Sequence[tuple[str, int]] = (("mufac", 5),),
    seeds: Sequence[int] = (0, 1, 2), title: str = "Unlearning on toys",
) -> dict[str, Any]:  # fmt: skip
    """Return a configuration with one privacy table ``main`` and its ROC figure."""
    table = {
        "title": title, "blocks": [{"dataset": dataset, "n": n} for dataset, n in blocks], "methods": list(methods),
        "decimals": 1, "privacy": True, "published": {"table": 3},
    }  # fmt: skip
    return {
        "data_root": "/home/somebody/faces",
        "seeds": list(seeds),
        "methods": {name: {"kind": name, "params": {"lr": 0.1}} for name in methods},
        "tables": {"main": table},
        "figures": {"main_roc": {"kind": "roc", "table": "main"}},
    }


def write_inputs(
    folder: Path, config: Mapping[str, Any], *, people: int = 60, test_images: int = 300
) -> dict[str, Any]:
    """Write all files of a run below ``folder`` and return the arguments of ``make_report`` but for ``output``."""
    spec, seeds = config["tables"]["main"], config["seeds"]
    found = list(_attacks(spec, seeds, test_images))
    summary = attacks.summarise(found, seeds=seeds)
    published = pd.read_csv(PUBLISHED)
    data_methods = {"scrub", "bad_teacher"}
    table = tables.make_table(_metrics(spec, seeds), spec, published, summary, seeds=seeds, data_methods=data_methods)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.csv").write_text(tables.to_csv(table))
    summary.to_csv(folder / "attacks.csv", index=False)
    _curves(found, seeds).to_csv(folder / "roc.csv", index=False)
    return {
        "tables": {"main": folder / "main.csv"},
        "attacks": {"main": folder / "attacks.csv"},
        "roc": {"main_roc": folder / "roc.csv"},
        "identities": _identities(folder, spec, seeds, people),
        "splits": _splits(folder, spec, seeds),
        "config": config,
        "versions": {"numpy": "2.0"},
    }


def _draw(*names: Any) -> np.random.Generator:
    return np.random.default_rng([sum(map(ord, str(name))) for name in names])


def _metrics(spec: Mapping[str, Any], seeds: Sequence[int]) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    models = [*map(str, models_of(spec)), *(f"wrong_photos/{name}" for name in spec["methods"])]
    for block in spec["blocks"]:
        for seed in seeds:
            goal: dict[str, float] = {}
            for model in ["retrain", *(name for name in models if name != "retrain")]:
                origin, method = Model.of(model).columns.values()
                draw = _draw(block["dataset"], block["n"], seed, method)
                strength, harm = STRENGTH[method]
                strength *= 0.3 if origin == "wrong_photos" else 1.0
                accuracy = {"retain": 0.95 - harm, "forget": 0.93 - 0.4 * strength - harm, "test": 0.75 - 0.6 * harm}
                accuracy = {name: value + draw.normal(0, 0.01) for name, value in accuracy.items()}
                key = (block["dataset"], block["n"], seed, origin, method)
                rows += [(*key, name, "accuracy", value) for name, value in accuracy.items()]
                refit = 0.9 - 0.25 * (strength if method == "retrain" else 0.5 * strength)
                rows += [(*key, "forget", "refit_accuracy", refit + draw.normal(0, 0.02))]
                rows += [(*key, "test", "refit_accuracy", 0.7 + draw.normal(0, 0.01))]
                if method == "retrain":
                    goal = accuracy
                    continue
                tow = np.prod([1 - abs(accuracy[name] - goal[name]) for name in goal])
                rows += [(*key, "all", "tow", tow)]
                if method not in ("pretrain", "ceiling"):
                    rows += [(*key, "all", "seconds", 5 * draw.random() + 0.2), (*key, "all", "peak_mb", 300.0)]
                if method in ("ssd", "pgu", "metaunlearn"):
                    rows += [(*key, "all", "precompute_seconds", 40 * (1 + draw.random()))]
                    rows += [(*key, "all", "precompute_peak_mb", 500.0)]
                if method == "metaunlearn":
                    rows += [(*key, "all", "saturated", float(seed == 1)), (*key, "all", "blown_up", 0.0)]
    return pd.DataFrame(rows, columns=list(METRICS.columns))


def _attacks(spec: Mapping[str, Any], seeds: Sequence[int], test_images: int) -> Any:
    for block in spec["blocks"]:
        for row in map(str, models_of(spec)):
            strength = min(STRENGTH[Model.of(row).method_name][0], 1.0)
            for seed in seeds:
                draw = _draw(block["dataset"], row, seed)
                count = 6 * block["n"] + test_images
                frame = pd.DataFrame({"image_id": range(count), "identity": np.arange(count) // 6})
                frame["is_member"] = frame["image_id"] < 6 * block["n"]
                leak = 1.5 * (1 - strength) * frame["is_member"]
                frame["rmia"] = 1 / (1 + np.exp(-(draw.standard_normal(count) + leak)))
                frame["loss_score"] = draw.standard_normal(count) + leak
                meta = {"published": {"tpr": 0.1 * draw.random()}, "blown_up": False}
                yield frame, {"dataset": block["dataset"], "n": block["n"], "seed": seed, "row": row, **meta}


def _curves(found: Sequence[tuple[pd.DataFrame, Mapping[str, Any]]], seeds: Sequence[int]) -> pd.DataFrame:
    parts = []
    for key in dict.fromkeys((meta["dataset"], meta["n"], meta["row"]) for _, meta in found):
        own = pd.concat([frame for frame, meta in found if (meta["dataset"], meta["n"], meta["row"]) == key])
        roc = roc_points(own["rmia"].to_numpy(), own["is_member"].to_numpy())
        last = np.append(np.diff(roc.false_alarms) > 0, True)
        bounds = np.array([clopper_pearson(int(hits), roc.members) for hits in roc.hits[last]])
        part = pd.DataFrame({"dataset": key[0], "n": key[1], "row": key[2], "fpr": roc.fpr[last], "tpr": roc.tpr[last]})
        parts.append(part.assign(low=bounds[:, 0], high=bounds[:, 1]))
    return pd.concat(parts, ignore_index=True)


def _identities(folder: Path, spec: Mapping[str, Any], seeds: Sequence[int], people: int) -> list[Path]:
    paths = []
    for block in spec["blocks"]:
        for method in spec["methods"]:
            strength, harm = STRENGTH[method]
            for seed in seeds:
                n = block["n"]
                same = _draw(block["dataset"], n, seed)  # what does not depend on the method
                frame = pd.DataFrame({"identity": same.choice(10 * people, n + people, replace=False)})
                frame["set"] = np.where(np.arange(len(frame)) < n, "forget", "retain")
                frame["n_images"] = same.integers(2, 14, len(frame))
                frame["measure"] = "accuracy"
                far = same.gamma(6, 1, len(frame))
                forget = frame["set"] == "forget"
                frame["pretrain"] = np.where(forget, 0.95, 0.97)
                frame["retrain"] = np.where(forget, 0.5, 0.96)
                gone = np.where(forget, 0.45 * strength * (1 - far / 20), 4 * harm / far)
                noise = _draw(block["dataset"], n, seed, method).normal(0, 0.08, len(frame))
                frame["value"] = np.clip(frame["pretrain"] - gone + noise, 0, 1)
                frame["distance"] = far
                path = folder / "identities" / str(block["dataset"]) / f"n{n}" / f"seed{seed}" / f"{method}.parquet"
                meta = {"dataset": block["dataset"], "n": n, "seed": seed, "row": f"pretrain/{method}"}
                meta |= {"task": "classification", "blown_up": False}
                write_table(path, frame[list(IDENTITIES.columns)], IDENTITIES, meta)
                paths.append(path)
    return paths


def _splits(folder: Path, spec: Mapping[str, Any], seeds: Sequence[int]) -> list[Path]:
    paths = []
    for dataset in dict.fromkeys(block["dataset"] for block in spec["blocks"]):
        for seed in seeds:
            frame = pd.DataFrame({"image_id": np.arange(200), "identity": np.arange(200) // 10})
            frame["role"] = np.select([frame["identity"] < 12, frame["identity"] < 16], ["train", "val"], "test")
            frame["request_rank"] = frame["identity"].where(frame["identity"] < 5).astype("Int16")
            frame["is_support"] = (frame["identity"] < 5) & (frame["image_id"] % 10 == 0)
            path = folder / "splits" / str(dataset) / f"seed{seed}.parquet"
            meta = {"dataset": dataset, "seed": seed, "overlap": {"groups": 3 + seed, "images": 7 + seed}}
            write_table(path, frame, SPLITS, meta)
            paths.append(path)
    return paths
