"""What a run shows on the terminal: a line for each step and one block for each error (``logger: oneshui``).

Snakemake finds this module by its name. Its own log, with every command and file, stays in ``.snakemake/log``. A dry
run lists its jobs as ever, and ``--verbose`` shows all that Snakemake says. ``--quiet`` hides no error.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

#: seconds without a line after which the next job has one, although its rule was shown already
_SILENCE_S = 60.0
#: lines of a log that are shown: a traceback's end, or a message as a whole
_SHOWN = 30

#: what Snakemake says about its own doing
_SAID = re.compile(
    "Building DAG|Using shell|Select jobs|Execute [0-9]+ jobs|Assuming unrestricted|Conda environments|"
    "Singularity|Elapsed time|Write-protecting|Removing temporary output"
)
_FAILED = re.compile("Exiting because a job execution failed")
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ")
_ERROR_LINE = re.compile(_LOG_LINE.pattern.replace("[A-Z]+", "(ERROR|CRITICAL)"))
_ENDED = re.compile(r"(returned non-zero exit status \d+|died with .*>)")
#: errors of Snakemake whose message says all; of any other it is shown where in the code it came from
_PLAIN = (
    "AmbiguousRuleException", "CyclicGraphException", "IncompleteFilesException", "LockException",
    "MissingInputException", "MissingOutputException", "MissingRuleException", "ProtectedOutputException",
    "WildcardError", "WorkflowError",
)  # fmt: skip
#: a file that was named and is not there, or cannot be used: the last line of the traceback says all
_OF_FILES = ("FileNotFoundError", "IsADirectoryError", "NotADirectoryError", "PermissionError")


def message_of(log: str | Path) -> list[str]:
    """Return the lines of a job's log from its first error on, without their times; the last ones, if they are many."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    start = next((i for i, line in enumerate(lines) if _ERROR_LINE.match(line)), len(lines))
    said = [_LOG_LINE.sub("", line) for line in lines[start:]]
    return said if len(said) <= _SHOWN else [f"... {len(said) - _SHOWN} lines before these", *said[-_SHOWN:]]


def without_places(text: str, exception: str) -> str:
    """Return what Snakemake says about an error without places in its code and in the rules, where they help nobody."""
    if exception in _OF_FILES:
        return text.rstrip().rpartition("\n")[2]
    if exception not in _PLAIN:
        return text
    first, *more = text.splitlines()
    first = re.sub(r'( in rule \w+)?( in file ".*", line \d+)?:$', ":", first)
    return "\n".join([first, *(line for line in more if not re.match(r'\s*File ".*", line \d+, in ', line))])


@dataclass
class _Progress:
    """What has been shown of a run."""

    counts: Mapping[str, int]
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    shown: float = 0.0
    rules: set[str] = field(default_factory=set)

    def head(self) -> str:
        seconds = int(time.monotonic() - self.started)
        hours, minutes = divmod(seconds // 60, 60)
        clock = f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
        total = str(self.counts.get("total", 0))
        self.shown = time.monotonic()
        return f"[{self.done:>{len(total)}}/{total}] {clock:>5}"

    def waits(self) -> bool:
        return time.monotonic() - self.shown >= _SILENCE_S


class LogHandler(LogHandlerBase):
    """Writes to the terminal in place of Snakemake's own handler."""

    writes_to_stream, writes_to_file = True, False
    has_filter, has_formatter = True, True  # ours: --quiet must not hide errors
    needs_rulegraph = False

    def __post_init__(self) -> None:
        given = self.common_settings
        quiet = set(given.quiet or ())
        self._stream = sys.stdout if given.stdout else sys.stderr
        rule = DefaultFilter(quiet, given.debug_dag, given.verbose, given.dryrun, given.printshellcmds)
        self._own = ColorizingTextHandler(
            given.nocolor, self._stream, DefaultFormatter(quiet, given.show_failed_logs), rule
        )
        self._as_ever = given.dryrun or given.verbose or given.debug_dag
        self._progress = _Progress({})
        self._jobs: dict[int, tuple[str, dict[str, float | None]]] = {}
        self._running: dict[int, str] = {}
        self._failed: list[str] = []
        self._ended = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Show what a record says, or nothing."""
        try:
            self._show(record, getattr(record, "event", None))
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def _show(self, record: logging.LogRecord, event: LogEvent | None) -> None:
        if event == LogEvent.ERROR:
            self._error(record)
        elif event is None:
            self._text(record)
        elif self._as_ever and (event != LogEvent.WORKFLOW_STARTED or self.common_settings.verbose):
            self._own.handle(record)
        elif event == LogEvent.RUN_INFO:
            self._progress = _Progress(record.__dict__.get("stats") or {})
        elif event == LogEvent.JOB_INFO:
            self._start(record)
        elif event == LogEvent.JOB_FINISHED:
            self._running.pop(record.__dict__["job_id"], None)
        elif event == LogEvent.PROGRESS:
            self._step(record)
        elif event in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
            self._job_error(record)
        elif event == LogEvent.SHELLCMD:
            self._own.handle(record)

    def _write(self, *lines: str) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def _text(self, record: logging.LogRecord) -> None:
        """Show what Snakemake says in free words, unless it is about its own doing."""
        text = str(record.msg)
        if self.common_settings.verbose:
            self._own.handle(record)
        elif _FAILED.match(text):
            self._write(f"{len(self._failed)} failed: {'; '.join(self._failed)}")
        elif not (_SAID.match(text) or (text.startswith("Complete log") and not self._failed)):
            self._own.handle(record)

    def _quiet(self) -> bool:
        """Whether the user asked for no progress (--quiet, --quiet progress, --quiet all)."""
        return any(str(each).lower() in ("progress", "all") for each in self.common_settings.quiet or ())

    def _start(self, record: Any) -> None:
        """Show the first job of a rule, and any that starts after a long silence."""
        rule, wildcards = record.rule_name, ", ".join(f"{k}={v}" for k, v in dict(record.wildcards or {}).items())
        name = f"{rule} ({wildcards})" if wildcards else rule
        self._jobs[record.jobid] = (name, _times(record.log))
        if not record.output:  # a target: nothing is computed
            return
        self._running[record.jobid] = name
        progress, count = self._progress, self._progress.counts.get(record.rule_name, 1)
        if not self._quiet() and (rule not in progress.rules or progress.waits()):
            detail = f"{count} jobs" if count > 1 and rule not in progress.rules else wildcards
            self._write(f"{progress.head()}  {rule}{f': {detail}' if detail else ''}")
        progress.rules.add(rule)

    def _step(self, record: Any) -> None:
        progress = self._progress
        progress.done = record.done
        names = list(self._running.values())
        running = "; ".join([*names[:2], *([f"{len(names) - 2} more"] if len(names) > 2 else [])])
        if not self._quiet() and (record.done == record.total or (names and progress.waits())):
            self._write(f"{progress.head()}  {'done' if record.done == record.total else f'running: {running}'}")

    def _job_error(self, record: Any) -> None:
        """Show one block: which job failed, what its log says, and where that is."""
        for job in getattr(record, "job_error_info", None) or [record.__dict__]:
            logs = [*job["log"], *(getattr(record, "aux_logs", None) or ())]
            name, before = self._jobs.get(job["jobid"], (job["rule_name"], {}))
            self._failed.append(name)
            self._running.pop(job["jobid"], None)
            fresh = [log for log in logs if (written := _times([log])[log]) is not None and written != before.get(log)]
            said = next(filter(None, map(message_of, fresh)), [])
            if not said:
                said = [f"The process ended without a message{f' ({self._ended})' if self._ended else ''}."]
                if re.search("status (137|9)$|SIGKILL", self._ended):
                    said.append("It was killed: the system may have had no memory left, or somebody stopped it.")
            if shell := job.get("shellcmd"):
                said.append(f"Command: {shell}")
            self._write("", f"Error in {name}", *said, *(f"Log: {log}" for log in logs[:1]), "")

    def _error(self, record: Any) -> None:
        """Show an error of Snakemake's own; that a script failed is shown with its job."""
        text = str(record.msg)
        if not self._as_ever:
            if ended := _ENDED.search(text):
                self._ended = ended[1].removeprefix("returned non-zero ")
                if record.exception == "RuleException" and "CalledProcessError" in text:
                    return
            if self._failed and "At least one job did not complete" in text:
                return
        if not self.common_settings.verbose:
            record.msg = without_places(text, record.exception)
        self._own.handle(record)


def _times(logs: Iterable[str]) -> dict[str, float | None]:
    """When each log was last written: one that a job has not touched says nothing about it."""
    return {log: os.stat(log).st_mtime_ns if os.path.exists(log) else None for log in logs}
