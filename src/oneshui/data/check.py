"""What a raw dataset holds: counts beside published ones, missing and unreadable images, copies, labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneshui.data.layouts import Annotations
from oneshui.data.pictures import Kind
from oneshui.data.probe import duplicate_groups
from oneshui.errors import ConfigError, DataError

_N_NAMED = 5  # bad images that an error or a report names
_N_CLASSES_SHOWN = 20
_EXPECTED = ("images", "identities", "images_per_identity")


def dataset_report(
    annotations: Annotations, probed: pd.DataFrame, *, dataset: str, expected: Mapping[str, float],
    duplicate_distance: int,
) -> str:  # fmt: skip
    """Return a report in Markdown.

    Args:
        annotations: of the whole folder.
        probed: what ``probe_images`` found for the same images.
        dataset: its name, for the heading.
        expected: published values: any of images, identities and images_per_identity (mean, to one decimal).
        duplicate_distance: bits in which the hashes of near-identical pictures may differ.

    Raises:
        ConfigError: a key of ``expected`` is unknown.
    """
    unknown = sorted(set(expected) - set(_EXPECTED))
    if unknown:
        raise ConfigError(f"{dataset}: unknown expected values {unknown}, allowed: {', '.join(_EXPECTED)}.")
    facts = [
        *_identity_facts(annotations.frame, expected),
        *(_Fact("names", note) for note in annotations.notes),
        *_file_facts(probed),
        *_duplicate_facts(annotations.frame, probed, duplicate_distance),
        *_label_facts(annotations),
    ]
    return _markdown(f"Dataset check: {dataset}", facts, bad_images(probed, annotations))


def lacks(folder: Path, missing: Sequence[str]) -> str:
    """Return the sentence about a raw folder without some annotation files."""
    there = "lacks" if folder.is_dir() else "is not there. It needs"
    return f"{folder} {there} {', '.join(missing)}."


def missing_report(dataset: str, folder: Path, missing: Sequence[str], where: str) -> str:
    """Return a report on a dataset that cannot be checked, in Markdown.

    Args:
        dataset: its name, for the heading.
        folder: raw folder.
        missing: annotation files that are not in it.
        where: where to get the dataset, or nothing.
    """
    lines = [f"# Dataset check: {dataset}", "", f"Not checked: {lacks(folder, missing)}"]
    return "\n".join([*lines, *(["", f"Where to get it: {where}"] if where else [])]) + "\n"


def bad_images(probed: pd.DataFrame, annotations: Annotations) -> list[str]:
    """Return a line for each image that is missing or unreadable, with the annotation row that lists it."""
    bad = annotations.frame[["path", "source"]].merge(probed[probed["error"].notna()], on="path")
    return [f"{row.path} ({row.source}): {row.error}" for row in bad.itertuples()]


def count_kinds(probed: pd.DataFrame) -> dict[Kind, int]:
    """Return how many readable images are of each kind that differs from an upright RGB picture of 8 bits."""
    found = np.asarray(probed.loc[probed["error"].isna(), "kind"])
    counts = {kind: int(np.count_nonzero(found & kind.value)) for kind in Kind}
    return {kind: count for kind, count in counts.items() if count}


def refuse_bad_images(probed: pd.DataFrame, annotations: Annotations, folder: Path, dataset: str) -> None:
    """Refuse a folder of which some images are missing or unreadable.

    Raises:
        DataError: it names the first of them with their annotation rows.
    """
    bad = bad_images(probed, annotations)
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
        *(_Fact(f"of these, {reason}", f"{count:,}") for reason, count in _reasons(probed)),
        *(_Fact(f"images {kind.label}", f"{count:,}") for kind, count in count_kinds(probed).items()),
        _Fact(f"image sizes (px, images): {len(sizes)}", ", ".join(named + rest)),
    ]


def _reasons(probed: pd.DataFrame) -> list[tuple[str, int]]:
    """Return why images are unreadable without details in brackets, the most frequent first."""
    errors = probed["error"].dropna()
    unreadable = errors[errors.str.startswith("unreadable: ")].str.removeprefix("unreadable: ")
    counts = unreadable.str.replace(r"\s*[(;].*", "", regex=True).value_counts()
    return [(str(reason), int(count)) for reason, count in counts.head(_N_NAMED).items()]


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
