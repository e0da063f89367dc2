"""Result tables for LaTeX with booktabs."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.report.attacks import FPRS
from oneshui.report.cells import against_nothing, blocks_of, cell, ranks_of
from oneshui.report.style import MEASURE_NAMES, block_name
from oneshui.report.tables import QUANTITIES


def to_latex(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    r"""Return the table for LaTeX with booktabs; of the methods without access to data, the best by ToW is bold, the
    second best underlined. A privacy table also has AUC and the true positive rate of the paper's attack, and a table
    with published values these and how many of their standard deviations lie between.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned.
        spec: the same specification.
    """
    decimals = int(spec.get("decimals", 1))
    if spec.get("layout") == "tow":
        return _ablation(table, str(spec["title"]), decimals)
    published = bool(table["published_tow"].notna().any())
    heads = ["Method", "Needs data", "Retain", "Forget", "Test", "ToW", "vs.\\ nothing"]
    heads += ["ToW, published"] if published else []
    heads += ["MIA AUC", f"TPR@{100 * FPRS[0]:g}\\%"] if spec["privacy"] else []
    heads += ["Prepare (s)", "Unlearn (s)"]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(str(spec['title']))}. {_note(table, published=published)}}}",
        rf"  \begin{{tabular}}{{lc{'r' * (len(heads) - 2)}}}",
        r"    \toprule",
        rf"    {' & '.join(heads)} \\",
    ]
    for (dataset, n), block in blocks_of(table):
        measure = block["measure"].dropna()
        unit = f" ({MEASURE_NAMES[measure.iloc[0]]})" if len(measure) else ""
        lines += [
            r"    \midrule",
            rf"    \multicolumn{{{len(heads)}}}{{c}}{{{_escape(block_name(dataset, n))}{unit}}} \\",
            r"    \midrule",
        ]
        lines += _rows(block, decimals, privacy=spec["privacy"], published=published)
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]) + "\n"


def _note(table: pd.DataFrame, *, published: bool) -> str:
    """What a reader must know to read a number."""
    seeds = int(table["n_seeds"].max()) if table["n_seeds"].notna().any() else 0
    beside = "in brackets: the difference in published standard deviations" if published else "no value is published"
    return (
        rf"Mean $\pm$ standard deviation, {seeds} seeds; vs.\ nothing: ToW minus that of the pretrained model [95\% "
        rf"interval], paired by seed; bold and underlined: best and second best ToW without the data; {beside}."
    )


def _published(row: Mapping[Any, Any], decimals: int) -> str:
    mean, away = float(row["published_tow"]), float(row["tow_diff_in_published_std"])
    if math.isnan(mean):
        return "-"
    return _math(mean, float(row["published_tow_std"]), decimals) + ("" if math.isnan(away) else f" (${away:+.1f}$)")


def _rows(block: pd.DataFrame, decimals: int, *, privacy: bool, published: bool) -> list[str]:
    ranks = ranks_of(block, decimals)
    lines = []
    for row in block.to_dict("records"):
        method = str(row["method"])
        cells = [cell(row, name, decimals, _math) for name in QUANTITIES]
        cells[-1] = _marked(cells[-1], ranks.get(method, 0))
        cells.append(re.sub(r"[+-][\d.]+", r"$\g<0>$", against_nothing(row, decimals)))
        if published:
            cells.append(_published(row, decimals))
        if privacy:
            cells += [_interval(row, "rmia_auc", decimals), _rate(row, f"rmia_tpr_at_{FPRS[0]:g}", decimals)]
        access = "--" if method in TRAINED else "yes" if row["access_to_data"] else "no"
        cells += ["-" if math.isnan(row[key]) else f"{row[key]:.3g}" for key in ("precompute_s", "unlearn_s")]
        line = [_escape(str(row["label"])), access, *("--" if each == "-" else each for each in cells)]
        lines.append("    " + " & ".join(line) + r" \\")
    return lines


def _ablation(table: pd.DataFrame, title: str, decimals: int) -> str:
    """Return one row per method and one column per block: tug of war."""
    blocks = blocks_of(table)
    ranks = {block: ranks_of(part, decimals) for block, part in blocks}
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(title)}. ToW, mean $\pm$ standard deviation, {int(table['n_seeds'].max())} seeds.}}",
        rf"  \begin{{tabular}}{{l{'r' * len(blocks)}}}",
        r"    \toprule",
        "    " + " & ".join(["Variant", *(_escape(block_name(*block)) for block, _ in blocks)]) + r" \\",
        r"    \midrule",
    ]
    for method, own in table[table["method"] != "retrain"].groupby("method", sort=False):
        by_block = {(str(row["dataset"]), int(row["n"])): row for row in own.to_dict("records")}
        cells = [
            _marked(cell(by_block[block], "tow", decimals, _math), ranks[block].get(str(method), 0))
            for block, _ in blocks
        ]
        lines.append("    " + " & ".join([_escape(str(own.iloc[0]["label"])), *cells]) + r" \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]) + "\n"


def _marked(text: str, rank: int) -> str:
    mark = {1: r"\mathbf", 2: r"\underline"}.get(rank)
    return f"${mark}{{{text.strip('$')}}}$" if mark else text


def _math(mean: float, std: float, decimals: int) -> str:
    return f"${mean:.{decimals}f}" + ("$" if math.isnan(std) else rf"{{\pm}}{std:.{decimals}f}$")


def _interval(row: Mapping[Any, Any], name: str, decimals: int) -> str:
    value, low, high = (float(row[f"{name}{part}"]) for part in ("", "_low", "_high"))
    return "missing" if math.isnan(value) else f"${value:.{decimals}f}$ [{low:.{decimals}f}, {high:.{decimals}f}]"


def _rate(row: Mapping[Any, Any], name: str, decimals: int) -> str:
    text = _interval(row, name, decimals)
    return text if text == "missing" else f"{text} ({int(row[f'{name}_hits'])}/{int(row['members'])})"


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {each: "\\" + each for each in "&%$#_{}"}
    return "".join(special.get(each, each) for each in text)
