"""Parts of the page's charts, as SVG: axes, intervals, bars, signs of a legend, and colours that can be seen.

They are placed in percent of the width, so that they stretch with the page while text and dots keep their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oneshui.errors import ConfigError
from oneshui.report.page_html import Markup, join, tag
from oneshui.report.style import COLOURS, colours_of

#: backgrounds of page.css, and the contrast that a line or dot needs before them (WCAG 2.2, 1.4.11)
_PAPERS = {"light": "#ffffff", "dark": "#14171b"}
_CONTRAST = 3.0


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high``."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], margin: float = 0.05) -> "Scale":
        """Return an axis with room for all values, 0 or not."""
        low, high = min(values), max(values)
        room = margin * (high - low) or 1.0
        return cls(low - room, high + room)

    @classmethod
    def around(cls, values: Sequence[float], margin: float = 0.05) -> "Scale":
        """Return an axis with room for all finite values and 0."""
        return cls.over([0.0, *(value for value in values if math.isfinite(value))], margin)

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        return (value - self.low) / (self.high - self.low)

    def percent(self, value: float) -> str:
        """Return where a value lies in percent of the axis."""
        return f"{100 * self.share(value):.2f}%"

    def ticks(self, most: int) -> list[float]:
        """Return at most ``most`` round numbers that lie on the axis at equal steps."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        while (self.high - self.low) / step > most:
            # 1, 2, 5, 10, 20, ...
            step *= 2.5 if f"{step:.0e}".startswith("2") else 2.0
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def tick_text(value: float) -> str:
    """Return a tick's number as short as it can be, with a minus sign."""
    return f"{round(value, 10) + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def interval_axis(scale: Scale) -> Markup:
    """Return the numbers above a column of intervals."""
    ticks = scale.ticks(3)  # as many as a telephone has room for
    texts = [tag("text", tick_text(value), x=scale.percent(value), y=14, text_anchor="middle") for value in ticks]
    return tag("svg", *texts, class_="axis", height=18, aria_hidden="true")


def interval(scale: Scale, mean: float, half_width: float, *, reference: float, clear: bool) -> Markup:
    """Return a dot with its interval; the dot is full if ``clear``, and ``reference`` is a dashed line if not NaN."""
    middle = "50%"
    parts = [_upright(scale.percent(0.0), "zero")]
    if math.isfinite(reference):
        parts.append(_upright(scale.percent(reference), "reference"))
    if math.isfinite(half_width):
        ends = (scale.percent(mean - half_width), scale.percent(mean + half_width))
        parts.append(tag("line", x1=ends[0], x2=ends[1], y1=middle, y2=middle, class_="whisker"))
    if math.isfinite(mean):
        parts.append(tag("circle", cx=scale.percent(mean), cy=middle, r=4.5, class_="clear" if clear else "open"))
    return tag("svg", *parts, class_="interval", aria_hidden="true")


def _upright(x: str, kind: str) -> Markup:
    return tag("line", x1=x, x2=x, y1="0", y2="100%", class_=kind)


def bar(value: float, most: float) -> Markup:
    """Return a bar whose length is ``value`` where ``most`` is the full width."""
    width = 100 * value / most if most > 0 else 0.0
    return tag("svg", tag("rect", width=f"{width:.2f}%", height="100%"), class_="bar", aria_hidden="true")


def swatch(colour: str, dashes: str | None = None) -> Markup:
    """Return a short line for a legend."""
    line = tag("line", x1=0, x2=24, y1=5, y2=5, stroke=colour, stroke_width=2, stroke_dasharray=dashes)
    return tag("svg", line, width=24, height=10, class_="swatch", aria_hidden="true")


def legend(entries: Sequence[tuple[Markup, str]]) -> Markup:
    """Return a list of signs and what they mean."""
    return tag("ul", *(tag("li", sign, " ", text) for sign, text in entries), class_="legend")


def dot(colour: str) -> Markup:
    """Return a dot for a legend."""
    circle = tag("circle", cx=6, cy=6, r=4.5, fill=colour)
    return tag("svg", circle, width=12, height=12, class_="swatch", aria_hidden="true")


def scatter_axis(scale: Scale, *, upright: bool, height: int, name: str) -> Markup:
    """Return the numbers beside (``upright``) or below a scatter plot, and what they count."""
    ticks = scale.ticks(6 if upright else 8)
    if upright:
        places = [(1 - scale.share(value)) * height for value in ticks]
        texts = [
            tag("text", tick_text(value), x="100%", dx=-6, y=place + 4, text_anchor="end")
            for value, place in zip(ticks, places, strict=True)
        ]
        return tag("svg", *texts, class_="upright axis", height=height, aria_hidden="true")
    texts = [tag("text", tick_text(value), x=scale.percent(value), y=14, text_anchor="middle") for value in ticks]
    texts.append(tag("text", name, x="50%", y=34, text_anchor="middle"))
    return tag("svg", *texts, class_="level axis", height=40, aria_hidden="true")


def scatter_grid(x: Scale, y: Scale, height: int) -> Markup:
    """Return the lines behind a scatter plot: one for each tick, a stronger one at 0."""
    lines = []
    for value in y.ticks(6):
        place, kind = (1 - y.share(value)) * height, "grid" if abs(value) > 1e-9 else "zero"
        lines.append(tag("line", x1="0", x2="100%", y1=place, y2=place, class_=f"level {kind}"))
    for value in x.ticks(8):
        lines.append(tag("line", x1=x.percent(value), x2=x.percent(value), y1="0", y2="100%", class_="grid"))
    return join(lines)


def method_colours(methods: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return a CSS variable for each method, and the style that sets them.

    They are the colours of the figures, made darker or lighter only as far as contrast needs. Methods beyond the spare
    colours share grey.
    """
    names = list(dict.fromkeys(methods))
    others = [name for name in names if name not in COLOURS]
    chosen: dict[str, str] = {}
    for count in range(len(others), -1, -1):
        try:
            chosen = colours_of([*(name for name in names if name in COLOURS), *others[:count]])
            break
        except ConfigError:
            continue
    rules = []
    for paper in _PAPERS.values():
        pairs = [f"--m{i}:{_legible(chosen.get(name, '#777777'), paper)}" for i, name in enumerate(names)]
        rules.append(f":root{{{';'.join(pairs)}}}")
    style = f"{rules[0]}\n@media screen and (prefers-color-scheme: dark){{{rules[1]}}}\n"
    return {name: f"var(--m{i})" for i, name in enumerate(names)}, style


def _legible(colour: str, paper: str) -> str:
    """Return a colour, mixed with black or white until it stands out from the paper."""
    background = _luminance(_rgb(paper))
    end = np.array([0.0, 0.0, 0.0] if background > 0.5 else [255.0, 255.0, 255.0])
    for share in np.linspace(0, 1, 41):
        mixed = np.rint((1 - share) * _rgb(colour) + share * end)
        light, dark = sorted((_luminance(mixed), background), reverse=True)
        if (light + 0.05) / (dark + 0.05) >= _CONTRAST:
            break
    return "#" + "".join(f"{int(part):02x}" for part in mixed)


def _rgb(colour: str) -> npt.NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def _luminance(rgb: npt.NDArray[np.float64]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = rgb / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
