"""A real request: one command, one photo, no training data."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image
from tests.workflow.conftest import tensor_hashes, toy_config, write_config

from oneshui.files import read_header
from oneshui.schemas import REQUEST, read_table

pytestmark = pytest.mark.slow
MODEL, RUN = "results/models/toy/seed0/pretrain.safetensors", "toy/n3/seed0/pretrain"


@pytest.fixture
def bare(copied: Path) -> Path:
    """The finished folder without its data: what is left to serve requests with."""
    request, meta = read_table(copied / "results/requests/toy/n3/seed0.parquet", REQUEST)
    for row, data in enumerate(request["image"]):
        (copied / f"photo{row}.png").write_bytes(data)
    (copied / "labels.json").write_text(json.dumps([meta["classes"][label] for label in request["label"]]))
    (copied / "results").rename(copied / "all")
    for name in ("models", "artefacts"):
        (copied / "results").mkdir(exist_ok=True)
        (copied / "all" / name).rename(copied / "results" / name)
    write_config(copied, toy_config())
    return copied


def forget(folder: Path, *arguments: str, photos: int = 3, fails: bool = False) -> str:
    """Run the command in ``folder`` and return what it printed."""
    labels = json.loads((folder / "labels.json").read_text())[:photos]
    command = [sys.executable, "-m", "oneshui", "forget", MODEL, *(f"photo{i}.png" for i in range(photos))]
    command += [word for label in labels for word in ("--label", label)]
    command += ["--config", "config.yaml", "--output", "forgotten.safetensors", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


@pytest.mark.parametrize("method", ["ssd", "jit"])
def test_the_command_does_what_the_workflow_does(bare: Path, method: str) -> None:
    artefact = ["--artefact", f"results/artefacts/{RUN}/{method}.safetensors"] if method == "ssd" else []
    told = forget(bare, "--method", method, *artefact)
    assert f"forgotten.safetensors: {method} in" in told and "isolated by" in told
    assert tensor_hashes(bare / "forgotten.safetensors") == tensor_hashes(
        bare / f"all/unlearned/{RUN}/{method}.safetensors"
    )


def test_a_second_request_starts_from_the_first_ones_result(bare: Path) -> None:
    forget(bare, "--method", "jit", photos=1)
    (bare / "forgotten.safetensors").rename(bare / MODEL)
    forget(bare, "--method", "jit", photos=1)
    assert read_header(bare / "forgotten.safetensors")["stored_px"] == [24, 24]
    told = forget(bare, "--method", "jit", photos=1, fails=True)
    assert "forgotten.safetensors is there, and nothing is replaced" in told


def test_requests_at_once_do_not_meet(bare: Path) -> None:
    """Two people, two outputs of one name: whoever is told of success got their own model."""
    command = [sys.executable, "-m", "oneshui", "forget", MODEL, "--config", "config.yaml", "--method", "jit"]
    alone = []
    for i, label in enumerate(json.loads((bare / "labels.json").read_text())[:2]):
        words = [*command, f"photo{i}.png", "--label", label, "--output"]
        subprocess.run([*words, f"alone{i}.safetensors"], cwd=bare, check=True, capture_output=True, timeout=120)
        alone.append((words, tensor_hashes(bare / f"alone{i}.safetensors")))
    both = [
        subprocess.Popen([*words, "same.safetensors"], cwd=bare, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words, _ in alone
    ]
    for process in both:
        process.communicate(timeout=120)
    assert tensor_hashes(bare / "same.safetensors") in [hashes for _, hashes in alone]
    assert [process.returncode for process in both].count(0) >= 1


def test_one_photo_of_any_size_of_somebody_unknown(bare: Path) -> None:
    with Image.open(bare / "photo0.png") as photo:
        photo.resize((300, 200)).save(bare / "photo0.png", "JPEG")
    forget(bare, "--artefact", f"results/artefacts/{RUN}/metaunlearn.safetensors", photos=1)
    header = read_header(bare / "forgotten.safetensors")
    assert header["method"] == "metaunlearn" and header["health"]["unknown_identities"] == 1
    assert tensor_hashes(bare / "forgotten.safetensors") != tensor_hashes(bare / MODEL)
    assert not list(bare.glob("**/*.private")) and not list(bare.glob("results/**/*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "ssd"], "ssd needs artefact beside the model and the photo. Name it with --artefact"),
        (["--method", "scrub"], "scrub needs the training data"),
        (["--method", "jit", "--artefact", f"results/artefacts/{RUN}/ssd.safetensors"], "Leave --artefact out"),
        (
            ["--method", "ssd", "--artefact", f"results/artefacts/{RUN}/pgu.safetensors"],
            "an artefact of pgu, not of ssd",
        ),
        (["--method", "other"], "method 'other' is not in the config"),
        (["--method", "jit", "--label", "8"], "3 photos and 4 labels"),
        (["--method", "ssd", "--artefact", MODEL], "is not an artefact. Name a file under results/artefacts"),
        (["--method", "jit", "--output", "photo0.png"], "photo0.png is there, and nothing is replaced"),
        (["--method", "jit", "--config", "labels.json"], "labels.json: it = ["),
        (["--method", "jit", "--config", "none.yaml"], "none.yaml cannot be read (No such file"),
        (["--method", "jit", "--output", "photo0.png/f"], "photo0.png cannot be used ("),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(bare: Path, arguments: list[str], message: str) -> None:
    told = forget(bare, *arguments, fails=True)
    assert message in told and "Traceback" not in told
    assert not (bare / "forgotten.safetensors").exists()


def test_a_photo_or_a_label_that_cannot_be_used(bare: Path) -> None:
    (bare / "photo0.png").write_text("no picture")
    assert "photo0.png cannot be decoded" in forget(bare, "--method", "jit", fails=True)
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24)).save(buffer, "PNG")
    (bare / "photo0.png").write_bytes(buffer.getvalue())
    (bare / "labels.json").write_text(json.dumps(["nobody"]))
    assert "label 'nobody' is unknown to the model, allowed: " in forget(bare, "--method", "jit", photos=1, fails=True)


def start(bare: Path, output: str, scratch: Path, lives: Callable[[Path], object]) -> "subprocess.Popen[bytes]":
    """Start a request and stop it, and the process that unlearns, once ``lives`` finds something in the folder."""
    label = json.loads((bare / "labels.json").read_text())[0]
    line = [sys.executable, "-m", "oneshui", "forget", MODEL, "photo0.png", "--label", label, "--config", "config.yaml"]
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*line, "--method", "jit", "--output", output], cwd=bare, env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not lives(bare):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    return process


def hidden(*folders: Path) -> list[str]:
    return sorted(path.name.rsplit(".", 2)[0] for folder in folders for path in folder.glob(".*.tmp"))


#: while the photo lies there alone; while the other process writes the model
MOMENTS: list[Callable[[Path], object]] = [
    lambda bare: (
        list((bare / "scratch").glob(".oneshui-request.*.tmp/*/request.parquet"))
        or list((bare / "scratch").glob(".oneshui-request.*.tmp/request.parquet"))
    ),
    lambda bare: list(bare.glob(".one.safetensors.*.tmp/.one.safetensors.*")),
]


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
def test_what_a_killed_request_left_goes_with_the_next_and_what_a_living_one_uses_stays(
    bare: Path, moment: int
) -> None:
    scratch = bare / "scratch"
    killed = start(bare, "one.safetensors", scratch, MOMENTS[moment])
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate()
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    left = hidden(bare, scratch)
    assert ".oneshui-request" in left and (moment == 0 or ".one.safetensors" in left)
    assert not (bare / "one.safetensors").exists()

    living = start(
        bare, "two.safetensors", scratch, lambda bare: list(bare.glob(".two.safetensors.*.tmp/oneshui.lock"))
    )
    try:
        assert hidden(bare, scratch) == [".oneshui-request", ".two.safetensors"]  # the killed one's are gone
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(scratch))
            forget(bare, "--method", "jit", photos=1)
        assert hidden(bare, scratch) == [".oneshui-request", ".two.safetensors"]
        living.send_signal(signal.SIGCONT)
        _, said = living.communicate(timeout=120)
        assert living.returncode == 0, said.decode()
    finally:
        living.kill()
        living.communicate()
    assert hidden(bare, scratch) == []
    assert tensor_hashes(bare / "two.safetensors") == tensor_hashes(bare / "forgotten.safetensors")
