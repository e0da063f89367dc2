"""Run the benchmarks that documents have a part for, and write what they print into it.

    python -m benchmarks                        # all, half an hour on two cores; leave the machine alone
    python -m benchmarks rmia fixed_costs       # some
    python -m benchmarks --list

What a script printed stands between ``<!-- python -m benchmarks.NAME -->`` and ``<!-- end -->``, each on a line of its
own, in docs/benchmarks.md or docs/scaling.md. A script that fails leaves its part as it was.
"""

import argparse
import itertools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "docs/benchmarks.md", ROOT / "docs/scaling.md"]
_MARK = r"^<!-- python -m benchmarks\.(\w+) -->$"
_END = "<!-- end -->"


def names_in(text: str) -> list[str]:
    """Return the benchmarks that a document has a part for, in its order.

    Raises:
        ValueError: a part does not end before the next one begins.
    """
    for before, after in itertools.pairwise([*re.finditer(_MARK, text, re.M), re.search(r"\Z", text)]):
        if before and after and f"\n{_END}" not in text[before.end() : after.start()]:
            raise ValueError(f"the part {before[0]} does not end: add a line {_END}")
    return re.findall(_MARK, text, re.M)


def replaced(text: str, name: str, printed: str) -> str:
    """Return the document with another text in the part of ``name``.

    Raises:
        ValueError: there is no such part, or the text holds a mark itself.
    """
    if name not in names_in(text) or re.search(_MARK, printed, re.M) or _END in printed:
        raise ValueError(f"no part for {name}, or its text holds a mark")
    opening = f"<!-- python -m benchmarks.{name} -->\n"
    start = text.index(opening) + len(opening)
    return f"{text[:start]}{printed.strip()}\n{text[text.index(_END, start) :]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="scripts in benchmarks/ (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--documents", type=Path, nargs="+", default=DOCUMENTS)
    args = parser.parse_args()
    documents = {name: path for path in args.documents for name in names_in(path.read_text())}
    unknown = sorted(set(args.names) - set(documents))
    if unknown:
        parser.error(f"no document has a part for {', '.join(unknown)}; there are {', '.join(documents)}")
    if args.list:
        print("\n".join(documents))
        return 0
    failed = []
    for name in args.names or documents:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        print(done.stdout, flush=True)
        if done.returncode:
            failed.append(name)
            continue
        documents[name].write_text(replaced(documents[name].read_text(), name, done.stdout))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
