"""Noticing, while the workflow is planned, that annotation files are not those an index was made from.

Time stamps do not tell: unpacking and copying keep the date of the archive. What the files hold does.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oneshui.data.layouts import annotation_files
from oneshui.errors import ConfigError
from oneshui.files import content_hash, sha256_file, write_text
from oneshui.schemas import read_meta

#: a file that was written this lately (s) is not remembered: it could change again within a tick of the clock
_SETTLED_S = 2.0


def tracked_spec(
    spec: Mapping[str, Any], folder: str | Path, index: str | Path, *, recorded: Sequence[str] | None,
    cache: str | Path,
) -> dict[str, Any]:  # fmt: skip
    """Return the specification of an index as its job is told: with a hash of the annotation files where it matters.

    Snakemake makes an index again when what its job is told differs from what was recorded. So the hash is added when
    the index says that it was made from other files, and stays from then on. An index that is as its files are, and
    one of an earlier version, which does not say, are told what they were told before: they are not made again.

    Args:
        spec: layout, options and what else an index depends on.
        folder: raw folder of the data set. Without its annotation files nothing is compared: an index can be used when
            the data is gone.
        index: where it lies, if there is one.
        recorded: what Snakemake recorded of the job's parameters; None where it would not compare them.
        cache: file of known hashes, so that large files are read once.

    Raises:
        ConfigError: the files have changed and Snakemake would not notice.
    """
    files = annotation_files(spec["layout"], str(folder), spec["options"])
    if not all(map(os.path.exists, [index, *files])):
        return dict(spec)
    now = content_hash(files, _remembering(Path(cache)))
    known = read_meta(index).get("annotations")
    told_before = any(now in each or "'annotations'" in each for each in recorded or ())
    if not told_before and known in (None, now):
        return dict(spec)
    if recorded is None and known not in (None, now):
        raise ConfigError(
            f"{index} was made from other annotation files than {', '.join(files)} are now, and Snakemake keeps no "
            f"record of it. Delete {index} to make it again from the present files, or restore the old ones."
        )
    return {**spec, "annotations": now}


def _remembering(cache: Path) -> Callable[[str | Path], str]:
    """Return ``sha256_file`` that looks a file up by what the file system says of it.

    The time of the last change of the inode cannot be set back, unlike that of the contents.
    """

    def digest(path: str | Path) -> str:
        stat = os.stat(path)
        name = os.path.abspath(path)
        key = json.dumps([name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
        try:
            known = json.loads(cache.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if not isinstance(known, dict):
            known = {}
        if key not in known:
            known[key] = sha256_file(path)
            if time.time() - stat.st_ctime > _SETTLED_S:
                kept = {old: value for old, value in known.items() if not old.startswith(f"[{json.dumps(name)}, ")}
                with contextlib.suppress(OSError):  # a folder that cannot be written to: read it again next time
                    write_text(cache, json.dumps({**kept, key: known[key]}, sort_keys=True))
        return str(known[key])

    return digest
