"""What a raw folder holds, beside what it should hold."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from oneshui.data.check import dataset_report
from oneshui.data.layouts import read_annotations
from oneshui.data.probe import probe_images
from oneshui.files import write_text
from oneshui.log import logger


def check_dataset(
    folder: Path, published_path: Path, output_path: Path, *, dataset: str, layout: str, spec: Mapping[str, Any],
    n_threads: int,
) -> None:  # fmt: skip
    """Write a report, in Markdown, on all that a raw folder holds, beside what a complete copy holds.

    Missing and unreadable images are reported, not refused. The whole folder is looked at, not a subset of identities.

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
        DataError: an annotation file is missing or a row in it is malformed.
    """
    published = yaml.safe_load(published_path.read_text(encoding="utf-8"))
    annotations = read_annotations(spec["layout"], folder, spec["options"])
    paths = annotations.frame["path"].tolist()
    probed = probe_images(folder, paths, n_threads=n_threads, progress=sys.stderr.isatty())
    report = dataset_report(
        annotations, probed, dataset=dataset, expected=published.get(layout, {}).get("expected") or {},
        duplicate_distance=spec["duplicate_distance"],
    )  # fmt: skip
    write_text(output_path, report)
    for line in report.splitlines():
        logger.info("%s", line)
