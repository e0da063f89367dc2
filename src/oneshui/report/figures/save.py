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
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}(?=[;\"\s])")


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
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :].replace("'DejaVu Sans'", "'DejaVu Sans', Verdana")
    text = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", text)  # of a pixel
    colours = sorted({"#000000"} | {found.lower() for found in _COLOUR.findall(text)})
    text = _COLOUR.sub(lambda found: f"var(--c{found[0][1:].lower()})", text)
    light, night = (";".join(f"--c{colour[1:]}:{of(colour)}" for colour in colours) for of in (str, dark))
    # text that is black has no colour of its own
    style = (
        f"<style>svg{{{light}}}text{{fill:var(--c000000)}}@media (prefers-color-scheme:dark){{svg{{{night}}}}}</style>"
    )
    return re.sub(r"<defs>\s*<style[^>]*>", lambda found: f"{style}{found[0]}", text, count=1)


def image_of(figure: Figure) -> str:
    """Return a figure as a ``data:`` address for an image of the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg_of(figure).encode()).decode()}"
