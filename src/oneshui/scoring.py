"""One pass of a model over images: what every metric is computed from."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from oneshui.data.images import ImageSet

_BATCH = 256
#: largest finite float16; a destroyed model may answer more
_FLOAT16_MAX = 65504.0


def score_images(model: nn.Module, images: ImageSet) -> pd.DataFrame:
    """Return loss, probability of the truth and logits of each image under the test transform (schema SCORES).

    Losses are computed from float32 logits; the stored logits are float16.
    """
    losses, logits_of = [], []
    with torch.inference_mode():
        for batch, labels in images.batches(_BATCH):
            logits = model(batch).float()
            losses.append(images.task.losses(logits, labels).cpu())
            logits_of.append(logits.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half().cpu())
    loss = torch.cat(losses).numpy()
    return pd.DataFrame(
        {
            "image_id": images.image_ids.cpu().numpy().astype("int32"),
            "view": np.zeros(len(loss), dtype="int16"),
            "loss": loss,
            "p_true": np.exp(-loss.astype("float64")).astype("float32"),
            "logits": list(torch.cat(logits_of).numpy()),
        }
    )
