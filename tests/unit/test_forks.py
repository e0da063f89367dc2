"""A server that forks for jobs: each test starts one in a process of its own, as Snakemake does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oneshui import forkserver

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

ASKS = "from oneshui.forks import quick_start\nwith quick_start():\n    from oneshui.errors import DataError\n"
#: what a job that runs by itself and one in a fork must have in common
TELLS = """
import json, multiprocessing, os, signal, sys, tempfile
told = {
    "argv": sys.argv, "folder": os.getcwd(), "file": __file__, "name": __name__, "environment": dict(os.environ),
    "path": sys.path, "group": os.getpgrp(), "input": sys.stdin.read(), "modules": "oneshui.errors" in sys.modules,
    "signals": [str(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)],
    "temporary": tempfile.gettempdir(), "open": sorted(os.listdir("/proc/self/fd")),
}
print(json.dumps({**told, "server": os.getppid() if multiprocessing.parent_process() else None}))
print("to stderr", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
#: starts a server, says where, and lives until its standard input ends
STARTER = """
import os, sys
from oneshui.forks import start_server
start_server()
print(os.environ.get("ONESHUI_FORKSERVER", ""), flush=True)
sys.stdin.read()
"""


class Server:
    def __init__(self, **variables: str) -> None:
        environment = {**os.environ, **variables}
        self.starter = subprocess.Popen(
            [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.starter.stdout is not None
        self.address = self.starter.stdout.readline().strip()
        self.environment = {**environment, "ONESHUI_FORKSERVER": self.address}

    @property
    def pid(self) -> int:
        return int(Path(f"/proc/{self.starter.pid}/task/{self.starter.pid}/children").read_text())

    def close(self) -> None:
        self.starter.communicate(timeout=20)

    def start(self, script: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**self.environment, **variables},
        )  # fmt: skip

    def run(self, script: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
        job = self.start(script, *arguments, **variables)
        said, complained = job.communicate("what stands in the input", timeout=60)
        return job.returncode, said, complained


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """For tests that leave it alive."""
    started = Server()
    assert started.address
    yield started
    started.close()


def script_at(folder: Path, text: str) -> Path:
    path = folder / "job.py"
    path.write_text(ASKS + text)
    return path


def eventually(holds: object) -> bool:
    for _ in range(200):
        if holds():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_job_in_a_fork_has_what_it_has_by_itself(server: Server, tmp_path: Path) -> None:
    script = script_at(tmp_path, TELLS)
    code, said, complained = server.run(script, "3", SOME="value", TMPDIR=str(tmp_path))
    forked = json.loads(said)
    assert forked.pop("server") == server.pid
    alone = subprocess.run(
        [sys.executable, str(script), "3"], input="what stands in the input", capture_output=True, text=True,
        check=False, env={**server.environment, "SOME": "value", "TMPDIR": str(tmp_path), "ONESHUI_FORKSERVER": ""},
    )  # fmt: skip
    told = json.loads(alone.stdout)
    assert told.pop("server") is None
    for each in (told, forked):
        del each["environment"]["ONESHUI_FORKSERVER"], each["open"]
    assert (code, complained, forked) == (alone.returncode, alone.stderr, told)


def test_the_server_imports_once_for_all(server: Server, tmp_path: Path) -> None:
    script = script_at(tmp_path, "import oneshui.errors, os\nprint(id(DataError), os.getpid())")
    (one, first), (two, second) = (server.run(script)[1].split() for _ in range(2))
    assert one == two and first != second


def test_forks_do_not_hold_what_belongs_to_others(server: Server, tmp_path: Path) -> None:
    waits = script_at(tmp_path, "import sys\nprint('ready', flush=True)\nsys.stdin.read()")
    first = server.start(waits)
    assert first.stdout is not None and first.stdout.readline() == "ready\n"
    folder = tmp_path / "second"
    folder.mkdir()
    text = """
import os
for each in os.listdir("/proc/self/fd"):
    if os.path.exists(f"/proc/self/fd/{each}"):
        print(os.readlink(f"/proc/self/fd/{each}"))
"""
    _, said, _ = server.run(script_at(folder, text))
    assert "pipe:" in said and "socket:" not in said
    first.communicate(timeout=20)
    assert first.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_job_reaches_its_fork(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    text = f"""
import os, signal, sys, time
def handled(*_):
    os.write(1, b'handled\\n')
    sys.exit(7)
signal.signal({int(number)}, handled)
print('ready', flush=True)
time.sleep(60)
"""
    job = server.start(script_at(tmp_path, text))
    assert job.stdout is not None and job.stdout.readline() == "ready\n"
    job.send_signal(number)
    assert job.communicate(timeout=20)[0] == "handled\n" and job.returncode == 7


SLEEPS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"


def sleeping(server: Server, folder: Path) -> tuple[subprocess.Popen[str], int]:
    job = server.start(script_at(folder, SLEEPS))
    assert job.stdout is not None
    return job, int(job.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_ends_by_the_signal_that_ended_its_fork(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    job, pid = sleeping(server, tmp_path)
    os.kill(pid, number)
    job.communicate(timeout=20)
    assert job.returncode == -number


def test_a_fork_dies_with_its_job(server: Server, tmp_path: Path) -> None:
    job, pid = sleeping(server, tmp_path)
    assert pid != job.pid
    command = [Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").strip() for each in (pid, job.pid)]
    assert command[0] == command[1]  # ps says what it is
    job.kill()
    job.communicate()
    assert eventually(lambda: not alive(pid))
    assert server.run(script_at(tmp_path, "print('next')"))[:2] == (0, "next\n")


def test_a_server_that_is_killed_takes_its_forks_along_and_later_jobs_run_by_themselves(tmp_path: Path) -> None:
    server = Server()
    job, pid = sleeping(server, tmp_path)
    os.kill(server.pid, signal.SIGKILL)
    job.communicate(timeout=20)
    assert job.returncode == -signal.SIGKILL and eventually(lambda: not alive(pid))
    code, said, _ = server.run(script_at(tmp_path, TELLS), "0")
    assert code == 0 and json.loads(said)["server"] is None
    server.close()


def test_a_server_outlives_its_starter_until_the_last_fork_has_ended(tmp_path: Path) -> None:
    server = Server()
    pid, folder = server.pid, Path(server.address.partition(":")[2]).parent
    job = server.start(script_at(tmp_path, "print('ready', flush=True)\ninput()\nprint('done')"))
    assert job.stdout is not None and job.stdout.readline() == "ready\n"
    server.starter.kill()
    server.starter.communicate()
    time.sleep(0.2)
    assert alive(pid)
    assert job.communicate("\n", timeout=20)[0] == "done\n" and job.returncode == 0
    assert eventually(lambda: not alive(pid)) and not folder.exists()


def forked(server: Server, folder: Path, **variables: str) -> bool:
    code, said, complained = server.run(script_at(folder, TELLS), "0", **variables)
    assert code == 0, complained
    return json.loads(said)["server"] is not None


def test_a_job_with_another_package_or_without_the_secret_runs_by_itself(server: Server, tmp_path: Path) -> None:
    assert forked(server, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/timm.py").write_text("")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    assert not forked(server, tmp_path, PYTHONPATH=path)
    secret, _, place = server.address.partition(":")
    assert not forked(server, tmp_path, ONESHUI_FORKSERVER=f"{secret[::-1]}:{place}")
    assert not forked(server, tmp_path, ONESHUI_FORKSERVER=f"short:{place}")
    assert not forked(server, tmp_path, ONESHUI_FORKSERVER=f"{secret}:{tmp_path}/nowhere")
    assert forked(server, tmp_path)


def test_an_import_that_fails_is_told_by_the_job_itself(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(ASKS + "    from oneshui.nowhere import nothing\n")
    code, _, complained = server.run(script)
    assert code == 1 and "No module named 'oneshui.nowhere'" in complained
    assert forked(server, tmp_path)


def test_a_server_can_be_switched_off(tmp_path: Path) -> None:
    server = Server(ONESHUI_FORK="0", ONESHUI_FORKSERVER="left:over")
    assert server.address == "" and not forked(server, tmp_path)
    server.close()


def test_a_server_with_an_open_gpu_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not forkserver._gpu_is_open()
    with open("/dev/null", "rb"):
        monkeypatch.setattr(forkserver, "_GPUS", ("/dev/null",))
        assert forkserver._gpu_is_open()


def test_libraries_use_the_threads_of_the_job(server: Server, tmp_path: Path) -> None:
    text = "import numpy, threadpoolctl\nprint({each['num_threads'] for each in threadpoolctl.threadpool_info()})\n"
    script = tmp_path / "job.py"
    script.write_text(ASKS.replace("oneshui.errors import DataError", "oneshui.devices import choose_device") + text)
    for threads in ("1", "2"):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        assert server.run(script, **variables)[1] == f"{{{threads}}}\n"
