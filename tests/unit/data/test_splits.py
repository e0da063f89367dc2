"""Splits: no identity in two roles, nested requests, one support image each, and nothing left to the order of rows."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneshui.config import SplitSpec
from oneshui.data.layouts import read_identities
from oneshui.data.splits import content_id, fold_of, overlap, split_identities
from oneshui.errors import ConfigError
from oneshui.schemas import SPLITS

SPEC = SplitSpec(train=0.6, val=0.2, n_ranked=5, min_images_first=6, min_images=2, dedup=False)


def make_index(sizes: list[int], mix: int = 0) -> pd.DataFrame:
    """An index in which identity i has ``sizes[i]`` images, scattered over the rows."""
    identity = np.random.default_rng(mix).permutation(np.repeat(np.arange(len(sizes)), sizes))
    frame = pd.DataFrame({"image_id": range(len(identity)), "identity": identity})
    frame["path"] = [f"{i}.jpg" for i in frame["image_id"]]
    frame["identity_name"] = "p" + frame["identity"].astype(str)
    frame["duplicate_group"] = frame["image_id"]
    frame["label"] = frame["image_id"] % 3
    return frame


def split(index: pd.DataFrame, seed: int = 0, dataset: str = "toy", **changes: Any) -> pd.DataFrame:
    return split_identities(index, dataclasses.replace(SPEC, **changes), dataset=dataset, seed=seed)


def ranking(frame: pd.DataFrame) -> list[int]:
    ranked = frame.dropna(subset="request_rank").sort_values("request_rank")
    return ranked["identity"].drop_duplicates().tolist()


# many identities of two to nine images: enough for five ranks, the first of six images or more
SIZES = st.lists(st.integers(1, 9), min_size=30, max_size=80).map(lambda sizes: [*sizes, *([7, 8] * 10)])


@settings(deadline=None, max_examples=40)
@given(sizes=SIZES, seed=st.integers(0, 1000), mix=st.integers(0, 1000))
def test_splits_keep_their_promises(sizes: list[int], seed: int, mix: int) -> None:
    index = make_index(sizes, mix)
    frame = split(index, seed)
    assert list(frame.columns) == list(SPLITS.columns)
    # complete: every image once, with its identity
    same = ["image_id", "identity"]
    pd.testing.assert_frame_equal(frame[same], index[same], check_dtype=False)
    # no identity in two roles
    assert (frame.groupby("identity")["role"].nunique() == 1).all()
    # each cut misses its share by at most half of the identity that it falls into
    counts = frame["role"].value_counts()
    asked = {"train": 0.6 * len(index), "train+val": 0.8 * len(index)}
    assert abs(counts["train"] - asked["train"]) <= max(sizes) / 2
    assert abs(counts["train"] + counts["val"] - asked["train+val"]) <= max(sizes) / 2
    # requests: train identities with enough images, ranked without gaps, one rank for all images of an identity
    ranked = ranking(frame)
    assert len(ranked) == 5
    assert (frame.groupby("identity")["request_rank"].nunique(dropna=False) == 1).all()
    assert sorted(frame["request_rank"].dropna().unique()) == [0, 1, 2, 3, 4]
    assert set(frame.loc[frame["request_rank"].notna(), "role"]) == {"train"}
    assert sizes[ranked[0]] >= 6
    assert all(sizes[identity] >= 2 for identity in ranked)
    # one support image of each ranked identity, none of any other
    assert sorted(frame.loc[frame["is_support"], "identity"]) == sorted(ranked)


@settings(deadline=None, max_examples=20)
@given(sizes=SIZES, seed=st.integers(0, 1000), shuffle=st.integers(0, 1000))
def test_splits_do_not_depend_on_the_order_of_rows(sizes: list[int], seed: int, shuffle: int) -> None:
    index = make_index(sizes)
    shuffled = index.sample(frac=1, random_state=np.random.default_rng(shuffle))
    pd.testing.assert_frame_equal(split(shuffled, seed), split(index, seed))


@settings(deadline=None, max_examples=20)
@given(sizes=SIZES, seed=st.integers(0, 1000), fewer=st.integers(1, 4))
def test_requests_are_nested(sizes: list[int], seed: int, fewer: int) -> None:
    index = make_index(sizes)
    many, few = split(index, seed), split(index, seed, n_ranked=fewer)
    assert ranking(few) == ranking(many)[:fewer]
    assert (few["role"] == many["role"]).all()
    supports = many.loc[many["is_support"] & (many["request_rank"] < fewer), "image_id"].tolist()
    assert few.loc[few["is_support"], "image_id"].tolist() == supports


MANY = make_index([3, 7, 2, 9, 4, 6, 8, 1, 5, 2] * 8)


def test_splits_depend_on_seed_and_dataset_only() -> None:
    first = split(MANY)
    pd.testing.assert_frame_equal(split(MANY), first)
    for other in (split(MANY, seed=1), split(MANY, dataset="other")):
        assert (other["role"] != first["role"]).mean() > 0.2
        assert ranking(other) != ranking(first)


def test_support_image_is_any_of_its_identity() -> None:
    index = make_index([8] * 20)
    places = [
        int((frame.loc[frame["identity"] == identity, "image_id"] < image).sum())
        for seed in range(15)
        for frame in [split(index, seed)]
        for identity, image in frame.loc[frame["is_support"], ["identity", "image_id"]].itertuples(index=False)
    ]
    assert len(places) == 75
    assert set(places) == set(range(8))


def test_first_rank_is_random_among_those_with_enough_images() -> None:
    first = {ranking(split(MANY, seed))[0] for seed in range(20)}
    sizes = MANY["identity"].value_counts()
    assert len(first) > 8
    assert all(sizes[identity] >= 6 for identity in first)


# ---- near-identical pictures

# images 0 and 5, 1 and 2 are the same picture; 0, 1, 2 are of identity 0
TWINS = pd.DataFrame({"image_id": range(8), "identity": [0, 0, 0, 1, 1, 1, 2, 2]})
TWINS["duplicate_group"] = [0, 1, 1, 3, 4, 0, 6, 7]


def test_dedup_keeps_the_first_of_each_picture() -> None:
    index = make_index([6] * 20)
    index.loc[index["image_id"] == 7, "duplicate_group"] = 2
    index.loc[index["image_id"] == 90, "duplicate_group"] = 30
    assert sorted(set(index["image_id"]) - set(split(index, dedup=True)["image_id"])) == [7, 90]
    shuffled = split(index.iloc[::-1], dedup=True)
    pd.testing.assert_frame_equal(shuffled, split(index, dedup=True))
    assert len(split(index)) == 120


def overlap_of(roles: str, support: tuple[int, ...] = ()) -> dict[str, int]:
    names = {"t": "train", "v": "val", "e": "test"}
    frame = TWINS[["image_id", "identity"]].assign(role=[names[letter] for letter in roles])
    return overlap(TWINS, frame.assign(is_support=frame["image_id"].isin(support)))


def test_overlap_counts_pictures_in_two_roles() -> None:
    assert overlap_of("tttttttt") == {"groups": 0, "images": 0}
    assert overlap_of("ttteeevv") == {"groups": 1, "images": 2}  # 0 and 5


def test_overlap_counts_copies_of_a_support_photo() -> None:
    assert overlap_of("ttteeevv", support=(1,)) == {"groups": 2, "images": 4}  # 0 and 5; the photo 1 and 2
    assert overlap_of("tttttttt", support=(3,)) == {"groups": 0, "images": 0}


# ---- content_id

CLASSES = ["a", "b", "c"]


def test_content_id_does_not_depend_on_row_order_or_numbering() -> None:
    frame = split(MANY)
    same = content_id(MANY, frame, CLASSES)
    assert content_id(MANY.iloc[::-1], frame.sample(frac=1, random_state=0), CLASSES) == same
    renumbered = (MANY.assign(identity=MANY["identity"] + 100), frame.assign(identity=frame["identity"] + 100))
    assert content_id(*renumbered, CLASSES) == same  # names count, numbers do not
    assert len(same) == 16


@pytest.mark.parametrize("change", ["path", "identity_name", "label", "role", "request_rank", "is_support", "image"])
def test_content_id_changes_with_what_was_split(change: str) -> None:
    index, frame = MANY.copy(), split(MANY)
    same = content_id(index, frame, CLASSES)
    row = int(frame.index[frame["is_support"]][0])
    if change in ("path", "identity_name"):
        index.loc[row, change] = "other"
    elif change == "label":
        index.loc[row, change] += 1
    elif change == "image":
        frame = frame.drop(index=row)
    else:
        frame.loc[row, change] = {"role": "val", "request_rank": 9, "is_support": False}[change]
    assert content_id(index, frame, CLASSES) != same


@pytest.mark.parametrize("classes", [["a", "b", "z"], ["b", "a", "c"], ["a", "b", "c", "d"], ["a", "b"]])
def test_content_id_changes_with_the_classes(classes: list[str]) -> None:
    frame = split(MANY)
    assert content_id(MANY, frame, classes) != content_id(MANY, frame, CLASSES)


def test_content_id_changes_with_a_single_attribute() -> None:
    frame, attributes = split(MANY), np.stack([MANY["label"] == 1, MANY["label"] > 0], axis=1).astype(np.int8)
    same = content_id(MANY.assign(label=list(attributes)), frame, ["x", "y"])
    assert content_id(MANY.assign(label=attributes.tolist()), frame, ["x", "y"]) == same  # arrays or lists
    for row, column in ((0, 0), (len(MANY) - 1, 1)):
        changed = attributes.copy()
        changed[row, column] ^= 1
        assert content_id(MANY.assign(label=list(changed)), frame, ["x", "y"]) != same


def test_content_id_ignores_labels_of_images_that_take_no_part() -> None:
    frame = split(MANY)
    index = MANY.assign(label=MANY["label"].where(MANY["image_id"] != 0, 2))
    without = frame[frame["image_id"] != 0]
    assert content_id(index, without, CLASSES) == content_id(MANY, without, CLASSES)


# ---- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 0.0}, "train = 0.0"),
        ({"train": 0.8, "val": 0.2}, "sum to less than 1"),
        ({"val": -0.1}, "val = -0.1"),
        ({"n_ranked": 0}, "n_ranked = 0"),
        ({"min_images": 1}, "min_images = 1"),
        ({"min_images": 7}, "min_images_first = 6"),
    ],
)
def test_impossible_spec_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SPEC, **changes)


def test_unknown_key_of_the_spec_is_an_error() -> None:
    with pytest.raises(ConfigError, match="split: unknown key ratio"):
        SplitSpec.from_dict({**dataclasses.asdict(SPEC), "ratio": 1})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([9, 9], "toy: 2 identities with 18 images are too few to split"),
        ([3] * 30, "n_ranked = 5 .* 18 of 18 train identities have at least 2 images .none has at least 6"),
        ([1] * 50 + [9] * 2, "Lower n_ranked"),
    ],
)
def test_too_few_identities_is_an_error(sizes: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split(make_index(sizes))


# ---- the published data sets

DATA = Path(os.environ.get("ONESHUI_DATA") or Path(__file__).parents[4] / "shared" / "data")


def real_index(file: str) -> pd.DataFrame:
    path = DATA / "annotations" / file
    if not path.is_file():
        pytest.skip(f"needs {file} in the folder annotations under the folder named by ONESHUI_DATA")
    rows = [(image, int(identity)) for image, (identity, _) in read_identities(path).items()]
    frame = pd.DataFrame(sorted(rows), columns=["path", "identity"]).rename_axis("image_id").reset_index()
    return frame.assign(identity_name=frame["identity"].astype(str), duplicate_group=frame["image_id"])


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "images", "identities", "n_ranked"),
    [
        ("celebahq/CelebA-HQ-identity.txt", 30_000, 6_217, 50),
        ("celeba/identity_CelebA.txt", 202_599, 10_177, 10),
    ],
)
def test_published_data_sets_split_as_in_the_paper(file: str, images: int, identities: int, n_ranked: int) -> None:
    index = real_index(file)
    assert (len(index), index["identity"].nunique()) == (images, identities)
    largest = int(index["identity"].value_counts().max())
    frame = split(index, n_ranked=n_ranked, dataset=file)
    shuffled = split(index.sample(frac=1, random_state=0), n_ranked=n_ranked, dataset=file)
    pd.testing.assert_frame_equal(shuffled, frame)
    assert len(frame) == images
    assert (frame.groupby("identity")["role"].nunique() == 1).all()
    counts = frame["role"].value_counts()
    for role, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert abs(counts[role] - share * images) <= largest
    ranked = ranking(frame)
    assert len(ranked) == n_ranked
    assert (frame["identity"] == ranked[0]).sum() >= 6
    assert sorted(frame.loc[frame["is_support"], "identity"]) == sorted(ranked)


def test_a_photo_of_everybody_can_be_kept_out_of_training() -> None:
    index = make_index([1, 2, 7] * 20)
    few, all_of_them = split(index), split(index, reserve_supports="all")
    same = ["image_id", "identity", "role", "request_rank"]
    pd.testing.assert_frame_equal(few[same], all_of_them[same])
    assert set(few.loc[few["is_support"], "image_id"]) < set(all_of_them.loc[all_of_them["is_support"], "image_id"])
    photos = all_of_them[all_of_them["is_support"]].groupby("identity").size()
    sizes = all_of_them[all_of_them["role"] == "train"].groupby("identity").size()
    assert photos.eq(1).all() and set(photos.index) == set(sizes.index[sizes >= SPEC.min_images])


def test_folds_cut_the_training_identities_into_equal_parts() -> None:
    frame = split(make_index([7] * 63))
    people = set(frame.loc[frame["role"] == "train", "identity"])
    folds = [fold_of(frame, fold, 8, dataset="toy", seed=0) for fold in range(8)]
    assert sorted(int(person) for fold in folds for person in fold) == sorted(people)
    assert {len(fold) for fold in folds} <= {len(people) // 8, len(people) // 8 + 1}
    assert all(np.array_equal(fold, np.sort(fold)) for fold in folds)
    again = fold_of(frame.sample(frac=1, random_state=1), 2, 8, dataset="toy", seed=0)
    assert np.array_equal(again, folds[2])
    assert not np.array_equal(fold_of(frame, 2, 8, dataset="toy", seed=1), folds[2])
    with pytest.raises(ConfigError, match="cannot be cut into 64 folds"):
        fold_of(frame, 0, 64, dataset="toy", seed=0)
    with pytest.raises(ConfigError, match="fold = 8, allowed: 0 to 7 of 8 folds"):
        fold_of(frame, 8, 8, dataset="toy", seed=0)
