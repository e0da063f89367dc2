"""Starting a job quickly: asking for a fork of a process that has imported already what the job needs.

Torch takes seconds to import, often longer than a job works. So a Snakemake that runs jobs on its own machine starts a
server (`oneshui.forkserver`). A job's script asks it for a fork, which runs the script with the files, folder,
environment and process group of the job. The job waits and ends as its fork does; if one is killed, so is the other.
Where there is no server, or it has imported other packages than the job would, a job runs by itself.
``ONESHUI_FORK=0`` switches the server off. Linux 5.3 and later. Measured by ``benchmarks/fixed_costs.py``.
"""

import atexit
import contextlib
import ctypes
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from oneshui.startup import quick_imports

#: environment of jobs: name of the server's socket, and the folder whose descriptor is the right to ask
_SERVER = "ONESHUI_FORKSERVER"
_SWITCH = "ONESHUI_FORK"
_START = "import sys; sys.path.insert(0, sys.argv[1]); from oneshui.forkserver import main; main(*sys.argv[2:])"
#: what a user or a scheduler may send to a job
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: seconds that a job waits for its fork, among them those in which the server imports
_PATIENCE = 120
#: bytes of an answer: a number
_ANSWER = 32
_is_fork = False


# --- in Snakemake ----------------------------------------------------------------------------------------------------


def start_server() -> None:
    """Start a server that ends with this process and the last of its own forks; jobs know of it by the environment."""
    os.environ.pop(_SERVER, None)
    if os.environ.get(_SWITCH) == "0" or not _has_process_descriptors():
        return
    name, folder = f"oneshui-{secrets.token_hex(16)}", os.getcwd()
    # no code of the user's, as in an isolated process: forks become such processes, too
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")  # no file, so that nothing is left of a server that is killed
        listener.listen(128)
        arguments = [str(Path(__file__).absolute().parents[1]), str(listener.fileno()), folder]
        server = subprocess.Popen(
            [sys.executable, "-s", "-P", "-c", _START, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, pass_fds=[listener.fileno()], env=environment, cwd="/",
        )  # fmt: skip
    os.environ[_SERVER] = f"{name}:{folder}"
    atexit.register(_let_go, server)


def _has_process_descriptors() -> bool:
    """Tell whether this is Linux 5.3 or later, where a process can be watched and killed by a descriptor."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _let_go(server: "subprocess.Popen[bytes]") -> None:
    """Tell the server that this process ends, as its death would."""
    assert server.stdin is not None
    server.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):  # jobs of a Snakemake that was interrupted
        server.wait(timeout=1)


# --- in jobs ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """Go on with this script in a fork of the server's process, or import what follows without collecting garbage.

    Where there is a fork, this process waits for it and ends.
    """
    if not _is_fork:
        child = _fork_of_script()
        if child is not None:
            child.end_as_it_does()
    with quick_imports():
        yield


def _fork_of_script() -> "Fork | None":
    """Return a fork that runs this script from its beginning."""
    imports = re.findall(r"^ *from (oneshui[\w.]*) import", Path(sys.argv[0]).read_text(encoding="utf-8"), re.MULTILINE)
    return fork(
        "oneshui.forkserver:run_script", sys.argv, imports=["snakemake.iocontainers", *imports], files=(0, 1, 2),
        environment=os.environ, path=sys.path, group=os.getpgrp(),
    )  # fmt: skip


class Fork:
    """A process that the server forked for this one.

    Attributes:
        pid: of the process.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid, self._connection = pid, connection
        self._status: int | None = None

    def wait(self) -> int:
        """Wait for its end and return its exit status, -N if signal N ended it."""
        if self._status is None:
            with self._connection, contextlib.suppress(OSError):
                told = self._connection.recv(_ANSWER)
                self._status = int(told) if told else None
        if self._status is None:  # a server that dies takes its forks along
            self._status = -signal.SIGKILL
        return self._status

    def kill(self) -> None:
        """Have the server kill it, if it still runs."""
        self._connection.close()

    def end_as_it_does(self) -> NoReturn:
        """Pass signals on to it, wait for its end, and end this process with the same status or signal."""
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._pass_on)
        with contextlib.suppress(OSError):
            if os.getpgid(self.pid) == os.getpgrp():
                # the fork takes its place in the group: a Ctrl-C must not reach it twice. A group of its own in this
                # session would get a hang-up once Snakemake is killed while the job is stopped
                os.setsid()
        status = self.wait()
        if status < 0:
            with contextlib.suppress(OSError):  # SIGKILL has no handler
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        os._exit(status)

    def _pass_on(self, number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def fork(
    function: str, arguments: Sequence[str], *, imports: Sequence[str], files: Sequence[int],
    environment: Mapping[str, str], path: Sequence[str] | None = None, group: int | None = None,
) -> Fork | None:  # fmt: skip
    """Have the server call ``function(*arguments)`` in a fork, which is killed when this process dies.

    Args:
        function: ``module:name``.
        arguments: what it gets.
        imports: modules that it needs. The server imports them once and keeps them.
        files: descriptors that become its standard input, output and error.
        environment: that it gets.
        path: where it finds modules; None for where the server does, which is where an isolated Python does.
        group: process group that it joins; None for a session of its own.

    Returns:
        The fork, None where there is no server or the server declines.
    """
    name, _, folder = os.environ.get(_SERVER, "").partition(":")
    if not name:
        return None
    wanted = {
        "prefix": sys.prefix, "function": function, "arguments": list(arguments), "imports": list(imports),
        "folder": os.getcwd(), "environment": dict(environment), "path": path, "group": group,
        "ignored": [int(number) for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN],
        "title": " ".join([sys.executable, *sys.argv]),
    }  # fmt: skip
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_PATIENCE)
    opened: list[int] = []
    try:
        opened += [os.open(folder, os.O_RDONLY)]
        opened += [os.memfd_create("request")]  # of any size, and there at once
        with open(opened[-1], "w", encoding="utf-8", closefd=False) as request:
            json.dump(wanted, request)
        connection.connect(f"\0{name}")
        socket.send_fds(connection, [b"\0"], [*files, *opened])
        answer = connection.recv(_ANSWER)
    except OSError:
        answer = b""
    finally:
        for descriptor in opened:
            os.close(descriptor)
    if not answer:
        connection.close()
        return None
    connection.settimeout(None)
    return Fork(int(answer), connection)


def die_with_parent() -> None:
    """Have this process killed when the one that started it dies, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of prctl.h


def without_server(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which nobody knows of the server."""
    return {name: value for name, value in environment.items() if name != _SERVER}


def become_fork() -> None:
    """Remember that this process is a fork, which does not ask for one to continue in."""
    global _is_fork
    _is_fork = True


def is_fork() -> bool:
    """Tell whether this process is a fork of the server's."""
    return _is_fork
