"""The manifest asks for what its commands use, and its commands plan the paper's grid. No cluster is at hand."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.workflow.conftest import ROOT, annotate

pytestmark = pytest.mark.slow
POD = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
(SCRIPT,) = CONTAINER["args"]
COMMAND = shlex.split(SCRIPT.splitlines()[-1])


def test_limits_are_what_snakemake_is_told() -> None:
    limits = CONTAINER["resources"]["limits"]
    assert COMMAND[COMMAND.index("--cores") + 1] == str(limits["cpu"])
    assert COMMAND[COMMAND.index("--resources") + 1] == f"gpu={limits['nvidia.com/gpu']}"


def test_paths_are_on_the_volume() -> None:
    (mount,) = CONTAINER["volumeMounts"]
    (volume,) = POD["volumes"]
    assert mount["name"] == volume["name"]
    assert CONTAINER["workingDir"].startswith(f"{mount['mountPath']}/")
    assert f"data_root={mount['mountPath']}/data" in COMMAND


def test_shell_understands_the_script() -> None:
    subprocess.run([*CONTAINER["command"][:1], "-n", "-c", SCRIPT], check=True)


def test_commands_plan_the_papers_grid(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    annotate(config, tmp_path / "data")
    where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--workflow-profile",
             str(ROOT / "profiles/default"), "--configfile", str(ROOT / "config/config.yaml")]  # fmt: skip
    (unlock,) = (shlex.split(line) for line in SCRIPT.splitlines() if "--unlock" in line)
    assert (unlock[0], COMMAND[:2]) == ("snakemake", ["exec", "snakemake"])

    def run(arguments: list[str]) -> str:
        given = [part.replace("/oneshui/data", str(tmp_path / "data")) for part in arguments]
        command = [sys.executable, "-m", "snakemake", *where, *given]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    run(unlock[1:])
    planned = run(["--dry-run", "--quiet", "rules", *COMMAND[2:]])
    for rule in ("train_pretrain", "score_unlearned", "make_table", "make_figure", "make_report"):
        assert rule in planned
    assert not (tmp_path / "results").exists()
