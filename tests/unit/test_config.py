"""Configuration as values."""

import copy
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneshui.checked import ABSENT
from oneshui.config import (
    AttackSpec,
    ProbeSpec,
    TrainSpec,
    changed_keys,
    check_config,
    grid_points,
    method_spec,
    per_channel,
)
from oneshui.errors import ConfigError

TRAINING: dict[str, Any] = {
    "model": "resnet10t.c3_in1k", "model_options": {}, "init_weights": "timm", "input_px": 32, "epochs": 1,
    "warmup_epochs": 0, "batch_size": 8, "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0,
    "crop_scale": [1.0, 1.0], "precision": "fp32", "revision": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"init_weights": "random"}, "mean and std must be given where init_weights is random"),
        ({"init_weights": "random", "mean": 0.5}, "mean and std must be given where init_weights is random"),
        ({"mean": 1.5}, r"mean = 1.5, allowed: a number in \[0, 1\], null or a list of 3, each a number in \[0, 1\]"),
        ({"mean": [0.5, 0.5, -0.1]}, r"mean = \[0.5, 0.5, -0.1\], allowed: a number in \[0, 1\]"),
        ({"std": 0}, "std = 0, allowed: a number > 0, null or a list of 3, each a number > 0"),
        ({"std": [0.2, 0.2, 0.0]}, r"std = \[0.2, 0.2, 0.0\], allowed: a number > 0"),
        ({"mean": [0.5, 0.5]}, r"mean = \[0.5, 0.5\], allowed: a number .* or a list of 3"),
        ({"std": "0.5"}, "std = '0.5', allowed: a number > 0, null or a list of 3, .* needs a point and no quotes"),
    ],
)
def test_input_that_no_network_was_trained_with_is_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSpec.from_dict({**TRAINING, **values})


def test_input_is_a_number_or_one_for_each_channel_or_that_of_the_weights() -> None:
    assert TrainSpec.from_dict({**TRAINING, "mean": 0.5, "std": [0.1, 0.2, 0.3]}).std == (0.1, 0.2, 0.3)
    assert TrainSpec.from_dict(TRAINING).mean is None
    assert per_channel(0.5) == per_channel([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    with pytest.raises(ConfigError, match="a number, or one for each of red, green and blue"):
        per_channel([0.5, 0.5])


METHODS: dict[str, Any] = {
    "meta": {
        "kind": "metaunlearn",
        "params": {"lr": 1.0, "epochs": 3, "eta": 7},
        "overrides": {"celeba": {"lr": 2.0, "eta": 8}, "celeba/n5": {"lr": 3.0}, "mufac/n5": {"epochs": 9}},
    },
    "plain": {"kind": "ssd"},
}


@pytest.mark.parametrize(
    ("dataset", "n", "params"),
    [
        ("other", 5, {"lr": 1.0, "epochs": 3, "eta": 7}),
        ("celeba", 1, {"lr": 2.0, "epochs": 3, "eta": 8}),
        ("celeba", 5, {"lr": 3.0, "epochs": 3, "eta": 8}),
        ("celeba", 50, {"lr": 2.0, "epochs": 3, "eta": 8}),
        ("mufac", 5, {"lr": 1.0, "epochs": 9, "eta": 7}),
    ],
)
def test_overrides_replace_single_params(dataset: str, n: int, params: dict[str, Any]) -> None:
    assert method_spec(METHODS, "meta", dataset, n) == {"kind": "metaunlearn", **params}


def test_method_without_params_is_its_kind() -> None:
    assert method_spec(METHODS, "plain", "celeba", 5) == {"kind": "ssd"}


def test_unknown_method_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'mine' is not in the config; it has: meta, plain"):
        method_spec(METHODS, "mine", "celeba", 5)


FACES = {
    "task": "multilabel", "n_identities": 3, "images_per_identity": [2, 3], "image_px": 16, "n_classes": 8,
    "memorised_frac": 0.0, "noise_frac": 0.0, "seed": 0,
}  # fmt: skip
PAPER: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())


CLASSES = "classification"
#: changes that make a dataset one of drawn faces; ABSENT removes a key
DRAWN = {
    "datasets/celeba/layout": "synthetic", "datasets/celeba/synthetic": FACES, "datasets/celeba/folder": ABSENT,
}  # fmt: skip


def make_config(**change: Any) -> dict[str, Any]:
    """A table on celeba, the paper's; dataset other has one ranked identity and no training."""
    config = copy.deepcopy(PAPER)
    celeba, block = config["datasets"]["celeba"], {"dataset": "celeba", "n": 5}
    overrides = {"celeba": {"lr": 2.0, "eta": 8}, "celeba/n5": {"lr": 3.0}, "other/n1": {"epochs": 9}}
    table = {
        "title": "",
        "blocks": [{**block, **change}],
        "methods": ["meta", "plain"],
        "decimals": 1,
        "privacy": False,
    }
    return {
        **config,
        "datasets": {"celeba": celeba, "other": {**celeba, "split": {**celeba["split"], "n_ranked": 1}}},
        "training": {"celeba": config["training"]["celeba"]},
        "methods": {"meta": {**METHODS["meta"], "overrides": overrides}, "plain": {"kind": "ssd", "params": {}}},
        "tables": {"table1": table},
        "figures": {"figure4": {"kind": "table_bars", "table": "table1"}},
        "seeds": [0],
        "selection": {**config["selection"], "grids": {}},
    }


def in_turn(**change: Any) -> dict[str, Any]:
    config = make_config()
    config["methods"]["one_by_one"] = {"of": "meta", "in_turn": 1, **change}
    config["tables"]["table1"]["methods"].append("one_by_one")
    return config


def test_a_method_of_another_has_its_hyper_parameters() -> None:
    config = in_turn(label="One by one")
    check_config(config)
    check_config(config)  # what was filled in is no problem
    assert method_spec(config["methods"], "one_by_one", "celeba", 5) == {
        **method_spec(config["methods"], "meta", "celeba", 5), "in_turn": 1
    }  # fmt: skip
    assert config["methods"]["one_by_one"]["label"] == "One by one" and "label" not in config["methods"]["meta"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "NO"}, "methods/one_by_one/of = NO, allowed: a method with kind and params; there are: meta, plain"),
        ({"of": "one_by_one"}, "methods/one_by_one/of = one_by_one, allowed: a method with kind and params"),
        ({"in_turn": None}, "of and in_turn belong together"),
        ({"in_turn": 0}, "in_turn = 0, allowed: a whole number >= 1"),
        ({"params": {"lr": 1.0}}, "methods/one_by_one: params: these are those of meta; leave them out"),
        ({"kind": "ssd"}, "methods/one_by_one: kind: these are those of meta; leave them out"),
    ],
)
def test_a_method_of_another_has_nothing_else(change: dict[str, Any], message: str) -> None:
    config = in_turn(**change)
    config["methods"]["one_by_one"] = {k: v for k, v in config["methods"]["one_by_one"].items() if v is not None}
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_config(config)


def test_grid_points_are_what_the_tables_ask_for_once() -> None:
    tables = {
        "t1": {"blocks": [{"dataset": "b", "n": 5}, {"dataset": "a", "n": 1}], "methods": ["y", "x"]},
        "t2": {"blocks": [{"dataset": "b", "n": 5}], "methods": ["x", "z"]},
    }
    points = grid_points(tables)
    assert len(points) == 5
    assert set(points) == {("b", 5, "x"), ("b", 5, "y"), ("b", 5, "z"), ("a", 1, "x"), ("a", 1, "y")}


@pytest.mark.parametrize("n", [1, 10])
def test_good_grid_passes(n: int) -> None:
    check_config(make_config(n=n))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "lfw"}, "tables/table1: no dataset 'lfw'; there are: celeba, other"),
        ({"dataset": "other", "n": 1}, "tables/table1: dataset 'other' has no entry under training"),
        ({"n": 11}, "n = 11, but datasets/celeba/split/n_ranked = 10"),
    ],
)
def test_bad_block_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(make_config(**change))


@pytest.mark.parametrize(
    ("methods", "message"),
    [(["mine"], "'mine' is not in the config"), (["retrain"], "retrain is a row of every table already")],
)
def test_bad_method_of_a_table_is_an_error(methods: list[str], message: str) -> None:
    config = make_config()
    config["tables"]["table1"]["methods"] = methods
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_figure_of_an_unknown_table_is_an_error() -> None:
    config = make_config()
    config["figures"]["figure4"] = {"kind": "table_bars", "table": "table9"}
    with pytest.raises(ConfigError, match="figures/figure4: no table 'table9'; there are: table1"):
        check_config(config)


def test_roc_curves_of_a_table_without_attacks_are_an_error() -> None:
    config = make_config()
    config["figures"]["figure4"]["kind"] = "roc"
    with pytest.raises(ConfigError, match="figures/figure4: tables/table1 has privacy: false"):
        check_config(config)


def test_block_of_a_figure_that_its_table_lacks_is_an_error() -> None:
    config = make_config()
    config["figures"]["figure4"] = {"kind": "harm", "table": "table1", "blocks": [{"dataset": "celeba", "n": 7}]}
    with pytest.raises(ConfigError, match=r"figures/figure4: block .*7.* is not in tables/table1"):
        check_config(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "my.yaml: unknown key colour; allowed: data_root, "),
        ({"seeds": []}, "seeds = [], allowed: a list that is not empty, each a whole number >= 0 that differs"),
        ({"seeds": [1, 1]}, "seeds = [1, 1], allowed: each value once"),
        ({"device": "gpu"}, "device = 'gpu', allowed: auto or cpu"),
        ({"jobs_per_gpu": 0}, "jobs_per_gpu = 0, allowed: a whole number >= 1"),
        ({"data_root": None}, "data_root = null, allowed: text"),
        ({"datasets/celeba/folder": None}, "datasets/celeba/folder = null, allowed: text"),
        ({"datasets/celeba/layout": "synthetic"}, "datasets/celeba: missing key synthetic"),
        ({"datasets/celeba/synthetic": FACES}, "datasets/celeba: either folder or synthetic must be given"),
        ({"datasets/celeba/identities": 2}, "datasets/celeba/identities = 2, allowed: a whole number >= 3 or null"),
        ({"datasets/celeba/duplicate_distance": 65}, "duplicate_distance = 65, allowed: a whole number in [0, 64]"),
        (
            {"datasets/celeba/stored_px": [4, 4]},
            "stored_px = [4, 4], allowed: a list of 2, each a whole number in [8, 4096]",
        ),
        ({"training/celeba/lr": "1e-3"}, "training/celeba/lr = '1e-3', allowed: a number > 0 (a number in YAML needs"),
        ({"methods/meta/kind": "mine:"}, "methods/meta/kind = 'mine:', allowed: a kind of ours, or `module:Class`"),
        (
            {"methods/plain": None},
            "methods/plain = null, allowed: a mapping with the keys kind, needs, label, params, ",
        ),
        ({"attack": None}, "attack = null, allowed: a mapping with the keys views, crop_scale, "),
        ({"tables/table1/title": date(2024, 1, 2)}, "tables/table1/title = 2024-01-02 is a date, allowed: text"),
        ({"datasets/celeba/split/n_ranked": "5"}, "n_ranked = '5', allowed: a whole number >= 1 (a whole number in YA"),
        (
            {"tables/table1/blocks": [{"dataset": "celeba", "n": 5}, {"dataset": "celeba", "n": 5}]},
            "tables/table1/blocks = [{'dataset': 'celeba', 'n': 5}, {'dataset': 'celeba', 'n': 5}], allowed: each val",
        ),
        ({"tables/table1/blocks": [1]}, "tables/table1/blocks/0 = 1, allowed: a mapping with the keys dataset, n"),
        ({"training/lfw": PAPER["training"]["celeba"]}, "training/lfw: no dataset 'lfw'; there are: celeba, other"),
        ({"selection/grids": {"NO": {"lr": [1.0]}}}, "selection/grids/NO: no method 'NO'; there are: meta, plain"),
        (
            {"selection/grids": {"meta": {"lr": [1.0], "ir": [1.0]}}},
            "selection/grids/meta: ir is not among the method's params; they are: lr, epochs, eta",
        ),
        (
            {"tables/table1/published": {"table": 7, "variants": {"ssd": "first"}}},
            "tables/table1/published/variants/ssd: the table has no such method; it has: meta, plain",
        ),
        (
            {"tables/table1/published": {"table": 7, "variants": {"meta": {"celeba/n6": "first"}}}},
            "published/variants/meta/celeba/n6: the table has no such setting; it has: celeba/n5",
        ),
        (DRAWN | {"datasets/celeba/folder": "celeba"}, "datasets/celeba: unknown key folder: with layout: synthetic"),
        (DRAWN | {"datasets/celeba/options": {"file": "a"}}, "datasets/celeba: options = {'file': 'a'}, allowed: {}"),
        (
            DRAWN | {"datasets/celeba/layout": "celeba", "datasets/celeba/synthetic": FACES | {"task": CLASSES}},
            "datasets/celeba: synthetic.task is 'classification', but the celeba layout holds multilabel labels.",
        ),
        (
            DRAWN | {"datasets/celeba/layout": "mufac"},
            "datasets/celeba: synthetic.task is 'multilabel', but the mufac layout holds classification labels.",
        ),
        (
            DRAWN
            | {"datasets/celeba/layout": "mufac"}
            | {"datasets/celeba/synthetic": FACES | {"task": CLASSES, "n_classes": 7}},
            "datasets/celeba: synthetic.n_classes is 7, but the mufac layout has 8 classes. Set it so.",
        ),
        (
            {"methods/meta/kind": "mine:Mine"},
            "methods/meta: missing key needs: a kind of your own must say what it needs",
        ),
        ({"methods/meta/needs": "data"}, "methods/meta: unknown key needs: kind metaunlearn knows"),
        ({"methods/meta/needs": "much"}, "methods/meta/needs = 'much', allowed: artefact, nothing or data"),
        ({"methods/meta/label": 3}, "methods/meta/label = 3, allowed: text"),
        ({"tables/table1/blocks": []}, "tables/table1/blocks = [], allowed: a list that is not empty"),
        (
            {"tables/table1/methods": ["meta", "meta"]},
            "tables/table1/methods = ['meta', 'meta'], allowed: each value once",
        ),
        (
            {"tables/table1/methods": ["a-b"]},
            "tables/table1/methods/0 = 'a-b', allowed: a name of letters, ",
        ),
        ({"tables/table1/layout": "wide"}, "tables/table1/layout = 'wide', allowed: tow"),
        ({"tables/table1/published": {"table": 8}}, "published/table = 8, allowed: a whole number in [1, 7]"),
        ({"figures/figure4/show_faces": True}, "figures/figure4: unknown key show_faces"),
        (
            {"figures/figure4/kind": "hardest_identities"},
            "figures/figure4: kind: hardest_identities needs show_faces, and",
        ),
        ({"selection/requests": 0}, "selection/requests = 0, allowed: a whole number >= 1"),
        ({"selection/grids": {"meta": {"lr": []}}}, "selection/grids/meta/lr = [], allowed: a list that is not empty"),
        ({"selection/grids": {"meta": {}}}, "selection/grids/meta = {}, allowed: keys with values"),
    ],
)
def test_impossible_value_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    config = make_config()
    for path, value in change.items():
        *parents, last = path.split("/")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
        if last == "folder" and value is ABSENT and "datasets/celeba/synthetic" in change:
            del place[last]
    with pytest.raises(ConfigError) as caught:
        check_config(config, "my.yaml")
    assert message in str(caught.value) and "problems" not in str(caught.value)


@pytest.mark.parametrize("section", ["datasets", "training", "methods", "tables", "figures"])
@pytest.mark.parametrize("name", ["a b", "a.b", "a/../b", "a/b", "a{b}", "", "a\n"])
def test_names_become_files_and_so_are_checked(section: str, name: str) -> None:
    config = make_config()
    config[section][name] = next(iter(config[section].values()))
    with pytest.raises(ConfigError) as caught:
        check_config(config, "my.yaml")
    assert f"{section}: the key {name!r}, allowed: a name of letters, digits and _" in str(caught.value)


@pytest.mark.parametrize("section", ["datasets", "training", "methods", "tables", "figures"])
@pytest.mark.parametrize(("name", "shown"), [(2024, "2024"), (True, "true")])
def test_a_name_that_yaml_takes_for_something_else_must_be_quoted(section: str, name: Any, shown: str) -> None:
    config = make_config()
    config[section][name] = next(iter(config[section].values()))
    with pytest.raises(ConfigError, match=rf'{section}/{shown}: the key {shown} is .*; quote it: "{shown}"'):
        check_config(config)


@pytest.mark.parametrize("name", ["pretrain", "retrain", "ceiling"])
def test_a_method_cannot_be_called_like_a_trained_model(name: str) -> None:
    config = make_config()
    config["methods"][name] = config["methods"]["plain"]
    with pytest.raises(ConfigError, match=f"methods/{name}: {name} is the name of a trained model"):
        check_config(config)


def test_a_table_cannot_be_called_like_the_second_file_of_another() -> None:
    config = make_config()
    config["tables"]["table1_tidy"] = config["tables"]["table1"]
    with pytest.raises(ConfigError, match="tables/table1_tidy: the name must not end in _tidy"):
        check_config(config)


def test_left_out_keys_are_added_and_all_else_stays_as_it_was_written() -> None:
    config = make_config()
    config["training"]["celeba"] |= {"lr": 1, "crop_scale": [1, 1]}
    before = copy.deepcopy(config)
    check_config(config)
    assert repr(config) == repr({**before, "weights_root": None, "jobs_per_gpu": 1})  # types and order too
    check_config(config)
    assert list(config)[-2:] == ["weights_root", "jobs_per_gpu"]


def test_all_problems_are_told_at_once() -> None:
    config = make_config(dataset="lfw")
    config["figures"]["figure4"]["table"] = "table9"
    with pytest.raises(ConfigError, match=r"my.yaml: 2 problems\n  tables/table1: no .*\n  figures/figure4: no table"):
        check_config(config, "my.yaml")


@pytest.mark.parametrize("value", [5, 202310, 1.5, date(2024, 1, 2)])
def test_a_folder_whose_name_reads_like_a_number_is_told_how_to_write_it(value: Any) -> None:
    said = r"^the configuration: data_root = .*, allowed: text\. .* --config data_root=\./NAME, or in a file"
    with pytest.raises(ConfigError, match=said):
        check_config({**make_config(), "data_root": value}, "my.yaml")


def test_what_there_is_none_of_is_said() -> None:
    with pytest.raises(ConfigError, match="figures/figure4: no table 'table1'; there are: none"):
        check_config({**make_config(), "tables": {}})


def test_choosing_on_a_paired_seed_needs_two() -> None:
    config = make_config()
    config["attack"] = {**config["attack"], "offline_a": "paired_seed"}
    with pytest.raises(ConfigError, match="needs a second seed"):
        check_config(config)
    check_config({**config, "seeds": [0, 1]})


def test_published_configuration_passes() -> None:
    check_config(PAPER)


@pytest.mark.parametrize(
    ("scope", "params", "message"),
    [
        ("lfw", {"lr": 1.0}, "methods/meta/overrides/lfw: no dataset 'lfw'; there are: celeba, other"),
        ("lfw/n5", {"lr": 1.0}, "methods/meta/overrides/lfw/n5: no dataset 'lfw'"),
        ("celeba/5", {"lr": 1.0}, "methods/meta/overrides: the key 'celeba/5', allowed: DATASET or DATASET/nN"),
        ("de mo", {"lr": 1.0}, "methods/meta/overrides: the key 'de mo', allowed: DATASET or DATASET/nN"),
        ("celeba/n0", {"lr": 1.0}, "methods/meta/overrides/celeba/n0: n0 is no request size of celeba; .* n1 to n10"),
        ("celeba/n99", {"lr": 1.0}, "n99 is no request size of celeba; allowed: n1 to n10"),
        ("celeba/n05", {"lr": 1.0}, "n05 is no request size of celeba"),
        ("other/n2", {"lr": 1.0}, "n2 is no request size of other; allowed: n1 to n1"),
        ("celeba/n5", {"rate": 1.0, "lr": 1.0, "alpha": 2}, "celeba/n5: alpha, rate is not among the method's params"),
    ],
)
def test_override_that_is_never_used_is_an_error(scope: str, params: dict[str, Any], message: str) -> None:
    config = make_config()
    config["methods"]["meta"]["overrides"][scope] = params
    with pytest.raises(ConfigError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 0.8, "val": 0.2}, "split: train = 0.8 and val = 0.2, allowed: shares that sum to less than 1"),
        ({"min_images_first": 2, "min_images": 3}, "split: min_images_first = 2, allowed: >= min_images = 3"),
        ({"ratio": 1}, "split: unknown key ratio"),
    ],
)
def test_contradicting_split_is_an_error(changes: dict[str, Any], message: str) -> None:
    config = make_config()
    config["datasets"]["celeba"]["split"] |= changes
    with pytest.raises(ConfigError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_epochs": 31}, ": warmup_epochs = 31, allowed: <= epochs = 30"),
        ({"crop_scale": [1.0, 0.08]}, r"/crop_scale = \[1.0, 0.08\], allowed: the smaller number first"),
        ({"optimiser": "adam"}, "/optimiser = 'adam', allowed: sgd or adamw"),
        ({"epoch": 3}, ": unknown key epoch"),
    ],
)
def test_contradicting_training_is_an_error(changes: dict[str, Any], message: str) -> None:
    config = make_config()
    config["training"]["celeba"] |= changes
    with pytest.raises(ConfigError, match=f"training/celeba{message}"):
        check_config(config)


def test_changed_keys_names_the_leaves_that_differ() -> None:
    old = {"lr": 0.1, "model": {"name": "a", "px": 32}, "gone": 1}
    new = {"lr": 0.2, "model": {"name": "a", "px": 64}, "new": None}
    assert changed_keys(old, new) == ["gone: 1 -> None", "lr: 0.1 -> 0.2", "model.px: 32 -> 64"]
    assert changed_keys(old, old) == []


ATTACK: dict[str, Any] = {
    "views": 2, "crop_scale": [0.5, 1.0], "max_reference": 100, "gamma": 1.0, "offline_a": 0.3,
    "combine": "mean_log_ratio", "references": "own",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": -1}, "views = -1, allowed: a whole number >= 0"),
        ({"gamma": 0.0}, "gamma = 0.0, allowed: a number > 0"),
        ({"offline_a": 1.1}, r"offline_a = 1.1, allowed: a number in \[0, 1\] or paired_seed"),
        ({"offline_a": "target"}, r"offline_a = 'target', allowed: a number in \[0, 1\] or paired_seed"),
        ({"crop_scale": [0.0, 1.0]}, r"crop_scale = \[0.0, 1.0\], allowed: a list of 2, each a number in \(0, 1\]"),
        ({"max_reference": 0}, "max_reference = 0, allowed: a whole number >= 1"),
        ({"combine": "best"}, "combine = 'best', allowed: mean_log_ratio or majority"),
        ({"references": "all"}, "references = 'all', allowed: own or seeds"),
        (
            {"references": "seeds", "offline_a": "paired_seed"},
            "references = 'seeds', allowed: own, with offline_a: paired_s",
        ),
    ],
)
def test_impossible_attack_is_refused(change: dict[str, Any], message: str) -> None:
    AttackSpec.from_dict(ATTACK)
    with pytest.raises(ConfigError, match=f"^attack: {message}"):
        AttackSpec.from_dict({**ATTACK, **change})


def test_impossible_linear_probe_is_refused() -> None:
    ProbeSpec.from_dict({"max_reference": 1, "refit_c": 0.1})
    with pytest.raises(ConfigError, match=r"^attack: refit_c = 0, allowed: a number > 0"):
        ProbeSpec.from_dict({"max_reference": 1, "refit_c": 0})
    with pytest.raises(ConfigError, match=r"^attack: max_reference = 0, allowed: a whole number >= 1"):
        ProbeSpec.from_dict({"max_reference": 0, "refit_c": 1.0})


def test_scores_depend_on_the_questions_of_an_attack_only() -> None:
    spec = AttackSpec.from_dict({**ATTACK, "gamma": 2.0})
    assert spec.queries() == {"views": 2, "crop_scale": [0.5, 1.0], "max_reference": 100}
