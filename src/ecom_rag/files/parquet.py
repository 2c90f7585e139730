"""Records as parquet: scalars and lists of scalars stay typed, objects are JSON strings in columns marked as such."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ecom_rag.errors import RecordError

_JSON_COLUMN = {b"ecom_rag": b"json"}
_EXACT = 2**53  # the integers up to it are floats too
_ROWS = 4096  # a row group, and what is held in memory at a time


def rows(path: str, loads: Callable[[bytes], Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs of place and row, streamed by row group; columns that ``write`` marked come back as objects.

    One that is not JSON comes back as the ``ValueError``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise RecordError(path, f"not a parquet file ({str(error).splitlines()[0]}); check the extension") from None
    schema = file.schema_arrow
    encoded = [f.name for f in schema if (f.metadata or {}).get(b"ecom_rag") == b"json"]
    number = 0
    for batch in _batches(path, file):
        for row in batch:
            number += 1
            for name in encoded:
                if row[name] is None:
                    del row[name]
                else:
                    row[name] = _decoded(row[name], loads)
            yield f"{path}: row {number}", row


def _decoded(value: Any, loads: Callable[[bytes], Any]) -> Any:
    """The objects of JSON strings, or the error in their place: the row is a bad line, the file is not."""
    try:
        return loads(value.encode()) if isinstance(value, str) else [loads(item.encode()) for item in value]
    except ValueError as error:
        return error


def _batches(path: str, file: Any) -> Iterator[list[dict[str, Any]]]:
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
        raise RecordError(path, f"cannot be read ({str(error).splitlines()[0]}); write the file again") from None


def _in_nanoseconds(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def write(items: Callable[[], Iterable[dict[str, Any]]], target: Path, dumps: Callable[[Any], bytes]) -> None:
    """Write records in two passes: the first finds the columns and their types.

    Args:
        items: Gives a fresh pass over the records.
        target: File to write.
        dumps: Encodes an object as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds: dict[str, set[str]] = {}
    for item in items():
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
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for item in items():
            rows.append(_to_row(item, columns, dumps))
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


def _to_row(record: dict[str, Any], columns: dict[str, str], dumps: Callable[[Any], bytes]) -> dict[str, Any]:
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
