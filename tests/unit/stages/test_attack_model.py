"""Attacks, from score files to a file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oneshui.errors import DataError
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roles import metric_rows
from oneshui.runs import Model
from oneshui.runs import Run as Which
from oneshui.schemas import ATTACK, FEATURES, INDEX, METRICS, SCORES, SPLITS, read_table, write_table
from oneshui.stages.attack_model import AttackFiles, attack_model
from oneshui.stages.probe_model import probe_model

SPEC: dict[str, Any] = {
    "views": 1, "crop_scale": [0.5, 1.0], "max_reference": 40, "gamma": 1.0, "offline_a": 0.3,
    "combine": "mean_log_ratio", "references": "own",
}  # fmt: skip
QUERIES = {"views": 1, "crop_scale": [0.5, 1.0], "max_reference": 40}


def make_splits(seed: int) -> pd.DataFrame:
    """30 identities of 4 images, roles by chance: 18 train (3 can ask), 6 val, 6 test."""
    people = np.random.default_rng(seed).permutation(30)
    role = {person: "train" if i < 18 else "val" if i < 24 else "test" for i, person in enumerate(people)}
    frame = pd.DataFrame({"image_id": range(120), "identity": np.arange(120) // 4})
    frame["role"] = frame["identity"].map(role)
    frame["request_rank"] = frame["identity"].map({person: i for i, person in enumerate(people[:3])}).astype("Int16")
    frame["is_support"] = frame["request_rank"].notna() & (frame["image_id"] % 4 == 0)
    return frame


class Run:
    """Score files of two models for two seeds, which tests damage in different ways."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 2
        self.losses = np.random.default_rng(9).uniform(0.1, 2.0, (8, 2, 120))  # by file, view and image
        self.write_all()

    def write_all(self, n: int = 2) -> None:
        self.n = n
        for seed in (0, 1):
            write_table(self.folder / f"splits{seed}.parquet", make_splits(seed), SPLITS, {"content": f"split{seed}"})
            for i, name in enumerate(("target", "reference")):
                self.write(f"{name}{seed}", seed, self.losses[2 * seed + i])

    def write(self, name: str, seed: int, losses: Any, *, views: Sequence[int] = (0, 1), drop: Sequence[int] = (),
              queries: Any = QUERIES, content: str | None = None, **model: Any) -> None:  # fmt: skip
        splits = make_splits(seed)
        rows = query_rows(splits, dataset="toy", seed=seed, max_reference=40)
        asked = np.concatenate([rows["asked"], rows["test"], rows["reference"]])
        frames = []
        for view in views:
            ids = np.setdiff1d(np.arange(120) if view == 0 else asked, drop)
            frame = pd.DataFrame({"image_id": ids, "view": view, "loss": losses[view][ids]})
            frames.append(frame.assign(p_true=np.exp(-frame["loss"]), logits=None).sample(frac=1, random_state=view))
        origin = "retrain" if name.startswith("reference") else "pretrain"
        known = {"splits": content or f"split{seed}", "seed": seed, "n": self.n, "origin": origin, "method": "mine"}
        meta = {"model": known | model, "queries": queries}
        write_table(self.folder / f"{name}.parquet", pd.concat(frames, ignore_index=True), SCORES, meta)

    def files(self, seed: int = 0, others: Sequence[int] = ()) -> AttackFiles:
        seeds = (seed, *others)
        return AttackFiles(
            self.folder / f"target{seed}.parquet", [self.folder / f"reference{s}.parquet" for s in seeds],
            [self.folder / f"splits{s}.parquet" for s in seeds], Which("toy", 2, seed),
        )  # fmt: skip

    def attack(self, n: int = 2, files: AttackFiles | None = None, paired: AttackFiles | None = None,
               **change: Any) -> tuple[pd.DataFrame, dict[str, Any]]:  # fmt: skip
        output = self.folder / "attack.parquet"
        files, paired = (each and replace(each, run=replace(each.run, n=n)) for each in (files or self.files(), paired))
        attack_model(
            files,
            output,
            model=Model("pretrain", "mine"),
            reference=Model("retrain", "mine"),
            spec={**SPEC, **change},
            paired=paired,
        )
        return read_table(output, ATTACK)

    def direct(self, n: int, a: float, p_reference: np.ndarray | None = None) -> pd.Series:
        """Equations 8 and 9 pair by pair, ratios averaged over views as logarithms."""
        splits = make_splits(0)
        population = query_rows(splits, dataset="toy", seed=0, max_reference=40)["reference"]
        p_target = np.exp(-self.losses[0].astype(np.float32).astype(np.float64))
        if p_reference is None:
            p_reference = np.exp(-self.losses[1].astype(np.float32).astype(np.float64))
        ratio = np.log(p_target / ((1 + a) / 2 * p_reference + (1 - a) / 2)).mean(0)
        tested = np.concatenate([metric_rows(splits, n)["forget"], splits.loc[splits["role"] == "test", "image_id"]])
        return pd.Series({image: np.mean([ratio[image] - ratio[z] >= 0 for z in population]) for image in tested})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize("n", [1, 3])
def test_attack_is_the_equations_on_forget_and_test_images(run: Run, n: int) -> None:
    run.write_all(n)
    frame, meta = run.attack(n)
    wanted = run.direct(n, 0.3)
    assert frame["image_id"].tolist() == wanted.index.tolist()
    np.testing.assert_allclose(frame["rmia"], wanted, atol=1e-12)
    np.testing.assert_allclose(-frame["loss_score"], run.losses[0].mean(0)[frame["image_id"]], rtol=1e-6)
    splits = make_splits(0).set_index("image_id")
    assert frame["is_member"].tolist() == (splits.loc[frame["image_id"], "role"] == "train").tolist()
    assert frame["is_member"].sum() == 3 * n
    assert frame["identity"].tolist() == splits.loc[frame["image_id"], "identity"].tolist()
    assert (meta["row"], meta["seed"], meta["n"], meta["offline_a"]) == ("pretrain/mine", 0, n, 0.3)
    assert 0 <= meta["published"]["tpr"] <= 1


def test_references_of_other_seeds_count_where_they_have_not_seen_the_image(run: Run) -> None:
    frame, _ = run.attack(files=run.files(0, [1]), references="seeds")
    own, other = (np.exp(-self.astype(np.float32).astype(np.float64)) for self in (run.losses[1], run.losses[3]))
    splits = make_splits(1)
    unseen = (splits["role"] == "test").to_numpy()
    assert 0 < unseen[frame["image_id"]].sum() < len(frame)
    np.testing.assert_allclose(frame["rmia"], run.direct(2, 0.3, np.where(unseen, (own + other) / 2, own)), atol=1e-12)


def test_weight_of_the_reference_is_chosen_on_the_other_seed(run: Run) -> None:
    splits = make_splits(1)
    members = metric_rows(splits, 2)["forget"]
    target, reference = np.full((2, 120), 1.0), np.full((2, 120), 1.0)
    target[:, members], reference[:, members] = 0.5, 0.1  # told by the loss (a = 0), hidden by the ratio (a = 1)
    run.write("target1", 1, target)
    run.write("reference1", 1, reference)
    frame, meta = run.attack(paired=run.files(1), offline_a="paired_seed")
    assert meta["offline_a"] == 0.0
    np.testing.assert_allclose(frame["rmia"], run.direct(2, 0.0), atol=1e-12)
    target[:, members], reference[:, members] = 1.5, 3.0  # told by the ratio, hidden by the loss
    run.write("target1", 1, target)
    run.write("reference1", 1, reference)
    _, meta = run.attack(paired=run.files(1), offline_a="paired_seed")
    assert meta["offline_a"] >= 0.3


def test_a_reference_of_another_seed_must_answer_the_same_questions(run: Run) -> None:
    run.write("reference1", 1, run.losses[3], views=[0])
    with pytest.raises(DataError, match=r"reference1.parquet has the views \[0\]"):
        run.attack(files=run.files(0, [1]), references="seeds")


@pytest.mark.parametrize("name", ["target0", "reference0"])
def test_a_model_that_answers_nan_is_not_attacked(run: Run, name: str) -> None:
    broken = run.losses[0].copy()
    broken[0, metric_rows(make_splits(0), 2)["forget"][0]] = np.nan
    run.write(name, 0, broken)
    frame, meta = run.attack()
    which = "the attacked model" if name == "target0" else "its reference"
    assert len(frame) == 0 and meta["blown_up"] == f"the losses of {which} are not finite"


def test_nothing_can_be_chosen_on_a_seed_that_blew_up(run: Run) -> None:
    run.write("reference1", 1, np.full((2, 120), np.inf))
    frame, meta = run.attack(paired=run.files(1), offline_a="paired_seed")
    assert len(frame) == 0 and "cannot be chosen on seed 1: the losses of its reference" in meta["blown_up"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("reference0", {"n": 1}),  # has seen the members of a larger request
        ("reference0", {"origin": "pretrain"}),
        ("reference0", {"method": "other"}),
        ("target0", {"n": None}),
        ("target0", {"origin": "wrong_photos"}),
    ],
)
def test_scores_of_another_model_are_refused(run: Run, name: str, model: dict[str, Any]) -> None:
    run.write(name, 0, run.losses[0], **model)
    with pytest.raises(DataError, match=rf"{name}.parquet is of another model than"):
        run.attack()


def test_files_that_do_not_belong_together_are_one_error(run: Run) -> None:
    losses, asked = run.losses[0], metric_rows(make_splits(0), 2)["forget"][0]
    run.write("target0", 0, losses, drop=[asked])
    with pytest.raises(DataError, match=rf"target0.parquet and .*reference0.* different images in view 0 .*{asked}"):
        run.attack()
    run.write("reference0", 0, losses, drop=[asked])
    with pytest.raises(DataError, match=r"target0.parquet, view 0: 1 images that the attack asks about .* are missing"):
        run.attack()
    run.write("target0", 0, losses, views=[0])
    with pytest.raises(DataError, match=r"has the views \[0\], the attack needs \[0, 1\]"):
        run.attack()
    run.write("target0", 0, losses, queries={**QUERIES, "crop_scale": [0.1, 1.0]})
    run.write("reference0", 0, losses)
    with pytest.raises(DataError, match=r"target0.parquet answers .*0.1, 1.0.* the attack asks .*0.5, 1.0"):
        run.attack()
    run.write("target0", 0, losses, content="older")
    with pytest.raises(DataError, match="was trained on another split"):
        run.attack()
    run.write("target0", 0, losses)
    run.attack()


def write_features(folder: Path, features: np.ndarray) -> Path:
    frame = pd.DataFrame({"image_id": np.arange(120), "features": list(features.astype(np.float16))})
    write_table(folder / "features.parquet", frame, FEATURES, {"model": {"splits": "split0"}})
    return folder / "features.parquet"


def refit(run: Run, features: np.ndarray, task: str = "classification") -> dict[tuple[str, str], float]:
    draw = np.random.default_rng(1)
    label: Any = draw.integers(0, 3, 120) if task == "classification" else list(draw.integers(0, 2, (120, 3)))
    frame = pd.DataFrame({"image_id": range(120), "path": "x", "identity": 0, "identity_name": "a", "label": label})
    frame = frame.assign(width=1, height=1, duplicate_group=range(120))
    write_table(run.folder / "index.parquet", frame, INDEX, {"task": task, "classes": ["a", "b", "c"]})
    output = run.folder / "refit.parquet"
    spec = {"max_reference": 40, "refit_c": 1.0}
    probe_model(
        write_features(run.folder, features), run.folder / "splits0.parquet", run.folder / "index.parquet", output,
        run=Which("toy", 2, 0), model=Model("pretrain", "mine"), spec=spec,
    )  # fmt: skip
    found, _ = read_table(output, METRICS)
    assert found[["origin", "method"]].drop_duplicates().values.tolist() == [["pretrain", "mine"]]
    return dict(zip(zip(found["split"], found["metric"], strict=True), found["value"], strict=True))


@pytest.mark.parametrize(("task", "metric"), [("classification", "refit_accuracy"), ("multilabel", "refit_map")])
def test_refit_finds_what_features_know(run: Run, task: str, metric: str) -> None:
    draw = np.random.default_rng(1)
    label = draw.integers(0, 3, 120) if task == "classification" else draw.integers(0, 2, (120, 3))
    told = np.eye(3)[label] if task == "classification" else label
    splits = make_splits(0)
    forget, test = metric_rows(splits, 2)["forget"], metric_rows(splits, 2)["test"]
    noise = np.random.default_rng(2).standard_normal((120, 3))
    values = refit(run, 5 * told + 0.1 * noise, task)
    assert values["forget", metric] == values["test", metric] == 1.0
    assert values["all", "refit_n_images"] > 0
    forgotten = 5 * told + 0.1 * noise
    forgotten[forget] = noise[forget]
    values = refit(run, forgotten, task)
    assert values["forget", metric] < 0.9 and values["test", metric] == 1.0
    assert len(test) and refit(run, np.full((120, 3), np.inf), task).keys() == {("all", "refit_n_images")}
