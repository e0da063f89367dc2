"""From identities and images to the figure that shows faces; only where somebody asked for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oneshui.data.store import open_store
from oneshui.report.figures.hardest import hardest
from oneshui.report.figures.save import save_figure
from oneshui.report.identities import hardest_identities, identity_points
from oneshui.schemas import IDENTITIES, SPLITS, read_table


def make_faces_figure(
    identity_paths: Sequence[str | Path],
    splits_paths: Sequence[str | Path],
    images_path: str | Path,
    output_pdf: str | Path,
    output_png: str | Path,
    output_csv: str | Path,
    *,
    spec: Mapping[str, Any],
) -> None:
    """Write a figure of the identities whose photo is least like their other images. It shows faces.

    Args:
        identity_paths: what is known of single identities.
        splits_paths: of the seeds.
        images_path: packed images of the dataset.
        output_pdf: the figure for a paper.
        output_png: the figure for a screen.
        output_csv: identities and distances.
        spec: ``blocks`` with one dataset and n. Whether faces may be shown is asked before a job is planned
            (``oneshui.inputs.Results.faces_inputs``).

    Raises:
        DataError: an input is damaged, or nobody is there to show.
    """
    (block,) = spec["blocks"]
    points = identity_points(read_table(path, IDENTITIES) for path in identity_paths)
    chosen = hardest_identities(points, str(block["dataset"]), int(block["n"]))
    splits = {int(meta["seed"]): frame for frame, meta in (read_table(path, SPLITS) for path in splits_paths)}
    pixels = open_store(Path(images_path))
    shown = []
    for seed, identity in zip(chosen["seed"], chosen["identity"], strict=True):
        own = splits[seed][splits[seed]["identity"] == identity].sort_values("image_id")
        is_support = own["is_support"].to_numpy(dtype=bool)
        photo, others = own.loc[is_support, "image_id"].to_numpy(), own.loc[~is_support, "image_id"].to_numpy()
        shown.append((np.asarray(pixels[photo[0]]), np.asarray(pixels[others])))
    figure, points = hardest(chosen, shown)
    save_figure(figure, points, output_pdf, path_png=output_png, path_csv=output_csv)
