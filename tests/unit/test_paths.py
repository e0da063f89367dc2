"""Where files lie, and what a table is made from."""

from pathlib import Path

import pytest

from oneshui.paths import identity_files, model_file, origin_and_method, reference_of, run_file, table_files, table_rows

TABLE = {"blocks": [{"dataset": "toy", "n": 5}, {"dataset": "toy", "n": 9}], "methods": ["ssd", "scrub"]}


def test_a_pretrained_model_serves_every_request_size() -> None:
    assert model_file("models", "toy", 5, 0, "pretrain") == "results/models/toy/seed0/pretrain.safetensors"
    assert model_file("models", "toy", 5, 0, "ceiling") == "results/models/toy/n5/seed0/ceiling.safetensors"
    assert model_file("scores", "toy", 5, 0, "retrain/ssd") == "results/scores/toy/n5/seed0/retrain/ssd.parquet"
    assert run_file("metrics", "toy", 5, 0, "pretrain") == "results/metrics/toy/n5/seed0/pretrain.parquet"


@pytest.mark.parametrize(
    ("row", "reference"),
    [("pretrain", "retrain"), ("retrain", "ceiling"), ("ceiling", "retrain"), ("pretrain/ssd", "retrain/ssd")],
)
def test_the_reference_has_not_seen_the_forget_set_and_had_the_same_treatment(row: str, reference: str) -> None:
    assert reference_of(row) == reference


def test_rows_by_name() -> None:
    assert [origin_and_method(row) for row in ("pretrain", "ceiling", "wrong_photos/ssd")] == [
        ("pretrain", "pretrain"), ("ceiling", "ceiling"), ("wrong_photos", "ssd"),
    ]  # fmt: skip


def test_files_of_a_table_with_and_without_attacks() -> None:
    plain = {**TABLE, "privacy": False}
    assert table_rows(plain) == ["pretrain", "retrain", "pretrain/ssd", "pretrain/scrub"]
    files = table_files(plain, [0, 1], ["scrub"])
    assert (len(files["metrics"]), files["attacks"], files["refit"]) == (16, [], [])
    private = {**TABLE, "privacy": True}
    assert table_rows(private) == ["pretrain", "retrain", "ceiling", "pretrain/ssd", "pretrain/scrub"]
    files = table_files(private, [0, 1], ["scrub"])
    assert [len(files[kind]) for kind in ("metrics", "attacks", "refit")] == [24, 20, 20]
    controls = {Path(file).stem for file in files["metrics"] if "wrong_photos" in file}
    assert controls == {"ssd"}  # a method that has the data works from no photo


def test_single_identities_are_measured_for_methods_that_work_from_photos() -> None:
    files = identity_files({**TABLE, "privacy": True}, [0, 1], ["scrub"], TABLE["blocks"][:1])
    assert files == [f"results/identities/toy/n5/seed{seed}/pretrain/ssd.parquet" for seed in (0, 1)]
