"""Which images are retain, forget, test, validation and support images of a request for ``n`` identities."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from oneshui.errors import ConfigError


def metric_rows(splits: pd.DataFrame, n: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the sorted image ids of each split of a request for the ``n`` first-ranked identities.

    Support images are in no training set, so neither retain nor forget has them; those of identities that are not
    part of this request belong to no split.

    Args:
        splits: a SPLITS table.
        n: number of identities that ask to be forgotten, at least 1.

    Returns:
        Image ids under ``retain``, ``forget``, ``test``, ``val`` and ``support``.

    Raises:
        ConfigError: n is below 1 or above the number of ranked identities.
    """
    ranked = splits.loc[splits["request_rank"].notna(), "identity"].nunique()
    if not 1 <= n <= ranked:
        raise ConfigError(
            f"n = {n} identities to forget, but the splits rank {ranked} (allowed: 1 to {ranked}). Change n in the "
            "config, or make splits with more forget identities."
        )
    rank = splits["request_rank"].astype("Float64").fillna(np.inf).to_numpy(dtype=np.float64)
    support = splits["is_support"].to_numpy(dtype=bool)
    role = splits["role"].to_numpy()
    train, requested = (role == "train") & ~support, rank < n
    masks = {
        "retain": train & ~requested,
        "forget": train & requested,
        "test": role == "test",
        "val": role == "val",
        "support": support & requested,
    }
    ids = splits["image_id"].to_numpy(dtype=np.int64)
    return {name: np.sort(ids[mask]) for name, mask in masks.items()}
