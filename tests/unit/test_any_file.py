"""Whatever a file holds, it is read rightly or refused: generated damage, headers, tables and configurations.

Few examples run in ``make check``, all of them with the slow tests.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.readers import READERS, configuration, frames, our_header
from tests.unit.test_bad_files import meta_text

from oneshui.data.pictures import quiet
from oneshui.errors import OneShuiError
from oneshui.schemas import INDEX, REQUEST, read_table, write_table

WHOLE = {kind: reader.whole() for kind, reader in READERS.items()}
#: every kind as often as it is quick to read
KINDS = [kind for kind in READERS if kind not in ("resume state", "artefact", "initial weights", "model")] * 3 + [
    *READERS
]


def both(n_quick: int, n_slow: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a property on a few examples, and on many in a slow test."""

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        quick, slow = (
            settings(max_examples=count, deadline=None)(given(**strategies)(check)) for count in (n_quick, n_slow)
        )

        @pytest.mark.parametrize("run", [quick, pytest.param(slow, marks=pytest.mark.slow)], ids=["few", "many"])
        def test(run: Callable[[], None]) -> None:
            run()

        return test

    return decorate


def attempt(kind: str, data: bytes) -> Any:
    """Return what is read from a file, or None where it is refused. Any other error is a failure of the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / READERS[kind].name
        path.write_bytes(data)
        try:
            with quiet():
                return READERS[kind].read(path)
        except OneShuiError as error:
            said = str(error)
    assert 0 < len(said) < 5000
    return None


def damaged(kind: str, at: float, data: bytes, cut: float, inserted: bool) -> None:
    whole = WHOLE[kind]
    start = int(at * len(whole))
    attempt(kind, (whole[:start] + data + whole[start + (0 if inserted else len(data)) :])[: int(cut * len(whole)) + 1])


test_any_damage_is_read_or_refused = both(
    60, 2000, kind=st.sampled_from(KINDS), at=st.floats(0, 1), data=st.binary(max_size=40),
    cut=st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.1]), inserted=st.booleans(),
)(damaged)  # fmt: skip

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([2**63, -1, 10**30]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in lists and mappings."""
    yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield from places(each, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of ``value`` with another value at a place."""
    if not path:
        return new
    result = copy.deepcopy(value)
    at = result
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return result


CONFIG = yaml.safe_load(configuration())


def configured(path: tuple[Any, ...], value: Any) -> None:
    changed = put(CONFIG, path, value)
    data = yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    found = attempt("configuration", data)
    if found is not None:
        assert {key: found[key] for key in changed} == changed


test_any_value_in_a_configuration_is_read_or_refused = both(
    60, 900, path=st.sampled_from(sorted(places(CONFIG), key=str)), value=ANYTHING
)(configured)


def ours_of(kind: str) -> Any:
    """Return our part of a file's header, or its metadata."""
    found: list[Any] = []
    if WHOLE[kind].startswith(b"PAR1"):
        return {"version": "1", **frames()[kind][2]}
    our_header(WHOLE[kind], lambda ours: found.append(copy.deepcopy(ours)))
    return found[0]


TOLD = [(kind, path) for kind in ("model", "artefact", "index", "request", "scores") for path in places(ours_of(kind))]


def told(where: tuple[str, tuple[Any, ...]], value: Any) -> None:
    kind, path = where
    new = put(ours_of(kind), path, value)
    if WHOLE[kind].startswith(b"PAR1"):
        attempt(kind, meta_text(json.dumps(new).encode("utf-8", "replace"))(WHOLE[kind]))
    else:

        def change(ours: Any) -> None:
            ours.clear()
            ours.update(new if isinstance(new, dict) else {"": new})

        attempt(kind, our_header(WHOLE[kind], change))


test_any_value_in_a_header_is_read_or_refused = both(50, 600, where=st.sampled_from(TOLD), value=ANYTHING)(told)


@example(ids=[0, 1], people=[0, 0], labels=[0, 1], paths=["a", "b"])
def listed(ids: list[int], people: list[int], labels: list[int], paths: list[str]) -> None:
    count = min(map(len, (ids, people, labels, paths)))
    frame = pd.DataFrame({"image_id": ids[:count], "path": paths[:count], "identity": people[:count]})
    frame = frame.assign(identity_name="p", label=labels[:count], width=1, height=1, duplicate_group=0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.parquet"
        write_table(path, frame, INDEX, {"task": "classification", "classes": ["a", "b"]})
        try:
            found, _ = read_table(path, INDEX)
        except OneShuiError:
            found = None
    inside = all(each and not each.startswith("/") and ".." not in each.split("/") for each in frame["path"])
    fits = frame["label"].isin([0, 1]).all() and (frame[["image_id", "identity"]] >= 0).all(axis=None)
    if found is not None:
        assert inside and fits and frame["image_id"].is_unique
        assert np.array_equal(found["image_id"], frame["image_id"]) and found["path"].tolist() == paths[:count]
    elif frame["path"].str.match(r"^[a-z.]*[a-z]$").all():
        assert not (inside and fits and frame["image_id"].is_unique)


_SMALL = st.integers(-1, 3)
test_an_index_is_taken_only_if_its_values_are_possible = both(
    40, 400, ids=st.lists(_SMALL, max_size=4, unique_by=lambda value: value if value < 3 else object()),
    people=st.lists(_SMALL, max_size=4), labels=st.lists(_SMALL, max_size=4),
    paths=st.lists(st.sampled_from(["a", "b.png", "c", "d/e", "/a", "../a", "a/../b", "", "a\\b", "C:x"]), max_size=4),
)(listed)  # fmt: skip


def test_a_request_of_many_different_people_is_read(tmp_path: Path) -> None:
    _, frame, told_ = frames()["request"]
    many = pd.concat([frame] * 100, ignore_index=True).assign(request_rank=range(200), identity=range(200))
    write_table(tmp_path / "request.parquet", many, REQUEST, told_)
    assert len(READERS["request"].read(tmp_path / "request.parquet").images) == 200
