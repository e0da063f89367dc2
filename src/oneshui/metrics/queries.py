"""The images that attacks ask a model about: the same for every model of a dataset and seed."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from oneshui.seeds import stream


def query_rows(
    splits: pd.DataFrame, *, dataset: str, seed: int, max_reference: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the sorted image ids that attacks need, whatever the size of the request.

    Args:
        splits: a SPLITS table.
        dataset: name of the dataset, for the random stream.
        seed: of the run.
        max_reference: most images to stand for the population.

    Returns:
        ``asked``: training images of all identities that can ask to be forgotten (members are among them); ``test``:
        the non-members; ``reference``: at most ``max_reference`` training images of identities that never ask, and
        validation images: z in equation 8, disjoint from both; ``fit``: the training images among these.
    """
    train = (splits["role"] == "train").to_numpy() & ~splits["is_support"].to_numpy(dtype=bool)
    ranked = splits["request_rank"].notna().to_numpy()
    role, ids = splits["role"].to_numpy(), splits["image_id"].to_numpy(dtype=np.int64)
    candidates = np.sort(ids[(train & ~ranked) | (role == "val")])
    draw = stream("attack-reference", dataset, seed)
    reference = np.sort(draw.permutation(candidates)[:max_reference])
    return {
        "asked": np.sort(ids[train & ranked]),
        "test": np.sort(ids[role == "test"]),
        "reference": reference,
        "fit": np.intersect1d(reference, ids[train]),
    }
