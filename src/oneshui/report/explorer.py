"""The identity explorer: one dot per identity, drawn by Vega-Lite in the reader's browser from numbers in the page.

An identity is a number; nothing here has a name or a face. Without JavaScript the tables of correlations say the same
in numbers.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import pandas as pd
import vl_convert

from oneshui.metrics.identities import spearman
from oneshui.report.columns import MISSING
from oneshui.report.identities import Setting, correlation_text
from oneshui.report.style import MEASURE_NAMES, colours_of, dark, setting_name
from oneshui.report.write import Cell, Grid

#: dots of each set in the whole page; beyond that every k-th is drawn, so that the page stays small
_MOST_DOTS = 8000
#: set of identities -> what its difference is called
SETS = {"forget": "Forget gap", "retain": "Retain harm"}
#: short names of the columns of dots, as explorer.json uses them
_COLUMNS = {"setting": "b", "set": "w", "method": "m", "seed": "s", "identity": "i", "measure": "k", "n_images": "c",
            "distance": "x", "value": "y", "model": "v"}  # fmt: skip


def settings_in(points: pd.DataFrame, settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that have dots: those of ``settings`` in their order, then others."""
    found = dict.fromkeys(zip(points["dataset"], points["n"].astype(int), strict=True))
    return [setting for setting in dict.fromkeys([*settings, *found]) if setting in found]


def chart(
    points: pd.DataFrame,
    *,
    settings: Sequence[Setting],
    labels: Mapping[str, str],
    kinds: Mapping[str, str] | None = None,
) -> tuple[str, int]:
    """Return the chart's specification with its numbers as JSON for a ``script`` element, and how many dots it lacks.

    Args:
        points: what ``oneshui.report.identities.identity_points`` returned.
        settings: those that a reader can choose.
        labels: of the methods in ``points``, in order.
        kinds: of the methods, for their colours.
    """
    methods, measures = list(labels), list(dict.fromkeys(points["measure"]))
    dots = pd.concat([_thinned(points[points["set"] == name]) for name in SETS])
    dots["setting"] = [settings.index((dataset, int(n))) for dataset, n in zip(dots["dataset"], dots["n"], strict=True)]
    dots["method"] = dots["method"].map(methods.index)
    dots["measure"] = dots["measure"].map(measures.index)
    dots["set"] = dots["set"].map(list(SETS).index)
    dots[["value", "model"]] = dots[["value", "model"]].round(1)
    # 4 digits: what the text of a dot shows, and one more
    dots["distance"] = [float(f"{value:.4g}") for value in dots["distance"]]
    spec = json.loads(resources.files("oneshui.report").joinpath("explorer.json").read_text(encoding="utf-8"))
    colours = colours_of(methods, kinds, repeat=True)
    values = {"labels": list(labels.values()), "measures": [_measure(name) for name in measures]}
    options = {
        "setting": [setting_name(*setting) for setting in settings],
        "set": list(SETS.values()),
        "method": ["all methods", *labels.values()],
    }
    for param in spec["params"]:
        name = param["name"]
        if name in values:
            param["value"] = values[name]
        if name in options:
            first = -1 if name == "method" else 0
            param["bind"] |= {"labels": options[name], "options": list(range(first, first + len(options[name])))}
    content = {
        "spec": spec,
        "labels": values["labels"],
        "colours": {"light": list(colours.values()), "dark": [dark(colour) for colour in colours.values()]},
        "columns": list(_COLUMNS.values()),
        "rows": dots[list(_COLUMNS)].to_numpy(dtype=object).tolist(),
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c"), len(points) - len(dots)


def _thinned(points: pd.DataFrame) -> pd.DataFrame:
    """Return every k-th dot of a set, by order of distance, so that all fit into the page."""
    step = max(1, math.ceil(len(points) / _MOST_DOTS))
    return points.sort_values(["method", "seed", "distance", "identity"]).iloc[::step].copy()


def _measure(name: str) -> str:
    return MEASURE_NAMES.get(name, name.replace("_", " "))


@cache
def bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that loads nothing (0.9 MB, BSD licence)."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


def absent(own: pd.DataFrame, labels: Mapping[str, str], seeds: Sequence[int]) -> list[str]:
    """Return the methods and seeds of a setting that have no identities."""
    found = set(zip(own["method"], own["seed"].astype(int), strict=True))
    gone = [f"{label}, seed {seed}" for name, label in labels.items() for seed in seeds if (name, seed) not in found]
    return [f"Missing (no file, or the model diverged): {'; '.join(gone)}."] if gone else []


def correlations(own: pd.DataFrame, labels: Mapping[str, str]) -> Grid:
    """Return who is hard to forget and who is harmed in a setting, in numbers."""
    head = [Cell("Method")]
    for title in SETS.values():
        head += [Cell(f"{title}: identities"), Cell("mean, points"), Cell("rank correlation with distance")]
    rows = [head]
    for method, label in labels.items():
        line = [Cell(label)]
        for which in SETS:
            part = own[(own["method"] == method) & (own["set"] == which)]
            if part.empty:
                line += [Cell(MISSING)] * 3
                continue
            count, seeds = part["identity"].nunique(), part["seed"].nunique()
            line.append(Cell(f"{count} in {seeds} {'seed' if seeds == 1 else 'seeds'}"))
            line += [Cell(f"{part['value'].mean():+z.1f}"), Cell(correlation_text(spearman(part)))]
        rows.append(line)
    return rows
