"""Elements of a page: text is escaped unless it is markup already, so that no title or label can become code."""

import html
import re
from collections.abc import Iterable, Sequence

#: elements that are closed by a slash where they have no content
_EMPTY = {"br", "circle", "input", "line", "path", "rect"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | None


def escape(value: Content) -> Markup:
    """Return a text as HTML; what is markup stays as it is, None is nothing."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(str(value)))


def join(parts: Iterable[Content], between: str = "") -> Markup:
    """Return the parts as HTML, one after the other."""
    return Markup(between.join(map(escape, parts)))


def tag(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: text, which is escaped, or markup.
        attributes: ``class_`` is written class and ``data_set`` data-set; True is an attribute without a value, False
            and None are left out; a float gets one decimal, which is enough for pixels.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
        value = px(value) if isinstance(value, float) else value
        written.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    start = " ".join([name, *written])
    if name in _EMPTY and not content:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{join(content)}</{name}>")


def px(value: float) -> str:
    """Return a length with at most one decimal."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # adding 0 makes a rounded -0 a 0


def signed(text: str) -> str:
    """Return a text with minus signs in place of the hyphens before digits."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)


def table(
    caption: Content,
    head: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    *,
    name: str,
    class_: str | None = None,
) -> Markup:
    """Return a table that scrolls sideways where the page is narrow; the first cell of a row is its header.

    Args:
        caption: what the table shows.
        head: names of the columns.
        rows: cells; as many as ``head``.
        name: id of the caption, once in a page.
        class_: of the table.
    """
    header = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows]
    inner = [tag("caption", caption, id=name), tag("thead", header), tag("tbody", *body)]
    return tag(
        "div", tag("table", *inner, class_=class_), class_="scroll", role="group", tabindex=0, aria_labelledby=name
    )
