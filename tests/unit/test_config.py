"""Configuration as values."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneshui.config import (
    AttackSpec,
    RefitSpec,
    TrainSpec,
    changed_keys,
    check_grid,
    check_methods,
    from_mapping,
    grid_points,
    method_spec,
    per_channel,
)
from oneshui.errors import ConfigError
from oneshui.methods import METHODS as METHODS_OF_OURS


@dataclass(frozen=True)
class Toy:
    lr: float
    names: tuple[str, ...]
    steps: int = 3
    extra: dict[str, int] = field(default_factory=dict)


def test_mapping_becomes_a_dataclass() -> None:
    found = from_mapping(Toy, {"lr": 0.1, "names": ["a", "b"]}, "toy")
    assert found == Toy(0.1, ("a", "b"), 3, {})
    assert isinstance(found.names, tuple)


@dataclass(frozen=True)
class Typed:
    whole: int = 1
    number: float = 1.0
    flag: bool = True
    word: str = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    either: float | str = 0.5


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"whole": 2.0}, "whole is 2.0, allowed: a whole number"),
        ({"whole": True}, "whole is True, allowed: a whole number"),
        ({"number": "1e-3"}, r"number is '1e-3', allowed: a finite number \(a number in YAML needs a point: 1.0e-3\)"),
        ({"number": float("nan")}, "number is nan, allowed: a finite number"),
        ({"number": float("inf")}, "number is inf, allowed: a finite number"),
        ({"number": None}, "number is None, allowed: a finite number"),
        ({"flag": 1}, "flag is 1, allowed: true or false"),
        ({"word": 3}, "word is 3, allowed: text"),
        ({"pair": [0.0]}, "allowed: a list of 2: a finite number, a finite number"),
        ({"pair": [0.0, "b"]}, "allowed: a list of 2: a finite number, a finite number"),
        ({"pair": 0.0}, "allowed: a list of 2"),
        ({"either": [1]}, "allowed: a finite number or text"),
    ],
)
def test_a_value_of_another_type_is_an_error(values: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"toy: .*{allowed}"):
        from_mapping(Typed, values, "toy")


def test_values_of_the_annotated_types_are_taken() -> None:
    values = {"whole": 2, "number": 3, "flag": False, "word": "", "pair": [0, 1], "either": "paired_seed"}
    assert from_mapping(Typed, values, "toy") == Typed(2, 3, False, "", (0, 1), "paired_seed")


def test_unknown_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"toy: unknown key rate, step; allowed: lr, names, steps, extra"):
        from_mapping(Toy, {"lr": 0.1, "names": [], "step": 1, "rate": 2}, "toy")


def test_missing_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"toy: missing key names; it has: lr"):
        from_mapping(Toy, {"lr": 0.1}, "toy")
    with pytest.raises(ConfigError, match=r"missing key lr, names; it has: nothing"):
        from_mapping(Toy, {}, "toy")


TRAINING: dict[str, Any] = {
    "model": "resnet10t.c3_in1k", "model_options": {}, "init_weights": "timm", "input_px": 32, "epochs": 1,
    "warmup_epochs": 0, "batch_size": 8, "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0,
    "crop_scale": [1.0, 1.0], "precision": "fp32", "revision": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"init_weights": "random"}, "mean and std given where init_weights is random"),
        ({"init_weights": "random", "mean": 0.5}, "mean and std given where init_weights is random"),
        ({"mean": 1.5}, r"mean in \[0, 1\] does not hold"),
        ({"mean": [0.5, 0.5, -0.1]}, r"mean in \[0, 1\] does not hold"),
        ({"std": 0}, "std > 0 does not hold"),
        ({"std": [0.2, 0.2, 0.0]}, "std > 0 does not hold"),
        ({"mean": [0.5, 0.5]}, "mean is .*allowed: a finite number or a list of 3"),
        ({"std": "0.5"}, "std is '0.5', allowed: a finite number or a list of 3"),
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


PAPER: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())


def make_config(**change: Any) -> dict[str, Any]:
    """A table on celeba, the paper's; dataset other has one ranked identity and no training."""
    block = {"dataset": "celeba", "n": 5}
    celeba, training = copy.deepcopy(PAPER["datasets"]["celeba"]), copy.deepcopy(PAPER["training"]["celeba"])
    overrides = {"celeba": {"lr": 2.0, "eta": 8}, "celeba/n5": {"lr": 3.0}, "other/n1": {"epochs": 9}}
    return {
        "datasets": {"celeba": celeba, "other": {"split": {**celeba["split"], "n_ranked": 1}}},
        "training": {"celeba": training},
        "methods": {**METHODS, "meta": {**METHODS["meta"], "overrides": overrides}},
        "tables": {"table1": {"blocks": [{**block, **change}], "methods": ["meta", "plain"], "privacy": False}},
        "figures": {"figure4": {"kind": "table_bars", "table": "table1"}},
        "attack": PAPER["attack"],
        "seeds": [0],
    }


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
    check_grid(make_config(n=n))


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
        check_grid(make_config(**change))


@pytest.mark.parametrize(
    ("methods", "message"),
    [(["mine"], "'mine' is not in the config"), (["retrain"], "retrain is a row of every table already")],
)
def test_bad_method_of_a_table_is_an_error(methods: list[str], message: str) -> None:
    config = make_config()
    config["tables"]["table1"]["methods"] = methods
    with pytest.raises(ConfigError, match=message):
        check_grid(config)


def test_figure_of_an_unknown_table_is_an_error() -> None:
    config = make_config()
    config["figures"]["figure4"] = {"kind": "table_bars", "table": "table9"}
    with pytest.raises(ConfigError, match="figures/figure4: no table 'table9'; there are: table1"):
        check_grid(config)


def test_roc_curves_of_a_table_without_attacks_are_an_error() -> None:
    config = make_config()
    config["figures"]["figure4"]["kind"] = "roc"
    with pytest.raises(ConfigError, match="figures/figure4: tables/table1 has privacy: false"):
        check_grid(config)


def test_block_of_a_figure_that_its_table_lacks_is_an_error() -> None:
    config = make_config()
    config["figures"]["figure4"] = {"kind": "harm", "table": "table1", "blocks": [{"dataset": "celeba", "n": 7}]}
    with pytest.raises(ConfigError, match=r"figures/figure4: block .*7.* is not in tables/table1"):
        check_grid(config)


def test_hyper_parameters_are_checked_for_every_dataset_and_size() -> None:
    folder = Path(__file__).parents[2] / "workflow/schemas/methods"
    config = {"methods": copy.deepcopy(PAPER["methods"]), "tables": PAPER["tables"]}
    check_methods(config, folder, METHODS_OF_OURS.__contains__)
    config["methods"]["pgu"]["overrides"]["mufac/n10"]["gamma"] = 1.5
    with pytest.raises(ConfigError, match=r"methods/pgu for mufac, n = 10, gamma: 1.5 is greater than or equal"):
        check_methods(config, folder, METHODS_OF_OURS.__contains__)
    check_methods(config, folder, lambda kind: kind != "pgu")  # a kind of your own checks its own


def test_choosing_on_a_paired_seed_needs_two() -> None:
    config = make_config()
    config["attack"] = {**config["attack"], "offline_a": "paired_seed"}
    with pytest.raises(ConfigError, match="needs a second seed"):
        check_grid(config)
    check_grid({**config, "seeds": [0, 1]})


def test_published_configuration_passes() -> None:
    check_grid(PAPER)


@pytest.mark.parametrize(
    ("scope", "params", "message"),
    [
        ("lfw", {"lr": 1.0}, "methods/meta/overrides/lfw: no dataset 'lfw'; there are: celeba, other"),
        ("lfw/n5", {"lr": 1.0}, "methods/meta/overrides/lfw/n5: no dataset 'lfw'"),
        ("celeba/5", {"lr": 1.0}, "no dataset 'celeba/5'"),
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
        check_grid(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 0.8, "val": 0.2}, "datasets/celeba: split: train = 0.8 and val = 0.2 must .* sum to less than 1"),
        ({"min_images_first": 2, "min_images": 3}, "datasets/celeba: split: .* min_images_first = 2 >= min_images"),
        ({"ratio": 1}, "datasets/celeba: split: unknown key ratio"),
    ],
)
def test_contradicting_split_is_an_error(changes: dict[str, Any], message: str) -> None:
    config = make_config()
    config["datasets"]["celeba"]["split"] |= changes
    with pytest.raises(ConfigError, match=message):
        check_grid(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_epochs": 31}, r"warmup_epochs in \[0, epochs\] does not hold"),
        ({"crop_scale": [1.0, 0.08]}, r"0 < crop_scale\[0\] <= crop_scale\[1\] <= 1 does not hold"),
        ({"optimiser": "adam"}, "optimiser in .* does not hold"),
        ({"epoch": 3}, "unknown key epoch"),
    ],
)
def test_contradicting_training_is_an_error(changes: dict[str, Any], message: str) -> None:
    config = make_config()
    config["training"]["celeba"] |= changes
    with pytest.raises(ConfigError, match=rf"training/celeba: training: {message}"):
        check_grid(config)


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
        ({"views": -1}, "views >= 0"),
        ({"gamma": 0.0}, "gamma > 0"),
        ({"offline_a": 1.1}, r"offline_a in \[0, 1\] or paired_seed"),
        ({"offline_a": "target"}, r"offline_a in \[0, 1\] or paired_seed"),
        ({"crop_scale": [0.0, 1.0]}, r"0 < crop_scale\[0\]"),
        ({"max_reference": 0}, "max_reference >= 1"),
        ({"combine": "best"}, "combine in"),
        ({"references": "all"}, "references in"),
        ({"references": "seeds", "offline_a": "paired_seed"}, "references: own with offline_a: paired_seed"),
    ],
)
def test_impossible_attack_is_refused(change: dict[str, Any], message: str) -> None:
    AttackSpec.from_dict(ATTACK)
    with pytest.raises(ConfigError, match=f"attack: {message}.* does not hold"):
        AttackSpec.from_dict({**ATTACK, **change})


def test_impossible_refit_is_refused() -> None:
    RefitSpec.from_dict({"max_reference": 1, "refit_c": 0.1})
    for spec in ({"max_reference": 1, "refit_c": 0}, {"max_reference": 0, "refit_c": 1.0}):
        with pytest.raises(ConfigError, match="max_reference >= 1 and refit_c > 0 do not hold"):
            RefitSpec.from_dict(spec)


def test_scores_depend_on_the_questions_of_an_attack_only() -> None:
    spec = AttackSpec.from_dict({**ATTACK, "gamma": 2.0})
    assert spec.queries() == {"views": 2, "crop_scale": [0.5, 1.0], "max_reference": 100}
