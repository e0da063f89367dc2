"""The tutorial and the examples of docs/bundles.md are run as they stand there.

``python -m tests.workflow.test_documents FOLDER`` runs the tutorial in a new folder and writes what it printed into it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL, BUNDLES = ROOT / "docs/tutorial.md", ROOT / "docs/bundles.md"
#: what a clone has at its top, as far as the tutorial needs it
CLONE = ("Snakefile", "config", "envs", "workflow", "profiles", "resources")
#: lines of Snakemake's that are shown; the others are times
SHOWN = 1


def clone(folder: Path) -> Path:
    """Make a folder with what a clone holds of the workflow."""
    folder.mkdir()
    for name in CLONE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a document with what it prints there."""
    for block in re.findall(r"(?:^    .*\n?|^\n(?=    ))+", text, re.M):
        for part in re.split(r"^    \$ ", block, flags=re.M)[1:]:
            command, _, told = part.partition("\n")
            yield command, "\n".join(line[4:] for line in told.rstrip().splitlines())


def shown(command: str, told: str) -> str:
    """Return what the tutorial shows of what a command printed."""
    lines = told.rstrip().splitlines()
    if command.startswith("snakemake"):
        return "\n".join([*lines[:SHOWN], "..."])
    if command == "ls":
        mine = [line for line in lines if line not in CLONE]
        return "\n".join(mine)
    return "\n".join(lines)


def run_tutorial(folder: Path, after: Callable[[str], None] = lambda command: None) -> Iterator[tuple[str, str, str]]:
    """Run the commands of the tutorial in a clone; yield each with what it shows there and what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command, wanted in steps(TUTORIAL.read_text(encoding="utf-8")):
        words = re.sub("^oneshui", f"{sys.executable} -m oneshui", command)
        done = subprocess.run(
            ["bash", "-c", words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            env={**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}, timeout=900,
        )  # fmt: skip
        assert done.returncode == (1 if "bundle4" in command else 0), done.stdout
        yield command, wanted, shown(command, done.stdout)
        after(command)


def masked(text: str) -> str:
    """Return a text without what differs from run to run and from machine to machine: numbers, hashes, the answer."""
    text = re.sub(r"[0-9a-f]{64}|oneshui-[0-9a-f]{8}", "HASH", text)
    text = re.sub(r"label \w+ \(the", "label X (the", text)
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", text)


@pytest.mark.slow
def test_the_tutorial_and_the_examples_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = clone(tmp_path / "clone"), tmp_path / "other"
    examples = python_of(BUNDLES)
    assert len(examples) == 2

    def also(command: str) -> None:
        """Run the example of packing and forgetting, too, while the data is there."""
        if command.startswith("oneshui pack"):
            artefact = "results/artefacts/demo/n5/seed0/pretrain/ssd.safetensors"
            line = f"snakemake --cores 2 --configfile config/demo.yaml -- {artefact}"
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            subprocess.run(
                ["bash", "-c", line], cwd=folder, check=True, capture_output=True, env={**os.environ, "PATH": path}
            )
            shutil.copytree(folder, other)

    for command, wanted, found in run_tutorial(folder, also):
        assert masked(found) == masked(wanted), f"{command}: run python -m tests.workflow.test_documents NEWFOLDER"
    shutil.copy(other / "ann.png", other / "photo.png")
    done = subprocess.run(
        [sys.executable, "-c", examples[0]], cwd=other, capture_output=True, text=True, check=True, timeout=300
    )
    assert re.fullmatch(r"served \{'answer': '\w', 'sure_of_label': [\d.e-]+\}\n", done.stdout)
    assert len(examples[0].strip().splitlines()) == 5


def python_of(path: Path) -> list[str]:
    """Return the Python examples of a document."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def test_methods_work_on_plain_modules_and_tensors_as_the_example_says(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_of(BUNDLES)[1], "docs/bundles.md", "exec"), {})  # our own document
    assert re.fullmatch(r"\{'relative_step': [\d.e-]+, 'damped_frac': [\d.e-]+\}\n", capsys.readouterr().out)


if __name__ == "__main__":
    document = TUTORIAL.read_text(encoding="utf-8")
    for command_, old, printed in list(run_tutorial(clone(Path(sys.argv[1])))):
        indented = "\n".join(f"    {line}".rstrip() for line in printed.splitlines())
        before = f"    $ {command_}\n" + "".join(f"    {line}".rstrip() + "\n" for line in old.splitlines())
        assert before in document, before
        document = document.replace(before, f"    $ {command_}\n{indented}\n" if indented else f"    $ {command_}\n", 1)
    TUTORIAL.write_text(document, encoding="utf-8")
