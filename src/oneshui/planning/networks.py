"""Refusing, while the workflow is planned, a network that a method of its tables cannot work with. No torch here."""

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneshui.config import grid_points, method_spec
from oneshui.errors import ConfigError
from oneshui.files import spec_hash, write_text
from oneshui.methods import METHODS


def refuse_networks(config: Mapping[str, Any], table: str | Path, cache: str | Path) -> None:
    """Raise if a network is to be trained for a table of which one of its methods cannot work with it.

    Networks in ``table`` are known. Others are tried in a process of their own, some seconds for each, once: the answer
    is kept in ``cache``.

    Args:
        config: the whole configuration.
        table: ``resources/networks.csv``: ``network``, ``family``, and a column per kind of method: "" or why not.
        cache: folder of earlier answers.

    Raises:
        ConfigError: it names dataset, network, method, the reason, and networks that work.
    """
    with open(table, encoding="utf-8", newline="") as file:
        known = {row["network"]: row for row in csv.DictReader(file)}
    for dataset, methods in _asked(config).items():
        training = config["training"][dataset]
        network = training["model"].partition(".")[0]
        if network in known:
            problems = {name: known[network][method["kind"]] for name, method in methods.items()}
        else:
            problems = _tried(training, methods, Path(cache))
        for name, problem in problems.items():
            if problem:
                fit = [other for other, row in known.items() if not row[methods[name]["kind"]]]
                raise ConfigError(
                    f"training/{dataset}: method {name} cannot work with {training['model']}: {problem} Networks that "
                    f"it works with: {', '.join(fit)}. Or leave {name} out of the tables of {dataset}."
                )


def _asked(config: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Methods of ours by dataset, with the hyper-parameters of the first size that a table asks for."""
    asked: dict[str, dict[str, dict[str, Any]]] = {}
    for dataset, n, method in grid_points(config["tables"]):
        spec = method_spec(config["methods"], method, dataset, n)
        if spec["kind"] in METHODS:
            asked.setdefault(dataset, {}).setdefault(method, spec)
    return asked


def _tried(training: Mapping[str, Any], methods: Mapping[str, Any], cache: Path) -> dict[str, str]:
    """Ask ``oneshui.networks``, or remember what it said."""
    network = {key: training[key] for key in ("model", "model_options", "input_px")}
    path = cache / f"{spec_hash({'network': network, 'methods': methods})}.json"
    if path.exists():
        remembered: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return remembered
    question = json.dumps({"training": dict(training), "methods": dict(methods)})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "oneshui.networks"],
        input=question,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = next((line for line in reversed(done.stderr.splitlines()) if "ConfigError: " in line), "")
        raise ConfigError(
            said.partition("ConfigError: ")[2] or f"{training['model']} could not be tried: {done.stderr}"
        )
    problems: dict[str, str] = json.loads(done.stdout)
    write_text(path, json.dumps(problems))
    return problems
