"""Every image of a raw folder that takes part, with its identity and label."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from oneshui.data.check import count_kinds, refuse_bad_images
from oneshui.data.index import build_index, choose_identities, pictures_id
from oneshui.data.layouts import annotation_files, read_annotations
from oneshui.data.pictures import SHOWN_OTHERWISE
from oneshui.data.probe import probe_images
from oneshui.files import content_hash, spec_hash
from oneshui.log import logger
from oneshui.schemas import INDEX, write_table
from oneshui.seeds import stream


def index_dataset(folder: Path, output_path: Path, *, dataset: str, spec: Mapping[str, Any], n_threads: int) -> None:
    """Write the index of a raw folder: every image that takes part, decoded once to see that it can be.

    Args:
        folder: raw folder of the dataset.
        output_path: index table (parquet) to write.
        dataset: name of the dataset; names the random stream that draws identities.
        spec: layout, options, identities (how many to draw at random, or null for all), min_images and
            duplicate_distance; an entry ``annotations`` (for the workflow to notice other files) is ignored.
        n_threads: threads that decode images.

    Raises:
        ConfigError: a value of ``spec`` is impossible.
        DataError: an annotation row is malformed, or images are missing or unreadable.
    """
    # before they are read: were they replaced meanwhile, the next plan would find the difference
    described_by = content_hash(annotation_files(spec["layout"], str(folder), spec["options"]))
    annotations = read_annotations(spec["layout"], folder, spec["options"])
    for note in annotations.notes:
        logger.warning("%s: %s", dataset, note)
    rng = stream("identities", dataset)
    chosen = choose_identities(annotations.frame, spec["identities"], spec["min_images"], rng)
    annotations = replace(annotations, frame=chosen)
    probed = probe_images(folder, annotations.frame["path"].tolist(), n_threads=n_threads, progress=sys.stderr.isatty())
    refuse_bad_images(probed, annotations, folder, dataset)
    index = build_index(annotations, probed, duplicate_distance=spec["duplicate_distance"])
    meta = {
        "task": annotations.task,
        "classes": list(annotations.classes),
        "dataset": dataset,
        "layout": spec["layout"],
        "spec": spec_hash({key: value for key, value in spec.items() if key != "annotations"}),
        "annotations": described_by,
        "pictures": pictures_id(index),
    }
    write_table(output_path, index, INDEX, meta)
    logger.info("%s: %d images of %d identities indexed", dataset, len(index), index["identity"].nunique())
    for kind, count in count_kinds(probed).items():
        level = logging.WARNING if kind in SHOWN_OTHERWISE else logging.INFO
        logger.log(level, "%s: %d of %d images %s", dataset, count, len(index), kind.label)
