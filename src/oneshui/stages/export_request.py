"""The photos of the people who ask."""

from pathlib import Path
from typing import Any

from oneshui.data.request import build_request, build_wrong_photos
from oneshui.data.splits import check_splits
from oneshui.data.store import check_store, naming, open_store
from oneshui.errors import DataError
from oneshui.runs import DataFiles, Run
from oneshui.schemas import INDEX, REQUEST, SPLITS, read_table, write_table


def export_request(data: DataFiles, output_path: Path, *, run: Run, wrong_photos: bool) -> None:
    """Write the request of the first ``run.n`` ranked identities: one photo each, its bytes inside.

    Args:
        data: images of the run.
        output_path: request to write.
        run: dataset, request size and seed.
        wrong_photos: put photos of other people in their place: the control that shows whether the photo matters.

    Raises:
        DataError: the packed images are not those of the index.
        ConfigError: fewer than ``run.n`` identities are ranked.
    """
    assert run.n is not None
    index, meta = read_table(data.index, INDEX)
    check_store(data.images, data.index, meta)
    frame, split_meta = read_table(data.splits, SPLITS)
    check_splits(frame, index, data.splits, data.index)
    pixels = open_store(data.images)
    if len(pixels) != len(index):
        raise DataError(
            f"{data.images} holds {len(pixels)} images, {data.index} lists {len(index)}: they are of different runs. "
            "Delete the image store to pack it again."
        )
    if wrong_photos:
        request = build_wrong_photos(index, frame, pixels, run.n, dataset=run.dataset, seed=run.seed)
    else:
        request = build_request(index, frame, pixels, run.n)
    kept: dict[str, Any] = {key: meta[key] for key in ("task", "classes", "dataset") if key in meta}
    kept |= {"n": run.n, "seed": run.seed, "splits": split_meta.get("content"), "wrong_photos": wrong_photos}
    write_table(output_path, request, REQUEST, kept | naming(split_meta.get("pictures")))
