"""Every image of a dataset, decoded once."""

from collections.abc import Sequence
from pathlib import Path

from oneshui.data import pack
from oneshui.log import logger
from oneshui.schemas import INDEX, read_table


def pack_images(folder: Path, index_path: Path, output_path: Path, *, stored_px: Sequence[int], n_threads: int) -> None:
    """Decode every image of an index once into one array of uint8 (N, 3, height, width).

    Args:
        folder: raw folder of the dataset.
        index_path: index of the dataset.
        output_path: images.npy to write.
        stored_px: height and width of the stored images, px.
        n_threads: threads that decode images.

    Raises:
        DataError: an image is missing, cannot be decoded, or has changed since it was indexed.
    """
    index, meta = read_table(index_path, INDEX, ["image_id", "path", "content"])
    if "content" not in index:
        logger.warning(
            "%s was made by a version that did not note what the image files held: they cannot be compared with it",
            index_path,
        )
    height, width = stored_px
    pack.pack_images(
        folder, index["path"].tolist(), output_path, height=height, width=width, n_threads=n_threads,
        content=index["content"].to_numpy() if "content" in index else None, pictures=meta.get("pictures"),
    )  # fmt: skip
