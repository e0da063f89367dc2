"""What is written from the typed models is current, and is what the models say."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from oneshui import reference
from oneshui.errors import DataError
from oneshui.methods import METHODS, Revision

ROOT = Path(__file__).parents[2]


def test_schema_and_tables_are_current() -> None:
    for path, text in reference.files(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)} is old: run make reference"


def test_every_kind_has_a_table_of_its_hyper_parameters() -> None:
    found = reference.files(ROOT)
    for kind, entry in METHODS.items():
        for field in [*dataclasses.fields(entry.params), *dataclasses.fields(Revision)]:  # type: ignore[arg-type]
            assert found[ROOT / f"docs/methods/{kind}.md"].count(f"\n| `{field.name}` | ") == 1
    assert "| `selection` | a number > 0 | alpha: " in found[ROOT / "docs/methods/ssd.md"]
    readme = found[ROOT / "config/README.md"]
    for section in ("datasets/NAME", "datasets/NAME/split", "training/NAME", "tables/NAME/published", "attack"):
        assert readme.count(f"### `{section}`\n") == 1
    assert "| `jobs_per_gpu` | a whole number >= 1; 1 if left out |" in readme
    assert "| `folder` | text; may be left out |" in readme


def errors(config: Any) -> list[str]:
    validator = Draft202012Validator(reference.json_schema())
    return ["/".join(map(str, error.absolute_path)) for error in validator.iter_errors(config)]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_an_editor_accepts_our_configurations(path: Path) -> None:
    Draft202012Validator.check_schema(reference.json_schema())
    assert errors(yaml.safe_load(path.read_text())) == []
    assert path.read_text().startswith("# yaml-language-server: $schema=../workflow/schemas/config.schema.json\n")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "red"), ("training/celeba/lr", 0), ("datasets/celeba/folder", None), ("methods/ssd/kind", "sdd"),
        ("methods/ssd/params/selection", -1), ("methods/ssd/params/alpha", 1), ("tables/table1/methods", []),
        ("methods/ssd/overrides/celeba/dampening", 0), ("methods/pgu/params/revision", 0), ("seeds", [0, 0]),
    ],
)  # fmt: skip
def test_an_editor_marks_what_is_wrong(path: str, value: Any) -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    *parents, last = path.split("/")
    place = config
    for key in parents:
        place = place[key]
    place[last] = copy.deepcopy(value)
    assert errors(config)


FACES = {
    "task": "multilabel", "n_identities": 3, "images_per_identity": [2, 3], "image_px": 16, "n_classes": 8,
    "memorised_frac": 0.0, "noise_frac": 0.0, "seed": 0,
}  # fmt: skip
CLASSES = FACES | {"task": "classification"}
OWN = {"kind": "mine:Mine", "params": {"lr": 1}}
HARDEST = {"kind": "hardest_identities", "table": "table1", "show_faces": False}
BLOCK, OTHER = {"dataset": "celebahq", "n": 50}, {"dataset": "celebahq", "n": 20}
TRAINING = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["training"]["demo"]  # from random weights


def without(key: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("datasets/celeba", {"layout": "synthetic", "synthetic": FACES}, {"layout": "synthetic"}),
        ("datasets/celeba", {"layout": "manifest", "folder": "a"}, {"layout": "manifest"}),
        (
            "datasets/celeba",
            {"layout": "celeba", "folder": "a"},
            {"layout": "celeba", "folder": "a", "synthetic": FACES},
        ),
        (
            "datasets/celeba",
            {"layout": "synthetic", "synthetic": FACES},
            {"layout": "synthetic", "synthetic": FACES, "folder": "a"},
        ),
        (
            "datasets/celeba",
            {"layout": "celeba", "synthetic": FACES},
            {"layout": "celeba", "synthetic": CLASSES},
        ),
        (
            "datasets/celeba",
            {"layout": "mufac", "synthetic": CLASSES},
            {"layout": "mufac", "synthetic": CLASSES | {"n_classes": 7}},
        ),
        (
            "datasets/celeba",
            {"layout": "manifest", "synthetic": FACES | {"n_classes": 1}},
            {"layout": "manifest", "synthetic": CLASSES | {"n_classes": 1}},
        ),
        ("training/celeba", TRAINING, without("mean", TRAINING)),
        ("training/celeba", TRAINING, TRAINING | {"std": None}),
        ("figures/figure4/kind", "harm", "pie"),
        ("figures/figure4", {"kind": "harm", "table": "table1"}, HARDEST | {"kind": "harm", "blocks": [BLOCK]}),
        ("figures/figure6", HARDEST | {"blocks": [BLOCK]}, HARDEST),
        ("figures/figure6", HARDEST | {"blocks": [BLOCK]}, HARDEST | {"blocks": [BLOCK, OTHER]}),
        ("figures/figure6", HARDEST | {"blocks": [BLOCK]}, without("show_faces", HARDEST | {"blocks": [BLOCK]})),
        ("methods/jit", OWN | {"needs": "nothing"}, OWN),
        ("methods/jit", {"kind": "jit", "params": {}}, {"kind": "jit", "params": {}, "needs": "nothing"}),
        ("methods/ssd/overrides", {"celeba/n5": {}, "celeba": {}}, {"de mo": {}}),
        ("tables", {}, {"a b": None}),
        ("tables/table1/blocks", [BLOCK, OTHER], [BLOCK, BLOCK]),
        ("attack/offline_a", "paired_seed", "paired"),
    ],
)
def test_an_editor_knows_what_keys_ask_of_each_other(path: str, good: Any, bad: Any) -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    *parents, last = path.split("/")
    place = config
    for key in parents:
        place = place[key]
    if parents == ["datasets"]:
        kept = {key: value for key, value in place[last].items() if key not in ("layout", "folder", "synthetic")}
        good, bad = kept | good, kept | bad
    place[last] = good
    assert errors(config) == []
    place[last] = bad
    assert errors(config)


def test_an_editor_knows_that_references_of_other_seeds_need_a_fixed_weight() -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["attack"]["references"] = "seeds"
    assert errors(config) == []
    config["attack"]["offline_a"] = "paired_seed"
    assert errors(config) == ["attack/references"]


def test_a_card_without_a_place_for_its_table_is_an_error(tmp_path: Path) -> None:
    for path in reference.files(ROOT):
        there = tmp_path / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(path.read_text())
    (tmp_path / "docs/methods/jit.md").write_text("# JiT\n")
    with pytest.raises(DataError, match=r"docs/methods/jit.md has no place for its table: add the lines"):
        reference.files(tmp_path)


def test_the_command_writes_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in reference.files(ROOT).items():
        there = tmp_path / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text.replace("a number > 0", "a number"))
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path)])
    reference.main()
    for path, text in reference.files(ROOT).items():
        assert (tmp_path / path.relative_to(ROOT)).read_text() == text
