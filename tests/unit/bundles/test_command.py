"""The command ``oneshui``: exit codes, help, completion, and what it does not need."""

import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.unit.bundles.conftest import ANN
from tests.unit.bundles.objects import method, write_model, write_objects

import oneshui
from oneshui.__main__ import _manifest_options, commands_of, completion_of, main, parser
from oneshui.methods import METHODS

ROOT = Path(__file__).parents[3]
#: packages that only the workflow needs
WORKFLOW = {"snakemake", "matplotlib", "jinja2", "sklearn", "vl_convert"}


@pytest.mark.parametrize(
    "words", [[], ["forget"], ["forget", "b", "--photo", "alice", "--out", "n"], ["pack", "--std", "x"], ["forgt"]]
)
def test_a_wrong_command_line_has_an_exit_code_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and "usage: oneshui" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["x", "0.5,0.5", "0.5,0.5,0.5,0.5", ""])
def test_channels_are_one_number_or_three(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pack", "--mean", value])
    said = f"--mean: {value!r} is not a number, or three with commas between them"
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["pack", "show", "forget", "verify", "check", "completion"])
def test_every_command_has_help_with_an_example_that_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "exit codes:" in told
    examples = re.findall(r"^  (?:source <\()?oneshui (.*?)(?:\).*|>>.*)?$", told.replace("\\\n", " "), re.M)
    assert examples
    for example in examples:
        words = [word.strip('"') for word in re.findall(r'(?:[^\s"]|"[^"]*")+', example)]
        parser().parse_args([word.replace('"', "") for word in words])


def test_what_lists_and_labels_on_the_command_line_mean() -> None:
    forget = parser().parse_args(["forget", "b", "--photo", "a=x=1.png", "--label", "a=", "--label", "b=x=y"])
    assert forget.photos == [("a", "x=1.png")] and forget.labels == [("a", ""), ("b", "x=y")]
    words = ["pack", "--out", "b", "--configfile", "c", "--method", "m", "--classes", "a, b c ,d"]
    assert _manifest_options(parser().parse_args(words)) == {"classes": ["a", "b c", "d"]}


def test_a_hang_up_that_was_to_be_ignored_stays_ignored() -> None:
    """Packing may take hours, under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["completion", "bash"]) == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    line = f"set -o pipefail; {sys.executable} -m oneshui completion bash | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def completed(line: str, folder: Path) -> list[str]:
    """Return what bash offers for the last word of a command line."""
    script = completion_of(parser(), "bash")
    words = line.split(" ")
    array = " ".join(f'"{word}"' for word in words)
    ask = f'COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _shtab_oneshui; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_values_and_files(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    assert set(completed("oneshui ", tmp_path)) == set(commands_of(parser()))
    assert completed("oneshui ver", tmp_path) == ["verify"]
    assert completed("oneshui forget --dry", tmp_path) == ["--dry-run"]
    assert completed("oneshui forget bun", tmp_path) == ["bundle"]
    assert completed("oneshui forget bundle --out bun", tmp_path) == ["bundle"]
    assert completed("oneshui pack --method bun", tmp_path) == []  # a name in a configuration, not a file
    assert completed("oneshui completion z", tmp_path) == ["zsh"]
    assert "--photo" not in completed("oneshui show --", tmp_path)
    assert "--person" in completed("oneshui show --", tmp_path)


_RUN = """
import sys
sys.modules |= dict.fromkeys({closed})
from oneshui.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_commands_do_without_the_workflow_and_most_without_torch(tmp_path: Path) -> None:
    """Packages that only the workflow needs are closed to them; torch to those that do not compute in this process."""
    write_objects(tmp_path / "photos", "classification")
    write_model(tmp_path / "w.safetensors", "test_resnet", "classification")
    params = {name: value for name, value in method("jit").items() if name != "kind"}
    (tmp_path / "m.yaml").write_text(json.dumps({"methods": {"cheap": {"kind": "jit", "params": params}}}))
    pack = "pack --weights w.safetensors --model test_resnet --images photos --input-px 32 --mean 0.5 --std 0.2,0.2,0.2"
    pack += " --configfile m.yaml --method cheap --out bundle --cpu"
    no_torch = WORKFLOW | {"torch"}
    for words, closed in (
        (["--help"], no_torch),
        (["forget", "--help"], no_torch),
        (["completion", "bash"], no_torch),
        (pack.split(), WORKFLOW),
        (["show", "bundle"], no_torch),
        (["forget", "bundle", "--photo", f"{ANN}=asks_02.png", "--out", "new"], no_torch),
        (["verify", "new-receipt.json", "bundle", "new"], WORKFLOW),
    ):
        line = [sys.executable, "-c", _RUN.replace("{closed}", repr(closed)), *words]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, (words, done.stderr)
    assert "new-receipt.json: true of these bundles" in done.stdout


def test_what_only_the_workflow_needs_is_no_dependency_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(entries: list[str]) -> set[str]:
        return {re.split(r"[^a-z0-9_-]", entry.lower())[0] for entry in entries}

    extra = names(project["optional-dependencies"]["workflow"])
    assert extra == {
        "snakemake", "setproctitle", "threadpoolctl", "matplotlib", "jinja2", "scikit-learn", "vl-convert-python",
    }  # fmt: skip
    assert not extra & names(project["dependencies"])


def test_the_document_says_what_each_method_keeps_and_does_for_somebody_unknown() -> None:
    text = (ROOT / "docs/bundles.md").read_text(encoding="utf-8")
    unknown, stays = (
        {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in part.splitlines() if row.startswith("| ")}
        for part in re.findall(r"^### (?:Somebody whom|What is removed).*?(?=^##)", text, re.M | re.S)
    )
    for kind, entry in METHODS.items():
        if entry.needs == "data":
            continue
        assert stays[entry.label] == entry.stays, kind
        (said,) = [what for labels, what in unknown.items() if entry.label in labels.split(", ")]
        assert entry.unknown in said and ("leaves the model as it is" in said) == entry.folds, kind


def test_the_package_offers_what_the_commands_do() -> None:
    for name in ("pack", "pack_model", "show", "forget", "verify"):
        assert callable(getattr(oneshui, name)) and f"oneshui.{name}" in (ROOT / "docs/bundles.md").read_text()
    with pytest.raises(AttributeError, match="no attribute 'remember'"):
        oneshui.remember  # noqa: B018
