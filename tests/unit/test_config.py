"""Configuration as values."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from oneshui.config import changed_keys, check_grid, from_mapping, grid_points, method_spec
from oneshui.errors import ConfigError


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


def test_unknown_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"toy: unknown key rate, step; allowed: lr, names, steps, extra"):
        from_mapping(Toy, {"lr": 0.1, "names": [], "step": 1, "rate": 2}, "toy")


def test_missing_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"toy: missing key names; it has: lr"):
        from_mapping(Toy, {"lr": 0.1}, "toy")
    with pytest.raises(ConfigError, match=r"missing key lr, names; it has: nothing"):
        from_mapping(Toy, {}, "toy")


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


def make_config(**change: Any) -> dict[str, Any]:
    block = {"dataset": "celeba", "n": 5}
    return {
        "datasets": {"celeba": {"split": {"n_ranked": 10}}, "other": {"split": {"n_ranked": 1}}},
        "training": {"celeba": {}},
        "methods": METHODS,
        "tables": {"table1": {"blocks": [{**block, **change}], "methods": ["meta", "plain"]}},
        "figures": {"figure4": {"table": "table1"}},
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
    config["figures"]["figure4"] = {"table": "table9"}
    with pytest.raises(ConfigError, match="figures/figure4: no table 'table9'; there are: table1"):
        check_grid(config)


def test_changed_keys_names_the_leaves_that_differ() -> None:
    old = {"lr": 0.1, "model": {"name": "a", "px": 32}, "gone": 1}
    new = {"lr": 0.2, "model": {"name": "a", "px": 64}, "new": None}
    assert changed_keys(old, new) == ["gone: 1 -> None", "lr: 0.1 -> 0.2", "model.px: 32 -> 64"]
    assert changed_keys(old, old) == []
