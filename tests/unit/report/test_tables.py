"""Result tables: aggregation, published numbers, and the three ways to print them."""

import io
import logging
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from oneshui.errors import ConfigError, DataError
from oneshui.report.columns import COLUMNS, DASH, KEYS, NAMES, cards
from oneshui.report.tables import make_table, to_csv, to_tidy_csv
from oneshui.report.write import grid, to_latex, to_markdown
from oneshui.schemas import METRICS, write_table
from oneshui.stages.make_table import make_table as make_table_files

SEEDS = [0, 1, 2]
SPEC = {
    "title": "Faces & names",
    "blocks": [{"dataset": "celebahq", "n": 20}],
    "methods": ["ssd", "pgu", "metaunlearn", "scrub"],
    "decimals": 1,
    "privacy": False,
    "published": {"table": 1},
}
#: tug of war of seeds 0, 1, 2; retain, forget and test are the same for all methods
TOW = {
    "pretrain": (0.950, 0.940, 0.960),
    "ssd": (0.930, 0.960, 0.990),
    "pgu": (0.970, 0.970, 0.970),
    "metaunlearn": (0.975, 0.985, 0.995),
    "scrub": (0.990, 0.990, 0.990),
}
RETAIN = (0.84, 0.85, 0.86)
PUBLISHED = Path(__file__).parents[3] / "resources" / "paper" / "published_results.csv"


def metric_table(
    measure: str = "map", dataset: str = "celebahq", n: int = 20, seeds: list[int] = SEEDS, **flags: float
) -> pd.DataFrame:
    """Return METRICS rows of all methods; ``flags`` go to metaunlearn, seed 1."""
    rows: list[tuple[Any, ...]] = []
    for method in ("retrain", *TOW):
        origin = "retrain" if method == "retrain" else "pretrain"
        for seed in seeds:
            key = (dataset, n, seed, origin, method)
            rows += [
                (*key, "retain", measure, RETAIN[seed]),
                (*key, "forget", measure, 0.5),
                (*key, "test", measure, 0.8),
            ]
            rows += [(*key, "retain", "loss", 9.0), (*key, "retain", "n_images", 9.0)]
            if method != "retrain":
                rows.append((*key, "all", "tow", TOW[method][seed]))
            if method == "pgu":
                costs = {
                    "precompute_seconds": 10.0 + seed,
                    "precompute_peak_mb": 900.0,
                    "seconds": 0.5,
                    "peak_mb": 700.0,
                }
                rows += [(*key, "all", name, value) for name, value in costs.items()]
            if method == "metaunlearn":
                rows += [(*key, "all", name, value if seed == 1 else 0.0) for name, value in flags.items()]
    return pd.DataFrame(rows, columns=list(METRICS.columns))


def built(metrics: pd.DataFrame | None = None, **changes: Any) -> pd.DataFrame:
    arguments: dict[str, Any] = {"seeds": SEEDS, "data_methods": {"scrub"}, **changes}
    published = arguments.pop("published", None)
    spec = arguments.pop("spec", SPEC)
    return make_table(metric_table() if metrics is None else metrics, spec, published, **arguments)


def row_of(table: pd.DataFrame, method: str) -> Any:
    (position,) = table.index[table["method"] == method]
    return table.loc[position]


def published() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED)


def test_rows_are_pretrain_retrain_and_the_methods_in_order() -> None:
    table = built()
    assert list(table["method"]) == ["pretrain", "retrain", "ssd", "pgu", "metaunlearn", "scrub"]
    assert list(table.columns) == list(NAMES)
    assert set(table["measure"]) == {"map"}
    assert list(table["method"][table["access_to_data"]]) == ["scrub"]


def test_mean_and_std_over_seeds_in_percent() -> None:
    row = row_of(built(), "ssd")
    assert row["n_seeds"] == 3
    assert row["retain_mean"] == pytest.approx(85.0)
    assert row["retain_std"] == pytest.approx(1.0)  # ddof 1; ddof 0 would be 0.816
    assert (row["forget_mean"], row["test_mean"]) == (50.0, 80.0)
    assert row["tow_mean"] == pytest.approx(96.0)
    assert row["tow_std"] == pytest.approx(3.0)


def test_the_difference_to_pretrain_is_paired_by_seed() -> None:
    row = row_of(built(), "ssd")
    # seeds: 93 - 95, 96 - 94, 99 - 96
    assert row["tow_minus_pretrain_mean"] == pytest.approx(1.0)
    assert row["tow_minus_pretrain_std"] == pytest.approx(math.sqrt((9 + 1 + 4) / 2))
    # Student's t with 2 degrees of freedom, 97.5%: 4.302653
    assert row["tow_minus_pretrain_ci95"] == pytest.approx(4.302653 * math.sqrt(7) / math.sqrt(3), rel=1e-6)
    assert row_of(built(), "pretrain")["tow_minus_pretrain_mean"] == 0


def test_one_seed_has_no_spread() -> None:
    row = row_of(built(seeds=[1]), "ssd")
    assert row["tow_mean"] == pytest.approx(96.0)
    assert math.isnan(row["tow_std"])
    assert row["tow_minus_pretrain_mean"] == pytest.approx(2.0)
    assert math.isnan(row["tow_minus_pretrain_ci95"])
    markdown = to_markdown(built(seeds=[1]), SPEC, seeds=[1])
    assert "| SSD | 85.0 | 50.0 | 80.0 | 96.0 | +2.0 |" in markdown
    assert "\u00b1" not in markdown
    assert "$96.0$" in to_latex(built(seeds=[1]), SPEC, seeds=[1])


def test_the_order_of_metrics_does_not_matter() -> None:
    shuffled = metric_table().sample(frac=1, random_state=0)
    assert to_csv(built(shuffled)) == to_csv(built())


def test_reference_models_of_attacks_do_not_enter() -> None:
    shadow = metric_table()
    shadow = shadow[shadow["method"] == "ssd"].assign(origin="retrain", value=0.1)
    assert to_csv(built(pd.concat([metric_table(), shadow]))) == to_csv(built())


def test_published_numbers_of_table_1() -> None:
    row = row_of(built(published=published()), "ssd")
    names = ["retain", "retain_std", "forget", "forget_std", "test", "test_std", "tow", "tow_std"]
    assert [row[f"published_{name}"] for name in names] == [83.4, 0.6, 82.0, 3.1, 79.6, 0.5, 94.3, 1.3]
    assert row["tow_diff_in_published_std"] == pytest.approx((96.0 - 94.3) / 1.3)
    retrain = row_of(built(published=published()), "retrain")
    assert retrain["published_forget"] == 78.6
    assert math.isnan(retrain["published_tow"])


@pytest.mark.parametrize(
    ("number", "dataset", "n", "measure", "forget", "tow"),
    [
        (4, "celebahq", 1, "map", 88.2, 97.4),
        (2, "celeba", 10, "map", 82.9, 97.4),
        (3, "mufac", 5, "accuracy", 98.5, 70.8),
    ],
)
def test_published_numbers_of_other_tables(
    number: int, dataset: str, n: int, measure: str, forget: float, tow: float
) -> None:
    spec = {**SPEC, "blocks": [{"dataset": dataset, "n": n}], "published": {"table": number}}
    row = row_of(built(metric_table(measure, dataset, n), spec=spec, published=published()), "metaunlearn")
    assert (row["published_forget"], row["published_tow"]) == (forget, tow)


@pytest.mark.parametrize(
    ("dataset", "n", "measure"), [("synthetic", 20, "map"), ("celebahq", 7, "map"), ("mufac", 5, "map")]
)
def test_what_the_paper_does_not_have_stays_empty(dataset: str, n: int, measure: str) -> None:
    spec = {**SPEC, "blocks": [{"dataset": dataset, "n": n}]}
    table = built(metric_table(measure, dataset, n), spec=spec, published=published())
    assert table.filter(like="published").isna().all(axis=None)
    assert "published" not in to_markdown(table, spec, seeds=SEEDS)


def test_a_published_std_of_zero_gives_no_difference() -> None:
    frame = published()
    frame.loc[frame["metric"] == "tow", "std"] = 0.0
    assert math.isnan(row_of(built(published=frame), "ssd")["tow_diff_in_published_std"])


def without(method: str, seed: int | None = None) -> pd.DataFrame:
    metrics = metric_table()
    drop = metrics["method"] == method
    if seed is not None:
        drop &= metrics["seed"] == seed
    return metrics[~drop]


def test_a_missing_seed_is_never_averaged_away(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = built(without("ssd", 2))
    row = row_of(table, "ssd")
    assert row["n_seeds"] == 2
    assert row.filter(regex="(retain|forget|test|tow|pretrain)_(mean|std)$").isna().all()
    assert "ssd on celebahq, n = 20: no complete results for seeds [2]" in caplog.text
    assert row_of(table, "pgu")["n_seeds"] == 3
    markdown = to_markdown(table, SPEC, seeds=SEEDS)
    assert "| SSD | missing | missing | missing | missing | missing | - | missing |" in markdown
    assert "SSD has complete results for 2 of 3 seeds" in markdown
    assert r"SSD & missing & missing & missing & missing & missing & -- & missing \\" in to_latex(
        table, SPEC, seeds=SEEDS
    )


def test_one_missing_number_leaves_the_others() -> None:
    metrics = metric_table()
    drop = (metrics["method"] == "pgu") & (metrics["seed"] == 0) & (metrics["metric"] == "tow")
    row = row_of(built(metrics[~drop]), "pgu")
    assert row["n_seeds"] == 2
    assert row["retain_mean"] == pytest.approx(85.0)
    assert math.isnan(row["tow_mean"])


def test_a_missing_method_and_an_empty_table_say_so() -> None:
    row = row_of(built(without("ssd")), "ssd")
    assert row["n_seeds"] == 0
    empty = built(metric_table().iloc[:0])
    assert list(empty["n_seeds"]) == [0] * 6
    assert empty["measure"].isna().all()
    models = "Original model, Retrained model, SSD, PGU, MetaUnlearn and SCRUB"
    assert f"**Warning**: {models} have complete results for 0 of 3 seeds." in to_markdown(empty, SPEC, seeds=SEEDS)


def test_without_pretrain_there_is_no_difference() -> None:
    row = row_of(built(without("pretrain", 1)), "ssd")
    assert row["tow_mean"] == pytest.approx(96.0)
    assert math.isnan(row["tow_minus_pretrain_mean"])


def test_saturated_and_diverged_seeds_are_counted_and_warned_about() -> None:
    table = built(metric_table(saturated=1.0, blown_up=0.0))
    assert row_of(table, "metaunlearn")["saturated"] == 1
    assert row_of(table, "metaunlearn")["blown_up"] == 0
    assert pd.isna(row_of(table, "ssd")["saturated"])
    markdown = to_markdown(table, SPEC, seeds=SEEDS)
    assert "**Warning**: MetaUnlearn saturated (the step changed next to nothing) in 1 of 3 seeds." in markdown
    assert "diverged" not in markdown


def test_csv_can_be_read_back() -> None:
    table = built(metric_table(saturated=1.0), published=published())
    text = to_csv(table)
    again = pd.read_csv(io.StringIO(text))
    assert list(again.columns) == list(NAMES)
    assert again["tow_mean"].tolist()[2] == 96.0
    assert text.splitlines()[1].startswith(
        "celebahq,20,pretrain,Pretrain,map,False,3,85.0,1.0,50.0,0.0,80.0,0.0,95.0,1.0,"
    )


def test_markdown_is_a_table_with_a_note_per_block() -> None:
    text = to_markdown(built(published=published()), SPEC, seeds=SEEDS)
    lines = text.splitlines()
    assert lines[0] == "# Faces & names"
    assert "## CelebA-HQ, 20 identities (mAP, %)" in lines
    heads = "| Model | Retain | Forget | Test | ToW | Difference to the original model | Prepare | Unlearn |"
    assert f"{heads} ToW, difference to published |" in lines
    pm = "\u00b1"
    (retrain,) = (line for line in lines if line.startswith("| Retrained model |"))
    assert retrain.endswith("| - | - | - | - | - |") and f"| 50.0 {pm} 0.0 (78.6 {pm} " in retrain
    assert (
        f"<u>97.0 {pm} 0.0</u> (95.6 {pm} 0.6) | +2.0 [-0.5, +4.5] | 11 s, 900 MB | 0.5 s, 700 MB | +2.3 std |" in text
    )
    assert any(line.startswith(f"Mean {pm} standard deviation over 3 seeds, [95% interval] paired") for line in lines)
    assert "SCRUB (uses the training data)" in text and "Original model (no unlearning)" in text
    assert text.count("**") == 2  # only the best
    assert f"**98.5 {pm} 1.0**" in text
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_latex_says_what_is_published_and_how_far_that_is() -> None:
    table = built()
    table.loc[table["method"] == "ssd", ["published_tow", "published_tow_std", "tow_diff_in_published_std"]] = (
        90,
        2,
        1.5,
    )
    text = to_latex(table, SPEC, seeds=SEEDS)
    assert r"$96.0{\pm}3.0$ ($90.0{\pm}2.0$) & " in text and r" & $+1.5$ std \\" in text
    assert "In brackets: the published value." in text
    (pgu,) = (line for line in text.splitlines() if "PGU" in line)
    assert pgu.count("&") == text.splitlines()[6].count("&") and pgu.endswith(r"& -- \\")


def test_latex_marks_best_and_second_best_among_methods_without_data() -> None:
    text = to_latex(built(), SPEC, seeds=SEEDS)
    # scrub has 99.0 but needs the data
    assert re.findall(r"\\mathbf\{(.*?)\}\$", text) == [r"98.5{\pm}1.0"]
    assert re.findall(r"\\underline\{(.*?)\}\$", text) == [r"97.0{\pm}0.0"]
    scrub = r"SCRUB (uses the training data) & $85.0{\pm}1.0$ & $50.0{\pm}0.0$ & $80.0{\pm}0.0$ & $99.0{\pm}0.0$ & "
    assert scrub + r"$+4.0$ [$+1.5$, $+6.5$] & -- & missing \\" in text
    assert rf"Mean $\pm$ standard deviation over {len(SEEDS)} seeds" in text and "published" not in text
    assert r"\caption{Faces \& names. " in text
    assert text.count("{") == text.count("}")
    assert r"Retrained model & $85.0{\pm}1.0$ & $50.0{\pm}0.0$ & $80.0{\pm}0.0$ & -- & -- & -- & -- \\" in text


def test_what_is_kept_is_printed_where_it_is_known() -> None:
    metrics = metric_table()
    seconds = metrics[metrics["metric"] == "seconds"]
    sizes = {"artefact_mb": 12.5, "artefact_floats_per_person": 62314.5}
    more = [seconds.assign(metric=name, value=value) for name, value in sizes.items()]
    table = built(pd.concat([metrics, *more]))
    row = table.set_index("method").loc["pgu"]
    assert (row["artefact_mb"], row["artefact_floats_per_person"]) == (12.5, 62314.5)
    assert r"& $12.5$ MB, $62.3$ thousand numbers a person \\" in to_latex(table, SPEC, seeds=SEEDS)
    assert r"& $12.5$ MB \\" in to_latex(built(pd.concat([metrics, more[0]])), SPEC, seeds=SEEDS)


def test_costs_are_means_over_seeds_and_missing_where_a_seed_lacks_them() -> None:
    row = built().set_index("method").loc["pgu"]
    assert (row["precompute_s"], row["precompute_peak_mb"], row["unlearn_s"], row["unlearn_peak_mb"]) == (
        11.0, 900.0, 0.5, 700.0
    )  # fmt: skip
    assert r"& $11$ s, $900$ MB & $0.5$ s, $700$ MB \\" in to_latex(built(), SPEC, seeds=SEEDS)
    metrics = metric_table()
    part = metrics[~((metrics["metric"] == "seconds") & (metrics["seed"] == 1))]
    assert math.isnan(built(part).set_index("method").loc["pgu", "unlearn_s"])


def test_numbers_that_print_alike_share_a_rank() -> None:
    metrics = metric_table()
    metrics.loc[(metrics["method"] == "pgu") & (metrics["metric"] == "tow"), "value"] = 0.9852
    text = to_latex(built(metrics), SPEC, seeds=SEEDS)
    assert text.count(r"\mathbf") == 2
    assert re.findall(r"\\underline\{(.*?)\}\$", text) == [r"96.0{\pm}3.0"]


def test_pretrain_is_never_the_best_method() -> None:
    metrics = metric_table()
    metrics.loc[(metrics["method"] == "pretrain") & (metrics["metric"] == "tow"), "value"] = 1.0
    assert re.findall(r"(\w+) & .*mathbf", to_latex(built(metrics), SPEC, seeds=SEEDS)) == ["MetaUnlearn"]


def test_a_difference_of_nothing_has_no_minus() -> None:
    metrics = metric_table()
    same = metrics["method"].isin(["pretrain", "pgu"]) & (metrics["metric"] == "tow")
    metrics.loc[same, "value"] = 0.95
    metrics.loc[same & (metrics["method"] == "pgu"), "value"] -= 1e-5
    assert "+0.0 [+0.0, +0.0]" in to_markdown(built(metrics), SPEC, seeds=SEEDS)


def test_two_blocks_are_two_tables() -> None:
    spec = {**SPEC, "blocks": [{"dataset": "celebahq", "n": 20}, {"dataset": "mufac", "n": 1}]}
    table = built(pd.concat([metric_table(), metric_table("accuracy", "mufac", 1)]), spec=spec)
    assert list(table["measure"]) == ["map"] * 6 + ["accuracy"] * 6
    markdown = to_markdown(table, spec, seeds=SEEDS)
    assert "## MUFAC, 1 identity (accuracy, %)" in markdown
    assert to_latex(table, spec, seeds=SEEDS).count(r"\multicolumn") == 2


@pytest.mark.parametrize("key", ["title", "blocks", "methods", "decimals"])
def test_an_incomplete_specification_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"missing {key}"):
        built(spec={name: value for name, value in SPEC.items() if name != key})


def test_other_impossible_specifications_are_refused() -> None:
    block = {"dataset": "celebahq", "n": 20}
    with pytest.raises(ConfigError, match=r"missing blocks\[1\].n"):
        built(spec={**SPEC, "blocks": [block, {"dataset": "celeba"}]})
    with pytest.raises(ConfigError, match="each dataset and n once"):
        built(spec={**SPEC, "blocks": [block, block]})
    for seeds in ([], [0, 0]):
        with pytest.raises(ConfigError, match="seeds are"):
            built(seeds=seeds)


def test_contradicting_metrics_are_refused() -> None:
    with pytest.raises(DataError, match=r"several values of map .* seed 0"):
        built(pd.concat([metric_table(), metric_table()]))
    with pytest.raises(DataError, match="both map and accuracy"):
        built(pd.concat([metric_table(), metric_table("accuracy")]))


def test_damaged_published_results_are_refused() -> None:
    with pytest.raises(DataError, match=r"lack the columns \['variant'\]"):
        built(published=published().drop(columns="variant"))
    with pytest.raises(DataError, match="several times"):
        built(published=pd.concat([published(), published().head(1)]))


def test_published_numbers_stand_beside_the_published_kind() -> None:
    kinds = {"ssd": "jit", "pgu": "ssd"}
    table = built(spec={**SPEC, "kinds": kinds}, published=published())
    own = published().query("table == 1 and dataset == 'celebahq' and n_identities == 20 and metric == 'tow'")
    tow = own.set_index("method")["mean"]
    assert row_of(table, "ssd")["published_tow"] == tow["jit"] and row_of(table, "ssd")["label"] == "JiT"
    assert row_of(table, "pgu")["published_tow"] == tow["ssd"]
    table = built(spec={**SPEC, "kinds": {"pgu": "ssd"}}, published=published())
    assert row_of(table, "ssd")["published_tow"] == tow["ssd"]
    assert math.isnan(row_of(table, "pgu")["published_tow"])  # a variant of our own


def test_a_variant_is_held_against_its_own_published_number() -> None:
    variants = {"ssd": "first", "pgu": {"celebahq/n20": "second", "celebahq/n50": "first"}}
    spec = {**SPEC, "published": {"table": 5, "variants": variants}}
    table = built(spec=spec, published=published())
    assert row_of(table, "ssd")["published_tow"] == 8.3
    assert row_of(table, "pgu")["published_tow"] == 95.7
    assert math.isnan(row_of(table, "metaunlearn")["published_tow"])  # no row of table 5 without a variant


def test_ablation_has_a_row_per_method_and_a_column_per_block() -> None:
    blocks = [{"dataset": "celebahq", "n": 20}, {"dataset": "celebahq", "n": 50}]
    spec = {
        **SPEC, "blocks": blocks, "layout": "tow", "labels": {"ssd": "First & only"},
        "published": {"table": 5, "variants": {"ssd": "first", "pgu": "scrub_loss"}},
    }  # fmt: skip
    metrics = pd.concat([metric_table(), metric_table(n=50, seeds=[0, 1])])
    table = built(metrics, spec=spec, published=published())
    lines = to_markdown(table, spec, seeds=SEEDS).splitlines()
    assert "| Variant | CelebA-HQ, 20 identities | CelebA-HQ, 50 identities |" in lines
    pm = "\u00b1"
    assert f"| First & only | 96.0 {pm} 3.0 (8.3 {pm} 0.7) | missing (32.4 {pm} 33.4) |" in lines
    assert f"| PGU | <u>97.0 {pm} 0.0</u> (94.3 {pm} 0.2) | missing (none) |" in lines
    assert f"| MetaUnlearn | **98.5 {pm} 1.0** (none) | missing (none) |" in lines
    assert not any(line.startswith("| Retrained") for line in lines)
    models = "Original model, Retrained model, First & only, PGU, MetaUnlearn and SCRUB"
    assert f"- **Warning**: CelebA-HQ, 50 identities: {models} have complete results for 2 of 3 seeds." in lines
    latex = to_latex(table, spec, seeds=SEEDS)
    assert r"First \& only & $96.0{\pm}3.0$ ($8.3{\pm}0.7$) & missing ($32.4{\pm}33.4$) \\" in latex
    assert latex.count(r"\mathbf") == latex.count(r"\underline") == 1


def test_tidy_csv_has_every_number_once() -> None:
    table = built(metric_table(saturated=1.0), published=published())
    tidy = pd.read_csv(io.StringIO(to_tidy_csv(table)))
    numbers = [name for name in NAMES if name not in KEYS]
    assert len(tidy) == len(table) * len(numbers)
    wide = pd.read_csv(io.StringIO(to_csv(table))).set_index("method")
    for name in ("tow_mean", "published_mia", "unlearn_s"):
        own = tidy[tidy["quantity"] == name].set_index("method")["value"]
        pd.testing.assert_series_equal(own, wide[name], check_names=False, check_dtype=False)


def test_stage_writes_the_four_files(tmp_path: Path) -> None:
    parts = [tmp_path / f"{seed}.parquet" for seed in SEEDS]
    for seed, path in zip(SEEDS, parts, strict=True):
        write_table(path, metric_table(seeds=[seed]), METRICS, {"task": "multilabel"})
    outputs = [tmp_path / name for name in ("table1.csv", "table1_tidy.csv", "table1.md", "table1.tex")]
    make_table_files(parts, PUBLISHED, None, *outputs, name="table1", spec=SPEC, seeds=SEEDS, data_methods=["scrub"])
    table = built(published=published())
    expected = [
        to_csv(table),
        to_tidy_csv(table),
        to_markdown(table, SPEC, seeds=SEEDS),
        to_latex(table, SPEC, seeds=SEEDS),
    ]
    assert [path.read_text(encoding="utf-8") for path in outputs] == expected


def test_stage_without_any_metrics_writes_missing(tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("table1.csv", "table1_tidy.csv", "table1.md", "table1.tex")]
    make_table_files([], None, None, *outputs, name="table1", spec=SPEC, seeds=SEEDS, data_methods=[])
    assert outputs[2].read_text(encoding="utf-8").count("missing") >= 4


def test_stage_names_a_missing_published_file(tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("table1.csv", "table1_tidy.csv", "table1.md", "table1.tex")]
    with pytest.raises(DataError, match=r"nowhere.csv"):
        make_table_files(
            [], tmp_path / "nowhere.csv", None, *outputs, name="t", spec=SPEC, seeds=SEEDS, data_methods=[]
        )


def test_every_column_is_in_the_csv_once_and_can_be_printed() -> None:
    assert len(set(NAMES)) == len(NAMES) and NAMES[: len(KEYS)] == KEYS
    table = built(metric_table(saturated=1.0), published=published())
    for column in COLUMNS:
        assert set(column.names) <= set(table.columns)
        assert bool(column.view) == (column.form is not None) == bool(column.head)
        printed = grid(table, [column], 1) if column.view else []
        assert not column.view or [cell.text for cell in printed[0]] == ["Model", column.head]
        for row in table.to_dict("records"):
            assert column.text(row, 1) and (row["method"] not in column.not_for or column.text(row, 1) == DASH)


def test_every_card_has_a_section_with_the_formula() -> None:
    headings = re.findall(r"^#+ (.*)$", (PUBLISHED.parents[2] / "docs/metrics.md").read_text(encoding="utf-8"), re.M)
    assert len(cards()) > 10 and {card.title for card in cards()} <= set(headings)


def test_latex_says_what_failed_and_of_how_many_seeds() -> None:
    metrics = metric_table(saturated=1.0, blown_up=1.0)
    table = built(metrics[metrics["seed"] != 2])
    text = to_latex(table, SPEC, seeds=SEEDS)
    assert r"Mean $\pm$ standard deviation over 3 seeds" in text
    (note,) = (line for line in text.splitlines() if "Warning:" in line)
    for words in (
        "saturated (the",
        "diverged (the",
        "in 1 of 3 seeds.",
        "Retrained model, SSD, PGU, MetaUnlearn and SCRUB have complete results for 2 of 3 seeds.",
    ):
        assert words in note
    assert "Warning" not in to_latex(built(), SPEC, seeds=SEEDS)


def test_a_warning_names_its_setting_where_a_table_has_several() -> None:
    blocks = [{"dataset": "celebahq", "n": 20}, {"dataset": "celebahq", "n": 50}]
    spec = {**SPEC, "blocks": blocks, "layout": "tow"}
    table = built(pd.concat([metric_table(), metric_table(n=50, seeds=[0, 1])]), spec=spec)
    models = "Original model, Retrained model, SSD, PGU, MetaUnlearn and SCRUB"
    words = f"CelebA-HQ, 50 identities: {models} have complete results for 2 of 3 seeds."
    assert words in to_markdown(table, spec, seeds=SEEDS) and words in to_latex(table, spec, seeds=SEEDS)
    assert words in to_latex(table, {**SPEC, "blocks": blocks}, seeds=SEEDS)


def test_a_table_beside_none_of_the_paper_has_no_brackets() -> None:
    spec = {name: value for name, value in SPEC.items() if name != "published"} | {"layout": "tow"}
    for text in (to_markdown(built(), spec, seeds=SEEDS), to_latex(built(), spec, seeds=SEEDS)):
        assert "(none)" not in text and "rackets" not in text


def test_bold_is_explained_only_where_a_number_can_be_bold() -> None:
    spec = {**SPEC, "methods": ["scrub"]}
    assert "Bold" not in to_markdown(built(spec=spec), spec, seeds=SEEDS)
    assert "Bold" in to_markdown(built(), SPEC, seeds=SEEDS)


def test_labels_and_titles_come_out_as_text() -> None:
    spec = {**SPEC, "title": "A *b* #\n<i>", "labels": {"ssd": "a_b `c` $d$ |e| \\ [f](g) &amp; <h>", "pgu": "[*]"}}
    text = to_markdown(built(spec=spec), spec, seeds=SEEDS)
    assert text.splitlines()[0] == r"# A \*b\* \# \<i\>"
    assert r"| a\_b \`c\` \$d\$ \|e\| \\ [f]\(g) \&amp; \<h\> | " in text
    lost = built(without("ssd", 2), spec={**spec, "labels": {"ssd": "- x"}})
    assert "**Warning**: - x has complete results" in to_markdown(lost, spec, seeds=SEEDS)
    latex = to_latex(built(spec=spec), spec, seeds=SEEDS)
    assert r"\caption{A *b* \# \textless{}i\textgreater{}. " in latex and "\n    {[}*] & " in latex


def test_a_verdict_that_starts_with_a_dash_is_no_list() -> None:
    metrics = metric_table()
    metrics.loc[(metrics["method"] == "ssd") & (metrics["metric"] == "tow"), "value"] = 0.99
    metrics.loc[(metrics["method"] == "pretrain") & (metrics["metric"] == "tow"), "value"] = 0.5
    metrics.loc[(metrics["method"] == "retrain") & (metrics["split"] == "forget"), "value"] = 0.3
    spec = {**SPEC, "methods": ["ssd"], "labels": {"ssd": "- x"}}
    assert "\n\\- x is better than" in to_markdown(built(metrics, spec=spec), spec, seeds=SEEDS)
    spec["labels"] = {"ssd": "1. x"}
    assert "\n1\\. x is better than" in to_markdown(built(metrics, spec=spec), spec, seeds=SEEDS)
