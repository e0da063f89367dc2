"""What attacks and controls of a block say, in sentences; each function returns none where there is nothing to say."""

import math
from collections.abc import Sequence

from oneshui.report.reading_block import Block, Groups, Row, listed

_REFIT = "refit_forget_minus_retrain"
_PHOTOS = "wrong_photos_minus_own"


def attack(block: Block) -> list[str]:
    """Can the attack tell forget images from images that no model saw?"""
    rows = [row for row in block.rows if not math.isnan(row["rmia_auc"])]
    if not rows:
        return []
    found = {str(row["method"]): row for row in rows}
    said = []
    if block.area_side(found.get("retrain")) in (1, -1):
        said.append(
            "The attack tells forget images apart even on a model that was not trained on them "
            f"({block.areas([found['retrain']])}): it measures something else than membership here."
        )
    before = block.area_side(found.get("pretrain"))
    if before in (1, -1):
        said.append(f"Forget images are recognised if nothing is done: AUC of {block.areas([found['pretrain']])}.")
    elif before == 0:
        said.append(
            f"The attack cannot tell even if nothing is done (AUC of {block.areas([found['pretrain']])}, the interval "
            "contains 50), so that its failure on a method is no sign of unlearning."
        )
    words = {
        1: "It still can tell after",
        -1: "It can tell by the opposite sign, which is no better (AUC below 50), after",
        0: "Its AUC cannot be told from a guess (the interval contains 50) after",
    }
    for side, text in words.items():
        own = [row for row in block.methods if str(row["method"]) in found and block.area_side(row) == side]
        if own:
            said.append(f"{text} {block.areas(own)}.")
    return [*said, *_hits(rows), *_streisand(block)]


def _hits(rows: Sequence[Row]) -> list[str]:
    """What is found at 1% false alarms, where single hits are not everything."""
    column = "rmia_tpr_at_0.01_hits"
    known = [row for row in rows if not math.isnan(row[column])]
    if not known:
        return []
    members, others, smallest = (known[0][name] for name in ("members", "non_members", "smallest_fpr"))
    if smallest > 1:
        return [f"{int(others)} test images are too few for a false positive rate of 1%."]
    counts = listed(f"{row['label']} {int(row[column])}" for row in known)
    expected = members * (math.floor(0.01 * others) + 1) / (others + 1)
    return [
        f"At no more than 1% false alarms it finds, of {int(members)} forget images: {counts}; a guess would find "
        f"{expected:.1f}."
    ]


def _streisand(block: Block) -> list[str]:
    limit = block.printed(block.value("retrain", "streisand_auc_high"))
    loud = [row for row in block.methods if block.printed(row["streisand_auc_low"]) > limit]
    if not loud:
        return []
    return [
        "Large losses point at the people who asked (Streisand AUC, interval above the retrained model's) after "
        f"{block.areas(loud, 'streisand_auc')}."
    ]


def refit(block: Block) -> list[str]:
    """Do the features still know, whatever the last layer answers?"""
    found = block.split(block.methods, _REFIT)
    if not any(found[side] for side in (1, -1, 0, None)):
        return []
    said = []
    before = _of(block, "pretrain")
    if before.get(1):
        said.append(
            "If nothing is done, a new classifier on the features knows forget images better than one on the retrained "
            f"model's: {block.each(before[1], _REFIT)}."
        )
    elif before.get(0):
        said.append(
            f"A new classifier finds no difference even if nothing is done ({block.each(before[0], _REFIT)}), so that "
            "finding none in a method is no sign of unlearning."
        )
    top = _of(block, "ceiling")
    apart = [*top.get(1, []), *top.get(-1, [])]
    if apart:
        said.append(f"Even the ceiling differs ({block.each(apart, _REFIT)}): differences of that size are no trace.")
    words: dict[int | None, str] = {
        1: "The features still know after",
        0: "No difference to the retrained model's features can be told (the interval contains 0) after",
        -1: "The features know less than the retrained model's after",
        None: "Without an interval, so that nothing can be said of noise:",
    }
    return said + [f"{text} {block.each(found[side], _REFIT)}." for side, text in words.items() if found[side]]


def _of(block: Block, method: str) -> Groups:
    return block.split([block.of[method]], _REFIT) if method in block.of else {}


def photos(block: Block) -> list[str]:
    """Do photos of other people do as well?"""
    found = block.split(block.rivals, _PHOTOS)
    said = []
    if found[-1]:
        lower = block.each(found[-1], _PHOTOS)
        said.append(f"With photos of other people ToW is lower, so the photo mattered: {lower}.")
    if found[0]:
        said.append(
            "Wrong photos do as well, as far as these seeds can tell (the interval contains 0): "
            f"{block.each(found[0], _PHOTOS)}."
        )
        idle = block.split(found[0], "tow_minus_pretrain")[0]
        if idle:
            names = listed(str(row["label"]) for row in idle)
            said.append(
                f"That says little of {names}: no difference to doing nothing shows with the right ones either."
            )
    if found[1]:
        said.append(f"Wrong photos do better than the right ones: {block.each(found[1], _PHOTOS)}.")
    if found[None]:
        said.append(f"Without an interval, with photos of other people: {block.each(found[None], _PHOTOS)}.")
    return said


def in_short(block: Block) -> list[str]:
    """Attack, features and photos in one sentence of counts; only what is known is counted."""
    parts = []
    attacked = [row for row in block.rivals if block.area_side(row) is not None]
    if block.area_side(block.of.get("retrain")) in (1, -1):
        parts.append("the attack is not to be trusted here")
    elif block.area_side(block.of.get("pretrain")) == 0:
        parts.append("the attack recognises forget images after nothing, not even after doing nothing")
    elif attacked:
        still = sum(block.area_side(row) != 0 for row in attacked)
        parts.append(f"by AUC an attacker still recognises forget images after {still} of {len(attacked)}")
    for column, side, text in (
        (_REFIT, 1, "the features still know forget images after"),
        (_PHOTOS, -1, "photos of other people do worse for"),
    ):
        found = block.split(block.rivals, column)
        known = sum(len(found[each]) for each in (1, 0, -1))
        if known and column == _REFIT and _of(block, "pretrain").get(0):
            parts.append("the features tell nothing, not even after doing nothing")
        elif known:
            parts.append(f"{text} {len(found[side])} of {known}")
    sentence = "; ".join(parts)
    return [f"{sentence[0].upper()}{sentence[1:]}."] if parts else []
