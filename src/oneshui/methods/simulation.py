"""Simulated requests: what meta-training practises on (Algorithm 1)."""

from dataclasses import dataclass

import numpy as np

from oneshui.errors import DataError
from oneshui.seeds import stream


@dataclass(frozen=True)
class SimulatedRequest:
    """One support photo of each identity, and all their other images.

    Attributes:
        support: rows of the photos, if there are photos that were never trained on, else of the training set.
        forget: rows of the training set.
    """

    support: np.ndarray
    forget: np.ndarray


def simulate_requests(
    identities: np.ndarray, simulated_n: int, *, seed: int, epoch: int, photos: np.ndarray | None = None
) -> list[SimulatedRequest]:
    """Return one epoch of simulated requests (Algorithm 1): every usable identity once, without replacement.

    Identities with a single image are skipped (it would be support and forget image at once), those without a photo
    where there are photos; the last request is filled up from the start of the epoch's order.

    Args:
        identities: (M,) identity of each training image.
        photos: (P,) identity of each photo that was never trained on; None: photos are drawn from the training images.
        simulated_n: identities of a request.
        seed: of the run.
        epoch: 0, 1, ...

    Raises:
        DataError: fewer than ``simulated_n`` identities are usable.
    """
    rows_of = {int(identity): np.flatnonzero(identities == identity) for identity in np.unique(identities)}
    photo_of = None if photos is None else {int(identity): row for row, identity in enumerate(photos)}
    if photo_of is None:
        usable = [identity for identity, rows in rows_of.items() if len(rows) > 1]
    else:
        usable = [identity for identity in rows_of if identity in photo_of]
    if len(usable) < simulated_n:
        what = "two or more images" if photo_of is None else "a photo that was kept out of training"
        raise DataError(
            f"metaunlearn: simulated_n = {simulated_n}, but only {len(usable)} train identities have {what}. Lower "
            "simulated_n."
        )
    draw = stream("metaunlearn-requests", seed, epoch)
    order = draw.permutation(usable)
    order = np.concatenate([order, order[: -len(order) % simulated_n]])
    requests = []
    for chosen in order.reshape(-1, simulated_n):
        rows = np.concatenate([rows_of[int(identity)] for identity in chosen])
        if photo_of is None:
            support = np.array([draw.choice(rows_of[int(identity)]) for identity in chosen])
            requests.append(SimulatedRequest(support, np.setdiff1d(rows, support)))
        else:
            support = np.array([photo_of[int(identity)] for identity in chosen])
            requests.append(SimulatedRequest(support, np.sort(rows)))
    return requests
