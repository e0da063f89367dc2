"""The page: numbers are those of the tables, nothing is loaded, nothing foreign runs, and all can read it."""

import base64
import hashlib
import json
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
from oneshui.report import explorer
from oneshui.report.columns import cards
from oneshui.report.contents import Inputs
from oneshui.report.identities import identity_points
from oneshui.report.page import render
from oneshui.report.style import INKS, PAPERS, colours_of, dark
from oneshui.schemas import IDENTITIES, SPLITS, read_table

VOID = {"br", "hr", "img", "input", "link", "meta"}
NAMES = {"pretrain": "Original model", "retrain": "Retrained model", "ceiling": "Second retrained model noise floor"}
HOSTILE = "<script>alert(1)</script>"


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
        self.data: list[str] = []  # of scripts that hold data and do not run
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
            is_data = self.elements[-1][1].get("type") == "application/json"
            (self.styles if self.open[-1] == "style" else self.data if is_data else self.scripts).append(text)
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


#: figures take most of the time of a page
FEW_FIGURES: dict[str, Any] = {"roc": {}, "identities": []}


def changed(inputs: Inputs, **columns: Any) -> Inputs:
    """Return the inputs with other numbers in the row of metaunlearn at n = 5."""
    table = inputs.tables["main"].copy()
    row = (table["method"] == "metaunlearn") & (table["n"] == 5)
    for name, value in columns.items():
        table.loc[row, name] = value
    return replace(inputs, tables={"main": table}, attacks={}, **FEW_FIGURES)


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


def images(page: Page) -> list[str]:
    """Return the SVG of each image in the page."""
    sources = [str(found["src"]) for name, found in page.elements if name == "img"]
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    return [base64.b64decode(source.split(",")[1]).decode() for source in sources]


def test_nothing_is_loaded_from_outside(page: Page, text: str) -> None:
    for name, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), f"{name} {key} = {value}"
        assert not any(key.startswith("on") for key in attributes)
        assert "style" not in attributes  # the policy would forbid it
    for style in page.styles:
        assert "url(" not in style and "@import" not in style
    for script in page.scripts:
        text = text.replace(script, "")
    assert "http://" not in text and "https://" not in text
    for svg in images(page):
        assert set(re.findall(r"https?://[^\"]*", svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert not re.search(r"url\((?!#)|<script|@import|href=\"(?!#|data:image/png)", svg)


def test_the_policy_allows_the_scripts_and_styles_of_the_page_and_nothing_else(page: Page) -> None:
    (policy,) = (
        found["content"] for name, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy and policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, contents, count in (("script", page.scripts, 2), ("style", page.styles, 1)):
        digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in contents]
        assert rules[f"{kind}-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)
        assert len(digests) == count


def test_text_of_the_configuration_is_escaped(inputs: Inputs, page: Page) -> None:
    assert HOSTILE in page.text  # as words
    assert [name for name, _ in page.elements].count("script") == 3
    assert "b" not in {name for name, _ in page.elements}
    hostile = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'
    table = inputs.tables["main"].replace({"label": {"MetaUnlearn": hostile}})
    other = Page(render(replace(inputs, tables={"main": table})))
    assert other.scripts == page.scripts
    assert all(
        str(found["src"]).startswith("data:image/svg+xml;base64,") for name, found in other.elements if name == "img"
    )
    assert hostile in other.text
    assert hostile in json.loads(other.data[0])["labels"] and "<" not in other.data[0]
    for svg in images(other):
        assert "<script" not in svg and "<img" not in svg


@pytest.mark.parametrize("n", [5, 10])
def test_numbers_of_the_page_are_those_of_the_table(inputs: Inputs, page: Page, n: int) -> None:
    shown = page.table(f"MUFAC, {n} identities", "second best")
    table = inputs.tables["main"]
    rows = table[table["n"] == n].to_dict("records")
    assert len(rows) == 6
    for row in rows:
        (cells,) = (
            cells
            for name, cells in shown.items()
            if name.split(" uses")[0].split(" no ")[0] == NAMES.get(row["method"], row["label"])
        )
        for column, quantity in {"Retain": "retain", "Forget": "forget", "Test": "test", "ToW": "tow"}.items():
            if row["method"] == "retrain" and quantity == "tow":
                assert cells[column] == "\u2013"
                continue
            expected = f"{row[f'{quantity}_mean']:.1f} \u00b1 {row[f'{quantity}_std']:.1f}"
            published = row[f"published_{quantity}"]
            if not math.isnan(published):
                expected += f" published {published:.1f} \u00b1 {row[f'published_{quantity}_std']:.1f}"
            assert cells[column] == expected
        if row["method"] not in ("pretrain", "retrain"):
            mean, half = row["tow_minus_pretrain_mean"], row["tow_minus_pretrain_ci95"]
            gain = f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]".replace("-", "\u2212")
            assert cells["Difference to the original model"] == gain
    names = [name for name in shown if name.endswith("uses the training data")]
    assert names == ["SCRUB uses the training data"]


def test_the_best_is_bold_and_the_second_underlined(inputs: Inputs, text: str) -> None:
    table = inputs.tables["main"]
    chosen = table[(table["n"] == 5) & table["method"].isin(["ssd", "metaunlearn"])].set_index("method")
    best, second = chosen.sort_values("tow_mean", ascending=False)["tow_mean"]
    assert f"<td><strong>{best:.1f}" in text and f"<td><u>{second:.1f}" in text


def test_attacks_have_intervals_and_counts(inputs: Inputs, page: Page) -> None:
    shown = page.table("MUFAC, 5 identities", "RMIA on 90 forget against")
    row = inputs.tables["main"].set_index(["n", "method"]).loc[(5, "ssd")]
    cells = shown["SSD"]
    assert cells["AUC"] == f"{row['rmia_auc']:.1f} [{row['rmia_auc_low']:.1f}, {row['rmia_auc_high']:.1f}]"
    rate = "rmia_tpr_at_0.01"
    interval = f"[{row[f'{rate}_low']:.1f}, {row[f'{rate}_high']:.1f}]"
    assert cells["TPR at 1% FPR"] == f"{row[rate]:.1f} {interval} ({int(row[f'{rate}_hits'])}/{int(row['members'])})"
    assert row["members"] == 90  # 3 seeds of 30


def test_controls_and_costs(inputs: Inputs, page: Page) -> None:
    row = inputs.tables["main"].set_index(["n", "method"]).loc[(10, "metaunlearn")]
    controls = page.table("Controls of MUFAC, 10 identities")["MetaUnlearn"]
    assert (
        controls["ToW with wrong photos"]
        == f"{row['wrong_photos_tow_mean']:.1f} \u00b1 {row['wrong_photos_tow_std']:.1f}"
    )
    assert controls["Linear probe: forget"].startswith(f"{row['refit_forget_mean']:.1f}")
    costs = page.table("MUFAC, 10 identities", "beyond the loaded model")["MetaUnlearn"]
    assert costs["Prepare"] == f"{row['precompute_s']:.3g} s, 500 MB" and costs["Unlearn"].endswith(" s, 300 MB")


def test_costs_of_runs_that_two_tables_share_are_shown_once(inputs: Inputs) -> None:
    main = inputs.tables["main"]
    config = {**inputs.config, "tables": {name: inputs.config["tables"]["main"] for name in ("main", "again", "other")}}
    dearer = main.assign(unlearn_s=main["unlearn_s"] + 1)
    tables = {"main": main, "again": main[main["method"] != "ceiling"], "other": dearer}
    page = Page(render(replace(inputs, tables=tables, config=config, **FEW_FIGURES)))
    assert sum("beyond the loaded model" in caption for caption in page.captions) == 4  # two settings, twice


def test_data_checks(page: Page) -> None:
    row = page.table("near-identical")["mufac, seed 1"]
    assert (row["In several roles"], row["Groups of them"]) == ("8 (4.0%)", "4")
    assert (row["Train"], row["Test"], row["Identities"], row["Can ask"]) == ("120", "40", "20", "5")


def test_missing_values_are_called_missing(inputs: Inputs) -> None:
    lost = dict.fromkeys(["tow_mean", "tow_std", "tow_minus_pretrain_mean", "tow_minus_pretrain_ci95"], math.nan)
    page = Page(render(changed(inputs, **lost, rmia_auc=math.nan, unlearn_s=math.nan, n_seeds=2)))
    cells = page.table("MUFAC, 5 identities", "second best")["MetaUnlearn"]
    assert cells["ToW"].startswith("missing") and cells["Difference to the original model"] == "missing"
    assert page.table("Attacks on MUFAC, 5 identities")["MetaUnlearn"]["AUC"] == "missing"
    assert page.table("MUFAC, 5 identities", "beyond the loaded model")["MetaUnlearn"]["Unlearn"] == "missing"
    assert "MetaUnlearn has complete results for 2 of 3 seeds." in page.text
    assert not [cell for rows in page.tables for cells in rows for cell in cells if re.search(r"\bnan\b", cell)]


def test_the_same_inputs_make_the_same_page(inputs: Inputs, text: str) -> None:
    assert render(inputs) == text
    assert len(text.encode()) < 5_000_000


def test_places_on_the_machine_are_left_out(text: str) -> None:
    assert "/home/somebody" not in text and ".../faces" in text


def test_the_first_screen_has_a_verdict_and_a_picture_with_words_for_each_setting(page: Page, inputs: Inputs) -> None:
    pictures = [str(found["alt"]) for name, found in page.elements if name == "img"][:2]
    for alt, n in zip(pictures, (5, 10), strict=True):
        row = inputs.tables["main"].set_index(["n", "method"]).loc[(n, "ssd")]
        assert alt.startswith("ToW, difference to the original model") and "second retrained model +" in alt
        assert f"SSD {row['tow_minus_pretrain_mean']:+.1f} [" in alt
    assert page.text.count("better than the original model") >= 2


def test_every_image_has_words(page: Page) -> None:
    words = [found.get("alt") for name, found in page.elements if name == "img"]
    assert len(words) == 2 + 2 + 4  # ToW, ROC, figures 4 and 5
    assert all(words) and len(set(words)) == len(words)


def test_cards_are_those_of_the_columns(page: Page, text: str) -> None:
    names = re.findall(r"<dt>(.*?)</dt>", text)
    assert len(names) > 10 and names == [card.title for card in cards()]


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
    targets = [found["href"] for name, found in page.elements if name == "a"]
    assert targets == ["#main", "#summary", "#tables", "#cost", "#provenance", "#cards"]
    assert page.scripts == [] and "script-src 'none'" in str(page.elements)


def test_ablations_have_one_column_per_setting(inputs: Inputs) -> None:
    config = {**inputs.config, "tables": {"main": {**inputs.config["tables"]["main"], "layout": "tow"}}}
    page = Page(render(replace(inputs, config=config, **FEW_FIGURES)))
    cells = page.table("ToW, %")["SSD"]
    rows = inputs.tables["main"].set_index(["n", "method"])
    for n in (5, 10):
        row = rows.loc[(n, "ssd")]
        assert cells[f"MUFAC, {n} identities"].startswith(
            f"{row['tow_mean']:.1f} \u00b1 {row['tow_std']:.1f} published "
        )


def identity_table(row: str = "pretrain/ssd", seed: int = 0, people: int = 3) -> tuple[pd.DataFrame, dict[str, Any]]:
    frame = pd.DataFrame({"identity": np.arange(people) + 40, "set": "retain", "n_images": 7, "measure": "accuracy"})
    frame.loc[0, "set"] = "forget"
    frame = frame.assign(value=0.5, pretrain=0.75, retrain=0.25, distance=np.arange(people) + 1.5)
    return frame, {"dataset": "toy", "n": 1, "seed": seed, "row": row, "blown_up": False}


def test_forget_gap_is_to_the_retrained_model_and_harm_to_the_pretrained_one() -> None:
    points = identity_points([identity_table()])
    assert points["value"].tolist() == [25.0, -25.0, -25.0]
    assert points["model"].tolist() == [50.0] * 3


def explored(points: pd.DataFrame, **labels: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the content of the explorer and its dots."""
    content = json.loads(explorer.chart(points, settings=[("toy", 1)], labels=labels)[0])
    return content, [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]


def test_a_dot_has_a_number_and_no_name() -> None:
    content, dots = explored(identity_points([identity_table()]), ssd="SSD")
    assert dots[0] == {"b": 0, "w": 0, "m": 0, "s": 0, "i": 40, "k": 0, "c": 7, "x": 1.5, "y": 25.0, "v": 50.0}
    assert [dot["y"] for dot in dots[1:]] == [-25.0, -25.0] and {dot["w"] for dot in dots[1:]} == {1}
    bound = {param["name"]: param.get("bind", {}) for param in content["spec"]["params"]}
    assert bound["setting"]["labels"] == ["toy, 1 identity"] and bound["setting"]["input"] == "select"
    assert bound["set"]["labels"] == ["Forget gap", "Retain harm"] and bound["set"]["input"] == "radio"
    assert bound["method"]["labels"] == ["all methods", "SSD"] and bound["method"]["options"] == [-1, 0]


def test_a_model_without_identities_is_missing() -> None:
    points = identity_points([identity_table(), identity_table("pretrain/pgu", 1)])
    labels = {"ssd": "SSD", "pgu": "PGU"}
    assert explorer.absent(points, labels, [0, 1]) == [
        "Missing (no file, or the model diverged): SSD, seed 1; PGU, seed 0."
    ]
    assert explorer.absent(points, labels, []) == []


def test_tables_of_identities_that_do_not_belong_here_are_refused() -> None:
    with pytest.raises(DataError, match="wrong_photos/ssd"):
        identity_points([identity_table("wrong_photos/ssd")])
    with pytest.raises(DataError, match="two tables of identities"):
        identity_points([identity_table(), identity_table()])


def test_thousands_of_identities_are_thinned_but_counted() -> None:
    tables = [identity_table(f"pretrain/{name}", seed, 4000) for name in ("ssd", "pgu") for seed in (0, 1)]
    points, labels = identity_points(tables), {"ssd": "SSD", "pgu": "PGU"}
    text, left_out = explorer.chart(points, settings=[("toy", 1)], labels=labels)
    assert 7000 < len(json.loads(text)["rows"]) <= 8004 and left_out == 16000 - len(json.loads(text)["rows"])
    table = {line[0].text: [cell.text for cell in line] for line in explorer.correlations(points, labels)}
    assert table["SSD"][4] == "3999 in 2 seeds"


METHODS = ["pretrain", "retrain", "ssd", "pgu", "jit", "scrub", "bad_teacher", "own", *(f"v{i}" for i in range(7))]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_methods_stand_out(theme: str) -> None:
    colours = list(colours_of(METHODS).values())
    assert len(set(colours)) == len(METHODS)
    for colour in colours if theme == "light" else map(dark, colours):
        assert contrast(colour, PAPERS[theme]) >= 3


def contrast(colour: str, other: str) -> float:
    low, high = sorted((luminance(colour), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_colours_of_the_style_sheet_are_readable() -> None:
    style = (Path(__file__).parents[3] / "src/oneshui/report/page.css").read_text()
    light, night = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for rules, theme in ((light, "light"), (night, "dark")):
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", rules))
        assert (colour["paper"], colour["ink"]) == (PAPERS[theme], INKS[theme])  # figures have the same
        pairs = [(name, paper) for name in ("ink", "soft", "link") for paper in ("paper", "sheet")]
        for name, paper in [*pairs, ("warn", "warn-paper"), ("paper", "ink")]:
            assert contrast(colour[name], colour[paper]) >= 4.5, (name, paper)


def test_figures_of_the_page_have_two_sets_of_colours_that_can_be_seen(page: Page) -> None:
    for svg in images(page):
        light, night = (dict(re.findall(r"--(c[0-9a-f]{6}):(#[0-9a-f]{6})", part))
                        for part in re.findall(r"svg\{(.*?)\}", svg)[:2])  # fmt: skip
        assert light.keys() == night.keys() and set(re.findall(r"var\(--(\w+)\)", svg)) <= light.keys()
        for colours, theme in ((light, "light"), (night, "dark")):
            assert contrast(colours["c000000"], PAPERS[theme]) > 12  # text
            assert set(colours.values()) & {PAPERS[theme]} or len(colours) > 3
        assert "prefers-color-scheme:dark" in svg and not re.search(r"(fill|stroke): #", svg)
