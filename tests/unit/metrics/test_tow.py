"""Tug of war, equation 7."""

import math

import pytest

from oneshui.errors import DataError
from oneshui.metrics.tow import tug_of_war

REFERENCE = {"retain": 0.847, "forget": 0.786, "test": 0.808}


def test_tow_by_hand() -> None:
    values = {"retain": 0.75, "forget": 1.0, "test": 0.5}
    reference = {"retain": 1.0, "forget": 0.5, "test": 0.6}
    assert tug_of_war(values, reference) == pytest.approx(0.75 * 0.5 * 0.9)


def test_published_means_give_the_published_tow() -> None:
    # table 1, CelebA-HQ/20, pretrain: the mean of ToW is close to the ToW of the means
    values = {"retain": 0.848, "forget": 0.830, "test": 0.807}
    assert tug_of_war(values, REFERENCE) == pytest.approx(0.955, abs=0.002)


def test_equal_models_score_one_and_the_distance_is_symmetric() -> None:
    values = {"retain": 0.9, "forget": 0.7, "test": 0.8}
    assert tug_of_war(REFERENCE, REFERENCE) == 1.0
    assert tug_of_war(values, REFERENCE) == pytest.approx(tug_of_war(REFERENCE, values))


def test_other_splits_are_ignored() -> None:
    assert tug_of_war({**REFERENCE, "val": 0.1}, REFERENCE) == 1.0


@pytest.mark.parametrize("value", [-0.01, 1.01, 84.7, math.nan, math.inf])
@pytest.mark.parametrize("split", ["retain", "forget", "test"])
def test_values_outside_zero_to_one_are_refused(split: str, value: float) -> None:
    broken = {**REFERENCE, split: value}
    with pytest.raises(DataError, match=f"{split} of the model"):
        tug_of_war(broken, REFERENCE)
    with pytest.raises(DataError, match=f"{split} of the reference"):
        tug_of_war(REFERENCE, broken)


def test_a_missing_split_is_named() -> None:
    with pytest.raises(DataError, match="no value for 'forget'"):
        tug_of_war({"retain": 1.0, "test": 1.0}, REFERENCE)
