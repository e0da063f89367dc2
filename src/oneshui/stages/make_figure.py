"""From tables, attacks, models or identities to a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneshui.report.figures import draw
from oneshui.report.figures.save import save_figure


def make_figure(
    inputs: Sequence[str | Path],
    output_pdf: str | Path,
    output_png: str | Path,
    output_csv: str | Path,
    *,
    name: str,
    spec: Mapping[str, Any],
    rows: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Write a figure as PDF and PNG, and its points as CSV. Arguments and errors: ``oneshui.report.figures.draw``."""
    figure, points = draw(inputs, name=name, spec=spec, rows=rows, seeds=seeds)
    save_figure(figure, points, output_pdf, path_png=output_png, path_csv=output_csv)
