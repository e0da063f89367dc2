"""One pass of a model over images: what every metric and attack is computed from."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from oneshui.models import features_and_logits
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet, random_crop_boxes
from oneshui.tensors import upload

_BATCH = 256
#: largest finite float16; a destroyed model may answer more
_FLOAT16_MAX = 65504.0


def score_images(model: nn.Module, images: ImageSet) -> pd.DataFrame:
    """Return loss, probability of the truth and logits of each image under the test transform (schema SCORES).

    Losses are computed from float32 logits; the stored logits are float16.
    """
    return _scored(images, 0, lambda rows: model(images.images(rows)))


def logits_in(scores: pd.DataFrame) -> npt.NDArray[np.float16]:
    """Return the logits of scores (schema SCORES), (N, C)."""
    return np.stack(scores["logits"].to_list())


def score_with_features(model: nn.Module, images: ImageSet, wanted: Tensor) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what ``score_images`` does, and the features of some images (schema FEATURES), from the same pass.

    Args:
        model: to score.
        images: (N) all of them are scored.
        wanted: (N,) bool on the CPU, whose features are kept.
    """
    kept: list[Tensor] = []

    def answer(rows: Tensor) -> Tensor:
        features, logits = features_and_logits(model, images.images(rows))
        kept.append(features[upload(wanted[rows].nonzero()[:, 0], images.device)].half())  # too large becomes infinite
        return logits

    frame = _scored(images, 0, answer)
    ids = images.image_ids.cpu()[wanted].numpy().astype("int32")
    return frame, pd.DataFrame({"image_id": ids, "features": list(torch.cat(kept).cpu().numpy())})


def score_view(
    model: nn.Module, images: ImageSet, view: int, *, crop_scale: tuple[float, float], dataset: str
) -> pd.DataFrame:
    """Return loss and probability of the truth of each image under random crop number ``view`` (schema SCORES).

    The crop of an image, mirrored or not, follows from dataset, view and image id: every model is asked the same.
    """
    stored, height, width = len(images.pixels), *images.pixels.shape[-2:]
    draw = torch.Generator().manual_seed(seed_of("view", dataset, view))
    boxes = random_crop_boxes(stored, height, width, crop_scale, draw)
    flip = torch.rand(stored, generator=draw) < 0.5
    ids = images.image_ids.cpu()
    frame = _scored(images, view, lambda rows: model(images.cropped(rows, boxes[ids[rows]], flip[ids[rows]])))
    return frame.assign(logits=None)


def _scored(images: ImageSet, view: int, answer: Callable[[Tensor], Tensor]) -> pd.DataFrame:
    """Return the scores of all images, ``answer`` giving the logits of some rows.

    Answers stay on the device until the last one, so that a GPU never waits for the next batch.
    """
    losses, logits_of = [], []
    with torch.inference_mode():
        for rows in torch.arange(len(images)).split(_BATCH):
            logits = answer(rows).float()
            losses.append(images.task.losses(logits, images.labels[upload(rows, images.device)]))
            logits_of.append(logits.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half())
    loss = torch.cat(losses).cpu().numpy()
    return pd.DataFrame(
        {
            "image_id": images.image_ids.cpu().numpy().astype("int32"),
            "view": np.full(len(loss), view, dtype="int16"),
            "loss": loss,
            "p_true": np.exp(-loss.astype("float64")).astype("float32"),
            "logits": list(torch.cat(logits_of).cpu().numpy()),
        }
    )
