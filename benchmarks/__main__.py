"""Run the benchmarks one after the other and write what they print into docs/benchmarks.md and docs/scaling.md.

    python -m benchmarks                        # all of them, half an hour on two cores; leave the machine alone
    python -m benchmarks rmia fixed_costs       # some
    python -m benchmarks --list

What a script printed stands between ``<!-- python -m benchmarks.NAME -->`` and ``<!-- end -->``. A script that fails
leaves its part as it was.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "docs/benchmarks.md", ROOT / "docs/scaling.md"]
_PART = r"(?s)(<!-- python -m benchmarks\.{name} -->\n).*?(<!-- end -->)"


def names_in(text: str) -> list[str]:
    """Return the benchmarks that a document has a part for, in its order."""
    return re.findall(r"<!-- python -m benchmarks\.(\w+) -->", text)


def replaced(text: str, name: str, printed: str) -> str:
    """Return the document with another text in the part of ``name``."""
    return re.sub(_PART.format(name=name), lambda part: f"{part[1]}{printed.strip()}\n{part[2]}", text)


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
