"""measure_model, from files to a file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oneshui.errors import ConfigError, DataError
from oneshui.runs import Model
from oneshui.runs import Run as Which
from oneshui.schemas import INDEX, METRICS, SCORES, SPLITS, read_table, write_table
from oneshui.stages.measure_model import measure_model

# images 0-3 retain, 4-5 forget, 6 support, 7-8 test, 9 val
ROLES = ["train"] * 7 + ["test"] * 2 + ["val"]
LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
#: id of the split that the models were trained on
CONTENT = "0123456789abcdef"
ATTRIBUTES = np.array([[label, 0 if image == 9 else 1] for image, label in enumerate(LABELS)])


def right(wrong: tuple[int, ...] = ()) -> Any:
    """Return logits of a model that is right but for the images in ``wrong``."""
    predicted = LABELS.copy()
    predicted[list(wrong)] ^= 1
    return np.eye(2)[predicted]


class Run:
    """The files of one run, which tests damage in different ways."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write_splits()
        self.write_index()
        self.write_scores("retrain", right((4,)))
        self.write_scores("model", right((0, 7)))

    def write_splits(self, drop: tuple[int, ...] = ()) -> None:
        frame = pd.DataFrame({"image_id": range(10), "identity": [0, 0, 0, 0, 1, 1, 1, 2, 2, 3], "role": ROLES})
        frame["request_rank"] = pd.array([None] * 4 + [0] * 3 + [None] * 3, dtype="Int16")
        frame["is_support"] = frame["image_id"] == 6
        write_table(self.folder / "splits.parquet", frame.drop(index=list(drop)), SPLITS, {"content": CONTENT})

    def write_index(self, task: str = "classification", drop: tuple[int, ...] = (), **meta: Any) -> None:
        frame = pd.DataFrame({"image_id": range(10), "path": "x.png", "identity": 0, "identity_name": "a"})
        frame["label"] = LABELS if task == "classification" else list(ATTRIBUTES)
        frame = frame.assign(width=4, height=4, duplicate_group=0).drop(index=list(drop))
        write_table(self.folder / "index.parquet", frame, INDEX, {"task": task, "classes": ["young", "old"], **meta})

    def write_scores(self, name: str, logits: Any, loss: Any = None, ids: Any = None, **model: Any) -> None:
        ids = np.arange(10) if ids is None else np.asarray(ids)
        loss = np.arange(10.0) if loss is None else loss
        frame = pd.DataFrame({"image_id": ids, "view": 0, "loss": np.asarray(loss)[ids]})
        frame["p_true"] = np.exp(-frame["loss"])
        frame["logits"] = list(np.asarray(logits, dtype=np.float16)[ids])
        other_view = frame.assign(view=1, loss=100.0, logits=None)  # must be ignored
        meta = {"model": {"splits": CONTENT, **model}}
        write_table(self.folder / f"{name}.parquet", pd.concat([frame, other_view]), SCORES, meta)

    def compute(self, row: str = "pretrain/ssd", n: int = 1) -> tuple[dict[tuple[str, str], float], pd.DataFrame, Any]:
        names = ("model", "retrain", "splits", "index", "metrics")
        paths = [self.folder / f"{name}.parquet" for name in names]
        measure_model(*paths, run=Which("toy", n, 3), model=Model.of(row))
        frame, meta = read_table(paths[-1], METRICS)
        keys = zip(frame["split"], frame["metric"], strict=True)
        return dict(zip(keys, frame["value"], strict=True)), frame, meta


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_accuracy_loss_and_counts_by_hand(run: Run) -> None:
    values, frame, meta = run.compute()
    assert {split: values[split, "accuracy"] for split in ("retain", "forget", "test", "val")} == {
        "retain": 0.75,
        "forget": 1.0,
        "test": 0.5,
        "val": 1.0,
    }
    # the support image 6 is in no split
    assert [values[s, "loss"] for s in ("retain", "forget", "test", "val")] == [1.5, 4.5, 7.5, 9.0]
    assert [values[s, "n_images"] for s in ("retain", "forget", "test", "val")] == [4, 2, 2, 1]
    # retrained: retain 1, forget 1/2, test 1
    assert values["all", "tow"] == pytest.approx(0.75 * 0.5 * 0.5)
    # one of two answers is the other way round: logits 0 and 1, so (p - q) log(p / q) summed is 2 p - 1
    assert values["forget", "kl_to_retrained"] == pytest.approx((2 / (1 + np.exp(-1)) - 1) / 2)
    assert len(values) == len(frame) == 14
    run_columns = frame[["dataset", "n", "seed", "origin", "method"]].drop_duplicates()
    assert run_columns.values.tolist() == [["toy", 1, 3, "pretrain", "ssd"]]
    assert meta["task"] == "classification"


def test_map_of_several_attributes_by_hand(run: Run) -> None:
    run.write_index("multilabel")
    # attribute 0: of the retain images 0-3, 1 and 3 are positive; model ranks 3, 2, 1, 0
    logits = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    run.write_scores("model", logits)
    run.write_scores("retrain", logits)
    values, _, meta = run.compute()
    assert values["retain", "map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert values["retain", "attributes_left_out"] == 0
    assert values["val", "attributes_left_out"] == 1
    assert values["all", "tow"] == 1.0
    assert ("retain", "accuracy") not in values
    assert meta["task"] == "multilabel"


def test_the_order_of_rows_does_not_matter(run: Run) -> None:
    expected, _, _ = run.compute()
    run.write_scores("model", right((0, 7)), ids=np.random.default_rng(0).permutation(10))
    assert run.compute()[0] == expected


def test_the_retrained_model_has_no_tow(run: Run) -> None:
    values, _, _ = run.compute("retrain")
    assert ("all", "tow") not in values
    assert ("forget", "accuracy") in values


def test_health_and_costs_of_the_model_become_rows(run: Run) -> None:
    health = {"saturated": True, "blown_up": False, "relative_step": 0.25, "note": "text", "undefined": float("nan")}
    costs = {"seconds": 12.5, "peak_mb": 700.0, "precompute_seconds": 80.0, "precompute_peak_mb": 900.0}
    costs |= {"artefact_mb": 12.5, "artefact_floats_per_person": 8.5}
    run.write_scores("model", right(), health=health, **costs)
    values, _, meta = run.compute()
    extra = {metric: value for (split, metric), value in values.items() if split == "all"}
    assert extra.pop("tow") < 1
    assert extra == {"saturated": 1.0, "blown_up": 0.0, "relative_step": 0.25, **costs}
    assert meta["model"]["seconds"] == 12.5


def test_scores_may_lack_images_that_are_not_measured(run: Run) -> None:
    run.write_scores("model", right(), ids=[0, 1, 2, 3, 4, 5, 7, 8, 9])
    assert run.compute()[0]["forget", "n_images"] == 2


@pytest.mark.parametrize("name", ["model", "retrain"])
def test_a_missing_image_is_named(run: Run, name: str) -> None:
    run.write_scores(name, right(), ids=[0, 1, 2, 4, 5, 6, 7, 8, 9])
    with pytest.raises(DataError, match=rf"{name}.parquet: 1 images of .*splits.parquet are missing \(image_id 3\)"):
        run.compute()


def test_scores_of_images_outside_the_splits_are_not_measured(run: Run) -> None:
    run.write_splits(drop=(0, 7))  # as deduplication does
    values, _, _ = run.compute()
    assert {split: values[split, "n_images"] for split in ("retain", "forget", "test", "val")} == {
        "retain": 3,
        "forget": 2,
        "test": 1,
        "val": 1,
    }
    assert values["retain", "accuracy"] == values["test", "accuracy"] == 1.0  # the wrong ones are left out
    assert values["retain", "loss"] == 2.0


@pytest.mark.parametrize("name", ["model", "retrain"])
def test_scores_of_images_outside_the_index_are_refused(run: Run, name: str) -> None:
    run.write_splits(drop=(3, 7))
    run.write_index(drop=(3, 7))
    other = {"model": "retrain", "retrain": "model"}[name]
    run.write_scores(other, right(), ids=[0, 1, 2, 4, 5, 6, 8, 9])
    with pytest.raises(DataError, match=rf"index.parquet: 2 images of .*{name}.parquet are missing \(image_id 3, 7\)"):
        run.compute()


@pytest.mark.parametrize("splits", ["fedcba9876543210", None])
@pytest.mark.parametrize("name", ["model", "retrain"])
def test_scores_of_a_model_of_another_split_are_refused(run: Run, name: str, splits: str | None) -> None:
    run.write_scores(name, right(), splits=splits)
    with pytest.raises(DataError, match=rf"{name}.parquet: its model was trained on another split than .*splits.parq"):
        run.compute()
    assert not (run.folder / "metrics.parquet").exists()


def test_splits_of_images_outside_the_index_are_refused(run: Run) -> None:
    run.write_index(drop=(0,))
    with pytest.raises(DataError, match=r"index.parquet: 1 images of .*splits.parquet are missing \(image_id 0\)"):
        run.compute()


def test_an_image_with_two_rows_is_refused(run: Run) -> None:
    run.write_scores("model", right(), ids=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    with pytest.raises(DataError, match=r"model.parquet: some images have several rows \(image_id 9\)"):
        run.compute()


def diverged(run: Run, name: str, images: tuple[int, ...], answer: float = np.nan, **model: Any) -> None:
    """Write scores of a model that answers NaN, or something infinite, for ``images``."""
    logits, loss = right(), np.arange(10.0)
    logits[list(images)] = answer
    loss[list(images)] = answer
    run.write_scores(name, logits, loss, **model)


@pytest.mark.parametrize("answer", [np.nan, np.inf])
@pytest.mark.parametrize("images", [(2, 5), (6,), tuple(range(10))])
@pytest.mark.parametrize("method", ["ssd", "pretrain", "retrain"])
def test_a_model_whose_answers_are_not_finite_has_diverged(
    run: Run, caplog: pytest.LogCaptureFixture, method: str, images: tuple[int, ...], answer: float
) -> None:
    diverged(run, "model", images, answer, seconds=2.5, health={"blown_up": False, "relative_step": 3.0})
    with caplog.at_level("WARNING", "oneshui"):
        values, frame, _ = run.compute(method)
    assert values == {("all", "blown_up"): 1.0, ("all", "relative_step"): 3.0, ("all", "seconds"): 2.5}
    assert len(frame) == 3  # blown_up once, not a second time from the model's own health
    assert "model.parquet: the model has diverged" in caplog.text


def test_a_model_that_answers_nan_needs_no_reference(run: Run) -> None:
    diverged(run, "model", (2,))
    diverged(run, "retrain", (2,))
    assert run.compute()[0] == {("all", "blown_up"): 1.0}


@pytest.mark.parametrize(("image", "split"), [(2, "retain"), (5, "forget"), (8, "test")])
def test_a_retrained_model_that_answers_nan_is_no_reference(run: Run, image: int, split: str) -> None:
    diverged(run, "retrain", (image,))
    with pytest.raises(DataError, match=rf"retrain.parquet, split {split}: .*NaN"):
        run.compute()
    assert not (run.folder / "metrics.parquet").exists()


def test_logits_of_another_number_of_classes_are_refused(run: Run) -> None:
    run.write_scores("model", np.ones((10, 3)))
    with pytest.raises(DataError, match=r"10 images .* other than the 2 classes \(image_id 0, 1, 2, 3, 4, \.\.\.\)"):
        run.compute()


def test_nan_logits_are_refused_with_file_and_split(run: Run) -> None:
    logits = right()
    logits[8] = np.nan
    run.write_scores("model", logits)
    with pytest.raises(DataError, match=r"model.parquet, split test: .*NaN"):
        run.compute()


@pytest.mark.parametrize("meta", [{"classes": []}, {"classes": None}])
def test_an_index_without_classes_is_refused(run: Run, meta: dict[str, Any]) -> None:
    run.write_index(**meta)
    with pytest.raises(DataError, match=r"index.parquet: its metadata"):
        run.compute()


def test_more_identities_than_ranked_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="rank 1"):
        run.compute(n=2)


def test_nothing_is_written_when_something_is_wrong(run: Run) -> None:
    run.write_scores("retrain", right(), ids=[0])
    with pytest.raises(DataError):
        run.compute()
    assert not (run.folder / "metrics.parquet").exists()


@pytest.mark.parametrize(("module", "registry"), [("measure_model", False), ("make_table", True)])
def test_importing_the_stage_does_not_load_torch(module: str, registry: bool) -> None:
    code = (
        f"import sys, oneshui.stages.{module}; "
        "bad = {'torch', 'timm', 'snakemake', 'oneshui.data', 'oneshui.models', 'oneshui.methods', "
        "'oneshui.methods.base'}; "
        "print(*sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("oneshui.methods" if registry else "")  # names and colours of methods stand there
