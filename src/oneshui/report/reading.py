"""What a result table says, in plain sentences that follow from its numbers by fixed rules.

Nothing here knows which method is ours. An effect is called one only if its 95% interval, as it is printed, lies on one
side of what "no effect" would be: of 0 for a difference, of 50 for the area under an attack's ROC curve. An interval
that touches that value counts as containing it. Whatever is missing is named and never guessed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from oneshui.report import reading_privacy
from oneshui.report.cells import MISSING, blocks_of
from oneshui.report.reading_block import Block, listed
from oneshui.report.tables import FLAGS, QUANTITIES

_GAIN = "tow_minus_pretrain"
#: published standard deviations that a tug of war may be off before it is called different
_PUBLISHED_STDS = 2.0


@dataclass(frozen=True)
class Finding:
    """What is to be said about one topic of a block.

    Attributes:
        dataset: of the block.
        n: of the block.
        topic: a few words; the first of a block is "In short".
        sentences: one or more.
    """

    dataset: str
    n: int
    topic: str
    sentences: tuple[str, ...]


def reading(table: pd.DataFrame, *, n_seeds: int, decimals: int = 1) -> list[Finding]:
    """Return what a table says, block by block, in the order in which it is best read.

    Args:
        table: the columns ``oneshui.report.tables.COLUMNS``, numbers in percent; of one block or several.
        n_seeds: seeds that every row was asked for.
        decimals: of the table; what prints alike is called alike.
    """
    findings = []
    for (dataset, n), frame in blocks_of(table):
        block = Block(frame, n_seeds, decimals)
        for topic, say in _TOPICS.items():
            sentences = say(block)
            if sentences:
                findings.append(Finding(dataset, n, topic, tuple(sentences)))
    return findings


def about_seeds(n_seeds: int) -> str:
    """Return what ``n_seeds`` can and cannot show."""
    if n_seeds < 2:
        return "n_seeds = 1: no spread and no interval; no order of methods can be taken from one run."
    wide = float(stdtrit(n_seeds - 1, 0.975))
    small = ", so that small effects cannot show" if n_seeds < 6 else ""
    return (
        f"n_seeds = {n_seeds}: a 95% interval reaches {wide:.1f} standard errors to each side{small}. One in 20 such "
        "intervals misses the truth by chance."
    )


def _in_short(block: Block) -> list[str]:
    found = block.split(block.rivals, _GAIN)
    known = sum(len(found[side]) for side in (1, -1, 0))
    said = []
    if known:
        parts = {
            1: "beat doing nothing beyond noise",
            -1: "do worse, beyond noise",
            0: "cannot be told from doing nothing",
        }
        counts = listed(f"{len(found[side])} {text}" for side, text in parts.items() if found[side])
        methods = f"{known} {'method' if known == 1 else 'methods'} without access to the data"
        unknown = [str(row["label"]) for row in block.rivals if math.isnan(row["tow_mean"])]
        methods += f" with results ({listed(unknown)} {MISSING})" if unknown else ""
        none = f"None of {methods} can be told from doing nothing"
        said.append(f"{none if len(found[0]) == known else f'Of {methods}, {counts}'} (n_seeds = {block.n_seeds}).")
    elif found[None]:
        said.append(f"Without intervals nothing can be told from noise (n_seeds = {block.n_seeds}).")
    ranked = [row for row in block.rivals if not math.isnan(row["tow_mean"])]
    if ranked:
        best = max(ranked, key=lambda row: float(row["tow_mean"]))
        scores = [f"{best['label']} {block.number(best['tow_mean'])}"]
        for method, text in (("pretrain", "doing nothing"), ("ceiling", "the ceiling")):
            tow = block.value(method, "tow_mean")
            scores += [] if math.isnan(tow) else [f"{text} {block.number(tow)}"]
        said.append(f"Highest mean ToW: {', '.join(scores)}.")
    return [*said, *reading_privacy.in_short(block)]


def _start(block: Block) -> list[str]:
    before, after = block.value("pretrain", "forget_mean"), block.value("retrain", "forget_mean")
    if math.isnan(before) or math.isnan(after):
        return ["How much there is to unlearn is missing: the pretrained or the retrained model has no result."]
    gap = block.printed(before - after)
    said = [
        f"On forget images the pretrained model reaches {block.number(before)}%, the model retrained without them "
        f"{block.number(after)}%: {block.number(abs(gap))} points {'to unlearn' if gap > 0 else 'the other way'}."
    ]
    if gap <= 0:
        said.append("There is nothing to unlearn, so no score here can show that a method unlearns.")
    return said


def _effect(block: Block) -> list[str]:
    found = block.split(block.rivals, _GAIN)
    said = []
    if found[1]:
        said.append(f"Better, beyond the noise between seeds: {block.each(found[1], _GAIN)}.")
    if found[-1]:
        said.append(f"Worse, beyond the noise between seeds: {block.each(found[-1], _GAIN)}.")
    if found[0]:
        ranked = sorted(found[0], key=lambda row: -float(row[f"{_GAIN}_mean"]))
        said.append(
            f"Cannot be told from doing nothing (the interval contains 0): {block.each(ranked, _GAIN)}. That is no "
            "proof that nothing was unlearned."
        )
    if found[None]:
        said.append(f"Without an interval, so that nothing can be said of noise: {block.each(found[None], _GAIN)}.")
    return [*said, *_with_data(block)]


def _with_data(block: Block) -> list[str]:
    found = block.split([row for row in block.methods if row["access_to_data"]], _GAIN)
    words: dict[int | None, str] = {
        1: "better",
        -1: "worse",
        0: "no difference can be told",
        None: "no interval",
    }
    parts = [f"{block.each(found[side], _GAIN)} ({text})" for side, text in words.items() if found[side]]
    return [f"With the training data at hand, and so no rivals: {'; '.join(parts)}."] if parts else []


def _ceiling(block: Block) -> list[str]:
    if "ceiling" not in block.of:
        return []
    top, bottom = block.value("ceiling", "tow_mean"), block.value("pretrain", "tow_mean")
    if math.isnan(top):
        return [f"{MISSING.capitalize()}: the ceiling has no ToW."]
    known = [row for row in block.rivals if not math.isnan(row["tow_mean"])]
    known = sorted(known, key=lambda row: -float(row["tow_mean"]))
    said = []
    if known:
        places = [f"{row['label']} {_below(block, top - float(row['tow_mean']))}" for row in known]
        said.append(f"Mean distances to the ceiling's ToW of {block.number(top)}, without interval: {listed(places)}.")
    room = block.printed(top - bottom)
    if room <= 0:  # never true of NaN
        said.append("Doing nothing is as near to the retrained model as the ceiling, so ToW cannot show progress here.")
    elif room > 0 and known:
        gain = block.printed(float(known[0]["tow_mean"]) - bottom)
        where = f"Of the {block.number(room)} points between doing nothing and the ceiling"
        if gain <= 0:
            said.append(f"{where} no method makes up any.")
        elif known[0] in block.split(known, _GAIN)[1]:
            said.append(f"{where} {known[0]['label']} makes up {block.number(gain)} ({100 * gain / room:.0f}%).")
        else:
            said.append(f"{where} what the highest, {known[0]['label']}, makes up cannot be told from noise.")
    return said


def _below(block: Block, distance: float) -> str:
    distance = block.printed(distance)
    where = "below" if distance > 0 else "above"
    return f"{block.number(abs(distance))} {where}" if distance else "level"


def _published(block: Block) -> list[str]:
    known = [(row, round(float(row["tow_diff_in_published_std"]), 1)) for row in block.rows]
    known = [(row, stds) for row, stds in known if not math.isnan(stds)]
    if not known:
        return []
    far = [f"{row['label']} {stds:+.1f}" for row, stds in known if abs(stds) > _PUBLISHED_STDS]
    said = [
        f"ToW is within {_PUBLISHED_STDS:.0f} published standard deviations of the published value in "
        f"{len(known) - len(far)} of {len(known)} rows."
    ]
    return [*said, f"Further away: {listed(far)}."] if far else said


def _missing(block: Block) -> list[str]:
    said = []
    for row in block.rows:
        needed = [name for name in QUANTITIES if not (row["method"] == "retrain" and name == "tow")]
        names = [name if name != "tow" else "ToW" for name in needed if math.isnan(row[f"{name}_mean"])]
        if row["n_seeds"] < block.n_seeds or names:
            counts = f"{int(row['n_seeds'])} of {block.n_seeds} seeds"
            what = f"; {listed(names)} {MISSING}" if names else ""
            said.append(f"{row['label']} has complete results for {counts}{what}.")
    # a table without attacks or controls has none anywhere; one that lacks some rows' is incomplete
    parts = {
        "rmia_auc": ("attack in every seed on", block.rows),
        "refit_forget_mean": ("refit attack in every seed on", block.rows),
        "wrong_photos_tow_mean": ("wrong-photo control in every seed for", block.rivals),
    }
    for column, (what, rows) in parts.items():
        gone = [str(row["label"]) for row in rows if math.isnan(row[column])]
        if 0 < len(gone) < len(rows):
            said.append(f"No {what} {listed(gone)}.")
    return said


def _failed(block: Block) -> list[str]:
    return [
        f"{row['label']} {words} in {int(row[flag])} of {block.n_seeds} seeds."
        for row in block.rows
        for flag, words in FLAGS.items()
        if not pd.isna(row[flag]) and row[flag] > 0
    ]


_TOPICS: dict[str, Callable[[Block], list[str]]] = {
    "In short": _in_short,
    "To unlearn": _start,
    "Against doing nothing": _effect,
    "Ceiling": _ceiling,
    "Attack": reading_privacy.attack,
    "Features": reading_privacy.refit,
    "Photos": reading_privacy.photos,
    "Published": _published,
    "Missing": _missing,
    "Failed": _failed,
}
