"""Attacks on a model, from score files: no torch, no GPU, no images."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc

from oneshui.config import PAIRED_SEED, AttackSpec
from oneshui.errors import DataError
from oneshui.metrics.membership import likelihood_ratios, loss_scores, published_protocol, rmia_scores
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roc import auc
from oneshui.metrics.roles import metric_rows
from oneshui.runs import Model, Run
from oneshui.schemas import ATTACK, SCORES, SPLITS, read_arrow, read_table, write_table
from oneshui.stages.rows import check_split, first_ids, ids_of

logger = logging.getLogger(__name__)

#: what offline_a: paired_seed chooses from
_OFFLINE_A = tuple(round(0.1 * step, 1) for step in range(11))


@dataclass(frozen=True)
class AttackFiles:
    """What an attack reads.

    Attributes:
        target: scores of the attacked model.
        references: scores of the reference models, that of the same seed first.
        splits: splits of each reference's seed, in the same order; the first are the attacked model's own.
        run: dataset, request size and seed of the attacked model.
    """

    target: Path
    references: Sequence[Path]
    splits: Sequence[Path]
    run: Run


@dataclass(frozen=True)
class _Losses:
    """Losses of a model by view: image ids (sorted) and losses."""

    path: Path
    views: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
    model: dict[str, Any]

    def at(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (V, N) losses; NaN where the file has none."""
        rows = []
        for known, loss in self.views.values():
            place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            rows.append(np.where(known[place] == ids, loss[place], np.nan))
        return np.stack(rows)


@dataclass(frozen=True)
class _Case:
    """Losses of an attacked model and its references on members, non-members and the population."""

    members: npt.NDArray[np.int64]
    tested: npt.NDArray[np.int64]
    target: npt.NDArray[np.float64]  # (V, tested + population)
    references: npt.NDArray[np.float64]  # (M, V, tested + population)
    usable: npt.NDArray[np.bool_]  # (M, tested + population)
    identities: npt.NDArray[np.int64]  # of the tested

    @property
    def is_member(self) -> npt.NDArray[np.bool_]:
        return np.isin(self.tested, self.members)

    def diverged(self) -> str:
        """Return which model has diverged, or nothing."""
        for name, losses in (("the attacked model", self.target), ("its reference", self.references[0])):
            if not np.isfinite(losses).all():
                return f"the losses of {name} are not finite"
        return ""

    def rmia(self, *, gamma: float, a: float, combine: str) -> npt.NDArray[np.float64]:
        """Return equation 9 for each tested image."""
        ratio = likelihood_ratios(self.target, self.references, a=a, usable=self.usable)
        count = len(self.tested)
        return rmia_scores(ratio[:, :count], ratio[:, count:], gamma=gamma, combine=combine)


def attack_model(
    files: AttackFiles, output_path: Path, *, model: Model, reference: Model, spec: Mapping[str, Any],
    paired: AttackFiles | None,
) -> None:  # fmt: skip
    """Write what an attacker thinks of each forget and test image (schema ATTACK).

    Members are the forget images of the request, non-members all test images; the population are training images of
    people who never ask, and validation images. The metadata hold the settings, the weight ``offline_a`` that was used,
    and the outcome of the published protocol (docs/metrics.md).

    Args:
        files: scores and splits.
        output_path: table to write. It is empty, with the reason under ``blown_up`` in its metadata, if the losses of a
            model are not finite.
        model: that is attacked.
        reference: that it is compared with.
        spec: keys of ``AttackSpec``.
        paired: the same attack on another seed, on which ``offline_a`` is chosen if the spec says so.

    Raises:
        DataError: files disagree on image ids, views or splits, or an image is missing.
        ConfigError: a value of ``spec`` is out of range.
    """
    attack = AttackSpec.from_dict(spec)
    case = _read_case(files, attack, (model, reference))
    settings = {"attack": dict(spec), **asdict(files.run), "row": str(model)}
    chosen, reason = _offline_a(attack, paired, (model, reference))
    reason = case.diverged() or reason
    if reason:
        logger.warning("%s: no attack: %s", files.target, reason)
        empty = pd.DataFrame({name: [] for name in ATTACK.columns})
        write_table(output_path, empty, ATTACK, {**settings, "blown_up": reason})
        return
    count = len(case.tested)
    frame = pd.DataFrame(
        {
            "image_id": case.tested,
            "identity": case.identities,
            "is_member": case.is_member,
            "rmia": case.rmia(gamma=attack.gamma, a=chosen, combine=attack.combine),
            "loss_score": loss_scores(case.target[:, :count]),
        }
    )
    published = published_protocol(
        case.target[:, :count], case.references[:1, :, :count], case.target[:, count:],
        case.references[:1, :, count:], frame["is_member"].to_numpy(),
    )  # fmt: skip
    settings |= {"offline_a": chosen, "published": published, "references_per_image": float(case.usable.sum(0).mean())}
    write_table(output_path, frame, ATTACK, {**settings, "blown_up": ""})


def _offline_a(attack: AttackSpec, paired: AttackFiles | None, models: tuple[Model, Model]) -> tuple[float, str]:
    """Return the configured weight, or the one that attacks the paired seed best, by AUC; of equals the smallest.

    The second value says why there is none, or is empty.
    """
    if not isinstance(attack.offline_a, str):
        return float(attack.offline_a), ""
    if paired is None:
        raise DataError(f"attack: offline_a: {PAIRED_SEED} needs the scores of another seed, but none were given")
    case = _read_case(paired, attack, models)
    reason = case.diverged()
    if reason:
        return math.nan, f"offline_a cannot be chosen on seed {paired.run.seed}: {reason}"

    def value(a: float) -> float:
        scores = case.rmia(gamma=attack.gamma, a=a, combine=attack.combine)
        return auc(scores, case.is_member, case.identities).value

    return max(_OFFLINE_A, key=value), ""


def _read_case(files: AttackFiles, attack: AttackSpec, models: tuple[Model, Model]) -> _Case:
    """Return what is known of the attacked model and its references, ``models`` saying which the first two must be."""
    assert files.run.n is not None
    splits, split_meta = read_table(files.splits[0], SPLITS)
    target = _read_losses(files.target, attack)
    references = [_read_losses(path, attack) for path in files.references]
    for losses, wanted in zip((target, references[0]), models, strict=True):
        check_split(losses.path, losses.model, files.splits[0], split_meta)
        _check_model(losses, wanted, files.run)
    _check_alike(target, references[0])
    run = files.run
    rows = query_rows(splits, dataset=run.dataset, seed=run.seed, max_reference=attack.max_reference)
    members = metric_rows(splits, files.run.n)["forget"]
    tested = np.concatenate([members, rows["test"]])
    asked = np.concatenate([tested, rows["reference"]])
    _check_present(target, asked, files.splits[0])
    usable = [np.ones(len(asked), dtype=bool)]
    usable += [_usable(losses, path, asked) for losses, path in zip(references[1:], files.splits[1:], strict=True)]
    loss = np.stack([losses.at(asked) for losses in references])
    loss[1:] = np.where(np.stack(usable)[1:, None], loss[1:], 0.0)  # what is not used need not be there
    identity = splits.set_index("image_id")["identity"].loc[tested].to_numpy(dtype=np.int64)
    return _Case(members, tested, target.at(asked), loss, np.stack(usable), identity)


def _read_losses(path: Path, attack: AttackSpec) -> _Losses:
    """Return the losses at ``path``, which must answer what ``attack`` asks."""
    table, meta = read_arrow(path, SCORES, columns=["image_id", "view", "loss"])
    views = {}
    for view in sorted(pc.unique(table.column("view")).to_pylist()):
        part = table.filter(pc.equal(table.column("view"), view))
        ids = ids_of(part)
        order = np.argsort(ids)
        views[int(view)] = (ids[order], part.column("loss").to_numpy().astype(np.float64)[order])
    wanted = list(range(attack.views + 1))
    if list(views) != wanted:
        raise DataError(f"{path} has the views {list(views)}, the attack needs {wanted}. Score the model again.")
    if meta.get("queries") != attack.queries():
        raise DataError(
            f"{path} answers {meta.get('queries')}, the attack asks {attack.queries()}. Delete it to score the model "
            "again."
        )
    return _Losses(path, views, dict(meta.get("model") or {}))


def _check_model(losses: _Losses, model: Model, run: Run) -> None:
    """Refuse scores of another model: a reference that saw the forget set would hide the leak."""
    wanted: dict[str, Any] = {"seed": run.seed} | ({} if model.serves_every_n else {"n": run.n}) | model.header
    found = {key: losses.model.get(key) for key in wanted}
    if found != wanted:
        raise DataError(f"{losses.path} is of another model than {model}: it has {found}, needed: {wanted}")


def _check_alike(target: _Losses, reference: _Losses) -> None:
    for view, (found, _) in target.views.items():
        differing = np.setxor1d(found, reference.views[view][0])
        if len(differing):
            raise DataError(
                f"{target.path} and {reference.path} have different images in view {view} ({len(differing)} are in one "
                f"only: {first_ids(differing)}). Delete the older file to score that model again."
            )


def _check_present(losses: _Losses, ids: npt.NDArray[np.int64], where: Path) -> None:
    for view, (known, _) in losses.views.items():
        missing = np.setdiff1d(ids, known)
        if len(missing):
            raise DataError(
                f"{losses.path}, view {view}: {len(missing)} images that the attack asks about by {where} are missing "
                f"({first_ids(missing)}). Delete it to score the model again."
            )


def _usable(losses: _Losses, splits_path: Path, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell for which images another seed's reference stands for a model that has not seen them: all views, no training.

    Validation images of that seed count as seen: they chose its best epoch.
    """
    splits, meta = read_table(splits_path, SPLITS)
    check_split(losses.path, losses.model, splits_path, meta)
    unseen = splits.loc[splits["role"] == "test", "image_id"].to_numpy(dtype=np.int64)
    usable: npt.NDArray[np.bool_] = np.isfinite(losses.at(ids)).all(axis=0) & np.isin(ids, unseen)
    return usable
