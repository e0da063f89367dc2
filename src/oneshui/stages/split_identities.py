"""Who is trained on, who is tested with, and who can ask to be forgotten."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneshui.config import SplitSpec
from oneshui.data import splits
from oneshui.data.store import naming
from oneshui.files import spec_hash
from oneshui.log import logger
from oneshui.runs import Run
from oneshui.schemas import INDEX, SPLITS, read_table, write_table


def split_identities(index_path: Path, output_path: Path, *, run: Run, spec: Mapping[str, Any]) -> None:
    """Write which images are trained on, validated and tested with, and who can ask to be forgotten.

    Args:
        index_path: index of the dataset.
        output_path: splits table to write; its metadata holds ``content``, which names the split, ``pictures``, which
            names what the image files hold, and how many near-identical pictures straddle roles.
        run: dataset and seed.
        spec: keys of ``SplitSpec``.

    Raises:
        ConfigError: too few identities for the split or the requests.
    """
    index, index_meta = read_table(index_path, INDEX)
    frame = splits.split_identities(index, SplitSpec.from_dict(spec), dataset=run.dataset, seed=run.seed)
    overlap = splits.overlap(index, frame)
    if overlap["images"]:
        logger.warning(
            "%s seed %d: %d near-identical pictures in %d groups straddle train, val, test or support; set "
            "split.dedup: true to keep one of each", run.dataset, run.seed, overlap["images"], overlap["groups"]
        )  # fmt: skip
    if spec.get("dedup"):
        logger.warning(
            "%s seed %d: dedup leaves out %s of %s images and %s of %s identities", run.dataset, run.seed,
            *(f"{number:,}" for number in splits.left_out(index, frame)),
        )  # fmt: skip
    meta = {"dataset": run.dataset, "seed": run.seed, "spec": spec_hash(dict(spec)), "overlap": overlap}
    meta |= {"content": splits.content_id(index, frame, index_meta["classes"])}
    write_table(output_path, frame, SPLITS, meta | naming(index_meta.get("pictures")))
