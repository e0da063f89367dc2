"""From tables, attacks and splits to one page that needs nothing but itself: without torch, in a few seconds."""

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from oneshui.files import sha256_file, write_text
from oneshui.report.contents import Inputs
from oneshui.report.page import render
from oneshui.report.tables import read_csv
from oneshui.schemas import IDENTITIES, SPLITS, read_table


def make_report(
    *,
    tables: Mapping[str, str | Path],
    attacks: Mapping[str, str | Path],
    roc: Mapping[str, str | Path],
    identities: Sequence[str | Path],
    splits: Sequence[str | Path],
    output: str | Path,
    config: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write the report: one page, HTML.

    Args:
        tables: name of a table in the config -> its CSV; in the order of the page.
        attacks: name of a table -> CSV of what attacks found.
        roc: name of a figure -> CSV of the points of its ROC curves.
        identities: tables of schema IDENTITIES, in any order.
        splits: of the datasets and seeds.
        output: the page.
        config: the whole configuration.
        versions: by package; None: those of the installed packages that oneshui needs.

    Raises:
        DataError: a file is damaged, of another version, or contradicts another.
        ConfigError: a table is not in the configuration.
    """
    paths = [*tables.values(), *attacks.values(), *roc.values(), *identities, *splits]
    inputs = Inputs(
        tables={name: read_csv(path) for name, path in tables.items()},
        attacks={name: read_csv(path) for name, path in attacks.items()},
        roc={name: read_csv(path) for name, path in roc.items()},
        identities=[read_table(path, IDENTITIES) for path in sorted(identities, key=str)],
        splits=[read_table(path, SPLITS) for path in sorted(splits, key=str)],
        config=config,
        versions=installed_versions() if versions is None else versions,
        files=sorted((name, sha256_file(path)) for name, path in _names(paths)),
        machine=f"Python {platform.python_version()} on {platform.platform()}",
    )
    write_text(output, render(inputs))


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that oneshui needs at run time and that are installed here."""
    try:
        needed = metadata.requires("oneshui") or []
    except metadata.PackageNotFoundError:  # a copy of the sources that nobody has installed
        return {}
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in needed if "extra ==" not in line]
    found = {}
    for name in sorted(names, key=str.lower):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # the environment of reports has no torch
            continue
    return found


def _names(paths: Iterable[str | Path]) -> list[tuple[str, Path]]:
    """Return how files are called in the page: as given, or where that is absolute from the folder common to these."""
    files = list(dict.fromkeys(map(Path, paths)))
    absolute = [path for path in files if path.is_absolute()]
    common = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    return [((path.relative_to(common) if path.is_absolute() else path).as_posix(), path) for path in files]
