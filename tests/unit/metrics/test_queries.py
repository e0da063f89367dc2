"""Which images attacks ask about."""

import numpy as np
import pandas as pd
import pytest

from oneshui.metrics.queries import query_rows
from oneshui.metrics.roles import metric_rows

# identities 0..9 with 4 images each: 0 and 1 can ask, 2..5 train, 6..7 val, 8..9 test
SPLITS = pd.DataFrame({"image_id": np.arange(40) + 100, "identity": np.arange(40) // 4})
SPLITS["role"] = np.select([SPLITS["identity"] < 6, SPLITS["identity"] < 8], ["train", "val"], "test")
SPLITS["request_rank"] = SPLITS["identity"].where(SPLITS["identity"] < 2).astype("Int16")
SPLITS["is_support"] = SPLITS["image_id"].isin([100, 104])


def asked(**change: int) -> dict[str, np.ndarray]:
    return query_rows(SPLITS, **{"dataset": "toy", "seed": 0, "max_reference": 10, **change})


def test_tested_and_population_are_disjoint_and_have_their_parts() -> None:
    rows = asked()
    assert rows["asked"].tolist() == [101, 102, 103, 105, 106, 107]
    assert rows["test"].tolist() == list(range(132, 140))
    assert len(rows["reference"]) == 10 and rows["reference"].min() >= 108 and rows["reference"].max() < 132
    assert rows["fit"].tolist() == [image for image in rows["reference"] if image < 124]


@pytest.mark.parametrize("n", [1, 2])
def test_members_of_every_request_are_asked_about(n: int) -> None:
    assert np.isin(metric_rows(SPLITS, n)["forget"], asked()["asked"]).all()


def test_population_is_drawn_by_name_and_whole_where_it_is_small() -> None:
    assert asked(max_reference=1000)["reference"].tolist() == list(range(108, 132))
    assert asked()["reference"].tolist() == asked()["reference"].tolist()
    assert asked()["reference"].tolist() != asked(seed=1)["reference"].tolist()
    shuffled = query_rows(SPLITS.sample(frac=1, random_state=0), dataset="toy", seed=0, max_reference=10)
    assert shuffled["reference"].tolist() == asked()["reference"].tolist()
