"""Result tables as Markdown: the numbers, how to read them, and what went wrong."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from oneshui.config import TRAINED
from oneshui.report.attacks import FPRS
from oneshui.report.cells import MISSING, PLUS_MINUS, against_nothing, blocks_of, cell, difference, plain, ranks_of
from oneshui.report.style import MEASURE_NAMES, block_name
from oneshui.report.tables import FLAGS, QUANTITIES


def to_markdown(table: pd.DataFrame, spec: Mapping[str, Any], *, seeds: Sequence[int]) -> str:
    """Return the table as Markdown: per block the numbers, how to read them, what went wrong, and attacks and controls.

    Args:
        table: what ``oneshui.report.tables.make_table`` returned.
        spec: the same specification.
        seeds: the same seeds.
    """
    decimals = int(spec.get("decimals", 1))
    parts = [f"# {spec['title']}"]
    if spec.get("layout") == "tow":
        parts += [_ablation(table, decimals), _ABLATION_NOTE.format(seeds=len(seeds))]
        parts += ["\n".join(f"- {line}" for line in _warnings(table, len(seeds)))]
        return "\n\n".join(part for part in parts if part) + "\n"
    for (dataset, n), block in blocks_of(table):
        measure = block["measure"].dropna()
        unit = f"{MEASURE_NAMES[measure.iloc[0]]}, %" if len(measure) else "%"
        parts.append(f"## {block_name(dataset, n)} ({unit})")
        parts.append(_main(block, decimals))
        parts.append(_note(block, len(seeds)))
        warnings = _warnings(block, len(seeds))
        if warnings:
            parts.append("\n".join(f"- {line}" for line in warnings))
        if spec["privacy"]:
            gone = [f"**Missing**: no attack on {row['label']} in every seed; it or its reference blew up."
                    for row in block.to_dict("records") if math.isnan(row["rmia_auc"])]  # fmt: skip
            parts += ["\n".join(f"- {line}" for line in gone)] if gone else []
            parts += [_attacks(block, decimals), _attack_note(block), _controls(block, decimals), _CONTROL_NOTE]
    return "\n\n".join(parts) + "\n"


def _lines(rows: list[list[str]]) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def _name(row: Mapping[Any, Any]) -> str:
    name = str(row["label"]) + (" (needs the data)" if row["access_to_data"] else "")
    return name.replace("|", "\\|")


def _main(block: pd.DataFrame, decimals: int) -> str:
    with_published = block["published_tow"].notna().any()
    header = ["Method", "Retain", "Forget", "Test", "ToW", "vs doing nothing", "Prepare", "Unlearn"]
    rows = [header + (["published ToW"] if with_published else [])]
    ranks = ranks_of(block, decimals)
    for row in block.to_dict("records"):
        cells = [cell(row, name, decimals, plain) for name in QUANTITIES]
        cells[-1] = _marked(cells[-1], ranks.get(str(row["method"]), 0))
        costs = [_cost(row, "precompute"), _cost(row, "unlearn")]
        line = [_name(row), *cells, against_nothing(row, decimals), *costs]
        if with_published:
            line.append(_or_dash(row["published_tow"], row["published_tow_std"], decimals))
        rows.append(line)
    return _lines(rows)


def _marked(text: str, rank: int) -> str:
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)


_ABLATION_NOTE = (
    "Tug of war in percent, mean and standard deviation over {seeds} seeds; in brackets the published value, or none. "
    "Bold and underlined: the best and second best of a column."
)


def _ablation(table: pd.DataFrame, decimals: int) -> str:
    """Return one row per method and one column per block: tug of war, ours and published."""
    blocks = blocks_of(table)
    shown = table[table["method"] != "retrain"]
    rows = [["Variant", *(block_name(*block) for block, _ in blocks)]]
    ranks = {block: ranks_of(part, decimals) for block, part in blocks}
    for method, own in shown.groupby("method", sort=False):
        by_block = {(str(row["dataset"]), int(row["n"])): row for row in own.to_dict("records")}
        line = [_name(next(iter(by_block.values())))]
        for block, _ in blocks:
            row = by_block[block]
            printed = float(row["published_tow"])
            published = "none" if math.isnan(printed) else plain(printed, row["published_tow_std"], decimals)
            text = _marked(cell(row, "tow", decimals, plain), ranks[block].get(str(method), 0))
            line.append(f"{text} ({published})")
        rows.append(line)
    return _lines(rows)


def _cost(row: Mapping[Any, Any], step: str) -> str:
    seconds, mb = float(row[f"{step}_s"]), float(row[f"{step}_peak_mb"])
    return "-" if math.isnan(seconds) else f"{seconds:.3g} s, {mb:.0f} MB"


def _or_dash(mean: float, std: float, decimals: int) -> str:
    return "-" if math.isnan(mean) else plain(mean, std, decimals)


def _note(block: pd.DataFrame, expected: int) -> str:
    spread = f", {PLUS_MINUS} standard deviation over seeds" if expected > 1 else ""
    fewer = " (fewer in rows with missing numbers)" if (block["n_seeds"] < expected).any() else ""
    interval = " [95% interval], paired by seed" if expected > 1 else ""
    return (
        f"n_seeds = {expected}{fewer}{spread}. ToW (tug of war): closeness to the retrained model on retain, forget "
        f"and test images, 100 is best. vs doing nothing: ToW minus that of the pretrained model{interval}. Bold and "
        "underlined: the best and second best ToW among methods that do not need the data. Prepare (before the data is "
        "deleted) and Unlearn: mean time and peak memory beyond the loaded model and data."
    )


def _warnings(block: pd.DataFrame, expected: int) -> list[str]:
    lines = []
    for row in block.to_dict("records"):
        name = str(row["label"])
        for flag, words in FLAGS.items():
            if not pd.isna(row[flag]) and row[flag] > 0:
                lines.append(f"**Warning**: {name} {words} in {int(row[flag])} of {expected} seeds.")
        if row["n_seeds"] < expected:
            lines.append(f"**Missing**: {name} has complete results for {int(row['n_seeds'])} of {expected} seeds.")
    return lines


def _attacks(block: pd.DataFrame, decimals: int) -> str:
    with_published = block["published_mia"].notna().any()
    rates = [f"TPR at {100 * fpr:g}% FPR" for fpr in FPRS]
    head = ["Attack on", "AUC", *rates, "published protocol", *(["published MIA"] if with_published else [])]
    rows = [[*head, "loss AUC", "Streisand AUC"]]
    for row in block.to_dict("records"):
        line = [_name(row), _interval(row, "rmia_auc", decimals)]
        line += [_rate(row, f"rmia_tpr_at_{fpr:g}", decimals) for fpr in FPRS]
        protocol = float(row["published_protocol_tpr_mean"])
        line.append(MISSING if math.isnan(protocol) else plain(protocol, row["published_protocol_tpr_std"], 2))
        line += [_or_dash(row["published_mia"], math.nan, 2)] if with_published else []
        rows.append([*line, _interval(row, "loss_auc", decimals), _interval(row, "streisand_auc", decimals)])
    return "### Can an attacker tell?\n\n" + _lines(rows)


def _interval(row: Mapping[Any, Any], name: str, decimals: int) -> str:
    value = float(row[name])
    if math.isnan(value):
        return MISSING
    return f"{value:.{decimals}f} [{row[f'{name}_low']:.{decimals}f}, {row[f'{name}_high']:.{decimals}f}]"


def _rate(row: Mapping[Any, Any], name: str, decimals: int) -> str:
    if math.isnan(float(row[name])):
        return MISSING
    return f"{_interval(row, name, decimals)} ({int(row[f'{name}_hits'])}/{int(row['members'])})"


def _attack_note(block: pd.DataFrame) -> str:
    counts = block[["members", "non_members", "smallest_fpr"]].dropna()
    if counts.empty:
        return "Attacks: RMIA (equations 8 to 10); no model has results for every seed."
    members, others, smallest = counts.iloc[0]
    return (
        f"Attack: RMIA (equations 8 to 10), {int(members)} forget against {int(others)} test images pooled over seeds, "
        "percent [95% interval]; hits/members in brackets. AUC 50 is a guess. A "
        f"false positive rate that the test images cannot resolve (below {smallest:.3g}%) means no false alarm at all. "
        "published protocol: best of 16 settings chosen on the attacked data, interpolated; mean over seeds. loss: "
        "small losses look like members; Streisand: large ones do. Pretrain is attacked with the retrained model as "
        "reference, the retrained one with the ceiling, an unlearned one with the retrained model after the same "
        "method. docs/metrics.md says what each cannot show."
    )


_CONTROL_NOTE = (
    "Refit: a new linear classifier on the model's features, trained on people who never ask; what it says of forget "
    "images shows what the features still know, whatever the last layer answers. Wrong photos: the same request with "
    "photos of other people; if ToW stays, the photos did not matter. Ceiling: a second model trained without the "
    "forget set; nothing can be told apart beyond it."
)


def _controls(block: pd.DataFrame, decimals: int) -> str:
    rows = [["Control", "Refit: forget", "minus retrain's", "Refit: test", "ToW, wrong photos", "minus own"]]
    for row in block.to_dict("records"):
        line = [_name(row), cell(row, "refit_forget", decimals, plain)]
        shift = row["refit_forget_minus_retrain_mean"], row["refit_forget_minus_retrain_ci95"]
        line.append("-" if row["method"] == "retrain" else difference(*shift, decimals))
        line.append(cell(row, "refit_test", decimals, plain))
        if row["method"] in TRAINED or row["access_to_data"]:
            line += ["-", "-"]
        else:
            line.append(cell(row, "wrong_photos_tow", decimals, plain))
            line.append(difference(row["wrong_photos_minus_own_mean"], row["wrong_photos_minus_own_ci95"], decimals))
        rows.append(line)
    return "### Controls\n\n" + _lines(rows)
