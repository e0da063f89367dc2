"""The discard line, enforced: running a function in a process that can open its declared files and nothing else.

The function runs in a child process that restricts itself before any code but Python's, oneshui's and landlock's has
run. Where jobs are forks (`oneshui.forkserver`), it is a fork of a process that has imported torch, too, and that never
opens data. On Linux 5.13 and later Landlock does it: the kernel refuses every other open, whether by Python, by C++ or
by a program that the child starts, and nothing the child does can lift it. Elsewhere a Python audit hook refuses; it
covers only what Python itself opens, and the log says so. Files are closed, not sockets: a process that already runs
outside could hand something in.

The child writes into a private folder, and the parent moves the one result into place: results of other methods are as
closed as the training data.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import os
import re
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from oneshui import errors
from oneshui.errors import ConfigError, IsolationError, OneShuiError
from oneshui.folders import own_folder
from oneshui.forks import Fork, die_with_parent, fork, is_fork, without_server
from oneshui.log import log_to, logger
from oneshui.startup import quick_imports

#: what held in a process; stands in the metadata of what it made
LANDLOCK, AUDIT_HOOK = "landlock", "audit hook"

#: of the operating system: libraries and what they are configured by
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/sys", "/proc", "/run/opengl-driver")
#: may be written to; of the devices, those that hold no data, and GPUs
_DEVICES = ("null", "zero", "full", "random", "urandom", "nvidia*", "nvidia-caps/*", "dri/*", "kfd")
#: caches that libraries would otherwise put into the home folder
_CACHES = ("TMPDIR", "XDG_CACHE_HOME", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
#: -I keeps the user's PYTHONPATH, sitecustomize and user site out until the restriction holds
_CHILD = (
    "import sys; sys.path[:0] = [p for p in sys.argv[1:] if p not in sys.path]; import oneshui.isolation as i; i.main()"
)
_LOG_LINE = re.compile(r"\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)")
#: folders below a withheld one of which a file is tried
_TRIED_FOLDERS = 1000


def run_isolated(
    function: str, arguments: Mapping[str, Any], *, readable: Iterable[str | Path], output: str | Path,
    withheld: Iterable[str | Path] = (), modules: Sequence[str] = (),
) -> None:  # fmt: skip
    """Call ``function(**arguments, output_path=..., isolation=...)`` in a process that can open nothing else.

    Args:
        function: ``module:name``.
        arguments: JSON-like; what the function gets beside the path to write to and the name of what held.
        readable: files that it may read, beside the Python environment and system libraries.
        output: file that it makes, or folder of files.
        withheld: files and folders that must turn out to be closed; they need not exist.
        modules: top-level modules outside the environment whose code it may import.

    Raises:
        IsolationError: a withheld path could still be opened, or the process ended without a result.
        OneShuiError: whatever the function raised.
    """
    target = Path(output).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(target.parent, target.name) as private:
        call = {
            "function": function, "arguments": dict(arguments), "readable": [str(Path(p).resolve()) for p in readable],
            "private": str(private), "output": str(private / target.name), "withheld": list(_expanded(withheld)),
            "modules": list(modules), "path": [*sys.path, *_entries("PYTHONPATH")],
        }  # fmt: skip
        code = _run_child(call, private)
        if code:
            raise _error(private / "error.json", code)
        result = private / target.name
        if not _plain(result):
            raise IsolationError(f"the isolated process ended without writing {target.name}; the log above may say why")
        os.replace(result, target)


def _plain(path: Path) -> bool:
    """Tell whether a result is a file, or a folder of files: a link would lead to what the process could not open."""
    if path.is_dir() and not path.is_symlink():
        return all(each.is_file() and not each.is_symlink() for each in path.iterdir())
    return path.is_file() and not path.is_symlink()


def _run_child(call: Mapping[str, Any], private: Path) -> int:
    """Run the child to its end, pass its output on to the log, and return its exit status."""
    (its_input, ours), (output, its_output) = os.pipe(), os.pipe()
    with open(output, encoding="utf-8", errors="replace") as lines, open(ours, "w", encoding="utf-8") as stream:
        try:
            child = _start_child(call["function"], (its_input, its_output, its_output), private)
        finally:
            os.close(its_input)
            os.close(its_output)
        reader = threading.Thread(target=_pass_on, args=(lines,), daemon=True)
        reader.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                json.dump(call, stream)
            with contextlib.suppress(BrokenPipeError):
                stream.close()
            return child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # whatever it has started
            child.kill()  # itself, if we were interrupted
            child.wait()
            reader.join()


def _start_child(function: str, files: tuple[int, int, int], private: Path) -> "subprocess.Popen[bytes] | Fork":
    """Start a process that runs ``main`` of this module in a session of its own."""
    environment = without_server({**os.environ, **dict.fromkeys(_CACHES, str(private))})
    if landlock_version():  # the audit hook must come before modules that start programs
        child = fork(
            "oneshui.isolation:main", (), imports=[function.partition(":")[0]], files=files, environment=environment
        )
        if child is not None:
            return child
    own = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, own], stdin=files[0], stdout=files[1], stderr=files[2], env=environment,
        start_new_session=True,
    )  # fmt: skip


def _pass_on(lines: IO[str]) -> None:
    for line in lines:
        told = _LOG_LINE.match(line)
        level, message = (told[1], told[2]) if told else ("INFO", line.rstrip("\n"))
        logger.log(logging.getLevelNamesMapping()[level], "%s", message)


def _error(told: Path, code: int) -> OneShuiError:
    """Return the error that the child left behind."""
    try:
        left = json.loads(told.read_text(encoding="utf-8"))
        kind: type[OneShuiError] = getattr(errors, left["error"])
        return kind(str(left["message"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return IsolationError(
            f"the isolated process ended with exit status {code} and no message; the log above may say why"
        )


def _expanded(paths: Iterable[str | Path]) -> Iterator[str]:
    """Yield each path and, of the folders below it, one file each: a link may lead to where files are open.

    A folder is entered once, although data folders lie in each other and links may lead in circles.
    """
    seen: set[str] = set()
    for path in paths:
        yield os.path.abspath(path)
        walk = os.walk(path, followlinks=True)
        for _, (folder, below, files) in zip(range(_TRIED_FOLDERS), walk, strict=False):
            place = os.path.realpath(folder)
            if place in seen:
                below.clear()
                continue
            seen.add(place)
            yield place
            yield from (os.path.realpath(os.path.join(folder, name)) for name in files[:1])


# --- in the child ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Restrict this process, then make the call described on standard input."""
    die_with_parent()
    call = json.load(sys.stdin)
    with log_to(None):
        try:
            found = _UserModules({name: _find(name, call["path"]) for name in call["modules"]})
            held = restrict([*call["readable"], *found.code()], call["private"], call["withheld"])
            sys.path += [path for path in call["path"] if path not in sys.path]
            sys.meta_path.insert(0, found)
            module_name, _, name = call["function"].partition(":")
            if is_fork():
                from oneshui.forkserver import set_threads

                set_threads()
            with quick_imports():
                function = getattr(importlib.import_module(module_name), name)
            function(**call["arguments"], output_path=call["output"], isolation=held)
            return
        except OneShuiError as error:
            known = next(cls for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
            told = {"error": known.__name__, "message": str(error)}
            Path(call["private"], "error.json").write_text(json.dumps(told), encoding="utf-8")
    sys.exit(1)


def restrict(readable: Sequence[str], writable: str, withheld: Sequence[str]) -> str:
    """Give up, for good, the right of this process to open anything else; return what holds it to that.

    Raises:
        IsolationError: a path in ``withheld`` can still be opened, or other threads run already.
    """
    threads = Path("/proc/self/task")
    if threads.is_dir() and len(list(threads.iterdir())) > 1:
        raise IsolationError("other threads run already; Landlock would not hold for them. Restrict a process first.")
    readable = [*readable, *_environment()]
    if landlock_version():
        _landlock(readable, writable)
        held = LANDLOCK
    else:
        _audit(readable, writable)
        held = AUDIT_HOOK
        logger.warning(
            "this system has no Landlock (Linux 5.13 or later): the audit hook covers only what Python itself opens"
        )
    for path in withheld:
        if _opens(path):
            raise IsolationError(
                f"{path} could be opened by the unlearning process although it must not be ({held}). It lies inside a "
                "folder that the process needs, such as the Python environment. Move the data elsewhere."
            )
    logger.info("isolated by %s", held)
    return held


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

    everything, of_files = FSAccess.all(), FSAccess.all_file()
    read = FSAccess.READ_FILE | FSAccess.READ_DIR | FSAccess.EXECUTE
    ruleset = Ruleset()
    for path in {*readable}:
        if os.path.exists(path):
            ruleset.allow(path, rules=read if os.path.isdir(path) else read & of_files)
    for path in (writable, *_writable_elsewhere()):
        rules = everything & ~(FSAccess.MAKE_BLOCK | FSAccess.MAKE_CHAR)
        ruleset.allow(path, rules=rules if os.path.isdir(path) else rules & of_files)
    ruleset.apply()


def _writable_elsewhere() -> list[str]:
    devices = [str(path) for pattern in _DEVICES for path in Path("/dev").glob(pattern) if not path.is_dir()]
    own = os.path.realpath("/proc/self")  # CUDA names its threads there
    return [*devices, *([own] if os.path.isdir(own) else [])]


def _audit(readable: Sequence[str], writable: str) -> None:
    """Refuse in a hook that no Python code can remove. All that it uses is bound here, where nothing can replace it."""
    real, decode = os.path.realpath, os.fsdecode
    may_write = tuple(real(path) for path in (writable, *_writable_elsewhere()))
    may_read = tuple(real(path) for path in readable) + may_write
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    programs = frozenset(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty",
                          "pty.spawn", "os.chdir", "os.fchdir"))  # fmt: skip
    changes = frozenset(("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
                         "os.chmod", "os.chown", "sqlite3.connect"))  # fmt: skip

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in programs:
            raise PermissionError(f"{event} is refused to an unlearning process")
        listing = event in ("os.listdir", "os.scandir")
        if not (event == "open" or listing or event in changes):
            return
        reads = listing or (event == "open" and not (args[2] or 0) & writing)
        roots = may_read if reads else may_write
        for path in args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]:
            if not isinstance(path, str | bytes):
                continue  # a number of an open file, or nothing
            name = decode(path)
            place = real(name)
            good = any(place == root or place.startswith(root.rstrip("/") + "/") for root in roots)
            if ".." in name.split("/") or not good:
                raise PermissionError(13, "refused: not among the files that unlearning may open", place)

    _refuse_programs()
    sys.addaudithook(hook)


def _refuse_programs() -> None:
    """Close the one way to start a program of which Python tells no hook; multiprocessing takes it."""

    def refused(*_: Any) -> int:
        raise PermissionError("starting a program is refused to an unlearning process")

    for module in ("_posixsubprocess", "subprocess"):
        for name in ("fork_exec", "_fork_exec"):
            if hasattr(importlib.import_module(module), name):
                setattr(importlib.import_module(module), name, refused)


def _environment() -> list[str]:
    """Return where Python, its packages, oneshui itself and shared libraries lie."""
    packages = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    own = str(Path(__file__).resolve().parent)
    places = [sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages(), *packages]
    return [*places, own, *_entries("LD_LIBRARY_PATH"), *_SYSTEM]


def _entries(variable: str) -> list[str]:
    return [path for path in os.environ.get(variable, "").split(os.pathsep) if path]


def _find(name: str, path: list[str]) -> importlib.machinery.ModuleSpec:
    """Return the spec of a top-level module without running its code."""
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise ConfigError(f"there is no module {name!r}. Add its folder to PYTHONPATH.")
    return spec


class _UserModules(importlib.abc.MetaPathFinder):
    """Finds modules of the user's by what was known before the restriction: their folders can not be listed after it.

    A package may read its own folders, a single file the Python files beside it.
    """

    def __init__(self, specs: dict[str, importlib.machinery.ModuleSpec]) -> None:
        self._specs = specs
        files = [Path(str(spec.origin)) for spec in specs.values() if not spec.submodule_search_locations]
        self._beside = {path.stem: path.resolve() for file in files for path in file.parent.glob("*.py")}

    def code(self) -> list[str]:
        """Return the folders and files to read."""
        folders = [path for spec in self._specs.values() for path in spec.submodule_search_locations or []]
        return [*folders, *map(str, self._beside.values())]

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of the user's, None for any other."""
        if fullname in self._specs:
            return self._specs[fullname]
        if fullname in self._beside:
            return importlib.util.spec_from_file_location(fullname, self._beside[fullname])
        return None


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True
