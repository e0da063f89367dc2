"""What is asked for and cannot be had: datasets that are not there, files that no rule makes."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oneshui.config import raw_path
from oneshui.data.check import lacks
from oneshui.data.layouts import annotation_files
from oneshui.yaml_files import read_yaml

Config = Mapping[str, Any]


def lacking(config: Config, dataset: str) -> list[str]:
    """Return the annotation files of a dataset that are not there, relative to its folder; none of rendered faces."""
    entry = config["datasets"][dataset]
    if "synthetic" in entry:
        return []
    folder = raw_path(config, dataset)
    return [name for name in annotation_files(entry["layout"], "", entry["options"])
            if not os.path.exists(os.path.join(folder, name))]  # fmt: skip


def needed_datasets(config: Config, targets: Iterable[str]) -> list[str]:
    """Return the datasets that some targets are made from, in the order of the configuration.

    A file is about the table, the figure or the dataset that its path names. Every other target is about all tables.
    """
    tables, figures, datasets = config["tables"], config["figures"], config["datasets"]
    needed: set[str] = set()
    for target in targets or ("all",):
        _, kind, name = (*Path(target).parts, "", "", "")[:3]
        stem = name.partition(".")[0].removesuffix("_tidy")
        table = figures[stem]["table"] if kind == "figures" and stem in figures else stem
        if kind in ("tables", "attacks", "figures") and table in tables:
            needed |= {block["dataset"] for block in tables[table]["blocks"]}
        elif name in datasets:
            needed.add(name)
        else:
            needed |= {block["dataset"] for each in tables.values() for block in each["blocks"]}
    return [dataset for dataset in datasets if dataset in needed]


def missing_datasets(config: Config, targets: Iterable[str], files: Iterable[str], published: Path) -> str:
    """Return what to say if Snakemake misses files of a dataset: all datasets that are not there; else nothing.

    Args:
        config: a checked configuration.
        targets: that were asked for.
        files: that Snakemake misses; it stops at the first dataset.
        published: resources/datasets.yaml, which says where to get them.
    """
    folders = {dataset: Path(raw_path(config, dataset)) for dataset in config["datasets"]}
    first = {name for name, folder in folders.items() for file in files if Path(file).is_relative_to(folder)}
    asked = [name for name in folders if name in {*first, *needed_datasets(config, targets)}]
    missing = {name: found for name in asked if (found := lacking(config, name)) and not _indexed(name)}
    if not first & set(missing):
        return ""
    known = read_yaml(published)
    lines = []
    for name, found in missing.items():
        where = known.get(config["datasets"][name]["layout"], {}).get("where")
        lines += [f"  {name}: {lacks(folders[name], found)}", *([f"    Where to get it: {where}"] if where else [])]
    root = str(config["data_root"])
    place = "" if os.path.isabs(root) else f" ({os.path.abspath(root)})"
    count = "a dataset" if len(missing) == 1 else f"{len(missing)} datasets"
    return "\n".join([
        f"DataError: {count} that you ask for cannot be read; data_root is {root}{place}", *lines,
        "Put the files there, or name the folder above the datasets' folders: --config data_root=FOLDER. The target "
        "check_data looks at all datasets of a configuration.",
    ])  # fmt: skip


def missing_weights(config: Config, files: Iterable[str], where: str) -> str:
    """Return what to say if Snakemake misses a file of initial weights; else nothing."""
    missed = set(files)
    lines = [
        f"ConfigError in {where}: training/{name}/init_weights: {entry['init_weights']} is not there, allowed: random, "
        "timm, or a file that ends in .safetensors"
        for name, entry in config["training"].items()
        if entry["init_weights"] in missed
    ]
    return "\n".join(lines)


def _indexed(dataset: str) -> bool:
    return os.path.exists(f"results/data/{dataset}/index.parquet")


def no_such_file(config: Config, file: str, where: str) -> str:
    """Return what to say if no rule makes ``file``: which names there are of the kind that it seems to be."""
    attacked = [table for table, entry in config["tables"].items() if entry["privacy"]]
    kinds = {"tables": config["tables"], "figures": config["figures"], "attacks": attacked}
    _, kind, name = (*Path(file).parts, "", "", "")[:3]
    allowed = "targets: all, tables, figures, report, plan, check_data; files: those of docs/architecture.md"
    if kind in kinds:
        allowed = f"{_OF[kind]} of {where}: {', '.join(kinds[kind]) or 'none'}; files of each: {_ENDINGS[kind]}"
    elif name in config["datasets"]:
        seed = re.search(r"/seed(\d+)", file)
        if seed and int(seed[1]) not in config["seeds"]:
            there = ", ".join(map(str, config["seeds"]))
            return f"ConfigError in {where}: {file}: seeds has no {seed[1]}, allowed: {there}"
    elif kind in ("data", "models", "splits", "requests", "artefacts", "unlearned", "scores", "metrics"):
        allowed = f"datasets of {where}: {', '.join(config['datasets'])}"
    return f"ConfigError in {where}: no rule makes {file}; allowed: {allowed}"


_OF = {"tables": "tables", "figures": "figures", "attacks": "tables with privacy: true"}
_ENDINGS = {"tables": ".csv, .md, .tex, _tidy.csv", "figures": ".pdf, .png, .csv", "attacks": ".csv"}
