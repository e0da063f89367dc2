"""The process that imports once and forks for every job that asks (`oneshui.forks`).

It never reads data and never touches a GPU: its forks inherit code and nothing else. It imports only what lies in the
Python environment and in oneshui, as ``python -I`` does, never a module of the user's.
"""

import contextlib
import ctypes
import hashlib
import importlib
import multiprocessing
import os
import runpy
import secrets
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from setproctitle import setproctitle
from threadpoolctl import threadpool_limits

from oneshui.forks import SIGNALS, become_fork, origin, receive, send
from oneshui.startup import quick_imports

#: packages from which the server imports; what else a fork needs it imports itself
_IMPORTS = ("oneshui", "snakemake")
_GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
#: seconds for a job to say what it wants
_PATIENCE = 10
_SECRET_BYTES, _FILES = 32, 3
_PR_SET_PDEATHSIG = 1  # prctl.h


def main(listener: str, secret_hash: str, folder: str) -> None:
    """Serve until standard input ends and the last fork has ended.

    Args:
        listener: descriptor of a socket that listens.
        secret_hash: SHA-256 of what a job must know.
        folder: of the socket, which is removed at the end.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # they are for Snakemake and the jobs
    try:
        _Server(socket.socket(fileno=int(listener)), secret_hash).serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # to take torch apart lasts half a second


class _Server:
    def __init__(self, listener: socket.socket, secret_hash: str) -> None:
        self._listener, self._secret_hash = listener, secret_hash
        self._events = selectors.DefaultSelector()
        self._jobs: dict[BaseProcess, socket.socket] = {}

    def serve(self) -> None:
        self._events.register(0, selectors.EVENT_READ)
        self._events.register(self._listener, selectors.EVENT_READ)
        while self._events.get_map():
            for key, _ in self._events.select():
                if key.fileobj == 0:  # Snakemake has died
                    self._events.unregister(0)
                    self._events.unregister(self._listener)
                    self._listener.close()
                    break
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):  # a job has died
                    self._events.unregister(key.fileobj)
                    key.data.kill()
                else:
                    self._end(key.data)
                    break  # its connection may be among these events, too

    def _accept(self) -> None:
        """Fork for a job, or close the connection, after which it runs by itself."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has died already
            return
        connection.settimeout(_PATIENCE)
        files: list[int] = []
        try:
            secret, files, _, _ = socket.recv_fds(connection, _SECRET_BYTES, _FILES)
            wanted = receive(connection) if self._knows(secret) else None
            del secret
            if wanted is not None and len(files) == _FILES and _can_serve(wanted):
                self._fork(connection, wanted, files)
            else:
                connection.close()
        except (OSError, ValueError, KeyError, TypeError):
            connection.close()
        finally:
            for file in files:
                os.close(file)

    def _knows(self, secret: bytes) -> bool:
        return secrets.compare_digest(hashlib.sha256(secret).hexdigest(), self._secret_hash)

    def _fork(self, connection: socket.socket, wanted: Mapping[str, Any], files: Sequence[int]) -> None:
        child = multiprocessing.get_context("fork").Process(target=self._become, args=(connection, wanted, files))
        child.start()
        connection.settimeout(None)
        self._jobs[child] = connection
        self._events.register(connection, selectors.EVENT_READ, child)
        self._events.register(child.sentinel, selectors.EVENT_READ, child)
        with contextlib.suppress(OSError):  # a job that has died is met in the loop
            send(connection, {"pid": child.pid})

    def _end(self, child: BaseProcess) -> None:
        """Tell a job how its fork ended."""
        self._events.unregister(child.sentinel)
        child.join()
        connection = self._jobs.pop(child)
        with contextlib.suppress(KeyError):
            self._events.unregister(connection)
        with connection, contextlib.suppress(OSError):
            send(connection, {"status": child.exitcode})
        child.close()

    # --- in a fork ---------------------------------------------------------------------------------------------------

    def _become(self, connection: socket.socket, wanted: Mapping[str, Any], files: Sequence[int]) -> None:
        """Run what a job wants, with what it has."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is None or os.getppid() != parent.pid:  # it died before that
            os._exit(1)
        for each in SIGNALS:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        self._events.close()
        for of_server in (self._listener, connection, *self._jobs.values()):
            of_server.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        if wanted["group"] is None:
            os.setsid()
        else:
            with contextlib.suppress(OSError):  # a group of another session
                os.setpgid(0, wanted["group"])
        setproctitle(wanted["title"])  # for ps, top and nvidia-smi; it needs the environment that Python began with
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        if wanted["path"] is not None:
            sys.path[:] = wanted["path"]
        tempfile.tempdir = None  # an import may have asked for it
        _set_blas_threads()
        become_fork()
        _call(wanted["function"], wanted["arguments"])


def run_script(*argv: str) -> None:
    """Run a script with its command line, in this fork."""
    sys.argv[:] = argv
    runpy.run_path(argv[0], run_name="__main__")


def _can_serve(wanted: Mapping[str, Any]) -> bool:
    """Import what a job needs; tell whether a fork has what the job itself would have."""
    if wanted["prefix"] != sys.prefix or any(origin(name) != place for name, place in wanted["origins"].items()):
        return False
    try:
        with quick_imports():
            for name in wanted["imports"]:
                if name.partition(".")[0] in _IMPORTS:
                    importlib.import_module(name)
    except Exception:  # the job meets it, too, and says it in its log
        return False
    return not _gpu_is_open()


def _gpu_is_open() -> bool:
    """Tell whether an import has opened a GPU, which a fork could not use any more."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(_GPUS):
                return True
    return False


def _set_blas_threads() -> None:
    """Give libraries that are loaded already the number of threads that they read from the environment when loaded."""
    with contextlib.suppress(ValueError):
        threadpool_limits(int(os.environ.get("OMP_NUM_THREADS", "")))


def _call(function: str, arguments: Sequence[str]) -> None:
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(*arguments)
