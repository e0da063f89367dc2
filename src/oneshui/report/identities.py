"""What is known of single identities, over methods and seeds. An identity is a number: nobody has a name here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.metrics.identities import Correlation
from oneshui.runs import Model

Tables = Iterable[tuple[pd.DataFrame, Mapping[str, Any]]]
Setting = tuple[str, int]


def identity_points(tables: Tables) -> pd.DataFrame:
    """Return one row per identity, method, seed and set.

    Args:
        tables: of schema IDENTITIES with their metadata, in any order; a model that diverged has no rows.

    Returns:
        dataset, n, method, seed, set, identity, n_images, measure, distance; ``model`` in percent, and ``value``, the
        difference in percentage points: to the retrained model for forget identities, to the original one for retain
        identities.

    Raises:
        DataError: a table is of a model that is not ``pretrain/METHOD`` or a trained one, or two are of the same.
    """
    parts: dict[tuple[str, int, str, int], pd.DataFrame] = {}
    for frame, meta in tables:
        model = Model.of(str(meta["row"]))
        method = model.method_name
        dataset, n, _, seed = key = (str(meta["dataset"]), int(meta["n"]), method, int(meta["seed"]))
        if model.origin not in TRAINED or (not model.is_trained and model.origin != "pretrain"):
            raise DataError(
                f"identities of {meta['row']} ({dataset}, n = {n}): allowed are pretrain/METHOD and ceiling"
            )
        if key in parts:
            raise DataError(f"two tables of identities of {meta['row']} on {dataset}, n = {n}, seed {seed}")
        base = frame["retrain"].where(frame["set"] == "forget", frame["pretrain"])
        parts[key] = frame[["set", "identity", "n_images", "measure", "distance"]].assign(
            dataset=dataset, n=n, method=method, seed=seed, model=100 * frame["value"],
            value=100 * (frame["value"] - base),
        )  # fmt: skip
    filled = [part for part in parts.values() if len(part)]
    columns = ["dataset", "n", "method", "seed", "set", "identity"]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


def in_setting(points: pd.DataFrame, dataset: str, n: int) -> pd.DataFrame:
    """Return the points of a setting."""
    return points[(points["dataset"] == dataset) & (points["n"] == n)]


def top_methods(table: pd.DataFrame, dataset: str, n: int, count: int = 3) -> list[str]:
    """Return the best unlearning methods of a setting by mean ToW, best first.

    Only methods that do not use the training data count. Figures 4 and 5 ask what follows from where a support photo
    lies. A method that also trains on forget images does not depend on the photo. One that trains on retain images
    mends the harm that is to be seen.

    Args:
        table: columns dataset, n, method, access_to_data, tow_mean, as of ``oneshui.report.tables.make_table``.
        dataset: of the setting.
        n: of the setting.
        count: most methods to return. The paper takes three (sections 5.4 and 5.5).

    Returns:
        Methods with a ToW in every seed; of equal ones the first in the table comes first.

    Raises:
        DataError: the table has no such setting.
    """
    rows = in_setting(table, dataset, n)
    if rows.empty:
        found = sorted(set(zip(table["dataset"].astype(str), table["n"].astype(int), strict=True)))
        raise DataError(f"no results of {dataset}, n = {n} in the table to choose methods from; there are: {found}")
    able = rows[~rows["method"].isin(TRAINED) & ~rows["access_to_data"].astype(bool) & rows["tow_mean"].notna()]
    return [str(name) for name in able.sort_values("tow_mean", ascending=False, kind="stable")["method"].head(count)]


def mean_points(
    points: pd.DataFrame, setting: Setting, methods: Sequence[str], seeds: Sequence[int], which: str
) -> pd.DataFrame:
    """Return one row per identity and seed of a setting and set: ``value`` is the mean over methods.

    Raises:
        DataError: a method lacks a seed or diverged in one, or the methods' tables contradict each other.
    """
    where = f"{setting[0]} n = {setting[1]}"
    own = in_setting(points, *setting)
    found = set(zip(own["method"], own["seed"], strict=True))
    lacking = [f"pretrain/{name} of seed {seed}" for name in methods for seed in seeds if (name, seed) not in found]
    if lacking:
        raise DataError(
            f"{where}: no table of identities of {', '.join(lacking)}, or its model has diverged; a mean must not "
            "stand for fewer models than its neighbours. Leave out the method."
        )
    own = own[(own["set"] == which) & own["method"].isin(methods) & own["seed"].isin(seeds)]
    # what is grouped by does not depend on the unlearned model: a method that disagrees makes a group of its own
    same = ["seed", "identity", "measure", "n_images", "distance"]
    means = own.groupby(same, as_index=False)["value"].agg(["mean", "size"]).rename(columns={"mean": "value"})
    if set(means["seed"]) != set(seeds) or (means["size"] != len(methods)).any():
        raise DataError(
            f"{where}: the tables of {', '.join(methods)} have no {which} identities in some seed, or disagree on them "
            "or their distances: they belong to different runs. Delete them to make them again."
        )
    return means.drop(columns="size")


def hardest_identities(points: pd.DataFrame, dataset: str, n: int, count: int = 5) -> pd.DataFrame:
    """Return the forget identities whose support photo is farthest from the centroid of their forget images.

    Distances do not depend on the unlearned model, so that points of one method are enough. An identity of several
    seeds is taken once, at its largest distance.

    Returns:
        At most ``count`` rows, the farthest first: dataset, n, seed, identity, distance.

    Raises:
        DataError: there is no forget identity.
    """
    own = in_setting(points, dataset, n)
    own = own[own["set"] == "forget"]
    if own.empty:
        raise DataError(f"no table of identities of {dataset} n = {n}: there is nobody to show")
    ordered = own.sort_values(["distance", "seed", "identity"], ascending=[False, True, True])
    columns = ["dataset", "n", "seed", "identity", "distance"]
    return ordered.drop_duplicates("identity")[columns].head(count).reset_index(drop=True)


def correlation_text(found: Correlation) -> str:
    """Return a correlation with its 95% interval, or that there is none."""
    if math.isnan(found.value):
        return "none"
    interval = "no interval" if math.isnan(found.low) else f"[{found.low:z.2f}, {found.high:z.2f}]"
    return f"{found.value:z.2f} {interval}"
