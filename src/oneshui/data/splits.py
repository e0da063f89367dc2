"""Which identities are trained on, and which of them ask to be forgotten (paper, section 3.3)."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from oneshui.config import SplitSpec
from oneshui.errors import ConfigError, DataError
from oneshui.seeds import stream

ROLES = ("train", "val", "test")


def split_identities(index: pd.DataFrame, spec: SplitSpec, *, dataset: str, seed: int) -> pd.DataFrame:
    """Return one row per image that takes part (schema SPLITS), sorted by image_id.

    Identities are shuffled by the stream ("split", dataset, seed) and cut into train, val and test where the number
    of images comes closest to the asked share, so that a role misses its share by at most one identity's images.
    Requests are nested: the forget identities of n are those of ``request_rank`` < n. One random image of each
    ranked identity is its support image; with ``reserve_supports: all`` one of each train identity that has
    ``min_images``.

    Args:
        index: columns image_id, identity, duplicate_group; in any order of rows.
        spec: shares and sizes.
        dataset: name for the random stream.
        seed: of the run, >= 0.

    Raises:
        ConfigError: too few identities for the split or for ``n_ranked``.
    """
    frame = index[["image_id", "identity", "duplicate_group"]].sort_values("image_id")
    if spec.dedup:
        frame = frame.drop_duplicates("duplicate_group")
    sizes = frame.groupby("identity").size().sort_index()
    order = stream("split", dataset, seed).permutation(sizes.index.to_numpy())
    role_of = _assign_roles(order, sizes.loc[order].to_numpy(), spec, dataset)
    train = sizes[[identity for identity in sizes.index if role_of[identity] == "train"]]
    ranked = _rank_identities(train, spec, dataset=dataset, seed=seed)
    asked_with = ranked if spec.reserve_supports == "ranked" else train.index[train >= spec.min_images].tolist()
    support = _draw_support(frame, asked_with, dataset=dataset, seed=seed)
    rank_of = {identity: rank for rank, identity in enumerate(ranked)}
    return pd.DataFrame(
        {
            "image_id": frame["image_id"].astype("int32"),
            "identity": frame["identity"].astype("int32"),
            "role": frame["identity"].map(role_of),
            "request_rank": frame["identity"].map(rank_of).astype("Int16"),
            "is_support": frame["image_id"].isin(support),
        }
    ).reset_index(drop=True)


def fold_of(splits: pd.DataFrame, fold: int, folds: int, *, dataset: str, seed: int) -> np.ndarray:
    """Return the train identities of fold number ``fold`` of ``folds``, which are equally large within one identity.

    Raises:
        ConfigError: there is no such fold, or there are fewer train identities than folds.
    """
    if not 0 <= fold < folds:
        raise ConfigError(f"{dataset}: fold = {fold}, allowed: 0 to {folds - 1} of {folds} folds")
    people = np.unique(splits.loc[splits["role"] == "train", "identity"].to_numpy(dtype=np.int64))
    if len(people) < folds:
        raise ConfigError(f"{dataset}: {len(people)} train identities cannot be cut into {folds} folds. Lower folds.")
    return np.sort(stream("folds", dataset, seed, folds).permutation(people)[fold::folds])


def _assign_roles(order: np.ndarray, sizes: np.ndarray, spec: SplitSpec, dataset: str) -> dict[int, str]:
    """Cut the shuffled identities where the running number of images is closest to the asked shares."""
    images = np.concatenate([[0], np.cumsum(sizes)])
    cuts = [int(np.abs(images - share * images[-1]).argmin()) for share in (spec.train, spec.train + spec.val)]
    bounds = [0, *cuts, len(order)]
    if any(low >= high for low, high in pairwise(bounds)):
        raise ConfigError(
            f"{dataset}: {len(order)} identities with {images[-1]} images are too few to split into train "
            f"{spec.train}, val {spec.val} and test with no identity in two roles. Add identities."
        )
    return {
        int(identity): role
        for role, (low, high) in zip(ROLES, pairwise(bounds), strict=True)
        for identity in order[low:high]
    }


def _rank_identities(train: pd.Series, spec: SplitSpec, *, dataset: str, seed: int) -> list[int]:
    """Return the identities that can ask to be forgotten, in the order of their request_rank."""
    shuffled = [int(i) for i in stream("rank", dataset, seed).permutation(train.index.to_numpy())]
    able = [identity for identity in shuffled if train[identity] >= spec.min_images]
    first = next((identity for identity in able if train[identity] >= spec.min_images_first), None)
    if first is None or len(able) < spec.n_ranked:
        has_first = "one" if first is not None else "none"
        raise ConfigError(
            f"{dataset}: split.n_ranked = {spec.n_ranked} identities are to be ranked, but only {len(able)} of "
            f"{len(train)} train identities have at least {spec.min_images} images ({has_first} has at least "
            f"{spec.min_images_first}). Lower n_ranked, min_images or min_images_first, or add images."
        )
    return [first, *(identity for identity in able if identity != first)][: spec.n_ranked]


def _draw_support(frame: pd.DataFrame, identities: list[int], *, dataset: str, seed: int) -> set[int]:
    """Return one image of each identity; its draw does not depend on the others."""
    images = frame[frame["identity"].isin(identities)].groupby("identity")["image_id"]
    ids_of = {int(identity): ids.to_numpy() for identity, ids in images}  # type: ignore[arg-type]  # stubs: Hashable
    return {int(stream("support", dataset, seed, identity).choice(ids)) for identity, ids in ids_of.items()}


def check_splits(splits: pd.DataFrame, index: pd.DataFrame, where: str | Path, index_where: str | Path) -> None:
    """Refuse an index whose rows are not those of packed images, and splits of another one or of people in two roles.

    Args:
        splits: columns image_id, identity and role.
        index: columns image_id and identity.
        where: the file of the splits, for the message.
        index_where: the file of the index.

    Raises:
        DataError: it names the first image or person.
    """
    if not np.array_equal(index["image_id"].to_numpy(), np.arange(len(index))):
        raise DataError(
            f"{index_where}: image_id is not 0, 1, 2 ... in the order of the rows. Delete it to make it again."
        )
    ids, people = splits["image_id"].to_numpy(), splits["identity"].to_numpy()
    unknown = ids[ids >= len(index)]
    if len(unknown):
        raise DataError(
            f"{where}: image_id {unknown[0]} is not in {index_where}, which lists {len(index)} images. Delete it to "
            "split again."
        )
    other = ids[index["identity"].to_numpy()[ids] != people]
    if len(other):
        raise DataError(
            f"{where}: image_id {other[0]} is of another person in {index_where}. Delete it to split again."
        )
    roles = splits[["identity", "role"]].drop_duplicates()["identity"]
    if roles.duplicated().any():
        person = roles[roles.duplicated()].iloc[0]
        raise DataError(f"{where}: identity {person} is in two of {', '.join(ROLES)}. Delete it to split again.")


def content_id(index: pd.DataFrame, frame: pd.DataFrame, classes: Sequence[str]) -> str:
    """Return 16 hex digits that name who is where with which label: equal for equal images, labels, roles and requests.

    A model carries the id of the split it was trained on, so that it is never measured on another one.
    """
    rows = frame.merge(index[["image_id", "path", "identity_name", "label"]], on="image_id").sort_values("image_id")
    rows["label"] = [" ".join(map(str, np.atleast_1d(label))) for label in rows["label"]]
    columns = ["path", "identity_name", "label", "role", "request_rank", "is_support"]
    text = "\n".join(classes) + "\n" + rows[columns].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def left_out(index: pd.DataFrame, splits: pd.DataFrame) -> tuple[int, int, int, int]:
    """Return how many images a split leaves out of how many, and how many identities of how many."""
    images, people = len(index), int(index["identity"].nunique())
    return images - len(splits), images, people - int(splits["identity"].nunique()), people


def overlap(index: pd.DataFrame, splits: pd.DataFrame) -> dict[str, int]:
    """Return how many duplicate groups, and images in them, straddle roles or a support image and its identity's rest.

    With ``dedup`` off this says how leaky the split is: near-identical pictures of the test set were trained on.
    """
    frame = splits.merge(index[["image_id", "duplicate_group"]], on="image_id")
    part = frame["role"].where(~frame["is_support"], "support")
    parts = part.groupby(frame["duplicate_group"]).nunique()
    leaky = parts[parts > 1].index
    return {"groups": len(leaky), "images": int(frame["duplicate_group"].isin(leaky).sum())}
