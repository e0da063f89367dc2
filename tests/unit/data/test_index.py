"""The index: stable numbers, whatever the order of rows."""

import numpy as np
import pandas as pd
import pytest

from oneshui.data.index import build_index, choose_identities, natural_order
from oneshui.data.layouts import Annotations
from oneshui.errors import ConfigError, DataError
from oneshui.schemas import INDEX
from oneshui.seeds import stream


def make_annotations(images: dict[str, str]) -> Annotations:
    frame = pd.DataFrame({"path": list(images), "identity_name": list(images.values())})
    frame["label"] = np.arange(len(frame)) % 2
    frame["source"] = [f"m.csv:{line}" for line in range(2, len(frame) + 2)]
    return Annotations(frame, "classification", ("x", "y"))


def make_probed(hashes: dict[str, int]) -> pd.DataFrame:
    phash = np.array(list(hashes.values()), dtype=np.uint64)
    error = pd.Series([None] * len(hashes), dtype=object)
    return pd.DataFrame(
        {"path": list(hashes), "width": 20, "height": 30, "phash": phash, "error": error, "content": phash}
    )


ANNOTATIONS = make_annotations({"c.png": "p10", "a.png": "p2", "d.png": "p10", "b.png": "p1"})
PROBED = make_probed({"a.png": 0, "b.png": 0xFF, "c.png": 0b11, "d.png": 0xFF})


def test_index_numbers_images_by_path_and_identities_naturally() -> None:
    index = build_index(ANNOTATIONS, PROBED, duplicate_distance=2)
    assert list(index.columns) == list(INDEX.columns)
    assert index["path"].tolist() == ["a.png", "b.png", "c.png", "d.png"]
    assert index["image_id"].tolist() == [0, 1, 2, 3]
    assert index["identity_name"].tolist() == ["p2", "p1", "p10", "p10"]
    assert index["identity"].tolist() == [1, 0, 2, 2]
    assert index["label"].tolist() == [1, 1, 0, 0]
    assert index["duplicate_group"].tolist() == [0, 1, 0, 1]
    assert set(index["width"]) == {20} and set(index["height"]) == {30}


def test_distance_zero_groups_equal_hashes_only() -> None:
    assert build_index(ANNOTATIONS, PROBED, duplicate_distance=0)["duplicate_group"].tolist() == [0, 1, 2, 1]


def test_index_does_not_depend_on_row_order() -> None:
    shuffled = Annotations(ANNOTATIONS.frame.iloc[::-1], ANNOTATIONS.task, ANNOTATIONS.classes)
    expected = build_index(ANNOTATIONS, PROBED, duplicate_distance=2)
    pd.testing.assert_frame_equal(build_index(shuffled, PROBED.iloc[[2, 0, 3, 1]], duplicate_distance=2), expected)


def test_bad_images_never_reach_the_index() -> None:
    probed = PROBED.copy()
    probed.loc[probed["path"] == "c.png", "error"] = "missing"
    with pytest.raises(DataError, match=r"1 of 4 images .* c\.png \(m\.csv:2\): missing"):
        build_index(ANNOTATIONS, probed, duplicate_distance=0)
    with pytest.raises(DataError, match=r"d\.png \(m\.csv:4\): not probed"):
        build_index(ANNOTATIONS, PROBED.iloc[:3], duplicate_distance=0)


def test_natural_order_compares_numbers_as_numbers() -> None:
    names = ["F10_D", "F2_S", "10", "9", "F2_D", "007", "7", "", "b"]
    assert natural_order(names) == ["", "007", "7", "9", "10", "F2_D", "F2_S", "F10_D", "b"]


# ---- choosing identities

FRAME = pd.DataFrame({"identity_name": [f"p{i}" for i in range(12) for _ in range(i + 1)]})


def chosen(frame: pd.DataFrame, count: int | None, min_images: int = 1) -> set[str]:
    return set(choose_identities(frame, count, min_images, stream("identities", "toy"))["identity_name"])


def test_all_rows_of_the_chosen_identities_stay_in_order() -> None:
    frame = choose_identities(FRAME, 5, 3, stream("identities", "toy"))
    counts = frame["identity_name"].value_counts()
    assert len(counts) == 5
    assert all(counts[name] == int(name[1:]) + 1 >= 3 for name in counts.index)
    assert frame.index.tolist() == list(range(len(frame)))
    assert natural_order(frame["identity_name"].unique()) == frame["identity_name"].unique().tolist()


def test_choice_is_stable_under_row_shuffling() -> None:
    shuffled = FRAME.sample(frac=1.0, random_state=1)
    assert chosen(shuffled, 4) == chosen(FRAME, 4)


def test_larger_choice_keeps_the_smaller_one() -> None:
    assert chosen(FRAME, 3) < chosen(FRAME, 8)


def test_another_stream_chooses_others() -> None:
    other = choose_identities(FRAME, 4, 1, stream("identities", "other"))
    assert set(other["identity_name"]) != chosen(FRAME, 4)


def test_null_takes_all_with_enough_images() -> None:
    assert len(chosen(FRAME, None)) == 12
    assert chosen(FRAME, None, min_images=11) == {"p10", "p11"}


def test_too_few_identities_are_an_error_with_numbers() -> None:
    with pytest.raises(ConfigError, match="identities = 5, but only 4 of 12 identities have at least 9 images"):
        chosen(FRAME, 5, min_images=9)
    with pytest.raises(ConfigError, match="identities = all, but only 0 of 12"):
        chosen(FRAME, None, min_images=99)


@pytest.mark.parametrize(("count", "min_images"), [(0, 1), (-1, 1), (3, 0)])
def test_impossible_counts_are_refused(count: int, min_images: int) -> None:
    with pytest.raises(ConfigError, match=f"identities = {count}, min_images = {min_images}"):
        chosen(FRAME, count, min_images)
