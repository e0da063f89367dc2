"""ROC curves for the page, both axes logarithmic: one small panel per model, drawn as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from oneshui.paths import origin_and_method
from oneshui.report.cells import MISSING, blocks_of
from oneshui.report.page_charts import legend, swatch
from oneshui.report.page_html import Markup, join, px, tag
from oneshui.report.style import block_name

#: of a panel of ROC curves, px: size, then the margins that hold the axes
_WIDTH, _HEIGHT = 252, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 18, 8, 38
#: rows that every panel of ROC curves shows for comparison, and their dashes
COMPARED = {"pretrain": "7 3", "retrain": "2 2.5"}


def roc_section(
    curves: pd.DataFrame, rows: Sequence[str], *, resolvable: Mapping[tuple[str, int], float],
    labels: Mapping[str, str], colours: Mapping[str, str],
) -> Markup:  # fmt: skip
    """Return the curves of a figure: a panel per model and block, with those of the compared models in each.

    Args:
        curves: columns dataset, n, row, fpr, tpr, low, high; fractions; steps, sorted by fpr.
        rows: models in the order of their panels; one that has no curve gets a panel that says so.
        resolvable: smallest false positive rate that the test images of a block resolve, where it is known.
        labels: how methods are written.
        colours: of methods, as CSS.
    """
    signs = [(swatch(colours[row], dashes), labels[row]) for row, dashes in COMPARED.items()]
    signs.append((swatch("currentColor"), "the panel's model, in its colour, with its 95% band"))
    note = "Both axes are logarithmic: privacy is decided at the left. Grey: finer than the test images can tell."
    parts = [legend(signs), tag("p", note)]
    wanted = dict.fromkeys(row for row in [*rows, *curves["row"].astype(str)] if row not in COMPARED)
    for block, own in blocks_of(curves):
        found = {str(row): part for row, part in own.groupby("row", sort=False)}
        axes = RocAxes(resolvable.get(block) or _smallest(own["fpr"]), _smallest(own["tpr"]))
        panels = []
        for row in wanted or ["pretrain"]:
            method = origin_and_method(row)[1]
            words = f"ROC curve of the attack on {labels[method]}, {block_name(*block)}; numbers are in the table"
            panel = _panel(found, row, {**colours, row: colours[method]}, axes, label=words)
            panels.append(tag("figure", tag("figcaption", tag("strong", labels[method])), panel))
        parts += [tag("h4", block_name(*block)), tag("div", *panels, class_="panels")]
    return join(parts)


def _smallest(rates: "pd.Series[float]") -> float:
    """Return the smallest rate above 0, or 1% if there is none."""
    above = rates[rates > 0]
    return float(above.min()) if len(above) else 0.01


@dataclass(frozen=True)
class RocAxes:
    """The logarithmic axes that the panels of a block share.

    Attributes:
        resolvable: smallest false positive rate that the test images resolve; the axis begins at half of it.
        smallest: smallest true positive rate above 0; likewise.
    """

    resolvable: float
    smallest: float

    def x(self, rate: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
        return _place(np.asarray(rate), self.resolvable / 2, _LEFT, _WIDTH - _RIGHT)

    def y(self, rate: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
        return _place(np.asarray(rate), self.smallest / 2, _HEIGHT - _BOTTOM, _TOP)

    def grid(self) -> npt.NDArray[np.float64]:
        """Return false positive rates half a pixel apart: finer steps cannot be seen, and would fill the page."""
        count = 2 * (_WIDTH - _RIGHT - _LEFT) + 1
        return np.geomspace(self.resolvable / 2, 1.0, count)


def _place(rates: npt.NDArray[np.float64], low: float, start: float, end: float) -> npt.NDArray[np.float64]:
    placed: npt.NDArray[np.float64] = start + (end - start) * (np.log(np.maximum(rates, low) / low) / -math.log(low))
    return placed


def _panel(
    curves: Mapping[str, pd.DataFrame], row: str, colours: Mapping[str, str], axes: RocAxes, *, label: str
) -> Markup:
    """Return one panel: the curve of ``row`` with its band, and those of the compared rows."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    edge = float(axes.x(axes.resolvable))
    parts = [tag("rect", x=_LEFT, y=_TOP, width=edge - _LEFT, height=bottom - _TOP, class_="blind")]
    parts += [*_ticks(axes), tag("path", d=_diagonal(axes), class_="guess")]
    for name, dashes in COMPARED.items():
        if name in curves and name != row:
            line = _steps(curves[name], "tpr", axes)
            parts.append(tag("path", d=_path(line), stroke=colours[name], stroke_dasharray=dashes, class_="curve"))
    own = curves.get(row)
    if own is None:
        parts.append(tag("text", MISSING, x=(_LEFT + right) / 2, y=(_TOP + bottom) / 2, text_anchor="middle"))
    else:
        upper, lower = _steps(own, "high", axes), _steps(own, "low", axes)
        outline = f"{_path(upper)}L{_path(lower[::-1])[1:]}Z"
        parts.append(tag("path", d=outline, fill=colours[row], class_="band"))
        parts.append(tag("path", d=_path(_steps(own, "tpr", axes)), stroke=colours[row], class_="curve own"))
    middle = (_TOP + bottom) / 2
    turned = f"rotate(-90 10 {px(middle)})"
    parts.append(tag("text", "false positive rate", x=(_LEFT + right) / 2, y=_HEIGHT - 4, text_anchor="middle"))
    parts.append(tag("text", "true positive rate", x=10, y=middle, text_anchor="middle", transform=turned))
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="roc", role="img", aria_label=label)


def _ticks(axes: RocAxes) -> list[Markup]:
    """Return the powers of ten on both axes, with lines through the panel."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for power in _powers(axes.resolvable / 2):
        at = float(axes.x(10.0**power))
        parts.append(tag("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(tag("text", _power_text(power), x=at, y=bottom + 14, text_anchor="middle"))
    for power in _powers(axes.smallest / 2):
        at = float(axes.y(10.0**power))
        parts.append(tag("line", x1=_LEFT, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", _power_text(power), x=_LEFT - 4, y=at + 3.5, text_anchor="end"))
    return parts


def _powers(low: float) -> list[int]:
    """Return the exponents of at most five powers of ten from ``low`` to 1."""
    powers = list(range(math.ceil(math.log10(low)), 1))
    return powers[:: -max(1, math.ceil(len(powers) / 5))]


def _power_text(power: int) -> str:
    return f"{100 * 10.0**power:g}%"


def _diagonal(axes: RocAxes) -> str:
    low = max(axes.resolvable, axes.smallest) / 2
    return f"M{px(float(axes.x(low)))} {px(float(axes.y(low)))}L{px(float(axes.x(1)))} {px(float(axes.y(1)))}"


def _steps(curve: pd.DataFrame, column: str, axes: RocAxes) -> list[tuple[float, float]]:
    """Return the corners of a step curve, from left to right, at the resolution of the axis."""
    rates, values = curve["fpr"].to_numpy(np.float64), curve[column].to_numpy(np.float64)
    grid = axes.grid()
    # at each place the value of the last step at or before it; no step yet: nothing is found
    last = np.searchsorted(rates, grid, side="right") - 1
    heights = np.where(last >= 0, values[np.maximum(last, 0)], 0.0)
    x, y = axes.x(grid).round(1), axes.y(heights).round(1)
    corners = [(float(x[0]), float(y[0]))]
    for i in np.flatnonzero(np.diff(y)) + 1:
        corners += [(float(x[i]), corners[-1][1]), (float(x[i]), float(y[i]))]
    return [*corners, (float(x[-1]), float(y[-1]))]


def _path(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px(x)} {px(y)}" for x, y in corners)
