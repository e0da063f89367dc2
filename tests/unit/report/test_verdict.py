"""The verdict of a setting: a sentence is said if, and only if, the numbers say so."""

import math
from typing import Any

import pandas as pd
import pytest

from oneshui.report.columns import NAMES
from oneshui.report.verdict import CAVEATS, RESULTS, Facts, listed, side_of, verdict

LABELS = {"pretrain": "Pretrain", "retrain": "Retrain", "ceiling": "Ceiling", "ssd": "SSD", "pgu": "PGU",
          "scrub": "SCRUB", "jit": "JiT"}  # fmt: skip


def row(method: str, **numbers: Any) -> dict[str, Any]:
    """Return a row of a table of three seeds with a complete main part and neither attacks nor controls."""
    values: dict[str, Any] = dict.fromkeys(NAMES, math.nan)
    values |= {"dataset": "toy", "n": 5, "method": method, "label": LABELS[method], "measure": "accuracy"}
    values |= {"access_to_data": method == "scrub", "n_seeds": 3}
    values |= {f"{name}_mean": 60.0 for name in ("retain", "forget", "test", "tow")}
    values |= {"tow_minus_pretrain_mean": 0.0, "tow_minus_pretrain_ci95": 0.0}
    return values | numbers


def gain(method: str, mean: float, half: float, **numbers: Any) -> dict[str, Any]:
    return row(method, tow_minus_pretrain_mean=mean, tow_minus_pretrain_ci95=half, **{"tow_mean": 60 + mean, **numbers})


def area(method: str, low: float, high: float, **numbers: Any) -> dict[str, Any]:
    return row(method, rmia_auc=(low + high) / 2, rmia_auc_low=low, rmia_auc_high=high, **numbers)


def photos(mean: float, half: float) -> dict[str, float]:
    return {"wrong_photos_minus_own_mean": mean, "wrong_photos_minus_own_ci95": half}


def probe(method: str, mean: float, half: float) -> dict[str, Any]:
    return row(method, refit_forget_minus_retrain_mean=mean, refit_forget_minus_retrain_ci95=half)


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return these rows below those of an original and a retrained model."""
    given = {each["method"] for each in rows}
    trained = [row("pretrain", forget_mean=90.0), row("retrain", forget_mean=50.0, tow_mean=math.nan)]
    return pd.DataFrame([*(each for each in trained if each["method"] not in given), *rows], columns=list(NAMES))


def said(*rows: dict[str, Any], n_seeds: int = 3) -> str:
    return " ".join(verdict(table(*rows), n_seeds=n_seeds, decimals=1))


LOST = dict.fromkeys(("tow_mean", "tow_minus_pretrain_mean", "tow_minus_pretrain_ci95"), math.nan)
#: case -> rows in which it is the first that applies, seeds, its sentence
SAYINGS: dict[str, tuple[list[dict[str, Any]], int, str]] = {
    "no reference": ([row("pretrain", forget_mean=math.nan), gain("ssd", 9, 1)], 3,
                     "The original or the retrained model has no result, so nothing can be compared."),
    "nothing to forget": ([row("retrain", forget_mean=90.04, tow_mean=math.nan), gain("ssd", 9, 1)], 3,
                          "In these seeds there is nothing to forget: on forget images the original model is no better "
                          "than the retrained one."),
    "no results": ([row("ssd", **LOST)], 3, "No method has results in every seed."),
    "one seed": ([gain("ssd", 30.0, math.nan, n_seeds=1)], 1,
                 "There is one seed and so no interval: no method can be called better or worse."),
    "only methods with data": ([gain("scrub", 9, 1)], 3, "All methods use the training data (not comparable)."),
    "no results without data": ([row("ssd", **LOST), gain("scrub", 9, 1)], 3,
                                "No method without the training data has results in every seed, but with the data "
                                "SCRUB is better (not comparable)."),
    "better": ([gain("ssd", 4.0, 3.0), gain("pgu", 4.0, 5.0)], 3,
               "SSD is better than the original model: +4.0 [+1.0, +7.0] points of ToW."),
    "worse": ([gain("ssd", -40.0, 3.0), gain("pgu", 4.0, 5.0)], 3,
              "No method is better than the original model; SSD is worse."),
    "alike": ([gain("ssd", 1.01, 2.0), gain("pgu", 1.0, 2.0)], 3, "All methods have the same ToW, 61.0%."),
    "better with data": ([gain("ssd", 1.0, 2.0), gain("scrub", 20.0, 1.0)], 3,
                         "Only methods that use the training data beat the original model (not comparable): SCRUB."),
    "no difference": ([gain("ssd", 4.0, 5.0), gain("pgu", -1.0, 5.0)], 3,
                      "No method is better than the original model beyond noise."),
    "photos do not matter": ([gain("ssd", 4.0, 3.0, **photos(0.5, 2.0))], 3,
                             "The photo does not matter: wrong photos do as well."),
    "problems": ([gain("ssd", 4, 5, saturated=1), gain("pgu", 1, 5, blown_up=2)], 3,
                 "Problems: SSD saturated in 1 of 3 seeds; PGU diverged in 2 of 3 seeds."),
    "no room": ([gain("ssd", 4, 5), row("ceiling", tow_mean=60.0)], 3,
                "The second retrained model is no nearer than the original model: noise is as large as what there is "
                "to gain."),
    "attack on never seen": ([area("retrain", 55, 65, tow_mean=math.nan, forget_mean=50.0), area("ssd", 40, 60)], 3,
                             "The attack is unreliable: it also works on the retrained model, which never saw the "
                             "images."),
    "attack fails": ([area("pretrain", 48, 56, forget_mean=90.0), area("ssd", 40, 60)], 3,
                     "The attack is inconclusive: it fails even on the original model."),
    "attack works": ([area("pretrain", 65, 75, forget_mean=90.0), area("ssd", 55, 65), area("pgu", 45, 55)], 3,
                     "The attack still recognises the forget images after 1 of 2 methods."),
    "streisand": ([area("pretrain", 65, 75, forget_mean=90.0),
                   row("retrain", forget_mean=50.0, tow_mean=math.nan, streisand_auc_high=55.0),
                   area("ssd", 40, 55, streisand_auc_low=55.1), area("pgu", 40, 55, streisand_auc_low=55.0)], 3,
                  "Large losses point at the forget images after SSD, more than in the retrained model."),
    "features know": ([area("pretrain", 48, 56, forget_mean=90.0), probe("ssd", 5.0, 4.0), probe("pgu", 5.0, 6.0)], 3,
                      "The features still know the forget images after 1 of 2 methods."),
    "attack finds nothing": ([area("pretrain", 65, 75, forget_mean=90.0), area("ssd", 40, 55)], 3,
                             "The attack works on the original model, but not clearly after any method."),
}  # fmt: skip


@pytest.mark.parametrize("case", SAYINGS)
def test_a_case_is_said_where_it_is_the_first_that_applies(case: str) -> None:
    rows, n_seeds, sentence = SAYINGS[case]
    facts = Facts(table(*rows), n_seeds, 1)
    cases = RESULTS if case in [name for name, _, _ in RESULTS] else CAVEATS
    assert next(name for name, applies, _ in cases if applies(facts)) == case
    assert sentence in verdict(table(*rows), n_seeds=n_seeds, decimals=1)


def test_every_case_is_tested() -> None:
    assert set(SAYINGS) == {name for name, _, _ in (*RESULTS, *CAVEATS)}


@pytest.mark.parametrize("case", SAYINGS)
def test_a_verdict_is_at_most_two_short_sentences(case: str) -> None:
    rows, n_seeds, _ = SAYINGS[case]
    sentences = verdict(table(*rows), n_seeds=n_seeds, decimals=1)
    assert 1 <= len(sentences) <= 2
    for sentence in sentences:
        assert sentence.endswith(".") and len(sentence.split()) <= 25


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [(0.1, 2, 1), (0.04, 2, 0), (0.0, 2, 0), (-2, 3, 0), (-3, -0.1, -1), (-3, -0.04, 0), (math.nan, math.nan, None)],
)
def test_an_interval_that_prints_as_touching_zero_contains_it(low: float, high: float, side: int | None) -> None:
    assert side_of(low, high, 1) == side


def test_noise_is_never_called_an_effect() -> None:
    for half in (4.0, 4.04, 50.0, math.nan):
        found = said(gain("ssd", 4.0, half), gain("pgu", -4.0, half))
        assert "SSD" not in found and "worse" not in found and "points" not in found
    assert "SSD is better" in said(gain("ssd", 4.0, 3.9))


def test_several_methods_that_are_better_are_counted_and_the_best_is_named() -> None:
    found = said(gain("ssd", 4.0, 3.0), gain("pgu", 6.0, 1.0))
    assert (
        found == "2 of 2 methods are better than the original model, most of all PGU: +6.0 [+5.0, +7.0] points of ToW."
    )
    assert "SSD and PGU are worse" in said(gain("ssd", -40.0, 3.0), gain("pgu", -20.0, 3.0))


def test_methods_with_the_data_are_no_rivals() -> None:
    found = said(gain("ssd", 4.0, 3.0), gain("scrub", 20.0, 1.0))
    assert "SSD is better" in found and "SCRUB" not in found


def test_what_is_missing_is_named() -> None:
    assert "Problems: SSD has missing results." in said(row("ssd", n_seeds=2, **LOST), gain("pgu", 3, 1))
    assert "Problems: Retrained model has missing results." in said(row("retrain", n_seeds=2), gain("pgu", 3, 1))
    assert "missing" not in said(gain("pgu", 3, 1))


def test_what_is_found_of_several_methods_is_said_once() -> None:
    found = said(gain("ssd", 4, 5, blown_up=2), gain("pgu", 1, 5, saturated=1), gain("jit", 1, 5, blown_up=2))
    assert "Problems: SSD and JiT diverged in 2 of 3 seeds; PGU saturated in 1 of 3 seeds." in found
    lost = said(row("retrain", n_seeds=2), row("ssd", n_seeds=2, **LOST), gain("pgu", 3, 1))
    assert "Problems: Retrained model and SSD have missing results." in lost


def test_an_area_below_a_guess_is_no_success() -> None:
    found = said(area("pretrain", 65, 75, forget_mean=90.0), area("ssd", 25, 35), area("pgu", 45, 55))
    assert "after 1 of 2 methods" in found


def test_an_attack_that_works_after_no_method_is_no_proof() -> None:
    found = said(area("pretrain", 65, 75, forget_mean=90.0), area("ssd", 45, 55), area("pgu", 49.96, 55))
    assert found.endswith("The attack works on the original model, but not clearly after any method.")
    assert said(area("pretrain", 65, 75, forget_mean=90.0), area("ssd", 55, 65)).endswith("images after SSD.")


def test_lists_of_names() -> None:
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]


def test_what_is_said_of_methods_without_the_data_says_so() -> None:
    found = said(gain("ssd", -10, 1), gain("scrub", 40, 2))
    assert found == (
        "No method without the training data is better than the original model; SSD is worse, but with the data "
        "SCRUB is better (not comparable)."
    )
    found = said(gain("ssd", -10, 20), gain("pgu", -10, 20), gain("scrub", 30, 2))
    assert found.startswith("All methods without the training data have the same ToW, 50.0%, but with the data SCRUB")
    lost = row("ssd", n_seeds=2, **LOST)
    found = said(lost, gain("scrub", -40, 2))
    assert found.startswith("No method without the training data has results in every seed.")
    assert said(gain("ssd", 1, 2), gain("scrub", -40, 2)).startswith("No method without the training data is better")
    assert "seed" in said(lost, gain("scrub", 40, math.nan), n_seeds=1) and "better" not in said(lost, n_seeds=1)


def test_a_count_says_what_it_counts() -> None:
    rows = [gain("ssd", 4.0, 3.0), gain("pgu", 6.0, 1.0), row("jit", n_seeds=2, **LOST)]
    assert said(*rows).startswith("2 of 2 methods with results are better")
    assert said(*rows, gain("scrub", 4, 1)).startswith("2 of 2 methods without the training data with results are")


def test_wrong_photos_take_a_better_method_its_worth_only_if_they_do_as_well() -> None:
    def found(mean: float, half: float) -> str:
        return said(gain("ssd", 4.0, 3.0, **photos(mean, half)), gain("pgu", 4.0, 3.0))

    assert found(1.0, 5.0).endswith("The photo does not matter to SSD: wrong photos do as well.")
    assert found(2.0, 1.0).endswith("wrong photos do as well.")
    for mean, half in ((-4.0, 3.0), (-4.0, 50.0), (1.0, math.nan)):
        assert "photo" not in found(mean, half)
    assert "photo" not in said(gain("ssd", -4.0, 3.0, **photos(0.0, 1.0)))
