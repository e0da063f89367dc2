"""What the terminal shows of Snakemake's records."""

import io
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_oneshui import LogHandler, message_of, without_places

SETTINGS = {
    "printshellcmds": False, "nocolor": True, "quiet": None, "debug_dag": False, "verbose": False,
    "show_failed_logs": True, "stdout": False, "dryrun": False,
}  # fmt: skip
LOG = """2026-01-01 10:00:00,123 INFO all is well
2026-01-01 10:00:01,123 ERROR DataError: row 3 is wrong
  it is empty
Fill it in.
"""


class Terminal:
    """A handler whose records are written to a text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self._text = io.StringIO()
        monkeypatch.setattr(sys, "stderr", self._text)
        self._handler = LogHandler(SimpleNamespace(**{**SETTINGS, **settings}), None)  # type: ignore[arg-type]

    def __call__(self, event: LogEvent | None, msg: str | None = None, **values: Any) -> str:
        """Send a record and return what was written."""
        before = len(self._text.getvalue())
        self._handler.handle(logging.makeLogRecord({"msg": msg, "levelname": "INFO", "event": event, **values}))
        return self._text.getvalue()[before:]

    def start(self, jobid: int, rule: str = "train", log: Path | None = None, **wildcards: str) -> str:
        return self(
            LogEvent.JOB_INFO, jobid=jobid, rule_name=rule, wildcards=wildcards, output=["o"],
            log=[str(log)] if log else [],
        )  # fmt: skip

    def fail(self, jobid: int, log: Path, rule: str = "train") -> str:
        return self(LogEvent.JOB_ERROR, jobid=jobid, rule_name=rule, log=[str(log)], shellcmd=None)


def test_a_step_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal(monkeypatch)
    shown(LogEvent.RUN_INFO, "Job stats: ...", stats={"index": 1, "train": 2, "total": 12})
    assert shown(None, "Building DAG of jobs...") + shown(LogEvent.WORKFLOW_STARTED, "x") == ""
    assert shown.start(1, "index", dataset="toy") == "[ 0/12]  0:00  index: dataset=toy\n"
    assert shown(LogEvent.PROGRESS, done=1, total=12) == ""
    assert shown.start(2, seed="0") == "[ 1/12]  0:00  train: 2 jobs\n"
    assert shown.start(3, seed="1") == ""
    assert shown(LogEvent.PROGRESS, done=12, total=12) == "[12/12]  0:00  done\n"
    assert shown(None, "Something new") == "Something new\n"


@pytest.mark.parametrize("quiet", [{"rules"}, {"progress", "rules"}, {"all"}])
def test_an_error_is_one_block_whatever_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: set[str]
) -> None:
    shown, log = Terminal(monkeypatch, quiet=quiet), tmp_path / "job.log"
    shown(LogEvent.RUN_INFO, stats={"train": 1, "total": 1})
    shown.start(7, log=log, dataset="toy", seed="0")
    log.write_text(LOG)
    ended = (
        "RuleException:\nCalledProcessError in file \"x.smk\", line 3:\nCommand 'x' returned non-zero exit status 1."
    )
    assert shown(LogEvent.ERROR, ended, exception="RuleException") == ""
    assert shown.fail(7, log).strip().splitlines() == [
        "Error in train (dataset=toy, seed=0)", "DataError: row 3 is wrong", "  it is empty", "Fill it in.",
        f"Log: {log}",
    ]  # fmt: skip
    assert shown(None, "Exiting because a job execution failed. Look") == "1 failed: train (dataset=toy, seed=0)\n"
    assert shown(LogEvent.ERROR, "WorkflowError:\nAt least one job did not complete", exception="WorkflowError") == ""


def test_a_killed_job_is_not_given_the_message_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, log = Terminal(monkeypatch), tmp_path / "job.log"
    log.write_text(LOG)
    os.utime(log, (1, 1))
    shown.start(1, log=log)
    ended = "RuleException:\nCalledProcessError in file x:\nCommand 'x' returned non-zero exit status 137."
    shown(LogEvent.ERROR, ended, exception="RuleException")
    told = shown.fail(1, log)
    assert "row 3" not in told
    assert "ended without a message (exit status 137)" in told and "no memory left" in told


def test_the_end_of_a_long_traceback_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text("2026-01-01 10:00:00,123 ERROR the job failed\n" + "".join(f"line {i}\n" for i in range(99)))
    said = message_of(log)
    assert (said[0], said[-1], len(said)) == ("... 70 lines before these", "line 98", 31)
    assert message_of(tmp_path / "none.log") == []


def test_places_in_code_are_left_out_of_what_users_cause() -> None:
    text = 'WorkflowError in rule train in file "/w/x.smk", line 12:\nm was trained\n  File "/w/x", line 3, in of'
    assert without_places(text, "WorkflowError") == "WorkflowError:\nm was trained"
    assert without_places(text, "InputFunctionException") == text
    last = "FileNotFoundError: [Errno 2] No such file or directory: 'none.yaml'"
    assert without_places(f'Traceback:\n\n  File "x.py", line 3, in f\n\n{last}\n\n', "FileNotFoundError") == last


def test_a_dry_run_lists_jobs_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal(monkeypatch, dryrun=True)
    assert shown(LogEvent.RUN_INFO, "Job stats:\njob count") == "Job stats:\njob count\n"
    assert shown(LogEvent.WORKFLOW_STARTED, "SNAKEMAKE") == ""
    assert shown(None, "This was a dry-run") == "This was a dry-run\n"
