"""Refusing a configuration before anything runs: all checks that need no network, in one place. No torch here."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from oneshui.checked import read
from oneshui.config import FACES, TRAINED, check_config, grid_points, raw_path
from oneshui.data.layouts import annotation_files, check_layouts
from oneshui.errors import ConfigError
from oneshui.methods import METHODS, artefact_spec, known_kind, needs_of, params_of, serves_every_n
from oneshui.report.figures import KINDS, several
from oneshui.report.style import colours_of

#: combinations of a grid that are checked; whoever has more waits for hours until the last of them is refused
_COMBINATIONS = 1000


def check(config: MutableMapping[str, Any], where: str = "the configuration") -> None:
    """Refuse a configuration that is wrong, and add the keys that were left out.

    Args:
        config: as it was written. Its values stay as they are.
        where: the file, for the message.

    Raises:
        ConfigError: it names what is wrong, where, and what is allowed.
    """
    check_config(config, where)
    check_layouts(config, where)
    check_methods(config, where)
    check_figures(config, where)
    check_folders(config, where)
    check_braces(config, where)


def check_braces(config: Mapping[str, Any], where: str = "the configuration") -> None:
    """Refuse input files with braces in their paths, in which Snakemake would fill in wildcards.

    Raises:
        ConfigError: naming the path.
    """
    paths = {}
    for name, entry in config["datasets"].items():
        if "synthetic" not in entry:
            files = annotation_files(entry["layout"], raw_path(config, name), entry["options"])
            paths[f"{where}: datasets/{name}, data_root"] = files
    for name, entry in config["training"].items():
        paths[f"{where}: training/{name}/init_weights"] = [entry["init_weights"]]
    for place, files in paths.items():
        for file in files:
            refuse_braces(file, place)


def refuse_unwritable(folder: str | Path) -> None:
    """Refuse a working folder in which no results can be written.

    Raises:
        ConfigError: naming what cannot be written to.
    """
    for path in (Path(folder), Path(folder, "results"), Path(folder, ".snakemake")):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
            raise ConfigError(
                f"the folder of the results: {path.absolute()} cannot be written to. Change its permissions, or write "
                "elsewhere: snakemake --directory FOLDER."
            )


def refuse_braces(path: str, place: str) -> None:
    """Refuse a path with braces.

    Raises:
        ConfigError: beginning with ``place``.
    """
    if re.search(r"\{.*\}", path):
        raise ConfigError(
            f"{place}: {path} has braces, which Snakemake takes for wildcards. Rename the folder, or make a "
            "link without braces (ln -s) and name that."
        )


def check_folders(config: Mapping[str, Any], where: str = "the configuration") -> None:
    """Refuse a dataset's folder that holds the results or this package: unlearning could not be kept out of it.

    Raises:
        ConfigError: naming the dataset.
    """
    inside = {"the results": Path.cwd().resolve(), "oneshui": Path(__file__).resolve().parents[1]}
    for name in config["datasets"]:
        folder = Path(raw_path(config, name)).resolve()
        for what, path in inside.items():
            if path.is_relative_to(folder):
                raise ConfigError(
                    f"{where}: datasets/{name}/folder: {folder} holds {what} ({path}), which unlearning must open, and "
                    "images, which it must not. Put the images into a folder of their own."
                )


def check_methods(config: Mapping[str, Any], where: str = "the configuration") -> None:
    """Refuse unknown kinds, and wrong hyper-parameters of ours: as they are used, as overridden, and to be tried.

    Refuse overrides by request size of what an artefact depends on that serves every size, too.

    A kind of your own is not imported here; it is checked when it is made.

    Raises:
        ConfigError: with the place of the value.
    """
    used: dict[str, set[tuple[str, ...]]] = {}
    for dataset, n, name in grid_points(config["tables"]):
        used.setdefault(name, set()).add((dataset, f"{dataset}/n{n}"))
    for name, entry in config["methods"].items():
        kind = known_kind(entry, f"{where}: methods/{name}/kind")
        if "of" in entry and needs_of(entry) == "data":
            raise ConfigError(
                f"{where}: methods/{name}/of = {entry['of']}, allowed: a method that serves requests; this one needs "
                "the training data"
            )
        if serves_every_n(entry):
            _refuse_artefacts_by_n(f"{where}: methods/{name}/overrides", entry)
        if kind in METHODS:
            grid = config["selection"]["grids"].get(name, {})
            if "folds" in grid:
                raise ConfigError(
                    f"{where}: selection/grids/{name}: folds cannot be tried, because fold models are trained before. "
                    "Add a method for each number of folds."
                )
            for values, places in _specs(name, entry, used.get(name, {()}), grid):
                read(params_of(kind), values, where, places)


def _refuse_artefacts_by_n(place: str, entry: Mapping[str, Any]) -> None:
    """Refuse overrides that would ask for an artefact for each request size, of a method with one for all."""
    for scope, params in entry.get("overrides", {}).items():
        dataset, _, size = scope.partition("/")
        kept = [key for key in artefact_spec({**params, "kind": entry["kind"]}) if key != "kind"]
        if size and kept:
            raise ConfigError(
                f"{place}/{scope}/{kept[0]}: what {entry['kind']} keeps serves every request size, and depends on "
                f"{kept[0]}. Override it for {dataset}, or define a second method."
            )


def _specs(
    name: str, entry: Mapping[str, Any], used: Iterable[tuple[str, ...]], grid: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield hyper-parameters of a method, each time with the place of each (``read``).

    Args:
        name: of the method.
        entry: of it.
        used: the keys that overrides may have for each setting of the tables.
        grid: values to try.
    """
    overrides, params = entry.get("overrides", {}), f"methods/{name}/params"
    scopes = {*used, *((scope.partition("/n")[0], scope) for scope in overrides)}
    ways = {tuple(dict.fromkeys(scope for scope in way if scope in overrides)) for way in scopes}
    known = [field.name for field in fields(params_of(entry["kind"]))]  # type: ignore[arg-type]
    for way in sorted(ways, key=lambda way: (len(way), way)):
        values = dict(entry["params"])
        places = {"": params, **dict.fromkeys([*known, *values], params)}
        for scope in way:
            values |= overrides[scope]
            place = f"methods/{name}/overrides/{scope}"
            places |= {"": place, **dict.fromkeys(overrides[scope], place)}
        yield values, places
        tried = {"": f"selection/grids/{name}", **dict.fromkeys(grid, f"selection/grids/{name}")}
        for combination in itertools.islice(itertools.product(*grid.values()), _COMBINATIONS if grid else 0):
            yield {**values, **dict(zip(grid, combination, strict=True))}, {**places, **tried}


def check_figures(config: Mapping[str, Any], where: str = "the configuration") -> None:
    """Refuse a figure that nobody draws, or that would be refused once its table is there.

    Raises:
        ConfigError: it names the figure and what is allowed.
    """
    for name, figure in config["figures"].items():
        if figure["kind"] not in (*KINDS, FACES):
            allowed = f"{', '.join(KINDS)} or {FACES}"
            raise ConfigError(f"{where}: figures/{name}/kind = {figure['kind']!r}, allowed: {allowed}")
        if figure["kind"] == FACES:
            continue
        table = config["tables"][figure["table"]]
        problem = several(figure["kind"], figure.get("blocks") or table["blocks"])
        if problem:
            raise ConfigError(f"{where}: figures/{name}: {problem}")
        if KINDS[figure["kind"]].by_colour:
            kinds = {method: config["methods"][method]["kind"] for method in table["methods"]}
            try:
                colours_of([*TRAINED, *kinds], kinds)
            except ConfigError as error:
                raise ConfigError(f"{where}: figures/{name}: {error}") from error
