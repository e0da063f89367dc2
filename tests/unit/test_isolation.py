"""What an isolated process can open: in child processes, because the restriction lasts for good."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from oneshui.errors import ArtefactError, ConfigError, DataError, IsolationError
from oneshui.forks import fork, start_server
from oneshui.isolation import AUDIT_HOOK, LANDLOCK, landlock_version, run_isolated

needs_landlock = pytest.mark.skipif(not landlock_version(), reason="the kernel has no Landlock (Linux 5.13 or later)")

#: what a method may try, each returning what it read
ATTEMPTS = {
    "open": "return open(path, 'rb').read()",
    "os": "import os\n    return os.read(os.open(path, os.O_RDONLY), 9)",
    "memory map": "import numpy as np\n    return bytes(np.memmap(path, dtype='uint8', mode='r')[:9])",
    "pyarrow": "import pyarrow as pa\n    return pa.OSFile(path).read()",
    "pyarrow memory map": "import pyarrow as pa\n    return pa.memory_map(path).read()",
    "safetensors": "import safetensors\n    return safetensors.safe_open(path, 'np').keys()",
    "pillow": "from PIL import Image\n    return Image.open(path).size",
    "torch": "import torch\n    return torch.from_file(path, size=9, dtype=torch.uint8)",
    "subprocess": "import subprocess\n    return subprocess.run(['cat', path], check=True, capture_output=True).stdout",
    "shell": "import os\n    assert os.system(f'cat {path}') == 0, 'refused'",
    "worker process": (
        "import multiprocessing.util, os\n"
        "    multiprocessing.util.spawnv_passfds(b'/bin/cat', [b'cat', path.encode()], [])\n"
        "    assert os.wait()[1] == 0, 'refused'"
    ),
    "thread": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "    return ThreadPoolExecutor(1).submit(lambda: open(path, 'rb').read()).result()"
    ),
    "list": "import os\n    return os.listdir(os.path.dirname(path))",
    "symbolic link": "import os\n    os.symlink(path, out + '/link')\n    return open(out + '/link', 'rb').read()",
    "hard link": "import os\n    os.link(path, out + '/hard')\n    return open(out + '/hard', 'rb').read()",
    "proc": "return open('/proc/self/root' + path, 'rb').read()",
    "ctypes": ("import ctypes\n    libc = ctypes.CDLL(None)\n    assert libc.open(path.encode(), 0) >= 0, 'refused'"),
    "rename": "import os\n    os.rename(path, out + '/moved')\n    return open(out + '/moved', 'rb').read()",
}
#: what Python's own audit hook sees
PYTHON_ONLY = (
    "open",
    "os",
    "memory map",
    "pillow",
    "subprocess",
    "shell",
    "worker process",
    "thread",
    "list",
    "hard link",
    "rename",
)


class Sandbox:
    """A secret, a folder to write to, and a module whose functions run isolated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("data", "out", "code"):
            (folder / name).mkdir()
        self.secret, self.given = folder / "data/face.png", folder / "request.txt"
        self.secret.write_bytes(b"a face of somebody")
        self.given.write_text("a photo")
        self.output = folder / "out/answer.json"

    def write(self, body: str, name: str = "guest") -> None:
        (self.folder / "code" / f"{name}.py").write_text(body)

    def run(self, function: str = "guest:go", **options: Any) -> None:
        run_isolated(
            function, {"path": str(self.secret), "given": str(self.given)}, readable=[self.given],
            output=self.output, modules=["guest"], **options,
        )  # fmt: skip

    def answer(self) -> Any:
        return json.loads(self.output.read_text())


@pytest.fixture(scope="module")
def server() -> str:
    """Where a server forks for isolated processes as it does in a run of Snakemake, on two threads and after numpy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        start_server()
        first = fork(
            "oneshui.startup:silence_end", (), imports=["oneshui.devices"], files=(0, 1, 2), environment=os.environ
        )
    assert first is None or first.wait() == 0
    return os.environ.pop("ONESHUI_FORKSERVER", "")


@pytest.fixture(params=["by itself", pytest.param("in a fork", marks=needs_landlock)])
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, server: str) -> Sandbox:
    """A sandbox for a process that starts by itself, or as a fork."""
    old = os.environ.get("PYTHONPATH")
    if request.param == "in a fork":
        monkeypatch.setenv("ONESHUI_FORKSERVER", server)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), *([old] if old else [])]))
    return Sandbox(tmp_path)


#: Landlock says that a link would cross devices, safetensors that there is no such file
REFUSALS = "PermissionError|[Pp]ermission ?[Dd]enied|refused|CalledProcess|cross-device|No such file"


def attempts_module() -> str:
    functions = [f"def try_{i}(path, out):\n    {body}\n" for i, body in enumerate(ATTEMPTS.values())]
    return (
        "\n".join(functions)
        + """
import json, os, re

def go(path, given, output_path, isolation):
    told = {"isolation": isolation, "given": open(given).read()}
    for name, function in zip(NAMES, FUNCTIONS):
        try:
            told[name] = "opened: " + repr(function(path, os.path.dirname(output_path)))[:80]
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            told[name] = "refused" if re.search(REFUSALS, words) else words
    with open(output_path, "w") as file:
        json.dump(told, file)

"""
        + f"NAMES, REFUSALS = {list(ATTEMPTS)}, {REFUSALS!r}\n"
        + f"FUNCTIONS = [{', '.join(f'try_{i}' for i in range(len(ATTEMPTS)))}]\n"
    )


@needs_landlock
def test_a_fork_is_one_and_cannot_get_another(sandbox: Sandbox, request: pytest.FixtureRequest, server: str) -> None:
    sandbox.given.write_text(server)
    sandbox.write("""
import json, os, socket, sys, tempfile

def asks(name, folder, how):
    wanted = {
        "prefix": sys.prefix, "function": "os:getpid", "arguments": [], "imports": [], "folder": "/", "environment": {},
        "path": None, "group": None, "ignored": [], "title": "",
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect("\\0" + name)
        descriptor, message = os.open(folder, how), os.memfd_create("request")
        os.write(message, json.dumps(wanted).encode())
        socket.send_fds(connection, [b"."], [0, 1, 2, descriptor, message])
        return connection.recv(32).decode()

def go(path, given, output_path, isolation):
    with open(f"/proc/{os.getppid()}/cmdline") as file:
        told = ["forkserver" in file.read(), "ONESHUI_FORKSERVER" in os.environ, os.getsid(0) == os.getpid()]
    told += [tempfile.gettempdir() == os.path.dirname(output_path)]
    name, folder = open(given).read().split(":")
    told += [asks(name, folder, os.O_PATH)]
    try:
        told += [asks(name, folder, os.O_RDONLY)]
    except PermissionError:
        told += ["refused"]
    with open(output_path, "w") as file:
        json.dump(told, file)
""")
    sandbox.run()
    forked = "in a fork" in request.node.name
    assert sandbox.answer() == [forked, False, True, True, "", "refused"]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_libraries_have_the_threads_of_the_job(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, threads)
    sandbox.write("""
import json, numpy, threadpoolctl
def go(path, given, output_path, isolation):
    with open(output_path, "w") as file:
        json.dump(sorted({each["num_threads"] for each in threadpoolctl.threadpool_info()}), file)
""")
    sandbox.run()
    assert sandbox.answer() == [int(threads)]


@needs_landlock
def test_the_kernel_refuses_every_way_to_read_an_image(sandbox: Sandbox) -> None:
    sandbox.write(attempts_module())
    sandbox.run(withheld=[sandbox.secret, sandbox.folder / "data"])
    answer = sandbox.answer()
    assert answer.pop("isolation") == LANDLOCK
    assert answer.pop("given") == "a photo"
    assert answer == dict.fromkeys(ATTEMPTS, "refused")
    assert sandbox.secret.read_bytes() == b"a face of somebody"


def test_every_attempt_succeeds_without_isolation(sandbox: Sandbox) -> None:
    """Else the test above would show nothing."""
    sandbox.write(attempts_module())
    call = "import sys, guest; guest.go(*sys.argv[1:], isolation='none')"
    arguments = [str(sandbox.secret), str(sandbox.given), str(sandbox.output)]
    subprocess.run([sys.executable, "-c", call, *arguments], check=True, capture_output=True)
    answer = sandbox.answer()
    assert "refused" not in answer.values()


def test_without_landlock_an_audit_hook_refuses_what_python_opens(sandbox: Sandbox) -> None:
    sandbox.write(attempts_module())
    call = f"""
import sys
from oneshui import isolation
isolation.landlock_version = lambda: 0
path, given, output = sys.argv[1:]
held = isolation.restrict([given, {str(sandbox.folder / "code")!r}], {str(sandbox.folder / "out")!r}, [path])
import guest
guest.go(path, given, output, held)
"""
    arguments = [str(sandbox.secret), str(sandbox.given), str(sandbox.output)]
    done = subprocess.run([sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = sandbox.answer()
    assert answer["isolation"] == AUDIT_HOOK
    assert answer["given"] == "a photo"
    assert {name: answer[name] for name in PYTHON_ONLY} == dict.fromkeys(PYTHON_ONLY, "refused")


def test_torch_computes_and_files_are_written_in_isolation(sandbox: Sandbox) -> None:
    sandbox.write("""
def go(path, given, output_path, isolation):
    import json, tempfile, torch, timm
    value = float(torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 3, 3)).sum())
    with tempfile.TemporaryFile() as file:
        file.write(b"scratch")
    json.dump({"value": value, "temporary": tempfile.gettempdir()}, open(output_path, "w"))
""")
    sandbox.run()
    answer = sandbox.answer()
    assert answer["value"] == 36 * 27
    assert answer["temporary"].startswith(str(sandbox.folder / "out"))
    assert [path.name for path in (sandbox.folder / "out").iterdir()] == ["answer.json"]  # scratch files are gone


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_computes_in_isolation(sandbox: Sandbox) -> None:
    sandbox.write("""
def go(path, given, output_path, isolation):
    import json, torch
    layer = torch.nn.Conv2d(3, 4, 3).cuda()
    layer(torch.ones(2, 3, 8, 8, device="cuda")).sum().backward()
    value = float(torch.linalg.eigh(torch.eye(5, device="cuda", dtype=torch.float64))[0].sum())
    json.dump({"value": value, "gradient": layer.weight.grad.isfinite().all().item()}, open(output_path, "w"))
""")
    sandbox.run()
    assert sandbox.answer() == {"value": 5.0, "gradient": True}


def test_only_the_output_folder_can_be_written_to(sandbox: Sandbox) -> None:
    sandbox.write("""
def go(path, given, output_path, isolation):
    import os
    beside = os.path.dirname(os.path.dirname(output_path)) + "/ssd.safetensors"
    for target in (given, path, path + ".new", "/tmp/oneshui-test-escape", "/dev/shm/oneshui-test-escape", beside):
        try:
            open(target, "w")
        except PermissionError:
            continue
        raise RuntimeError(f"{target} was opened for writing")
    try:
        open(beside)
    except PermissionError:
        open(output_path, "w")
""")
    other = sandbox.folder / "out/ssd.safetensors"
    other.write_text("the model of another method")
    sandbox.run()
    assert other.read_text() == "the model of another method"
    assert sandbox.given.read_text() == "a photo"


def test_data_inside_the_environment_is_noticed(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.write("def go(**_):\n    raise RuntimeError('must not run')\n")
    inside = Path(sys.prefix) / "lib"
    with pytest.raises(IsolationError, match=f"{inside} could be opened .* although it must not"):
        sandbox.run(withheld=[inside])


def test_an_error_of_the_function_is_raised_again_and_its_log_is_passed_on(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.write("""
from oneshui.errors import DataError
from oneshui.log import logger

def go(**_):
    logger.warning("half way")
    raise DataError("row 3: no face")
""")
    caplog.set_level(logging.INFO, logger="oneshui")
    with pytest.raises(DataError, match="row 3: no face"):
        sandbox.run()
    assert ("oneshui", logging.WARNING, "half way") in caplog.record_tuples


def test_a_process_that_dies_is_an_error(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.write("import os\n\ndef go(**_):\n    os._exit(0)\n")
    sandbox.output.write_text("of an earlier run")
    with pytest.raises(IsolationError, match=r"ended without writing answer\.json"):
        sandbox.run()
    assert sandbox.output.read_text() == "of an earlier run"
    sandbox.write("import os\n\ndef go(**_):\n    os._exit(7)\n")
    with pytest.raises(IsolationError, match="exit status 7"):
        sandbox.run()
    sandbox.write("def go(**_):\n    1 / 0\n")
    caplog.set_level(logging.INFO, logger="oneshui")
    with pytest.raises(IsolationError, match="exit status 1"):
        sandbox.run()
    assert "ZeroDivisionError" in caplog.text


def test_a_module_is_not_run_before_the_restriction(sandbox: Sandbox) -> None:
    sandbox.write(f"""
try:
    TOLD = open({str(sandbox.secret)!r}).read()
except PermissionError:
    TOLD = "refused"

def go(path, given, output_path, isolation):
    open(output_path, "w").write('"' + TOLD + '"')
""")
    sandbox.run()
    assert sandbox.answer() == "refused"


def test_code_on_the_path_of_the_user_does_not_run_before_the_restriction(sandbox: Sandbox) -> None:
    sandbox.write(
        "def go(path, given, output_path, isolation):\n    open(output_path, 'w').write('\"' + isolation + '\"')\n"
    )
    for name in ("sitecustomize", "landlock", "json"):
        sandbox.write(f"raise SystemExit('{name} of the user was imported')\n", name)
    sandbox.run()
    assert sandbox.answer() == (LANDLOCK if landlock_version() else AUDIT_HOOK)


def test_a_helper_module_beside_the_module_can_be_imported(sandbox: Sandbox) -> None:
    sandbox.write("VALUE = 7\n", "helping")
    sandbox.write("""
def go(path, given, output_path, isolation):
    import helping
    open(output_path, "w").write(str(helping.VALUE))
""")
    sandbox.run()
    assert sandbox.answer() == 7


def test_data_below_the_folder_of_the_users_module_stays_closed(sandbox: Sandbox) -> None:
    """As when the module lies where the workflow runs."""
    below = sandbox.folder / "code/results/data"
    below.mkdir(parents=True)
    (below / "images.npy").write_bytes(b"faces")
    sandbox.write("""
import os

def go(path, given, output_path, isolation):
    for attempt in (os.listdir, open):
        try:
            attempt(os.path.dirname(__file__) + "/results/data")
        except PermissionError:
            continue
        raise RuntimeError("opened")
    open(output_path, "w").write("0")
""")
    sandbox.run(withheld=[below, below / "images.npy"])
    assert sandbox.answer() == 0


def test_a_link_out_of_the_withheld_folder_is_noticed(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.write("def go(**_):\n    raise RuntimeError('must not run')\n")
    inside = Path(sys.prefix) / "lib"
    (tmp_path / "data/faces").symlink_to(inside)
    with pytest.raises(IsolationError, match="could be opened"):
        sandbox.run(withheld=[tmp_path / "data"])


def test_a_subclass_of_our_errors_is_raised_as_its_base_and_odd_output_is_taken(sandbox: Sandbox) -> None:
    sandbox.write("""
import sys
from oneshui.errors import ArtefactError

class Mine(ArtefactError):
    pass

def go(**_):
    sys.stdout.buffer.write(bytes([255, 10]) * 100_000)
    raise Mine("too small")
""")
    with pytest.raises(ArtefactError, match="too small"):
        sandbox.run()


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and not yet collected, within ten seconds."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_programs_that_the_function_leaves_behind_end_with_it(sandbox: Sandbox) -> None:
    sandbox.write("""
import subprocess

def go(path, given, output_path, isolation):
    left = subprocess.Popen(["sleep", "600"])
    open(output_path, "w").write(str(left.pid))
""")
    sandbox.run()
    assert ended(sandbox.answer())


def test_the_process_ends_with_the_one_that_started_it(sandbox: Sandbox) -> None:
    sandbox.write("""
import os, time

def go(path, given, output_path, isolation):
    print(f"child {os.getpid()}", flush=True)
    time.sleep(600)
""")
    call = f"""
import logging, sys
from oneshui.isolation import run_isolated
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
run_isolated("guest:go", dict(path="", given=""), readable=[], output={str(sandbox.output)!r}, modules=["guest"])
"""
    with subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = next(int(line.split("child ")[1]) for line in parent.stdout if "child " in line)
        assert psutil.pid_exists(child)
        parent.kill()
        parent.wait()
    assert ended(child)


def test_a_module_that_does_not_exist_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="there is no module 'guest'"):
        sandbox.run()


def test_a_folder_of_files_comes_back_and_one_with_a_link_does_not(sandbox: Sandbox) -> None:
    """A link would have the parent open what the process could not."""
    sandbox.write("""
import os

def go(path, given, output_path, isolation):
    os.mkdir(output_path)
    for name in ("a", "b"):
        open(os.path.join(output_path, name), "w").write(name)

def link(path, given, output_path, isolation):
    go(path, given, output_path, isolation)
    os.symlink(path, os.path.join(output_path, "c"))
""")
    sandbox.run()
    assert {path.name: path.read_text() for path in sandbox.output.iterdir()} == {"a": "a", "b": "b"}
    sandbox.output = sandbox.folder / "out/other"
    with pytest.raises(IsolationError, match="without writing other"):
        sandbox.run("guest:link")
    assert not sandbox.output.exists() and not list(sandbox.output.parent.glob(".*"))
