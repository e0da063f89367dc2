"""Who works in a folder of results, and what to do when Snakemake finds its lock there.

Snakemake's lock is a file that stays when Snakemake is killed. Beside it, every Snakemake and every job hold a lock
that the kernel lets go of when they die, so that the cases can be told apart.
"""

import fcntl
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from oneshui.folders import lock

#: in the folder that holds the results
SNAKEMAKE, JOBS = Path(".snakemake/oneshui/running.lock"), Path(".snakemake/oneshui/jobs.lock")
_held: set[Path] = set()


def hold(path: Path) -> int | None:
    """Hold a lock, which others hold too, until this process dies; None where there are no locks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path, shared=True)
    except OSError:
        return None
    _held.add(path)
    return held


def is_orphan() -> bool:
    """Tell whether this is a job whose Snakemake has died; the next one will have its output made again."""
    if JOBS not in _held:
        return False
    try:
        free = lock(SNAKEMAKE, create=False)
    except OSError:
        return False
    if free is None:
        return False
    os.close(free)
    return True


def locked_message(own: int | None, command: Sequence[str]) -> str:
    """Return why Snakemake may not work here, and what to do, in one line.

    Args:
        own: what ``hold(SNAKEMAKE)`` returned in this process.
        command: with which Snakemake was called, ``sys.argv``.
    """
    here = os.getcwd()
    program = command[0]  # make demo calls one that is not in the user's PATH
    if program.endswith(".py") or program == shutil.which("snakemake"):
        program = "snakemake"
    unlock = shlex.join([program, "--unlock", *command[1:]])
    again = f"Take the lock away with the command below, then run yours again; what had finished stays. {unlock}"
    if own is None:
        return f"{here} is locked: another Snakemake works there, or one was killed. If none does: {again}"
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return f"Another Snakemake works on the same files in {here}. Wait until it has ended."
    try:
        jobs = lock(JOBS)
    except OSError:
        jobs = None
    if jobs is None:
        return (
            f"The Snakemake that worked in {here} was killed, and jobs that it had started still run. Wait until they "
            f"have ended, or end them. {again}"
        )
    os.close(jobs)
    return f"The Snakemake that worked in {here} was killed. {again}"
