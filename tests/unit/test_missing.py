"""What is said of datasets that are not there, and of targets that nothing makes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneshui.planning.missing import lacking, missing_datasets, needed_datasets, no_such_file

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "resources/datasets.yaml"


@pytest.fixture
def paper() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return config


@pytest.mark.parametrize(
    ("targets", "needed"),
    [
        ([], ["celebahq", "celeba", "mufac"]),
        (["tables"], ["celebahq", "celeba", "mufac"]),
        (["results/tables/table2.csv"], ["celeba"]),
        (["results/tables/table2_tidy.csv"], ["celeba"]),
        (["results/attacks/table3.csv", "results/tables/table1.md"], ["celebahq", "mufac"]),
        (["results/models/celebahq/seed0/pretrain.safetensors"], ["celebahq"]),
        (["results/plan.txt"], ["celebahq", "celeba", "mufac"]),
    ],
)
def test_a_target_needs_the_datasets_of_its_table_or_path(
    paper: dict[str, Any], targets: list[str], needed: list[str]
) -> None:
    assert needed_datasets(paper, targets) == needed


def test_a_figure_needs_the_datasets_of_its_table(paper: dict[str, Any]) -> None:
    for name, figure in paper["figures"].items():
        blocks = paper["tables"][figure["table"]]["blocks"]
        assert set(needed_datasets(paper, [f"results/figures/{name}.pdf"])) == {block["dataset"] for block in blocks}


def test_only_what_is_missing_and_asked_for_is_told(
    paper: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paper["data_root"] = "data"
    missed = ["data/CelebA/identity_CelebA.txt"]
    said = missing_datasets(paper, ["tables"], missed, PUBLISHED)
    assert [name in said for name in ("celebahq: ", "celeba: ", "mufac: ")] == [True] * 3
    assert f"data_root is data ({tmp_path}/data)" in said
    said = missing_datasets(paper, ["results/tables/table2.csv"], missed, PUBLISHED)
    assert [name in said for name in ("celebahq: ", "celeba: ", "mufac: ")] == [False, True, False]
    index = tmp_path / "results/data/celebahq/index.parquet"
    index.parent.mkdir(parents=True)
    index.touch()  # its raw data may be gone
    said = missing_datasets(paper, ["tables"], missed, PUBLISHED)
    assert [name in said for name in ("celebahq: ", "celeba: ", "mufac: ")] == [False, True, True]
    assert missing_datasets(paper, ["tables"], ["weights/vit.safetensors"], PUBLISHED) == ""


def test_annotation_files_are_looked_for_one_by_one(paper: dict[str, Any], tmp_path: Path) -> None:
    paper["data_root"] = str(tmp_path)
    (tmp_path / "CelebA").mkdir()
    (tmp_path / "CelebA/list_attr_celeba.txt").touch()
    assert lacking(paper, "celeba") == ["identity_CelebA.txt"]
    (tmp_path / "CelebA/identity_CelebA.txt").touch()
    assert lacking(paper, "celeba") == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("results/tables/toi.csv", "tables of c.yaml: table1, table2, .*; files of each: .csv, .md"),
        ("results/attacks/toi.csv", "tables with privacy: true of c.yaml: table.*; files of each: .csv$"),
        ("results/figures/toi.pdf", "figures of c.yaml: figure"),
        ("results/models/toi/seed0/pretrain.safetensors", "datasets of c.yaml: celebahq, celeba, mufac$"),
        ("results/models/celeba/seed9/pretrain.safetensors", "seeds has no 9, allowed: 0, 1, 2$"),
        ("tabels", "targets: all, tables, figures"),
    ],
)
def test_the_names_of_the_kind_are_told(paper: dict[str, Any], file: str, message: str) -> None:
    said = no_such_file(paper, file, "c.yaml")
    assert said.startswith("ConfigError in c.yaml: ") and file in said and re.search(message, said)
