"""Which model a file is about, where it lies, and what a table is made from."""

import pytest

from oneshui.runs import ORIGINAL, RETRAINED, SECOND_RETRAINED, Model, Run, measured_of, models_of

TABLE = {"blocks": [{"dataset": "toy", "n": 5}, {"dataset": "toy", "n": 9}], "methods": ["ssd", "scrub"]}
RUN = Run("toy", 5, 0)
NAMES = ("pretrain", "retrain", "ceiling", "pretrain/ssd", "retrain/ssd", "wrong_photos/ssd")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_which_model_it_is_and_back(name: str) -> None:
    assert str(Model.of(name)) == name


def test_the_original_model_serves_every_request() -> None:
    assert (
        RUN.weights(ORIGINAL)
        == Run("toy", None, 0).weights(ORIGINAL)
        == "results/models/toy/seed0/pretrain.safetensors"
    )
    assert RUN.weights(SECOND_RETRAINED) == "results/models/toy/n5/seed0/ceiling.safetensors"
    assert RUN.scores(ORIGINAL) == "results/scores/toy/seed0/pretrain.parquet"
    assert RUN.measured("metrics", ORIGINAL) == "results/metrics/toy/n5/seed0/pretrain.parquet"


def test_files_of_an_unlearned_model() -> None:
    made = Model("retrain", "ssd")
    assert RUN.weights(made) == "results/unlearned/toy/n5/seed0/retrain/ssd.safetensors"
    assert RUN.features(made) == "results/features/toy/n5/seed0/retrain/ssd.parquet"
    assert RUN.artefact(made) == "results/artefacts/toy/n5/seed0/retrain/ssd.safetensors"
    assert RUN.request(made) == "results/requests/toy/n5/seed0.parquet"
    assert RUN.with_seed(2).splits == "results/splits/toy/seed2.parquet"


def test_an_artefact_for_every_request_size_lies_beside_those_for_one() -> None:
    assert RUN.of_every_n.artefact(Model("pretrain", "edits")) == (
        "results/artefacts/toy/seed0/pretrain/edits.safetensors"
    )
    assert RUN.of_every_n.method_seed == Run("toy", 9, 0).of_every_n.method_seed != RUN.method_seed


def test_wrong_photos_go_to_the_original_model() -> None:
    made = Model.of("wrong_photos/ssd")
    assert made.start == ORIGINAL
    assert RUN.request(made) == "results/requests/toy/n5/seed0_wrong_photos.parquet"
    assert RUN.artefact(made) == "results/artefacts/toy/n5/seed0/pretrain/ssd.safetensors"
    assert RUN.weights(made) == "results/unlearned/toy/n5/seed0/wrong_photos/ssd.safetensors"


@pytest.mark.parametrize(
    ("name", "reference"),
    [("pretrain", "retrain"), ("retrain", "ceiling"), ("ceiling", "retrain"), ("pretrain/ssd", "retrain/ssd")],
)
def test_the_reference_has_not_seen_the_forget_set_and_had_the_same_treatment(name: str, reference: str) -> None:
    assert Model.of(name).reference == Model.of(reference)


def test_columns_and_headers() -> None:
    assert [tuple(Model.of(name).columns.values()) for name in ("pretrain", "ceiling", "wrong_photos/ssd")] == [
        ("pretrain", "pretrain"), ("ceiling", "ceiling"), ("wrong_photos", "ssd"),
    ]  # fmt: skip
    assert RETRAINED.header == {"role": "retrain"}
    assert Model.of("wrong_photos/ssd").header == {"origin": "wrong_photos", "method": "ssd"}


def test_what_a_table_with_and_without_attacks_is_made_from() -> None:
    plain = {**TABLE, "privacy": False}
    assert list(map(str, models_of(plain))) == ["pretrain", "retrain", "pretrain/ssd", "pretrain/scrub"]
    found = measured_of(plain, [0, 1], ["scrub"])
    assert [len(found[kind]) for kind in ("metrics", "attacks", "refit")] == [16, 0, 0]
    private = {**TABLE, "privacy": True}
    assert list(map(str, models_of(private))) == ["pretrain", "retrain", "ceiling", "pretrain/ssd", "pretrain/scrub"]
    found = measured_of(private, [0, 1], ["scrub"])
    assert [len(found[kind]) for kind in ("metrics", "attacks", "refit")] == [24, 20, 20]
    controls = {str(model) for _, model in found["metrics"] if model.wrong_photos}
    assert controls == {"wrong_photos/ssd"}  # a method that has the data works from no photo
