"""Where a run's files lie under ``results/``, and which files a table is made from.

A row of a table is one model: ``pretrain``, ``retrain``, ``ceiling``, or an unlearned one as ``ORIGIN/METHOD``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

#: trained model -> the model that an attack on it uses as its reference
_REFERENCES = {"pretrain": "retrain", "retrain": "ceiling", "ceiling": "retrain"}


def model_file(kind: str, dataset: str, n: int | str, seed: int | str, row: str) -> str:
    """Return a file about a model: ``kind`` models, scores or features. A pretrained model serves every ``n``."""
    part = "" if row == "pretrain" else f"n{n}/"
    return f"results/{kind}/{dataset}/{part}seed{seed}/{row}.{'safetensors' if kind == 'models' else 'parquet'}"


def run_file(kind: str, dataset: str, n: int | str, seed: int | str, row: str) -> str:
    """Return a file about a model and one request: ``kind`` metrics, attacks, refit or identities."""
    return f"results/{kind}/{dataset}/n{n}/seed{seed}/{row}.parquet"


def splits_file(dataset: str, seed: int | str) -> str:
    """Return the splits of a seed."""
    return f"results/splits/{dataset}/seed{seed}.parquet"


def request_file(dataset: str, n: int | str, seed: int | str, *, wrong_photos: bool = False) -> str:
    """Return the photos of a request, or those of other people of the control."""
    return f"results/requests/{dataset}/n{n}/seed{seed}{'_wrong_photos' if wrong_photos else ''}.parquet"


def origin_and_method(row: str) -> tuple[str, str]:
    """Return what a METRICS table calls a row: ("pretrain", "ssd") for pretrain/ssd, a trained model's name twice."""
    origin, _, method = row.partition("/")
    return origin, method or origin


def reference_of(row: str) -> str:
    """Return the row of the reference model in an attack on ``row``: one that did not see the forget set.

    For an unlearned model that is the retrained model after the same method.
    """
    origin, _, method = row.partition("/")
    return f"retrain/{method}" if method else _REFERENCES[origin]


def table_rows(table: Mapping[str, Any]) -> list[str]:
    """Return the models of a table, in its order."""
    trained = ["pretrain", "retrain", *(["ceiling"] if table["privacy"] else [])]
    return [*trained, *(f"pretrain/{method}" for method in table["methods"])]


def table_files(table: Mapping[str, Any], seeds: Sequence[int], data_methods: Collection[str]) -> dict[str, list[str]]:
    """Return what a table is made from: ``metrics`` and, for a privacy table, ``attacks`` and ``refit``.

    Metrics include the wrong-photo control of methods that work from photos.
    """
    rows = table_rows(table)
    controls = [f"wrong_photos/{name}" for name in table["methods"] if name not in data_methods]
    privacy = table["privacy"]
    return {
        "metrics": list(_files("metrics", table, seeds, [*rows, *(controls if privacy else [])])),
        "attacks": list(_files("attacks", table, seeds, rows if privacy else [])),
        "refit": list(_files("refit", table, seeds, rows if privacy else [])),
    }


def identity_files(
    table: Mapping[str, Any], seeds: Sequence[int], data_methods: Collection[str], blocks: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return what is known of single identities in ``blocks`` of a table, for methods that work from photos."""
    rows = [f"pretrain/{name}" for name in table["methods"] if name not in data_methods]
    return list(_files("identities", {"blocks": blocks}, seeds, rows))


def _files(kind: str, table: Mapping[str, Any], seeds: Sequence[int], rows: Sequence[str]) -> Iterator[str]:
    for block in table["blocks"]:
        for seed in seeds:
            for row in rows:
                yield run_file(kind, block["dataset"], block["n"], seed, row)
