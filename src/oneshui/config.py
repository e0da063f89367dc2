"""Configuration as values: strict conversion to dataclasses, and how a method's entry is resolved.

Only the standard library is imported here, because the workflow reads it at every start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from oneshui.errors import ConfigError

T = TypeVar("T")

#: rows of every table that are trained, not unlearned
TRAINED = ("pretrain", "retrain")


def from_mapping(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """Return ``cls(**raw)`` for a dataclass, refusing unknown and missing keys; lists become tuples.

    Raises:
        ConfigError: naming ``where``, the key, and what is allowed.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; allowed: {', '.join(known)}")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in raw]
    if missing:
        raise ConfigError(f"{where}: missing key {', '.join(missing)}; it has: {', '.join(raw) or 'nothing'}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()})


def method_spec(methods: Mapping[str, Any], method: str, dataset: str, n: int) -> dict[str, Any]:
    """Return the hyper-parameters of ``method`` for one dataset and request size, with its ``kind``.

    An entry has ``kind``, ``params`` and ``overrides``; overrides named after the dataset, then after ``dataset/nN``,
    replace single params, e.g. ``overrides: {celeba: {lr: 1.0e-4}, mufac/n5: {lr: 1.0e-2}}``.

    Raises:
        ConfigError: there is no such method.
    """
    if method not in methods:
        raise ConfigError(f"method {method!r} is not in the config; it has: {', '.join(methods)}")
    entry = methods[method]
    overrides = entry.get("overrides", {})
    merged = {**entry.get("params", {}), **overrides.get(dataset, {}), **overrides.get(f"{dataset}/n{n}", {})}
    return {"kind": entry["kind"], **merged}


def grid_points(tables: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return the distinct (dataset, n, method) that the tables ask for, sorted."""
    points = {
        (block["dataset"], block["n"], method)
        for table in tables.values()
        for block in table["blocks"]
        for method in table["methods"]
    }
    return sorted(points)


def check_grid(config: Mapping[str, Any]) -> None:
    """Refuse tables that name an unknown dataset or method, or more forget identities than are ranked.

    Raises:
        ConfigError: naming the table and what exists.
    """
    for name, table in config["tables"].items():
        for block in table["blocks"]:
            _check_block(config, f"tables/{name}", block, table["methods"])
    for name, figure in config["figures"].items():
        if figure["table"] not in config["tables"]:
            raise ConfigError(f"figures/{name}: no table {figure['table']!r}; there are: {', '.join(config['tables'])}")


def _check_block(config: Mapping[str, Any], where: str, block: Mapping[str, Any], methods: Iterable[str]) -> None:
    dataset, n = block["dataset"], block["n"]
    if dataset not in config["datasets"]:
        raise ConfigError(f"{where}: no dataset {dataset!r}; there are: {', '.join(config['datasets'])}")
    if dataset not in config["training"]:
        raise ConfigError(f"{where}: dataset {dataset!r} has no entry under training")
    ranked = config["datasets"][dataset]["split"]["n_ranked"]
    if n > ranked:
        raise ConfigError(
            f"{where}: n = {n}, but datasets/{dataset}/split/n_ranked = {ranked}. Raise n_ranked (which changes the "
            "split and so re-trains every model) or lower n."
        )
    for method in methods:
        if method in TRAINED:
            raise ConfigError(f"{where}: {method} is a row of every table already; leave it out of methods")
        method_spec(config["methods"], method, dataset, n)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return lines like ``lr: 0.1 -> 0.2`` for the leaves in which two nested mappings differ."""
    lines = []
    for key in sorted({*old, *new}):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += changed_keys(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before} -> {after}")
    return lines
