"""The page: numbers are those of the tables, nothing is loaded, nothing foreign runs, and it can be read by all."""

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.unit.report.invented import config_of, write_inputs

from oneshui.errors import ConfigError, DataError
from oneshui.report.page import Inputs, render
from oneshui.report.page_charts import Scale, method_colours
from oneshui.report.page_html import Markup, signed, tag
from oneshui.report.page_identities import explorer, identity_points
from oneshui.report.page_roc import RocAxes, roc_section
from oneshui.schemas import IDENTITIES, SPLITS, read_table

VOID = {"br", "hr", "img", "input", "link", "meta"}
HOSTILE = "<script>alert(1)</script>"
METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


class Page(HTMLParser):
    """What a page consists of; refuses tags that are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{name} repeats an attribute"
        self.elements.append((name, dict(attrs)))
        if name not in VOID:
            self.open.append(name)
        if re.fullmatch(r"h[1-6]", name):
            self.headings.append(int(name[1]))
        if name == "table":
            self.tables.append([])
            self.captions.append("")
        if name == "tr":
            self.tables[-1].append([])
        if name in ("td", "th"):
            assert name == "td" or dict(attrs).get("scope") in ("col", "row")
            self.tables[-1][-1].append("")

    def handle_startendtag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attrs)))

    def handle_endtag(self, name: str) -> None:
        assert self.open and self.open.pop() == name, f"</{name}> closes something else"

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            (self.scripts if self.open[-1] == "script" else self.styles).append(text)
            return
        self.words.append(text)
        if "caption" in self.open:
            self.captions[-1] += text
        elif "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += text

    def table(self, *words: str) -> dict[str, dict[str, str]]:
        """Return the one table whose caption has all words: row -> column -> text."""
        (found,) = (
            rows for rows, text in zip(self.tables, self.captions, strict=True) if all(word in text for word in words)
        )
        return {cells[0]: dict(zip(found[0], cells, strict=True)) for cells in found[1:]}

    @property
    def text(self) -> str:
        return " ".join(self.words)


def inputs_of(arguments: Mapping[str, Any]) -> Inputs:
    """Return the inputs of ``render`` from those of the stage."""
    return Inputs(
        **{
            name: {key: pd.read_csv(path) for key, path in arguments[name].items()}
            for name in ("tables", "attacks", "roc")
        },
        identities=[read_table(path, IDENTITIES) for path in arguments["identities"]],
        splits=[read_table(path, SPLITS) for path in arguments["splits"]],
        config=arguments["config"],
        versions=arguments["versions"],
        files=[("tables/main.csv", "0" * 64)],
        machine="Python 3 on a machine",
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    config = config_of(blocks=[("mufac", 5), ("mufac", 10)], title=f"Toys {HOSTILE} & <b>co.</b>")
    return inputs_of(write_inputs(tmp_path_factory.mktemp("run"), config, people=20, test_images=150))


@pytest.fixture(scope="module")
def text(inputs: Inputs) -> str:
    return render(inputs)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def changed(inputs: Inputs, **columns: Any) -> Inputs:
    """Return the inputs with other numbers in the row of metaunlearn at n = 5."""
    table = inputs.tables["main"].copy()
    row = (table["method"] == "metaunlearn") & (table["n"] == 5)
    for name, value in columns.items():
        table.loc[row, name] = value
    return replace(inputs, tables={"main": table}, attacks={})


def test_elements_are_escaped_unless_they_are_markup() -> None:
    made = tag("a", "<b>", Markup("<i>x</i>"), None, href='"><b>', hidden=False, class_="c", aria_label=None)
    assert made == '<a href="&quot;&gt;&lt;b&gt;" class="c">&lt;b&gt;<i>x</i></a>'
    assert tag("circle", r=1.26) == '<circle r="1.3"/>'
    assert tag("circle", tag("title", "t"), r=1) == '<circle r="1"><title>t</title></circle>'
    assert signed("a-1 -2.0 [-3, +4]") == "a-1 \u22122.0 [\u22123, +4]"


def test_the_page_is_well_formed_and_its_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    named = {attributes.get("aria-labelledby") for _, attributes in page.elements} - {None}
    targets = {str(attributes["href"])[1:] for name, attributes in page.elements if name == "a"}
    assert named | targets <= set(ids)
    assert ("html", {"lang": "en"}) in page.elements
    assert {"main", "nav", "header"} <= {name for name, _ in page.elements}


def test_headings_go_down_one_level_at_a_time(page: Page) -> None:
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    steps = np.diff(page.headings)
    assert steps.max() == 1


def test_every_table_has_a_caption_and_rows_of_one_length(page: Page) -> None:
    assert len(page.tables) > 10
    assert all(text.strip() for text in page.captions)
    for rows in page.tables:
        assert len({len(cells) for cells in rows}) == 1


def test_nothing_is_loaded_from_outside(page: Page, text: str) -> None:
    for name, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
            value = attributes.get(key)
            assert value is None or value.startswith("#") or value == "data:,", f"{name} {key} = {value}"
        assert not any(key.startswith("on") for key in attributes)
        assert "style" not in attributes  # the policy would forbid it
    for style in page.styles:
        assert "url(" not in style and "@import" not in style
    assert not re.search(r"fetch|XMLHttpRequest|WebSocket|import\(|sendBeacon|EventSource", "".join(page.scripts))
    assert "http://" not in text and "https://" not in text


def test_the_policy_allows_the_scripts_and_styles_of_the_page_and_nothing_else(page: Page) -> None:
    (policy,) = (
        found["content"] for name, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy and "default-src 'none'" in policy and "unsafe" not in policy
    for kind, (content,) in (("script", page.scripts), ("style", page.styles)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_text_of_the_configuration_is_escaped(inputs: Inputs, page: Page) -> None:
    assert HOSTILE in page.text  # as words
    assert [name for name, _ in page.elements].count("script") == 1
    assert "b" not in {name for name, _ in page.elements}
    hostile = '"><img src=x onerror=alert(1)>'
    table = inputs.tables["main"].replace({"label": {"MetaUnlearn": hostile}})
    other = Page(render(replace(inputs, tables={"main": table})))
    assert "img" not in {name for name, _ in other.elements}
    assert hostile in other.text


@pytest.mark.parametrize("n", [5, 10])
def test_numbers_of_the_page_are_those_of_the_table(inputs: Inputs, page: Page, n: int) -> None:
    shown = page.table(f"MUFAC, {n} identities", "second line: published")
    table = inputs.tables["main"]
    rows = table[table["n"] == n].to_dict("records")
    assert len(rows) == 6
    for row in rows:
        (cells,) = (cells for name, cells in shown.items() if name.removesuffix(" needs the data") == row["label"])
        for column, quantity in {"Retain": "retain", "Forget": "forget", "Test": "test", "ToW": "tow"}.items():
            if row["method"] == "retrain" and quantity == "tow":
                assert cells[column] == "\u2013"
                continue
            expected = f"{row[f'{quantity}_mean']:.1f} \u00b1 {row[f'{quantity}_std']:.1f}"
            published = row[f"published_{quantity}"]
            if not math.isnan(published):
                expected += f"published {published:.1f} \u00b1 {row[f'published_{quantity}_std']:.1f}"
            assert cells[column] == expected
        if row["method"] not in ("pretrain", "retrain"):
            mean, half = row["tow_minus_pretrain_mean"], row["tow_minus_pretrain_ci95"]
            gain = f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]".replace("-", "\u2212")
            assert cells["Against doing nothing"] == gain
    names = [name for name in shown if name.endswith("needs the data")]
    assert names == ["SCRUB needs the data"]


def test_the_best_is_bold_and_the_second_underlined(inputs: Inputs) -> None:
    table = inputs.tables["main"]
    chosen = table[(table["n"] == 5) & table["method"].isin(["ssd", "metaunlearn"])].set_index("method")
    best, second = chosen.sort_values("tow_mean", ascending=False)["tow_mean"]
    text = render(inputs)
    assert f"<td><strong>{best:.1f}" in text and f"<td><u>{second:.1f}" in text


def test_attacks_have_intervals_and_counts(inputs: Inputs, page: Page) -> None:
    shown = page.table("MUFAC, 5 identities", "forget against")
    row = inputs.tables["main"].set_index(["n", "method"]).loc[(5, "ssd")]
    cells = shown["SSD"]
    assert cells["AUC"] == f"{row['rmia_auc']:.1f} [{row['rmia_auc_low']:.1f}, {row['rmia_auc_high']:.1f}]"
    rate = "rmia_tpr_at_0.01"
    interval = f"[{row[f'{rate}_low']:.1f}, {row[f'{rate}_high']:.1f}]"
    assert cells["TPR at 1% FPR"] == f"{row[rate]:.1f} ({int(row[f'{rate}_hits'])}/{int(row['members'])}) {interval}"
    assert row["members"] == 90  # 3 seeds of 30


def test_controls_and_costs(inputs: Inputs, page: Page) -> None:
    row = inputs.tables["main"].set_index(["n", "method"]).loc[(10, "metaunlearn")]
    controls = page.table("MUFAC, 10 identities", "differences in points")["MetaUnlearn"]
    assert (
        controls["ToW, wrong photos"] == f"{row['wrong_photos_tow_mean']:.1f} \u00b1 {row['wrong_photos_tow_std']:.1f}"
    )
    assert controls["Refit: forget"].startswith(f"{row['refit_forget_mean']:.1f}")
    costs = page.table("MUFAC, 10 identities", "beyond the loaded model")["MetaUnlearn"]
    assert (costs["Prepare, s"], costs["Unlearn, MB"]) == (f"{row['precompute_s']:.3g}", "300")


def test_costs_of_runs_that_two_tables_share_are_shown_once(inputs: Inputs) -> None:
    main = inputs.tables["main"]
    config = {**inputs.config, "tables": {name: inputs.config["tables"]["main"] for name in ("main", "again", "other")}}
    dearer = main.assign(unlearn_s=main["unlearn_s"] + 1)
    tables = {"main": main, "again": main[main["method"] != "ceiling"], "other": dearer}
    page = Page(render(replace(inputs, tables=tables, config=config)))
    assert sum("beyond the loaded model" in caption for caption in page.captions) == 4  # two blocks, twice


def test_data_checks(page: Page) -> None:
    row = page.table("near-identical")["mufac, seed 1"]
    assert (row["In several roles"], row["Groups of them"]) == ("8 (4.0%)", "4")
    assert (row["Train"], row["Test"], row["Identities"], row["Can ask"]) == ("120", "40", "20", "5")


def test_missing_values_are_called_missing(inputs: Inputs) -> None:
    lost = dict.fromkeys(["tow_mean", "tow_std", "tow_minus_pretrain_mean", "tow_minus_pretrain_ci95"], math.nan)
    page = Page(render(changed(inputs, **lost, rmia_auc=math.nan, unlearn_s=math.nan, n_seeds=2)))
    cells = page.table("MUFAC, 5 identities", "second line: published")["MetaUnlearn"]
    assert cells["ToW"].startswith("missing") and cells["Against doing nothing"] == "missing"
    assert page.table("MUFAC, 5 identities", "forget against")["MetaUnlearn"]["AUC"] == "missing"
    assert page.table("MUFAC, 5 identities", "beyond the loaded model")["MetaUnlearn"]["Unlearn, s"] == "missing"
    assert "MetaUnlearn has complete results for 2 of 3 seeds; ToW missing." in page.text
    assert not [cell for rows in page.tables for cells in rows for cell in cells if re.search(r"\bnan\b", cell)]


def test_the_same_inputs_make_the_same_page(inputs: Inputs, text: str) -> None:
    assert render(inputs) == text
    assert len(text.encode()) < 500_000


def test_places_on_the_machine_are_left_out(text: str) -> None:
    assert "/home/somebody" not in text and ".../faces" in text


def test_cards_have_the_names_of_the_metrics_page(page: Page, text: str) -> None:
    names = re.findall(r"<dt>(.*?)</dt>", text)
    headings = re.findall(r"^#+ (.*)$", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 10
    assert set(names) <= set(headings)


def test_a_table_of_another_version_is_refused(inputs: Inputs) -> None:
    old = inputs.tables["main"].drop(columns="label")
    with pytest.raises(DataError, match=r"table main lacks the columns label"):
        render(replace(inputs, tables={"main": old}))
    with pytest.raises(ConfigError, match="table other has no title"):
        render(replace(inputs, tables={"other": inputs.tables["main"]}))
    with pytest.raises(DataError, match="ROC points main_roc lacks the columns tpr"):
        render(replace(inputs, roc={"main_roc": inputs.roc["main_roc"].drop(columns="tpr")}))


def test_a_table_and_attacks_of_different_runs_are_refused(inputs: Inputs) -> None:
    attacks = {"main": inputs.attacks["main"].assign(value=lambda frame: frame["value"] + 0.01)}
    with pytest.raises(DataError, match="belong to different runs"):
        render(replace(inputs, attacks=attacks))


def test_a_run_without_attacks_and_identities_makes_a_page(inputs: Inputs) -> None:
    table = inputs.tables["main"].copy()
    table.loc[:, "rmia_auc":"wrong_photos_minus_own_ci95"] = math.nan  # type: ignore[misc]
    config = {**inputs.config, "tables": {"main": {**inputs.config["tables"]["main"], "privacy": False}}}
    bare = replace(inputs, tables={"main": table}, attacks={}, roc={}, identities=[], splits=[], config=config)
    page = Page(render(bare))
    assert "asks for attacks" in page.text and "asks for controls" in page.text
    assert "No tables of identities were given" in page.text


def test_ablations_have_one_column_per_block(inputs: Inputs) -> None:
    config = {**inputs.config, "tables": {"main": {**inputs.config["tables"]["main"], "layout": "tow"}}}
    page = Page(render(replace(inputs, config=config)))
    cells = page.table("if there is one")["SSD"]
    rows = inputs.tables["main"].set_index(["n", "method"])
    for n in (5, 10):
        row = rows.loc[(n, "ssd")]
        assert cells[f"MUFAC, {n} identities"].startswith(
            f"{row['tow_mean']:.1f} \u00b1 {row['tow_std']:.1f}published 2.5"[:11]
        )


def identity_table(row: str = "pretrain/ssd", seed: int = 0, people: int = 3) -> tuple[pd.DataFrame, dict[str, Any]]:
    frame = pd.DataFrame({"identity": np.arange(people) + 40, "set": "retain", "n_images": 7, "measure": "accuracy"})
    frame.loc[0, "set"] = "forget"
    frame = frame.assign(value=0.5, pretrain=0.75, retrain=0.25, distance=np.arange(people) + 1.5)
    return frame, {"dataset": "toy", "n": 1, "seed": seed, "row": row, "blown_up": False}


def test_forget_gap_is_to_the_retrained_model_and_harm_to_the_pretrained_one() -> None:
    points = identity_points([identity_table()])
    assert points["value"].tolist() == [25.0, -25.0, -25.0]
    assert points["base"].tolist() == [25.0, 75.0, 75.0]


def explored(points: pd.DataFrame, methods: list[str], seeds: list[int]) -> Page:
    labels, colours = {name: name.upper() for name in methods}, dict.fromkeys(methods, "red")
    return Page(explorer(points, blocks=[("toy", 1)], methods=methods, labels=labels, colours=colours, seeds=seeds))


def test_a_dot_says_who_it_is_without_a_name() -> None:
    page = explored(identity_points([identity_table()]), ["ssd"], [0])
    assert (
        "SSD, identity 40, seed 0: +25.0 points (accuracy 50.0%, retrained 25.0%), 7 images, distance 1.5" in page.words
    )
    assert any(
        "identity 41, seed 0: \u221225.0 points (accuracy 50.0%, pretrained 75.0%)" in text for text in page.words
    )


def test_a_model_without_identities_is_missing() -> None:
    page = explored(identity_points([identity_table(), identity_table("pretrain/pgu", 1)]), ["ssd", "pgu"], [0, 1])
    assert "SSD, seed 1; PGU, seed 0" in page.text


def test_tables_of_identities_that_do_not_belong_here_are_refused() -> None:
    with pytest.raises(DataError, match="wrong_photos/ssd"):
        identity_points([identity_table("wrong_photos/ssd")])
    with pytest.raises(DataError, match="two tables of identities"):
        identity_points([identity_table(), identity_table()])


def test_thousands_of_identities_are_thinned_but_counted() -> None:
    tables = [identity_table(f"pretrain/{name}", seed, 4000) for name in ("ssd", "pgu") for seed in (0, 1)]
    page = explored(identity_points(tables), ["ssd", "pgu"], [0, 1])
    titles = [name for name, _ in page.elements].count("title")
    assert 2000 < titles <= 3100
    assert "Of 15996 dots one in 6 is drawn" in page.text
    assert page.table("mean difference")["SSD"]["Retain harm: identities"] == "3999 in 2 seeds"


@pytest.mark.parametrize("paper", ["light", "dark"])
def test_colours_of_methods_stand_out(paper: str) -> None:
    methods = ["pretrain", "retrain", "ssd", "pgu", "jit", "own", *(f"variant_{i}" for i in range(12))]
    names, style = method_colours(methods)
    assert len(set(names.values())) == len(methods)
    rule = style.splitlines()[1 if paper == "dark" else 0]
    colours = re.findall(r"#[0-9a-f]{6}", rule)
    assert len(colours) == len(methods)
    background = luminance("#14171b" if paper == "dark" else "#ffffff")
    for colour in colours:
        low, high = sorted((luminance(colour), background))
        assert (high + 0.05) / (low + 0.05) >= 2.99


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_colours_of_the_style_sheet_are_readable() -> None:
    style = (Path(__file__).parents[3] / "src/oneshui/report/page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for rules in (light, dark):
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", rules))
        pairs = [(name, paper) for name in ("ink", "soft", "link") for paper in ("paper", "sheet")]
        for name, paper in [*pairs, ("warn", "warn-paper"), ("paper", "ink")]:
            low, high = sorted((luminance(colour[name]), luminance(colour[paper])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, paper)


def test_ticks_are_round_and_on_the_axis() -> None:
    assert Scale(-0.5, 10.5).ticks(6) == [0, 2, 4, 6, 8, 10]
    assert Scale(-73.0, 31.0).ticks(6) == [-60, -40, -20, 0, 20]
    assert Scale.around([math.nan, 10.0]) == Scale(-0.5, 10.5)
    assert Scale.over([3.0, 3.0]) == Scale(2.0, 4.0)
    assert Scale(0.0, 4.0).percent(1.0) == "25.00%"


def test_a_drawn_roc_curve_never_claims_more_than_the_curve() -> None:
    fpr = np.array([0.0, 0.001, 0.004, 0.02, 0.3, 1.0])
    tpr = np.array([0.0, 0.05, 0.1, 0.4, 0.9, 1.0])
    curve = pd.DataFrame(
        {"dataset": "toy", "n": 1, "row": "pretrain/ssd", "fpr": fpr, "tpr": tpr, "low": tpr / 2, "high": tpr}
    )
    labels = {"ssd": "SSD", "pgu": "PGU", "pretrain": "P", "retrain": "R"}
    made = roc_section(
        curve,
        ["pretrain/ssd", "pretrain/pgu"],
        resolvable={("toy", 1): 0.001},
        labels=labels,
        colours=dict.fromkeys(labels, "red"),
    )
    page = Page(made)
    assert page.text.count("missing") == 1  # the panel of PGU
    (path,) = (found["d"] for name, found in page.elements if name == "path" and found.get("class") == "curve own")
    assert path
    corners = np.array([[float(part) for part in pair.split()] for pair in path[1:].split("L")])
    axes = RocAxes(0.001, 0.05)
    assert (np.diff(corners[:, 0]) >= 0).all() and (np.diff(corners[:, 1]) <= 0).all()
    for x, y in corners:
        # of all steps that begin up to this place (drawn to a tenth of a pixel) the highest
        allowed = tpr[axes.x(fpr) <= x + 0.06].max(initial=0.0)
        assert y >= float(axes.y(allowed)) - 0.06
    assert corners[-1] == pytest.approx([float(axes.x(1.0)), float(axes.y(1.0))], abs=0.06)
    # where steps begin, to half a pixel
    for rate, height in zip(fpr[1:], tpr[1:], strict=True):
        start = corners[np.abs(corners[:, 1] - float(axes.y(height))) < 0.06][:, 0].min()
        assert start == pytest.approx(float(axes.x(rate)), abs=0.6)
