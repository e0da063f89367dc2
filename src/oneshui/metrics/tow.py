"""Tug of war: one number for how closely a model behaves like the one that was trained without the forget set."""

from collections.abc import Mapping

from oneshui.errors import DataError

#: the three sets that equation 7 compares
TOW_SPLITS = ("retain", "forget", "test")


def tug_of_war(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Return the product over retain, forget and test set of 1 - |value - reference|.

    Args:
        values: accuracy or mAP of the unlearned model on each split, fractions; other keys are ignored.
        reference: the same of the retrained model.

    Returns:
        Tug of war in [0, 1]; 1 if both models do equally well on all three sets.

    Raises:
        DataError: a split is missing, or a value is outside [0, 1] or NaN.

    Source:
        The paper's equation 7, after Zhao et al., 2024b.
    """
    product = 1.0
    for split in TOW_SPLITS:
        product *= 1.0 - abs(_fraction(values, split, "model") - _fraction(reference, split, "reference"))
    return product


def _fraction(values: Mapping[str, float], split: str, owner: str) -> float:
    if split not in values:
        raise DataError(f"tug of war: the {owner} has no value for {split!r}, needed: {', '.join(TOW_SPLITS)}")
    value = float(values[split])
    if not 0.0 <= value <= 1.0:  # also refuses NaN
        raise DataError(f"tug of war: {split} of the {owner} is {value}, allowed: 0 to 1. Divide percentages by 100.")
    return value
