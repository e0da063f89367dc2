"""What jobs ask for, by their wildcards."""

from types import SimpleNamespace as Wildcards
from typing import Any

import pytest

from oneshui.errors import ConfigError
from oneshui.inputs import Results, Runs, methods_that_keep, methods_that_need

ENTRY = {"layout": "celeba", "folder": "CelebA", "options": {}, "identities": None, "min_images": 1,
         "duplicate_distance": 0, "stored_px": [8, 8]}  # fmt: skip
RUN = {"dataset": "toy", "n": "5", "seed": "1"}


def config(**changes: Any) -> dict[str, Any]:
    methods = {
        "ssd": {"kind": "ssd", "params": {"selection": 10.0, "fisher": "image"}, "label": "SSD, ours"},
        "jit": {"kind": "jit", "params": {}},
        "scrub": {"kind": "scrub", "params": {}},
    }
    table = {"blocks": [{"dataset": "toy", "n": 5}, {"dataset": "toy", "n": 9}], "methods": list(methods)}
    return {
        "seeds": [0, 1, 2], "datasets": {"toy": ENTRY, "drawn": {**ENTRY, "synthetic": {}}}, "methods": methods,
        "training": {"toy": {"model": "net.tag", "init_weights": "timm"}}, "attack": attack("own", 0.3),
        "tables": {"plain": {**table, "privacy": False}, "private": {**table, "privacy": True}},
        "figures": {
            "bars": {"kind": "table_bars", "table": "private"}, "roc": {"kind": "roc", "table": "private"},
            "hardness": {"kind": "hardness", "table": "plain", "blocks": [{"dataset": "toy", "n": 9}]},
            "curves": {"kind": "training_curves", "table": "plain"},
            "faces": {"kind": "hardest_identities", "table": "plain", "blocks": [{"dataset": "toy", "n": 9}],
                      "show_faces": False},
        },
        **changes,
    }  # fmt: skip


def attack(references: str, offline_a: Any) -> dict[str, Any]:
    return {"references": references, "offline_a": offline_a}


def run(**more: str) -> Wildcards:
    return Wildcards(**RUN, **more)


def test_methods_by_what_they_need() -> None:
    assert methods_that_need(config(), "artefact", "nothing") == ["ssd", "jit"]
    assert methods_that_need(config(), "data") == ["scrub"]


@pytest.mark.parametrize(
    ("origin", "model", "request_", "artefact"),
    [
        ("pretrain", "models/toy/seed1/pretrain", "seed1", "pretrain"),
        ("retrain", "models/toy/n5/seed1/retrain", "seed1", "retrain"),
        ("wrong_photos", "models/toy/seed1/pretrain", "seed1_wrong_photos", "pretrain"),
    ],
)
def test_a_method_starts_from_the_model_and_the_artefact_of_its_origin(
    origin: str, model: str, request_: str, artefact: str
) -> None:
    runs, w = Runs(config()), run(origin=origin, method="ssd")
    assert runs.start_model(w) == f"results/{model}.safetensors"
    assert runs.request(w) == f"results/requests/toy/n5/{request_}.parquet"
    assert runs.artefact(w) == f"results/artefacts/toy/n5/seed1/{artefact}/ssd.safetensors"
    assert runs.artefact(run(origin=origin, method="jit")) == []


def test_an_artefact_that_serves_every_request_size_is_made_once() -> None:
    edits = {"kind": "identity_edits", "params": {"folds": 2, "solve": "sum"}}
    edits["overrides"] = {"toy": {"folds": 3}, "toy/n9": {"solve": "joint"}}
    made = config(methods={**config()["methods"], "edits": edits})
    assert methods_that_keep(made, every_n=True) == ["edits"] and methods_that_keep(made, every_n=False) == ["ssd"]
    runs, artefact = Runs(made), "results/artefacts/toy/seed1/pretrain/edits.safetensors"
    for n in ("5", "9"):
        for origin in ("pretrain", "wrong_photos"):
            assert runs.artefact(Wildcards(dataset="toy", n=n, seed="1", origin=origin, method="edits")) == artefact
    for_all = Wildcards(dataset="toy", seed="1", origin="pretrain", method="edits")  # of the rule that makes it
    assert runs.artefact_spec(for_all) == {"kind": "identity_edits", "folds": 3}
    assert runs.start_model(for_all) == "results/models/toy/seed1/pretrain.safetensors"
    assert runs.fold_models(for_all) == [f"results/models/toy/seed1/fold{k}of3.safetensors" for k in range(3)]
    assert runs.method_spec(Wildcards(dataset="toy", n="9", seed="1", method="edits"))["solve"] == "joint"


def test_an_artefact_depends_on_less_than_its_method() -> None:
    w = run(origin="pretrain", method="ssd")
    assert Runs(config()).method_spec(w) == {"kind": "ssd", "selection": 10.0, "fisher": "image"}
    assert Runs(config()).artefact_spec(w) == {"kind": "ssd", "fisher": "image"}


def test_a_trained_model_depends_on_the_data_but_not_on_where_it_lies() -> None:
    spec = Runs(config()).training_spec(run())
    assert "folder" not in spec["dataset"] and spec["dataset"]["stored_px"] == [8, 8]
    assert spec["training"]["model"] == "net.tag"


@pytest.mark.parametrize(
    ("source", "file"),
    [("random", []), ("timm", "results/weights/net.tag.safetensors"), ("own.safetensors", "own.safetensors")],
)
def test_initial_weights(source: str, file: str | list[str]) -> None:
    assert Runs(config(training={"toy": {"model": "net.tag", "init_weights": source}})).initial_weights(run()) == file


def test_rendered_faces_are_not_compared_with_the_published_ones() -> None:
    runs = Runs(config())
    assert runs.published_layout(run()) == "celeba"
    assert runs.published_layout(Wildcards(dataset="drawn")) == "synthetic"


def test_an_attack_looks_at_its_own_seed() -> None:
    files = Runs(config()).attack_inputs(run(method="ssd"))
    assert files == {
        "target": "results/scores/toy/n5/seed1/pretrain/ssd.parquet",
        "references": ["results/scores/toy/n5/seed1/retrain/ssd.parquet"],
        "splits": ["results/splits/toy/seed1.parquet"],
    }
    assert Runs(config()).attack_inputs(run(trained="retrain"))["references"] == [
        "results/scores/toy/n5/seed1/ceiling.parquet"
    ]


def test_an_attack_with_references_of_all_seeds_names_its_own_first() -> None:
    files = Runs(config(attack=attack("seeds", 0.3))).attack_inputs(run(trained="pretrain"))
    assert files["references"] == [f"results/scores/toy/n5/seed{seed}/retrain.parquet" for seed in (1, 0, 2)]
    assert files["splits"] == [f"results/splits/toy/seed{seed}.parquet" for seed in (1, 0, 2)]
    assert files["target"] == "results/scores/toy/seed1/pretrain.parquet"


def test_offline_a_is_tuned_on_the_next_seed() -> None:
    runs = Runs(config(attack=attack("own", "paired_seed")))
    files = runs.attack_inputs(Wildcards(**{**RUN, "seed": "2"}, method="ssd"))
    assert runs.paired_seed(Wildcards(**{**RUN, "seed": "2"})) == 0
    assert files["paired_target"] == "results/scores/toy/n5/seed0/pretrain/ssd.parquet"
    assert files["paired_reference"] == "results/scores/toy/n5/seed0/retrain/ssd.parquet"
    assert files["paired_splits"] == "results/splits/toy/seed0.parquet"


def test_tables() -> None:
    results = Results(config())
    plain, private = (results.table_inputs(Wildcards(table=name)) for name in ("plain", "private"))
    assert plain["attacks"] == [] and len(plain["metrics"]) == 2 * 3 * 5
    assert private["attacks"] == ["results/attacks/private.csv"]
    assert len(results.attacks_of_table(Wildcards(table="private"))) == 2 * 3 * 6  # with the ceiling
    assert set(plain["metrics"]) < set(private["metrics"])
    measured = results.measured()
    assert len(measured) == len(set(measured))
    assert set(measured) == {*private["metrics"], *results.attacks_of_table(Wildcards(table="private"))}
    assert results.table_spec(Wildcards(table="plain"))["labels"] == {"ssd": "SSD, ours"}
    written = results.figure_spec(Wildcards(figure="hardness"))
    assert written["blocks"] == [{"dataset": "toy", "n": 9}] and written["labels"] == {"ssd": "SSD, ours"}
    assert written["kinds"] == {"ssd": "ssd", "jit": "jit", "scrub": "scrub"}


def test_figures() -> None:
    results = Results(config())
    files = {name: results.figure_inputs(Wildcards(figure=name)) for name in ("bars", "roc", "hardness", "curves")}
    assert files["bars"][0] == "results/tables/private.csv" and len(files["bars"]) == 1 + 2 * 3 * (6 + 2)
    assert set(files["roc"]) == set(results.attacks_of_table(Wildcards(table="private")))
    assert files["hardness"][1:] == [
        f"results/identities/toy/n9/seed{seed}/pretrain/{method}.parquet"
        for seed in range(3)
        for method in ("ssd", "jit")
    ]
    assert len(files["curves"]) == 3 + 2 * 3  # pretrained models serve both request sizes
    assert results.figure_rows(Wildcards(figure="bars"))[2] == "ceiling"


def test_faces_are_drawn_only_when_the_configuration_says_so() -> None:
    asked = config()
    results = Results(asked)
    assert results.figures(faces=True) == ["faces"] and "faces" not in results.figures(faces=False)
    assert "faces" not in results.figures_to_draw()
    with pytest.raises(ConfigError, match=r"figures/faces shows faces. Set its show_faces: true"):
        results.faces_inputs(Wildcards(figure="faces"))
    asked["figures"]["faces"]["show_faces"] = True
    assert "faces" in Results(asked).figures_to_draw()
    assert Results(asked).faces_inputs(Wildcards(figure="faces"))["images"] == "results/data/toy/images.npy"


def test_the_report_is_made_from_tables_attacks_and_identities() -> None:
    files = Results(config()).report_inputs()
    assert files["tables"] == ["results/tables/plain.csv", "results/tables/private.csv"]
    assert (files["attacks"], files["roc"]) == (["results/attacks/private.csv"], ["results/figures/roc.csv"])
    assert len(files["identities"]) == len(set(files["identities"])) == 2 * 3 * 2
    assert files["splits"] == [f"results/splits/toy/seed{seed}.parquet" for seed in range(3)]
