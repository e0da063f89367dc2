"""Readers of the raw layouts: annotation files in, one row per image out.

A reader opens annotation files only, never an image. Every malformed row is an error that names its file and line;
nothing is skipped or guessed. How text is read, and which spellings are one person, is said in
``oneshui.data.text_tables`` and ``oneshui.data.names``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from oneshui.data.names import People, normal_name, normal_names, stands_for_nothing
from oneshui.data.text_tables import Table, read_csv, read_lines, read_parquet
from oneshui.errors import ConfigError, DataError
from oneshui.files import lies_inside

Options = Mapping[str, Any]
Label = int | tuple[int, ...]


@dataclass(frozen=True)
class Annotations:
    """What the annotation files of a dataset say."""

    #: one row per image: path (relative to the folder, with /), identity_name (str), label (int, or a tuple of 0/1),
    #: source (str "file.csv:line" of the row that it came from)
    frame: pd.DataFrame
    #: "classification" or "multilabel"
    task: str
    #: class names, or attribute names
    classes: tuple[str, ...]
    #: what was taken for the same although it is spelled differently, in words
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How one kind of raw folder is read."""

    #: the annotation files that the reader opens, relative to the folder
    files: Callable[[Options], tuple[str, ...]]
    read: Callable[[Path, Options], Annotations]
    #: the options that the layout knows
    options: tuple[str, ...] = ()


class Row(NamedTuple):
    """One image as its annotation file lists it."""

    path: str
    identity: str
    label: Label
    source: str


def check_layouts(config: Mapping[str, Any], where: str = "the configuration") -> None:
    """Refuse layouts that nobody reads, and options that a layout does not know.

    Args:
        config: a checked configuration.
        where: the file, for the message.

    Raises:
        ConfigError: it names the dataset, and what is allowed.
    """
    for name, entry in config["datasets"].items():
        if entry["layout"] not in LAYOUTS:
            allowed = ", ".join(LAYOUTS)
            raise ConfigError(f"{where}: datasets/{name}/layout = {entry['layout']!r}, allowed: {allowed}")
        try:
            annotation_files(entry["layout"], "", entry["options"])
        except ConfigError as error:
            raise ConfigError(f"{where}: datasets/{name}/options: {error}") from error


def read_annotations(layout: str, folder: Path, options: Options) -> Annotations:
    """Return what the annotation files of a raw folder say, one row per image.

    Args:
        layout: a key of ``LAYOUTS``.
        folder: raw folder of the dataset.
        options: options of the layout; only manifests have any: file, path_column, identity_column, label_column or
            label_columns (a list of 0/1 columns, or "rest" for all others), classes (order of the class names),
            similar_names (``apart``: names that differ only in capitals, blanks or leading zeros are different people).

    Raises:
        ConfigError: the layout or an option is unknown.
        DataError: the folder or a file is missing, or a row is malformed; the message names the file and the line.
    """
    files = _layout(layout, options).files(options)
    if not folder.is_dir():
        raise DataError(f"the raw folder {folder} does not exist. Set the dataset's folder in the configuration.")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        found = ", ".join(name for name in files if name not in missing) or "none"
        raise DataError(
            f"{folder} lacks {', '.join(missing)}. The {layout} layout needs {', '.join(files)} (found: {found}). "
            "Put the files there, or correct the dataset's folder, layout or options in the configuration."
        )
    return LAYOUTS[layout].read(folder, options)


def annotation_files(layout: str, folder: str, options: Options) -> list[str]:
    """Return the annotation files that the reader opens, as paths under ``folder``, without touching the disk."""
    return [str(PurePosixPath(folder) / name) for name in _layout(layout, options).files(options)]


def _layout(name: str, options: Options) -> Layout:
    if name not in LAYOUTS:
        raise ConfigError(
            f"layout {name!r} is unknown, allowed: {', '.join(LAYOUTS)}. Correct it in the configuration."
        )
    unknown = sorted(set(options) - set(LAYOUTS[name].options))
    if unknown:
        allowed = ", ".join(LAYOUTS[name].options) or "none"
        raise ConfigError(f"layout {name}: unknown options {unknown}, allowed: {allowed}. Remove or correct them.")
    return LAYOUTS[name]


# ---- what all layouts share


def _annotations(
    rows: Iterable[Row], task: str, classes: Sequence[str], files: Sequence[str], *, apart: bool = False,
    notes: Sequence[str] = (),
) -> Annotations:  # fmt: skip
    """Check the rows and turn them into annotations."""
    people = People(apart=apart)
    listed: dict[str, str] = {}
    kept: list[Row] = []
    for row in rows:
        path = _check_path(row.path, row.source)
        if path in listed:
            raise DataError(f"{row.source}: {path} is listed twice, first at {listed[path]}. Keep one of the two rows.")
        listed[path] = row.source
        kept.append(row._replace(path=path, identity=people.name(row.identity, row.source)))
    if not kept:
        raise DataError(f"{', '.join(files)}: no rows. At least one image is needed: is the file complete?")
    paths, identities, labels, sources = zip(*kept, strict=True)
    frame = pd.DataFrame({"path": paths, "identity_name": identities})
    frame["label"] = pd.Series(labels, dtype=object if task == "multilabel" else "int64")
    frame["source"] = sources
    return Annotations(frame, task, tuple(classes), (*people.finish(), *notes))


def _check_path(path: str, source: str) -> str:
    """Return ``path`` in its plain form, so that one image has one spelling."""
    if not path:
        raise DataError(f"{source}: the image path is empty. Every row needs one: fill it in or drop the row.")
    if not lies_inside(path):
        raise DataError(
            f"{source}: image path {path!r} must lie inside the raw folder: relative, with / between folders and "
            "without '..'. Correct the row."
        )
    return str(PurePosixPath(path)) if "./" in path or "//" in path else path


# ---- CelebA and CelebA-HQ

_SIGNS = {"1": 1, "-1": 0}
_BITS = {"1": 1, "0": 0}


def read_identities(path: Path) -> dict[str, tuple[str, int]]:
    """Return the identity and the line number of each image in a CelebA identity file ("000001.jpg 2880").

    Raises:
        DataError: a row has other than two fields, an identity is not an integer, or an image is listed twice.
    """
    identities: dict[str, tuple[str, int]] = {}
    for line, text in enumerate(read_lines(path), 1):
        where = f"{path.name}:{line}"
        words = text.split()
        if len(words) != 2:
            raise DataError(f"{where}: {len(words)} fields, but a row is 'image identity'. Correct the row.")
        image, identity = words
        if not (identity.isascii() and identity.isdigit()):
            raise DataError(f"{where}: identity {identity!r} is not an integer from 0. Correct the row.")
        if image in identities:
            first = f"{path.name}:{identities[image][1]}"
            raise DataError(f"{where}: {image} is listed twice, first at {first}. Keep one of the two rows.")
        identities[image] = (identity.lstrip("0") or "0", line)
    return identities


def read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], dict[str, int]]:
    """Return attribute names, labels (0/1) by image and line numbers by image of a CelebA attribute file.

    The file has a line with the number of images, a line with the attribute names, then "000001.jpg -1  1 ...".

    Raises:
        DataError: a row is malformed, an image is listed twice, or the first line is not the number of rows.
    """
    count, names, rows = _attribute_header(path)
    labels: dict[str, tuple[int, ...]] = {}
    lines: dict[str, int] = {}
    for line, text in enumerate(rows, 3):
        words = text.split()
        if len(words) != len(names) + 1:
            raise DataError(
                f"{path.name}:{line}: {len(words)} fields, but a row is an image and {len(names)} attributes. "
                "Correct the row."
            )
        image = words[0]
        if image in lines:
            raise DataError(
                f"{path.name}:{line}: {image} is listed twice, first at {path.name}:{lines[image]}. "
                "Keep one of the two rows."
            )
        labels[image] = _attribute_values(words[1:], _SIGNS, names, f"{path.name}:{line}")
        lines[image] = line
    if count != len(labels):
        raise DataError(
            f"{path.name}:1: the first line says {count} images, but {len(labels)} rows follow. "
            "Is the file complete? Get it again, or correct the number."
        )
    return names, labels, lines


def _attribute_header(path: Path) -> tuple[int, tuple[str, ...], list[str]]:
    """Return the number of images, the attribute names and the lines of the images."""
    count, *rest = read_lines(path) or [""]
    if not (count.strip().isascii() and count.strip().isdigit()):
        raise DataError(f"{path.name}:1: {count!r} is not the number of images. Restore the original first line.")
    names = tuple(rest[0].split()) if rest else ()
    if not names or len(set(names)) != len(names):
        raise DataError(f"{path.name}:2: the attribute names are missing or repeated. Restore the original line.")
    return int(count), names, rest[1:]


def _attribute_values(values: list[str], codes: Mapping[str, int], names: Sequence[str], where: str) -> tuple[int, ...]:
    try:
        return tuple([codes[value] for value in values])
    except KeyError:
        at = next(i for i, value in enumerate(values) if value not in codes)
        allowed = " or ".join(sorted(codes))
        raise DataError(
            f"{where}: attribute {names[at]} is {values[at]!r}, allowed: {allowed}. Correct the row."
        ) from None


def _celeba_reader(images: str, identity_file: str, attribute_file: str) -> Layout:
    """Return the layout of an identity file and an attribute file beside a folder of images."""

    def read(folder: Path, options: Options) -> Annotations:
        identities = read_identities(folder / identity_file)
        names, labels, lines = read_attributes(folder / attribute_file)
        for image, line in lines.items():
            if image not in identities:
                raise DataError(
                    f"{attribute_file}:{line}: {image} has attributes but no row in {identity_file}. "
                    "Both files must list the same images: get them again, or drop the row."
                )

        def rows() -> Iterator[Row]:
            for image, (identity, line) in identities.items():
                source = f"{identity_file}:{line}"
                if image not in labels:
                    raise DataError(
                        f"{source}: {image} has an identity but no row in {attribute_file}. "
                        "Both files must list the same images: get them again, or drop the row."
                    )
                yield Row(f"{images}/{image}", identity, labels[image], source)

        return _annotations(rows(), "multilabel", names, (identity_file, attribute_file))

    return Layout(lambda options: (identity_file, attribute_file), read)


# ---- MUFAC

_MUFAC_COLUMNS = ("family_id", "person_id", "age_class", "image_path")
_MUFAC_CLASSES = tuple("abcdefgh")
_MUFAC_PARTS = ("train", "val", "test")


def _mufac_files(options: Options) -> tuple[str, ...]:
    return tuple(f"custom_{part}_dataset.csv" for part in _MUFAC_PARTS)


def _read_mufac(folder: Path, options: Options) -> Annotations:
    files = _mufac_files(options)
    rows = (row for part, file in zip(_MUFAC_PARTS, files, strict=True) for row in _mufac_rows(folder, part, file))
    return _annotations(rows, "classification", _MUFAC_CLASSES, files)


def _mufac_rows(folder: Path, part: str, file: str) -> Iterator[Row]:
    table = read_csv(folder, file)
    table.require(_MUFAC_COLUMNS)
    columns = [table.column(name) for name in _MUFAC_COLUMNS]
    codes = {name: code for code, name in enumerate(_MUFAC_CLASSES)}
    for family, person, age, image, source in zip(*columns, table.sources(), strict=True):
        # checked before they are joined: "F01_" or "val_images/" would pass for an identity or a path
        for part_of_name, value in (("family_id", family), ("person_id", person)):
            _check_name_part(part_of_name, value, family, person, source)
        _check_path(image, source)
        if age not in codes:
            raise DataError(f"{source}: age_class is {age!r}, allowed: {', '.join(_MUFAC_CLASSES)}. Correct the row.")
        yield Row(f"{part}_images/{image}", f"{family}_{person}", codes[age], source)


def _check_name_part(column: str, value: str, family: str, person: str, source: str) -> None:
    """Refuse half a name that is missing, or that could end in the other half."""
    if not normal_name(value):
        raise DataError(f"{source}: the identity is empty: family_id {family!r}, person_id {person!r}. Fill it in.")
    if stands_for_nothing(value):
        raise DataError(f"{source}: {column} is {value!r}, which programs write where a value is missing. Fill it in.")
    if column == "family_id" and "_" in value:
        raise DataError(f"{source}: family_id is {value!r}: a '_' parts it from person_id. Write it without.")


# ---- manifest

_MANIFEST_OPTIONS = (
    "file", "path_column", "identity_column", "label_column", "label_columns", "classes", "similar_names",
)  # fmt: skip


def _manifest_files(options: Options) -> tuple[str, ...]:
    file = _text_option(options, "file", "manifest.csv")
    inside = not PurePosixPath(file).is_absolute() and ".." not in PurePosixPath(file).parts
    if not inside or PurePosixPath(file).suffix not in (".csv", ".parquet"):
        raise ConfigError(
            f"option file = {file!r}: allowed is a .csv or .parquet file inside the dataset's folder. Correct it."
        )
    return (file,)


def _text_option(options: Options, name: str, default: str) -> str:
    value = options.get(name, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"option {name} = {value!r}, allowed: the name of a column or file, as text. Correct it.")
    return value


def _names_option(options: Options, name: str) -> list[str]:
    value = options[name]
    names = list(value) if isinstance(value, list | tuple) else []
    if not names or not all(isinstance(each, str) for each in names) or len(set(names)) != len(names):
        extra = ', or "rest"' if name == "label_columns" else ""
        raise ConfigError(f"option {name} = {value!r}, allowed: a list of different names, as text{extra}. Correct it.")
    return names


def _read_manifest(folder: Path, options: Options) -> Annotations:
    (file,) = _manifest_files(options)
    clash = {"label_column", "classes"} & set(options) if "label_columns" in options else set()
    if clash:
        raise ConfigError(
            f"options label_columns and {', '.join(sorted(clash))} exclude each other: label_columns is for 0/1 "
            "attributes, the others are for classes. Remove one side."
        )
    if options.get("similar_names", "apart") != "apart":
        raise ConfigError(
            f"option similar_names = {options['similar_names']!r}, allowed: apart. Without it such names are refused."
        )
    table = read_parquet(folder, file) if file.endswith(".parquet") else read_csv(folder, file)
    base = [_text_option(options, f"{name}_column", name) for name in ("path", "identity")]
    table.require(base)
    if base[1] in table.rounded:
        raise DataError(
            f"{file}: column {base[1]} holds floating point numbers that are too large to be exact: several people may "
            "share one. Write it again with this column as text or whole numbers."
        )
    read_labels = _read_attribute_columns if "label_columns" in options else _read_class_column
    task, classes, labels = read_labels(table, options, base)
    columns = (table.column(base[0]), table.column(base[1]), labels, table.sources())
    notes = _merged_labels(table, options) if task == "classification" else ()
    return _annotations(map(Row, *columns), task, classes, (file,), apart="similar_names" in options, notes=notes)


def _read_class_column(table: Table, options: Options, base: list[str]) -> tuple[str, list[str], list[Label]]:
    column = _text_option(options, "label_column", "label")
    table.require([column])
    values = normal_names(table.column(column))
    for value, source in zip(values, table.sources(), strict=True):
        if not value:
            raise DataError(f"{source}: the label ({column}) is empty. Every image needs one: fill it in.")
    classes = _names_option(options, "classes") if "classes" in options else sorted(set(values))
    codes = {name: code for code, name in enumerate(classes)}
    for value, source in zip(values, table.sources(), strict=True):
        if value not in codes:
            raise DataError(
                f"{source}: label ({column}) is {value!r}, allowed: {', '.join(classes)} (option classes). "
                "Correct the row or the option."
            )
    return "classification", classes, [codes[value] for value in values]


def _merged_labels(table: Table, options: Options) -> tuple[str, ...]:
    """Say which spellings of labels were taken for the same class."""
    spellings: dict[str, str] = {}
    for text in dict.fromkeys(table.column(_text_option(options, "label_column", "label"))):
        first = spellings.setdefault(normal_name(text), text)
        if first != text:
            return (
                f"labels that differ in Unicode form or invisible characters only are one class: {text!a}, {first!a}",
            )
    return ()


def _read_attribute_columns(table: Table, options: Options, base: list[str]) -> tuple[str, list[str], list[Label]]:
    if options["label_columns"] == "rest":
        names = [column for column in table.header if column not in base]
        if not names:
            raise DataError(f"{table.name}:1: no columns beside {', '.join(base)}. Add the 0/1 attribute columns.")
    else:
        names = _names_option(options, "label_columns")
        table.require(names)
    at = [table.header.index(name) for name in names]
    labels: list[Label] = [
        _attribute_values([row[i] for i in at], _BITS, names, source)
        for row, source in zip(table.rows, table.sources(), strict=True)
    ]
    return "multilabel", names, labels


#: the raw layouts by name; "synthetic" is what the package's own generator writes, a manifest
LAYOUTS: dict[str, Layout] = {
    "celeba": _celeba_reader("img_align_celeba", "identity_CelebA.txt", "list_attr_celeba.txt"),
    "celebahq": _celeba_reader("CelebA-HQ-img", "CelebA-HQ-identity.txt", "CelebAMask-HQ-attribute-anno.txt"),
    "mufac": Layout(_mufac_files, _read_mufac),
    "manifest": Layout(_manifest_files, _read_manifest, _MANIFEST_OPTIONS),
    "synthetic": Layout(_manifest_files, _read_manifest, _MANIFEST_OPTIONS),
}
