"""A server that forks for jobs: each test starts one in a process of its own, as Snakemake does."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from oneshui import forkserver
from oneshui.forks import start_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

ASKS = "from oneshui.forks import quick_start\nwith quick_start():\n    from oneshui.errors import DataError\n"
#: what a job that runs by itself and one in a fork must have in common
TELLS = """
import json, os, signal, sys, tempfile
from oneshui.forks import is_fork
told = {
    "argv": sys.argv, "folder": os.getcwd(), "file": __file__, "name": __name__, "environment": dict(os.environ),
    "path": sys.path, "group": os.getpgrp(), "input": sys.stdin.read(), "modules": "oneshui.errors" in sys.modules,
    "signals": [str(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)],
    "temporary": tempfile.gettempdir(), "hash": hash("a text"),
    "flags": [sys.flags.isolated, sys.flags.ignore_environment],
}
print(json.dumps({**told, "server": os.getppid() if is_fork() else None}))
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
    started = Server(PYTHONHASHSEED="7")
    assert started.address
    yield started
    started.close()


def script_at(folder: Path, text: str) -> Path:
    path = folder / "job.py"
    path.write_text(ASKS + text)
    return path


def eventually(holds: Callable[[], bool]) -> bool:
    for _ in range(200):
        if holds():
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
        del each["environment"]["ONESHUI_FORKSERVER"]
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


def passes_on(pid: int, number: int) -> bool:
    (caught,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


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
    assert eventually(lambda: passes_on(job.pid, number))
    job.send_signal(number)
    assert job.communicate(timeout=20)[0] == "handled\n" and job.returncode == 7


SLEEPS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"


def sleeping(server: Server, folder: Path) -> tuple[subprocess.Popen[str], int]:
    job = server.start(script_at(folder, SLEEPS))
    assert job.stdout is not None
    return job, int(job.stdout.readline())


@pytest.mark.parametrize("session", [False, True], ids=["in the session of the server", "in another"])
def test_a_ctrl_c_in_the_terminal_reaches_a_fork_once(server: Server, tmp_path: Path, session: bool) -> None:
    text = """
import os, signal, sys, time
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(1))
print("ready", flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    time.sleep(0.05)
print(len(count))
"""
    shell = subprocess.Popen(  # in a group of its own, which gets what the terminal sends
        ["bash", "-c", f"trap : INT; {sys.executable} {script_at(tmp_path, text)}; exit 0"], stdout=subprocess.PIPE,
        text=True, env=server.environment, start_new_session=session, process_group=None if session else 0,
    )  # fmt: skip
    assert shell.stdout is not None and shell.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(shell.pid, signal.SIGINT)
    assert shell.communicate(timeout=20)[0] == "1\n"


def test_a_fork_ignores_what_its_job_ignores(server: Server, tmp_path: Path) -> None:
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nprint('still here')"
    script = script_at(tmp_path, text)
    job = subprocess.run(["nohup", sys.executable, str(script)], env=server.environment, capture_output=True, text=True)
    assert (job.returncode, job.stdout) == (0, "still here\n")


def test_a_job_does_not_wait_for_what_its_fork_leaves_behind(server: Server, tmp_path: Path) -> None:
    text = "import os, time\nif not os.fork():\n    os.close(1)\n    os.close(2)\n    time.sleep(30)\nos._exit(4)"
    start = time.monotonic()
    assert server.run(script_at(tmp_path, text))[0] == 4 and time.monotonic() - start < 20


@pytest.mark.parametrize(
    "end", ["raise ValueError('what is wrong')", "raise SystemExit('a text')", "raise KeyboardInterrupt", "sys.exit()"]
)
def test_a_job_in_a_fork_ends_as_it_ends_by_itself(server: Server, tmp_path: Path, end: str) -> None:
    script = script_at(tmp_path, f"import atexit, sys\natexit.register(print, 'at the end')\n{end}\n")
    alone = server.run(script, ONESHUI_FORKSERVER="")
    assert server.run(script) == alone and "at the end" in alone[1]


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
    pid = server.pid
    job = server.start(script_at(tmp_path, "print('ready', flush=True)\ninput()\nprint('done')"))
    assert job.stdout is not None and job.stdout.readline() == "ready\n"
    server.starter.kill()
    server.starter.communicate()
    time.sleep(0.2)
    assert alive(pid)
    assert job.communicate("\n", timeout=20)[0] == "done\n" and job.returncode == 0
    assert eventually(lambda: not alive(pid))


def forked(server: Server, folder: Path, **variables: str) -> bool:
    code, said, complained = server.run(script_at(folder, TELLS), "0", **variables)
    assert code == 0, complained
    return json.loads(said)["server"] is not None


def test_a_job_with_other_packages_runs_by_itself(server: Server, tmp_path: Path) -> None:
    assert forked(server, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/setproctitle.py").write_text("")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    assert not forked(server, tmp_path, PYTHONPATH=path)
    (tmp_path / "other/setproctitle.py").rename(tmp_path / "other/something_else.py")
    assert forked(server, tmp_path, PYTHONPATH=path)


def test_a_job_that_may_not_ask_or_asks_nobody_runs_by_itself(server: Server, tmp_path: Path) -> None:
    name, _, folder = server.address.partition(":")
    assert not forked(server, tmp_path, ONESHUI_FORKSERVER=f"{name}:{tmp_path}")
    assert not forked(server, tmp_path, ONESHUI_FORKSERVER=f"{name}:{tmp_path}/nowhere")
    assert not forked(server, tmp_path, ONESHUI_FORKSERVER=f"other{name}:{folder}")
    assert forked(server, tmp_path)


def test_nobody_waits_for_a_job_that_says_nothing_or_nonsense(server: Server, tmp_path: Path) -> None:
    name, _, folder = server.address.partition(":")
    with contextlib.ExitStack() as stack:
        silent, wrong = (stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(2))
        silent.connect(f"\0{name}")
        wrong.connect(f"\0{name}")
        opened, request = os.open(folder, os.O_RDONLY), os.memfd_create("request")
        os.write(request, b'{"prefix": "')
        socket.send_fds(wrong, [b"\0"], [0, 1, 2, opened, request])
        os.close(opened)
        os.close(request)
        assert wrong.recv(8) == b""
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


@pytest.mark.parametrize("error", [AttributeError, OSError(38, "Function not implemented")])
def test_an_older_system_has_no_server(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(_: int) -> int:
        raise error

    monkeypatch.setattr(os, "pidfd_open", fails)
    monkeypatch.setenv("ONESHUI_FORKSERVER", "left:over")
    start_server()
    assert "ONESHUI_FORKSERVER" not in os.environ


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_forks_compute_on_a_gpu(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    text = "import torch, os\nprint((torch.ones(3, device='cuda').sum().item(), os.getppid()))\n"
    script.write_text(ASKS + "    from oneshui.stages.score_model import score_model\n" + text)
    assert [server.run(script)[1] for _ in range(2)] == [f"(3.0, {server.pid})\n"] * 2
