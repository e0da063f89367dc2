"""Figures: the points that are written are the numbers that came in, and same figure means same bytes."""

import itertools
import json
import math
import re
import struct
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.report.figures import KINDS, draw
from oneshui.report.figures.bars import table_bars
from oneshui.report.figures.in_turn import in_turn
from oneshui.report.figures.save import save_figure, svg_of
from oneshui.report.figures.sweep import sweep
from oneshui.report.figures.tow import tow_gains
from oneshui.report.figures.training import read_history, training_curves
from oneshui.report.style import (
    COLOURS,
    INKS,
    METHOD_NAMES,
    RC,
    colours_of,
    figure_name,
    legible,
    method_labels,
    method_name,
)
from oneshui.schemas import METRICS, write_table
from oneshui.stages.make_figure import make_figure

METHODS = ["pretrain", "retrain", "ssd", "own_method"]


def table(blocks: tuple[tuple[str, int], ...] = (("mufac", 5), ("toy", 1))) -> pd.DataFrame:
    rows = []
    for i, (dataset, n) in enumerate(blocks):
        for j, method in enumerate(METHODS):
            row = {"dataset": dataset, "n": n, "method": method, "label": method_name(method), "measure": "accuracy"}
            for k, name in enumerate(("retain", "forget", "test", "tow")):
                row |= {f"{name}_mean": 90.0 - 10 * i - 2 * j - k, f"{name}_std": 1.0 + 0.1 * j}
            rows.append(row)
    frame = pd.DataFrame(rows)
    frame.loc[frame["method"] == "retrain", ["tow_mean", "tow_std"]] = np.nan
    return frame


def history(role: str = "pretrain", seed: int = 0, n: int | None = None, best: int = 2) -> dict[str, Any]:
    epochs = [
        {
            "epoch": e,
            "lr": 0.1,
            "train_loss": 1 / (e + 1),
            "train_measure": 0.5 + e / 10,
            "val_loss": 1.0,
            "val_measure": e / 10,
        }
        for e in range(4)
    ]
    label = f"toy/seed{seed}/{role}" if n is None else f"toy/n{n}/seed{seed}/{role}"
    run = {"label": label, "dataset": "toy", "seed": seed, "n": n, "role": role}
    return {**run, "measure": "accuracy", "best_epoch": best, "history": epochs}


def write_model(path: Path, header: Mapping[str, Any]) -> Path:
    """Write a safetensors file without tensors."""
    text = json.dumps({"__metadata__": {"oneshui": json.dumps(header)}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def header_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header of a model that was trained so."""
    training = {name: run[name] for name in ("history", "best_epoch", "measure")}
    return {**{name: run[name] for name in ("dataset", "n", "seed", "role")}, "training": training}


def test_bar_points_are_the_numbers_of_the_table() -> None:
    source = table()
    _, points = table_bars(source)
    assert len(points) == 2 * (4 * 3 + 3)
    assert points["seed"].isna().all()
    for point in points.to_dict("records"):
        row = source[(source["dataset"] == point["dataset"]) & (source["method"] == point["method"])].iloc[0]
        assert point["value"] == row[f"{point['quantity']}_mean"]
        assert point["std"] == row[f"{point['quantity']}_std"]


def test_bars_are_as_high_as_the_numbers() -> None:
    figure, _ = table_bars(table((("toy", 1),)))
    bars = [each for each in figure.axes[0].containers if isinstance(each, BarContainer)]
    heights = sorted(bar.get_height() for each in bars for bar in each)
    assert heights == sorted(90.0 - 2 * j - k for j in range(4) for k in range(3))


def test_single_seeds_are_points_too() -> None:
    seeds = pd.DataFrame({"dataset": "toy", "n": 1, "method": "ssd", "seed": [0, 1]})
    seeds = seeds.assign(retain=[80.0, 81.0], forget=[70.0, 71.0], test=[60.0, 61.0], tow=[50.0, 51.0])
    _, points = table_bars(table((("toy", 1),)), seeds)
    dots = points[points["seed"].notna()]
    found = {(row["quantity"], row["seed"]): row["value"] for row in dots.to_dict("records")}
    assert found == {(q, s): seeds[q][s] for q in ("retain", "forget", "test", "tow") for s in (0, 1)}


def test_missing_numbers_are_written_as_missing() -> None:
    source = table((("toy", 1),))
    columns = [name for name in source.columns if name.endswith(("_mean", "_std"))]
    source.loc[source["method"] == "ssd", columns] = np.nan
    figure, points = table_bars(source)
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["missing"] * 4
    assert points.loc[points["method"] == "ssd", "value"].isna().all()


def test_a_table_read_from_csv_can_be_drawn(tmp_path: Path) -> None:
    source = table((("toy", 1),))
    source.to_csv(tmp_path / "table.csv", index=False)
    outputs = [tmp_path / f"figure.{suffix}" for suffix in ("pdf", "png", "csv")]
    make_figure([tmp_path / "table.csv"], *outputs, name="figure", spec={"kind": "table_bars"}, rows=[], seeds=[0])
    _, points = table_bars(source)
    written = pd.read_csv(outputs[2])
    pd.testing.assert_frame_equal(written, points, check_dtype=False)
    assert outputs[0].read_bytes().startswith(b"%PDF")
    assert outputs[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.csv", "figure.pdf", "figure.png", "table.csv"]


def test_the_same_figure_has_the_same_bytes_and_no_date(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_figure(*table_bars(table((("toy", 1),)).head(2)), tmp_path / f"{name}.pdf")
    for suffix in (".pdf", ".png", ".csv"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


def test_a_failing_figure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pdf").write_text("old")
    figure, points = training_curves([history()])

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, points, tmp_path / "a.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]
    assert (tmp_path / "a.pdf").read_text() == "old"


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    table_bars(table((("toy", 1),)))
    training_curves([history()])
    assert dict(matplotlib.rcParams) == before


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()  # inches, of all that is drawn, on the page or not
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height
    for text in figure.findobj(Text):
        assert isinstance(text, Text) and float(text.get_fontsize()) >= 7


def test_all_methods_fit_on_the_page() -> None:
    long = [*METHOD_NAMES, "metaunlearn_without_identities", "identity_codes"]
    frame = pd.concat(
        [table((("toy", 1),)).head(1).assign(method=method, label=method_name(method)) for method in long],
        ignore_index=True,
    )
    assert_nothing_is_cut_off(table_bars(frame)[0])


def test_all_runs_fit_on_the_page() -> None:
    runs = [history(seed=seed) for seed in range(3)]
    runs += [history("retrain", seed, n) for seed in range(3) for n in (1, 20, 50)]
    assert_nothing_is_cut_off(training_curves(runs)[0])


def test_curve_points_are_the_history() -> None:
    runs = [history(), history("retrain", n=5, best=3)]
    _, points = training_curves(runs)
    assert list(points["model"].unique()) == ["toy/seed0/pretrain", "toy/n5/seed0/retrain"]
    for run in runs:
        own = points[points["model"] == run["label"]].reset_index(drop=True)
        for name in ("epoch", "train_loss", "train_measure", "val_loss", "val_measure"):
            assert own[name].tolist() == [each[name] for each in run["history"]]
        assert own.loc[own["is_best"], "epoch"].tolist() == [run["best_epoch"]]


def test_curves_are_solid_for_pretrained_and_dashed_for_retrained_models() -> None:
    figure, _ = training_curves([history(), history("retrain", n=5), history(seed=1)])
    left, right = figure.axes
    assert [line.get_linestyle() for line in left.lines] == ["-", "--", "-"]
    assert left.lines[0].get_color() == left.lines[1].get_color() != left.lines[2].get_color()
    assert np.asarray(left.lines[0].get_ydata()).tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert np.asarray(right.lines[1].get_ydata()).tolist() == [0, 10, 20, 30]  # validation, in percent
    assert np.asarray(right.lines[2].get_xydata()).tolist() == [[2, 20]]  # best epoch


def test_stage_reads_histories_from_model_files(tmp_path: Path) -> None:
    runs = [history(), history("retrain", n=5)]
    models = [write_model(tmp_path / f"{i}.safetensors", header_of(run)) for i, run in enumerate(runs)]
    outputs = [tmp_path / f"figure.{suffix}" for suffix in ("pdf", "png", "csv")]
    make_figure(models, *outputs, name="figure", spec={"kind": "training_curves"}, rows=[], seeds=[0])
    written = pd.read_csv(outputs[2])
    pd.testing.assert_frame_equal(written, training_curves(runs)[1], check_dtype=False)
    assert read_history(models[1]) == runs[1]


@pytest.mark.parametrize("change", [{"training": None}, {"training": "text"}, {"training": {"history": []}}])
def test_a_model_without_history_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_model(tmp_path / "pretrain.safetensors", {**header_of(history()), **change})
    with pytest.raises(CheckpointError, match="no training history"):
        read_history(path)
    path = write_model(path, {name: part for name, part in header_of(history()).items() if name != "seed"})
    with pytest.raises(CheckpointError, match="'seed'"):
        read_history(path)


def test_empty_or_incomplete_input_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        table_bars(table().iloc[:0])
    with pytest.raises(DataError, match="without any model"):
        training_curves([])
    with pytest.raises(DataError, match="toy/seed0/pretrain has no epoch"):
        training_curves([{**history(), "history": []}])
    with pytest.raises(DataError, match="has no val_measure"):
        short = [{k: v for k, v in each.items() if k != "val_measure"} for each in history()["history"]]
        training_curves([{**history(), "history": short}])
    with pytest.raises(ConfigError, match="15 runs"):
        training_curves([history(seed=seed) for seed in range(15)])


def test_a_figure_without_inputs_is_refused(tmp_path: Path) -> None:
    outputs = [tmp_path / f"figure.{suffix}" for suffix in ("pdf", "png", "csv")]
    with pytest.raises(ConfigError, match="table_bars needs table and metrics, but has no input"):
        make_figure([], *outputs, name="figure", spec={"kind": "table_bars"}, rows=[], seeds=[0])


def test_dots_are_the_values_of_single_seeds(tmp_path: Path) -> None:
    rows = [
        {"dataset": "toy", "n": 1, "seed": seed, "origin": "pretrain", "method": method, "split": split,
         "metric": "tow" if split == "all" else "accuracy", "value": 0.5 + seed / 10 + place / 100}
        for seed in (0, 1)
        for method in table()["method"].unique()
        for place, split in enumerate(("retain", "forget", "test", "val", "all"))
    ]  # fmt: skip
    metrics = tmp_path / "metrics.parquet"
    write_table(metrics, pd.DataFrame(rows), METRICS, {})
    source = tmp_path / "table.csv"
    table((("toy", 1),)).to_csv(source, index=False)
    outputs = [tmp_path / f"figure.{suffix}" for suffix in ("pdf", "png", "csv")]
    make_figure([source, metrics], *outputs, name="figure", spec={"kind": "table_bars"}, rows=[], seeds=[0])
    points = pd.read_csv(outputs[2])
    dots = points[points["seed"].notna() & (points["method"] == "ssd")].set_index(["quantity", "seed"])["value"]
    assert dots.round(6).to_dict() == {
        ("retain", 0): 50.0, ("retain", 1): 60.0, ("forget", 0): 51.0, ("forget", 1): 61.0,
        ("test", 0): 52.0, ("test", 1): 62.0, ("tow", 0): 54.0, ("tow", 1): 64.0,
    }  # fmt: skip


def test_a_method_keeps_its_colour_in_every_figure() -> None:
    assert set(COLOURS) == set(METHOD_NAMES)
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert colours_of(["ssd", "zzz"])["ssd"] == colours_of(["aaa", "ssd"])["ssd"] == legible(COLOURS["ssd"], "light")
    mixed = colours_of([*COLOURS, "b", "a"])
    assert len(set(mixed.values())) == len(mixed)
    assert colours_of(["a", "b"]) == colours_of(["b", "a"])
    with pytest.raises(ConfigError, match="9 methods without a colour"):
        colours_of([f"m{i}" for i in range(9)])
    again = colours_of([f"m{i}" for i in range(9)], repeat=True)
    assert again["m8"] == again["m0"] and len(set(again.values())) == 8


def test_no_two_methods_look_the_same_on_paper() -> None:
    """A yellow that is made legible is olive, as a spare colour was."""
    names = [*COLOURS, *(f"other_{number}" for number in range(8))]
    shown = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours_of(names).values()]
    for one, other in itertools.combinations(shown, 2):
        assert math.dist(one, other) > 40


def test_the_report_takes_more_methods_than_there_are_colours() -> None:
    rows = pd.concat([gains().tail(1).assign(method=f"m{i}", label=f"m{i}") for i in range(12)])
    figure, _ = tow_gains(rows, 1) or (Figure(), "")
    assert {f"m{i}" for i in range(12)} <= {text.get_text() for text in figure.axes[0].get_yticklabels()}


def test_font_sizes_can_be_read_at_column_width() -> None:
    assert min(value for name, value in RC.items() if name.endswith("size") and "major" not in name) >= 7


def test_every_kind_has_a_module_that_reads_its_files() -> None:
    for kind in KINDS.values():
        assert callable(import_module(f"oneshui.report.figures.{kind.module}").from_files)
        assert set(kind.needs) <= {"table", "metrics", "models", "attacks", "identities"}


def test_an_image_of_the_page_is_the_figure_with_two_sets_of_colours() -> None:
    svg = svg_of(table_bars(table((("toy", 1),)))[0])
    assert svg == svg_of(table_bars(table((("toy", 1),)))[0])  # same figure, same bytes
    root = ElementTree.fromstring(svg)
    words = {"".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Original model", "Retrained model", "SSD", "toy, 1 identity", "retain images"} <= words  # text stays text
    light, night = re.findall(r"svg\{(.*?)\}", svg)
    assert "--c000000:#000000" in light and f"--c000000:{INKS['dark']}" in night
    assert "Date" not in svg and "metadata" not in svg


def test_a_name_is_drawn_as_it_is_written() -> None:
    assert figure_name("ssd", "$x^2") == r"\$x^2" and len(figure_name("ssd", "x" * 99)) == 30
    assert figure_name("pretrain", "Pretrain") == "Original model"
    for label in (r"$\frac{1}", "#abcdef; 0.12345"):
        figure, _ = tow_gains(gains(label=label), 1) or (Figure(), "")
        assert f">{label}</text>" in svg_of(figure)


def gains(half: float = 1.0, **change: Any) -> pd.DataFrame:
    """Return a setting with a method of +2, one of +90 with a wide interval that uses the data, and a noise floor."""
    rows = [("pretrain", 0.0, 0.0), ("ssd", 2.0, half), ("scrub", 90.0, 400.0), ("ceiling", 30.0, 5.0)]
    frame = pd.DataFrame(rows, columns=["method", "tow_minus_pretrain_mean", "tow_minus_pretrain_ci95"])
    frame = frame.assign(label=frame["method"].str.upper(), access_to_data=frame["method"] == "scrub")
    return frame.assign(
        **{name: frame["label"].where(frame["method"] != "ssd", value) for name, value in change.items()}
    )


def test_the_picture_of_a_setting_shows_gains_intervals_and_the_noise_floor() -> None:
    figure, words = tow_gains(gains(), 1) or (Figure(), "")
    assert words.endswith("SSD +2.0 [+1.0, +3.0]; SCRUB +90.0 [-310.0, +490.0]; second retrained model +30.0")
    (axes,) = figure.axes
    lines = {tuple(map(float, line.get_xdata())) for line in axes.lines}
    assert {(0.0, 0.0), (30.0, 30.0), (1.0, 3.0), (2.0,), (90.0,)} <= lines
    low, high = axes.get_xlim()
    assert (low, high) in lines and low > -60 and high < 160  # a long interval is cut at the ends of the axis
    assert [text.get_text() for text in axes.get_yticklabels()] == ["SSD", "SCRUB"]
    assert axes.texts[0].get_text() == "use the training data (not comparable):"
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("half", "full"), [(1.0, True), (2.0, False), (math.nan, False)])
def test_a_dot_is_full_only_if_its_interval_leaves_out_zero(half: float, full: bool) -> None:
    figure, _ = tow_gains(gains(half), 1) or (Figure(), "")
    (dot,) = (line for line in figure.axes[0].lines if list(line.get_xdata()) == [2.0])
    assert (dot.get_markerfacecolor() != "#ffffff") == full


def test_a_setting_without_results_has_no_picture() -> None:
    assert tow_gains(gains().assign(tow_minus_pretrain_mean=math.nan), 1) is None
    some = gains()
    some.loc[some["method"] == "ssd", "tow_minus_pretrain_mean"] = math.nan
    figure, words = tow_gains(some, 1) or (Figure(), "")
    assert "SSD missing" in words and "missing" in [text.get_text() for text in figure.axes[0].texts]


def test_a_kind_decides_label_and_colour_and_not_a_name() -> None:
    assert method_labels(["ssd"], None, {"ssd": "jit"}) == {"ssd": "JiT"}
    assert method_labels(["ssd", "own"], None, {"own": "ssd"}) == {"ssd": "ssd", "own": "own"}
    assert method_labels(["ssd", "own"], {"own": "Ours"}, {"own": "ssd"}) == {"ssd": "SSD", "own": "Ours"}
    assert method_labels(["mine"], None, {"mine": "my.module:Mine"}) == {"mine": "mine"}
    colours = colours_of(["pretrain", "ssd", "ssd2", "own"], {"ssd": "jit", "ssd2": "ssd", "own": "ssd"})
    assert colours["ssd"] == legible(COLOURS["jit"], "light") and colours["ssd2"] == legible(COLOURS["ssd"], "light")
    assert len(set(colours.values())) == 4 and "own" in colours


def metric_rows(n: int) -> pd.DataFrame:
    """Return metrics of a method with and without its own photos, at 50% and 10%."""
    rows = [
        {"dataset": "toy", "n": n, "seed": 0, "origin": origin, "method": "ssd", "split": split,
         "metric": "tow" if split == "all" else "accuracy", "value": value}
        for origin, value in (("pretrain", 0.5), ("wrong_photos", 0.1))
        for split in ("retain", "forget", "test", "all")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_bars_draw_the_blocks_of_the_figure_with_the_labels_of_the_table(tmp_path: Path) -> None:
    source = table((("toy", 1), ("toy", 2)))
    source.loc[source["method"] == "ssd", "label"] = "Ours"
    source.to_csv(tmp_path / "table.csv", index=False)
    write_table(tmp_path / "metrics.parquet", pd.concat(map(metric_rows, (1, 2))), METRICS, {})
    spec = {"kind": "table_bars", "blocks": [{"dataset": "toy", "n": 2}]}
    inputs = [tmp_path / "table.csv", tmp_path / "metrics.parquet"]
    figure, points = draw(inputs, name="figure", spec=spec, rows=[], seeds=[0])
    assert set(points["n"]) == {2} and set(points.loc[points["seed"].notna(), "value"]) == {50.0}
    assert [text.get_text() for text in figure.legends[0].get_texts()][2] == "Ours"
    assert "Ours" in [text.get_text() for text in figure.axes[1].get_yticklabels()]
    with pytest.raises(DataError, match="no rows"):
        draw(inputs, name="figure", spec={**spec, "blocks": [{"dataset": "toy", "n": 3}]}, rows=[], seeds=[0])


# ---- sweeps


def swept(*settings: tuple[str, int]) -> pd.DataFrame:
    frame = table(settings or (("mufac", 1), ("mufac", 5), ("toy", 10)))
    place = np.arange(len(frame), dtype=float)
    return frame.assign(
        refit_forget_mean=50 + place, refit_forget_std=2.0, kl_to_retrained_mean=np.nan, kl_to_retrained_std=np.nan,
        artefact_floats_per_person=np.where(frame["method"].isin(["ssd", "own_method"]), 10.0 ** (place + 1), np.nan),
    )  # fmt: skip


@pytest.mark.parametrize("along", ["people", "gap"])
def test_a_sweep_has_a_point_for_every_mean_of_the_table(along: str) -> None:
    frame = swept(*([("mufac", 1), ("mufac", 5), ("mufac", 10)] if along == "people" else []))
    figure, points = sweep(frame, along)
    forget = frame.pivot(index=["dataset", "n"], columns="method", values="forget_mean")
    for quantity, count in (("tow", 9), ("refit_forget", 12)):  # the retrained model has no ToW
        own = points[points["quantity"] == quantity]
        assert len(own) == count
        for point in own.itertuples():
            row = frame[(frame["dataset"] == point.dataset) & (frame["n"] == point.n)]
            row = row[row["method"] == point.method].iloc[0]
            assert (point.value, point.std) == (row[f"{quantity}_mean"], row[f"{quantity}_std"])
            gap = forget.loc[(point.dataset, point.n), "pretrain"] - forget.loc[(point.dataset, point.n), "retrain"]
            assert point.x == (point.n if along == "people" else gap)
    assert [axes.get_title("left") for axes in figure.axes] == ["ToW (%)", "Linear probe on forget images (%)"]


def test_trained_models_are_level_lines_where_one_setting_is_shown() -> None:
    frame = swept(("mufac", 10))
    figure, points = sweep(frame, "kept")
    kept = points[(points["quantity"] == "tow") & points["x"].notna()]
    assert dict(zip(kept["method"], kept["x"], strict=True)) == {"ssd": 1e3, "own_method": 1e4}
    level = [line.get_ydata() for line in figure.axes[0].lines if list(line.get_xdata()) == [0, 1]]
    assert [list(map(float, each)) for each in level] == [[frame.loc[0, "tow_mean"]] * 2]
    _, points = sweep(frame, "compared")
    side_by_side = points[(points["quantity"] == "tow") & points["x"].notna()]
    assert dict(zip(side_by_side["method"], side_by_side["x"], strict=True)) == {"ssd": 0.0, "own_method": 1.0}


def test_a_figure_of_one_setting_refuses_several() -> None:
    with pytest.raises(DataError, match=r"kind people shows one dataset; the table has 2\. Name one"):
        sweep(swept(), "people")
    with pytest.raises(DataError, match=r"kind kept shows one setting; the table has 3\. Name one"):
        sweep(swept(), "kept")
    with pytest.raises(DataError, match="no method of this table says how much it keeps"):
        sweep(swept(("toy", 1)).assign(artefact_floats_per_person=np.nan), "kept")


# ---- in turn


def served_in_turn() -> tuple[pd.DataFrame, dict[str, list[object]]]:
    """Return a table with ssd, ssd one by one and ssd in parts of 5, each ten points below the last."""
    frame = swept(("mufac", 1), ("mufac", 10))
    frame = frame[frame["method"] != "own_method"]
    ssd = frame[frame["method"] == "ssd"]
    parts = [ssd.assign(method=f"ssd_by_{k}", label=f"SSD by {k}", tow_mean=ssd["tow_mean"] - 10 * k) for k in (1, 5)]
    return pd.concat([frame, *parts], ignore_index=True), {"ssd_by_1": ["ssd", 1], "ssd_by_5": ["ssd", 5]}


def test_those_who_ask_in_turn_are_beside_those_who_ask_together() -> None:
    frame, of = served_in_turn()
    figure, points = in_turn(frame, of, {"ssd_by_1": "ssd", "ssd_by_5": "ssd"})
    tow = points[(points["quantity"] == "tow") & (points["of"] == "ssd")]
    assert set(zip(tow["method"], tow["in_turn"], strict=True)) == {("ssd", 0), ("ssd_by_1", 1), ("ssd_by_5", 5)}
    for point in tow.itertuples():
        row = frame[(frame["n"] == point.n) & (frame["method"] == point.method)].iloc[0]
        assert (point.value, point.std) == (row["tow_mean"], row["tow_std"])
    assert not points.loc[points["method"].isin(["pretrain", "retrain"]), "of"].any()
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[:3] == ["together", "in parts of 5", "one by one"] and "Original model" in said
    drawn = [container.lines[0] for container in figure.axes[0].containers]  # together, one by one, in parts of 5
    assert [line.get_ydata()[0] for line in drawn] == [tow[(tow["n"] == 1) & (tow["in_turn"] == k)]["value"].item()
                                                      for k in (0, 1, 5)]  # fmt: skip
    assert len({line.get_marker() for line in drawn}) == 3 and len({line.get_color() for line in drawn}) == 1
    assert figure.axes[0].get_ylabel() == "SSD"


def test_a_figure_in_turn_refuses_several_datasets_and_no_method() -> None:
    frame, of = served_in_turn()
    with pytest.raises(DataError, match=r"kind in_turn shows one dataset; the table has 2"):
        in_turn(pd.concat([frame, frame.assign(dataset="toy")]), of)
    with pytest.raises(DataError, match="the table has none"):
        in_turn(frame[frame["method"].isin(["pretrain", "retrain"])], {})
