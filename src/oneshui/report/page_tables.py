"""Tables of the page: results beside published values, attacks, controls and costs, and intervals drawn."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.errors import DataError
from oneshui.report.attacks import FPRS, POOLED, PRIVACY_COLUMNS, read_summary
from oneshui.report.cells import MISSING, blocks_of, cell, difference, plain, ranks_of
from oneshui.report.page_charts import Scale, bar, interval, interval_axis
from oneshui.report.page_html import Markup, join, signed, table, tag
from oneshui.report.reading_block import side_of
from oneshui.report.style import MEASURE_NAMES, block_name
from oneshui.report.tables import FLAGS, QUANTITIES

Row = Mapping[Any, Any]

_NO_VALUE = "\N{EN DASH}"
#: headers of the quantities of a table, and the cards that say what they mean
_HEADS = {"retain": "Retain", "forget": "Forget", "test": "Test", "tow": "ToW"}
#: percentage points that a rounded table may differ from the summary of its attacks
_TOLERANCE = 1e-4
_COSTS = {
    "precompute_s": ("Prepare, s", "{:.3g}"),
    "precompute_peak_mb": ("Prepare, MB", "{:.0f}"),
    "unlearn_s": ("Unlearn, s", "{:.3g}"),
    "unlearn_peak_mb": ("Unlearn, MB", "{:.0f}"),
}


def result_tables(results: pd.DataFrame, spec: Mapping[str, Any], *, name: str, n_seeds: int) -> Markup:
    """Return a table's numbers beside the published ones: a table per block, or one of all for ``layout: tow``.

    Args:
        results: the columns ``oneshui.report.tables.COLUMNS``, numbers in percent.
        spec: of the table in the config.
        name: what ids in the page begin with.
        n_seeds: seeds that every row was asked for.
    """
    decimals = int(spec.get("decimals", 1))
    if spec.get("layout") == "tow":
        return join([_ablation(results, decimals, name), _warnings(results, n_seeds)])
    parts = []
    for i, (block, rows) in enumerate(blocks_of(results)):
        parts += [_main(rows, block_name(*block), decimals, f"{name}-{i}"), _warnings(rows, n_seeds)]
    return join(parts)


def method_cell(row: Row) -> Markup:
    """Return the name of a row's method, marked if it needs the data."""
    mark = tag("small", " needs the data", class_="mark") if row["access_to_data"] else None
    return join([str(row["label"]), mark])


def _main(block: pd.DataFrame, title: str, decimals: int, name: str) -> Markup:
    with_published = block["published_tow"].notna().any()
    ranks = ranks_of(block, decimals)
    head = [
        "Method",
        *_HEADS.values(),
        *(["ToW from published"] if with_published else []),
        "Against doing nothing",
        "Seeds",
    ]
    rows = []
    for row in block.to_dict("records"):
        line: list[Markup | str] = [method_cell(row)]
        for quantity in QUANTITIES:
            ours = marked(
                _quantity(row, quantity, decimals), ranks.get(str(row["method"]), 0) if quantity == "tow" else 0
            )
            line.append(join([ours, _published(row, quantity, decimals) if with_published else None]))
        if with_published:
            stds = float(row["tow_diff_in_published_std"])
            line.append(_NO_VALUE if math.isnan(stds) else signed(f"{stds:+z.1f} std"))
        nothing = row["method"] in ("pretrain", "retrain")
        line += [_NO_VALUE if nothing else _gain(row, decimals), str(int(row["n_seeds"]))]
        rows.append(line)
    measure = block["measure"].dropna()
    unit = f"{MEASURE_NAMES.get(measure.iloc[0], measure.iloc[0])}, %" if len(measure) else "%"
    second = "; second line: published value" if with_published else ""
    caption = join([tag("strong", title), f" ({unit}; mean \N{PLUS-MINUS SIGN} standard deviation over seeds{second})"])
    return table(caption, head, rows, name=name)


def _quantity(row: Row, name: str, decimals: int) -> str:
    text = cell(row, name, decimals, plain)
    return _NO_VALUE if text == "-" else text


def _published(row: Row, quantity: str, decimals: int) -> Markup | None:
    mean, std = float(row[f"published_{quantity}"]), float(row[f"published_{quantity}_std"])
    if math.isnan(mean):
        return None
    return tag("span", tag("span", "published ", class_="unseen"), plain(mean, std, decimals), class_="second")


def _gain(row: Row, decimals: int) -> str:
    return signed(difference(row["tow_minus_pretrain_mean"], row["tow_minus_pretrain_ci95"], decimals))


def marked(text: str, rank: int) -> Markup:
    """Return a number, bold if it is the best and underlined if the second."""
    return tag("strong", text) if rank == 1 else tag("u", text) if rank == 2 else join([text])


def _ablation(results: pd.DataFrame, decimals: int, name: str) -> Markup:
    blocks = blocks_of(results)
    ranks = {block: ranks_of(part, decimals) for block, part in blocks}
    rows = []
    for method, own in results[results["method"] != "retrain"].groupby("method", sort=False):
        of_block = {(str(row["dataset"]), int(row["n"])): row for row in own.to_dict("records")}
        line: list[Markup | str] = [method_cell(next(iter(of_block.values())))]
        for block, _ in blocks:
            row = of_block[block]
            ours = marked(_quantity(row, "tow", decimals), ranks[block].get(str(method), 0))
            line.append(join([ours, _published(row, "tow", decimals)]))
        rows.append(line)
    head = ["Variant", *(block_name(*block) for block, _ in blocks)]
    caption = (
        "ToW, %: mean \N{PLUS-MINUS SIGN} standard deviation over seeds; second line: published value, if there is one"
    )
    return table(caption, head, rows, name=f"{name}-0")


def _warnings(rows: pd.DataFrame, n_seeds: int) -> Markup | None:
    """Return what went wrong or is missing, beside the numbers that it concerns."""
    lines = []
    for row in rows.to_dict("records"):
        where = f"{row['label']} ({block_name(row['dataset'], int(row['n']))})"
        for flag, words in FLAGS.items():
            if not pd.isna(row[flag]) and row[flag] > 0:
                lines.append(f"{where} {words} in {int(row[flag])} of {n_seeds} seeds.")
        if row["n_seeds"] < n_seeds:
            lines.append(f"{where} has complete results for {int(row['n_seeds'])} of {n_seeds} seeds.")
    return tag("ul", *(tag("li", line) for line in lines), class_="warning") if lines else None


def forest(block: pd.DataFrame, title: str, decimals: int, name: str) -> Markup | None:
    """Return each method's difference to doing nothing with its interval, drawn on one axis; the ceiling below them."""
    column = "tow_minus_pretrain"
    rows = [row for row in block.to_dict("records") if row["method"] not in ("pretrain", "retrain")]
    rows.sort(key=lambda row: row["method"] == "ceiling")
    means = [float(row[f"{column}_mean"]) for row in rows]
    halves = [float(row[f"{column}_ci95"]) for row in rows]
    if not any(map(math.isfinite, means)):
        return None
    ends = [mean + sign * half for mean, half in zip(means, halves, strict=True) for sign in (-1, 1)]
    scale = Scale.around([*means, *ends])
    top = next((mean for row, mean in zip(rows, means, strict=True) if row["method"] == "ceiling"), math.nan)
    lines = []
    for row, mean, half in zip(rows, means, halves, strict=True):
        clear = side_of(mean - half, mean + half, decimals) in (1, -1)
        chart = interval(scale, mean, half, reference=top, clear=clear)
        value, _, limits = _gain(row, decimals).partition(" ")
        lines.append([method_cell(row), chart, join([value, " ", tag("span", limits, class_="limits")])])
    caption = join([tag("strong", title), ": ToW minus that of doing nothing, points, paired by seed"])
    return table(caption, ["Method", interval_axis(scale), "mean [95% interval]"], lines, name=name, class_="forest")


def attack_table(block: pd.DataFrame, title: str, decimals: int, name: str) -> Markup:
    """Return what attacks found on each model, pooled over seeds, with intervals and counts."""
    with_published = block["published_mia"].notna().any()
    rates = [f"TPR at {100 * fpr:g}% FPR" for fpr in FPRS]
    head = ["Attack on", "AUC", *rates, "Published protocol", *(["Published MIA"] if with_published else [])]
    rows = []
    for row in block.to_dict("records"):
        line: list[Markup | str] = [method_cell(row), _two_lines(_area(row, "rmia_auc", decimals))]
        line += [_rate(row, f"rmia_tpr_at_{fpr:g}", decimals) for fpr in FPRS]
        protocol = float(row["published_protocol_tpr_mean"])
        line.append(MISSING if math.isnan(protocol) else plain(protocol, row["published_protocol_tpr_std"], 2))
        if with_published:
            line.append(_NO_VALUE if math.isnan(row["published_mia"]) else plain(row["published_mia"], math.nan, 2))
        rows.append([*line, *(_two_lines(_area(row, name, decimals)) for name in ("loss_auc", "streisand_auc"))])
    caption = join([tag("strong", title), f" (%, [95% interval]{_counts(block)})"])
    return table(caption, [*head, "Loss AUC", "Streisand AUC"], rows, name=name)


def _counts(block: pd.DataFrame) -> str:
    counts = block[["members", "non_members", "smallest_fpr"]].dropna()
    if counts.empty:
        return "; no model has results for every seed"
    members, others, smallest = counts.iloc[0]
    return (
        f"; {int(members)} forget against {int(others)} test images, pooled over seeds; the smallest false positive "
        f"rate that these resolve is {smallest:.3g}%"
    )


def _area(row: Row, name: str, decimals: int) -> str:
    value, low, high = (float(row[f"{name}{part}"]) for part in ("", "_low", "_high"))
    return MISSING if math.isnan(value) else f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _two_lines(text: str, between: str = "") -> Markup:
    """Return a number with its interval below it, which makes columns narrow."""
    value, bracket, rest = text.partition(" [")
    return join([value, between, tag("span", bracket + rest, class_="second")]) if bracket else join([text])


def _rate(row: Row, name: str, decimals: int) -> Markup:
    text = _area(row, name, decimals)
    return join([text]) if text == MISSING else _two_lines(text, f" ({int(row[f'{name}_hits'])}/{int(row['members'])})")


def check_attacks(results: pd.DataFrame, summary: pd.DataFrame, name: str) -> None:
    """Refuse a table and a summary of attacks that contradict each other.

    Raises:
        DataError: some pooled value is another one, or is in one of the two files only.
    """
    for row in results.to_dict("records"):
        dataset, n, method = str(row["dataset"]), int(row["n"]), str(row["method"])
        model = method if method in TRAINED else f"pretrain/{method}"
        found = read_summary(summary, dataset, n, model)
        for column in PRIVACY_COLUMNS:
            ours, theirs = float(row[column]), float(found[column])
            if math.isnan(ours) != math.isnan(theirs) or abs(ours - theirs) > _TOLERANCE:
                raise DataError(
                    f"table {name} has {column} = {ours:.6g} for {method} on {dataset}, n = {n}, its summary of "
                    f"attacks {theirs:.6g}; they belong to different runs. Delete the older one to make it again."
                )


def attack_seeds(summary: pd.DataFrame, block: pd.DataFrame, decimals: int, name: str) -> Markup | None:
    """Return the AUC of each seed with its interval, folded away."""
    key = block.iloc[0]
    own = summary[(summary["dataset"] == key["dataset"]) & (summary["n"] == key["n"])]
    own = own[(own["attack"] == "rmia") & (own["metric"] == "auc") & (own["seed"].astype(str) != POOLED)]
    seeds = sorted(set(own["seed"].astype(int)))
    if not seeds:
        return None
    rows = []
    for row in block.to_dict("records"):
        model = str(row["method"]) if row["method"] in TRAINED else f"pretrain/{row['method']}"
        line: list[Markup | str] = [method_cell(row)]
        for seed in seeds:
            found = own[(own["row"] == model) & (own["seed"].astype(int) == seed)]
            percent = {
                f"auc{part}": 100 * found[column]
                for part, column in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
            line.append(
                _area({key: float(column.iloc[0]) for key, column in percent.items()}, "auc", decimals)
                if len(found)
                else MISSING
            )
        rows.append(line)
    inner = table(
        "AUC of each seed, % [95% interval]", ["Attack on", *(f"seed {seed}" for seed in seeds)], rows, name=name
    )
    return tag("details", tag("summary", "AUC by seed"), inner)


def control_table(block: pd.DataFrame, title: str, decimals: int, name: str) -> Markup:
    """Return what the three controls say of each model."""
    head = ["Model", "ToW", "Refit: forget", "minus retrained", "Refit: test", "ToW, wrong photos", "minus own"]
    rows = []
    for row in block.to_dict("records"):
        line: list[Markup | str] = [method_cell(row), _quantity(row, "tow", decimals)]
        shift = row["refit_forget_minus_retrain_mean"], row["refit_forget_minus_retrain_ci95"]
        line.append(cell(row, "refit_forget", decimals, plain))
        line.append(_NO_VALUE if row["method"] == "retrain" else signed(difference(*shift, decimals)))
        line.append(cell(row, "refit_test", decimals, plain))
        if row["method"] in TRAINED or row["access_to_data"]:
            line += [_NO_VALUE, _NO_VALUE]
        else:
            own = row["wrong_photos_minus_own_mean"], row["wrong_photos_minus_own_ci95"]
            line += [cell(row, "wrong_photos_tow", decimals, plain), signed(difference(*own, decimals))]
        rows.append(line)
    caption = join([tag("strong", title), " (%; differences in points [95% interval], paired by seed)"])
    return table(caption, head, rows, name=name)


def cost_table(block: pd.DataFrame, title: str, name: str) -> Markup | None:
    """Return what methods cost, each column with bars on its own linear scale; None where nothing was measured."""
    rows = block.to_dict("records")
    known = {column: [float(row[column]) for row in rows if not math.isnan(float(row[column]))] for column in _COSTS}
    if not any(known.values()):
        return None
    lines = []
    for row in rows:
        line: list[Markup | str] = [method_cell(row)]
        for column, (_, form) in _COSTS.items():
            value = float(row[column])
            if math.isnan(value):
                # a method that prepares nothing has no such cost; one that does not unlearn has no result
                line.append(_NO_VALUE if column.startswith("precompute") else MISSING)
            else:
                line.append(join([bar(value, max(known[column])), tag("span", form.format(value))]))
        lines.append(line)
    caption = join([tag("strong", title), " (mean over seeds, beyond the loaded model and data)"])
    return table(caption, ["Method", *(head for head, _ in _COSTS.values())], lines, name=name, class_="costs")
