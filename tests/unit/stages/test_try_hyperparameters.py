"""Choosing hyper-parameters on simulated requests: what is looked at, and how combinations are scored and ranked."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from oneshui.data.splits import fold_of
from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.methods.base import Artefact, Unlearned
from oneshui.methods.ssd import SSD
from oneshui.models import ModelSpec, build_model, load_model, save_model
from oneshui.report.tables import read_csv
from oneshui.runs import DataFiles, Model
from oneshui.runs import Run as Which
from oneshui.schemas import INDEX, SPLITS, read_table, write_table
from oneshui.seeds import stream
from oneshui.sets import ImageSet, Support
from oneshui.stages.images import open_trained
from oneshui.stages.select_hyperparameters import select_hyperparameters
from oneshui.stages.split_identities import split_identities
from oneshui.stages.try_hyperparameters import _simulate, try_hyperparameters
from oneshui.tasks import Task

CPU = torch.device("cpu")
SPEC = {"kind": "ssd", "selection": 1.0, "dampening": 0.5, "fisher": "image", "batch_size": 16, "micro_batch": 8}
N_REQUESTS = 2


@dataclass
class Run:
    """The files of a run, and the record of what was done with them."""

    folder: Path
    reserve: str = "ranked"
    read: list[int] = field(default_factory=list)
    precomputed: list[tuple[set[int], set[int]]] = field(default_factory=list)
    unlearned: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    photos: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(0)
        frame = pd.DataFrame({"image_id": range(160), "path": "x.png", "identity": np.arange(160) // 4})
        frame = frame.assign(identity_name=frame["identity"].astype(str), label=draw.integers(0, 3, 160))
        frame = frame.assign(width=16, height=16, duplicate_group=range(160))
        task = Task("classification", ("a", "b", "c"))
        write_table(self.path("index.parquet"), frame, INDEX, {"task": task.kind, "classes": list(task.classes)})
        np.save(self.path("images.npy"), draw.integers(0, 256, (160, 3, 16, 16), dtype=np.uint8))
        split = {"train": 0.6, "val": 0.2, "n_ranked": 4, "min_images_first": 4, "min_images": 2, "dedup": False}
        split["reserve_supports"] = self.reserve
        split_identities(self.path("index.parquet"), self.path("splits.parquet"), run=Which("toy", None, 0), spec=split)
        self.splits, meta = read_table(self.path("splits.parquet"), SPLITS)
        spec = ModelSpec("resnet10t", task, 16, 0.5, 0.5, {"channels": (4, 4, 4, 4), "stem_width": 4})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_model(self.path("model.safetensors"), build_model(spec), spec, {"splits": meta["content"]})

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def data(self) -> DataFiles:
        return DataFiles(*(self.path(name) for name in ("index.parquet", "images.npy", "splits.parquet")))

    def ids(self, role: str) -> set[int]:
        return set(self.splits.loc[self.splits["role"] == role, "image_id"])

    def train_folds(self) -> list[Path]:
        """Write two untrained fold models that answer otherwise than the model does."""
        paths = [self.path(f"fold{fold}.safetensors") for fold in range(2)]
        _, meta = read_table(self.path("splits.parquet"), SPLITS)
        for fold, path in enumerate(paths):
            model = load_model(self.path("model.safetensors"), CPU)
            model.model.fc.bias.data += torch.eye(3)[fold] * 9  # always another class
            header = {**Model.of_fold(fold, 2).header, "splits": meta["content"], "seed": 0}
            save_model(path, model.model, model.spec, header)
        return paths

    def try_(
        self, grid: dict[str, Any], n: int = 2, output: str = "trials.csv", folds: Sequence[Path] = (),
        spec: Mapping[str, Any] = SPEC,
    ) -> pd.DataFrame:  # fmt: skip
        try_hyperparameters(
            self.path("model.safetensors"), self.data, self.path(output), run=Which("toy", n, 0), spec=spec, grid=grid,
            n_requests=N_REQUESTS, device=CPU, fold_paths=folds,
        )  # fmt: skip
        return pd.read_csv(self.path(output))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Run:
    """A run that notes every image that is looked at, and with what the method is called."""
    run = Run(tmp_path, getattr(request, "param", "ranked"))
    stored, precompute, unlearn = ImageSet._stored, SSD.precompute, SSD.unlearn

    def reading(self: ImageSet, rows: Tensor) -> Tensor:
        run.read += self.image_ids[rows].tolist()
        return stored(self, rows)

    def precomputing(self: SSD, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int) -> Artefact:
        run.precomputed.append((set(train.image_ids.tolist()), set(val.image_ids.tolist())))
        before = list(run.read)
        artefact = precompute(self, model, train, val, seed=seed)
        run.read[:] = before  # what trials look at is noted apart from what the artefact is made of
        return artefact

    def unlearning(self: SSD, model: nn.Module, support: Support, artefact: Any, *, seed: int) -> Unlearned:
        run.unlearned.append((self.selection, tuple(support.identities.tolist())))
        run.photos.append(support.images)
        return unlearn(self, model, support, artefact, seed=seed)

    monkeypatch.setattr(ImageSet, "_stored", reading)
    monkeypatch.setattr(SSD, "precompute", precomputing)
    monkeypatch.setattr(SSD, "unlearn", unlearning)
    return run


def test_trials_look_at_nobody_who_can_ask_and_at_no_test_image(run: Run) -> None:
    run.try_({"selection": [1.0, 5.0]})
    seen, splits = set(run.read), run.splits
    ranked = set(splits.loc[splits["request_rank"].notna(), "image_id"])
    assert len(ranked) == 16
    assert seen & (ranked | run.ids("test")) == set()
    assert seen & run.ids("train") == run.ids("train") - ranked  # all others are looked at
    asked = {identity for _, identities in run.unlearned for identity in identities}
    assert asked <= set(splits.loc[splits["image_id"].isin(run.ids("train") - ranked), "identity"])


@pytest.mark.parametrize("run", ["all"], indirect=True)
def test_reserved_photos_are_asked_with_and_neither_trained_on_nor_forgotten(run: Run) -> None:
    run.try_({"selection": [1.0]})
    splits = run.splits
    reserved = splits[splits["is_support"] & splits["request_rank"].isna()].set_index("identity")["image_id"]
    pixels = torch.from_numpy(np.array(np.load(run.path("images.npy"))))
    for (_, people), photos in zip(run.unlearned, run.photos, strict=True):
        wanted = pixels[reserved.loc[list(people)].to_list()].float() / 255
        torch.testing.assert_close(photos * 0.5 + 0.5, wanted, atol=1e-4, rtol=0)
    ((train, _),) = run.precomputed
    assert len(reserved) > 10 and not train & set(splits.loc[splits["is_support"], "image_id"])


def test_precompute_sees_nobody_who_can_ask_nor_the_half_of_validation_that_scores(run: Run) -> None:
    run.try_({"selection": [1.0]})
    ((train, val),) = run.precomputed
    ranked = set(run.splits.loc[run.splits["request_rank"].notna(), "image_id"])
    assert len(ranked) == 16
    assert train == run.ids("train") - ranked
    assert 0 < len(val) < len(run.ids("val"))
    assert set(run.read) & run.ids("val") == run.ids("val") - val
    identity_of = run.splits.set_index("image_id")["identity"]
    assert set(identity_of[list(val)]) & set(identity_of[list(run.ids("val") - val)]) == set()


def test_every_combination_meets_the_same_requests(run: Run) -> None:
    frame = run.try_({"selection": [1.0, 5.0], "dampening": [0.5, 0.9]})
    assert len(run.unlearned) == 4 * N_REQUESTS
    first = [identities for _, identities in run.unlearned[:N_REQUESTS]]
    assert len(set(first)) == N_REQUESTS
    assert all(len(set(identities)) == 2 for identities in first)
    assert [identities for _, identities in run.unlearned] == first * 4
    assert [selection for selection, _ in run.unlearned] == [1.0] * 4 + [5.0] * 4
    assert frame.columns.tolist() == [
        "selection", "dampening", "seed", "request", "score", "retain", "forget", "val"
    ]  # fmt: skip
    assert frame["request"].tolist() == [0, 1] * 5
    assert frame["selection"].isna().tolist() == [True] * 2 + [False] * 8


def test_artefact_is_made_again_only_where_it_depends_on_the_parameter(run: Run) -> None:
    run.try_({"fisher": ["image", "batch"], "selection": [1.0, 5.0]}, n=1)
    assert len(run.precomputed) == 2


def test_scores_by_hand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlearn(self: SSD, model: nn.Module, *_: Any, seed: int) -> Unlearned:
        changed = copy.deepcopy(model)
        if self.selection < 1:
            changed.fc.bias.data += torch.tensor([0.0, 9.0, 0.0])  # always the second class
        return Unlearned(changed)

    monkeypatch.setattr(SSD, "unlearn", unlearn)
    frame = run.try_({"selection": [0.1, 2.0]}).set_index("request")
    nothing, harsh, idle = (frame[start : start + N_REQUESTS] for start in (0, N_REQUESTS, 2 * N_REQUESTS))
    # doing nothing is off by how much better forget images do than unseen ones
    np.testing.assert_allclose(nothing["score"], 1 - (nothing["forget"] - nothing["val"]).abs(), rtol=1e-12)
    wanted = 1 - (harsh["retain"] - nothing["retain"]).abs()
    wanted *= 1 - (harsh["forget"] - nothing["val"]).abs()
    wanted *= 1 - (harsh["val"] - nothing["val"]).abs()
    np.testing.assert_allclose(harsh["score"], wanted, rtol=1e-12)
    assert (harsh["retain"] != nothing["retain"]).all() and (harsh["val"] != nothing["val"]).all()
    columns = ["score", "retain", "forget", "val"]
    pd.testing.assert_frame_equal(idle[columns], nothing[columns])


def test_fold_models_say_what_should_be_left_of_people(run: Run) -> None:
    frame = run.try_({}, n=1, folds=run.train_folds(), spec={"kind": "fold_model", "folds": 2})
    frame = frame.set_index("request")
    nothing, served = frame[:N_REQUESTS], frame[N_REQUESTS:]
    assert (served["forget"] != nothing["val"]).any()
    # the fold model of one person is itself what their answers are compared with
    wanted = (1 - (served["retain"] - nothing["retain"]).abs()) * (1 - (served["val"] - nothing["val"]).abs())
    np.testing.assert_allclose(served["score"], wanted, rtol=1e-12)
    np.testing.assert_allclose(nothing["score"], 1 - (nothing["forget"] - served["forget"]).abs(), rtol=1e-12)


@dataclass(frozen=True)
class Idle:
    """A method that does nothing, and has a parameter that may be null."""

    rank: int | None

    def precompute(self, *_: Any, seed: int) -> None:
        """Keep nothing."""

    def unlearn(self, model: nn.Module, *_: Any, seed: int) -> Unlearned:
        return Unlearned(model)


def test_a_parameter_that_is_null_is_not_taken_for_the_original_model(run: Run) -> None:
    run.try_({"rank": [None, 1]}, spec={"kind": f"{__name__}:Idle", "needs": "nothing", "rank": 1})
    select_hyperparameters([run.path("trials.csv")], run.path("ranking.csv"))
    ranking = read_csv(run.path("ranking.csv"))
    assert ranking["n_requests"].tolist() == [N_REQUESTS] * 3
    assert set(ranking["rank"].fillna("original model")) == {"original model", "null", "1"}


def test_people_of_several_folds_are_each_compared_with_their_own(run: Run) -> None:
    frame = run.try_({}, n=8, folds=run.train_folds(), spec={"kind": "fold_model", "folds": 2})
    _, images = open_trained(run.path("model.safetensors"), run.data, CPU)
    labels = run.splits.merge(read_table(run.path("index.parquet"), INDEX)[0][["image_id", "label"]], on="image_id")
    for number, row in frame[:N_REQUESTS].iterrows():
        trial = _simulate(images, 8, stream("select", "toy", 8, 0, int(number)))
        mine = labels[labels["image_id"].isin(trial.forget.image_ids.tolist())]
        first = mine["identity"].isin(fold_of(run.splits, 0, 2, dataset="toy", seed=0))
        assert 0 < first.sum() < len(mine)
        strangers = (mine["label"] == np.where(first, 0, 1)).mean()
        np.testing.assert_allclose(row["score"], 1 - abs(row["forget"] - strangers), rtol=1e-12)


def test_destroyed_model_scores_nothing_and_others_are_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlearn(self: SSD, model: nn.Module, *_: Any, seed: int) -> Unlearned:
        changed = copy.deepcopy(model)
        if self.selection < 1:
            changed.fc.bias.data += float("nan")
        return Unlearned(changed)

    monkeypatch.setattr(SSD, "unlearn", unlearn)
    frame = run.try_({"selection": [0.1, 2.0]})
    nothing, destroyed, idle = (frame[start : start + N_REQUESTS] for start in (0, N_REQUESTS, 2 * N_REQUESTS))
    assert (destroyed[["retain", "forget", "val"]] == 0).all().all()
    assert idle["score"].tolist() == nothing["score"].tolist()


def test_trials_depend_on_their_seed_only(run: Run) -> None:
    torch.manual_seed(1)
    first = run.try_({"selection": [0.1]})
    torch.manual_seed(2)
    pd.testing.assert_frame_equal(run.try_({"selection": [0.1]}, output="again.csv"), first)


def test_unknown_parameter_is_an_error(run: Run) -> None:
    with pytest.raises(ConfigError, match="selection grid: ssd has no parameter alpha; it has: kind, selection"):
        run.try_({"alpha": [1.0]})


def test_too_few_free_identities_is_an_error(run: Run) -> None:
    free = run.splits[(run.splits["role"] == "train") & run.splits["request_rank"].isna()]["identity"].nunique()
    with pytest.raises(DataError, match=f"needs {free + 1} train identities .* there are {free}"):
        run.try_({"selection": [1.0]}, n=free + 1)


def test_model_of_other_splits_is_an_error(run: Run) -> None:
    splits, meta = read_table(run.path("splits.parquet"), SPLITS)
    write_table(run.path("splits.parquet"), splits, SPLITS, {**meta, "content": "0123456789abcdef"})
    with pytest.raises(CheckpointError, match="was trained on other splits"):
        run.try_({"selection": [1.0]})


# ---- ranking


def write_trials(path: Path, seed: int, rows: list[tuple[Any, ...]]) -> Path:
    frame = pd.DataFrame(rows, columns=["lr", "eta", "request", "score", "retain", "forget", "val"])
    frame.assign(seed=seed).to_csv(path, index=False)
    return path


def test_ranking_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = write_trials(
        tmp_path / "0.csv", 0,
        [
            (None, None, 0, 0.4, 1.0, 1.0, 0.5),
            (None, None, 1, 0.6, 1.0, 0.8, 0.5),
            (0.1, 1.0, 0, 0.9, 0.8, 0.4, 0.4),
            (0.1, 1.0, 1, 0.7, 0.6, 0.6, 0.4),
            (0.2, 1.0, 0, 0.1, 0.1, 0.1, 0.1),
            (0.2, 1.0, 1, 0.3, 0.1, 0.1, 0.1),
        ],
    )  # fmt: skip
    second = write_trials(
        tmp_path / "1.csv", 1, [(None, None, 0, 0.8, 1.0, 0.6, 0.5), (0.1, 1.0, 0, 0.5, 0.4, 0.2, 0.1)]
    )
    with caplog.at_level("INFO", "oneshui"):
        select_hyperparameters([first, second], tmp_path / "ranking.csv")
    ranking = pd.read_csv(tmp_path / "ranking.csv")
    wanted = pd.DataFrame(
        {
            "lr": [0.1, None, 0.2], "eta": [1.0, None, 1.0], "score": [0.7, 0.6, 0.2],
            "score_std": [0.2, 0.2, 0.02**0.5], "n_requests": [3, 3, 2], "retain": [0.6, 1.0, 0.1],
            "forget": [0.4, 0.8, 0.1], "val": [0.3, 0.5, 0.1],
        }
    )  # fmt: skip
    pd.testing.assert_frame_equal(ranking, wanted)
    assert "best of 3 combinations: {'lr': 0.1, 'eta': 1.0}, score 0.7000" in caplog.text


def test_doing_nothing_may_be_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(None, None, 0, 0.9, 1.0, 1.0, 0.5), (0.1, 1.0, 0, 0.5, 0.8, 0.4, 0.4)]
    with caplog.at_level("INFO", "oneshui"):
        select_hyperparameters([write_trials(tmp_path / "0.csv", 0, rows)], tmp_path / "ranking.csv")
    assert pd.read_csv(tmp_path / "ranking.csv")["score"].tolist() == [0.9, 0.5]
    assert "the original model, not unlearned, score 0.9000" in caplog.text
