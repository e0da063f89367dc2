"""Attacks over seeds: the tidy summary, the columns of tables, and ROC curves."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oneshui.errors import DataError
from oneshui.metrics.roc import auc, tpr_at_fpr
from oneshui.report.attacks import COLUMNS, summarise
from oneshui.report.columns import NAMES
from oneshui.report.figures.roc import draw, from_files, roc_curves, steps
from oneshui.report.numbers import Numbers, index_attacks
from oneshui.report.tables import make_table
from oneshui.report.tables import values_of as values_of_model
from oneshui.report.write import to_latex, to_markdown
from oneshui.runs import Model
from oneshui.schemas import ATTACK, METRICS, write_table

SEEDS = [0, 1]
SPEC: dict[str, Any] = {
    "title": "Toy", "blocks": [{"dataset": "toy", "n": 2}], "methods": ["ssd", "scrub"], "decimals": 1, "privacy": True,
}  # fmt: skip


def attack(
    seed: int, row: str = "pretrain/ssd", shift: float = 1.0, **meta: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    draw = np.random.default_rng(seed)
    member = np.arange(300) < 40
    frame = pd.DataFrame({"image_id": range(300), "identity": np.arange(300) // 4, "is_member": member})
    frame["rmia"] = 1 / (1 + np.exp(-(draw.standard_normal(300) + member)))
    frame["loss_score"] = draw.standard_normal(300) - member
    tpr = {"tpr": 0.1 + 0.2 * seed, "gamma": 1.0, "a": 0.2}
    return frame, {"dataset": "toy", "n": 2, "seed": seed, "row": row, "published": tpr, "blown_up": "", **meta}


def values_of(summary: pd.DataFrame, seed: int | str, name: str, metric: str) -> Any:
    chosen = (summary["seed"] == str(seed)) & (summary["attack"] == name) & (summary["metric"] == metric)
    return summary[chosen]


def columns_of(summary: pd.DataFrame, model: str) -> dict[str, float]:
    """Return the columns of a table that come from attacks."""
    numbers = Numbers(Model.of(model), "accuracy", SEEDS, {}, *index_attacks(summary, "toy", 2, model), {})
    names = NAMES[NAMES.index("rmia_auc") : NAMES.index("refit_forget_mean")]
    return {name: value for name, value in values_of_model(numbers).items() if name in names}


def test_summary_has_each_seed_and_all_pooled() -> None:
    attacks = [attack(0), attack(1)]
    summary = summarise(attacks, seeds=SEEDS)
    assert list(summary.columns) == list(COLUMNS)
    pooled = pd.concat([frame for frame, _ in attacks])
    for seed, frame in ((0, attacks[0][0]), (1, attacks[1][0]), ("pooled", pooled)):
        scores, member, identity = (frame[name].to_numpy() for name in ("rmia", "is_member", "identity"))
        area = auc(scores, member, identity)
        found = values_of(summary, seed, "rmia", "auc").iloc[0]
        assert (found["value"], found["low"], found["high"]) == (area.value, area.low, area.high)
        rates = values_of(summary, seed, "rmia", "tpr").set_index("fpr")
        for fpr in (1e-4, 1e-3, 1e-2):
            rate = tpr_at_fpr(scores, member, fpr)
            assert rates.loc[fpr, ["value", "low", "high", "hits", "members"]].tolist() == [
                rate.tpr, rate.low, rate.high, rate.hits, member.sum(),
            ]  # fmt: skip
    loss, streisand = (values_of(summary, "pooled", name, "auc")["value"].iloc[0] for name in ("loss", "streisand"))
    assert loss == pytest.approx(1 - streisand) and streisand > 0.6  # members' losses were made large
    assert values_of(summary, 1, "published_protocol", "tpr")["value"].iloc[0] == pytest.approx(0.3)


def test_a_model_that_diverged_once_has_no_pooled_values(caplog: pytest.LogCaptureFixture) -> None:
    gone = attack(1, blown_up="the losses are not finite")[1]
    with caplog.at_level(logging.WARNING):
        summary = summarise([attack(0), (attack(1)[0].iloc[:0], gone), attack(0, "retrain"), attack(1, "retrain")],
                            seeds=SEEDS)  # fmt: skip
    assert "no attack in some of the seeds" in caplog.text
    assert set(summary.loc[summary["row"] == "pretrain/ssd", "seed"]) == {"0"}
    assert set(summary.loc[summary["row"] == "retrain", "seed"]) == {"0", "1", "pooled"}
    assert all(np.isnan(value) for value in columns_of(summary, "pretrain/ssd").values())


def test_the_same_attack_twice_is_an_error() -> None:
    with pytest.raises(DataError, match="two attacks on pretrain/ssd of toy, n = 2, seed 0"):
        summarise([attack(0), attack(0)], seeds=SEEDS)


def test_columns_of_a_table_are_pooled_percentages() -> None:
    summary = summarise([attack(0), attack(1)], seeds=SEEDS)
    columns = columns_of(summary, "pretrain/ssd")
    assert len(columns) == 27
    assert columns["rmia_auc"] == 100 * values_of(summary, "pooled", "rmia", "auc")["value"].iloc[0]
    rate = values_of(summary, "pooled", "rmia", "tpr").iloc[2]
    assert columns["rmia_tpr_at_0.01"] == 100 * rate["value"] and columns["rmia_tpr_at_0.01_hits"] == rate["hits"]
    assert (columns["members"], columns["non_members"]) == (80, 520)
    assert columns["smallest_fpr"] == pytest.approx(100 / 520)
    assert columns["published_protocol_tpr_mean"] == pytest.approx(20.0)
    assert columns["published_protocol_tpr_std"] == pytest.approx(100 * np.std([0.1, 0.3], ddof=1))
    assert all(np.isfinite(value) for value in columns.values())
    assert all(np.isnan(value) for value in columns_of(summary, "retrain").values())


def privacy_metrics(drop: tuple[str, ...] = ()) -> pd.DataFrame:
    """Metrics of all rows: ToW, refit values, and the wrong-photo control of ssd."""
    rows: list[tuple[Any, ...]] = []
    tow = {"pretrain": 0.6, "ceiling": 0.9, "ssd": 0.7, "scrub": 0.8}
    for seed in SEEDS:
        for origin, method in (("pretrain", "pretrain"), ("retrain", "retrain"), ("ceiling", "ceiling"),
                               ("pretrain", "ssd"), ("pretrain", "scrub"), ("wrong_photos", "ssd")):  # fmt: skip
            key = ("toy", 2, seed, origin, method)
            rows += [(*key, split, "accuracy", 0.5) for split in ("retain", "forget", "test")]
            if method != "retrain":
                value = tow[method] + 0.01 * seed - (0.02 * (1 + seed) if origin == "wrong_photos" else 0)
                rows.append((*key, "all", "tow", value))
            if origin != "wrong_photos":
                level = 0.4 if method in ("retrain", "ceiling") else 0.75
                rows += [(*key, "forget", "refit_accuracy", level + 0.05 * seed), (*key, "test", "refit_accuracy", 0.3)]
    frame = pd.DataFrame(rows, columns=list(METRICS.columns))
    return frame[~frame["metric"].isin(drop)]


def privacy_table(**change: Any) -> pd.DataFrame:
    rows = ("pretrain", "retrain", "ceiling", "pretrain/ssd", "pretrain/scrub")
    summary = summarise([attack(seed, row) for row in rows for seed in SEEDS], seeds=SEEDS)
    arguments = {"metrics": privacy_metrics(), "attacks": summary, **change}
    return make_table(arguments["metrics"], SPEC, None, arguments["attacks"], seeds=SEEDS, data_methods={"scrub"})


def test_privacy_table_has_the_ceiling_and_controls() -> None:
    table = privacy_table().set_index("method")
    assert table.index.tolist() == ["pretrain", "retrain", "ceiling", "ssd", "scrub"]
    assert set(table.reset_index().columns) == set(NAMES)
    assert table.loc["ceiling", "tow_mean"] == pytest.approx(90.5)
    assert table.loc["ssd", "refit_forget_mean"] == pytest.approx(77.5)
    assert table.loc["ssd", "refit_forget_minus_retrain_mean"] == pytest.approx(35.0)
    assert table.loc["ssd", "wrong_photos_tow_mean"] == pytest.approx(67.5)
    assert table.loc["ssd", "wrong_photos_minus_own_mean"] == pytest.approx(-3.0)
    # t quantile of one degree of freedom, standard deviation sqrt(2)
    assert table.loc["ssd", "wrong_photos_minus_own_ci95"] == pytest.approx(12.7062, rel=1e-4)
    assert np.isnan(table.loc["scrub", "wrong_photos_tow_mean"])
    assert table["rmia_auc"].between(50, 100).all()


def test_privacy_in_print() -> None:
    table = privacy_table()
    text = to_markdown(table, SPEC, seeds=SEEDS)
    row = next(line for line in text.split("Can an attacker tell?")[1].splitlines() if line.startswith("| SSD"))
    columns = table.set_index("method").loc["ssd"]
    interval = f"{columns['rmia_auc']:.1f} [{columns['rmia_auc_low']:.1f}, {columns['rmia_auc_high']:.1f}]"
    assert row.split(" | ")[1] == interval
    assert f"({int(columns['rmia_tpr_at_0.01_hits'])}/80)" in row.split(" | ")[4]
    controls = text.split("### Controls")[1].splitlines()
    assert "| SSD | 77.5 \u00b1 3.5 | 30.0 \u00b1 0.0 | 67.5 \u00b1 0.7 | +35.0 [+35.0, +35.0] | -3.0" in "\n".join(
        controls
    )
    scrub = next(line for line in controls if line.startswith("| SCRUB")).split(" | ")
    assert scrub[3] == "-" and scrub[5] == "- |"
    assert "80 forget against 520 test images" in text
    latex = to_latex(table, SPEC, seeds=SEEDS)
    assert "AUC & TPR at 0.01\\% FPR" in latex and f"${columns['rmia_auc']:.1f}$ [" in latex
    for part in latex.split(r"\begin{table}")[1:]:
        counts = {line.count(" & ") for line in part.splitlines() if " & " in line}
        assert len(counts) == 1


def test_what_is_missing_is_called_missing() -> None:
    table = privacy_table(attacks=summarise([], seeds=SEEDS), metrics=privacy_metrics(drop=("refit_accuracy",)))
    text = to_markdown(table, SPEC, seeds=SEEDS)
    row = next(line for line in text.split("Can an attacker tell?")[1].splitlines() if line.startswith("| SSD"))
    assert row == "| SSD |" + " missing |" * 7
    models = "Original model, Retrained model, Second retrained model, SSD and SCRUB"
    assert f"- **Warning**: {models} have no attack in every seed: the model or its reference diverged." in text
    row = next(line for line in text.split("### Controls")[1].splitlines() if line.startswith("| SSD"))
    assert row.startswith("| SSD | missing | missing | 67.5 \u00b1 0.7 | missing |")
    assert "& missing & missing &" in to_latex(table, SPEC, seeds=SEEDS)


def test_roc_curve_has_the_counted_points_and_their_band() -> None:
    attacks = [attack(seed, row) for row in ("pretrain", "retrain", "pretrain/ssd") for seed in SEEDS]
    points = roc_curves(attacks, SEEDS)
    figure = draw(points, ["pretrain", "retrain", "pretrain/ssd"])
    own = points[points["row"] == "pretrain/ssd"]
    pooled = pd.concat([attack(seed)[0] for seed in SEEDS])
    members, others = (pooled.loc[pooled["is_member"] == kind, "rmia"].to_numpy() for kind in (True, False))
    for fpr, tpr, low, high in own[["fpr", "tpr", "low", "high"]].itertuples(index=False):
        threshold = np.sort(others)[::-1][round(fpr * len(others))] if fpr < 1 else -1
        assert tpr == np.mean(members > threshold)
        assert low <= tpr <= high
    assert own["fpr"].is_monotonic_increasing and own["fpr"].iloc[0] == 0 and own["tpr"].iloc[-1] == 1
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["SSD"]


def test_roc_curve_of_a_model_that_lacks_a_seed_is_not_drawn() -> None:
    attacks = [attack(0), *(attack(seed, "pretrain") for seed in SEEDS)]
    points = roc_curves(attacks, SEEDS)
    assert set(points["row"]) == {"pretrain"}
    with pytest.raises(DataError, match="no attacked model has results for every seed"):
        roc_curves([attack(0)], SEEDS)


def test_a_drawn_roc_curve_never_claims_more_than_the_curve() -> None:
    fpr = np.array([0.0, 0.001, 0.004, 0.02, 0.3, 1.0])
    tpr = np.array([0.0, 0.05, 0.1, 0.4, 0.9, 1.0])
    x, (y,) = steps(pd.DataFrame({"fpr": fpr, "tpr": tpr}), ("tpr",), 0.0005, 0.025)
    assert x[0] == 0.0005 and x[-1] == 1 and y[-1] == 1 and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
    for place, height in zip(x, y, strict=True):
        # of all steps that begin up to this place the highest
        assert height <= max(0.025, tpr[fpr <= place * (1 + 1e-9)].max())
    for rate, height in zip(fpr[1:], tpr[1:], strict=True):  # where steps begin, to a hundredth of the axis
        assert np.log(x[y == height].min() / rate) == pytest.approx(0, abs=0.01 * np.log(2000))


def test_a_model_without_a_curve_in_a_setting_gets_a_panel_that_says_so() -> None:
    points = roc_curves([attack(seed, row) for row in ("pretrain", "pretrain/ssd") for seed in SEEDS], SEEDS)
    other = points[points["row"] == "pretrain"].assign(n=3)
    figure = draw(pd.concat([points, other]), ["pretrain", "pretrain/ssd"], {"ssd": "Own name"})
    assert [axes.get_title() for axes in figure.get_axes()] == ["Own name"] * 2
    assert [text.get_text() for axes in figure.get_axes() for text in axes.texts] == ["missing"]


def test_curves_are_of_the_blocks_of_the_figure_and_called_by_their_labels(tmp_path: Path) -> None:
    paths = []
    for n in (2, 3):
        for seed in SEEDS:
            for model in ("pretrain", "pretrain/ssd", "pretrain/own"):
                frame, meta = attack(seed, model, n=n)
                paths.append(tmp_path / f"{len(paths)}.parquet")
                write_table(paths[-1], frame[list(ATTACK.columns)], ATTACK, meta)
    spec = {"blocks": [{"dataset": "toy", "n": 3}], "labels": {"ssd": "Ours"}, "kinds": {"ssd": "ssd", "own": "jit"}}
    rows = ["pretrain", "retrain", "pretrain/ssd", "pretrain/own"]
    figure, points = from_files(paths, spec=spec, rows=rows, seeds=SEEDS)
    assert set(points["n"]) == {3}
    assert [axes.get_title() for axes in figure.axes] == ["Ours", "JiT"]
