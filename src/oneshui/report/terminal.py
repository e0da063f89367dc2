"""A table's Markdown as text for a terminal: ``python -m oneshui.report.terminal FILE``."""

import re
import sys
import textwrap
from pathlib import Path

_WIDTH = 100
_GAP = "  "


def to_text(markdown: str, width: int = _WIDTH) -> str:
    """Return Markdown with its tables aligned and everything else wrapped, without marks.

    Columns beyond ``width`` characters are left out from the right, and the last line of the table says which.
    """
    lines: list[str] = []
    for block in re.split(r"\n{2,}", markdown.strip()):
        rows = [_cells(line) for line in block.splitlines()] if block.startswith("|") else []
        if rows:
            lines += ["", *_table([rows[0], *rows[2:]], width)]
        elif block.startswith("#"):
            lines += ["", _plain(block.lstrip("# "))]
        else:
            lines += ["", *textwrap.wrap(_plain(block), width)]
    return "\n".join(lines[1:]) + "\n"


def _cells(line: str) -> list[str]:
    return [_plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _plain(text: str) -> str:
    text = re.sub(r" Bold and underlined: [^.]*\.", "", text)  # nothing is, here
    return re.sub(r"</?u>|\*\*", "", text).replace("\\|", "|")


def _table(rows: list[list[str]], width: int) -> list[str]:
    """Return the lines of a table; the first row is its head, which is wrapped to the width of the cells below it."""
    heads, *body = rows
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    widths = [max(size, *map(len, head.split())) for size, head in zip(widths, heads, strict=True)]
    kept = len(widths)
    while kept > 1 and sum(widths[:kept]) + len(_GAP) * (kept - 1) > width:
        kept -= 1
    wrapped = [textwrap.wrap(head, size) for head, size in zip(heads, widths, strict=True)][:kept]
    height = max(map(len, wrapped))
    wrapped = [[""] * (height - len(head)) + head for head in wrapped]
    shown = [[head[i] for head in wrapped] for i in range(height)] + body
    lines = [
        _GAP.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:kept], widths[1:kept])]).rstrip() for row in shown
    ]
    lines.insert(height, "-" * (sum(widths[:kept]) + len(_GAP) * (kept - 1)))
    return lines if kept == len(widths) else [*lines, f"(in the file, too: {', '.join(heads[kept:])})"]


if __name__ == "__main__":
    sys.stdout.write(to_text(Path(sys.argv[1]).read_text(encoding="utf-8")))
