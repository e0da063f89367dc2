"""What is written from the typed models is current, and is what the models say."""

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from oneshui import reference
from oneshui.config import FACES
from oneshui.errors import DataError
from oneshui.methods import METHODS, Revision
from oneshui.report.columns import NAMES, cards
from oneshui.report.figures import KINDS

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
    (kinds,) = re.findall(r"\| `kind` \| .* \| what it shows\. (.*) \|\n", readme)
    assert re.findall(r"`(\w+)`: ", kinds) == [*KINDS, FACES]


def copied(root: Path) -> Path:
    """Copy the documents to another folder and return its docs/metrics.md."""
    for path in reference.files(ROOT):
        there = root / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return root / "docs/metrics.md"


def test_every_column_of_the_csv_stands_in_the_table_with_unit_meaning_and_a_link_to_its_cards() -> None:
    text = reference.files(ROOT)[ROOT / "docs/metrics.md"]
    table = [line for line in text.partition("<!-- make reference -->\n")[2].splitlines() if line.startswith("|")]
    for name in NAMES:
        (row,) = [line for line in table if f"`{name}`" in line.split("|")[1]]
        assert all(cell.strip() for cell in row.split("|")[2:4])
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors
    assert all(f"[{card.title}](#" in "\n".join(table) for card in cards())


def test_names_of_columns_are_written_and_their_meaning_is_kept(tmp_path: Path) -> None:
    metrics = copied(tmp_path)
    right = metrics.read_text(encoding="utf-8")
    old = right.replace(", `rmia_auc_low`", "").replace("AUC of RMIA |", "how well RMIA does |")
    assert old.count("`rmia_auc_low`") == right.count("`rmia_auc_low`") - 1
    metrics.write_text(old, encoding="utf-8")
    assert reference.files(tmp_path)[metrics] == right.replace("AUC of RMIA |", "how well RMIA does |")


@pytest.mark.parametrize("instead", ["| `no_column` | images |", "| `members` | |"])
def test_a_column_without_unit_or_meaning_is_an_error(tmp_path: Path, instead: str) -> None:
    metrics = copied(tmp_path)
    text = metrics.read_text(encoding="utf-8")
    assert text.count("| `members` | images |") == 1
    metrics.write_text(text.replace("| `members` | images |", instead), encoding="utf-8")
    with pytest.raises(DataError, match=r"docs/metrics.md does not say what the column members means\. Add"):
        reference.files(tmp_path)


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
        ("datasets/celeba/layout", "lfw"),
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


DRAWN = {
    "task": "multilabel", "n_identities": 3, "images_per_identity": [2, 3], "image_px": 16, "n_classes": 8,
    "memorised_frac": 0.0, "noise_frac": 0.0, "seed": 0,
}  # fmt: skip
CLASSES = DRAWN | {"task": "classification"}
OWN = {"kind": "mine:Mine", "params": {"lr": 1}}
HARDEST = {"kind": "hardest_identities", "table": "table1", "show_faces": False}
BLOCK, OTHER = {"dataset": "celebahq", "n": 50}, {"dataset": "celebahq", "n": 20}
TRAINING = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["training"]["demo"]  # from random weights


def without(key: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("datasets/celeba", {"layout": "synthetic", "synthetic": DRAWN}, {"layout": "synthetic"}),
        ("datasets/celeba", {"layout": "manifest", "folder": "a"}, {"layout": "manifest"}),
        (
            "datasets/celeba",
            {"layout": "celeba", "folder": "a"},
            {"layout": "celeba", "folder": "a", "synthetic": DRAWN},
        ),
        (
            "datasets/celeba",
            {"layout": "synthetic", "synthetic": DRAWN},
            {"layout": "synthetic", "synthetic": DRAWN, "folder": "a"},
        ),
        (
            "datasets/celeba",
            {"layout": "celeba", "synthetic": DRAWN},
            {"layout": "celeba", "synthetic": CLASSES},
        ),
        (
            "datasets/celeba",
            {"layout": "mufac", "synthetic": CLASSES},
            {"layout": "mufac", "synthetic": CLASSES | {"n_classes": 7}},
        ),
        (
            "datasets/celeba",
            {"layout": "manifest", "synthetic": DRAWN | {"n_classes": 1}},
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
    copied(tmp_path)
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
