"""The registry: what the workflow knows of methods without importing them is what they are."""

import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oneshui.errors import ConfigError
from oneshui.methods import METHODS, Kind, artefact_spec, make_method, needs_of, params
from oneshui.methods.costs import Cost


@pytest.mark.parametrize("kind", METHODS)
def test_the_class_has_the_hyper_parameters_of_the_registry(kind: str) -> None:
    module, _, name = METHODS[kind].target.partition(":")
    cls = getattr(importlib.import_module(module), name)
    assert issubclass(cls, METHODS[kind].params) and cls.where == kind
    assert dataclasses.fields(cls) == dataclasses.fields(METHODS[kind].params)  # none that nobody checks
    assert hasattr(cls, "precompute") == (METHODS[kind].needs != "data")
    assert list(inspect.signature(cls.unlearn).parameters)[1:4] == (
        ["model", "forget", "retain"] if METHODS[kind].needs == "data" else ["model", "support", "artefact"]
    )


def kind_of(**changes: Any) -> Kind:
    return Kind(**{**{f.name: getattr(METHODS["ssd"], f.name) for f in dataclasses.fields(Kind)}, **changes})


BOTH = METHODS["ssd"].cost


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"needs": "much"}, "ssd:SSD: needs = 'much', allowed: artefact, nothing, data"),
        ({"cost": None}, "ssd:SSD: cost = None, allowed: a Cost, or the plan would price it 0"),
        ({"cost": Cost(BOTH.unlearn)}, "that needs artefact must state the cost of precompute and the bytes"),
        ({"cost": Cost(BOTH.unlearn, BOTH.precompute)}, "that needs artefact must state the cost of precompute"),
        ({"needs": "nothing"}, "that needs nothing must not state the cost of precompute"),
        ({"needs": "data"}, "that needs data must not state the cost of precompute"),
        ({"artefact_params": ("fisher", "alpha")}, "ssd:SSD: alpha is no field of its params"),
        ({"network_params": ("jvp",)}, "ssd:SSD: jvp is no field of its params"),
    ],
)
def test_a_kind_that_the_workflow_could_not_plan_is_an_error(changes: dict[str, Any], message: str) -> None:
    assert kind_of() == METHODS["ssd"]
    with pytest.raises(ConfigError, match=message):
        kind_of(**changes)


def test_a_kind_without_a_cost_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="cost"):
        Kind(target="a:B", params=params.JiT, needs="nothing", label="B", colour="#000000")  # type: ignore[call-arg]


def test_names_and_colours_of_kinds_differ() -> None:
    assert (
        len({kind.label for kind in METHODS.values()})
        == len({kind.colour for kind in METHODS.values()})
        == len(METHODS)
    )


def test_every_hyper_parameter_says_what_it_means() -> None:
    for kind in METHODS.values():
        for field in dataclasses.fields(kind.params):  # type: ignore[arg-type]
            assert kind.params.__pydantic_fields__[field.name].description, field.name  # type: ignore[attr-defined]


def test_the_registry_loads_no_torch() -> None:
    code = "import sys, oneshui.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_kind_of_your_own_says_what_it_needs() -> None:
    assert needs_of({"kind": "mine:Mine", "needs": "nothing"}) == "nothing"
    with pytest.raises(ConfigError, match="'mine:Mine' must say what it needs, one of: artefact, nothing, data"):
        needs_of({"kind": "mine:Mine"})
    with pytest.raises(ConfigError, match="method kind 'mine' is unknown"):
        needs_of({"kind": "mine"})
    with pytest.raises(ConfigError, match=r"'mine:Mine' cannot be loaded .*Is its folder in PYTHONPATH"):
        make_method({"kind": "mine:Mine"})
    spec = {"kind": "mine:Mine", "needs": "artefact", "lr": 0.1}
    assert artefact_spec(spec) == spec


def test_a_method_of_your_own_is_checked_against_its_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_my_own.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Mine:\n"
        "    step: float\n    layers: tuple[str, ...] = ()\n\n    def __post_init__(self):\n"
        "        if not self.step > 0:\n            raise ValueError(f'step = {self.step}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"kind": "of_my_own:Mine", "needs": "nothing", "revision": 2}
    made = make_method({**spec, "step": 1, "layers": ["head"]})
    assert (made.step, made.layers) == (1, ("head",))
    with pytest.raises(ConfigError, match=r"^of_my_own:Mine: step = '1e-3', allowed: a number .*needs a point"):
        make_method({**spec, "step": "1e-3"})
    with pytest.raises(ConfigError, match=r"^of_my_own:Mine: missing key step; it has: layers"):
        make_method({**spec, "layers": []})
    with pytest.raises(ConfigError, match=r"^of_my_own:Mine: unknown key stop; allowed: step, layers"):
        make_method({**spec, "step": 1.0, "stop": 1})
    with pytest.raises(ValueError, match="step = 0"):  # its own check
        make_method({**spec, "step": 0.0})


@pytest.mark.parametrize("kind", METHODS)
def test_hyper_parameters_of_ours_are_refused_alike_from_python_and_from_a_file(kind: str) -> None:
    module, _, name = METHODS[kind].target.partition(":")
    cls = getattr(importlib.import_module(module), name)
    with pytest.raises(ConfigError, match=rf"^{kind}: (?s:.*)unknown key nonsense") as from_file:
        make_method({"kind": kind, "nonsense": 1})
    with pytest.raises(ConfigError) as from_python:
        cls(nonsense=1)
    assert str(from_file.value) == str(from_python.value)
