"""The registry: what the workflow knows of methods without importing them is what they are."""

import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest
import yaml
from tests.workflow.conftest import ROOT

from oneshui.errors import ConfigError
from oneshui.methods import METHODS, artefact_spec, make_method, needs_of

SCHEMAS = ROOT / "workflow/schemas"


@pytest.mark.parametrize("kind", METHODS)
def test_schema_and_artefact_parameters_are_fields_of_the_class(kind: str) -> None:
    module, _, name = METHODS[kind].target.partition(":")
    cls = getattr(importlib.import_module(module), name)
    fields = {field.name for field in dataclasses.fields(cls)}
    schema = yaml.safe_load((SCHEMAS / f"methods/{kind}.schema.yaml").read_text())
    assert set(schema["properties"]) == fields | {"kind", "revision"}
    assert set(schema["required"]) == fields | {"kind"}
    assert set(METHODS[kind].artefact_params) <= fields
    assert hasattr(cls, "precompute") == (METHODS[kind].needs != "data")
    assert list(inspect.signature(cls.unlearn).parameters)[1:4] == (
        ["model", "forget", "retain"] if METHODS[kind].needs == "data" else ["model", "support", "artefact"]
    )


def test_every_kind_is_allowed_in_the_configuration() -> None:
    schema = yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text())
    assert set(schema["$defs"]["method"]["properties"]["kind"]["anyOf"][0]["enum"]) == set(METHODS)


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
