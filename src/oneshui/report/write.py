"""A results table in print: Markdown and LaTeX, written from the columns of ``oneshui.report.columns``.

``grid`` says what is printed, as plain text; each writer only adds its own marks. The page writes the same grids.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.diagnostics import RELEARN_STEPS
from oneshui.report.columns import COLUMNS, DASH, FLAGS, Column, with_std
from oneshui.report.style import MEASURE_NAMES, MODEL_MARKS, display_name, setting_name
from oneshui.report.tables import settings_of
from oneshui.report.verdict import said_together, verdict

#: heading of a part of a table -> views of columns that stand in it
PARTS = {
    "": ("results", "costs"), "Can an attacker tell?": ("attacks",), "Controls": ("controls",),
    "What is left inside?": ("traces",),
}  # fmt: skip
#: key of a table in the configuration that asks for a view; the others are always there
_ASKED_BY = {"attacks": "privacy", "controls": "privacy", "traces": "traces"}
WITH_DATA_MARK = "uses the training data"


@dataclass(frozen=True)
class Cell:
    """What is printed in a cell: text, the published value beside it, the rank (1 or 2, else 0), a mark."""

    text: str
    published: str = ""
    rank: int = 0
    mark: str = ""


Grid = list[list[Cell]]


def name_of(row: Mapping[Any, Any]) -> Cell:
    """Return the name of a row's model."""
    method = str(row["method"])
    mark = WITH_DATA_MARK if row["access_to_data"] else MODEL_MARKS.get(method, "")
    return Cell(display_name(method, str(row["label"])), mark=mark)


def columns_of(table: pd.DataFrame, *views: str) -> list[Column]:
    """Return the printed columns of ``views``, without optional ones that the table has no number of."""
    shown = [column for column in COLUMNS if column.view and column.view in views]
    return [each for each in shown if not each.optional or table[each.names[0]].notna().any()]


def grid(rows: pd.DataFrame, columns: Sequence[Column], decimals: int) -> Grid:
    """Return head and rows of a setting: the model, then ``columns``."""
    ranks = ranks_of(rows, decimals)
    head = [Cell("Model"), *(Cell(column.head) for column in columns)]
    records = rows.to_dict("records")
    return [head, *([name_of(row), *(_cell(row, each, decimals, ranks) for each in columns)] for row in records)]


def ablation(table: pd.DataFrame, decimals: int, *, published: bool) -> Grid:
    """Return a grid with a row per model and a column per setting: ToW, with the published value if there are some."""
    settings = settings_of(table)
    (tow,) = (column for column in COLUMNS if column.key == "tow")
    ranks = {setting: ranks_of(rows, decimals) for setting, rows in settings}
    lines = [[Cell("Variant"), *(Cell(setting_name(*setting)) for setting, _ in settings)]]
    for _, own in table[table["method"] != "retrain"].groupby("method", sort=False):
        rows = own.to_dict("records")
        cells = [_cell(row, tow, decimals, ranks[str(row["dataset"]), int(row["n"])]) for row in rows]
        none = "none" if published else ""
        lines.append([name_of(rows[0]), *(Cell(each.text, each.published or none, each.rank) for each in cells)])
    return lines


def _cell(row: Mapping[Any, Any], column: Column, decimals: int, ranks: Mapping[str, int]) -> Cell:
    published = float(row[f"published_{column.beside}"]) if column.beside else math.nan
    beside = ""
    if not math.isnan(published):
        digits = 2 if column.beside == "mia" else decimals
        beside = with_std(published, float(row[f"published_{column.beside}_std"]), digits)
    return Cell(column.text(row, decimals), beside, ranks.get(str(row["method"]), 0) if column.key == "tow" else 0)


def ranks_of(rows: pd.DataFrame, decimals: int) -> dict[str, int]:
    """Return the rank by ToW of the methods that do not use the training data.

    Numbers that print alike share a rank: a table must not prefer one of two equal numbers. Where all are alike, none
    is best.
    """
    rivals = rows[~rows["access_to_data"] & ~rows["method"].isin(TRAINED)]
    printed = rivals["tow_mean"].dropna().map(lambda value: float(f"{value:.{decimals}f}"))
    if len(printed) > 1 and printed.nunique() == 1:
        return {}
    ranks = printed.rank(method="dense", ascending=False).astype(int)
    return dict(zip(rivals.loc[ranks.index, "method"], ranks, strict=True))


def warnings_of(rows: pd.DataFrame, n_seeds: int, *, privacy: bool) -> list[str]:
    """Return what failed or is missing, one sentence each; where rows are of several settings, it begins with its."""
    lines, settings = [], settings_of(rows)
    for setting, own in settings:
        where = f"{setting_name(*setting)}: " if len(settings) > 1 else ""
        lines += [f"{where}{sentence}." for sentence in said_together(_failures(own, n_seeds, privacy=privacy))]
    return lines


def _failures(rows: pd.DataFrame, n_seeds: int, *, privacy: bool) -> Iterator[tuple[str, str]]:
    """Yield names of models, and what failed or is missing."""
    for row in rows.to_dict("records"):
        name = name_of(row).text
        for flag, words in FLAGS.items():
            if not pd.isna(row[flag]) and row[flag] > 0:
                yield name, f"{words} in {int(row[flag])} of {n_seeds} seeds"
        if row["n_seeds"] < n_seeds:
            yield name, f"has complete results for {int(row['n_seeds'])} of {n_seeds} seeds"
        if privacy and math.isnan(row["rmia_auc"]):
            yield name, "has no attack in every seed: the model or its reference diverged"


def note_of(view: str, rows: pd.DataFrame, n_seeds: int) -> str:
    """Return how the numbers of a part of a table are to be read."""
    if view == "results":
        seeds = f"Mean \N{PLUS-MINUS SIGN} standard deviation over {n_seeds} seeds, [95% interval] paired by seed."
        words = (
            f"{seeds if n_seeds > 1 else 'One seed: no spread and no interval.'} ToW is the nearness to the retrained "
            "model; 100 is best."
        )
        if (~rows["access_to_data"].astype(bool) & ~rows["method"].isin(TRAINED) & rows["tow_mean"].notna()).any():
            words += " Bold and underlined: the best and second best of the methods that do not use the training data."
        return words
    if view == "attacks":
        counts = rows[["members", "non_members", "smallest_fpr"]].dropna().drop_duplicates()
        if counts.empty:
            return "No model was attacked in every seed."
        images, limit = "forget against test images", "what the test images resolve,"
        if len(counts) == 1:  # of one setting
            members, others, smallest = counts.iloc[0]
            images = f"{int(members)} forget against {int(others)} test images"
            limit = f"{smallest:.3g}% FPR"
        return (
            f"RMIA on {images}, pooled over seeds. Percent [95% interval] (hits/members). An AUC of 50 is a guess. "
            f"Below {limit} no false alarm is allowed."
        )
    if view == "costs":
        return "Mean over seeds of time and peak memory, beyond the loaded model and data."
    if view == "traces":
        return (
            "KL on forget images, in nats. Linear probes on pooled activations behind 25 to 100% of the blocks, and on "
            f"the features. Relearned: half of the forget images after {RELEARN_STEPS} steps of training on the other "
            f"half; {RELEARN_STEPS + 1} steps: not even then as well known as to the original model. Compare with the "
            "retrained model."
        )
    return (
        "Linear probe: what the features still know. Wrong photos: the same request with photos of other people. "
        "Differences in points [95% interval], paired by seed."
    )


def to_markdown(table: pd.DataFrame, spec: Mapping[str, Any], *, seeds: Sequence[int]) -> str:
    """Return the table as Markdown: per setting the verdict, the numbers, what failed, attacks and controls.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned.
        spec: the same specification.
        seeds: the same seeds.
    """
    decimals, count, privacy = int(spec["decimals"]), len(seeds), bool(spec["privacy"])
    lines = [f"# {_plain(str(spec['title']))}"]
    if spec.get("layout") == "tow":
        printed = bool(spec.get("published"))
        lines += [_markdown(ablation(table, decimals, published=printed)), _tow_note(table, count, printed)]
        return _paragraphs([*lines, _bullets(warnings_of(table, count, privacy=False))])
    for setting, rows in settings_of(table):
        lines.append(f"## {_plain(setting_name(*setting))} ({_plain(unit_of(rows))})")
        lines.append(_START.sub(r"\1\\\2", _plain(" ".join(verdict(rows, n_seeds=count, decimals=decimals)))))
        for heading, views in _parts(spec):
            lines += [heading and f"### {heading}", _markdown(grid(rows, columns_of(table, *views), decimals))]
            lines.append(_note(heading, views, rows, count))
            lines.append("" if heading else _bullets(warnings_of(rows, count, privacy=privacy)))
    return _paragraphs([*lines, "docs/metrics.md says what each number means and what it cannot show."])


_BESIDE = "In brackets: the published value."
#: what Markdown reads as a mark wherever it stands, a link, or a character by its name
_MARKS = re.compile(r"[\\`*_<>$#|~]|(?<=\])\(|&(?=#?\w+;)")
#: what it reads as the start of a list
_START = re.compile(r"^(\d*)([-+.)])(?=\s)")


def _plain(text: str) -> str:
    """Return text as Markdown that shows it as it is, in one line."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def is_asked(view: str, spec: Mapping[str, Any]) -> bool:
    """Whether a table of the configuration has a view."""
    return view not in _ASKED_BY or bool(spec.get(_ASKED_BY[view]))


def _parts(spec: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    return [(heading, views) for heading, views in PARTS.items() if is_asked(views[0], spec)]


def _note(heading: str, views: Sequence[str], rows: pd.DataFrame, count: int) -> str:
    beside = not heading and rows["published_tow"].notna().any()
    return note_of(views[0], rows, count) + (f" {_BESIDE}" if beside else "")


def _tow_note(table: pd.DataFrame, count: int, published: bool) -> str:
    return f"ToW in percent. {note_of('results', table, count)}" + (f" {_BESIDE}" if published else "")


def _paragraphs(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def unit_of(rows: pd.DataFrame) -> str:
    """Return the measure of a setting with its unit."""
    measure = rows["measure"].dropna()
    return f"{MEASURE_NAMES.get(measure.iloc[0], measure.iloc[0])}, %" if len(measure) else "%"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- **Warning**: {_plain(line)}" for line in lines)


def _markdown(lines: Grid) -> str:
    def cell(each: Cell) -> str:
        text = _plain(each.text)
        text = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(each.rank, text)
        return text + "".join(f" ({more})" for more in (each.mark, each.published) if more)

    head, *body = [[cell(each) for each in line] for line in lines]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def to_latex(table: pd.DataFrame, spec: Mapping[str, Any], *, seeds: Sequence[int]) -> str:
    r"""Return the table for LaTeX with booktabs: a ``table`` each for results, attacks and controls.

    Below each stands what failed or is missing: they may come to stand on different pages.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned.
        spec: the same specification.
        seeds: the same seeds.
    """
    decimals, title = int(spec["decimals"]), str(spec["title"])
    count, privacy = len(seeds), bool(spec["privacy"])
    if spec.get("layout") == "tow":
        printed = bool(spec.get("published"))
        head, *body = ablation(table, decimals, published=printed)
        warnings = warnings_of(table, count, privacy=False)
        return _latex(f"{title}. {_tow_note(table, count, printed)}", head, [("", body)], warnings)
    parts, warnings = [], warnings_of(table, count, privacy=privacy)
    for heading, views in _parts(spec):
        columns, blocks = columns_of(table, *views), []
        for setting, rows in settings_of(table):
            head, *body = grid(rows, columns, decimals)
            blocks.append((f"{setting_name(*setting)} ({unit_of(rows)})", body))
        words = [f"{title}.", heading, _note(heading, views, table, count)]
        parts.append(_latex(" ".join(word for word in words if word), head, blocks, warnings))
    return "\n".join(parts)


def _latex(caption: str, head: Sequence[Cell], blocks: Sequence[tuple[str, Grid]], warnings: Sequence[str]) -> str:
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(_escape(cell.text) for cell in head)} \\\\",
    ]
    for title, rows in blocks:
        lines.append(r"    \midrule")
        if title:
            lines += [rf"    \multicolumn{{{len(head)}}}{{c}}{{{_escape(title)}}} \\", r"    \midrule"]
        for name, *cells in rows:
            mark = f" ({name.mark})" if name.mark else ""
            # after the end of a row LaTeX takes [ for an argument and * for a part of the command
            first = re.sub(r"^[\[*]", r"{\g<0>}", _escape(name.text + mark))
            lines.append(f"    {' & '.join([first, *map(_latex_cell, cells)])} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if warnings:
        lines.append(rf"  \par\smallskip\footnotesize\raggedright Warning: {_escape(' '.join(warnings))}\par")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_cell(cell: Cell) -> str:
    if cell.text == DASH:
        return "--"
    mark = {1: r"\mathbf", 2: r"\underline"}.get(cell.rank)
    text = _numbers(cell.text)
    text = f"${mark}{{{text.strip('$')}}}$" if mark else text
    return f"{text} ({_numbers(cell.published)})" if cell.published else text


def _numbers(text: str) -> str:
    """Return plain text with its numbers as formulas."""
    return re.sub(r"[+-]?\d+(\.\d+)?(e[+-]\d+)?( \u00b1 \d+(\.\d+)?)?", lambda found: f"${found[0]}$", text).replace(
        " \u00b1 ", r"{\pm}"
    )


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\u00b1": r"$\pm$"}
    special |= {each: "\\" + each for each in "&%$#_{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    return "".join(special.get(each, each) for each in " ".join(text.split()))
