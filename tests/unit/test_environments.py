"""The conda environments pin what the lock file pins."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


@pytest.mark.parametrize("name", ["torch", "report"])
def test_pins_of_conda_environments_are_in_the_lock_file(name: str) -> None:
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pins
    for pin in pins:
        assert re.search(rf"^{re.escape(pin)}\s", LOCK, re.MULTILINE), f"{pin} is not in requirements.lock"
