"""Figures of identities: the points are differences and means of what the tables hold, and nobody is named."""

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from oneshui.errors import DataError
from oneshui.metrics.identities import equal_count_bins, pearson, spearman
from oneshui.report.figures.hardest import hardest
from oneshui.report.figures.identities import by_distance
from oneshui.report.identities import hardest_identities, identity_points, top_methods
from oneshui.schemas import IDENTITIES

SEEDS = [0, 1]
TOP = {("toy", 6): ["ssd", "jit"]}


def hardness(tables: Any, top: Any, seeds: Any) -> tuple[Figure, pd.DataFrame]:
    return by_distance(identity_points(tables), top, seeds, "forget")


def harm(tables: Any, top: Any, seeds: Any) -> tuple[Figure, pd.DataFrame]:
    return by_distance(identity_points(tables), top, seeds, "retain")


def identities(
    seed: int, method: str, n: int = 6, n_retain: int = 8, measure: str = "map", shift: float = 0.0, **meta: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """All models but ``method`` depend on the seed only."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"identity": 100 * seed + draw.permutation(n + n_retain)})
    frame["set"] = ["forget"] * n + ["retain"] * n_retain
    frame = frame.assign(n_images=3, measure=measure)
    frame["value"] = shift + np.random.default_rng([seed, len(method)]).uniform(0.4, 0.6, n + n_retain)
    for column in ("pretrain", "retrain"):
        frame[column] = draw.uniform(0.4, 0.6, n + n_retain)
    frame["distance"] = draw.uniform(1, 5, n + n_retain)
    run = {"dataset": "toy", "n": n, "seed": seed, "row": f"pretrain/{method}", "task": "x", "blown_up": False}
    return frame[list(IDENTITIES.columns)], run | meta


def run_of(n: int = 6, **change: Any) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    return [identities(seed, method, n, **change) for seed in SEEDS for method in ("ssd", "jit")]


def drawn(points: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return points[points["quantity"] == quantity].reset_index(drop=True)


def table() -> pd.DataFrame:
    rows = [("pretrain", False, 99.0), ("retrain", False, np.nan), ("ceiling", False, 98.0), ("scrub", True, 97.0),
            ("ssd", False, np.nan), ("a", False, 50.0), ("b", False, 70.0), ("c", False, 50.0),
            ("d", False, 60.0)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "access_to_data", "tow_mean"]).assign(dataset="toy", n=6)
    return pd.concat([frame, frame.assign(n=7, tow_mean=frame["tow_mean"][::-1].to_numpy())], ignore_index=True)


def test_the_best_methods_work_without_data_and_have_a_tug_of_war() -> None:
    assert top_methods(table(), "toy", 6) == ["b", "d", "a"]
    assert top_methods(table(), "toy", 6, count=9) == ["b", "d", "a", "c"]
    assert top_methods(table(), "toy", 7) == ["d", "b", "a"]
    assert top_methods(table().assign(tow_mean=np.nan), "toy", 6) == []
    with pytest.raises(DataError, match=r"no results of toy, n = 5 .* there are: \[\('toy', 6\), \('toy', 7\)\]"):
        top_methods(table(), "toy", 5)


@pytest.mark.parametrize(("draw", "which", "other"), [(hardness, "forget", "retrain"), (harm, "retain", "pretrain")])
def test_points_are_mean_differences_of_each_identity_and_seed(draw: Any, which: str, other: str) -> None:
    tables = run_of()
    _, points = draw(
        [*reversed(tables), identities(0, "other"), identities(2, "ssd"), identities(0, "ssd", 9)], TOP, SEEDS
    )
    found = drawn(points, "identity").set_index(["seed", "identity"])
    assert len(found) == 2 * (6 if which == "forget" else 8)
    for seed in SEEDS:
        ssd, jit = (
            frame[frame["set"] == which].set_index("identity") for frame, meta in tables if meta["seed"] == seed
        )
        for identity, row in ssd.iterrows():
            value = 100 * ((row["value"] + jit.loc[identity, "value"]) / 2 - row[other])
            assert found.loc[(seed, identity), "value"] == pytest.approx(value)
            assert found.loc[(seed, identity), "distance"] == row["distance"]
    assert (found[["dataset", "n", "methods", "measure", "n_images"]] == ["toy", 6, "ssd jit", "map", 3]).all(axis=None)


def test_bins_and_correlations_are_those_of_the_points() -> None:
    figure, points = hardness(run_of(), TOP, SEEDS)
    base = drawn(points, "identity").astype({"seed": int, "identity": int})
    bins = drawn(points, "bin")
    expected = equal_count_bins(base, 3)  # six identities of each seed, two in a part
    pd.testing.assert_frame_equal(bins[list(expected.columns)], expected, check_dtype=False)
    text = "\n".join(each.get_text() for each in figure.axes[0].texts)
    for name, found in (("pearson", pearson(base)), ("spearman", spearman(base))):
        row = drawn(points, name).iloc[0]
        assert (row["value"], row["low"], row["high"], row["n_points"]) == (found.value, found.low, found.high, 12)
        assert f"{name.capitalize()} {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" in text
    assert "mean of SSD, JiT" in text


def test_many_identities_are_cut_into_five_parts_and_few_into_none() -> None:
    assert len(drawn(harm(run_of(n_retain=23), TOP, SEEDS)[1], "bin")) == 5
    figure, points = hardness(run_of(n=2), {("toy", 2): ["ssd", "jit"]}, SEEDS)
    assert len(drawn(points, "bin")) == 0 and len(drawn(points, "identity")) == 4
    assert "no interval" in figure.axes[0].texts[-1].get_text()
    figure, points = hardness(run_of(n=1), {("toy", 1): ["ssd"]}, SEEDS)
    assert "Spearman none\nPearson none" in figure.axes[0].texts[-1].get_text()
    assert drawn(points, "pearson")["value"].isna().all()


def test_of_many_points_what_lies_beyond_the_axis_is_drawn_at_its_end() -> None:
    tables = run_of(n_retain=60)
    for frame, _ in tables:
        frame.loc[6, "value"], frame.loc[7, "value"] = 5.0, -5.0  # the first retain identities of a seed
    figure, points = harm(tables, TOP, SEEDS)
    axes, values = figure.axes[0], drawn(points, "identity")["value"]
    low, high = axes.get_ylim()
    assert low > -100 and high < 100 and values.min() < -400 and values.max() > 400
    ends = {line.get_marker(): line for line in axes.lines if line.get_marker() in ("v", "^")}
    for end, row in (("^", 6), ("v", 7)):
        assert {frame.loc[row, "distance"] for frame, _ in tables} <= set(ends[end].get_xdata())
        assert all(low < y < high for y in ends[end].get_ydata())
    shown = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() in ("o", "v", "^"))
    assert shown == 120 + 5  # all points, and the bins
    assert "beyond the axis" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_few_points_are_all_where_they_belong() -> None:
    tables = run_of()
    for frame, _ in tables:
        frame.loc[0, "value"] = 5.0
    figure, points = hardness(tables, TOP, SEEDS)
    low, high = figure.axes[0].get_ylim()
    assert drawn(points, "identity")["value"].between(low, high).all()
    figure, points = hardness(run_of(shift=1.0), TOP, SEEDS)
    assert drawn(points, "identity")["value"].min() > 50 and figure.axes[0].get_ylim()[0] < 0  # 0 is always there
    assert "beyond the axis" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_identities_measured_otherwise_are_told_apart() -> None:
    tables = run_of()
    for frame, _ in tables:
        frame.loc[0, "measure"] = "balanced_accuracy"
    figure, points = hardness(tables, TOP, SEEDS)
    assert (drawn(points, "identity")["measure"] == "balanced_accuracy").sum() == 2
    hollow = [line for line in figure.axes[0].lines if line.get_marker() == "o" and line.get_mfc() == "none"]
    assert sum(len(line.get_xdata()) for line in hollow) == 2
    assert figure.axes[0].get_ylabel().startswith("mAP, unlearned \N{MINUS SIGN} retrained")
    assert "the same, balanced accuracy" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_seed_has_no_error_bars() -> None:
    _, points = hardness([identities(0, "ssd"), identities(0, "jit")], TOP, [0])
    assert len(drawn(points, "bin")) == 3 and drawn(points, "bin")["std"].isna().all()


def test_a_setting_without_methods_is_missing_in_the_figure() -> None:
    figure, points = hardness(run_of(), {("toy", 9): [], **TOP}, SEEDS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["toy, 9 identities", "toy, 6 identities"]
    assert figure.axes[0].texts[0].get_text() == "missing" and set(points["n"]) == {6}
    for nothing in ({("toy", 9): []}, {}):
        with pytest.raises(DataError, match="no unlearning method without access"):
            hardness(run_of(), nothing, SEEDS)


def test_tables_that_cannot_be_averaged_are_one_error() -> None:
    with pytest.raises(DataError, match="toy n = 6: no table of identities of pretrain/ssd of seed 2, pretrain/jit of"):
        hardness(run_of(), TOP, [0, 2])
    gone = identities(1, "jit", blown_up=True)
    with pytest.raises(DataError, match="no table of identities of pretrain/jit of seed 1, or its model has diverged"):
        hardness([*run_of()[:3], (gone[0].head(0), gone[1])], TOP, SEEDS)
    with pytest.raises(DataError, match="two tables of identities of pretrain/ssd on toy, n = 6, seed 0"):
        hardness([*run_of(), identities(0, "ssd")], TOP, SEEDS)
    other = run_of()
    other[0][0].loc[0, "distance"] += 1
    with pytest.raises(DataError, match="ssd, jit have no forget identities in some seed, or disagree on them or"):
        hardness(other, TOP, SEEDS)
    with pytest.raises(DataError, match="have no retain identities"):
        harm(run_of(n_retain=0), TOP, SEEDS)
    with pytest.raises(DataError, match="have no retain identities in some seed"):
        harm([*run_of()[:2], *run_of(n_retain=0)[2:]], TOP, SEEDS)


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()  # inches
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height
    for text in figure.findobj(Text):
        assert isinstance(text, Text) and float(text.get_fontsize()) >= 7


def test_text_is_readable_and_nothing_is_cut_off() -> None:
    tables = run_of(n_retain=60)
    for frame, _ in tables:
        frame.loc[[0, 7, 8], "measure"] = "balanced_accuracy"
    tables += [(frame, {**meta, "row": f"{meta['row']}_with_a_long_name"}) for frame, meta in tables]
    tables += run_of(7)
    long = {("toy", 6): ["ssd_with_a_long_name", "jit_with_a_long_name", "ssd"]}
    with matplotlib.rc_context({"font.size": 4.0}):
        assert_nothing_is_cut_off(hardness(tables, long, SEEDS)[0])
        figure, _ = harm(tables, long, SEEDS)
        assert_nothing_is_cut_off(figure)
        assert_nothing_is_cut_off(harm(tables, {**long, ("toy", 7): ["ssd"]}, SEEDS)[0])
        assert matplotlib.rcParams["font.size"] == 4.0
    title = next(text for text in figure.axes[0].findobj(Text) if text.get_text() == "toy, 6 identities")
    assert title.get_window_extent().y0 >= figure.axes[0].texts[0].get_window_extent().y1


def test_the_hardest_are_the_farthest_of_all_seeds_each_once() -> None:
    tables = [identities(seed, "ssd", n=4) for seed in SEEDS]
    tables[0][0]["identity"] = tables[1][0]["identity"] = range(12)
    tables[0][0]["distance"] = [1.0, 8.0, 3.0, 4.0] + [99.0] * 8
    tables[1][0]["distance"] = [7.0, 2.0, 6.0, 5.0] + [99.0] * 8
    other = identities(2, "ssd", n=5)
    gone = identities(3, "ssd", n=4, blown_up=True)
    chosen = hardest_identities(identity_points([*tables, other, (gone[0].head(0), gone[1])]), "toy", 4)
    assert chosen.to_dict("list") == {
        "dataset": ["toy"] * 4, "n": [4] * 4, "seed": [0, 1, 1, 1], "identity": [1, 0, 2, 3],
        "distance": [8.0, 7.0, 6.0, 5.0],
    }  # fmt: skip
    assert len(hardest_identities(identity_points(run_of()), "toy", 6)) == 5
    with pytest.raises(DataError, match="no table of identities of toy n = 3: there is nobody to show"):
        hardest_identities(identity_points(run_of()), "toy", 3)
    with pytest.raises(DataError, match="there is nobody to show"):
        hardest_identities(identity_points([(gone[0].head(0), gone[1])]), "toy", 4)


def faces(counts: tuple[int, ...], height: int = 8, width: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    return [
        (draw.integers(0, 256, (3, height, width), np.uint8), draw.integers(0, 256, (k, 3, height, width), np.uint8))
        for k in counts
    ]


def chosen(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"dataset": "toy", "n": 5, "seed": 1, "identity": range(40, 40 + rows), "distance": math.pi})


def test_faces_are_the_pixels_that_came_in() -> None:
    pixels = faces((7, 2))
    figure, points = hardest(chosen(2), pixels)
    images = [[image.get_array() for image in axes.get_images()] for axes in figure.axes]
    assert [len(each) for each in images] == [1] * 6 + [1] * 3 + [0] * 3
    for i, (photo, others) in enumerate(pixels):
        for j, wanted in enumerate([photo, *others[:5]]):
            np.testing.assert_array_equal(np.asarray(images[6 * i + j][0]), wanted.transpose(1, 2, 0))
    assert points["n_shown"].tolist() == [5, 2] and points["identity"].tolist() == [40, 41]
    titles = [axes.get_title(loc="left") for axes in figure.axes[::6]]
    assert titles == ["identity 40 (seed 1), distance 3.14", "identity 41 (seed 1), distance 3.14"]
    framed = [len(axes.patches) for axes in figure.axes]
    assert framed == [1, 0, 0, 0, 0, 0] * 2  # the support photo
    assert_nothing_is_cut_off(figure)


def test_pixels_that_do_not_fit_are_one_error() -> None:
    with pytest.raises(DataError, match="2 are chosen, with pixels of 1"):
        hardest(chosen(2), faces((1,)))
    with pytest.raises(DataError, match="0 are chosen"):
        hardest(chosen(0), [])
    photo, images = faces((2,))[0]
    for wrong in (
        (photo, images[:0]), (photo[:, :5], images), (photo, images[0]), (photo, images[:, :, :5]),
        (photo.astype(float), images), (photo, images.astype(float)), (photo[:2], images[:, :2]),
        (images, images[None]), faces((2,), height=9)[0],
    ):  # fmt: skip
        with pytest.raises(DataError, match="identity 41 has a photo"):
            hardest(chosen(2), [(photo, images), wrong])
    with pytest.raises(DataError, match="identity 40 has a photo"):
        hardest(chosen(1), [(photo[:2], images[:, :2])])


def test_a_panel_calls_methods_by_their_labels() -> None:
    points = identity_points([identities(0, "ssd"), identities(0, "jit")])
    setting = (str(points["dataset"].iloc[0]), int(points["n"].iloc[0]))
    figure, _ = by_distance(points, {setting: ["ssd", "jit"]}, [0], "forget", {"ssd": "Ours"})
    assert figure.axes[0].texts[0].get_text().startswith("mean of Ours, JiT")
