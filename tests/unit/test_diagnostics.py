"""The one definition of saturated and of diverged."""

import math

import pytest
import torch

from oneshui.diagnostics import has_diverged, is_saturated
from oneshui.methods.base import Unlearned


@pytest.mark.parametrize(
    ("step", "simulated", "saturated"),
    [
        (2e-7, 0.0, False),
        (5e-8, 0.0, True),  # float32 cannot resolve it
        (9e-7, 1.5e-3, True),  # seen on real MUFAC: a thousandth of the simulated steps
        (1.6e-5, 1.5e-3, False),
        (1.4e-5, 1.5e-3, True),
        (math.nan, 1.5e-3, False),
    ],
)
def test_a_step_far_below_the_simulated_ones_forgets_nothing(step: float, simulated: float, saturated: bool) -> None:
    assert is_saturated(step, simulated) is saturated


@pytest.mark.parametrize(
    ("facts", "diverged"),
    [
        ({}, False),
        ({"finite": False}, True),
        ({"relative_step": 1.0}, False),
        ({"relative_step": 1.01}, True),
        ({"relative_step": math.nan}, True),
        ({"lost": 0.1}, False),
        ({"lost": 0.11}, True),
        ({"lost": math.nan}, True),
    ],
)
def test_a_model_diverges_by_its_numbers_its_step_or_what_it_lost(facts: dict[str, float], diverged: bool) -> None:
    assert has_diverged(**facts) is diverged  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        ({}, {}),
        ({"relative_step": 0.1}, {}),
        ({"relative_step": 1e-8}, {"saturated": True}),
        ({"relative_step": 1.5}, {"blown_up": True}),
        ({"relative_step": math.nan}, {"blown_up": True}),
        ({"relative_step": 1e-5, "saturated": True}, {"saturated": True}),  # the method knows more
    ],
)
def test_every_method_is_judged_by_its_step(told: dict[str, float | bool], flags: dict[str, bool]) -> None:
    found = Unlearned(torch.nn.Linear(2, 2), told).checked()
    assert {name: value for name, value in found.items() if name != "relative_step"} == flags


def test_weights_that_are_not_finite_are_divergence() -> None:
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    assert Unlearned(model).checked() == {"blown_up": True}
