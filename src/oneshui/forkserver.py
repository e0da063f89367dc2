"""The process that imports once and forks for every job that asks (`oneshui.forks`).

It never reads data and never touches a GPU: its forks inherit code and nothing else. It imports only oneshui, what
oneshui needs and Snakemake, never a module of the user's.

Who asks must be the same user and send a descriptor of the folder in which Snakemake runs. An isolated process
(`oneshui.isolation`) cannot open it, so it cannot get a process that is not isolated.
"""

import atexit
import contextlib
import fcntl
import functools
import importlib
import importlib.machinery
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from setproctitle import setproctitle
from threadpoolctl import threadpool_limits

from oneshui.forks import SIGNALS, become_fork, die_with_parent
from oneshui.startup import quick_imports

#: packages from which the server imports; what else a fork needs it imports itself
_IMPORTS = ("oneshui", "snakemake")
_GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/dxg")
#: what a job sends: standard input, output and error, the folder, the request
_DESCRIPTORS = 5


def main(listener: str, folder: str) -> None:
    """Serve until standard input ends and the last fork has ended.

    Args:
        listener: descriptor of a socket that listens.
        folder: that a job must have opened.
    """
    # they are for Snakemake and the jobs; a fork that is just beginning keeps them until it can obey them
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _Server(socket.socket(fileno=int(listener)), os.stat(folder)).serve()
    os._exit(0)  # to take torch apart lasts half a second


@dataclass
class _Job:
    """A job whose fork runs: the fork's number and a descriptor of it, and the connection to the job."""

    pid: int
    process: int
    connection: socket.socket


class _Server:
    def __init__(self, listener: socket.socket, folder: os.stat_result) -> None:
        self._listener, self._folder = listener, folder
        self._pid, self._events = os.getpid(), selectors.DefaultSelector()
        self._connections: set[socket.socket] = set()
        self._jobs: list[_Job] = []

    def serve(self) -> None:
        self._watch(0, self._retire)
        self._watch(self._listener, self._accept)
        while self._events.get_map():
            # one at a time, because it may end others; what is left comes again
            (key, _), *_ = self._events.select()
            key.data()

    def _watch(self, what: int | socket.socket, then: Callable[[], None]) -> None:
        self._events.register(what, selectors.EVENT_READ, then)

    def _retire(self) -> None:
        """Take no more jobs: Snakemake has died."""
        self._events.unregister(0)
        self._events.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has died already
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._connections.add(connection)
            self._watch(connection, functools.partial(self._answer, connection))

    def _answer(self, connection: socket.socket) -> None:
        """Fork for a job, or close the connection, after which it runs by itself."""
        self._events.unregister(connection)
        descriptors: list[int] = []
        try:
            _, descriptors, _, _ = socket.recv_fds(connection, 1, _DESCRIPTORS)
            *files, folder, request = descriptors
            if self._may_ask(connection, folder):
                with open(os.dup(request), encoding="utf-8") as stream:
                    stream.seek(0)
                    wanted = json.load(stream)
                if _can_serve(wanted) and not _has_gone(connection):
                    self._fork(connection, wanted, files, (folder, request))
                    return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._connections.discard(connection)
        connection.close()

    def _may_ask(self, connection: socket.socket, folder: int) -> bool:
        """Tell whether a job is the user's and not isolated. O_PATH opens what is refused, so it proves nothing."""
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        opened = os.path.samestat(os.fstat(folder), self._folder) and not fcntl.fcntl(folder, fcntl.F_GETFL) & os.O_PATH
        return user == os.getuid() and opened

    def _fork(
        self, connection: socket.socket, wanted: Mapping[str, Any], files: Sequence[int], others: Sequence[int]
    ) -> None:
        pid = os.fork()
        if not pid:
            _end_with(functools.partial(self._become, wanted, files, others))
        if wanted["group"] is not None:
            with contextlib.suppress(OSError):  # one of another session, or the fork has ended
                os.setpgid(pid, wanted["group"])
        job = _Job(pid, os.pidfd_open(pid), connection)
        self._jobs.append(job)
        connection.setblocking(True)
        self._watch(connection, functools.partial(self._kill, job))
        self._watch(job.process, functools.partial(self._end, job))
        with contextlib.suppress(OSError):  # a job that has died is met later
            connection.send(str(pid).encode())

    def _kill(self, job: _Job) -> None:
        """Have a fork follow its job, which has died."""
        self._events.unregister(job.connection)
        signal.pidfd_send_signal(job.process, signal.SIGKILL)

    def _end(self, job: _Job) -> None:
        """Tell a job how its fork ended."""
        _, status = os.waitpid(job.pid, 0)
        self._events.unregister(job.process)
        os.close(job.process)
        with contextlib.suppress(KeyError):
            self._events.unregister(job.connection)
        with job.connection, contextlib.suppress(OSError):
            job.connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        self._jobs.remove(job)
        self._connections.discard(job.connection)

    # --- in a fork ---------------------------------------------------------------------------------------------------

    def _become(self, wanted: Mapping[str, Any], files: Sequence[int], others: Sequence[int]) -> None:
        """Run what a job wants, with what it has. Signals come last, so that they find their handlers."""
        die_with_parent()
        if os.getppid() != self._pid:  # it died before that
            os._exit(1)
        self._events.close()
        for each in (self._listener, *self._connections):
            each.close()
        for descriptor in (*others, *(job.process for job in self._jobs)):
            os.close(descriptor)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        if wanted["group"] is None:
            os.setsid()
        setproctitle(wanted["title"])  # for ps, top and nvidia-smi; it needs the environment that Python began with
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        if wanted["path"] is not None:
            sys.path[:] = wanted["path"]
        tempfile.tempdir = None  # an import may have asked for it
        become_fork()
        for signal_ in SIGNALS:
            default = signal.default_int_handler if signal_ == signal.SIGINT else signal.SIG_DFL
            signal.signal(signal_, signal.SIG_IGN if signal_ in wanted["ignored"] else default)  # nohup
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        module, _, name = wanted["function"].partition(":")
        getattr(importlib.import_module(module), name)(*wanted["arguments"])


def run_script(*argv: str) -> None:
    """Run a script with its command line, in this fork."""
    sys.argv[:] = argv
    set_threads()
    runpy.run_path(argv[0], run_name="__main__")


def set_threads() -> None:
    """Give libraries that are loaded already the number of threads that they read from the environment when loaded.

    They may start them at once: an isolated process restricts itself before.
    """
    with contextlib.suppress(ValueError):
        threadpool_limits(int(os.environ.get("OMP_NUM_THREADS", "")))


def _can_serve(wanted: Mapping[str, Any]) -> bool:
    """Import what a job needs; tell whether a fork has what the job itself would have."""
    if wanted["prefix"] != sys.prefix:
        return False
    try:
        with quick_imports():
            for name in wanted["imports"]:
                if name.partition(".")[0] in _IMPORTS:
                    importlib.import_module(name)
    except (Exception, SystemExit):  # the job meets it, too, and says it in its log
        return False
    return not _gpu_is_open() and (wanted["path"] is None or not _other_packages(wanted["path"]))


def _other_packages(path: Sequence[str]) -> list[str]:
    """Return packages that were imported here and that a job finds elsewhere."""
    others = []
    for name in {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__"}:
        ours = getattr(sys.modules.get(name), "__spec__", None)
        theirs = importlib.machinery.PathFinder.find_spec(name, list(path))
        if ours and theirs and ours.origin != theirs.origin:
            others.append(name)
    return others


def _has_gone(connection: socket.socket) -> bool:
    """Tell whether a job has died, or waits no longer."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def _gpu_is_open() -> bool:
    """Tell whether an import has opened a GPU, which a fork could not use any more."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(_GPUS):
                return True
    return False


def _end_with(function: Callable[[], None]) -> NoReturn:
    """Call a function and end this process as Python ends after a script, but without taking torch apart."""
    status = 0
    try:
        function()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        trace = error.__traceback__
        while trace and trace.tb_next and trace.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
            trace = trace.tb_next  # as if the script had been started by itself
        traceback.print_exception(type(error), error, trace)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    # these two as multiprocessing does in its forks
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)
