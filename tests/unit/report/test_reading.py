"""Sentences about tables: each is claimed if, and only if, the numbers say so."""

import math
from typing import Any

import pandas as pd
import pytest

from oneshui.report.reading import about_seeds, reading
from oneshui.report.reading_block import listed, side_of
from oneshui.report.tables import COLUMNS

LABELS = {
    "pretrain": "Pretrain",
    "retrain": "Retrain",
    "ceiling": "Ceiling",
    "ssd": "SSD",
    "pgu": "PGU",
    "scrub": "SCRUB",
}


def row(method: str, **numbers: Any) -> dict[str, Any]:
    """Return a row of a table of three seeds with a complete main part and neither attacks nor controls."""
    values: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    values |= {"dataset": "toy", "n": 5, "method": method, "label": LABELS[method], "measure": "accuracy"}
    values |= {"access_to_data": method == "scrub", "n_seeds": 3}
    values |= {f"{name}_mean": 60.0 for name in ("retain", "forget", "test", "tow")}
    values |= {"tow_minus_pretrain_mean": 0.0, "tow_minus_pretrain_ci95": 0.0}
    return values | numbers


def gain(method: str, mean: float, half: float, **numbers: Any) -> dict[str, Any]:
    numbers = {"tow_mean": 60 + mean, **numbers}
    return row(method, tow_minus_pretrain_mean=mean, tow_minus_pretrain_ci95=half, **numbers)


def area(method: str, value: float, low: float, high: float, **numbers: Any) -> dict[str, Any]:
    return row(method, rmia_auc=value, rmia_auc_low=low, rmia_auc_high=high, **numbers)


def said(*rows: dict[str, Any], n_seeds: int = 3) -> dict[str, str]:
    """Return what is said of each topic, about these rows and a pretrained and a retrained model."""
    given = {each["method"] for each in rows}
    trained = [row("pretrain", forget_mean=90.0), row("retrain", forget_mean=50.0, tow_mean=math.nan)]
    table = pd.DataFrame([*(each for each in trained if each["method"] not in given), *rows], columns=list(COLUMNS))
    return {found.topic: " ".join(found.sentences) for found in reading(table, n_seeds=n_seeds)}


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [(0.1, 2, 1), (0.04, 2, 0), (0.0, 2, 0), (-2, 3, 0), (-3, -0.1, -1), (-3, -0.04, 0), (math.nan, math.nan, None)],
)
def test_an_interval_that_prints_as_touching_zero_contains_it(low: float, high: float, side: int | None) -> None:
    assert side_of(low, high, 1) == side


def test_an_effect_is_claimed_only_beyond_noise() -> None:
    found = said(gain("ssd", 4.0, 3.0), gain("pgu", 4.0, 5.0))
    better, open_ = found["Against doing nothing"].split("Cannot be told")
    assert "SSD +4.0 [+1.0, +7.0]" in better and "PGU" not in better
    assert "PGU +4.0 [-1.0, +9.0]" in open_ and "no proof" in open_
    assert "Of 2 methods without access to the data, 1 beat doing nothing" in found["In short"]
    assert "1 cannot be told from doing nothing (n_seeds = 3)" in found["In short"]


def test_nothing_is_claimed_where_every_interval_contains_zero() -> None:
    found = said(gain("ssd", 4.0, 5.0), gain("pgu", -1.0, 5.0))
    assert found["In short"].startswith("None of 2 methods without access to the data can be told from doing nothing")
    assert "Better" not in str(found) and "Worse" not in str(found)


def test_what_is_worse_is_called_worse() -> None:
    found = said(gain("ssd", -40.0, 3.0))
    assert "Worse, beyond the noise between seeds: SSD -40.0 [-43.0, -37.0]" in found["Against doing nothing"]
    assert "beat" not in found["In short"]


def test_one_seed_claims_nothing() -> None:
    found = said(gain("ssd", 30.0, math.nan, n_seeds=1), n_seeds=1)
    assert "beyond" not in str(found)
    assert "Without an interval" in found["Against doing nothing"]
    assert "nothing can be told from noise (n_seeds = 1)" in found["In short"]
    assert "no order of methods" in about_seeds(1)
    assert "4.3 standard errors" in about_seeds(3)


def test_methods_with_the_data_are_no_rivals() -> None:
    found = said(gain("ssd", 0.0, 1.0), gain("scrub", 20.0, 1.0))
    assert "None of 1 method without" in found["In short"] and "SCRUB" not in found["In short"]
    assert "With the training data at hand, and so no rivals: SCRUB +20.0 [+19.0, +21.0] (better)" in str(found)


def test_how_much_there_is_to_unlearn() -> None:
    assert "90.0%" in said()["To unlearn"] and "40.0 points to unlearn" in said()["To unlearn"]
    found = said(row("retrain", forget_mean=95.0, tow_mean=math.nan))
    assert "nothing to unlearn" in found["To unlearn"]


def test_distance_to_the_ceiling() -> None:
    found = said(gain("ssd", 15.0, 1.0), gain("pgu", 31.0, 1.0), row("ceiling", tow_mean=90.0))["Ceiling"]
    assert "PGU 1.0 above and SSD 15.0 below" in found
    assert "Of the 30.0 points between doing nothing and the ceiling PGU makes up 31.0 (103%)" in found
    noise = said(gain("ssd", 15.0, 20.0), row("ceiling", tow_mean=90.0))["Ceiling"]
    assert "what the highest, SSD, makes up cannot be told from noise" in noise and "%" not in noise
    none = said(gain("ssd", -1.0, 5.0), row("ceiling", tow_mean=90.0))["Ceiling"]
    assert "no method makes up any" in none


def test_a_method_without_results_is_named_in_the_headline() -> None:
    found = said(gain("ssd", math.nan, math.nan), gain("pgu", 1.0, 5.0))["In short"]
    assert "None of 1 method without access to the data with results (SSD missing) can be told from" in found


def test_a_ceiling_that_is_no_better_than_doing_nothing_shows_nothing() -> None:
    found = said(gain("ssd", 1.0, 0.1), row("ceiling", tow_mean=60.0))["Ceiling"]
    assert "cannot show progress" in found and "makes up" not in found


def test_an_attack_is_believed_only_where_it_works_on_the_pretrained_model() -> None:
    blind = said(area("pretrain", 52, 48, 56), area("ssd", 51, 47, 55))
    assert "no sign of unlearning" in blind["Attack"]
    assert "after nothing, not even after doing nothing" in blind["In short"]
    found = said(area("pretrain", 70, 65, 75), area("ssd", 51, 47, 55), area("pgu", 60, 55, 65))
    assert "no sign" not in found["Attack"]
    assert "It still can tell after PGU 60.0 [55.0, 65.0]." in found["Attack"]
    assert (
        "Its AUC cannot be told from a guess (the interval contains 50) after SSD 51.0 [47.0, 55.0]." in found["Attack"]
    )
    assert "recognises forget images after 1 of 2" in found["In short"]


def test_an_area_below_a_guess_is_no_success() -> None:
    found = said(area("pretrain", 70, 65, 75), area("ssd", 30, 25, 35))
    assert "opposite sign" in found["Attack"] and "cannot tell" not in found["Attack"]
    assert "after 1 of 1" in found["In short"]


def test_an_attack_that_recognises_what_was_never_seen_is_distrusted() -> None:
    found = said(area("retrain", 60, 55, 65), area("pretrain", 70, 65, 75), area("ssd", 51, 47, 55))
    assert "something else than membership" in found["Attack"]
    assert "not to be trusted" in found["In short"]


def test_hits_stand_beside_what_a_guess_would_find() -> None:
    counts = {"rmia_tpr_at_0.01_hits": 5.0, "members": 80.0, "non_members": 999.0, "smallest_fpr": 0.1001}
    found = said(
        area("pretrain", 70, 65, 75, **counts), area("ssd", 60, 55, 65, **{**counts, "rmia_tpr_at_0.01_hits": 2.0})
    )
    assert (
        "of 80 forget images: Pretrain 5 and SSD 2; a guess would find 0.8." in found["Attack"]
    )  # 80 * (9 + 1) / 1000
    few = said(area("pretrain", 70, 65, 75, **{**counts, "non_members": 50.0, "smallest_fpr": 2.0}))
    assert "too few" in few["Attack"] and "a guess would" not in few["Attack"]


def test_a_model_made_to_fail_on_those_who_ask_points_at_them() -> None:
    loud = {"streisand_auc": 80.0, "streisand_auc_low": 75.0, "streisand_auc_high": 85.0}
    quiet = {"streisand_auc": 55.0, "streisand_auc_low": 50.0, "streisand_auc_high": 60.0}
    found = said(
        area("retrain", 50, 45, 55, **quiet), area("ssd", 50, 45, 55, **loud), area("pgu", 50, 45, 55, **quiet)
    )
    assert "point at the people who asked" in found["Attack"]
    assert found["Attack"].endswith("after SSD 80.0 [75.0, 85.0].")


def refit(method: str, mean: float, half: float) -> dict[str, Any]:
    numbers = {
        "refit_forget_mean": 60.0,
        "refit_forget_minus_retrain_mean": mean,
        "refit_forget_minus_retrain_ci95": half,
    }
    return row(method, **numbers)


def test_features_that_still_know() -> None:
    found = said(refit("pretrain", 30, 5), refit("ssd", 20, 5), refit("pgu", 2, 5))
    assert "The features still know after SSD +20.0 [+15.0, +25.0]." in found["Features"]
    assert (
        "No difference to the retrained model's features can be told (the interval contains 0) after PGU"
        in found["Features"]
    )
    assert "eatures still know forget images after 1 of 2" in found["In short"]
    blind = said(refit("pretrain", 3, 5), refit("ssd", 2, 5))
    assert "no sign of unlearning" in blind["Features"]
    assert "eatures tell nothing, not even after doing nothing" in blind["In short"]


def test_a_ceiling_whose_features_differ_sets_the_scale() -> None:
    found = said(refit("pretrain", 30, 5), refit("ceiling", 10, 5), refit("ssd", 9, 5))
    assert "Even the ceiling differs (Ceiling +10.0 [+5.0, +15.0])" in found["Features"]


def photo(method: str, mean: float, half: float, tow: float, tow_half: float) -> dict[str, Any]:
    numbers = {"wrong_photos_tow_mean": 60.0, "wrong_photos_minus_own_mean": mean, "wrong_photos_minus_own_ci95": half}
    return gain(method, tow, tow_half, **numbers)


def test_wrong_photos() -> None:
    found = said(photo("ssd", -8, 2, 10, 1), photo("pgu", -1, 2, 0.5, 1))
    assert "the photo mattered: SSD -8.0 [-10.0, -6.0]." in found["Photos"]
    assert "Wrong photos do as well, as far as these seeds can tell (the interval contains 0): PGU" in found["Photos"]
    assert "says little of PGU" in found["Photos"]
    assert "hotos of other people do worse for 1 of 2" in found["In short"]
    effective = said(photo("ssd", -1, 2, 10, 1))
    assert "says little" not in effective["Photos"]
    assert "better than the right ones: SSD" in said(photo("ssd", 8, 2, 10, 1))["Photos"]


def test_published_values() -> None:
    found = said(gain("ssd", 1, 1, tow_diff_in_published_std=-1.9), gain("pgu", 1, 1, tow_diff_in_published_std=3.04))
    assert "in 1 of 2 rows" in found["Published"] and "Further away: PGU +3.0." in found["Published"]


def test_what_is_missing_is_named() -> None:
    lost = row("ssd", tow_mean=math.nan, n_seeds=2, tow_minus_pretrain_mean=math.nan, tow_minus_pretrain_ci95=math.nan)
    found = said(lost, gain("pgu", 3, 1))
    assert found["Missing"] == "SSD has complete results for 2 of 3 seeds; ToW missing."
    assert "SSD" not in found["Against doing nothing"]
    assert "Of 1 method without" in found["In short"]
    gone = said(area("pretrain", 70, 65, 75), area("retrain", 50, 45, 55), row("ssd"))
    assert gone["Missing"] == "No attack in every seed on SSD."
    assert "missing" in said(row("pretrain", forget_mean=math.nan))["To unlearn"]


def test_a_table_without_attacks_says_nothing_of_them() -> None:
    assert set(said(gain("ssd", 3, 1))) == {"In short", "To unlearn", "Against doing nothing"}


def test_what_failed_is_named() -> None:
    found = said(gain("ssd", 3, 1, saturated=0, blown_up=2))
    assert found["Failed"] == "SSD blew up (its step destroyed the model) in 2 of 3 seeds."


def test_each_block_is_read_by_itself() -> None:
    rows = [row("pretrain", n=n, forget_mean=80.0 + n) for n in (5, 10)]
    rows += [row("retrain", n=n, forget_mean=50.0, tow_mean=math.nan) for n in (5, 10)]
    found = reading(pd.DataFrame(rows), n_seeds=3)
    starts = {each.n: each.sentences[0] for each in found if each.topic == "To unlearn"}
    assert "35.0 points" in starts[5] and "40.0 points" in starts[10]


def test_lists_of_names() -> None:
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
