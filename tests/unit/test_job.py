"""What Snakemake hands to a script, with Snakemake's own containers, as typed values."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import InputFiles, Namedlist, OutputFiles, Params, Wildcards

from oneshui.errors import DataError
from oneshui.job import Job, running
from oneshui.runs import Model, Run


def named(kind: type[Namedlist], **items: Any) -> Namedlist:
    """Return Snakemake's container of named items, lists of files among them."""
    container = kind()
    for name, item in items.items():
        start = len(container)
        if isinstance(item, list):
            container.extend(item)
            container._set_name(name, start, end=len(container))
        else:
            container.append(item)
            container._set_name(name, start)
    return container


def snakemake(tmp_path: Path, **inputs: Any) -> Any:
    return SimpleNamespace(
        input=named(InputFiles, **inputs), output=named(OutputFiles, model="results/m.safetensors"),
        wildcards=named(Wildcards, dataset="toy", n="10", seed="2", method="ssd"),
        params=named(Params, model="retrain"),
        config={"jobs_per_gpu": 1}, threads=2, resources=SimpleNamespace(get={"gpu": 1}.get),
        log=[str(tmp_path / "log")],
    )  # fmt: skip


def test_files_are_paths_and_numbers_are_numbers(tmp_path: Path) -> None:
    job = Job(snakemake(tmp_path, index="a.parquet", metrics=["b", "c"], one=["d"]))
    assert job.input("index") == Path("a.parquet")
    assert job.inputs("metrics") == [Path("b"), Path("c")] and job.inputs("one") == [Path("d")]
    assert job.inputs("index") == [Path("a.parquet")]
    assert job.output("model") == Path("results/m.safetensors")
    assert (job.run, job.wildcard("method")) == (Run("toy", 10, 2), "ssd")
    assert (job.model, job.threads, job.gpus) == (Model("retrain"), 2, 1)


def test_the_model_of_a_rule_without_that_parameter_stands_in_its_path(tmp_path: Path) -> None:
    given = snakemake(tmp_path)
    given.params = named(Params, spec="x")
    given.wildcards = named(Wildcards, dataset="toy", seed="2", origin="wrong_photos", method="ssd")
    assert Job(given).model == Model("pretrain", "ssd", wrong_photos=True)
    assert Job(given).run == Run("toy", None, 2)


def test_optional_input_is_a_path_or_none(tmp_path: Path) -> None:
    """The initial weights that crashed every training arrived as text; those that are not there, as an empty list."""
    assert Job(snakemake(tmp_path, weights="w.safetensors")).optional_input("weights") == Path("w.safetensors")
    assert Job(snakemake(tmp_path, weights=[])).optional_input("weights") is None
    assert Job(snakemake(tmp_path)).optional_input("weights") is None
    assert Job(snakemake(tmp_path)).inputs("attacks") == []


def test_several_files_are_not_one(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not one file"):
        Job(snakemake(tmp_path, metrics=["b", "c"])).input("metrics")


@pytest.mark.parametrize(("error", "trace"), [(DataError("row 3 is wrong"), False), (KeyError("why"), True)])
def test_the_error_of_a_job_stands_in_its_log_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, trace: bool
) -> None:
    with pytest.raises(SystemExit) as ended, running(snakemake(tmp_path)):
        raise error
    assert ended.value.code == 1 and ended.value.__suppress_context__
    log = (tmp_path / "log").read_text()
    assert f"{type(error).__name__}: {error}" in log and ("Traceback" in log) == trace
    assert capsys.readouterr().err == ""


def test_an_error_reaches_the_terminal_where_the_log_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    given = snakemake(Path())
    given.log = ["/dev/full"]
    with pytest.raises(SystemExit), running(given):
        raise DataError("row 3 is wrong")
    said = capsys.readouterr().err
    assert "DataError: row 3 is wrong" in said and "Traceback" not in said
