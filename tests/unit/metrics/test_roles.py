"""Which images belong to which split of a request."""

import numpy as np
import pandas as pd
import pytest

from oneshui.errors import ConfigError
from oneshui.metrics.roles import metric_rows

# identities 0 and 1 can ask to be forgotten (ranks 1 and 0), identity 2 cannot; 3 is validation, 4 is test
ROWS = [
    (10, 0, "train", 1, False),
    (11, 0, "train", 1, True),
    (12, 1, "train", 0, False),
    (13, 1, "train", 0, True),
    (14, 1, "train", 0, False),
    (15, 2, "train", None, False),
    (16, 3, "val", None, False),
    (17, 4, "test", None, False),
    (18, 4, "test", None, False),
]


def splits(rows: list[tuple[int, int, str, int | None, bool]] = ROWS) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image_id", "identity", "role", "request_rank", "is_support"])
    return frame.astype({"image_id": "int32", "identity": "int32", "request_rank": "Int16"})


def test_request_of_one_identity() -> None:
    found = {name: ids.tolist() for name, ids in metric_rows(splits(), 1).items()}
    assert found == {"retain": [10, 15], "forget": [12, 14], "test": [17, 18], "val": [16], "support": [13]}


def test_request_of_two_identities() -> None:
    found = {name: ids.tolist() for name, ids in metric_rows(splits(), 2).items()}
    assert found == {"retain": [15], "forget": [10, 12, 14], "test": [17, 18], "val": [16], "support": [11, 13]}


def test_no_image_is_in_two_splits_and_support_is_never_trained_on() -> None:
    for n in (1, 2):
        found = metric_rows(splits(), n)
        ids = np.concatenate(list(found.values()))
        assert len(set(ids)) == len(ids)
        assert not {11, 13} & {*found["retain"], *found["forget"]}


def test_the_order_of_rows_does_not_matter() -> None:
    shuffled = splits().sample(frac=1, random_state=3)
    for name, ids in metric_rows(splits(), 1).items():
        np.testing.assert_array_equal(metric_rows(shuffled, 1)[name], ids)


def test_missing_ranks_may_also_be_nan() -> None:
    as_float = splits().astype({"request_rank": "float64"})
    assert metric_rows(as_float, 1)["forget"].tolist() == [12, 14]


@pytest.mark.parametrize("n", [-1, 0, 3])
def test_an_impossible_n_is_refused_with_the_number_of_ranked_identities(n: int) -> None:
    with pytest.raises(ConfigError, match=rf"n = {n} .* rank 2 \(allowed: 1 to 2\)"):
        metric_rows(splits(), n)
