"""What becomes of a figure: PDF, PNG and CSV on disk, or an image in the page. Same figure, same bytes.

Figures are made without pyplot, so that neither importing nor calling these modules changes matplotlib's global state.
"""

import base64
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from oneshui.files import atomic_path, write_text
from oneshui.report.style import RC, dark

_PNG_DPI = 150
#: for figures in the page: text stays text, ids do not depend on chance, and the paper shows through
_SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "oneshui", "savefig.facecolor": "none"}
#: attributes that hold colours, or places in more digits than a screen has
_ATTRIBUTE = re.compile(r'\s(style|d|x|y|x1|x2|y1|y2)="([^"]*)"')
_COLOUR, _LONG = re.compile(r"#[0-9a-fA-F]{6}"), re.compile(r"\d+\.\d{2,}")


def save_figure(
    figure: Figure,
    points: pd.DataFrame,
    path_pdf: str | Path,
    *,
    path_png: str | Path | None = None,
    path_csv: str | Path | None = None,
) -> None:
    """Write a figure as PDF and PNG and its points as CSV, atomically. No date is in them.

    Args:
        figure: what to draw.
        points: the plotted numbers.
        path_pdf: the PDF; PNG and CSV go beside it unless a path is given.
        path_png: path of the PNG, 150 dpi.
        path_csv: path of the CSV.
    """
    path_pdf = Path(path_pdf)
    with rc_context(RC):
        with atomic_path(path_pdf) as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        with atomic_path(path_png or path_pdf.with_suffix(".png")) as temporary:
            figure.savefig(temporary, format="png", dpi=_PNG_DPI)
    write_text(path_csv or path_pdf.with_suffix(".csv"), points.to_csv(index=False, lineterminator="\n"))


def svg_of(figure: Figure) -> str:
    """Return a figure as SVG that needs nothing else and follows the reader's choice of light or dark."""
    buffer = io.StringIO()
    with rc_context({**RC, **_SVG}):
        figure.savefig(buffer, format="svg", dpi=_PNG_DPI, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    colours = {"#000000"}

    def changed(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name == "style":
            colours.update(each.lower() for each in _COLOUR.findall(value))
            value = _COLOUR.sub(lambda each: f"var(--c{each[0][1:].lower()})", value)
            value = value.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana")
        else:
            value = _LONG.sub(lambda each: f"{float(each[0]):.1f}", value)
        return f' {name}="{value}"'

    # in attributes only: words of a figure are left as they are
    text = _ATTRIBUTE.sub(changed, text[text.index("<svg") :])
    light, night = (";".join(f"--c{each[1:]}:{of(each)}" for each in sorted(colours)) for of in (str, dark))
    # text that is black has no colour of its own
    style = f"svg{{{light}}}text{{fill:var(--c000000)}}@media (prefers-color-scheme:dark){{svg{{{night}}}}}"
    return text.replace("<defs>", f"<style>{style}</style><defs>", 1)


def image_of(figure: Figure) -> str:
    """Return a figure as a ``data:`` address for an image of the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg_of(figure).encode()).decode()}"
