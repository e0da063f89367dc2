"""Long jobs that are killed with SIGKILL go on where they were, and end bit for bit where others end.

Every job runs in a process of its own, which notes its steps and kills itself before one of them. States are saved
after every part here, not only in 5 % of the time.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.stages.test_unlearn import META_SPEC, SSD_SPEC, Run

from oneshui import resume
from oneshui.errors import DataError
from oneshui.methods.distillation import SGD, training_epochs
from oneshui.methods.metaunlearn import MetaUnlearn
from oneshui.methods.ssd import SSD
from oneshui.resume import NEVER, Resume, fingerprint
from oneshui.sets import ImageSet
from oneshui.stages.try_hyperparameters import try_hyperparameters
from oneshui.stages.unlearn_with_data import unlearn_with_data
from oneshui.tensors import load_tensors

CPU = torch.device("cpu")
WITH_DATA = {
    "lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 3, "temperature": 2.0, "crop_scale": [0.5, 1.0],
    "kl": "task",
}  # fmt: skip
SPECS: dict[str, dict[str, Any]] = {
    "metaunlearn": {**META_SPEC, "epochs": 2, "dropout": 0.2},
    "ssd": {**SSD_SPEC, "batch_size": 8},
    "pgu": {"kind": "pgu", "lr": 1e-2, "epochs": 2, "gamma": 0.8, "entropy_weight": 0.2, "spectrum": "clamp",
            "batch_size": 16, "micro_batch": 8},
    "scrub": {**WITH_DATA, "kind": "scrub", "forget_epochs": 1, "alpha": 0.001, "gamma": 0.99, "clip_norm": 1.0,
              "forget_batch_size": 8, "retain_batch_size": 16},
    "bad_teacher": {**WITH_DATA, "kind": "bad_teacher", "batch_size": 16},
    "selection": {**SSD_SPEC, "batch_size": 16},
}  # fmt: skip
#: what is a step of each
STEPS: dict[str, tuple[type, str]] = {
    "metaunlearn": (MetaUnlearn, "_meta_step"), "ssd": (ImageSet, "images"), "pgu": (ImageSet, "images"),
    "scrub": (SGD, "step"), "bad_teacher": (SGD, "step"), "selection": (SSD, "unlearn"),
}  # fmt: skip


def output_of(folder: Path, name: str) -> Path:
    return folder / ("trials.csv" if name == "selection" else "out.safetensors")


def do(folder: Path, name: str, spec: dict[str, Any], seed: int) -> None:
    """Run the job in ``folder`` for a model whose weights are from ``seed``."""
    run = Run(folder)
    run.write_model(seed)
    run.artefact = output_of(folder, name)
    if name in ("scrub", "bad_teacher"):
        unlearn_with_data(
            run.model, run.data, run.artefact, run=run.which, model=run.made, spec=spec, device=CPU
        )  # fmt: skip
    elif name == "selection":
        grid = {"batch_size": [16, 8], "dampening": [0.5, 1.0]}  # each batch size has an artefact of its own
        try_hyperparameters(
            run.model, run.data, run.artefact, run=run.which, spec=spec, grid=grid, n_requests=2, device=CPU
        )  # fmt: skip
    else:
        run.precompute(spec)


def job(folder: Path, name: str, spec: dict[str, Any], seed: int, kill_at: int | None) -> None:
    """Run the job in this process, and kill it before step ``kill_at``."""
    owner, step = STEPS[name]
    real: Callable[..., Any] = getattr(owner, step)
    count = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        with open(folder / "steps", "a") as file:
            file.write(".")
        return real(*args, **kwargs)

    setattr(owner, step, counted)
    resume._SHARE = 1e9
    logging.basicConfig(level=logging.INFO, filename=folder / "log")
    do(folder, name, spec, seed)


def serve() -> None:
    """Run each job that standard input names in a child of this process: importing torch takes seconds."""
    torch.set_num_threads(1)  # so that there are no threads, which a child would lack
    for line in sys.stdin:
        folder, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            try:
                job(Path(folder), *arguments)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@pytest.fixture(scope="module")
def server() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", "from tests.unit.test_resume import serve; serve()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        yield process
        process.communicate()


@pytest.fixture
def start(server: "subprocess.Popen[str]") -> Callable[..., tuple[int, str]]:
    """Run a job in another process; return the number of its steps and what it logged."""

    def run(folder: Path, name: str, kill_at: int | None = None, seed: int = 0, **changes: Any) -> tuple[int, str]:
        folder.mkdir(exist_ok=True)
        for file in ("steps", "log"):
            (folder / file).write_text("")
        call = json.dumps([str(folder), name, {**SPECS[name], **changes}, seed, kill_at])
        assert server.stdin and server.stdout
        server.stdin.write(f"{call}\n")
        server.stdin.flush()
        assert int(server.stdout.readline()) == (0 if kill_at is None else -signal.SIGKILL)
        return len((folder / "steps").read_text()), (folder / "log").read_text()

    return run


def contents(folder: Path, name: str) -> Any:
    """What the job made, without how long it took."""
    path = output_of(folder, name)
    if path.suffix == ".csv":
        return path.read_bytes()
    tensors, header = load_tensors(path, CPU)
    header = {key: value for key, value in header.items() if key not in ("seconds", "peak_mb")}
    return header, {key: (str(value.dtype), value.numpy().tobytes()) for key, value in tensors.items()}


#: steps before the kill, and those of them that the second process need not do again: saved after each simulated
#: request, each batch, each epoch (of 1 + 3 and 3 steps; of 4), each combination (of 2 requests)
KILLS = [
    ("metaunlearn", 3, 3), ("metaunlearn", 7, 7), ("ssd", 4, 4), ("pgu", 4, 3), ("scrub", 6, 4), ("scrub", 8, 7),
    ("bad_teacher", 7, 4), ("selection", 3, 2), ("selection", 6, 6),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kill_at", "kept"), KILLS)
def test_a_killed_job_goes_on_and_ends_with_the_same_bits(
    start: Callable[..., tuple[int, str]], tmp_path: Path, name: str, kill_at: int, kept: int
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    steps, _ = start(straight, name)
    assert start(killed, name, kill_at=kill_at)[0] == kill_at < steps
    assert not output_of(killed, name).exists()
    again, log = start(killed, name)
    assert again == steps - kept and "resuming after" in log
    assert contents(killed, name) == contents(straight, name)
    assert sorted(os.listdir(killed)) == sorted(os.listdir(straight))  # nothing is left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kill_at", "changes"),
    [
        ("metaunlearn", 5, {"lr": 2e-3}), ("metaunlearn", 5, {"seed": 1}), ("scrub", 7, {"alpha": 0.1}),
        ("ssd", 4, {"fisher": "batch"}), ("pgu", 4, {"micro_batch": 4}), ("selection", 5, {"seed": 1}),
    ],
)  # fmt: skip
def test_a_state_of_other_parameters_or_another_model_is_not_used(
    start: Callable[..., tuple[int, str]], tmp_path: Path, name: str, kill_at: int, changes: dict[str, Any]
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    steps, _ = start(straight, name, **changes)
    start(killed, name, kill_at=kill_at)
    again, log = start(killed, name, **changes)
    assert again == steps and "belongs to another run; starting from the beginning" in log
    assert contents(killed, name) == contents(straight, name)


def test_seconds_of_all_processes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    for before in (0.0, 7.0):
        state = Resume.beside(tmp_path / "out", "mine", CPU)
        state.load()
        assert state.seconds == before
        now[0] += 7
        state.save(lambda: ({"group": {"w": torch.zeros(2)}}, {}))
    state = Resume.beside(tmp_path / "out", "mine", CPU)
    assert state.load() == ({"group": {"w": pytest.approx(torch.zeros(2))}}, {})
    assert state.seconds == 14


def test_a_large_state_is_not_saved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 MB take a slow disk 0.1 s, which is 5 % of 2 s."""
    now = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    state = Resume.beside(tmp_path / "out", "mine", CPU)
    for seconds, there in ((1.9, False), (2.1, True)):
        now[0] = seconds
        state.save(lambda: ({"group": {"w": torch.zeros(50_000_000, dtype=torch.uint8)}}, {}))
        assert (tmp_path / "out.resume").exists() == there


def test_no_room_for_a_state_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = Resume(Path("/dev/full/state"), "mine", CPU)  # no folder: another error, which is not passed over
    with pytest.raises(OSError):
        state.save(lambda: ({"group": {"w": torch.zeros(2)}}, {}))

    def full(*_: object) -> None:
        raise DataError("There is no room left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "save_tensors", full)
        Resume.beside(tmp_path / "out", "mine", CPU).save(lambda: ({"group": {"w": torch.zeros(2)}}, {}))
    assert "the state is not saved" in caplog.text and "There is no room left" in caplog.text


@pytest.mark.parametrize(
    ("tensors", "note"),
    [
        ({"w": torch.zeros(2)}, {"epoch": 1}),
        ({}, {"epoch": "one"}),
        ({}, {}),
    ],
)
def test_a_state_that_was_changed_is_one_message(
    tmp_path: Path, tensors: dict[str, torch.Tensor], note: dict[str, Any]
) -> None:
    state = Resume.beside(tmp_path / "out", "mine", CPU)
    state._pause = 0.0
    state.save(lambda: ({"student": tensors}, note))
    model = torch.nn.Linear(2, 2)
    with pytest.raises(DataError, match=r"out\.resume holds no state of this job .* Delete it, then run"):
        next(training_epochs(model, SGD(model, 0.1, 0.9, 0.0, 3), torch.Generator(), CPU, 3, state))


def test_another_number_of_threads_is_another_computation() -> None:
    identity, threads = {"spec": {"lr": 0.1}}, torch.get_num_threads()
    names = {fingerprint(identity, CPU), fingerprint({"spec": {"lr": 0.2}}, CPU)}
    names.add(fingerprint(identity, torch.device("cuda")))
    torch.set_num_threads(threads + 1)
    try:
        names.add(fingerprint(identity, CPU))
    finally:
        torch.set_num_threads(threads)
    assert len(names) == 4


def test_without_a_file_nothing_is_kept() -> None:
    NEVER.save(lambda: pytest.fail("nobody wants a state"))
    assert NEVER.load() is None
    NEVER.clear()
