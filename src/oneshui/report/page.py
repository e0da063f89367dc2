"""The report: one page that needs nothing but itself, made from tables, attacks, curves, identities and splits.

``render`` is a pure function of its inputs: same inputs, same bytes. The page's policy forbids its reader's browser to
load anything, and to run or apply any script or style but those that ``render`` puts in (by their hashes): a script in
a title would not run even if it were not escaped.
"""

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from oneshui.report import explorer
from oneshui.report.contents import Inputs, check
from oneshui.report.sections import sections_of


def render(inputs: Inputs) -> str:
    """Return the page as HTML.

    Raises:
        ConfigError: a table is not in the configuration, or that has no seeds.
        DataError: a table lacks columns, or files contradict each other.
    """
    check(inputs)
    sections, content = sections_of(inputs)
    style, script = _resource("page.css"), _resource("page.js")
    library = explorer.bundle() if content else ""
    allowed = " ".join(_hash(text) for text in (library, script)) if content else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'"
    page: str = _template().render(
        policy=f"{policy}; form-action 'none'",
        style=style,
        script=script,
        library=library,
        explorer=content,
        sections=sections,
    )
    return page


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("oneshui.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    return environment.get_template("page.html.j2")


def _signed(text: str) -> str:
    """Return text with true minus signs before numbers, and a dash for no value."""
    return "\N{EN DASH}" if text == "-" else re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)


def _resource(name: str) -> str:
    return resources.files("oneshui.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
