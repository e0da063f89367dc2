"""Reading YAML from unknown hands: no tags that make objects, no keys that hide others, no text that grows."""

from pathlib import Path
from typing import Any

import yaml

from oneshui.errors import ConfigError
from oneshui.files import read_regular

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONGEST = 10_000_000  # bytes of a file
_DEEPEST = 32  # lists and mappings in each other
_MOST = 100_000  # values, those that an alias repeats counted each time
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}
#: a key that has Snakemake run the file as a template of YTE, Python code and all
_TEMPLATE = "__use_yte__"


def read_yaml(path: str | Path, *, templates: bool = False) -> Any:
    """Return what a YAML (or JSON) file holds.

    Args:
        path: of the file.
        templates: take a file that Snakemake runs as a template; it is not run here.

    Raises:
        ConfigError: it cannot be read, is no YAML, has a key twice, asks for objects by a tag, is nested too deeply, or
            is larger than any configuration.
    """
    try:
        data = read_regular(path)
        if len(data) > _LONGEST:
            raise ConfigError(f"{path}: it has {len(data)} bytes, allowed: at most {_LONGEST}. Is it a configuration?")
        text = data.decode("utf-8-sig")
        _check(text, str(path))
        found = yaml.load(text, Loader=_Loader)  # a safe one: it makes text, numbers, dates, lists and mappings
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}). Name another file.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({error.problem or error.context}). Correct it.") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"{path}: not valid YAML in UTF-8 ({first:.200}). Correct it.") from error
    if not templates and isinstance(found, dict) and _TEMPLATE in found:
        raise ConfigError(
            f"{path}: {_TEMPLATE}: Snakemake would run this file as a template, with any Python code in it. Remove the "
            "key, and what depends on it; trust such a file only if you have read it."
        )
    return found


class _Open:
    """A list or mapping that has begun and not ended."""

    def __init__(self, anchor: str | None, *, is_mapping: bool) -> None:
        self.anchor, self.is_mapping = anchor, is_mapping
        self.n_children, self.size = 0, 1
        self.keys: set[str] = set()


def _check(text: str, where: str) -> None:
    """Refuse text whose values would be dangerous or ambiguous, before any is made."""
    stack = [_Open(None, is_mapping=False)]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=_Loader):
        line = f"{where}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            if done.anchor is not None:
                sizes[done.anchor] = done.size
            stack[-1].size += done.size
        elif isinstance(event, yaml.NodeEvent):
            _check_tag(event, line)
            parent = stack[-1]
            is_key = parent.is_mapping and parent.n_children % 2 == 0
            parent.n_children += 1
            if isinstance(event, yaml.CollectionStartEvent):
                if len(stack) > _DEEPEST:
                    raise ConfigError(f"{line}: more than {_DEEPEST} lists and mappings in each other. Flatten it.")
                stack.append(_Open(event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent)))
                continue
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise ConfigError(f"{line}: *{event.anchor} refers to nothing before it, or to itself. Correct it.")
                parent.size += sizes[event.anchor]
            else:
                parent.size += 1
                sizes[event.anchor or ""] = 1
                key = event.value if is_key and isinstance(event, yaml.ScalarEvent) else "<<"
                if key != "<<":
                    if key in parent.keys:
                        raise ConfigError(f"{line}: the key {key!r:.80} stands there twice. Remove one.")
                    parent.keys.add(key)
        if stack[-1].size > _MOST:
            raise ConfigError(f"{line}: more than {_MOST} values, with those that * repeats. Is it a configuration?")


def _check_tag(event: Any, line: str) -> None:
    tag = getattr(event, "tag", None)
    if tag not in (None, "!") and tag not in _TAGS:
        raise ConfigError(f"{line}: the tag {tag!r:.80} asks for an object, allowed: text, numbers, lists, mappings.")
