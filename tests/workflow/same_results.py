"""Whether two runs of one configuration, in two folders, ended with the same results.

    python -m tests.workflow.same_results FOLDER OTHER

Weights, artefacts, scores, metrics, attacks and tables are compared bit by bit, but for how long things took and how
much memory; of pages and pictures only that they are there.
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from tests.workflow.conftest import tensor_hashes

from oneshui.files import read_header, sha256_file

_COST = re.compile(r"((precompute|unlearn)_)?(seconds|peak_mb)|(precompute|unlearn)_s")


def results(folder: Path) -> dict[str, Any]:
    """Return what is in every result, by path, without times and memory; of pages and pictures that they are there."""
    found = {}
    for path in sorted((folder / "results").rglob("*")):
        name = str(path.relative_to(folder / "results"))
        if path.is_file() and path.name != ".gitkeep" and name.split("/")[0] != "logs":
            found[name] = content(path)
    return found


def differences(folder: Path, other: Path) -> list[str]:
    """Return the results that differ or that only one of them has."""
    one, two = results(folder), results(other)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def content(path: Path) -> Any:
    if path.suffix == ".safetensors" and path.parent.name != "weights":
        return tensor_hashes(path), without_costs(read_header(path))
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        rows = [row for row in table.to_pylist() if not _COST.fullmatch(str(row.get("metric")))]
        meta = json.loads(table.schema.metadata[b"oneshui"])
        return without_costs(meta), hashlib.sha256(repr(rows).encode()).hexdigest()
    if path.suffix == ".csv":
        frame = pd.read_csv(path, dtype=str)
        frame = frame[[name for name in frame if not _COST.fullmatch(str(name))]]
        if "quantity" in frame:
            frame = frame[~frame["quantity"].str.fullmatch(_COST.pattern)]
        return frame.to_csv()
    if path.suffix in (".pdf", ".html", ".md", ".tex"):  # with dates or times
        return path.stat().st_size > 0
    return sha256_file(path)


def without_costs(value: Any) -> Any:
    """Return a header without how long things took, at any depth."""
    if isinstance(value, dict):
        return {key: without_costs(entry) for key, entry in value.items() if not _COST.fullmatch(key)}
    return value


def main() -> None:
    folder, other = map(Path, sys.argv[1:])
    differ, n = differences(folder, other), len(results(folder))
    print("\n".join(differ) or f"all {n} results are the same")
    sys.exit(bool(differ) or not n)


if __name__ == "__main__":
    main()
