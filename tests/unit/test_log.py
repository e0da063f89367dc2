"""The log of a job: what it did, why it failed, and nothing left behind."""

import logging
import warnings
from pathlib import Path

import pytest

from oneshui.errors import DataError
from oneshui.log import log_to, logger


def test_messages_and_warnings_land_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with warnings.catch_warnings(), log_to(str(path)) as log:
        warnings.simplefilter("always")
        log.info("step %d", 3)
        logger.debug("too much")
        warnings.warn("careful", UserWarning, stacklevel=1)
    text = path.read_text()
    assert "INFO step 3" in text
    assert "WARNING" in text and "careful" in text
    assert "too much" not in text


def test_users_error_is_logged_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with pytest.raises(DataError), log_to(str(path)):
        raise DataError("row 3 is empty")
    text = path.read_text()
    assert "ERROR DataError: row 3 is empty" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_other_errors_are_logged_with_their_traceback(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "job.log"
    with pytest.raises(failure), log_to(str(path)):
        raise failure("why")
    text = path.read_text()
    assert "the job failed" in text and "Traceback" in text and f"{failure.__name__}: why" in text


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    for text in ("first", "second"):
        with log_to(str(path)) as log:
            log.info(text)
    assert "second" in path.read_text() and "first" not in path.read_text()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    loggers = (logger, logging.getLogger("py.warnings"))
    before = [(list(each.handlers), each.level) for each in loggers]
    show = warnings.showwarning
    with pytest.raises(DataError), log_to(str(tmp_path / "job.log")):
        assert warnings.showwarning is not show
        raise DataError("x")
    assert [(list(each.handlers), each.level) for each in loggers] == before
    assert warnings.showwarning is show
    logger.warning("after")
    assert "after" not in (tmp_path / "job.log").read_text()


def test_without_a_path_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to(None) as log:
        log.info("hello")
    assert "INFO hello" in capsys.readouterr().err
