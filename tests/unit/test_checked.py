"""Strict typed models: what is refused, and what the errors say."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, model_validator

from oneshui.checked import (
    ABSENT,
    Count,
    CropScale,
    Fraction,
    Name,
    Once,
    Positive,
    Spec,
    arguments,
    checked,
    read,
    schema_of,
    words,
)
from oneshui.errors import ConfigError


@checked("toy")
class Toy(Spec):
    lr: float = Field(description="of it")
    names: tuple[str, ...]
    steps: int = 3
    extra: dict[str, int] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    """A dataclass of somebody else's."""

    lr: float
    names: tuple[str, ...]
    steps: int = 3
    extra: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


Read = Callable[[Mapping[str, Any]], Any]
both = pytest.mark.parametrize("made", [Toy.from_dict, lambda raw: Plain(**arguments(Plain, raw, "toy"))])


@both
def test_mapping_becomes_a_dataclass(made: Read) -> None:
    found = made({"lr": 0.1, "names": ["a", "b"], "options": {"layers": [1, 2]}})
    assert (found.lr, found.names, found.steps, found.extra) == (0.1, ("a", "b"), 3, {})
    assert isinstance(found.names, tuple)
    assert found.options == {"layers": [1, 2]}  # not read, so not converted


@checked("toy")
class Typed(Spec):
    whole: int = 1
    number: float = 1.0
    flag: bool = True
    word: str = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    either: float | str = 0.5


@dataclass(frozen=True)
class PlainTyped:
    whole: int = 1
    number: float = 1.0
    flag: bool = True
    word: str = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    either: float | str = 0.5


both_typed = pytest.mark.parametrize(
    "made", [Typed.from_dict, lambda raw: PlainTyped(**arguments(PlainTyped, raw, "toy"))]
)


@both_typed
@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"whole": 2.0}, "whole = 2.0, allowed: a whole number$"),
        ({"whole": True}, "whole = true, allowed: a whole number$"),
        (
            {"number": "1e-3"},
            r"number = '1e-3', allowed: a number \(a number in YAML needs a point and no quotes: 1.0e-3\)$",
        ),
        ({"number": True}, "number = true, allowed: a number$"),
        ({"number": float("nan")}, "number = nan, allowed: a finite number$"),
        ({"number": float("inf")}, "number = inf, allowed: a finite number$"),
        ({"number": None}, "number = null, allowed: a number$"),
        ({"flag": 1}, "flag = 1, allowed: true or false$"),
        ({"word": 3}, "word = 3, allowed: text$"),
        ({"pair": [0.0]}, r"pair = \[0.0\], allowed: a list of 2, each a number$"),
        ({"pair": [0.0, 1.0, 2.0]}, "allowed: a list of 2, each a number$"),
        ({"pair": [0.0, "b"]}, "allowed: a list of 2, each a number$"),
        ({"pair": 0.0}, "pair = 0.0, allowed: a list of 2, each a number$"),
        ({"either": [1]}, r"either = \[1\], allowed: a number or text$"),
        ({"number": "paired"}, "number = 'paired', allowed: a number$"),
        ({"whole": "5"}, r"whole = '5', allowed: a whole number \(a whole number in YAML needs no quotes: 5\)$"),
    ],
)
def test_a_value_of_another_type_is_an_error(made: Read, values: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"^toy: .*{allowed}"):
        made(values)


@both_typed
def test_values_of_the_annotated_types_are_taken(made: Read) -> None:
    found = made({"whole": 2, "number": 3, "flag": False, "word": "", "pair": [0, 1], "either": "paired_seed"})
    assert dataclasses.astuple(found) == (2, 3, False, "", (0, 1), "paired_seed")


@both
def test_unknown_key_is_an_error(made: Read) -> None:
    with pytest.raises(ConfigError, match=r"^toy: unknown key rate, step; allowed: lr, names, .*steps"):
        made({"lr": 0.1, "names": [], "step": 1, "rate": 2})


@both
def test_missing_key_is_an_error(made: Read) -> None:
    with pytest.raises(ConfigError, match=r"^toy: missing key names; it has: lr$"):
        made({"lr": 0.1})
    with pytest.raises(ConfigError, match=r"missing key lr, names; it has: nothing$"):
        made({})


def test_what_is_given_stays_as_it_is() -> None:
    raw = {"lr": 1, "names": ["a"]}
    assert read(Toy, raw, "toy").lr == 1.0
    assert raw == {"lr": 1, "names": ["a"]} and isinstance(raw["lr"], int)


def test_an_annotation_of_a_plain_dataclass_can_say_more() -> None:
    @dataclass(frozen=True)
    class Own:
        form: Literal["a", "b"]
        folder: Path = Path("here")
        share: Annotated[float, Field(gt=0, le=1)] = 0.5
        copy: int = 1  # names that pydantic's own models have
        made: int = field(init=False, default=0)

    assert Own(**arguments(Own, {"form": "b", "folder": "there", "copy": 2}, "own")) == Own("b", Path("there"), 0.5, 2)
    with pytest.raises(ConfigError, match="own: form = 'c', allowed: a or b"):
        arguments(Own, {"form": "c"}, "own")
    with pytest.raises(ConfigError, match=r"own: share = 0, allowed: a number in \(0, 1\]"):
        arguments(Own, {"form": "a", "share": 0}, "own")
    with pytest.raises(ConfigError, match="own: unknown key made"):
        arguments(Own, {"form": "a", "made": 1}, "own")


class Machine:
    """Not of JSON."""


def test_a_type_that_no_configuration_can_hold_is_not_checked() -> None:
    @dataclass
    class Own:
        lr: float
        machine: Machine | None = None
        other: Inner = None  # type: ignore[assignment]

    assert arguments(Own, {"lr": 1.0, "machine": "cpu", "other": {"a": 1}}, "own")["machine"] == "cpu"
    with pytest.raises(ConfigError, match=r"^own: lr = '1e-3', allowed: a number \(a number in YAML"):
        arguments(Own, {"lr": "1e-3"}, "own")


@checked("inner")
class Inner(Spec):
    low: Count
    high: Count = 9
    crop: CropScale = (0.5, 1.0)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low}, allowed: <= high = {self.high}\nor higher")
        return self


@checked("outer")
class Outer(Spec):
    parts: dict[str, Inner]
    row: tuple[Inner, ...] = ()
    filled: tuple[Inner, ...] = Field(default=(), min_length=1)
    one: Inner = ABSENT
    once: Once[int] = ()
    share: Fraction | tuple[()] | None = None
    free: Any = None
    named: dict[Name, int] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {"a/b": {"low": 0}}}, "file: parts/a/b/low = 0, allowed: a whole number >= 1"),
        ({"parts": {"a/b": {}}}, "file: parts/a/b: missing key low; it has: nothing"),
        ({"parts": {"a/b": {"low": 1, "x": 1}}}, "file: parts/a/b: unknown key x; allowed: low, high, crop"),
        ({"row": [{"low": 1}, {"low": 1.5}]}, "file: row/1/low = 1.5, allowed: a whole number >= 1"),
        ({"filled": [{"low": 0}]}, "file: filled/0/low = 0, allowed: a whole number >= 1"),
        ({"filled": [{}]}, "file: filled/0: missing key low"),
        (
            {"filled": []},
            "file: filled = [], allowed: a list that is not empty, each a mapping with the keys low, high, crop",
        ),
        ({"filled": [3]}, "file: filled/0 = 3, allowed: a mapping with the keys low, high, crop"),
        ({"one": None}, "file: one = null, allowed: a mapping with the keys low, high, crop"),
        ({"one": {"low": "1"}}, "file: one/low = '1', allowed: a whole number >= 1 (a whole number in YAML needs no q"),
        ({"one": {"low": "many"}}, "file: one/low = 'many', allowed: a whole number >= 1"),
        ({"one": {"low": 1, "crop": [0.9, 0.1]}}, "file: one/crop = [0.9, 0.1], allowed: the smaller number first"),
        ({"one": {"low": 10}}, "file: 2 problems\n  one: low = 10, allowed: <= high = 9\n  one: or higher"),
        ({"once": [1, 2, 1]}, "file: once = [1, 2, 1], allowed: each value once"),
        ({"share": 1.0}, "file: share = 1.0, allowed: a number in [0, 1), [] or null"),
        ({"share": [0.5]}, "file: share = [0.5], allowed: a number in [0, 1), [] or null"),
        (
            {"parts": {"a": {"low": 0, "crop": [2, 3]}}, "x": 1},
            "file: 3 problems\n  unknown key x; allowed: parts, filled, named, row, one, once, share, free\n  parts/a/"
            "low = 0, allowed: a whole number >= 1\n  parts/a/crop = [2, 3], allowed: a list of 2, each a number in (",
        ),
    ],
)
def test_errors_say_where_what_and_what_is_allowed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(Outer, {"parts": {}, **change}, "file")
    assert str(caught.value).startswith(message)
    for jargon in ("pydantic", "http", "Input should", "constrained", "tuple["):
        assert jargon not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {2024: {"low": 1}}}, 'parts/2024: the key 2024 is a number, allowed: text; quote it: "2024"'),
        ({"parts": {True: {"low": 1}}}, 'parts/true: the key true is true, allowed: text; quote it: "true"'),
        ({None: 1}, 'null: the key null is null, allowed: text; quote it: "null"'),
        (
            {"row": [{date(2024, 1, 2): 1}]},
            'row/0/2024-01-02: the key 2024-01-02 is a date, allowed: text; quote it: "',
        ),
        (
            {"free": [date(2024, 1, 2)]},
            'free/0 = 2024-01-02 is a date, allowed: text, numbers, true, false and null; quote it to have text: "2024',
        ),
        ({"free": b"a"}, "free = b'a' is a bytes, allowed: text, numbers, true, false and null"),
        ({"free": {1: date(2024, 1, 2), "a": {2}}}, "2 problems\n  free/1: the key 1 is a number"),
        ({"named": {"a b": 1}}, "named: the key 'a b', allowed: a name of letters, digits and _"),
        ({"named": {"a/../b": 1, "a": "x"}}, "2 problems\n  named: the key 'a/../b', allowed: a name of letters"),
    ],
)
def test_what_only_yaml_can_write_is_refused_with_its_place(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(Outer, {"parts": {}, **change}, "file")
    assert str(caught.value).startswith(f"file: {message}")


def test_values_that_were_put_together_are_told_where_they_stand() -> None:
    places = {"high": "overrides/a", "rate": "overrides/a", "": "params"}
    for raw, message in (
        ({"low": 0}, "file: params/low = 0"),
        ({"low": 1, "high": 0}, "file: overrides/a/high = 0, allowed: a whole number >= 1"),
        ({"low": 1, "rate": 2}, "file: overrides/a: unknown key rate; allowed: low, high, crop"),
        ({"high": 2}, "file: params: missing key low; it has: high"),
        ({"low": 3, "high": 2}, "file: 2 problems\n  params: low = 3, allowed: <= high = 2"),
    ):
        with pytest.raises(ConfigError) as caught:
            read(Inner, raw, "file", places)
        assert str(caught.value).startswith(message)


def test_a_model_made_in_python_is_checked_too() -> None:
    found = Inner(low=1)
    assert dataclasses.replace(found, high=3).high == 3
    with pytest.raises(ConfigError, match=r"^inner: crop = \[0\.9, 0\.5\], allowed: the smaller number first$"):
        dataclasses.replace(found, crop=(0.9, 0.5))
    with pytest.raises(ConfigError, match=r"^inner: 2 problems\n  low = 10, allowed: <= high = 9"):
        Inner(low=10)
    with pytest.raises(ConfigError, match=r"^inner: unknown key rate"):
        Inner(low=1, rate=2)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.low = 2  # type: ignore[misc]


class Below(Inner):
    """Like a method: a class of behaviour below its hyper-parameters."""


def test_a_class_below_a_model_has_its_checks() -> None:
    assert type(Below.from_dict({"low": 2})) is Below
    for bad in ({"low": 0}, {"low": 10}, {"low": 1, "x": 1}):
        with pytest.raises(ConfigError, match=r"^inner: "):
            Below.from_dict(bad)
        with pytest.raises(ConfigError, match=r"^inner: "):
            Below(**bad)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Positive, "a number > 0"),
        (Annotated[float, Field(lt=3)], "a number < 3"),
        (Annotated[int, Field(le=4096)], "a whole number <= 4096"),
        (Annotated[int, Field(ge=8, le=4096)], "a whole number in [8, 4096]"),
        (Literal["a", "b", "c"], "a, b or c"),
        (Literal["a"], "a"),
        (tuple[int, str], "a list: a whole number, text"),
        (Annotated[tuple[int, ...], Field(min_length=1)], "a list that is not empty, each a whole number"),
        (Once[str], "a list, each text that differs from the others"),
        (dict[str, int], "keys with values"),
        (tuple[Any, ...], "a list"),
        (Any, "anything"),
    ],
)
def test_what_a_type_allows_in_words(kind: Any, text: str) -> None:
    schema = schema_of(kind)
    assert words(schema, schema) == text
