"""Records as parquet: scalars and lists of scalars stay typed, objects are JSON strings in columns marked as such."""

import math
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from ecom_rag.errors import RecordError
from ecom_rag.files.json_text import dumps, loads, loads_lines
from ecom_rag.values import Refused

_JSON_COLUMN = {b"ecom_rag": b"json"}
_EXACT = 2**53  # the integers up to it are floats too
_ROWS = 4096  # a row group, and what is held in memory at a time


def read(name: str, source: IO[bytes]) -> Iterator[tuple[str, dict[str, Any] | Refused]]:
    """Place and object of each row, streamed by row group; columns that ``write`` marked come back as objects.

    Raises:
        RecordError: Not a parquet file, or one that cannot be read on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
    except pa.ArrowInvalid as error:
        raise RecordError(name, f"not a parquet file ({str(error).splitlines()[0]}); check the extension") from None
    encoded = [f.name for f in file.schema_arrow if (f.metadata or {}).get(b"ecom_rag") == b"json"]
    number = 0
    for batch in _batches(name, file):
        for row in batch:
            number += 1
            yield f"{name}: row {number}", _item(row, encoded)


def _item(row: dict[str, Any], encoded: list[str]) -> dict[str, Any] | Refused:
    """A row as JSON knows it, or why it is none: the row is a bad line, the file is not."""
    found = {}
    try:
        for column, value in row.items():
            if column not in encoded:
                found[column] = _plain(value, column)
            elif value is not None:
                found[column] = _decoded(value, column)
    except ValueError as error:
        return Refused(str(error), row)
    return found


def _decoded(value: Any, column: str) -> Any:
    """The objects of JSON strings."""
    try:
        return loads(value.encode()) if isinstance(value, str) else [loads(item.encode()) for item in value]
    except ValueError as error:
        raise ValueError(f'the column "{column}" holds {error}') from None


def _plain(value: Any, column: str) -> Any:
    """A value with decimals as floats; bytes, spans of time, NaN and infinity have no place in JSON."""
    if isinstance(value, dict):
        return {key: _plain(item, column) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, column) for item in value]
    if isinstance(value, bytes | timedelta):
        raise ValueError(
            f'the column "{column}" holds {type(value).__name__}, which JSON cannot hold; leave the column out'
        )
    if isinstance(value, Decimal | float):
        number = float(value)
        if not math.isfinite(number):
            told = "which is not a number of JSON; use null or leave it out"
            raise ValueError(f'"{column}" holds {number}, {told}')
        return number
    return value


def _batches(name: str, file: Any) -> Iterator[list[dict[str, Any]]]:
    """Rows as Python objects; nanoseconds, which Python's times do not have, are cut off."""
    import pyarrow as pa

    plain = [
        pa.field(f.name, pa.timestamp("us", f.type.tz) if _in_nanoseconds(f.type) else f.type, f.nullable)
        for f in file.schema_arrow
    ]
    try:
        for batch in file.iter_batches(batch_size=_ROWS):
            yield pa.Table.from_batches([batch]).cast(pa.schema(plain), safe=False).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise RecordError(name, f"cannot be read ({str(error).splitlines()[0]}); write the file again") from None


def _in_nanoseconds(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def write(jsonl: Path, sink: IO[bytes]) -> None:
    """Finished JSON lines as a table, in two passes: the first finds the columns and their types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds: dict[str, set[str]] = {}
    for item in loads_lines(jsonl):
        for key, value in item.items():
            kinds.setdefault(key, set()).add(_column_kind(value))
    columns = {key: _column_type(key, found - {"null"}) for key, found in kinds.items()} or {"text": "string"}
    arrow = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "json": pa.string()}
    fields = []
    for key, kind in columns.items():
        base = kind.removeprefix("list:")
        column = pa.list_(arrow[base]) if kind.startswith("list:") else arrow[base]
        fields.append(pa.field(key, column, metadata=_JSON_COLUMN if base == "json" else None))
    schema = pa.schema(fields)
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for item in loads_lines(jsonl):
            rows.append(_to_row(item, columns))
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _column_kind(value: Any) -> str:
    if isinstance(value, list):
        return "list:" + "|".join(sorted({_column_kind(item) for item in value} - {"null"}))
    names = {bool: "bool", int: "int", float: "float", str: "string", type(None): "null"}
    kind = names.get(type(value), "json")
    if kind != "int" or -_EXACT <= value <= _EXACT:
        return kind
    return "long" if -(2**63) <= value < 2**63 else "json"


_KNOWN_COLUMNS = {
    "text": "string",
    "metadata": "json",
    "topk_sim": "list:float",
    "topk_seed": "list:string",
    "topk_metadata": "list:json",
    "topk_evidence": "list:json",
}


def _column_type(key: str, found: set[str]) -> str:
    known = _KNOWN_COLUMNS.get(key)
    if found and all(kind.startswith("list:") for kind in found):
        inner = {part for kind in found for part in kind.removeprefix("list:").split("|")} - {""}
        if known == "list:json" or (known and not inner):
            return known
        if known == "list:float" and inner <= {"int", "float"}:
            return known
        one = _scalar_type(inner)
        return "json" if one == "json" else f"list:{one}"
    if not found:
        return known or "json"
    return known if known == "json" else _scalar_type(found)


def _scalar_type(found: set[str]) -> str:
    """Of scalars of these kinds; a float would round an integer beyond 2**53."""
    if found and found <= {"int", "long"}:
        return "int"
    if found and found <= {"int", "float"}:
        return "float"
    return next(iter(found)) if len(found) == 1 and found <= {"string", "bool"} else "json"


def _to_row(record: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, kind in columns.items():
        if key not in record:
            continue
        value = record[key]
        if kind == "json":
            value = dumps(value).decode().rstrip("\n")
        elif kind == "list:json" and value is not None:
            value = [dumps(item).decode().rstrip("\n") for item in value]
        row[key] = value
    return row
