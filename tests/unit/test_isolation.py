"""What an isolated process can open: in child processes, because the restriction lasts for good."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oneshui.errors import ConfigError, DataError, IsolationError
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
PYTHON_ONLY = ("open", "os", "memory map", "pillow", "subprocess", "shell", "thread", "list", "hard link", "rename")


class Sandbox:
    """A secret, a folder to write to, and a module whose functions run isolated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("data", "out", "code"):
            (folder / name).mkdir()
        self.secret, self.given = folder / "data/face.png", folder / "request.txt"
        self.secret.write_bytes(b"a face of somebody")
        self.given.write_text("a photo")

    def write(self, body: str, name: str = "guest") -> None:
        (self.folder / "code" / f"{name}.py").write_text(body)

    def run(self, function: str = "guest:go", **options: Any) -> None:
        run_isolated(
            function, {"path": str(self.secret), "given": str(self.given), "out": str(self.folder / "out")},
            readable=[self.given], writable=self.folder / "out", modules=["guest"], **options,
        )  # fmt: skip

    def answer(self) -> Any:
        return json.loads((self.folder / "out/answer.json").read_text())


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    old = os.environ.get("PYTHONPATH")
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

def go(path, given, out, isolation):
    told = {"isolation": isolation, "given": open(given).read()}
    for name, function in zip(NAMES, FUNCTIONS):
        try:
            told[name] = "opened: " + repr(function(path, out))[:80]
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            told[name] = "refused" if re.search(REFUSALS, words) else words
    with open(out + "/answer.json", "w") as file:
        json.dump(told, file)

"""
        + f"NAMES, REFUSALS = {list(ATTEMPTS)}, {REFUSALS!r}\n"
        + f"FUNCTIONS = [{', '.join(f'try_{i}' for i in range(len(ATTEMPTS)))}]\n"
    )


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
    arguments = [str(sandbox.secret), str(sandbox.given), str(sandbox.folder / "out")]
    subprocess.run([sys.executable, "-c", call, *arguments], check=True, capture_output=True)
    answer = sandbox.answer()
    assert "refused" not in answer.values()


def test_without_landlock_an_audit_hook_refuses_what_python_opens(sandbox: Sandbox) -> None:
    sandbox.write(attempts_module())
    call = f"""
import sys
from oneshui import isolation
isolation.landlock_version = lambda: 0
path, given, out = sys.argv[1:]
held = isolation.restrict([given, {str(sandbox.folder / "code")!r}], out, [path])
import guest
guest.go(path, given, out, held)
"""
    arguments = [str(sandbox.secret), str(sandbox.given), str(sandbox.folder / "out")]
    done = subprocess.run([sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = sandbox.answer()
    assert answer["isolation"] == AUDIT_HOOK
    assert answer["given"] == "a photo"
    assert {name: answer[name] for name in PYTHON_ONLY} == dict.fromkeys(PYTHON_ONLY, "refused")


def test_torch_computes_and_files_are_written_in_isolation(sandbox: Sandbox) -> None:
    sandbox.write("""
def go(path, given, out, isolation):
    import json, tempfile, torch, timm
    value = float(torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 3, 3)).sum())
    with tempfile.TemporaryFile() as file:
        file.write(b"scratch")
    json.dump({"value": value, "temporary": tempfile.gettempdir()}, open(out + "/answer.json", "w"))
""")
    sandbox.run()
    answer = sandbox.answer()
    assert answer["value"] == 36 * 27
    assert answer["temporary"].startswith(str(sandbox.folder / "out"))
    assert [path.name for path in (sandbox.folder / "out").iterdir()] == ["answer.json"]  # scratch files are gone


def test_only_the_output_folder_can_be_written_to(sandbox: Sandbox) -> None:
    sandbox.write("""
def go(path, given, out, isolation):
    for target in (given, path, path + ".new", "/tmp/oneshui-test-escape"):
        try:
            open(target, "w")
        except PermissionError:
            continue
        raise RuntimeError(f"{target} was opened for writing")
""")
    sandbox.run()
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

def go(path, given, out, isolation):
    open(out + "/answer.json", "w").write('"' + TOLD + '"')
""")
    sandbox.run()
    assert sandbox.answer() == "refused"


def test_a_module_that_does_not_exist_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="there is no module 'guest'"):
        sandbox.run()
