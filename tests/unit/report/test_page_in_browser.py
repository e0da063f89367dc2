"""The report in a real browser: it asks nobody for anything, and its script runs without an error."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.unit.report.test_page import config_of, inputs_of, write_inputs

from oneshui.report.page import render

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium here (Debian: apt-get install chromium)"),
]
#: what the browser asks for by itself, whatever it shows
ITS_OWN = ("google.com", "gvt1.com", "update.googleapis.com")


class Seen:
    """What went through a proxy that answers nothing."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    def add(self, path: str) -> None:
        host = urlsplit(path if "//" in path else f"//{path}").hostname or path
        if not any(f".{host}".endswith(f".{own}") for own in ITS_OWN):
            self.hosts.append(host)


@pytest.fixture
def proxy() -> Iterator[tuple[int, Seen]]:
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.add(self.path)
            self.send_error(502)

        do_CONNECT = do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, seen
        server.shutdown()
        thread.join()


def opened(page: str, folder: Path, port: int) -> tuple[str, str]:
    """Return the document after its script ran, and what the browser logged, console included."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={folder / 'profile'}", f"--proxy-server=http://127.0.0.1:{port}",
         "--proxy-bypass-list=<-loopback>", "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom",
         (folder / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


class Tab:
    """A page in Chromium, driven over its debugging pipe: JSON messages that end with a zero byte."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._last = to_browser, from_browser, b"", 0
        self._session: str | None = None
        self.problems: list[str] = []

    def ask(self, method: str, **params: Any) -> Any:
        """Return the answer to a command; what the page logs meanwhile is remembered."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                self._rest += os.read(self._from, 1 << 16)
            line, self._rest = self._rest.split(b"\0", 1)
            found = json.loads(line)
            if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.problems.append(line.decode())
            if found.get("id") == self._last:
                assert "error" not in found, found
                return found["result"]

    def open(self, address: str) -> None:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, wanted: Any) -> None:
        """Wait until an expression has a value."""
        end = time.monotonic() + 20
        while (found := self.value(expression)) != wanted:
            assert time.monotonic() < end, f"{expression} is {found!r}, wanted: {wanted!r}; {self.problems}"
            time.sleep(0.1)

    def press(self, key: str) -> None:
        code = {"Tab": 9, "ArrowRight": 39, "ArrowDown": 40}[key]
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def tab_to(self, name: str) -> None:
        """Press the tab key until an input has the focus."""
        for _ in range(40):
            if self.value("document.activeElement.name") == name:
                return
            self.press("Tab")
        raise AssertionError(f"the tab key never reaches {name}")


@contextmanager
def tab_of(page: str, folder: Path, port: int) -> Iterator[Tab]:
    (folder / "page.html").write_text(page, encoding="utf-8")
    (its_input, to_browser), (from_browser, its_output) = os.pipe(), os.pipe()

    def pass_pipes() -> None:  # the browser reads descriptor 3 and writes 4
        os.dup2(os.dup(its_input), 3)
        os.dup2(its_output, 4)

    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", f"--proxy-server=http://127.0.0.1:{port}",
        "--proxy-bypass-list=<-loopback>", "--window-size=1400,900", "--remote-debugging-pipe", "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=pass_pipes
    ) as process:
        tab = Tab(to_browser, from_browser)
        try:
            tab.open((folder / "page.html").as_uri())
            yield tab
        finally:
            process.kill()
    for each in (its_input, to_browser, from_browser, its_output):
        os.close(each)


DOTS = "document.querySelectorAll('#explorer-chart [aria-roledescription=point]')"


def test_the_explorer_works_by_keyboard_and_mouse_without_a_network(tmp_path: Path, proxy: tuple[int, Seen]) -> None:
    inputs = inputs_of(write_inputs(tmp_path, config_of(blocks=[("mufac", 5)], title="Toys"), people=20))
    forget, retain = 3 * 3 * 5, 3 * 3 * 20  # methods, seeds, people
    with tab_of(render(inputs), tmp_path, proxy[0]) as tab:
        tab.wait(f"{DOTS}.length", forget)
        said = tab.value(f"{DOTS}[0].getAttribute('aria-label')")
        assert "identity" in said and "points (accuracy" in said and "retrained model" in said
        tab.tab_to("set")
        tab.press("ArrowRight")
        tab.wait(f"{DOTS}.length", retain)
        assert "original model" in tab.value(f"{DOTS}[0].getAttribute('aria-label')")
        tab.tab_to("method")
        tab.press("ArrowDown")
        tab.wait(f"{DOTS}.length", retain // 3)
        assert tab.value("document.activeElement.selectedOptions[0].textContent") == "SCRUB"
        assert tab.value(f"[...{DOTS}].every((dot) => dot.getAttribute('aria-label').startsWith('SCRUB'))")
        tab.value("document.getElementById('explorer-chart').scrollIntoView({block: 'center'})")
        box = tab.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({DOTS}[0].getBoundingClientRect())"
        )
        tab.ask("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
        tab.wait("document.getElementById('vg-tooltip-element')?.classList.contains('visible') ?? false", True)
        assert tab.value("document.getElementById('vg-tooltip-element').textContent").startswith("SCRUB, identity")
        before = tab.value(f"{DOTS}[0].getAttribute('fill')")
        tab.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        tab.wait(f"{DOTS}.length", forget)  # drawn again, in the colours of the night
        assert (
            before.startswith("#") and tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        )
        images = "[...document.images].every((image) => image.complete && image.naturalWidth > 100)"
        assert tab.value(images)
        assert tab.problems == []
    assert proxy[1].hosts == []


def test_the_report_asks_nobody_and_its_script_runs(tmp_path: Path, proxy: tuple[int, Seen]) -> None:
    config = config_of(blocks=[("mufac", 5)], title="Toys")
    text = render(inputs_of(write_inputs(tmp_path, config, people=20, test_images=150)))
    dom, log = opened(text, tmp_path, proxy[0])
    assert proxy[1].hosts == []
    assert "CONSOLE" not in log
    assert dom.count("<tr") >= text.count("<tr") > 20


def test_a_page_that_asks_or_fails_is_noticed(tmp_path: Path, proxy: tuple[int, Seen]) -> None:
    page = "<img src='http://pictures.example/x.png'><link rel=stylesheet href='https://fonts.example/y'>"
    _, log = opened(f"{page}<script>fetch('https://api.example/z'); throw Error('broken')</script>", tmp_path, proxy[0])
    assert {"pictures.example", "fonts.example", "api.example"} <= set(proxy[1].hosts)
    assert "broken" in log and "CONSOLE" in log
