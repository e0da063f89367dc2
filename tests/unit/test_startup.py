import gc
import importlib
import subprocess
import sys

import pytest

from oneshui.startup import quick_imports


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_within_and_what_was_made_is_not_searched_later():
    before = gc.get_freeze_count()
    with quick_imports():
        assert not gc.isenabled()
        made = [[i] for i in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() - before >= len(made)


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError), quick_imports():
        importlib.import_module("nowhere_to_be_found")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()


@pytest.mark.slow
def test_a_process_that_imports_torch_says_nothing_at_its_end():
    code = """
from oneshui.startup import quick_imports
with quick_imports():
    import oneshui.training, oneshui.models
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_an_error_is_still_told():
    code = "from oneshui.startup import quick_imports\nwith quick_imports(): pass\nraise SystemExit('what went wrong')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "what went wrong\n")
