"""The identities whose photo is least like their other images: the paper's figure 6. It shows faces."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from oneshui.errors import DataError
from oneshui.report.style import DOUBLE_COLUMN, RC

#: forget images of each identity
_IMAGES = 5
_FRAME = "#D55E00"


def hardest(
    chosen: pd.DataFrame, pixels: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> tuple[Figure, pd.DataFrame]:
    """Return the paper's figure 6: support photo and forget images of the identities of which they differ most.

    It shows faces: draw it only where somebody has asked for it. An identity is called by its number.

    Args:
        chosen: what ``oneshui.report.identities.hardest_identities`` returned.
        pixels: for each of its rows the support photo, ``(3, H, W)``, and forget images, ``(K, 3, H, W)``, K >= 1;
            uint8, RGB, one size. The first five forget images are drawn.

    Returns:
        The figure, and ``chosen`` with ``n_shown``, the number of forget images drawn.

    Raises:
        DataError: there is nobody to show, or pixels have another number, shape or type.
    """
    _check_pixels(chosen, pixels)
    height, width = pixels[0][0].shape[1:]
    inch = (DOUBLE_COLUMN - 0.3) / (_IMAGES + 1)
    with rc_context(RC):
        size = (DOUBLE_COLUMN, len(chosen) * (inch * height / width + 0.28) + 0.2)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(chosen), _IMAGES + 1, squeeze=False)
        for axes in grid.flatten():
            axes.set_axis_off()
        for line, row, (photo, images) in zip(grid, chosen.to_dict("records"), pixels, strict=True):
            for axes, image in zip(line, [photo, *images], strict=False):
                axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
            title = f"identity {row['identity']} (seed {row['seed']}), distance {row['distance']:.3g}"
            line[0].set_title(title, loc="left", pad=3)
            line[0].add_patch(
                Rectangle((0, 0), 1, 1, transform=line[0].transAxes, fill=False, ec=_FRAME, lw=2, clip_on=False)
            )
        label = "support photo; beside it, images that are to be forgotten"
        frame = Patch(fill=False, ec=_FRAME, lw=2, label=label)
        figure.legend(handles=[frame], loc="outside lower left")
    return figure, chosen.assign(n_shown=[min(len(images), _IMAGES) for _, images in pixels])


def _check_pixels(chosen: pd.DataFrame, pixels: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]) -> None:
    if chosen.empty or len(chosen) != len(pixels):
        raise DataError(f"hardest identities: {len(chosen)} are chosen, with pixels of {len(pixels)}; needed: the same")
    size = pixels[0][0].shape
    for identity, (photo, images) in zip(chosen["identity"], pixels, strict=True):
        alike = photo.shape == size and images.shape[1:] == size and len(images) and len(size) == 3 and size[0] == 3
        if not alike or photo.dtype != np.uint8 or images.dtype != np.uint8:
            raise DataError(
                f"hardest identities: identity {identity} has a photo {photo.shape} {photo.dtype} and images "
                f"{images.shape} {images.dtype}; allowed: (3, H, W) and (K, 3, H, W), K >= 1, uint8, one size for all"
            )
