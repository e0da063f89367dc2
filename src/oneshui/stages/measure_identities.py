"""Which identities are hard to forget and whom unlearning harms, from files to a table: no torch, no GPU."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from oneshui.errors import DataError
from oneshui.metrics.identities import centroids, identity_measure, nearest_distances
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roles import metric_rows
from oneshui.runs import Model, Run
from oneshui.schemas import IDENTITIES, SPLITS, read_table, write_table
from oneshui.stages.rows import (
    ImageRows,
    check_split,
    read_features,
    read_labels,
    read_scores,
    require,
    sorted_rows,
)

logger = logging.getLogger(__name__)


def measure_identities(
    scores_path: Path, pretrain_scores_path: Path, retrain_scores_path: Path, pretrain_features_path: Path,
    splits_path: Path, index_path: Path, output_path: Path, *, run: Run, model: Model, max_reference: int,
) -> None:  # fmt: skip
    """Write how three models do on the images of each identity, and how far the identity is (schema IDENTITIES).

    Distances are Euclidean, between features of the original model, as the paper says; they are not normalised. A
    centroid is the mean of an identity's features. Forget identities: from the support photo to the centroid of the
    forget images. Retain identities: from their centroid to the nearest centroid of a forget identity. They are
    measured on all their retain images, but their centroid is that of the retain images whose features attacks ask
    for; those that have none are left out, and counted in the log.

    Args:
        scores_path: scores of the unlearned model; view 0 is measured.
        pretrain_scores_path: scores of the original model.
        retrain_scores_path: scores of the retrained model.
        pretrain_features_path: features of the original model.
        splits_path: of the run.
        index_path: of the dataset; has the labels.
        output_path: table to write. It is empty, with ``blown_up`` in its metadata, if a model has diverged.
        run: dataset, request size and seed.
        model: the unlearned model.
        max_reference: of the configured attack; says which features there are.

    Raises:
        DataError: the files do not belong together, an image is missing, or a forget identity has no forget image or
            not one support photo.
        ConfigError: the splits have fewer than ``run.n`` identities to forget.
    """
    assert run.n is not None
    splits, split_meta = read_table(splits_path, SPLITS)
    rows = metric_rows(splits, run.n)
    labels, task, classes = read_labels(index_path)
    require(splits["image_id"].to_numpy(dtype=np.int64), labels.ids, splits_path, index_path)
    models = {}
    for name, path in (("value", scores_path), ("pretrain", pretrain_scores_path), ("retrain", retrain_scores_path)):
        scores, made = read_scores(path, classes)
        check_split(path, made, splits_path, split_meta)
        require(np.concatenate([rows["forget"], rows["retain"]]), scores.ids, splits_path, path)
        models[name] = scores
    features, made = read_features(pretrain_features_path)
    check_split(pretrain_features_path, made, splits_path, split_meta)
    queries = query_rows(splits, dataset=run.dataset, seed=run.seed, max_reference=max_reference)
    known = np.concatenate([queries["asked"], queries["fit"], rows["support"]])
    require(known, features.ids, splits_path, pretrain_features_path)
    meta = {**asdict(run), "row": str(model), "task": task}
    diverged = [scores.path for scores in models.values() if not np.isfinite(scores.values["loss"]).all()]
    if not np.isfinite(features.take(known)["features"]).all():
        diverged.append(pretrain_features_path)
    if diverged:
        logger.warning("%s: the model has diverged and its identities cannot be measured", diverged[0])
        empty = pd.DataFrame({name: [] for name in IDENTITIES.columns})
        write_table(output_path, empty, IDENTITIES, {**meta, "blown_up": True})
        return
    owners = sorted_rows(
        splits_path,
        splits["image_id"].to_numpy(dtype=np.int64),
        {"identity": splits["identity"].to_numpy(dtype=np.int64)},
    )
    distances = _distances(features, owners, rows, known)
    parts = [_part(name, models, labels, owners, rows[name], distances[name]) for name in ("forget", "retain")]
    write_table(output_path, pd.concat(parts, ignore_index=True), IDENTITIES, {**meta, "blown_up": False})


def _distances(
    features: ImageRows, owners: ImageRows, rows: dict[str, npt.NDArray[np.int64]], known: npt.NDArray[np.int64]
) -> dict[str, dict[int, float]]:
    """Return the distance of each forget identity, and of each retain identity with features, by identity."""

    def of(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        return features.take(ids)["features"].astype(np.float64), owners.take(ids)["identity"]

    forgotten, forget_centroids = centroids(*of(rows["forget"]))
    photos, asking = of(rows["support"])
    order = np.argsort(asking)
    if asking[order].tolist() != forgotten.tolist():
        photos_of = pd.Series(asking).value_counts().reindex(np.union1d(forgotten, asking), fill_value=0)
        wrong = np.union1d(photos_of.index[photos_of != 1], np.setdiff1d(asking, forgotten))
        raise DataError(
            f"{owners.path}: identities {wrong[:5].tolist()} of the request have no forget image, or not exactly one "
            "support photo. Delete it to make it again."
        )
    gaps = np.linalg.norm(photos[order] - forget_centroids, axis=1)
    distances = {"forget": dict(zip(forgotten.tolist(), gaps.tolist(), strict=True)), "retain": {}}
    retained = np.intersect1d(rows["retain"], known)
    if len(retained):
        identities, centres = centroids(*of(retained))
        nearest = nearest_distances(centres, forget_centroids)
        distances["retain"] = dict(zip(identities.tolist(), nearest.tolist(), strict=True))
    return distances


def _part(
    name: str, models: dict[str, ImageRows], labels: ImageRows, owners: ImageRows, ids: npt.NDArray[np.int64],
    distances: dict[int, float],
) -> pd.DataFrame:  # fmt: skip
    """Return the rows of one set: one per identity that has a distance, sorted by identity."""
    identities = owners.take(ids)["identity"]
    order = np.argsort(identities, kind="stable")
    found, starts = np.unique(identities[order], return_index=True)
    if len(found) > len(distances):
        logger.info(
            "%d of %d %s identities have no image whose features are known and are left out (raise "
            "attack.max_reference to have more)", len(found) - len(distances), len(found), name,
        )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for identity, images in zip(found.tolist(), np.split(ids[order], starts[1:]), strict=True):
        if identity not in distances:
            continue
        entry = {"identity": identity, "set": name, "n_images": len(images), "distance": distances[identity]}
        label = labels.take(images)["label"]
        for model, scores in models.items():
            try:
                entry[model], entry["measure"] = identity_measure(scores.take(images)["logits"], label)
            except DataError as error:
                raise DataError(f"{scores.path}, identity {identity}: {error}") from error
        rows.append(entry)
    return pd.DataFrame(rows, columns=list(IDENTITIES.columns))
