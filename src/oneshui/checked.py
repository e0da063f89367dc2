"""Typed models of what people write in a configuration. pydantic checks them; the errors are our own.

A model is a frozen dataclass. Each field holds its type, range, unit and meaning, once: errors, the JSON schema and the
reference tables are made from it (``python -m oneshui.reference``).
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from datetime import date
from functools import wraps
from typing import Annotated, Any, ClassVar, NotRequired, Self, TypeVar, cast, dataclass_transform, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import DictSchema
from typing_extensions import TypedDict

from oneshui.errors import ConfigError

T = TypeVar("T")
Schema = Mapping[str, Any]
Path = tuple[str, ...]

#: nothing is converted but a whole number to a fraction: true is no number, and "1" is text
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
#: default of a key that may be left out, but not be null
ABSENT: Any = None

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
#: at least 0, below 1
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
_NAMED = {"$comment": "a name of letters, digits and _"}
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_]+$", json_schema_extra=_NAMED)]

#: values of a configuration, and how deep they may be nested; one that refers to itself has no end
_MOST, _DEEPEST = 200_000, 40

_WHOLE_HINT = " (a whole number in YAML needs no quotes: 5)"
_NUMBER_HINT = " (a number in YAML needs a point and no quotes: 1.0e-3)"


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("allowed: the smaller number first")
    return pair


def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("allowed: each value once")
    return values


_Area = Annotated[float, Field(gt=0, le=1)]
#: smallest and largest share of an image's area that a random crop takes
CropScale = Annotated[tuple[_Area, _Area], AfterValidator(_ascending)]
#: smallest and largest number
CountRange = Annotated[tuple[Count, Count], AfterValidator(_ascending)]
#: a list of different values; add ``Field(min_length=1)`` where it must not be empty
Once = Annotated[tuple[T, ...], AfterValidator(_once), Field(json_schema_extra={"uniqueItems": True})]


class Spec:
    """Base of the models."""

    where: ClassVar[str]

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Return the model that ``raw`` describes, with lists for tuples.

        Raises:
            ConfigError: a key is unknown or missing, or a value is of another type or out of its range.
        """
        return read(cls, raw, cls.where)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def checked(where: str) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass that refuses wrong values with a ConfigError.

    Args:
        where: what its errors begin with, e.g. ``training`` or the name of a method.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = pydantic_dataclass(frozen=True, kw_only=True, config=STRICT)(cls)
        validated = made.__init__

        @wraps(validated)
        def __init__(self: Any, **values: Any) -> None:
            try:
                validated(self, **values)
            except ValidationError as error:
                raise _explained(error, TypeAdapter(made), values, where) from None

        made.__init__ = __init__
        made.where = where
        return cast(type[T], made)

    return decorate


def read(cls: type[T], raw: Mapping[str, Any], where: str, places: Mapping[str, str] | None = None) -> T:
    """Return the model of class ``cls`` that ``raw`` describes, with lists for tuples.

    Args:
        cls: a class decorated with ``checked``, or below one.
        raw: as YAML gives it. It is not changed.
        where: what an error begins with: a file, or a place in it.
        places: where in the file the values stand, if ``raw`` was put together: the place of a key's mapping, by key,
            and that of all other keys and of what concerns several under "".

    Raises:
        ConfigError: it names every key that is unknown, missing or has a wrong value, and what is allowed.
    """
    return _validated(TypeAdapter(cls), raw, where, places)


def schema_of(cls: Any) -> dict[str, Any]:
    """Return the JSON schema of a model."""
    return TypeAdapter(cls).json_schema(schema_generator=_Schema)


class _Schema(GenerateJsonSchema):
    """Says of a mapping with free keys what they must be, and what is below each; no other key may stand there."""

    def dict_schema(self, schema: DictSchema) -> dict[str, Any]:
        made = super().dict_schema(schema)
        for pattern, below in made.pop("patternProperties", {}).items():
            made |= {"additionalProperties": below, "propertyNames": {**made["propertyNames"], "pattern": pattern}}
        return made


def arguments(cls: type[Any], raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values with which to call a plain dataclass, checked against its annotations.

    Types that JSON cannot hold are not checked.

    Raises:
        ConfigError: as ``read``.
    """
    hints = get_type_hints(cls, include_extras=True)
    known = {}
    for field in fields(cls):
        if field.init:
            hint = hints[field.name] if _is_of_json(hints[field.name]) else Any
            needed = field.default is MISSING and field.default_factory is MISSING
            known[field.name] = hint if needed else NotRequired[hint]
    typed: Any = TypedDict  # its names are known only now
    keys = typed(cls.__name__, known)
    keys.__pydantic_config__ = STRICT
    adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(keys)
    return _validated(adapter, raw, where)


def _is_of_json(hint: Any) -> bool:
    try:
        TypeAdapter(hint, config=STRICT).json_schema()
    except PydanticUserError:
        return False
    return True


def _validated(adapter: TypeAdapter[T], raw: Any, where: str, places: Mapping[str, str] | None = None) -> T:
    """Validate as JSON: only there does strict mean what YAML means, and take a list for a tuple."""
    if _is_endless(raw):
        raise ConfigError(f"{where}: it holds more than {_MOST} values, or they are nested more than {_DEEPEST} deep")
    problems = list(_not_of_json(raw, ()))
    if problems:
        raise _error(where, problems)
    text = json.dumps(raw)
    try:
        found = adapter.validate_json(text)
    except ValidationError as error:
        raise _explained(error, adapter, json.loads(text), where, places) from None
    except ConfigError as error:  # of a class that checks itself
        raise ConfigError(f"{where}: {error}") from error
    problems = list(_not_finite(raw, ()))  # where any value is allowed
    if problems:
        raise _error(where, problems)
    return found


def _not_finite(raw: Any, path: Path) -> Iterator[str]:
    if isinstance(raw, float) and not math.isfinite(raw):
        yield f"{'/'.join(path)} = {raw}, allowed: a finite number"
    elif isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _not_finite(value, (*path, key))
    elif isinstance(raw, list | tuple):
        for number, value in enumerate(raw):
            yield from _not_finite(value, (*path, str(number)))


def _is_endless(raw: Any) -> bool:
    pending, count = [(raw, 0)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if count > _MOST or depth > _DEEPEST:
            return True
        below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        pending += [(each, depth + 1) for each in below]
    return False


def _not_of_json(raw: Any, path: Path) -> Iterator[str]:
    """Yield what YAML can write and JSON cannot: keys that are not text, dates and other values."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if isinstance(key, str):
                yield from _not_of_json(value, (*path, key))
            else:
                shown = str(key) if isinstance(key, date) else _shown(key)
                yield f'{"/".join((*path, shown))}: the key {shown} is {_noun(key)}, allowed: text; quote it: "{shown}"'
    elif isinstance(raw, list | tuple):
        for number, value in enumerate(raw):
            yield from _not_of_json(value, (*path, str(number)))
    elif raw is not None and not isinstance(raw, str | int | float):
        advice = f'; quote it to have text: "{raw}"' if isinstance(raw, date) else ""
        yield f"{'/'.join(path) or 'it'} = {raw} is {_noun(raw)}, allowed: text, numbers, true, false and null{advice}"


def _noun(value: Any) -> str:
    """Return in words what YAML took a value for."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"


# --- errors --------------------------------------------------------------------------------------------------------


def _error(where: str, lines: list[str]) -> ConfigError:
    if len(lines) == 1:
        return ConfigError(f"{where}: {lines[0]}")
    return ConfigError("\n  ".join([f"{where}: {len(lines)} problems", *lines]))


def _explained(
    error: ValidationError, adapter: TypeAdapter[Any], raw: Any, where: str, places: Mapping[str, str] | None = None
) -> ConfigError:
    """Return the error in our words; several problems stand below each other."""
    places = places or {}
    schema = adapter.json_schema(schema_generator=_Schema)
    unknown: dict[Path, list[str]] = {}
    absent: dict[Path, list[str]] = {}
    wrong: dict[Path, str] = {}

    def stands(path: Path, key: str = "") -> Path:
        """Return the place in the file of a path, or of the mapping that has a key at it."""
        place = places.get((*path, key)[0], places.get("", ""))
        return (place, *path) if place else path

    for problem in error.errors(include_url=False):
        kind, loc = problem["type"], problem["loc"]
        if loc and loc[-1] == "[key]":
            path, here = _followed(schema, loc[:-2])
            text = f"the key {loc[-2]!r}, allowed: {words(here['propertyNames'], schema)}"
            wrong[(*path, f"[{loc[-2]}]")] = _at(stands(path), text)
            continue
        path, here = _followed(schema, loc)
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            unknown.setdefault(path, []).append(str(loc[-1]))
        elif kind == "missing" and len(path) == len(loc):
            absent.setdefault(path[:-1], []).append(str(loc[-1]))
        elif kind == "value_error" and (not path or "properties" in here):
            lines = str(problem["ctx"]["error"]).splitlines()
            wrong |= {(*path, line): _at(stands(path), line) for line in lines}
        else:
            value, allowed = _value_at(raw, path), f"allowed: {words(here, schema)}"
            if kind == "value_error":
                allowed = str(problem["ctx"]["error"])
            elif kind == "finite_number":
                allowed = allowed.replace("a number", "a finite number")
            elif isinstance(value, str):
                allowed += _hint(value, allowed)
            wrong.setdefault(path, f"{'/'.join(stands(path)) or 'it'} = {_shown(value)}, {allowed}")
    lines = []
    for path, keys in unknown.items():
        by_place: dict[Path, list[str]] = {}
        for key in sorted(keys):
            by_place.setdefault(stands(path, key), []).append(key)
        lines += [_at(place, f"unknown key {', '.join(those)}; allowed: {', '.join(_keys(schema, path))}")
                  for place, those in by_place.items()]  # fmt: skip
    for path, keys in absent.items():
        given = ", ".join(_value_at(raw, path)) or "nothing"
        lines.append(_at(stands(path), f"missing key {', '.join(keys)}; it has: {given}"))
    # a list with a wrong entry counts as too short as well: only the entry is told
    told = {*wrong, *((*path, "") for path in (*unknown, *absent))}
    inner = {place[:depth] for place in told for depth in range(len(place))}
    return _error(where, lines + [line for path, line in wrong.items() if path not in inner])


def _hint(value: str, allowed: str) -> str:
    """Return how a number is written, if ``value`` was meant to be one."""
    if not re.match(r"[-+]?\.?\d", value):
        return ""
    return _NUMBER_HINT if "a number" in allowed else _WHOLE_HINT if "a whole number" in allowed else ""


def _at(path: Path, text: str) -> str:
    return f"{'/'.join(path)}: {text}" if path else text


def _keys(schema: Schema, path: Path) -> list[str]:
    """Return the keys that a mapping may have, those that it needs first."""
    here = _followed(schema, path)[1]
    return sorted(here.get("properties", {}), key=lambda name: name not in here.get("required", []))


def _followed(schema: Schema, loc: Iterable[str | int]) -> tuple[Path, Schema]:
    """Return how far a place can be followed into a schema, and what is there. Alternatives and pairs are one thing."""
    path: list[str] = []
    here = _only(schema, schema)
    for step in loc:
        if isinstance(step, int) or "items" in here:
            below = here.get("items")
        else:
            below = here.get("properties", {}).get(step, here.get("additionalProperties"))
        if not isinstance(below, Mapping):
            break
        path.append(str(step))
        here = _only(below, schema)
    return tuple(path), here


def _only(schema: Schema, root: Schema) -> Schema:
    """Return what a schema allows beside null, if that is a mapping; else the schema."""
    schema = resolved(schema, root)
    options = [resolved(each, root) for each in schema.get("anyOf", []) if each.get("type") != "null"]
    return options[0] if len(options) == 1 and "properties" in options[0] else schema


def _value_at(raw: Any, path: Path) -> Any:
    for step in path:
        raw = raw[int(step)] if isinstance(raw, list | tuple) else raw[step]
    return raw


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(list(value) if isinstance(value, tuple) else value)


# --- words for a schema --------------------------------------------------------------------------------------------


def resolved(schema: Schema, root: Schema) -> Schema:
    """Return a schema with its reference into ``root`` replaced by what it refers to."""
    while "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def words(schema: Schema, root: Schema) -> str:
    """Return in words what a JSON schema allows, e.g. ``a number in [0, 1)``."""
    schema = resolved(schema, root)
    if "$comment" in schema:
        return str(schema["$comment"])
    if "anyOf" in schema:
        return _either(sorted((words(each, root) for each in schema["anyOf"]), key=lambda option: "list" in option))
    if "enum" in schema or "const" in schema:
        return _either([str(each) for each in schema.get("enum", [schema.get("const")])])
    match schema.get("type"):
        case "number" | "integer" as kind:
            return _number_words("a number" if kind == "number" else "a whole number", schema)
        case "array":
            return _list_words(schema, root)
        case "object":
            return _mapping_words(schema, root)
        case kind:
            return {"boolean": "true or false", "string": "text", "null": "null"}.get(str(kind), "anything")


def _either(options: list[str]) -> str:
    return " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)


def _number_words(noun: str, schema: Schema) -> str:
    low, high = (next((schema[key] for key in keys if key in schema), None) for keys in
                 (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")))  # fmt: skip
    above, below = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
    if low is not None and high is not None:
        return f"{noun} in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
    if low is not None:
        return f"{noun} {'>' if above else '>='} {low:g}"
    return noun if high is None else f"{noun} {'<' if below else '<='} {high:g}"


def _list_words(schema: Schema, root: Schema) -> str:
    if schema.get("maxItems") == 0:
        return "[]"
    if "prefixItems" in schema:
        parts = [words(each, root) for each in schema["prefixItems"]]
        return f"a list of {len(parts)}, each {parts[0]}" if len(set(parts)) == 1 else f"a list: {', '.join(parts)}"
    noun = "a list that is not empty" if schema.get("minItems") else "a list"
    unique = " that differs from the others" if schema.get("uniqueItems") else ""
    each = words(schema.get("items", {}), root)
    return f"{noun}, each {each}{unique}" if each != "anything" else noun


def _mapping_words(schema: Schema, root: Schema) -> str:
    """Return what a mapping holds: the keys that it may have, those that it needs first."""
    keys = _keys(schema, ())
    return f"a mapping with the keys {', '.join(keys)}" if keys else "keys with values"
