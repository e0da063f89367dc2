"""A finished run of a configuration, as the studies of identity edits read it."""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from oneshui.config import method_spec
from oneshui.methods import artefact_of, keeper_of
from oneshui.methods.base import Artefact
from oneshui.models import load_model
from oneshui.planning.checks import check
from oneshui.report.columns import half_width
from oneshui.runs import ORIGINAL, DataFiles, Model, Run
from oneshui.sets import Support
from oneshui.stages.images import RunImages, open_trained
from oneshui.yaml_files import read_yaml

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FinishedRun:
    """One seed of a dataset.

    Attributes:
        run: dataset, request size and seed.
        model: the original model.
        images: with the splits of the seed.
        config: of the workflow.
    """

    run: Run
    model: nn.Module
    images: RunImages
    config: dict[str, Any]

    @property
    def ranked(self) -> list[int]:
        """Those who can ask, in their order."""
        asks = self.images.splits.dropna(subset="request_rank").drop_duplicates("identity")
        return list(map(int, asks.sort_values("request_rank")["identity"]))

    def trained(self, model: Model) -> nn.Module:
        """Return another trained model of the seed."""
        return load_model(Path(self.run.weights(model)), CPU).model

    def kept(self, method: str) -> tuple[dict[str, Any], Artefact]:
        """Return hyper-parameters of a method and what it kept."""
        methods = self.config["methods"]
        spec = method_spec(methods, method, self.run.dataset, self.run.n)
        keeper = Model("pretrain", keeper_of(methods, method))
        return spec, Artefact.load(Path(artefact_of(spec, self.run, keeper)), CPU)[0]

    def request(self, people: Sequence[int]) -> Support:
        """Return the photos of people who can ask: those that were kept out of every training."""
        splits = self.images.splits
        photos = splits[splits["is_support"] & splits["identity"].isin(people)]
        asked = self.images.take(photos["image_id"].to_numpy())
        return Support(asked.images(torch.arange(len(asked))), asked.labels, asked.identities, asked.task)


def mean_of_people(differences: "pd.Series[float]") -> str:
    """Return the mean in percent with its 95% interval by Student's t over people, taken as independent."""
    mean, half = differences.mean(), half_width(float(differences.std(ddof=1)), len(differences))
    return f"{100 * mean:+.1f} [{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]"


def arguments(text: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all studies have."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("config", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--directory", type=Path, default=Path(), help="folder that the workflow ran in")
    parser.add_argument("--seeds", type=int, nargs="+", help="left out: those of the configuration")
    return parser


def finished_runs(given: argparse.Namespace, n: int | None) -> Iterator[FinishedRun]:
    """Yield the seeds of a run, which is read from the folder that the workflow ran in."""
    config = read_yaml(given.config)
    check(config, str(given.config))
    os.chdir(given.directory)
    for seed in given.seeds or config["seeds"]:
        run = Run(given.dataset, n, seed)
        data = DataFiles(*(Path(f"results/data/{run.dataset}/{name}") for name in ("index.parquet", "images.npy")),
                         Path(run.splits))  # fmt: skip
        checkpoint, images = open_trained(Path(run.weights(ORIGINAL)), data, CPU)
        yield FinishedRun(run, checkpoint.model, images, config)
