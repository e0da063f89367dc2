"""Write what follows from the typed models of the configuration (``make reference``).

It writes a JSON schema for editors, the tables of keys in config/README.md, the table of hyper-parameters in each card
of docs/methods, and the table of the CSV's columns in docs/metrics.md. A table stands between the line
``<!-- make reference -->`` and the line ``<!-- end -->``.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oneshui.checked import Schema, resolved, schema_of, words
from oneshui.config import AGE_CLASSES, FACES, LABELS, MUFAC_CLASSES, PAIRED_SEED, Config
from oneshui.data.layouts import LAYOUTS
from oneshui.errors import DataError
from oneshui.methods import METHODS, params_of
from oneshui.report.columns import COLUMNS, KEYS, Card
from oneshui.report.figures import KINDS

_MARK, _END = "<!-- make reference -->\n", "<!-- end -->\n"


def files(root: Path) -> dict[Path, str]:
    """Return the text that each generated file, or file with a generated part, should have.

    Args:
        root: folder of the repository.

    Raises:
        DataError: a document has no place for its table, or docs/metrics.md does not say what a column means.
    """
    readme, metrics = root / "config/README.md", root / "docs/metrics.md"
    cards = {root / f"docs/methods/{kind}.md": _table(_of_kind(kind), "parameter") for kind in METHODS}
    return {
        root / "workflow/schemas/config.schema.json": json.dumps(json_schema(), indent=1) + "\n",
        readme: _with_part(readme, "\n".join(_sections())),
        metrics: _with_part(metrics, _csv_columns(metrics)),
        **{path: _with_part(path, table) for path, table in cards.items()},
    }


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration, with the hyper-parameters of each kind of ours."""
    schema = _of_config()
    method, definitions = schema["$defs"]["Method"], schema["$defs"]
    method["anyOf"] = [{"required": ["kind", "params"]}, {"required": ["of", "in_turn"]}]
    method["properties"]["kind"] |= {"anyOf": [{"enum": [*METHODS]}, {"pattern": ":"}]}
    for name, rules in _rules().items():
        definitions[name]["allOf"] = rules
    for kind in METHODS:
        # a value can stand in params or in an override, so no key is required in either
        definitions[kind] = {key: value for key, value in _of_kind(kind).items() if key != "required"}
        of_kind = {"$ref": f"#/$defs/{kind}"}
        then = {"properties": {"params": of_kind, "overrides": {"additionalProperties": of_kind}}}
        method["allOf"].append({"if": {"properties": {"kind": {"const": kind}}}, "then": then})
    definitions["Figure"]["properties"]["kind"]["enum"] = [*KINDS, FACES]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _of_config() -> dict[str, Any]:
    """Return the schema of a configuration, with the layouts of datasets."""
    schema: dict[str, Any] = _tidy(schema_of(Config))
    keys = schema["$defs"]["Dataset"]["properties"]
    keys["layout"] = {"description": keys["layout"]["description"], "enum": [*LAYOUTS], "type": "string"}
    return schema


def _rules() -> dict[str, list[dict[str, Any]]]:
    """Return for each model what its keys ask of each other; the models say the same in code."""
    one_source = {"oneOf": [{"required": ["folder"]}, {"required": ["synthetic"]}]}
    drawn = {"required": ["synthetic"], **_keys(folder=False, options={"maxProperties": 0})}
    given = {"required": ["mean", "std"], **_keys(mean={"not": {"type": "null"}}, std={"not": {"type": "null"}})}
    fewest, most = AGE_CLASSES
    return {
        "Dataset": [
            {**_if("layout", {"const": "synthetic"}), "then": drawn, "else": one_source},
            *(
                {**_if("layout", {"const": layout}), "then": _keys(synthetic=_keys(task={"const": labels}))}
                for layout, labels in LABELS.items()
            ),
            {**_if("layout", {"const": "mufac"}), "then": _keys(synthetic=_keys(n_classes={"const": MUFAC_CLASSES}))},
        ],
        "SyntheticSpec": [
            {
                **_if("task", {"const": "classification"}),
                "then": _keys(n_classes={"minimum": fewest, "maximum": most}),
            }
        ],
        "TrainSpec": [{**_if("init_weights", {"const": "random"}), "then": given}],
        "Attack": [{**_if("offline_a", {"const": PAIRED_SEED}), "then": _keys(references={"const": "own"})}],
        "Method": [{**_if("kind", {"pattern": ":"}), "then": {"required": ["needs"]}, "else": _keys(needs=False)}],
        "Figure": [
            {
                **_if("kind", {"const": FACES}),
                "then": {"required": ["show_faces", "blocks"], **_keys(blocks={"maxItems": 1})},
                "else": _keys(show_faces=False),
            }
        ],
    }


def _keys(**schemas: Any) -> dict[str, Any]:
    return {"properties": schemas}


def _if(key: str, schema: Schema) -> dict[str, Any]:
    return {"if": {"required": [key], **_keys(**{key: schema})}}


def _of_kind(kind: str) -> dict[str, Any]:
    """Return the schema of a kind's ``params``."""
    schema: dict[str, Any] = _tidy(schema_of(params_of(kind)))
    return schema


def _tidy(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of names, and without null for what may be left out."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    options = [each.get("type") for each in schema.get("anyOf", [schema]) if isinstance(each, Mapping)]
    absent = schema.get("default", "") is None and "null" not in options
    dropped = [*(["title"] if isinstance(schema.get("title"), str) else []), *(["default"] if absent else [])]
    return {key: _tidy(value) for key, value in schema.items() if key not in dropped}


def _sections() -> Iterator[str]:
    """Yield the reference of the configuration: a table for each mapping, where it is first met."""
    root = _of_config()
    shown = {**{name: kind.shows for name, kind in KINDS.items()}, FACES: "the paper's figure 6"}
    kinds = "; ".join(f"`{name}`: {shows}" for name, shows in shown.items())
    root["$defs"]["Figure"]["properties"]["kind"]["description"] = f"what it shows. {kinds}"
    todo: list[tuple[str, Schema]] = [("", root)]
    seen = []
    while todo:
        path, schema = todo.pop(0)
        below = []
        for key, value in schema["properties"].items():
            place, inner = _inside(f"{path}/{key}".lstrip("/"), value, root)
            if "properties" in inner and inner not in seen:
                seen.append(inner)
                below.append((place, inner))
        if path:
            yield f"### `{path}`\n\n{schema['description']}\n"
        yield _table(schema, "key", root)
        todo = below + todo


def _inside(path: str, schema: Schema, root: Schema) -> tuple[str, Schema]:
    """Return the mapping with fixed keys that a key leads to, with its place; or what the key itself allows."""
    schema = resolved({"$ref": schema["$ref"]} if "$ref" in schema else schema, root)  # with its own description
    for option in (schema, *schema.get("anyOf", [])):
        if isinstance(option.get("additionalProperties"), Mapping):
            return _inside(f"{path}/NAME", option["additionalProperties"], root)
        if isinstance(option.get("items"), Mapping):
            return _inside(f"{path}/...", option["items"], root)
    return path, schema


def _table(schema: Schema, head: str, root: Schema | None = None) -> str:
    """Return a table of the keys of a mapping."""
    root = root or schema
    lines = [f"| {head} | allowed | meaning |", "|---|---|---|"]
    for key, value in schema["properties"].items():
        allowed = "see below" if "properties" in _inside("", value, root)[1] else words(value, root)
        if key not in schema.get("required", ()):
            default = value.get("default")
            allowed += f"; {json.dumps(default)} if left out" if default is not None else "; may be left out"
        lines.append(f"| `{key}` | {allowed} | {value['description']} |")
    return "\n".join(lines) + "\n"


def _csv_columns(path: Path) -> str:
    """Return the table of the CSV's columns: names and cards from ``COLUMNS``, unit and meaning from the document."""
    said = {}
    for line in _parts(path)[1].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 4 and (name := re.match("`([^`]+)`", cells[1])):
            said[name[1]] = cells[2:4]
    every: list[tuple[tuple[str, ...], tuple[Card, ...]]] = [((key,), ()) for key in KEYS]
    every += [(column.names, column.cards) for column in COLUMNS]
    lines = ["| columns | unit | meaning | card |", "|---|---|---|---|"]
    for names, cards in every:
        if not all(said.get(names[0], [""])):
            raise DataError(
                f"{path} does not say what the column {names[0]} means. Add to its table the line "
                f"| `{names[0]}` | unit | meaning | |"
            )
        links = ", ".join(f"[{card.title}](#{_anchor(card.title)})" for card in cards)
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {' | '.join(said[names[0]])} | {links} |")
    return "\n".join(lines) + "\n"


def _anchor(title: str) -> str:
    """Return what a link to a section ends in, as GitHub spells it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _with_part(path: Path, part: str) -> str:
    """Return a document with another text in its generated part."""
    before, _, after = _parts(path)
    return f"{before}{_MARK}{part}{_END}{after}"


def _parts(path: Path) -> tuple[str, str, str]:
    """Return what stands before, in and after the generated part of a document."""
    before, mark, rest = path.read_text(encoding="utf-8").partition(_MARK)
    part, end, after = rest.partition(_END)
    if not (mark and end):
        raise DataError(f"{path} has no place for its table: add the lines {_MARK.strip()} and {_END.strip()}")
    return before, part, after


def main() -> None:
    """Write all that is not current; the repository is the folder that is given, or the current one."""
    for path, text in files(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
