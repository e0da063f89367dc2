"""The report, from files to one page."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.unit.report.invented import config_of, write_inputs

from oneshui.errors import DataError
from oneshui.schemas import IDENTITIES, read_table, write_table
from oneshui.stages.make_report import installed_versions, make_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = config_of(methods=["ssd", "metaunlearn"], seeds=[0, 1])
    return write_inputs(tmp_path_factory.mktemp("run"), config, people=12, test_images=100)


def test_the_page_names_every_file_with_its_hash(run: dict[str, Any], tmp_path: Path) -> None:
    make_report(**run, output=tmp_path / "results" / "report.html")
    text = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    paths = [
        *run["tables"].values(),
        *run["attacks"].values(),
        *run["roc"].values(),
        *run["identities"],
        *run["splits"],
    ]
    assert len(paths) == 9
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert "identities/mufac/n5/seed1/ssd.parquet" in text
    assert str(paths[0].parent) not in text  # where the run lies is nobody's business
    assert not list((tmp_path / "results").glob(".*"))  # no temporary file is left


def test_the_page_does_not_depend_on_the_order_of_files(run: dict[str, Any], tmp_path: Path) -> None:
    make_report(**run, output=tmp_path / "a.html")
    turned = {**run, "identities": run["identities"][::-1], "splits": run["splits"][::-1]}
    make_report(**turned, output=tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_model_that_diverged_is_missing(run: dict[str, Any], tmp_path: Path) -> None:
    frame, meta = read_table(run["identities"][0], IDENTITIES)
    lost = tmp_path / "lost.parquet"
    kept = {name: meta[name] for name in ("dataset", "n", "seed", "row", "task")}
    write_table(lost, frame.iloc[:0], IDENTITIES, {**kept, "blown_up": True})
    make_report(**{**run, "identities": [lost, *run["identities"][1:]]}, output=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Missing (no file, or the model diverged): SSD, seed 0." in text


def test_damaged_files_are_refused_and_leave_no_page(run: dict[str, Any], tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("")
    with pytest.raises(DataError, match=r"bad\.csv is not a readable CSV file"):
        make_report(**{**run, "tables": {"main": bad}}, output=tmp_path / "report.html")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not written by oneshui"):
        make_report(**{**run, "identities": [tmp_path / "x.parquet"]}, output=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_versions_are_those_of_what_runs(run: dict[str, Any], tmp_path: Path) -> None:
    found = installed_versions()
    assert found["numpy"] and found["pandas"] == pd.__version__
    assert "pytest" not in found  # a development dependency
    without = {name: value for name, value in run.items() if name != "versions"}
    make_report(**without, output=tmp_path / "report.html")
    assert f"<td>{pd.__version__}</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")
