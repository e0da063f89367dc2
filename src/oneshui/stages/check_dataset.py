"""What a raw folder holds, beside what it should hold."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneshui.data.check import dataset_report, missing_report
from oneshui.data.layouts import annotation_files, read_annotations
from oneshui.data.probe import probe_images
from oneshui.files import write_text
from oneshui.log import logger
from oneshui.yaml_files import read_yaml


def check_dataset(
    folder: Path, published_path: Path, output_path: Path, *, dataset: str, layout: str, spec: Mapping[str, Any],
    n_threads: int,
) -> None:  # fmt: skip
    """Write a report, in Markdown, on all that a raw folder holds, beside what a complete copy holds.

    Whatever is missing or unreadable is reported, not refused: the folder, annotation files, images. The whole folder
    is looked at, not a subset of identities.

    Args:
        folder: raw folder of the dataset.
        published_path: resources/datasets.yaml.
        output_path: report to write.
        dataset: name of the dataset, for the heading.
        layout: the published dataset that this is a copy of; one that nobody has published is compared with nothing.
        spec: as for ``index_dataset``; layout, options and duplicate_distance are used.
        n_threads: threads that decode images.

    Raises:
        ConfigError: a value of ``spec`` or a published value is unknown or impossible.
        DataError: a row of an annotation file is malformed.
    """
    known = read_yaml(published_path).get(layout, {})
    needed = annotation_files(spec["layout"], "", spec["options"])
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        report = missing_report(dataset, folder, missing, known.get("where", ""))
    else:
        report = _report(folder, dataset, spec, known.get("expected") or {}, n_threads)
    write_text(output_path, report)
    for line in report.splitlines():
        logger.info("%s", line)


def _report(folder: Path, dataset: str, spec: Mapping[str, Any], expected: Mapping[str, float], n_threads: int) -> str:
    annotations = read_annotations(spec["layout"], folder, spec["options"])
    paths = annotations.frame["path"].tolist()
    probed = probe_images(folder, paths, n_threads=n_threads, progress=sys.stderr.isatty())
    return dataset_report(
        annotations, probed, dataset=dataset, expected=expected, duplicate_distance=spec["duplicate_distance"]
    )
