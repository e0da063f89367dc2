"""What a job of the workflow was given, as typed values: the only code that reads the ``snakemake`` object.

Snakemake hands text, lists of text and, where an optional input is missing, an empty list. Stages take paths, numbers
and None.
"""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oneshui.forks import is_fork
from oneshui.log import log_to
from oneshui.presence import JOBS, hold
from oneshui.runs import DataFiles, Model, Run


class Job:
    """One job: its files, wildcards, parameters and resources.

    Attributes:
        params: of the rule, by attribute.
        config: the whole configuration. Nothing read from it re-runs the job when it changes.
        threads: CPU threads that the job may use.
        gpus: GPUs that it was given.
    """

    def __init__(self, snakemake: Any) -> None:
        self._inputs, self._outputs, self._wildcards = snakemake.input, snakemake.output, snakemake.wildcards
        self.params: Any = snakemake.params
        self.config: Mapping[str, Any] = snakemake.config
        self.threads = int(snakemake.threads)
        self.gpus = int(snakemake.resources.get("gpu", 0))

    def input(self, name: str) -> Path:
        """Return the one input file of that name."""
        return _one(self._inputs, name)

    def optional_input(self, name: str) -> Path | None:
        """Return the input file of that name, or None where the rule's function returned nothing for this job."""
        return _one(self._inputs, name) if self._inputs.get(name) else None

    def inputs(self, name: str) -> list[Path]:
        """Return the input files of that name, of which there may be none."""
        files = self._inputs.get(name) or []
        return [Path(files)] if isinstance(files, str) else [Path(file) for file in files]

    def output(self, name: str) -> Path:
        """Return the output file of that name."""
        return _one(self._outputs, name)

    @property
    def run(self) -> Run:
        """The run that the job is about. Its ``n`` is None where the job serves every request."""
        n = self._wildcards.get("n")
        return Run(self.dataset, None if n is None else int(n), int(self.wildcard("seed")))

    @property
    def model(self) -> Model:
        """The model that the job is about: parameter ``model`` of its rule, or wildcards ``origin`` and ``method``."""
        named = self.params.get("model")
        return Model.of(named or f"{self.wildcard('origin')}/{self.wildcard('method')}")

    @property
    def data(self) -> DataFiles:
        """The inputs ``index``, ``images`` and ``splits``."""
        return DataFiles(self.input("index"), self.input("images"), self.input("splits"))

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.wildcard("dataset")

    def wildcard(self, name: str) -> str:
        """Return a wildcard's value as it stands in the paths."""
        return str(getattr(self._wildcards, name))


def _one(files: Any, name: str) -> Path:
    file = getattr(files, name)
    assert isinstance(file, str), f"{name} is {file!r}, not one file: ask for it with inputs()"
    return Path(file)


@contextmanager
def running(snakemake: Any) -> Iterator[Job]:
    """Yield the job of a script; log, warnings and a last error go to its log file.

    The log ends with what the process took: Snakemake cannot tell, because the process may be a fork. After an error
    the process ends with status 1 and says nothing more: Snakemake shows the log of a job that failed.
    """
    hold(JOBS)
    start = time.perf_counter()
    try:
        with log_to(snakemake.log[0]) as logger:
            yield Job(snakemake)
            logger.info("%s", _cost(time.perf_counter() - start))
    except Exception:
        raise SystemExit(1) from None


def _cost(seconds: float) -> str:
    used = resource.getrusage(resource.RUSAGE_SELF)
    memory_mb = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    kind = "as a fork" if is_fork() else "by itself"
    return f"took {seconds:.1f} s {kind}, {used.ru_utime + used.ru_stime:.1f} s of CPU, {memory_mb:.0f} MB of memory"
