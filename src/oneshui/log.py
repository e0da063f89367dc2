"""Logging to one file per job, so that a failed step says why in its own log."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from oneshui.errors import OneShuiError

logger = logging.getLogger("oneshui")


class _LogFile(logging.FileHandler):
    """The log of a job. What cannot be written there, e.g. because the disk is full, goes to standard error."""

    def handleError(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


@contextmanager
def log_to(path: str | None) -> Iterator[logging.Logger]:
    """Write the package's log, warnings and a final traceback to ``path``; errors are raised again.

    Args:
        path: log file of the job; None logs to standard error.
    """
    handler = logging.StreamHandler(sys.stderr) if path is None else _LogFile(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    warnings_logger = logging.getLogger("py.warnings")
    loggers = (logger, warnings_logger)
    level = logger.level
    logger.setLevel(logging.INFO)
    for each in loggers:
        each.addHandler(handler)
    logging.captureWarnings(True)
    # timm decorates functions with torch.jit.script; nothing that a user of ours could do about it
    warnings.filterwarnings("ignore", message="`torch.jit.script", category=FutureWarning)
    try:
        yield logger
    except OneShuiError as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    except BaseException:
        logger.exception("the job failed")
        raise
    finally:
        logging.captureWarnings(False)
        for each in loggers:
            each.removeHandler(handler)
        logger.setLevel(level)
        with contextlib.suppress(OSError):
            handler.close()
