"""Feed the readers with whatever a coverage-guided fuzzer makes of whole files.

    python -m tests.fuzz --seconds 600            # all targets, one after the other
    python -m tests.fuzz --target index --seconds 60

Whatever bytes arrive, a reader gives a value or raises oneshui's error, within 10 seconds of CPU time and 2.5 GB.
Anything else ends the target, and what the fuzzer said of it is printed.
"""

import argparse
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import atheris
import numpy as np  # before the code that is watched, which is ours and Pillow's
import pandas as pd
import pyarrow.parquet as pq
import timm
import torch

with atheris.instrument_imports(include=["oneshui", "PIL", "yaml", "numpy.lib.format"]):
    from oneshui.data.pictures import quiet
    from oneshui.errors import OneShuiError
    from tests.readers import READERS, png, split_header, with_header

_WATCHED = (np, pd, pq, timm, torch)
_KEY = b"oneshui"
_SECONDS = 10
#: read by the same code as others
_SAME = ("header", "features", "metrics", "attack", "identities")


@cache
def _table(kind: str) -> Any:
    return pq.read_table(io.BytesIO(READERS[kind].whole()))


def _with_meta(kind: str, meta: bytes) -> bytes:
    file = io.BytesIO()
    pq.write_table(_table(kind).replace_schema_metadata({_KEY: meta}), file)
    return file.getvalue()


@cache
def targets() -> dict[str, tuple[str, bytes, Callable[[bytes], bytes]]]:
    """Name -> kind of reader, an input to begin with, and the file that an input stands for."""
    found: dict[str, tuple[str, bytes, Callable[[bytes], bytes]]] = {
        name: (name, reader.whole(), bytes) for name, reader in READERS.items() if name not in _SAME
    }
    for kind in ("model", "artefact", "resume state"):
        header, body = split_header(READERS[kind].whole())
        ours = header["__metadata__"]["oneshui"].encode()

        def file(data: bytes, header: dict = header, body: bytes = body) -> bytes:
            return with_header({**header, "__metadata__": {"oneshui": data.decode("utf-8", "replace")}}, body)

        found[f"{kind}: our header"] = (kind, ours, file)
        if kind != "model":
            continue
        tensors = json.dumps({name: entry for name, entry in header.items() if name != "__metadata__"}).encode()

        def whole(data: bytes, ours: bytes = ours, body: bytes = body) -> bytes:
            return with_header(
                b'{"__metadata__":{"oneshui":' + json.dumps(ours.decode()).encode() + b"}," + data[1:], body
            )

        found[f"{kind}: tensors"] = (kind, tensors, whole)
    for kind in ("index", "request", "scores"):
        found[f"{kind}: metadata"] = (
            kind, bytes(_table(kind).schema.metadata[_KEY]), lambda data, kind=kind: _with_meta(kind, data),
        )  # fmt: skip
    return found


def fuzz(target: str, seconds: int, folder: Path) -> None:
    """Fuzz one target in this process; the fuzzer ends it."""
    kind, first, file_of = targets()[target]
    reader = READERS[kind]
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "whole").write_bytes(first)
    if kind == "picture":
        for number in range(4):
            (corpus / str(number)).write_bytes(png(2 + number, 9, number))
    path = folder / reader.name

    def once(data: bytes) -> None:
        path.write_bytes(file_of(data))
        started = time.process_time()
        try:
            with quiet():
                reader.read(path)
        except OneShuiError as error:
            if not 0 < len(str(error)) < 20_000:
                raise ValueError("the message is empty, or repeats the file") from error
        if time.process_time() - started > _SECONDS:
            raise TimeoutError(f"more than {_SECONDS} s of CPU time")

    once(first)
    options = [
        f"-max_total_time={seconds}", "-timeout=120", "-rss_limit_mb=2500", "-print_final_stats=1",
        f"-artifact_prefix={folder}/", "-print_funcs=0", f"-max_len={max(4096, 2 * len(first))}", "-close_fd_mask=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


def in_a_child(target: str, seconds: int, log: Path) -> int:
    """Fuzz one target in a copy of this process, which has imported everything; return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    with tempfile.TemporaryDirectory() as folder:
        fuzz(target, seconds, Path(folder))
    os._exit(1)  # the fuzzer has ended the process


def main() -> int:
    """Fuzz one target, or all of them, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="in all (default: %(default)s)")
    parser.add_argument("--target", help="only this one")
    args = parser.parse_args()
    names = [args.target] if args.target else list(targets())
    failed, total = [], 0
    print(f"{'target':30} {'inputs':>9} {'seconds':>8} {'coverage':>9}", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            status = in_a_child(name, max(1, args.seconds // len(names)), Path(folder) / "log")
            said = (Path(folder) / "log").read_text(encoding="utf-8", errors="replace")
        runs = int((re.findall(r"number_of_executed_units: (\d+)", said) or re.findall(r"#(\d+)\t", said) or ["0"])[-1])
        cover = (re.findall(r"cov: (\d+)", said) or ["?"])[-1]
        total += runs
        print(f"{name:30} {runs:>9} {time.monotonic() - started:>8.0f} {cover:>9}", flush=True)
        if status:
            failed.append(name)
            print(said[-3000:], flush=True)
    print(f"{total} inputs; failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
