"""The discard line, enforced: running a function in a process that can open its declared files and nothing else.

The function runs in a child process that restricts itself before it imports anything but the standard library. On Linux
5.13 and later Landlock does it: the kernel refuses every other open, whether by Python, by C++ or by a program that the
child starts, and nothing the child does can lift it. Elsewhere a Python audit hook refuses; it covers only what Python
itself opens, and the log says so.
"""

import importlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import re
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oneshui import errors
from oneshui.errors import IsolationError, OneShuiError
from oneshui.log import log_to, logger

#: what held in a process; stands in the metadata of what it made
LANDLOCK, AUDIT_HOOK = "landlock", "audit hook"

#: of the operating system: libraries and what they are configured by. Drivers of GPUs are there and under /dev
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/sys")
_DEVICES = ("/dev", "/proc")
#: caches that libraries would otherwise put into the home folder
_CACHES = ("TMPDIR", "XDG_CACHE_HOME", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
_STARTS_A_PROGRAM = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
_LOG_LINE = re.compile(r"\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)")
_TOUCHES_A_PATH = ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link")


def run_isolated(
    function: str, arguments: Mapping[str, Any], *, readable: Iterable[str | Path], writable: str | Path,
    withheld: Iterable[str | Path] = (), modules: Sequence[str] = (),
) -> None:  # fmt: skip
    """Call ``function(**arguments, isolation=...)`` in a process that can open nothing else.

    Args:
        function: ``module:name``.
        arguments: JSON-like; what the function gets beside ``isolation``, the name of what held.
        readable: files that it may read, beside the Python environment and system libraries.
        writable: folder that it may write to, and keeps its temporary files in.
        withheld: files and folders that must turn out to be closed; they need not exist.
        modules: top-level modules outside the environment whose code it may import.

    Raises:
        IsolationError: a withheld path could still be opened, or the process ended without a word.
        OneShuiError: whatever the function raised.
    """
    folder = Path(writable).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    call = {
        "function": function, "arguments": dict(arguments), "readable": [str(Path(p).resolve()) for p in readable],
        "writable": str(folder), "withheld": [str(Path(p).resolve()) for p in withheld], "modules": list(modules),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix=".private-", dir=folder) as private:
        answer = Path(private, "answer.json")
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "oneshui.isolation"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={**os.environ, **dict.fromkeys(_CACHES, private)},
        )  # fmt: skip
        with child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps({**call, "answer": str(answer)}))
            child.stdin.close()
            for line in child.stdout:
                told = _LOG_LINE.match(line)
                level, message = (told[1], told[2]) if told else ("INFO", line.rstrip("\n"))
                logger.log(logging.getLevelNamesMapping()[level], "%s", message)
        if child.returncode:
            raise _error(answer, child.returncode)


def _error(answer: Path, code: int) -> OneShuiError:
    """Return the error that the child left behind."""
    try:
        told = json.loads(answer.read_text(encoding="utf-8"))
        kind: type[OneShuiError] = getattr(errors, told["error"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return IsolationError(
            f"the isolated process ended with exit status {code} and no message; the log above may say why"
        )
    return kind(told["message"])


def restrict(readable: Sequence[str], writable: str, withheld: Sequence[str]) -> str:
    """Give up, for good, the right of this process to open anything else; return what holds it to that.

    Raises:
        IsolationError: a path in ``withheld`` can still be opened, or other threads run already.
    """
    held = _enforce([*readable, *_environment()], writable)
    for path in withheld:
        if _opens(path):
            raise IsolationError(
                f"{path} could be opened by the unlearning process although it must not be ({held}). It lies inside a "
                "folder that the process needs, such as the Python environment. Move the data elsewhere."
            )
    logger.info("isolated by %s", held)
    if held == AUDIT_HOOK:
        logger.warning(
            "this system has no Landlock (Linux 5.13 or later): the audit hook covers only what Python itself opens"
        )
    return held


def _enforce(readable: Sequence[str], writable: str) -> str:
    threads = Path("/proc/self/task")
    if threads.is_dir() and len(list(threads.iterdir())) > 1:
        raise IsolationError(
            "other threads run already; Landlock would not hold for them. Restrict a process first of all."
        )
    if landlock_version():
        _landlock(readable, writable)
        return LANDLOCK
    _audit(readable, writable)
    return AUDIT_HOOK


def landlock_version() -> int:
    """Return the version of the kernel's Landlock interface, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    try:
        from landlock import landlock_abi_version
    except ImportError:
        return 0
    try:
        return int(landlock_abi_version())
    except OSError:
        return 0


def _landlock(readable: Sequence[str], writable: str) -> None:
    from landlock import FSAccess, Ruleset

    everything, files = FSAccess.all(), FSAccess.all_file()
    read = FSAccess.READ_FILE | FSAccess.READ_DIR | FSAccess.EXECUTE
    ruleset = Ruleset()
    for path in {*readable}:
        if os.path.exists(path):
            ruleset.allow(path, rules=read if os.path.isdir(path) else read & files)
    for path in (writable, *_DEVICES):
        if os.path.isdir(path):
            ruleset.allow(path, rules=everything & ~(FSAccess.MAKE_BLOCK | FSAccess.MAKE_CHAR))
    ruleset.apply()


def _audit(readable: Sequence[str], writable: str) -> None:
    may_read = tuple(os.path.realpath(path) for path in (*readable, writable, *_DEVICES))
    may_write = tuple(os.path.realpath(path) for path in (writable, *_DEVICES))
    real, flags_of_writing = os.path.realpath, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def inside(path: str, roots: tuple[str, ...]) -> bool:
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _STARTS_A_PROGRAM:
            raise PermissionError(f"{event}: an unlearning process may not start another")
        if event not in _TOUCHES_A_PATH or args[0] is None or isinstance(args[0], int):
            return
        reads = event in ("os.listdir", "os.scandir") or (event == "open" and not (args[2] or 0) & flags_of_writing)
        path = real(os.fsdecode(args[0]))
        if not inside(path, may_read if reads else may_write):
            raise PermissionError(13, "refused: not among the files that unlearning may open", path)

    sys.addaudithook(hook)


def _environment() -> list[str]:
    """Return where Python, its packages, oneshui itself and shared libraries lie."""
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    own = str(Path(__file__).resolve().parent)
    paths = [sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages(), own, *libraries]
    return [*paths, *_SYSTEM]


def _find(name: str) -> importlib.machinery.ModuleSpec:
    """Return the spec of a top-level module without running its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise errors.ConfigError(f"there is no module {name!r}. Add its folder to PYTHONPATH.")
    return spec


def _code_of(spec: importlib.machinery.ModuleSpec) -> list[str]:
    """Return the folders of a package, or the file of a module."""
    folders = list(spec.submodule_search_locations or [])
    return folders or [str(spec.origin)]


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


def main() -> None:
    """Restrict this process, then make the call described on standard input."""
    call = json.load(sys.stdin)
    with log_to(None):
        try:
            specs = {name: _find(name) for name in call["modules"]}
            code = [path for spec in specs.values() for path in _code_of(spec)]
            held = restrict([*call["readable"], *code], call["writable"], call["withheld"])
            for name, spec in specs.items():
                sys.modules[name] = module = importlib.util.module_from_spec(spec)
                assert spec.loader is not None
                spec.loader.exec_module(module)
            module_name, _, name = call["function"].partition(":")
            getattr(importlib.import_module(module_name), name)(**call["arguments"], isolation=held)
        except OneShuiError as error:
            told = {"error": type(error).__name__, "message": str(error)}
            Path(call["answer"]).write_text(json.dumps(told), encoding="utf-8")
            sys.exit(1)


if __name__ == "__main__":
    main()
