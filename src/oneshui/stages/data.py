"""Stages that turn a raw folder into tables."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from oneshui.config import SplitSpec, SyntheticSpec
from oneshui.data import pack, splits
from oneshui.data.index import build_index, choose_identities
from oneshui.data.layouts import Annotations, read_annotations
from oneshui.data.probe import duplicate_groups, probe_images
from oneshui.data.raw_layouts import write_raw
from oneshui.data.request import build_request, build_wrong_photos
from oneshui.errors import ConfigError, DataError
from oneshui.files import spec_hash, write_text
from oneshui.log import logger
from oneshui.schemas import INDEX, REQUEST, SPLITS, read_table, write_table
from oneshui.seeds import stream

_N_NAMED = 5  # bad images that an error or a report names
_N_CLASSES_SHOWN = 20
_EXPECTED = ("images", "identities", "images_per_identity")


def index_dataset(
    folder: str | Path, output_path: str | Path, *, dataset: str, spec: Mapping[str, Any], n_threads: int
) -> None:
    """Write the index of a raw folder: every image that takes part, decoded once to see that it can be.

    Args:
        folder: raw folder of the dataset.
        output_path: index table (parquet) to write.
        dataset: name of the dataset; names the random stream that draws identities.
        spec: layout, options, identities (how many to draw at random, or null for all), min_images and
            duplicate_distance.
        n_threads: threads that decode images.

    Raises:
        ConfigError: a value of ``spec`` is impossible.
        DataError: an annotation row is malformed, or images are missing or unreadable.
    """
    folder = Path(folder)
    annotations = _read(folder, spec)
    rng = stream("identities", dataset)
    chosen = choose_identities(annotations.frame, _value(spec, "identities"), _value(spec, "min_images"), rng)
    annotations = replace(annotations, frame=chosen)
    probed = _probe(folder, annotations, n_threads)
    _refuse_bad_images(probed, annotations, folder, dataset)
    index = build_index(annotations, probed, duplicate_distance=_value(spec, "duplicate_distance"))
    meta = {
        "task": annotations.task,
        "classes": list(annotations.classes),
        "dataset": dataset,
        "layout": _value(spec, "layout"),
        "spec": spec_hash(dict(spec)),
    }
    write_table(output_path, index, INDEX, meta)
    logger.info("%s: %d images of %d identities indexed", dataset, len(index), index["identity"].nunique())


def render_faces(marker_path: str | Path, *, layout: str, spec: Mapping[str, Any]) -> None:
    """Render a synthetic dataset into the folder of ``marker_path``, as users have it in the raw ``layout``.

    The folder is ours and is emptied first; the marker is written last, once everything is there.

    Args:
        marker_path: small JSON file that stands for the whole folder.
        layout: celeba, celebahq, mufac, manifest or synthetic.
        spec: keys of ``SyntheticSpec``.
    """
    folder = Path(marker_path).parent
    shutil.rmtree(folder, ignore_errors=True)
    write_raw(SyntheticSpec.from_dict(spec), folder, layout)
    write_text(marker_path, json.dumps({"layout": layout, "spec": dict(spec)}, indent=1) + "\n")


def pack_images(
    folder: str | Path, index_path: str | Path, output_path: str | Path, *, stored_px: Sequence[int], n_threads: int
) -> None:
    """Decode every image of an index once into one array of uint8 (N, 3, height, width).

    Args:
        folder: raw folder of the dataset.
        index_path: index of the dataset.
        output_path: images.npy to write.
        stored_px: height and width of the stored images, px.
        n_threads: threads that decode images.

    Raises:
        DataError: an image is missing or cannot be decoded.
    """
    index, _ = read_table(index_path, INDEX, ["image_id", "path"])
    height, width = stored_px
    paths = index["path"].tolist()
    pack.pack_images(Path(folder), paths, Path(output_path), height=height, width=width, n_threads=n_threads)


def split_identities(
    index_path: str | Path, output_path: str | Path, *, dataset: str, seed: int, spec: Mapping[str, Any]
) -> None:
    """Write which images are trained on, validated and tested with, and who can ask to be forgotten.

    Args:
        index_path: index of the dataset.
        output_path: splits table to write; its metadata holds ``content``, which names the split, and how many
            near-identical pictures straddle roles.
        dataset: name of the dataset, for the random streams.
        seed: of the run.
        spec: keys of ``SplitSpec``.

    Raises:
        ConfigError: too few identities for the split or the requests.
    """
    index, index_meta = read_table(index_path, INDEX)
    frame = splits.split_identities(index, SplitSpec.from_dict(spec), dataset=dataset, seed=seed)
    overlap = splits.overlap(index, frame)
    if overlap["images"]:
        logger.warning(
            "%s seed %d: %d near-identical pictures in %d groups straddle train, val, test or support; set "
            "split.dedup: true to keep one of each", dataset, seed, overlap["images"], overlap["groups"]
        )  # fmt: skip
    meta = {"dataset": dataset, "seed": seed, "spec": spec_hash(dict(spec)), "overlap": overlap}
    write_table(output_path, frame, SPLITS, {**meta, "content": splits.content_id(index, frame, index_meta["classes"])})


def export_request(
    index_path: str | Path,
    images_path: str | Path,
    splits_path: str | Path,
    output_path: str | Path,
    *,
    n: int,
    wrong_photos: bool,
) -> None:
    """Write the request of the first ``n`` ranked identities: one photo each, its bytes inside.

    Args:
        index_path: index of the dataset.
        images_path: packed images.
        splits_path: of the seed.
        output_path: request to write.
        n: number of identities.
        wrong_photos: put photos of other people in their place: the control that shows whether the photo matters.

    Raises:
        ConfigError: fewer than ``n`` identities are ranked.
    """
    index, meta = read_table(index_path, INDEX)
    frame, split_meta = read_table(splits_path, SPLITS)
    pixels = np.load(images_path, mmap_mode="r", allow_pickle=False)
    if wrong_photos:
        request = build_wrong_photos(index, frame, pixels, n, dataset=split_meta["dataset"], seed=split_meta["seed"])
    else:
        request = build_request(index, frame, pixels, n)
    kept = {key: meta[key] for key in ("task", "classes", "dataset")}
    kept |= {"n": n, "seed": split_meta["seed"], "splits": split_meta["content"], "wrong_photos": wrong_photos}
    write_table(output_path, request, REQUEST, kept)


def expected_counts(path: str | Path, layout: str) -> dict[str, float] | None:
    """Return what a complete copy of the dataset in ``layout`` holds, from the table of published datasets."""
    published = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    expected: dict[str, float] | None = published.get(layout, {}).get("expected")
    return expected


def check_dataset(
    folder: str | Path,
    output_path: str | Path,
    *,
    dataset: str,
    spec: Mapping[str, Any],
    expected: Mapping[str, float] | None,
    n_threads: int,
) -> str:
    """Write and return a report, in Markdown, on all that a raw folder holds, beside what it should hold.

    Missing and unreadable images are reported, not refused. The whole folder is looked at, not a subset of identities.

    Args:
        folder: raw folder of the dataset.
        output_path: report to write.
        dataset: name of the dataset, for the heading.
        spec: as for ``index_dataset``; layout, options and duplicate_distance are used.
        expected: published values: any of images, identities and images_per_identity (mean, to one decimal); or None.
        n_threads: threads that decode images.

    Raises:
        ConfigError: a value of ``spec`` or a key of ``expected`` is unknown or impossible.
        DataError: an annotation file is missing or a row in it is malformed.
    """
    folder = Path(folder)
    unknown = sorted(set(expected or {}) - set(_EXPECTED))
    if unknown:
        raise ConfigError(f"{dataset}: unknown expected values {unknown}, allowed: {', '.join(_EXPECTED)}.")
    annotations = _read(folder, spec)
    probed = _probe(folder, annotations, n_threads)
    facts = [
        *_identity_facts(annotations.frame, expected or {}),
        *_file_facts(probed),
        *_duplicate_facts(annotations.frame, probed, _value(spec, "duplicate_distance")),
        *_label_facts(annotations),
    ]
    report = _markdown(f"Dataset check: {dataset}", facts, _bad_images(probed, annotations))
    _publish(report, output_path)
    return report


def _publish(report: str, path: str | Path) -> None:
    write_text(path, report)
    for line in report.splitlines():
        logger.info("%s", line)


def _value(spec: Mapping[str, Any], key: str) -> Any:
    if key not in spec:
        raise ConfigError(f"the dataset's configuration lacks {key}. It has: {', '.join(sorted(spec))}. Add it.")
    return spec[key]


def _read(folder: Path, spec: Mapping[str, Any]) -> Annotations:
    return read_annotations(_value(spec, "layout"), folder, _value(spec, "options") or {})


def _probe(folder: Path, annotations: Annotations, n_threads: int) -> pd.DataFrame:
    paths = annotations.frame["path"].tolist()
    return probe_images(folder, paths, n_threads=n_threads, progress=sys.stderr.isatty())


def _bad_images(probed: pd.DataFrame, annotations: Annotations) -> list[str]:
    """Return a line for each image that is missing or unreadable, with the annotation row that lists it."""
    bad = annotations.frame[["path", "source"]].merge(probed[probed["error"].notna()], on="path")
    return [f"{row.path} ({row.source}): {row.error}" for row in bad.itertuples()]


def _refuse_bad_images(probed: pd.DataFrame, annotations: Annotations, folder: Path, dataset: str) -> None:
    bad = _bad_images(probed, annotations)
    if not bad:
        return
    n_missing = int((probed["error"] == "missing").sum())
    named = "\n".join(f"  {line}" for line in bad[:_N_NAMED])
    raise DataError(
        f"{dataset}: {len(bad)} of {len(probed)} images cannot be used ({n_missing} missing, "
        f"{len(bad) - n_missing} unreadable) in {folder}. The first {min(len(bad), _N_NAMED)}:\n{named}\n"
        "Every listed image must exist and be readable: get the files again, or drop their rows."
    )


@dataclass(frozen=True)
class _Fact:
    """One line of the report."""

    name: str
    found: str
    expected: str = ""
    mark: str = ""


def _compared(name: str, found: float, expected: float | None, digits: int = 0) -> _Fact:
    text = f"{found:,.{digits}f}"
    if expected is None:
        return _Fact(name, text)
    published = f"{expected:,.{digits}f}"
    return _Fact(name, text, published, "ok" if text == published else "differs")


def _identity_facts(frame: pd.DataFrame, expected: Mapping[str, float]) -> list[_Fact]:
    n_images = frame["identity_name"].value_counts()
    return [
        _compared("images", len(frame), expected.get("images")),
        _compared("identities", len(n_images), expected.get("identities")),
        _compared("images per identity, mean", n_images.mean(), expected.get("images_per_identity"), digits=1),
        _Fact("images per identity, min / median / max", _spread(n_images.to_numpy())),
        _Fact("identities with one image", f"{int((n_images == 1).sum()):,}"),
    ]


def _spread(values: Any, digits: int = 0) -> str:
    """Return "min / median / max"; the median of whole numbers may be a half."""
    median = float(np.median(values))
    shown = f"{median:,.{digits}f}" if digits or median == int(median) else f"{median:,.1f}"
    return f"{min(values):,.{digits}f} / {shown} / {max(values):,.{digits}f}"


def _file_facts(probed: pd.DataFrame) -> list[_Fact]:
    n_missing = int((probed["error"] == "missing").sum())
    good = probed[probed["error"].isna()]
    sizes = (good["width"].astype(str) + " x " + good["height"].astype(str)).value_counts()
    named = [f"{size} ({count:,})" for size, count in sizes.head(_N_NAMED).items()]
    rest = [f"{len(sizes) - _N_NAMED} more"] if len(sizes) > _N_NAMED else []
    return [
        _Fact("missing images", f"{n_missing:,}"),
        _Fact("unreadable images", f"{len(probed) - len(good) - n_missing:,}"),
        _Fact(f"image sizes (px, images): {len(sizes)}", ", ".join(named + rest)),
    ]


def _duplicate_facts(frame: pd.DataFrame, probed: pd.DataFrame, distance: int) -> list[_Fact]:
    good = frame.merge(probed[probed["error"].isna()], on="path")
    identities = good.groupby(duplicate_groups(good["phash"].to_numpy(), distance))["identity_name"]
    groups = identities.agg(["size", "nunique"])
    several = groups[groups["size"] > 1]
    shared = groups[groups["nunique"] > 1]
    n_touched = good.loc[identities.transform("nunique") > 1, "identity_name"].nunique()
    return [
        _Fact(f"pictures (hash distance <= {distance} bits is one picture)", f"{len(groups):,}"),
        _Fact("images that have a copy", f"{several['size'].sum():,} in {len(several):,} groups"),
        _Fact("of these, under several identities", f"{shared['size'].sum():,} in {len(shared):,} groups"),
        _Fact("identities that share a picture with another", f"{n_touched:,}"),
    ]


def _label_facts(annotations: Annotations) -> list[_Fact]:
    labels = annotations.frame["label"]
    if annotations.task == "multilabel":
        share = np.array(labels.tolist(), dtype=np.float64).mean(axis=0)  # (attributes,)
        name = f"share of positives over {len(share)} attributes, min / median / max"
        return [_Fact(name, _spread(share, digits=3))]
    counts = np.bincount(labels, minlength=len(annotations.classes))
    if len(counts) > _N_CLASSES_SHOWN:
        return [_Fact(f"images per class over {len(counts)} classes, min / median / max", _spread(counts))]
    shown = ", ".join(f"{name}: {count:,}" for name, count in zip(annotations.classes, counts, strict=True))
    return [_Fact(f"images per class ({len(counts)} classes)", shown)]


def _markdown(title: str, facts: list[_Fact], bad: list[str]) -> str:
    lines = [f"# {title}", "", "| what | found | published | |", "|---|---|---|---|"]
    for fact in facts:
        cells = (fact.name, fact.found, fact.expected, fact.mark)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if bad:
        lines += ["", f"Images that cannot be used (first {min(len(bad), _N_NAMED)} of {len(bad):,}):", ""]
        lines += [f"- {line}" for line in bad[:_N_NAMED]]
    return "\n".join(lines) + "\n"
