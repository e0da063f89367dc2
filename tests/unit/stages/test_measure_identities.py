"""Identities, from score and feature files to a table."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oneshui.errors import ConfigError, DataError
from oneshui.metrics.accuracy import mean_average_precision
from oneshui.metrics.queries import query_rows
from oneshui.runs import Model
from oneshui.runs import Run as Which
from oneshui.schemas import FEATURES, IDENTITIES, INDEX, SCORES, SPLITS, read_table, write_table
from oneshui.stages.measure_identities import measure_identities

MODELS = ("target", "pretrain", "retrain")
IDS = np.arange(40)
OWNER = IDS % 10  # so that no order of images is that of their identities
#: identity -> rank; those of a request for two are 2 and 0
RANKS = {2: 0, 0: 1, 4: 2}
SUPPORT = [2, 14, 30]
FORGET = {0: [0, 10, 20], 2: [12, 22, 32]}
RETAIN = {1: [1, 11, 21, 31], 3: [3, 13, 23, 33], 4: [4, 24, 34], 5: [5, 15, 25, 35]}


def make_splits() -> pd.DataFrame:
    """10 identities of 4 images: 0 to 5 train (0, 2 and 4 can ask), 6 and 7 val, 8 and 9 test."""
    frame = pd.DataFrame({"image_id": IDS, "identity": OWNER})
    frame["role"] = np.select([OWNER < 6, OWNER < 8], ["train", "val"], "test")
    frame["request_rank"] = frame["identity"].map(RANKS).astype("Int16")
    frame["is_support"] = frame["image_id"].isin(SUPPORT)
    return frame


class Run:
    """The files of one run, which tests damage in different ways; rows are shuffled in each."""

    def __init__(self, folder: Path, task: str = "classification") -> None:
        self.folder, self.task = folder, task
        draw = np.random.default_rng(4)
        self.labels: Any = draw.integers(0, 3, 40) if task == "classification" else draw.integers(0, 2, (40, 3))
        if task == "multilabel":
            self.labels[RETAIN[3]] = [1, 0, 1]  # nothing varies
        self.logits = {name: draw.standard_normal((40, 3)).astype(np.float16) for name in MODELS}
        self.features = 5 * draw.standard_normal((40, 4)).astype(np.float16)
        write_table(folder / "splits.parquet", self.shuffled(make_splits()), SPLITS, {"content": "mine"})
        self.write_index(self.labels)
        for name in MODELS:
            self.write_scores(name)
        self.write_features()

    def shuffled(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.sample(frac=1, random_state=len(frame)).reset_index(drop=True)

    def write_index(self, labels: Any) -> None:
        index = pd.DataFrame({"image_id": IDS, "path": "x", "identity": OWNER, "identity_name": "a"})
        index["label"] = list(labels)
        index = index.assign(width=1, height=1, duplicate_group=IDS)
        meta = {"task": self.task, "classes": ["a", "b", "c"]}
        write_table(self.folder / "index.parquet", self.shuffled(index), INDEX, meta)

    def write_scores(self, name: str, *, drop: Collection[int] = (), nan: int = -1, content: str = "mine") -> None:
        view = pd.DataFrame({"image_id": IDS, "view": 0, "loss": np.where(nan == IDS, np.nan, 1.0), "p_true": 0.5})
        view["logits"] = list(self.logits[name])
        crop = view.assign(view=1, loss=np.nan, logits=None)  # other views are not looked at
        frame = pd.concat([view.astype({"logits": object}), crop.astype({"logits": object})])
        frame = self.shuffled(frame[~frame["image_id"].isin(drop)])
        write_table(self.folder / f"{name}.parquet", frame, SCORES, {"model": {"splits": content}})

    def write_features(self, *, max_reference: int = 40, drop: Collection[int] = (), content: str = "mine") -> None:
        """Write what ``score_model`` does."""
        rows = query_rows(make_splits(), dataset="toy", seed=0, max_reference=max_reference)
        ids = np.setdiff1d(np.concatenate([rows["asked"], rows["test"], rows["fit"], SUPPORT]), list(drop))
        frame = pd.DataFrame({"image_id": ids, "features": list(self.features[ids])})
        write_table(self.folder / "features.parquet", self.shuffled(frame), FEATURES, {"model": {"splits": content}})

    def measure(self, n: int = 2, max_reference: int = 40) -> tuple[pd.DataFrame, dict[str, Any]]:
        paths = [self.folder / f"{name}.parquet" for name in (*MODELS, "features", "splits", "index", "identities")]
        measure_identities(*paths, run=Which("toy", n, 0), model=Model("pretrain", "mine"), max_reference=max_reference)
        return read_table(paths[-1], IDENTITIES)

    def distances(self, retain: dict[int, list[int]]) -> dict[int, float]:
        """Distances by identity, image by image."""
        mean = {who: self.features[ids].astype(float).mean(0) for who, ids in (FORGET | retain).items()}
        photo = {int(OWNER[i]): self.features[i].astype(float) for i in SUPPORT}
        found = {who: float(np.sqrt(((photo[who] - mean[who]) ** 2).sum())) for who in FORGET}
        for who in retain:
            found[who] = min(float(np.sqrt(((mean[who] - mean[other]) ** 2).sum())) for other in FORGET)
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_each_identity_has_its_measures_and_distance(run: Run) -> None:
    frame, meta = run.measure()
    assert list(frame["identity"]) == [0, 2, 1, 3, 4, 5] and list(frame["set"]) == ["forget"] * 2 + ["retain"] * 4
    expected = run.distances(RETAIN)
    for row in frame.to_dict("records"):
        images = (FORGET | RETAIN)[row["identity"]]
        assert (row["n_images"], row["measure"]) == (len(images), "accuracy")
        for column, name in zip(("value", "pretrain", "retrain"), MODELS, strict=True):
            assert row[column] == np.mean(run.logits[name][images].argmax(1) == run.labels[images])
        assert row["distance"] == pytest.approx(expected[row["identity"]])
    wanted = {"dataset": "toy", "n": 2, "seed": 0, "row": "pretrain/mine", "task": "classification", "blown_up": False}
    assert {key: meta[key] for key in wanted} == wanted


def test_attributes_are_measured_by_what_varies(tmp_path: Path) -> None:
    run = Run(tmp_path, "multilabel")
    frame = run.measure()[0].set_index("identity")
    assert frame.loc[3, "measure"] == "balanced_accuracy"
    right = (run.logits["pretrain"][RETAIN[3]] > 0) == run.labels[RETAIN[3]]
    assert frame.loc[3, "pretrain"] == pytest.approx((right[:, [0, 2]].mean() + right[:, 1].mean()) / 2)
    images = FORGET[2]
    varied = [c for c in range(3) if 0 < run.labels[images, c].sum() < 3]
    assert varied and frame.loc[2, "measure"] == "map"
    for column, name in zip(("value", "pretrain", "retrain"), MODELS, strict=True):
        logits = run.logits[name][images]
        assert frame.loc[2, column] == mean_average_precision(logits[:, varied], run.labels[images][:, varied])[0]


def test_larger_requests_have_more_forget_identities(run: Run) -> None:
    frame, _ = run.measure(n=3)
    assert frame.loc[frame["set"] == "forget", "identity"].tolist() == [0, 2, 4]
    assert frame.loc[frame["set"] == "retain", "identity"].tolist() == [1, 3, 5]


def test_centroids_are_of_the_images_that_attacks_ask_for(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    fit = query_rows(make_splits(), dataset="toy", seed=0, max_reference=2)["fit"].tolist()
    known = {who: [i for i in ids if i in fit or who == 4] for who, ids in RETAIN.items()}
    known = {who: ids for who, ids in known.items() if ids}
    assert 4 in known and 1 < len(known) < 4 and any(len(ids) < 4 for who, ids in known.items() if who != 4)
    for available in (2, 40):  # features of other images make no difference
        run.write_features(max_reference=available)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            frame, _ = run.measure(max_reference=2)
        assert f"{4 - len(known)} of 4 retain identities have no image whose features are known" in caplog.text
        retain = frame[frame["set"] == "retain"]
        assert retain["identity"].tolist() == sorted(known)
        assert retain["n_images"].tolist() == [len(RETAIN[who]) for who in sorted(known)]  # measured on all
        expected = run.distances(known)
        np.testing.assert_allclose(frame["distance"], [expected[who] for who in frame["identity"]])


def test_nothing_is_left_out_silently_or_for_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run.measure()
    assert "left out" not in caplog.text


def test_a_model_that_answers_nan_is_not_measured(run: Run) -> None:
    for name in (*MODELS, "features"):
        if name == "features":
            run.features[12, 1] = np.nan
            run.write_features()
        else:
            run.write_scores(name, nan=39)
        frame, meta = run.measure()
        assert len(frame) == 0 and list(frame.columns) == list(IDENTITIES.columns), name
        assert meta["blown_up"] and meta["row"] == "pretrain/mine", name
        if name != "features":
            run.write_scores(name)


def test_scores_must_have_every_image_that_is_measured(run: Run) -> None:
    for name, image in zip(MODELS, (12, 35, 12), strict=True):
        run.write_scores(name, drop=[image])
        wrong = rf"{name}.parquet: 1 images of .*splits.parquet are missing \(image_id {image}"
        with pytest.raises(DataError, match=wrong):
            run.measure()
        run.write_scores(name)
    run.measure()


def test_features_must_have_every_image_of_a_distance(run: Run) -> None:
    for image in (30, 12, 4):  # support photo, forget image, retain image
        run.write_features(drop=[image])
        with pytest.raises(DataError, match=rf"features.parquet: 1 images .* are missing \(image_id {image}"):
            run.measure()


def test_files_of_another_split_are_one_error(run: Run) -> None:
    run.write_features(content="older")
    with pytest.raises(DataError, match=r"features.parquet: its model was trained on another split"):
        run.measure()
    for name in reversed(MODELS):
        run.write_scores(name, content="older")
        with pytest.raises(DataError, match=f"{name}.parquet: its model was trained on another split"):
            run.measure()


def test_a_forget_identity_needs_one_photo_and_an_image(run: Run) -> None:
    none, two, only_photos = (make_splits().set_index("image_id") for _ in range(3))
    none.loc[2, "is_support"] = False
    two.loc[12, "is_support"] = True
    only_photos.loc[[12, 22, 32], "is_support"] = True
    for splits, who in (
        (none, 2),
        (two, 2),
        (only_photos, 2),
        (make_splits().set_index("image_id").drop([0, 10, 20]), 0),
    ):
        write_table(run.folder / "splits.parquet", splits.reset_index(), SPLITS, {"content": "mine"})
        with pytest.raises(DataError, match=rf"splits.parquet: identities \[{who}\] of the request have no forget"):
            run.measure()


def test_labels_that_do_not_fit_name_file_and_row(run: Run) -> None:
    labels = run.labels.copy()
    labels[12] = 3
    run.write_index(labels)
    with pytest.raises(DataError, match=r"index.parquet, row \d+: the label is 3, allowed: 0 to 2"):
        run.measure()


def test_more_identities_than_can_ask_are_one_error(run: Run) -> None:
    with pytest.raises(ConfigError, match="n = 4 identities to forget, but the splits rank 3"):
        run.measure(n=4)


def test_images_without_labels_are_one_error(run: Run) -> None:
    more = pd.concat([make_splits(), make_splits().tail(1).assign(image_id=77)], ignore_index=True)
    write_table(run.folder / "splits.parquet", more, SPLITS, {"content": "mine"})
    with pytest.raises(DataError, match=r"index.parquet: 1 images of .*splits.parquet are missing \(image_id 77\)"):
        run.measure()
