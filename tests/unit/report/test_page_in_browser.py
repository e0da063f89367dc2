"""The report in a real browser: it asks nobody for anything, and its script runs without an error."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
