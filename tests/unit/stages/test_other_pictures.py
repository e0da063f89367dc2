"""A model belongs to the pictures that it was trained on, by what the files held."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from oneshui.errors import CheckpointError, DataError
from oneshui.models import ModelSpec, build_model, save_model
from oneshui.runs import DataFiles, Run
from oneshui.schemas import INDEX, REQUEST, SPLITS, read_meta, read_table, write_table
from oneshui.stages.export_request import export_request
from oneshui.stages.images import RunImages, input_of, open_run, open_trained
from oneshui.stages.index_dataset import index_dataset
from oneshui.stages.pack_images import pack_images
from oneshui.stages.rows import check_split
from oneshui.stages.serve_request import serve_request
from oneshui.stages.split_identities import split_identities
from oneshui.tasks import Task

CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "layout": "manifest", "options": {}, "identities": None, "min_images": 1, "duplicate_distance": 0,
}  # fmt: skip
SPLIT = {"train": 0.6, "val": 0.2, "n_ranked": 2, "min_images_first": 2, "min_images": 2, "dedup": False}
RUN = Run("toy", 2, 0)
MODEL = ModelSpec(
    "resnet10t", Task("classification", ("x", "y")), 16, 0.5, 0.5, {"channels": (4, 4, 4, 4), "stem_width": 4}
)


class Made:
    """A data set of 12 people with two photos each, indexed, packed and split; and a model that is bound to it."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.out = folder / "raw", folder / "data"
        self.data = DataFiles(self.out / "index.parquet", self.out / "images.npy", self.out / "splits.parquet")
        self.model, self.request = folder / "model.safetensors", folder / "request.parquet"
        self.raw.mkdir()
        lines = ["path,identity,label"]
        for i in range(24):
            self.photo(i).save(self.raw / f"{i}.png")
            lines.append(f"{i}.png,p{i // 2},{'xy'[i % 2]}")
        (self.raw / "manifest.csv").write_text("\n".join(lines) + "\n")
        self.make()
        self.bind(**self.opened().bound_to)

    @staticmethod
    def photo(seed: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))

    def make(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        index_dataset(self.raw, self.data.index, dataset="toy", spec=SPEC, n_threads=1)
        self.pack()
        self.split()

    def pack(self) -> None:
        pack_images(self.raw, self.data.index, self.data.images, stored_px=(16, 16), n_threads=1)

    def split(self) -> None:
        split_identities(self.data.index, self.data.splits, run=RUN, spec=SPLIT)

    def replace_one(self) -> None:
        self.photo(99).save(self.raw / "3.png")

    def opened(self) -> RunImages:
        return open_run(self.data, input_of(MODEL), CPU)

    def bind(self, **header: Any) -> None:
        torch.manual_seed(0)
        save_model(self.model, build_model(MODEL), MODEL, {"spec": {"dataset": {"stored_px": [16, 16]}}, **header})

    def forget_what_files_held(self) -> None:
        """Rewrite index, store and splits as an earlier version wrote them."""
        frame, meta = read_table(self.data.index, INDEX)
        write_table(self.data.index, frame.drop(columns="content"), INDEX, old(meta))
        np.save(self.data.images, np.load(self.data.images))
        frame, meta = read_table(self.data.splits, SPLITS)
        write_table(self.data.splits, frame, SPLITS, old(meta))


def old(meta: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key not in ("pictures", "annotations", "version")}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_index_store_splits_and_model_name_the_same_pictures(made: Made) -> None:
    run = open_trained(made.model, made.data, CPU)[1]
    assert run.pictures == read_meta(made.data.index)["pictures"] == read_meta(made.data.splits)["pictures"]
    assert len(str(run.pictures)) == 16


def test_another_copy_with_other_pixels_is_refused(made: Made) -> None:
    made.replace_one()
    made.make()
    with pytest.raises(CheckpointError, match=r"was trained on other pictures.*same names and other contents"):
        open_trained(made.model, made.data, CPU)


def test_another_copy_with_the_same_files_is_taken(made: Made) -> None:
    moved = made.raw.rename(made.raw.with_name("elsewhere"))
    made.raw = moved
    made.make()
    open_trained(made.model, made.data, CPU)


def test_replaced_images_are_noticed_when_only_the_store_is_made_again(made: Made) -> None:
    made.replace_one()
    made.data.images.unlink()
    with pytest.raises(DataError, match=r"3\.png is not the file that was indexed"):
        made.pack()


def test_a_store_of_another_index_is_refused(made: Made, tmp_path: Path) -> None:
    kept = shutil.copy(made.data.images, tmp_path / "kept.npy")
    made.replace_one()
    made.make()
    shutil.copy(kept, made.data.images)
    with pytest.raises(DataError, match=r"images\.npy was packed from other pictures"):
        made.opened()
    with pytest.raises(DataError, match=r"images\.npy was packed from other pictures"):
        export_request(made.data, made.request, run=RUN, wrong_photos=False)


def test_splits_of_another_index_are_refused(made: Made, tmp_path: Path) -> None:
    kept = shutil.copy(made.data.splits, tmp_path / "kept.parquet")
    made.replace_one()
    made.make()
    shutil.copy(kept, made.data.splits)
    with pytest.raises(DataError, match=r"splits\.parquet was made from other pictures"):
        made.opened()


def test_a_request_from_other_pictures_is_refused(made: Made) -> None:
    made.replace_one()
    made.make()
    export_request(made.data, made.request, run=RUN, wrong_photos=False)
    arguments: dict[str, Any] = {"dataset": "toy", "n": 2, "seed": 0}
    jit = {"kind": "jit", "lr": 1e-2, "noise_std": 0.5, "n_samples": 2, "batch_size": 16}
    serve = (str(made.model), str(made.request), None, str(made.model.with_name("out.safetensors")))
    with pytest.raises(DataError, match=r"request\.parquet was exported from other pictures"):
        serve_request(*serve, run=arguments, model="pretrain/jit", spec=jit, gpus=0, threads=1, isolation="none")
    frame, meta = read_table(made.request, REQUEST)
    write_table(made.request, frame, REQUEST, {k: v for k, v in meta.items() if k not in ("pictures", "splits")})
    serve_request(*serve, run=arguments, model="pretrain/jit", spec=jit, gpus=0, threads=1, isolation="none")


def test_scores_of_a_model_of_other_pictures_are_refused(made: Made) -> None:
    splits = read_meta(made.data.splits)
    model = {"splits": splits["content"], "pictures": splits["pictures"]}
    check_split("scores.parquet", model, made.data.splits, splits)
    check_split("scores.parquet", {"splits": splits["content"]}, made.data.splits, splits)  # of an earlier version
    with pytest.raises(DataError, match=r"scores\.parquet: its model was trained on other pictures"):
        check_split("scores.parquet", {**model, "pictures": "0" * 16}, made.data.splits, splits)


# ---- files of earlier versions


def test_a_folder_of_an_earlier_version_is_read_as_before(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.forget_what_files_held()
    made.bind(splits=read_meta(made.data.splits)["content"])
    with caplog.at_level(logging.INFO, logger="oneshui"):
        run = open_trained(made.model, made.data, CPU)[1]
        export_request(made.data, made.request, run=RUN, wrong_photos=False)
    assert run.pictures is None and run.bound_to == {"splits": run.splits_id}
    assert "pictures" not in read_meta(made.request)
    assert caplog.text == ""


def test_an_old_index_is_packed_with_a_word(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.forget_what_files_held()
    made.pack()
    made.opened()
    assert "did not note what the image files held" in caplog.text


def test_an_old_model_fits_data_that_was_indexed_again_and_it_is_said(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    made.bind(splits=read_meta(made.data.splits)["content"])
    open_trained(made.model, made.data, CPU)
    assert "did not note its pictures" in caplog.text


def test_an_old_model_of_pictures_that_are_now_stored_otherwise_is_refused(made: Made) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made.photo(3).save(made.raw / "3.png", exif=exif)
    made.make()
    made.bind(splits=read_meta(made.data.splits)["content"])
    with pytest.raises(CheckpointError, match=r"stored 1 of the images .* in another way"):
        open_trained(made.model, made.data, CPU)


def test_an_optional_column_is_the_only_one_that_may_be_missing(made: Made) -> None:
    frame: pd.DataFrame = read_table(made.data.index, INDEX)[0]
    assert frame["content"].dtype == np.uint64
    meta = {"task": "classification", "classes": ["x", "y"]}
    write_table(made.out / "a.parquet", frame.drop(columns="content"), INDEX, meta)
    assert list(read_table(made.out / "a.parquet", INDEX, ["path", "content"])[0].columns) == ["path"]
    with pytest.raises(DataError, match="columns"):
        write_table(made.out / "b.parquet", frame.drop(columns="width"), INDEX, meta)
