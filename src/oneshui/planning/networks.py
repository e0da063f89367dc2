"""Refusing, while the workflow is planned, a network that a method of its tables cannot work with. No torch here."""

import contextlib
import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from oneshui import __version__
from oneshui.config import grid_points, method_spec
from oneshui.errors import ConfigError
from oneshui.files import spec_hash, write_text
from oneshui.methods import METHODS

#: last blocks with which identity edits were tried for the table
_BLOCKS = 1


def refuse_networks(
    config: Mapping[str, Any], table: str | Path, cache: str | Path, where: str = "the configuration"
) -> None:
    """Raise if a network is to be trained for a table of which one of its methods cannot work with it.

    A network that stands in ``table`` with the same options and input is known, for the kinds that have a column and
    edits of one block. What is not known is tried once, in a process of its own; the answer is kept in ``cache``. Only
    our kinds are tried.

    Args:
        config: the whole configuration.
        table: ``resources/networks.csv``: ``network``, ``options`` (JSON), ``px``, ``family``, and columns for
            kinds of methods: "" or why not.
        cache: folder of earlier answers.
        where: the file, for the message.

    Raises:
        ConfigError: it names dataset, network, method, the reason, and networks that work.
    """
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = {(row["network"], row["options"], int(row["px"])): row for row in rows}
    for dataset, methods in _asked(config).items():
        training = config["training"][dataset]
        row = known.get(key_of(training), {})
        problems = {
            name: row[kind] for name, specs in methods.items() if (kind := specs[0]["kind"]) in row and _is_known(specs)
        }
        untried = {name: specs for name, specs in methods.items() if name not in problems}
        if untried:
            problems |= _tried(training, untried, Path(cache), f"{where}: training/{dataset}")
        for name, problem in problems.items():
            if problem:
                kind = methods[name][0]["kind"]
                fit = dict.fromkeys(row["network"] for row in rows if not row.get(kind, "not tried"))
                raise ConfigError(
                    f"{where}: training/{dataset}: method {name} cannot work with {training['model']}: {problem} "
                    f"Networks that it works with: {', '.join(fit) or 'none is known'}. Or leave {name} out of the "
                    f"tables of {dataset}."
                )


def key_of(training: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return the network of an entry under ``training``: architecture, options as JSON, input in px."""
    options = json.dumps(training["model_options"], sort_keys=True)
    return training["model"].partition(".")[0], options, int(training["input_px"])


def _asked(config: Mapping[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """For each dataset the methods of ours, each with the distinct ways in which it will ask the network."""
    asked: dict[str, dict[str, list[dict[str, Any]]]] = {}
    seen = set()
    for dataset, n, method in grid_points(config["tables"]):
        of_dataset = asked.setdefault(dataset, {})
        spec = method_spec(config["methods"], method, dataset, n)
        if spec["kind"] in METHODS and (way := (dataset, method, *_way(spec).values())) not in seen:
            seen.add(way)
            of_dataset.setdefault(method, []).append(spec)
    return asked


def _way(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a method's spec on which it depends what it asks of a network (``try_on``)."""
    return {name: spec[name] for name in ("kind", *METHODS[spec["kind"]].network_params) if name in spec}


def _is_known(specs: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the table says all of a method: a network of which one block can be edited may lack the next."""
    return all(spec.get("blocks", _BLOCKS) <= _BLOCKS for spec in specs)


def _tried(
    training: Mapping[str, Any], methods: Mapping[str, Iterable[Mapping[str, Any]]], cache: Path, where: str
) -> dict[str, str]:
    """Ask ``oneshui.networks``, or remember what it said."""
    ways = {name: [_way(spec) for spec in specs] for name, specs in methods.items()}
    versions = {"oneshui": __version__, **{name: version(name) for name in ("timm", "torch")}}
    path = cache / f"{spec_hash([key_of(training), ways, versions])}.json"
    if path.exists():
        remembered: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return remembered
    alike: dict[str, str] = {}  # methods that ask a network in the same ways are tried once
    first = {name: alike.setdefault(repr(way), name) for name, way in ways.items()}
    question = json.dumps(
        {"training": dict(training), "methods": {name: list(methods[name]) for name in alike.values()}}
    )
    command = [sys.executable, "-W", "ignore", "-m", "oneshui.networks"]
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ConfigError(
            f"{where}: {training['model']} could not be tried: {' '.join(command)} ended with status {done.returncode} "
            f"and said: {said[0]}"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ConfigError(f"{where}: {answer['error']}")
    problems: dict[str, str] = {
        name: answer["problems"][one] for name, one in first.items() if one in answer["problems"]
    }
    with contextlib.suppress(OSError):  # a folder that cannot be written to: the next plan asks again
        write_text(path, json.dumps(problems))
    return problems
