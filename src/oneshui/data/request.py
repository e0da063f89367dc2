"""A request to be forgotten: one photo of each person, with its bytes inside, and nothing else of the data."""

import io

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from oneshui.errors import ConfigError
from oneshui.seeds import stream


def build_request(index: pd.DataFrame, splits: pd.DataFrame, pixels: npt.NDArray[np.uint8], n: int) -> pd.DataFrame:
    """Return the request of the identities with rank < ``n`` (schema REQUEST), in the order of their rank.

    Args:
        index: of the dataset (labels).
        splits: of the run (ranks and support images).
        pixels: (N, 3, H, W), the packed images.
        n: number of identities, between 1 and the number of ranked ones.

    Raises:
        ConfigError: there are not ``n`` ranked identities.
    """
    support = splits[splits["is_support"] & splits["request_rank"].notna()].sort_values("request_rank")
    if not 1 <= n <= len(support):
        raise ConfigError(f"n = {n} identities asked to be forgotten, allowed: 1 to {len(support)} (split.n_ranked)")
    chosen = support.head(n).merge(index[["image_id", "label"]], on="image_id", validate="one_to_one")
    chosen["image"] = [_png(pixels[image_id]) for image_id in chosen["image_id"]]
    return chosen[["request_rank", "identity", "label", "image"]]


def build_wrong_photos(
    index: pd.DataFrame, splits: pd.DataFrame, pixels: npt.NDArray[np.uint8], n: int, *, dataset: str, seed: int
) -> pd.DataFrame:
    """Return the request of ``build_request`` with the photos, and their labels, of ``n`` other people.

    They are validation identities, one random photo each: like a support photo, none was trained on, and unlike test
    images they have no part in the tug of war. A request of fewer identities is a prefix of a larger one.

    Raises:
        ConfigError: there are not ``n`` ranked or not ``n`` validation identities.
    """
    request = build_request(index, splits, pixels, n)
    others = splits.loc[splits["role"] == "val", ["image_id", "identity"]].sort_values("image_id")
    draw = stream("wrong-photos", dataset, seed)
    people = draw.permutation(np.sort(others["identity"].unique()))
    if len(people) < n:
        raise ConfigError(f"n = {n} photos of other people are needed, but the validation set has {len(people)}")
    chosen = [int(draw.choice(others.loc[others["identity"] == person, "image_id"])) for person in people[:n]]
    labels = index.set_index("image_id")["label"].loc[chosen]
    return request.assign(label=labels.to_list(), image=[_png(pixels[image_id]) for image_id in chosen])


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()
