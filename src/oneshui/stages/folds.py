"""The fold models of a run; shared by the stages that make artefacts with them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from oneshui.data.splits import fold_of
from oneshui.errors import CheckpointError
from oneshui.files import read_header, sha256_file
from oneshui.methods.base import OutOfFold
from oneshui.models import load_model
from oneshui.runs import Model, Run
from oneshui.scoring import score_images
from oneshui.sets import ImageSet
from oneshui.stages.images import RunImages


def open_folds(paths: Sequence[Path], images: RunImages, run: Run, device: torch.device) -> list[OutOfFold]:
    """Return fold models that are read when they are needed.

    Args:
        paths: of all fold models of a seed, in the order of their folds.
        images: of the run.
        run: dataset and seed.
        device: that the models are read to.

    Raises:
        CheckpointError: a file is not that fold model, or was trained on other splits.
    """
    return [_open(path, fold, len(paths), images, run, device) for fold, path in enumerate(paths)]


def scores_of_strangers(out_of_fold: Sequence[OutOfFold], sets: Sequence[ImageSet]) -> list[pd.DataFrame]:
    """Return the scores of each set (schema SCORES), every person's from the fold model that never saw them.

    A fold model is read once for all sets.
    """
    found: list[list[pd.DataFrame]] = [[] for _ in sets]
    for fold in out_of_fold:
        model = fold.load()
        for images, parts in zip(sets, found, strict=True):
            rows = torch.isin(images.identities, fold.identities).nonzero()[:, 0]
            if len(rows):
                parts.append(score_images(model, images.subset(rows)).set_axis(rows.tolist()))
    return [pd.concat(parts).sort_index() for parts in found]


def naming_folds(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return what says which fold models something was made with; nothing where there are none."""
    return {"folds": [sha256_file(path) for path in paths]} if paths else {}


def _open(path: Path, fold: int, folds: int, images: RunImages, run: Run, device: torch.device) -> OutOfFold:
    wanted = {**Model.of_fold(fold, folds).header, **images.bound_to, "seed": run.seed}
    header = read_header(path)
    found = {key: header.get(key) for key in wanted}
    if found != wanted:
        raise CheckpointError(f"{path} is not the fold model that is needed: it has {found}, needed: {wanted}")
    people = fold_of(images.splits, fold, folds, dataset=run.dataset, seed=run.seed)
    return OutOfFold(torch.from_numpy(people), lambda: load_model(path, device).model)
