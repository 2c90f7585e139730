"""Records as CSV or TSV with a header row: cells are texts, and JSON in columns that are marked as such.

A column is marked by its name: ``price:json``. The columns ``metadata`` and ``topk_*`` are JSON without a mark, and
``metadata.policy.label`` is the key ``label`` of the object under ``policy`` in the metadata. An empty cell is a key
that the record does not have. What ``write`` writes, ``read`` gives back, whatever the values are.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files.json_text import dumps, kind_name, loads_file, loads_lines
from ecom_rag.files.keys import parse_key
from ecom_rag.values import Refused, has_surrogate, shown

_BOM = b"\xef\xbb\xbf"  # without it Excel takes the file for one in the system's own encoding
_JSON = ":json"
_JSON_COLUMNS = ("metadata", "topk_sim", "topk_seed", "topk_metadata", "topk_evidence")
_INNER = "metadata."
_LONGEST = 2**31 - 1  # characters of a cell; Python's own limit is 131,072
_NOT_UTF8 = "is not UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)"
_EXPECTED = "expected names with commas between (.tsv: tabs)"


class _Column(NamedTuple):
    name: str
    path: tuple[str, ...]  # where its values lie in the record
    is_json: bool


def read(name: str, source: IO[bytes], *, delimiter: str = ",") -> Iterator[tuple[str, dict[str, Any] | Refused]]:
    """Place and record of each row; the place is the line where the row begins. Empty rows are passed over.

    Raises:
        RecordError: The header does not fit, or a quote is never closed.
    """
    csv.field_size_limit(max(_LONGEST, csv.field_size_limit()))
    columns: list[_Column] = []
    for line, raw, fields in _rows(name, source, delimiter):
        where = f"{name}:{line}"
        if not isinstance(fields, csv.Error) and not any(map(str.strip, fields)):
            continue
        if columns:
            yield where, _item(columns, raw, fields)
        else:
            columns = _columns(where, fields)


def write(jsonl: Path, sink: IO[bytes], *, delimiter: str = ",") -> None:
    """Finished JSON lines as rows, in two passes: the first finds the columns.

    Cells are not changed to keep spreadsheets from computing what begins with ``=``: that would change the texts.

    Raises:
        UsageError: A key that no header can hold.
    """
    plain: dict[str, bool] = {}
    for record in loads_lines(jsonl):
        for key, value in record.items():
            plain[key] = plain.get(key, True) and isinstance(value, str) and value != "" and "\0" not in value
    columns = [_column_of(key, is_plain) for key, is_plain in plain.items()] or [_column_of("text", True)]
    sink.write(_BOM)
    text = io.TextIOWrapper(sink, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(column.name for column in columns)
    for record in loads_lines(jsonl):
        writer.writerow(_cell(record, column) for column in columns)
    text.detach()


def _rows(name: str, source: IO[bytes], delimiter: str) -> Iterator[tuple[int, str, list[str] | csv.Error]]:
    """First line, text and fields of each row; an error in place of fields that cannot be told apart."""
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in text:
            taken.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        first = reader.line_num + 1
        fields: list[str] | csv.Error
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields = csv.Error(str(error).replace("\t", r"\t"))  # a printed tab looks like a space
        if isinstance(fields, csv.Error) and "unexpected end" in str(fields):
            told = "a quote that opens here is never closed; the file is cut off or a quote is not doubled"
            raise RecordError(f"{name}:{first}", told)
        yield first, "".join(taken), fields


def _columns(where: str, fields: list[str] | csv.Error) -> list[_Column]:
    """What a header row names."""
    if isinstance(fields, csv.Error):
        raise RecordError(where, f"the header row cannot be read ({fields}); {_EXPECTED}")
    for field in fields:
        if "\0" in field or has_surrogate(field):
            raise RecordError(where, f"the header row {_NOT_UTF8}")
    try:
        columns = [_column(field) for field in fields]
    except UsageError as error:
        raise RecordError(where, str(error)) from None
    paths = [column.path for column in columns if column.name]
    twice = next((column.name for column in columns if paths.count(column.path) > 1), None)
    if twice is not None:
        raise RecordError(where, f'the column "{twice:.60}" stands twice; rename one')
    if ("text",) not in paths:
        found = ", ".join(map(shown, fields[:8])) or "none"
        raise RecordError(where, f'the column "text" is missing (found: {found}); {_EXPECTED}')
    return columns


def _column(name: str) -> _Column:
    """The column of a name in a header."""
    if name.endswith(_JSON):
        return _Column(name, (name.removesuffix(_JSON),), True)
    if name.startswith(_INNER):
        return _Column(name, ("metadata", *parse_key(name.removeprefix(_INNER), what=f'the column "{name}"')), False)
    return _Column(name, (name,), name in _JSON_COLUMNS)


def _column_of(key: str, is_plain: bool) -> _Column:
    """The column for a key of records that are written."""
    if "\0" in key:
        raise UsageError(f"{shown(key)}: a key with a NUL character cannot be a column; write .jsonl instead")
    if key in _JSON_COLUMNS:
        return _Column(key, (key,), True)
    marked = not is_plain or not key or key.endswith(_JSON) or key.startswith(_INNER)
    return _Column(f"{key}{_JSON}" if marked else key, (key,), marked)


def _cell(record: dict[str, Any], column: _Column) -> str:
    [key] = column.path
    if key not in record:
        return ""
    return dumps(record[key]).decode().rstrip("\n") if column.is_json else str(record[key])


def _item(columns: list[_Column], raw: str, fields: list[str] | csv.Error) -> dict[str, Any] | Refused:
    try:
        return _record(columns, fields)
    except ValueError as error:
        return Refused(str(error), raw)


def _record(columns: list[_Column], fields: list[str] | csv.Error) -> dict[str, Any]:
    if isinstance(fields, csv.Error):
        raise ValueError(f"is not a row of CSV or TSV ({fields}); put cells with quotes into quotes, and double those")
    if len(fields) != len(columns):
        told = "put cells that hold commas (.tsv: tabs) or line breaks into quotes"
        raise ValueError(f"found {len(fields)} fields; expected {len(columns)} as in the header; {told}")
    record: dict[str, Any] = {}
    # The metadata as a whole come before their single keys.
    for column, cell in sorted(zip(columns, fields, strict=True), key=lambda pair: len(pair[0].path)):
        if cell:
            _put(record, column, _value(column, cell))
    return record


def _value(column: _Column, cell: str) -> Any:
    if "\0" in cell:
        raise ValueError(f'the column "{column.name}" holds a NUL character; remove it')
    if has_surrogate(cell):
        raise ValueError(f'the column "{column.name}" {_NOT_UTF8}')
    if not column.is_json:
        return cell
    try:
        return loads_file(cell.encode())
    except ValueError as error:
        raise ValueError(f'the column "{column.name}" is {error}; expected JSON') from None


def _put(record: dict[str, Any], column: _Column, value: Any) -> None:
    """Set a value at its path; the objects on the way are made."""
    inner: Any = record
    for part in column.path[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f'"{part}" is {kind_name(inner)}; expected an object, as of the column "{column.name}"')
    if column.path[-1] in inner:
        raise ValueError(f'the column "{column.name}" gives a key that another column gives too; remove one of the two')
    inner[column.path[-1]] = value
