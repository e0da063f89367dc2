"""Settings that hold before any test module imports torch."""

import gc
import os
import sys

import pytest

from oneshui.startup import silence_end

# pytest runs on as many processes as there are cores; more threads than that take turns and triple the time
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """Import the test modules without collecting garbage, which takes a third of the time (oneshui.startup)."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Say nothing after the end: torch's bindings complain of what was not collected."""
    silence_end()


@pytest.fixture(autouse=True)
def _same_numbers_every_run() -> None:
    """Random weights of a test are the same in every run, alone or among others: no test passes by luck."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
