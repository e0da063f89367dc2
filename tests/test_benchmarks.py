"""The benchmark scripts at small size: what they compare agrees, and they print their tables."""

import copy
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import torch
from benchmarks import gpu
from benchmarks.__main__ import DOCUMENTS, names_in, replaced
from benchmarks.artefact_attack import Attacker
from benchmarks.finished_run import FinishedRun
from benchmarks.mufac import files_to_carry, python_with, weights_name, wheel_commands
from benchmarks.one_person import after_others, report_others

from oneshui.config import SyntheticSpec
from oneshui.data.raw_layouts import write_raw
from oneshui.methods.base import Artefact, Unlearned
from oneshui.planning.rates import read_rates
from oneshui.sets import ImageSet
from oneshui.tasks import Task

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("rmia", ["--tested", "200", "--population", "300", "--views", "2", "--rounds", "1"],
         ["| one view |", "| mean log ratio |", "| majority |", "equal"]),
        ("scaling", ["--identities", "2000"], ["| 2,000 | splits |", "| 2,000 | train_pretrain |", "| 2,000 | all |"]),
    ],
)  # fmt: skip
def test_script(script: str, arguments: list[str], rows: list[str]) -> None:
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for row in rows:
        assert row in done.stdout, done.stdout
    assert "nan" not in done.stdout and "DIFFERENT" not in done.stdout


#: measurement -> parts of what it prints
PRINTED = {
    "tests": ["test_the_host_never_waits", "test_cuda_computes_in_isolation"],
    "steps": ["| `test_resnet`, 32 px | ", "images/s"],
    "meta-training": ["| `test_resnet`, 32 px | 2 |"],
    "meta-gradient": ["double backward", "exact jvp", "finite difference"],
    "outer precision": ["| float32 |", "| bf16 |"],
    "trainings at once": ["2 trainings", "| `test_resnet`, 32 px | "],
    "single gradients": ["| test_resnet:32 | 1 |", "| test_resnet:32 | 2 |"],
    "input": ["| 128 px | 64 px |", "| 1024 px |"],
    "Gram matrices": ["MB beyond the model"],
    "rates": ["'train_s': ", "'forward_s': "],
    "compiled step": ["| `test_resnet`, 32 px, 4 images | "],
    "kernels": ["A step of `test_resnet:32`, 4 images: ", "A simulated request of ", "| matrix products | "],
    "start of a job": ["a job's start: table", "dry run of the paper's grid"],
}


def test_everything_for_a_gpu_at_toy_size(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--device", "cpu", "--minutes", "20", "--out"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + (tmp_path / "gpu.md").read_text()
    found = {each["name"]: each for each in map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())}
    assert list(found) == [each.name for each in gpu.measurements()]
    page = (tmp_path / "gpu.md").read_text()
    for name, parts in PRINTED.items():
        printed = found[name]["printed"]
        assert f"## {name}\n" in page and all(part in printed and part in page for part in parts), printed
        assert "DIFFERENT" not in printed and ("nan" not in printed or name == "rates")
    assert len(read_rates(tmp_path / "rates.csv")) == 1


def measurement(code: str, limit_s: float) -> gpu.Measurement:
    return gpu.Measurement("one", "What it says.", ("-c", code), (), limit_s)


def test_a_measurement_that_is_too_slow_ends_with_its_children_and_keeps_what_it_printed(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
print("| first |", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
child.wait()"""
    found = gpu.run(measurement(code, 60), 5, sys.executable, os.environ, tmp_path, toy=False, device="cpu")
    assert found["status"] == "stopped at its limit of 5 s" and found["printed"] == "| first |\n"
    state = Path("/proc", (tmp_path / "child").read_text(), "stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"
    assert "## one\n\nWhat it says." in gpu.to_markdown([found]) and "| first |" in gpu.to_markdown([found])


def test_a_measurement_that_breaks_says_why(tmp_path: Path) -> None:
    wrong = measurement("import nothing_of_this_name", 60)
    found = gpu.run(wrong, 60, sys.executable, os.environ, tmp_path, toy=False, device="cpu")
    assert found["status"] == "failed with 1"
    assert "No module named 'nothing_of_this_name'" in gpu.to_markdown([found])


def test_a_measurement_for_which_no_time_is_left_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--device", "cpu", "--minutes", "0.1", "--out"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.count("no time left, 0 s") == len(gpu.measurements())


def test_the_full_commands_for_a_gpu_have_options_that_there_are() -> None:
    for each in gpu.measurements():
        if each.command[1].startswith("benchmarks."):
            script = (ROOT / f"{each.command[1].replace('.', '/')}.py").read_text()
            arguments = [word for word in each.arguments(False, "cuda") if word.startswith("--")]
            assert all(f'"{word}"' in script for word in arguments), each.name


def carried_wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "carried_one-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_one.py", "VALUE = 1")
        wheel.writestr("carried_one-1.0.data/purelib/carried_two.py", "VALUE = 2")


def test_mufac_travels_in_parts_and_its_table_is_made_there(tmp_path: Path) -> None:
    raw, wheels, parts, place, out = (tmp_path / name for name in ("raw", "wheels", "parts", "place", "out"))
    spec = {"task": "classification", "n_identities": 24, "images_per_identity": [6, 6], "image_px": 24, "n_classes": 8,
            "memorised_frac": 0.2, "noise_frac": 0.0, "seed": 0}  # fmt: skip
    write_raw(SyntheticSpec.from_dict(spec), raw, "mufac")

    def mufac(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.mufac", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    size = sum(path.stat().st_size for path in raw.rglob("*") if path.is_file()) / 1e6
    wheels.mkdir()
    carried_wheel(wheels)  # so that all jobs run in the environment that holds it, the isolated ones too
    assert mufac("pack", parts, "--data", raw, "--wheels", wheels, "--part-mb", 0.8 * size).returncode == 0
    archives = sorted(parts.glob("*.zip"))
    assert len(archives) == 2 and all(each.stat().st_size < 0.8e6 * size for each in archives)
    for archive in archives:
        assert mufac("unpack", archive, "--to", place).returncode == 0
    there = place / "data/mufac"
    assert {path.relative_to(raw): path.read_bytes() for path in raw.rglob("*") if path.is_file()} == {
        path.relative_to(there): path.read_bytes() for path in there.rglob("*") if path.is_file()
    }
    done = mufac("run", "--place", place, "--out", out, "--toy", "--device", "cpu", "--cores", 2)
    assert done.returncode == 0, done.stdout
    found = json.loads((out / "mufac.json").read_text())
    assert found["status"] == "finished"
    jobs = {each["rule"]: each["jobs"] for each in found["rules"]}
    assert jobs["train_pretrain"] == jobs["score_pretrain"] == jobs["unlearn"] == jobs["make_table"] == 1
    assert "JiT" in (out / "mufac.md").read_text() and (out / "mufac.csv").exists()


def test_carried_wheels_are_there_in_isolation_too_beside_what_the_machine_has(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    carried_wheel(wheels)
    python, variables = python_with(wheels, tmp_path / "python")
    code = "import carried_one, carried_two, torch; print(carried_one.VALUE + carried_two.VALUE, torch.ones(2).sum())"
    command = [python, "-I", "-c", code]  # PYTHONPATH does not count
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3", "tensor(2.)"], done.stderr
    assert python_with(tmp_path, tmp_path / "other")[0] == sys.executable  # nothing was carried


def test_weights_are_called_as_the_configuration_says_and_others_are_refused_before_decoding(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    (tmp_path / "mufac").mkdir()
    assert files_to_carry(tmp_path / "mufac", weights, None) == [(weights, f"weights/{weights_name()}")]
    (tmp_path / "weights").mkdir()
    command = [sys.executable, "-m", "benchmarks.mufac", "run", "--place", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"{tmp_path / 'weights'} has no {weights_name()}." in done.stderr


def test_wheels_to_carry_are_those_of_the_lock_file() -> None:
    words = [
        word for command in wheel_commands(Path("wheels")) for word in command if re.fullmatch(r"[\w.-]+==\S+", word)
    ]
    wanted = dict(word.split("==") for word in words)
    lock = (ROOT / "requirements.lock").read_text()
    assert {"snakemake", "pydantic-core", "connection-pool", "setproctitle", "psutil"} <= set(wanted)
    assert not {"torch", "numpy", "pandas", "vl-convert-python"} & set(wanted)
    assert all(f"\n{name}=={version} " in f"\n{lock}" for name, version in wanted.items())


def test_the_demo_is_timed() -> None:
    command = [sys.executable, "-m", "benchmarks.demo", "--targets", "results/data/demo/images.npy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"^\| 3 \| [\d.]+ \| [\d.]+ \| \d+% \| [\d.]+ \|$", done.stdout, re.M), done.stdout


DOCUMENT = """# Figures

<!-- python -m benchmarks.rmia -->
old
<!-- end -->

between

<!-- python -m benchmarks.fisher -->
<!-- end -->
"""


def test_one_part_of_a_document_is_replaced() -> None:
    found = replaced(DOCUMENT, "rmia", "| a \\1 |\n| new |\n")
    assert found == DOCUMENT.replace("old", "| a \\1 |\n| new |")
    assert replaced(found, "fisher", "x").endswith("<!-- python -m benchmarks.fisher -->\nx\n<!-- end -->\n")


def test_broken_marks_are_refused_before_anything_is_lost() -> None:
    with pytest.raises(ValueError, match="does not end"):
        names_in(DOCUMENT.replace("<!-- end -->", "", 1))
    with pytest.raises(ValueError, match="no part for nowhere"):
        replaced(DOCUMENT, "nowhere", "x")
    with pytest.raises(ValueError, match="holds a mark"):
        replaced(DOCUMENT, "rmia", "a\n<!-- end -->")
    assert names_in(DOCUMENT.replace("rmia -->", "rmia --> ")) == ["fisher"]


def test_every_part_of_ours_is_a_script_with_a_test() -> None:
    names = [name for document in DOCUMENTS for name in names_in(document.read_text())]
    assert len(names) == len(set(names)) >= 9
    tested = {mark.args[1][i][0] for mark in test_script.pytestmark for i in range(len(mark.args[1]))}
    tested |= {each.command[1].removeprefix("benchmarks.") for each in gpu.measurements()}
    assert set(names) <= tested | {"demo"}
    helpers = {"__init__", "__main__", "measuring", "finished_run"}
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - helpers
    # of a finished run: they run in tests/workflow/test_every_rule.py
    studies = {"one_person", "artefact_attack", "scoring_precision", "calibration"}
    # rates fill resources/rates.csv, rmia_calibration a figure of docs/metrics.md, the others need a GPU
    on_a_gpu = {"gpu", "mufac", "meta_training", "at_once", "compiled_step", "kernels"}
    assert scripts - set(names) - studies == {"rates", "rmia_calibration"} | on_a_gpu


def test_a_script_that_fails_leaves_its_part(tmp_path: Path) -> None:
    document = tmp_path / "figures.md"
    document.write_text(DOCUMENT.replace("rmia", "nowhere"))
    command = [sys.executable, "-m", "benchmarks", "nowhere", "--documents", str(document)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "failed: nowhere" in done.stderr
    assert "old" in document.read_text()


def test_the_attack_on_edits_of_low_rank_does_not_depend_on_the_sign_of_a_direction() -> None:
    draw = torch.Generator().manual_seed(0)
    keys, photos = torch.randn(4, 6, generator=draw), torch.randn(3, 2, 6, generator=draw).double()
    attacker = cast(Attacker, SimpleNamespace(layer="l", signed=False))

    def matches(signs: list[float]) -> torch.Tensor:
        kept = {"l/keys": keys * torch.tensor(signs)[:, None], "l/rows": torch.tensor([1, 3])}
        return Attacker.matches(attacker, photos, Artefact({**kept, "identities": torch.arange(2)}))

    found = matches([1.0] * 4)
    assert torch.equal(found, matches([-1.0, 1.0, -1.0, 1.0]))
    cosines = torch.nn.functional.cosine_similarity(photos[:, :, None], keys[None, None].double(), dim=3).abs().amax(1)
    torch.testing.assert_close(found, torch.stack([cosines[:, 0], cosines[:, 1:].amax(1)], 1))


@dataclass(frozen=True)
class SaysTheFirstClass:
    """A method after which a model says the first class of everything."""

    def unlearn(self, model: torch.nn.Sequential, *_: Any, seed: int) -> Unlearned:
        changed = copy.deepcopy(model)
        changed[1].bias.data = torch.tensor([1.0, 0.0])
        return Unlearned(changed)


def test_the_wrong_people_are_those_who_can_ask_next() -> None:
    """Of four who can ask, the first two are measured while the other two ask."""
    who = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    splits = pd.DataFrame({"image_id": range(10), "identity": who, "role": ["train"] * 8 + ["test"] * 2})
    splits = splits.assign(request_rank=pd.array([2, 2, 0, 0, 3, 3, 1, 1, None, None], dtype="Int16"), is_support=False)
    pixels = torch.zeros(10, 3, 2, 2)
    everything = ImageSet.of_inputs(
        pixels, torch.tensor([0, 0, 1, 0, 0, 0, 0, 1, 0, 0]), Task("classification", ("a", "b"))
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    model[1].bias.data = torch.tensor([0.0, 1.0])  # it says class 1
    asked: list[list[int]] = []
    spec = {"kind": f"{__name__}:SaysTheFirstClass", "needs": "nothing"}
    seed = SimpleNamespace(
        run=SimpleNamespace(n=2, seed=7), ranked=[1, 3, 0, 2], model=model, kept=lambda name: (spec, None),
        images=SimpleNamespace(splits=splits, take=lambda ids: everything.subset(torch.from_numpy(ids))),
        request=asked.append,
    )  # fmt: skip
    rows = after_others(cast(FinishedRun, seed), ["nothing"])
    assert asked == [[0, 2]]
    assert rows == [{"model": "nothing", "seed": 7, "before": 0.5, "after": 0.5}]
    everything.labels[[2, 3, 6, 7]] = 1
    (row,) = after_others(cast(FinishedRun, seed), ["nothing"])
    assert (row["before"], row["after"]) == (1.0, 0.0)
    assert "| nothing | 75.0 | 25.0 | -100.0 |" in report_others(pd.DataFrame([*rows, {**row, "seed": 8}]))
    seed.ranked = [1, 3, 0]
    assert after_others(cast(FinishedRun, seed), ["nothing"]) == []
