"""Tables and lines of text as annotation files hold them, read without guessing.

"007" stays "007" and "NA" stays "NA". Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark; any line ends do.
"""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from oneshui.data.names import normal_name
from oneshui.errors import DataError
from oneshui.files import read_regular
from oneshui.schemas import PARQUET_ERRORS, open_parquet

#: byte order marks, the longer ones first: that of UTF-32 starts like that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
#: whole numbers up to here have a floating point number of their own, by its bytes
_EXACT = {2: 2**11, 4: 2**24, 8: 2**53}

#: bytes of the longest value: what the csv module takes, too
_LONGEST = 2**17


def read_text(path: Path) -> str:
    """Return the text of a file with "\\n" at the ends of lines.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    try:
        raw = read_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"byte {raw[error.start]:#x} is not UTF-8" if encoding.startswith("utf-8") else f"no {encoding} text"
        raise DataError(f"{path.name}:{line}: {what}. Save the file as UTF-8 text.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path.name}:{line}: the text holds zero bytes: it is UTF-16 without a byte order mark, or was cut off "
            "while it was written. Save the file as UTF-8 text, or get it again."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file without the blank ones at the end."""
    text = read_text(path).rstrip()
    return text.split("\n") if text else []


class Table(NamedTuple):
    """A table of strings; ``lines`` are line numbers of a CSV file, or row numbers (from 1) of a parquet file."""

    name: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    #: columns of numbers that are too large to be exact
    rounded: frozenset[str] = frozenset()

    def column(self, name: str) -> list[str]:
        """Return the values of a column."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]

    def sources(self) -> list[str]:
        """Return "file:line" of each row."""
        return [f"{self.name}:{line}" for line in self.lines]

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table without these columns."""
        missing = [column for column in columns if column not in self.header]
        if missing:
            raise DataError(
                f"{self.name}:1: no column {', '.join(missing)}; the file has {', '.join(self.header) or 'none'}. "
                "Rename the columns in the file, or name them in the dataset's options."
            )


def read_csv(folder: Path, name: str) -> Table:
    """Return a CSV file as text; spaces around a value are dropped.

    Raises:
        DataError: it is no CSV text with commas, or a row has another number of fields than the header.
    """
    reader = csv.reader(io.StringIO(read_text(folder / name).rstrip(), newline=""), strict=True)
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
    header = _header(name, rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{name}:{line}: {len(row)} fields, but the header has {len(header)} ({', '.join(header)}). "
                "Correct the row; quote values that hold a comma."
            )
    return Table(name, header, rows[1:], lines[1:])


def _header(name: str, cells: Sequence[str]) -> list[str]:
    """Return the column names in their normal form."""
    if len(cells) == 1:
        for separator, called in _SEPARATORS.items():
            if separator in cells[0]:
                raise DataError(
                    f"{name}:1: fields are separated by {called}, save with commas (in a spreadsheet: CSV UTF-8, comma "
                    "delimited; in Python: sep=',')."
                )
    header = [normal_name(cell) for cell in cells]
    repeated = sorted({column for column in header if header.count(column) > 1})
    if "" in repeated:
        empty = ", ".join(str(at) for at, column in enumerate(header, 1) if not column)
        raise DataError(f"{name}:1: columns {empty} have no name. Name them, or remove the empty columns.")
    if repeated:
        raise DataError(f"{name}:1: column {', '.join(repeated)} appears more than once. Rename all but one.")
    return header


def read_parquet(folder: Path, name: str) -> Table:
    """Return a parquet file as text; missing values become empty text.

    Raises:
        DataError: it cannot be read, or a column is neither text nor numbers.
    """
    try:
        table = open_parquet(folder / name).read()
        table.validate(full=True)
    except PARQUET_ERRORS as error:
        raise DataError(f"{name} is not a readable parquet file ({error}). Write it again.") from error
    header = _header(name, table.column_names)
    columns: list[list[str]] = []
    rounded = set()
    for column, field, values in zip(header, table.schema, table.columns, strict=True):
        # booleans are 0/1 labels like any other
        values = values.cast(pa.int8()) if pa.types.is_boolean(field.type) else values
        if pa.types.is_floating(field.type) and len(values):
            largest = pc.max(pc.abs(pc.if_else(pc.is_finite(values), values, None))).as_py() or 0
            if largest >= _EXACT[field.type.bit_width // 8]:
                rounded.add(column)
        try:
            text = values.cast(pa.string())
            if (pc.max(pc.binary_length(text)).as_py() or 0) > _LONGEST:
                raise DataError(f"{name}: column {field.name:.60} has text of more than {_LONGEST} bytes. Shorten it.")
            columns.append([(value or "").strip() for value in text.to_pylist()])
        except (ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{name}: column {field.name} of type {field.type} is neither text nor numbers. Drop or convert it."
            ) from error
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(name, header, rows, list(range(1, len(rows) + 1)), frozenset(rounded))
