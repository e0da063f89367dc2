"""Scores of a model: one pass, in order, losses before rounding."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from oneshui import scoring
from oneshui.schemas import SCORES, read_table, write_table
from oneshui.scoring import score_images, score_view, score_with_features
from oneshui.sets import ImageSet, InputSpec
from oneshui.tasks import Task

CPU = torch.device("cpu")
LABELS = {"classification": torch.tensor([1, 0, 2, 2]), "multilabel": torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]])}
TASKS = {"classification": Task("classification", ("a", "b", "c")), "multilabel": Task("multilabel", ("x", "y"))}


def make_images(kind: str) -> ImageSet:
    pixels = torch.randint(256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ids = torch.tensor([5, 2, 8, 0])
    return ImageSet(pixels, ids, LABELS[kind], ids.clone(), InputSpec(8, 0.5, 0.5), TASKS[kind], CPU)


class Weigh(nn.Module):
    """Logits are the means of the first channels, times ``size``."""

    def __init__(self, n: int, size: float) -> None:
        super().__init__()
        self.n, self.size = n, size

    def forward(self, images: Tensor) -> Tensor:
        return self.size * images.mean((2, 3))[:, : self.n]


@pytest.mark.parametrize("batch", [1, 3, 256])
@pytest.mark.parametrize("kind", TASKS)
def test_scores_by_direct_formula(monkeypatch: pytest.MonkeyPatch, kind: str, batch: int) -> None:
    monkeypatch.setattr(scoring, "_BATCH", batch)
    images, n = make_images(kind), TASKS[kind].n_outputs
    frame = score_images(Weigh(n, 30.0), images)
    pixels = images.pixels[images.image_ids].double() / 127.5 - 1
    logits = (30 * pixels.mean((2, 3))[:, :n]).numpy()
    labels = LABELS[kind].numpy()
    if kind == "classification":
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -np.log(p[np.arange(4), labels])
    else:
        p = 1 / (1 + np.exp(-logits))
        loss = -np.log(np.where(labels == 1, p, 1 - p)).mean(1)
    assert frame["image_id"].tolist() == [5, 2, 8, 0]
    assert frame["view"].tolist() == [0] * 4
    np.testing.assert_allclose(frame["loss"], loss, rtol=2e-5)
    np.testing.assert_allclose(frame["p_true"], np.exp(-loss), rtol=2e-5)
    np.testing.assert_allclose(np.stack(frame["logits"].to_list()), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", TASKS)
def test_scores_of_a_model_that_answers_nan_can_be_stored(tmp_path: Path, kind: str) -> None:
    write_table(tmp_path / "s.parquet", score_images(Weigh(TASKS[kind].n_outputs, float("nan")), make_images(kind)),
                SCORES, {})  # fmt: skip
    stored, _ = read_table(tmp_path / "s.parquet", SCORES)
    assert stored[["loss", "p_true"]].isna().all().all()
    assert np.isnan(np.stack(stored["logits"].to_list()).astype(np.float32)).all()


def test_scores_of_a_destroyed_model_can_be_stored(tmp_path: Path) -> None:
    frame = score_images(Weigh(3, 1e9), make_images("classification"))
    write_table(tmp_path / "s.parquet", frame, SCORES, {})
    stored, _ = read_table(tmp_path / "s.parquet", SCORES)
    logits = np.stack(stored["logits"].to_list())
    assert logits.dtype == np.float16
    assert np.isfinite(logits).all() and abs(logits).max() == np.float16(65504)
    assert stored["loss"].max() > 1e6  # not of the clamped logits
    assert stored["p_true"].min() == 0.0


class Timm(Weigh):
    """The same with the parts that every timm model has: features are the channel means."""

    def forward_features(self, images: Tensor) -> Tensor:
        return images

    def forward_head(self, images: Tensor, pre_logits: bool = False) -> Tensor:
        features = images.mean((2, 3))
        return features if pre_logits else self.get_classifier()(features)

    def get_classifier(self) -> nn.Module:
        return Head(self.n, self.size)


class Head(nn.Module):
    def __init__(self, n: int, size: float) -> None:
        super().__init__()
        self.n, self.size = n, size

    def forward(self, features: Tensor) -> Tensor:
        return self.size * features[:, : self.n]


@pytest.mark.parametrize("batch", [1, 3])
def test_features_of_wanted_images_come_from_the_same_pass(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(scoring, "_BATCH", batch)
    images, model = make_images("classification"), Timm(3, 30.0)
    scores, features = score_with_features(model, images, torch.tensor([True, False, False, True]))
    pd.testing.assert_frame_equal(scores, score_images(model, images))
    assert features["image_id"].tolist() == [5, 0]
    wanted = (images.pixels[[5, 0]].double() / 127.5 - 1).mean((2, 3))
    np.testing.assert_allclose(np.stack(features["features"].to_list()), wanted, rtol=1e-3, atol=1e-4)


def test_a_view_crops_each_image_in_its_own_way_whatever_is_asked_beside() -> None:
    images, model = make_images("classification"), Weigh(3, 30.0)
    arguments = {"crop_scale": (0.3, 0.6), "dataset": "toy"}
    first = score_view(model, images, 1, **arguments)
    alone = score_view(model, images.subset(torch.tensor([2, 0])), 1, **arguments)
    assert first["view"].eq(1).all() and first["logits"].isna().all()
    np.testing.assert_allclose(alone["loss"], first["loss"].to_numpy()[[2, 0]], rtol=1e-6)
    other, elsewhere = score_view(model, images, 2, **arguments), score_view(model, images, 1, crop_scale=(0.3, 0.6),
                                                                             dataset="other")  # fmt: skip
    whole = score_images(model, images)
    for differing in (other, elsewhere, whole):
        assert (first["loss"] - differing["loss"]).abs().min() > 1e-6
