"""The advice on a locked folder can be typed as it stands."""

import shlex
from pathlib import Path

import pytest

from oneshui.presence import locked_message


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        (".venv/bin/snakemake", ".venv/bin/snakemake"),  # make demo: nothing is activated
        ("BIN/snakemake", "snakemake"),
        ("/lib/snakemake/__main__.py", "snakemake"),  # python -m snakemake
    ],
)
def test_the_command_that_unlocks_names_the_program_as_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, typed: str
) -> None:
    installed = tmp_path / "snakemake"
    installed.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    called = [program.replace("BIN", str(tmp_path)), "--cores", "2", "--config", "data_root=my data", "--", "all"]
    advice = locked_message(None, called).partition("what had finished stays. ")[2]
    assert shlex.split(advice) == [typed, "--unlock", *called[1:]]
