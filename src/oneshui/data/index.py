"""The index of a dataset: one row per image, with stable numbers for images, identities and duplicates."""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from oneshui.data.layouts import Annotations
from oneshui.data.probe import duplicate_groups
from oneshui.errors import ConfigError, DataError
from oneshui.schemas import INDEX


def build_index(annotations: Annotations, probed: pd.DataFrame, *, duplicate_distance: int) -> pd.DataFrame:
    """Return the index table (columns of ``schemas.INDEX``).

    Images are numbered in the sorted order of their paths and identities in the natural order of their names ("2"
    before "10"), so that the numbers do not depend on the order of rows in the annotation files.

    Args:
        annotations: the images that take part.
        probed: what ``probe.probe_images`` found for the same images, in any order.
        duplicate_distance: largest Hamming distance (bits) of two hashes that count as the same picture.

    Raises:
        DataError: an image was not probed, or could not be read.
        ConfigError: ``duplicate_distance`` is out of range.
    """
    frame = annotations.frame.merge(probed, on="path", how="left", validate="one_to_one", indicator="probed")
    bad = frame[(frame["probed"] != "both") | frame["error"].notna()]
    if len(bad):
        row = bad.iloc[0]
        problem = row["error"] if row["probed"] == "both" else "not probed"
        raise DataError(
            f"{len(bad)} of {len(frame)} images cannot be indexed, first: {row['path']} ({row['source']}): {problem}. "
            "Every image must be readable: replace the file, or drop its row."
        )
    frame = frame.sort_values("path", ignore_index=True)
    frame["image_id"] = np.arange(len(frame), dtype=np.int32)
    names = natural_order(frame["identity_name"].unique())
    frame["identity"] = frame["identity_name"].map({name: i for i, name in enumerate(names)}).astype(np.int32)
    frame["duplicate_group"] = duplicate_groups(frame["phash"].to_numpy(), duplicate_distance)
    columns = [name for name in INDEX.columns if name in frame or name not in INDEX.optional]
    return frame[columns].astype({"width": np.int32, "height": np.int32})


def pictures_id(index: pd.DataFrame) -> str | None:
    """Return 16 hex digits that name what the image files of an index hold, or None for an index that does not say.

    Equal for equal files under equal paths, whatever folder they lie in. Splits, packed images and models carry it, so
    that no model is measured on other pictures than it was trained on.
    """
    if "content" not in index.columns:
        return None
    rows = sorted(zip(index["path"], index["content"].tolist(), strict=True))
    text = "".join(f"{content:016x} {path}\n" for path, content in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def choose_identities(
    frame: pd.DataFrame, count: int | None, min_images: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return the rows of the chosen identities, in their order in ``frame``.

    The choice depends on the identities and their numbers of images only, not on the order of rows, and a larger
    ``count`` with the same stream keeps the identities of a smaller one.

    Args:
        frame: annotations; only the column identity_name is looked at.
        count: number of identities to draw at random, at least 1; None takes all.
        min_images: identities with fewer images are left out; 1 admits all.
        rng: stream of the draw; not touched where ``count`` is None.

    Raises:
        ConfigError: ``count`` or ``min_images`` is below 1, or there are too few identities.
    """
    if min_images < 1 or (count is not None and count < 1):
        raise ConfigError(
            f"identities = {count}, min_images = {min_images}: allowed are whole numbers from 1 (identities: or null "
            "for all). Correct them in the dataset's configuration."
        )
    n_images = frame["identity_name"].value_counts()
    eligible = natural_order(n_images.index[n_images >= min_images])
    if len(eligible) < (count or 1):
        raise ConfigError(
            f"identities = {count or 'all'}, but only {len(eligible)} of {len(n_images)} identities have at least "
            f"{min_images} images. Lower identities or min_images in the dataset's configuration."
        )
    if count is not None:
        eligible = [eligible[i] for i in rng.permutation(len(eligible))[:count]]
    return frame[frame["identity_name"].isin(eligible)].reset_index(drop=True)


def natural_order(names: Iterable[str]) -> list[str]:
    """Return names sorted with the numbers in them compared as numbers: "p2" before "p10"."""
    return sorted(names, key=_natural_key)


def _natural_key(name: str) -> tuple[list[str | int], str]:
    # splitting at digits alternates text and number, so that like is compared with like; the name itself decides
    # between "7" and "007"
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
