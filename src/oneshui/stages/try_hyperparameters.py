"""Trying hyper-parameters on simulated requests, with nothing that a practitioner would not have.

Neither the retrained model, nor a forget identity of a real request, nor a test image is looked at.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from oneshui.errors import ConfigError, DataError
from oneshui.files import spec_hash, write_text
from oneshui.log import logger
from oneshui.methods import artefact_spec, make_method, needs_of
from oneshui.methods.base import Artefact, OutOfFold, Unlearned, filled_in
from oneshui.metrics.measure import measure
from oneshui.metrics.tow import tug_of_war
from oneshui.models import Checkpoint
from oneshui.resume import Resume, State, fingerprint
from oneshui.runs import DataFiles, Run
from oneshui.scoring import logits_in, score_images
from oneshui.seeds import seed_of, stream
from oneshui.sets import ImageSet, Support
from oneshui.stages.folds import naming_folds, open_folds, scores_of_strangers
from oneshui.stages.images import RunImages, open_trained
from oneshui.stages.unlearn_with_data import rebuilder

#: how a parameter that is null is written
NULL = "null"
#: images of identities outside a simulated request on which keeping is measured
_N_KEPT = 300


@dataclass(frozen=True)
class _Trial:
    """A simulated request: its photos, the other images of its identities, all images of other train identities, and
    some of those, on which keeping is measured."""

    support: Support
    forget: ImageSet
    retain: ImageSet
    kept: ImageSet


def try_hyperparameters(
    model_path: Path, data: DataFiles, output_path: Path, *, run: Run, spec: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]], n_requests: int, device: torch.device, fold_paths: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Write the score of every combination in ``grid`` on ``n_requests`` simulated requests of ``run.n`` people.

    score = (1 - |R_u - R|) (1 - |F_u - V|) (1 - |V_u - V|), each an accuracy or mAP: R on images of train identities
    outside the request, F on the other images of the request's identities, V on the half of the validation identities
    that precompute has not seen; subscript u after unlearning, none before. It is the Tug-of-War against a model that
    keeps what it knew and treats the forgotten like unseen people. The row without parameters is the original model.

    Where there are fold models, F is compared with what these give for the same images, each person by the one that
    never saw them, instead of V: people differ in how hard they are.

    An interrupted run goes on from ``output_path`` + ".resume" and ``output_path`` + ".precompute.resume".

    Raises:
        ConfigError: the grid names a parameter that the method does not have.
        DataError: fewer than ``run.n`` train identities are free to simulate a request with.
    """
    assert run.n is not None
    checkpoint, images = open_trained(model_path, data, device)
    unknown = sorted(set(grid) - set(spec))
    if unknown:
        raise ConfigError(
            f"selection grid: {spec['kind']} has no parameter {', '.join(unknown)}; it has: {', '.join(spec)}"
        )
    seen, unseen = _halves(images.role("val"), seed_names=("select-val", run.dataset, run.seed))
    trials = [
        _simulate(images, run.n, stream("select", run.dataset, run.n, run.seed, number)) for number in range(n_requests)
    ]
    before = [_values(checkpoint.model, trial, unseen) for trial in trials]
    out_of_fold = open_folds(fold_paths, images, run, device)
    forgotten = [values["test"] for values in before]
    if out_of_fold:
        sets = [trial.forget for trial in trials]
        strangers = scores_of_strangers(out_of_fold, sets)
        forgotten = [_measured(scores, each) for scores, each in zip(strangers, sets, strict=True)]
    targets = [{**values, "forget": value} for values, value in zip(before, forgotten, strict=True)]
    rows = [
        {"request": i, "score": tug_of_war(b, t), **b} for i, (b, t) in enumerate(zip(before, targets, strict=True))
    ]
    splits = images.splits
    asks = splits.loc[splits["request_rank"].notna(), "identity"].unique()
    known = images.training_set(None, without=asks.astype("int64"))  # of people who can never ask for real
    named = fingerprint(
        {
            "spec": dict(spec), "grid": dict(grid), "requests": n_requests, "model": checkpoint.sha256, **asdict(run),
            **images.bound_to, **naming_folds(fold_paths),
        },
        device,
    )  # fmt: skip
    resume, precomputing = (Resume.beside(Path(f"{output_path}{of}"), named, device) for of in ("", ".precompute"))
    candidates = _Candidates(checkpoint, known, seen, device, run.seed, precomputing, out_of_fold)
    done = 0
    loaded = resume.load()
    if loaded is not None:
        groups, note = loaded
        with resume.restoring():
            done, rows = int(note["done"]), list(note["rows"])
            candidates.restore(groups, note["artefacts"])
        logger.info("resuming after %d combinations", done)
    for number, values in enumerate(itertools.product(*grid.values())):
        if number < done:
            continue
        chosen = dict(zip(grid, values, strict=True))
        for i, (trial, target) in enumerate(zip(trials, targets, strict=True)):
            model = candidates.unlearn({**spec, **chosen}, trial)
            result = _values(model, trial, unseen)
            rows.append({**chosen, "request": i, "score": tug_of_war(result, target), **result})
        mean = np.mean([row["score"] for row in rows[-n_requests:]])
        logger.info("%s: mean score %.4f over %d requests", chosen, mean, n_requests)
        resume.save(partial(candidates.state, {"done": number + 1, "rows": rows}))
    # an empty cell is the original model's: a parameter may be null (rank: all of it)
    written = [{name: NULL if value is None else value for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(written).rename(columns={"test": "val"}).assign(seed=run.seed)
    write_text(output_path, frame[[*grid, "seed", "request", "score", "retain", "forget", "val"]].to_csv(index=False))
    for each in (resume, precomputing):
        each.clear()


class _Candidates:
    """Unlearns simulated requests; combinations that share an artefact compute it once."""

    def __init__(
        self, checkpoint: Checkpoint, train: ImageSet, val: ImageSet, device: torch.device, seed: int, resume: Resume,
        out_of_fold: Sequence[OutOfFold],
    ) -> None:  # fmt: skip
        self.checkpoint, self.train, self.val, self.device, self.seed = checkpoint, train, val, device, seed
        self.resume, self.out_of_fold = resume, out_of_fold
        self.artefacts: dict[str, Artefact | None] = {}

    def state(self, note: dict[str, Any]) -> State:
        """Return ``note`` with all artefacts."""
        groups = {str(i): artefact.tensors for i, artefact in enumerate(self.artefacts.values()) if artefact}
        kept = [[key, artefact and artefact.metadata] for key, artefact in self.artefacts.items()]
        return groups, {**note, "artefacts": kept}

    def restore(self, groups: Mapping[str, dict[str, Tensor]], kept: Sequence[tuple[str, Any]]) -> None:
        """Put back the artefacts that ``state`` returned."""
        for i, (key, metadata) in enumerate(kept):
            self.artefacts[key] = None if metadata is None else Artefact(groups.get(str(i), {}), metadata)

    def unlearn(self, spec: Mapping[str, Any], trial: _Trial) -> nn.Module:
        """Return the model of one combination after one simulated request."""
        method, model = make_method(spec), self.checkpoint.model
        if needs_of(spec) == "data":
            rebuild = rebuilder(self.checkpoint.spec, self.device)
            result: Unlearned = method.unlearn(model, trial.forget, trial.retain, seed=0, rebuild=rebuild)
            return result.model
        key = repr(artefact_spec(spec))
        if key not in self.artefacts:
            resume = Resume(self.resume.path, spec_hash([self.resume.fingerprint, key]), self.device)
            precompute = filled_in(method.precompute, resume=resume, out_of_fold=self.out_of_fold)
            self.artefacts[key] = precompute(model, self.train, self.val, seed=seed_of("select", self.seed))
        result = method.unlearn(model, trial.support, self.artefacts[key], seed=0)
        return result.model


def _values(model: nn.Module, trial: _Trial, unseen: ImageSet) -> dict[str, float]:
    """Measure on kept, forgotten and unseen images; unseen stands where Tug-of-War has the test set."""
    return {
        "retain": _measure(model, trial.kept),
        "forget": _measure(model, trial.forget),
        "test": _measure(model, unseen),
    }


def _measure(model: nn.Module, images: ImageSet) -> float:
    return _measured(score_images(model, images), images)


def _measured(scores: pd.DataFrame, images: ImageSet) -> float:
    logits = logits_in(scores)
    if np.isnan(logits).any():
        return 0.0  # a destroyed model; the other combinations are worth trying all the same
    return measure(images.task.kind, logits, images.labels.cpu().numpy())


def _halves(val: ImageSet, *, seed_names: tuple[str | int, ...]) -> tuple[ImageSet, ImageSet]:
    """Cut the validation set in two with no identity in both."""
    identities = torch.unique(val.identities).numpy()
    first = stream(*seed_names).permutation(identities)[: len(identities) // 2]
    chosen = torch.isin(val.identities, torch.from_numpy(first))
    return val.subset(chosen), val.subset(~chosen)


def _simulate(images: RunImages, n: int, draw: np.random.Generator) -> _Trial:
    """Draw a request of train identities that can be part of no real one, with reserved photos if there are any."""
    splits = images.splits
    nobody = splits[(splits["role"] == "train") & splits["request_rank"].isna()]
    reserved, free = nobody[nobody["is_support"]], nobody[~nobody["is_support"]]
    sizes = free.groupby("identity").size()
    able = sizes.index[sizes.index.isin(reserved["identity"]) if len(reserved) else sizes >= 2].to_numpy()
    if len(able) < n:
        raise DataError(
            f"a simulated request needs {n} train identities with two images that no real request can name; there are "
            f"{len(able)}. Lower n or n_ranked."
        )
    asked = draw.choice(able, size=n, replace=False)
    mine = free[free["identity"].isin(asked)]
    if len(reserved):
        photos = reserved[reserved["identity"].isin(asked)].sort_values("identity")["image_id"].to_numpy()
    else:
        photos = np.array([draw.choice(ids.to_numpy()) for _, ids in mine.groupby("identity")["image_id"]])
    others = free.loc[~free["identity"].isin(asked), "image_id"].to_numpy()
    support = images.take(photos)
    return _Trial(
        Support(support.images(torch.arange(n)), support.labels, support.identities, support.task),
        images.take(np.setdiff1d(mine["image_id"].to_numpy(), photos)),
        images.take(others),
        images.take(draw.permutation(others)[:_N_KEPT]),
    )
