"""Readers of the raw layouts: annotation files in, one row per image out.

A reader opens annotation files only, never an image. Every malformed row is an error that names its file and line;
nothing is skipped or guessed. Byte order marks, Windows line ends and blank lines at the end are accepted.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from oneshui.errors import ConfigError, DataError

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
            raise ConfigError(f"{where}: datasets/{name}: {error}") from error


def read_annotations(layout: str, folder: Path, options: Options) -> Annotations:
    """Return what the annotation files of a raw folder say, one row per image.

    Args:
        layout: a key of ``LAYOUTS``.
        folder: raw folder of the dataset.
        options: options of the layout; only manifests have any: file, path_column, identity_column, label_column or
            label_columns (a list of 0/1 columns, or "rest" for all others), classes (order of the class names).

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


def _annotations(rows: Iterable[Row], task: str, classes: Sequence[str], files: Sequence[str]) -> Annotations:
    """Check the rows and turn them into annotations."""
    listed: dict[str, str] = {}
    kept: list[Row] = []
    for row in rows:
        path = _check_path(row.path, row.source)
        if not row.identity:
            raise DataError(f"{row.source}: the identity is empty. Every image needs one: fill it in or drop the row.")
        if path in listed:
            raise DataError(f"{row.source}: {path} is listed twice, first at {listed[path]}. Keep one of the two rows.")
        listed[path] = row.source
        kept.append(row._replace(path=path))
    if not kept:
        raise DataError(f"{', '.join(files)}: no rows. At least one image is needed: is the file complete?")
    paths, identities, labels, sources = zip(*kept, strict=True)
    frame = pd.DataFrame({"path": paths, "identity_name": identities})
    frame["label"] = pd.Series(labels, dtype=object if task == "multilabel" else "int64")
    frame["source"] = sources
    return Annotations(frame, task, tuple(classes))


def _check_path(path: str, source: str) -> str:
    """Return ``path`` in its plain form, so that one image has one spelling."""
    if not path:
        raise DataError(f"{source}: the image path is empty. Every row needs one: fill it in or drop the row.")
    if "\\" in path or path[1:2] == ":" or path.startswith("/") or ".." in path.split("/"):
        raise DataError(
            f"{source}: image path {path!r} must lie inside the raw folder: relative, with / between folders and "
            "without '..'. Correct the row."
        )
    return str(PurePosixPath(path)) if "./" in path or "//" in path else path


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name}:{line}: byte {raw[error.start]:#x} is not UTF-8. Save the file as UTF-8 text."
        ) from error


def _read_lines(path: Path) -> list[str]:
    """Return the lines without the blank ones at the end."""
    text = _read_text(path).rstrip()
    return text.split("\n") if text else []


class _Table(NamedTuple):
    """A table of strings; ``lines`` are line numbers of a CSV file, or row numbers (from 1) of a parquet file."""

    name: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        at = self.header.index(name)
        return [row[at] for row in self.rows]

    def sources(self) -> list[str]:
        return [f"{self.name}:{line}" for line in self.lines]

    def require(self, columns: Sequence[str]) -> None:
        missing = [column for column in columns if column not in self.header]
        if missing:
            raise DataError(
                f"{self.name}:1: no column {', '.join(missing)}; the file has {', '.join(self.header) or 'none'}. "
                "Rename the columns in the file, or name them in the dataset's options."
            )


def _read_csv(folder: Path, name: str) -> _Table:
    """Read a CSV file as text: "007" stays "007" and "NA" stays "NA"; spaces around a value are dropped."""
    reader = csv.reader(io.StringIO(_read_text(folder / name).rstrip(), newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for row in reader:
            rows.append([value.strip() for value in row])
            lines.append(line)
            line = reader.line_num + 1  # a quoted value may hold line ends
    except csv.Error as error:
        raise DataError(f"{name}:{line}: not valid CSV ({error}). Correct the row's quotes and commas.") from error
    if not rows:
        raise DataError(f"{name}: the file is empty. It needs a header line and one row per image.")
    header = rows[0]
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"{name}:1: column {', '.join(repeated)} appears more than once. Rename all but one.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{name}:{line}: {len(row)} fields, but the header has {len(header)} ({', '.join(header)}). "
                "Correct the row; quote values that hold a comma."
            )
    return _Table(name, header, rows[1:], lines[1:])


def _read_parquet(folder: Path, name: str) -> _Table:
    """Read a parquet file as text; missing values become empty text."""
    try:
        table = pq.read_table(folder / name)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{name} is not a readable parquet file ({error}). Write it again.") from error
    columns: list[list[str]] = []
    for field in table.schema:
        # booleans are 0/1 labels like any other
        values = table.column(field.name)
        values = values.cast(pa.int8()) if pa.types.is_boolean(field.type) else values
        try:
            columns.append([(value or "").strip() for value in values.cast(pa.string()).to_pylist()])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{name}: column {field.name} of type {field.type} is neither text nor numbers. Drop or convert it."
            ) from error
    rows = [list(row) for row in zip(*columns, strict=True)]
    return _Table(name, table.column_names, rows, list(range(1, len(rows) + 1)))


# ---- CelebA and CelebA-HQ

_SIGNS = {"1": 1, "-1": 0}
_BITS = {"1": 1, "0": 0}


def read_identities(path: Path) -> dict[str, tuple[str, int]]:
    """Return the identity and the line number of each image in a CelebA identity file ("000001.jpg 2880").

    Raises:
        DataError: a row has other than two fields, an identity is not an integer, or an image is listed twice.
    """
    identities: dict[str, tuple[str, int]] = {}
    for line, text in enumerate(_read_lines(path), 1):
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
    count, *rest = _read_lines(path) or [""]
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
    table = _read_csv(folder, file)
    table.require(_MUFAC_COLUMNS)
    columns = [table.column(name) for name in _MUFAC_COLUMNS]
    codes = {name: code for code, name in enumerate(_MUFAC_CLASSES)}
    for family, person, age, image, source in zip(*columns, table.sources(), strict=True):
        # checked before they are joined: "F01_" or "val_images/" would pass for an identity or a path
        if not (family and person):
            raise DataError(f"{source}: the identity is empty: family_id {family!r}, person_id {person!r}. Fill it in.")
        _check_path(image, source)
        if age not in codes:
            raise DataError(f"{source}: age_class is {age!r}, allowed: {', '.join(_MUFAC_CLASSES)}. Correct the row.")
        yield Row(f"{part}_images/{image}", f"{family}_{person}", codes[age], source)


# ---- manifest

_MANIFEST_OPTIONS = ("file", "path_column", "identity_column", "label_column", "label_columns", "classes")


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
    table = _read_parquet(folder, file) if file.endswith(".parquet") else _read_csv(folder, file)
    base = [_text_option(options, f"{name}_column", name) for name in ("path", "identity")]
    table.require(base)
    read_labels = _read_attribute_columns if "label_columns" in options else _read_class_column
    task, classes, labels = read_labels(table, options, base)
    columns = (table.column(base[0]), table.column(base[1]), labels, table.sources())
    return _annotations(map(Row, *columns), task, classes, (file,))


def _read_class_column(table: _Table, options: Options, base: list[str]) -> tuple[str, list[str], list[Label]]:
    column = _text_option(options, "label_column", "label")
    table.require([column])
    values = table.column(column)
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


def _read_attribute_columns(table: _Table, options: Options, base: list[str]) -> tuple[str, list[str], list[Label]]:
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
