"""Named random streams."""

import hashlib

import numpy as np
import pytest

from oneshui.seeds import seed_of, stream


def test_same_name_gives_the_same_numbers() -> None:
    assert np.array_equal(stream("split", "mufac", 0).random(5), stream("split", "mufac", 0).random(5))


def test_seed_is_the_hash_of_the_names() -> None:
    digest = hashlib.sha256(b"str:split\x1fstr:mufac\x1fint:0").digest()
    assert seed_of("split", "mufac", 0) == int.from_bytes(digest[:8], "big") // 2


def test_different_names_give_different_seeds() -> None:
    names: list[tuple[str | int, ...]] = [
        ("a",), ("b",), ("a", 0), ("a", 1), ("a", "0"), (0, "a"), ("a0",), ("a", "b/c"), ("a/b", "c"), ("a", "b", "c"),
    ]  # fmt: skip
    assert len({seed_of(*name) for name in names}) == len(names)


def test_seeds_fit_torch_and_numpy() -> None:
    seeds = [seed_of("x", i) for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_streams_leave_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    stream("x").random(10)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_stream_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        stream()
