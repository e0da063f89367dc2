"""Initial weights, copied to where training finds them."""

import shutil
from pathlib import Path

from oneshui.files import atomic_path
from oneshui.log import logger
from oneshui.weights import find_weights


def fetch_weights(model: str, output_path: Path, *, weights_root: str | None) -> None:
    """Copy the initial weights of timm's ``model`` (name with tag) to ``output_path``.

    Raises:
        CheckpointError: they cannot be had; the message says where was looked and what to do.
    """
    source = find_weights(model, weights_root)
    logger.info("initial weights of %s: %s", model, source)
    with atomic_path(output_path) as temporary:
        shutil.copyfile(source, temporary)
