"""Starting a job quickly: asking for a fork of a process that has imported already what the job needs.

Torch takes seconds to import, often longer than a job works. So a Snakemake that runs jobs on its own machine starts a
server (`oneshui.forkserver`). A job's script asks it for a fork, which runs the script with the files, folder,
environment and process group of the job. The job waits and ends as its fork does; if one is killed, so is the other.
Where there is no server, or it would have imported other packages, a job runs by itself. ``ONESHUI_FORK=0`` switches
the server off. Linux only. Measured by ``benchmarks/fixed_costs.py``.
"""

import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from oneshui.startup import quick_imports

#: environment of jobs: what the server asks for, and where it listens
_SERVER = "ONESHUI_FORKSERVER"
_SWITCH = "ONESHUI_FORK"
_START = "import sys; sys.path.insert(0, sys.argv[1]); from oneshui.forkserver import main; main(*sys.argv[2:])"
#: what a fork must have from where the job itself would take it
_SAME = ("oneshui", "torch", "torchvision", "timm", "numpy", "pandas")
#: what a user or a scheduler may send to a job
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_is_fork = False


def start_server() -> None:
    """Start a server that ends with this process and the last of its own forks; jobs know of it by the environment."""
    os.environ.pop(_SERVER, None)
    if sys.platform != "linux" or os.environ.get(_SWITCH) == "0":
        return
    folder, secret = tempfile.mkdtemp(prefix="oneshui-"), secrets.token_hex(16)
    place = os.path.join(folder, "forks")
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place)
            listener.listen(128)
            # a hash, because isolated forks have the server's memory and must not ask for another fork
            hashed = hashlib.sha256(secret.encode()).hexdigest()
            arguments = [str(Path(__file__).absolute().parents[1]), str(listener.fileno()), hashed, folder]
            server = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, pass_fds=[listener.fileno()], cwd="/",
            )  # fmt: skip
    except OSError:  # a path too long for a socket, or a file system without them
        shutil.rmtree(folder, ignore_errors=True)
        return
    os.environ[_SERVER] = f"{secret}:{place}"
    atexit.register(_let_go, server)


def _let_go(server: "subprocess.Popen[bytes]") -> None:
    """Tell the server that this process ends, as its death would."""
    assert server.stdin is not None
    server.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):  # jobs of a Snakemake that was interrupted
        server.wait(timeout=1)


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """Go on with this script in a fork of the server's process, or import what follows without collecting garbage.

    Where there is a fork, this process waits for it and ends.
    """
    if not _is_fork:
        with _later(SIGNALS):  # a fork may be at work before this process can pass them on
            child = _fork_of_script()
            if child is not None:
                child.pass_on(SIGNALS)
        if child is not None:
            child.end_as_it_does()
    with quick_imports():
        yield


@contextlib.contextmanager
def _later(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Let signals arrive at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork_of_script() -> "Fork | None":
    """Return a fork that runs this script from its beginning."""
    imports = re.findall(r"^ *from (oneshui[\w.]*) import", Path(sys.argv[0]).read_text(encoding="utf-8"), re.MULTILINE)
    return fork(
        "oneshui.forkserver:run_script", sys.argv, imports=["snakemake.iocontainers", *imports], files=(0, 1, 2),
        environment=os.environ, path=sys.path, group=os.getpgrp(),
    )  # fmt: skip


def fork(
    function: str, arguments: Sequence[str], *, imports: Sequence[str], files: Sequence[int],
    environment: Mapping[str, str], path: Sequence[str] | None = None, group: int | None = None,
) -> "Fork | None":  # fmt: skip
    """Have the server call ``function(*arguments)`` in a fork, which is killed when this process dies.

    Args:
        function: ``module:name``.
        arguments: what it gets.
        imports: modules that it needs. The server imports them once and keeps them.
        files: descriptors that become its standard input, output and error.
        environment: that it gets; one `without_server` where it must not ask for forks itself.
        path: where it finds further modules; None for where an isolated Python (``python -I``) does.
        group: process group that it joins; None for a session of its own.

    Returns:
        The fork, None where there is no server or the server declines.
    """
    secret, _, place = os.environ.get(_SERVER, "").partition(":")
    if not place:
        return None
    wanted = {
        "prefix": sys.prefix, "origins": {name: origin(name) for name in _SAME}, "function": function,
        "arguments": list(arguments), "imports": list(imports), "folder": os.getcwd(),
        "environment": dict(environment), "path": path, "group": group,
        "title": " ".join([sys.executable, *sys.argv]),
    }  # fmt: skip
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(place)
        socket.send_fds(connection, [secret.encode()], files)
        send(connection, wanted)
        answer = receive(connection)
    except OSError:
        answer = None
    if answer is None:
        connection.close()
        return None
    return Fork(int(answer["pid"]), connection)


def without_server(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which nobody can ask for forks."""
    return {name: value for name, value in environment.items() if name != _SERVER}


class Fork:
    """A process that the server forked for this one.

    Attributes:
        pid: of the process.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid, self._connection = pid, connection

    def wait(self) -> int:
        """Wait for its end and return its exit status, -N if signal N ended it."""
        with self._connection:
            try:
                told = receive(self._connection)
            except OSError:
                told = None
        return -signal.SIGKILL if told is None else int(told["status"])  # a server that dies takes its forks along

    def pass_on(self, signals: Sequence[signal.Signals]) -> None:
        """From now on, send it those of the signals that this process gets and does not ignore (nohup)."""
        for number in signals:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._signal)

    def _signal(self, number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end_as_it_does(self) -> NoReturn:
        """Wait for its end, and end this process with the same status or signal."""
        status = self.wait()
        if status < 0:
            with contextlib.suppress(OSError):  # SIGKILL has no handler
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        os._exit(status)


def become_fork() -> None:
    """Remember that this process is a fork, which does not ask for one to continue in."""
    global _is_fork
    _is_fork = True


def is_fork() -> bool:
    """Tell whether this process is a fork of the server's."""
    return _is_fork


def origin(name: str) -> str | None:
    """Return the file that a package begins with, None where there is no such package."""
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else None


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Send a message to the other side."""
    encoded = json.dumps(message).encode()
    connection.sendall(len(encoded).to_bytes(8, "big") + encoded)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next message, None if the other side has closed the connection."""
    length = _read(connection, 8)
    encoded = _read(connection, int.from_bytes(length, "big")) if length else b""
    if not encoded:
        return None
    message: dict[str, Any] = json.loads(encoded)
    return message


def _read(connection: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        part = connection.recv(size - len(read))
        if not part:
            return b""
        read += part
    return read
