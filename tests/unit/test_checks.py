"""Checks of a configuration that need the methods, the figures and the layouts."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneshui.errors import ConfigError
from oneshui.planning.checks import check, check_figures, check_folders, check_methods, refuse_unwritable

ROOT = Path(__file__).parents[2]


def paper() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return config


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_our_configurations_pass(path: Path) -> None:
    check(yaml.safe_load(path.read_text()))


def test_hyper_parameters_are_checked_for_every_dataset_and_size() -> None:
    config = paper()
    check_methods(config)
    pgu = config["methods"]["pgu"]
    pgu["overrides"]["mufac/n10"]["gamma"] = 1.5
    message = r"my.yaml: methods/pgu/overrides/mufac/n10/gamma = 1.5, allowed: a number in \(0, 1\)"
    with pytest.raises(ConfigError, match=message):
        check_methods(config, "my.yaml")
    pgu |= {"kind": "mine:PGU", "needs": "artefact"}  # a kind of your own checks its own
    check_methods(config)
    pgu["kind"] = "pug"
    with pytest.raises(
        ConfigError, match=r"methods/pgu/kind = 'pug', allowed: .*bad_teacher, .*jit, .*or your own module:Cl"
    ):
        check_methods(config)


@pytest.mark.parametrize("revision", [0, 1.5, "2", None])
def test_revision_of_a_method_is_a_whole_number(revision: Any) -> None:
    config = paper()
    config["methods"]["ssd"]["params"]["revision"] = 2
    check_methods(config)
    config["methods"]["ssd"]["params"]["revision"] = revision
    with pytest.raises(ConfigError, match=r"methods/ssd/params/revision = .*, allowed: a whole number >= 1"):
        check_methods(config)


def refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(config, "my.yaml")
    assert str(caught.value).startswith(f"my.yaml: {message}")


def test_an_artefact_for_every_request_size_has_no_override_by_size() -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/mufac_edits.yaml").read_text())
    edits = config["methods"]["edits"]
    edits["params"]["revision"] = 1
    edits["overrides"] = {"mufac_edits": {"rank": 8}, "mufac_edits/n10": {"solve": "sum", "batch_size": 64}}
    check_methods(config)
    for key, value in (("rank", 4), ("revision", 2)):
        edits["overrides"] = {"mufac_edits/n10": {"solve": "sum", key: value}}
        message = f"methods/edits/overrides/mufac_edits/n10/{key}: what identity_edits keeps serves every request size"
        refused(config, f"{message}, and depends on {key}. Override it for mufac_edits, or define a second method.")
    edits["overrides"] = {}
    config["methods"]["fold_model"]["overrides"] = {"mufac_edits/n1": {"folds": 4}}
    refused(config, "methods/fold_model/overrides/mufac_edits/n1/folds: what fold_model keeps serves every")


def test_a_method_that_no_table_uses_is_checked() -> None:
    config = paper()
    config["methods"]["spare"] = {"kind": "ssd", "params": {"selection": -1}, "overrides": {}}
    refused(config, "2 problems\n  methods/spare/params: missing key dampening, fisher, batch_size, micro_batch; ")
    config["methods"]["spare"] = {**config["methods"]["ssd"], "overrides": {"celeba/n7": {"selection": 0}}}
    refused(config, "methods/spare/overrides/celeba/n7/selection = 0, allowed: a number > 0")


def test_an_override_that_no_table_uses_is_checked() -> None:
    config = paper()
    config["methods"]["ssd"]["overrides"]["celebahq/n3"] = {"dampening": "much"}
    refused(config, "methods/ssd/overrides/celebahq/n3/dampening = 'much', allowed: a number > 0")


def test_hyper_parameters_that_contradict_each_other_are_told_at_the_override() -> None:
    config = paper()
    config["methods"]["scrub"]["overrides"]["mufac/n5"]["forget_epochs"] = 11
    refused(config, "methods/scrub/overrides/mufac/n5: forget_epochs = 11, allowed: ")


def test_an_unknown_key_is_told_with_all_that_are_known() -> None:
    config = paper()
    config["methods"]["ssd"]["params"]["alpha"] = 1
    refused(config, "methods/ssd/params: unknown key alpha; allowed: selection, dampening, fisher, batch_size, "
            "micro_batch, revision")  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"selection": [1.0, -1.0]}, "selection/grids/ssd/selection = -1.0, allowed: a number > 0"),
        ({"selection": [1.0], "fisher": ["batch", "all"]}, "selection/grids/ssd/fisher = 'all', allowed: "),
    ],
)
def test_a_value_to_try_is_checked(grid: dict[str, Any], message: str) -> None:
    config = paper()
    config["selection"]["grids"]["ssd"] = grid
    refused(config, message)


def test_a_method_that_needs_the_data_is_not_served_in_turn() -> None:
    config = paper()
    config["methods"]["one_by_one"] = {"of": "scrub", "in_turn": 1}
    refused(
        config, "methods/one_by_one/of = scrub, allowed: a method that serves requests; this one needs the training"
    )


def test_numbers_of_folds_are_not_tried() -> None:
    config = paper()
    config["methods"]["fold"] = {"kind": "fold_model", "params": {"folds": 8}}
    config["selection"]["grids"]["fold"] = {"folds": [4, 8]}
    refused(config, "selection/grids/fold: folds cannot be tried, because fold models are trained before")


def test_values_to_try_may_need_each_other() -> None:
    config = paper()
    config["selection"]["grids"]["scrub"] = {"epochs": [1, 2], "forget_epochs": [1]}  # fewer than params has of both
    check(config)
    config["selection"]["grids"]["scrub"] = {"epochs": [1, 2], "forget_epochs": [2]}
    refused(config, "selection/grids/scrub: forget_epochs = 2, allowed: ")


def test_an_option_that_the_layout_does_not_know_is_refused() -> None:
    config = paper()
    config["datasets"]["mufac"]["options"] = {"file": "a.csv"}
    refused(config, "datasets/mufac/options: layout mufac: unknown options ['file'], allowed: none")


def test_a_figure_that_nobody_draws_is_refused() -> None:
    figures = {"pie": {"kind": "pie", "table": "plain"}}
    check_figures(paper(), "c.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml: figures/pie/kind = 'pie', allowed: table_bars, .* or hardest_id"):
        check_figures(paper() | {"figures": figures}, "c.yaml")


def test_a_figure_that_could_not_be_drawn_from_its_table_is_refused_before_anything_runs() -> None:
    config = paper()
    of = next(name for name, each in config["tables"].items() if len({b["dataset"] for b in each["blocks"]}) > 1)
    table = config["tables"][of]
    figures = config["figures"] = {"sweep": {"kind": "people", "table": of}}
    refused(config, "figures/sweep: a figure of kind people shows one dataset; the table has ")
    figures["sweep"] |= {"kind": "kept"}
    refused(config, "figures/sweep: a figure of kind kept shows one setting; the table has ")
    figures["sweep"] |= {"blocks": table["blocks"][:1]}
    check(config, "my.yaml")
    config["methods"] |= {f"m{i}": {"of": "ssd", "in_turn": 1 + i} for i in range(9)}
    table["methods"] = [f"m{i}" for i in range(9)]  # one has the colour of SSD
    check(config, "my.yaml")
    table["methods"] = ["ssd", *table["methods"]]
    refused(config, "figures/sweep: a figure has 9 methods without a colour of their own (m0, ")


@pytest.mark.parametrize(
    ("data_root", "folder", "refused"),
    [
        ("data", "faces", False),
        ("..", "faces", False),  # the folder of the datasets may hold the results
        (".", "faces", False),
        (".", ".", True),
        ("..", ".", True),
        (str(ROOT), "src", True),
        (str(ROOT), "images", False),
    ],
)
def test_a_dataset_must_not_hold_the_results_or_oneshui(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: str, folder: str, refused: bool
) -> None:
    work = tmp_path / "out"
    work.mkdir()
    monkeypatch.chdir(work)
    config = {"data_root": data_root, "datasets": {"toy": {"folder": folder}}}
    if not refused:
        check_folders(config)
        return
    with pytest.raises(ConfigError, match=r"c\.yaml: datasets/toy/folder: .* holds (the results|oneshui) \("):
        check_folders(config, "c.yaml")


@pytest.mark.parametrize(
    ("place", "value"), [("data_root", "/d/{dataset}"), ("folder", "a{b}"), ("init_weights", "w/{x}.safetensors")]
)
def test_a_path_in_which_snakemake_would_fill_in_wildcards_is_refused(place: str, value: str) -> None:
    config = paper()
    {"data_root": config, "folder": config["datasets"]["mufac"], "init_weights": config["training"]["mufac"]}[place][
        place
    ] = value
    name = "training/mufac/init_weights" if place == "init_weights" else "datasets/.*, data_root"
    with pytest.raises(ConfigError, match=rf"^my.yaml: {name}: .*{re.escape(value)}.* has braces, .* \(ln -s\)"):
        check(config, "my.yaml")
    config = paper()
    config["data_root"] = "/d/ä 'b' \"c\" $HOME #1 {"
    check(config)


@pytest.mark.parametrize("name", [".", "results", ".snakemake"])
def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Permissions do not bind the user who is root, so the answer of the system is replaced."""
    for folder in ("results", ".snakemake"):
        (tmp_path / folder).mkdir()
    refuse_unwritable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{re.escape(str(tmp_path / name))} cannot be written to.*--directory"):
        refuse_unwritable(tmp_path)
