"""Records: reading, checking and writing them. Nothing here knows about models.

In: a path (``.jsonl``, ``.jsonl.gz``, ``.json``, ``.parquet``, or ``-`` for standard input).
Out: plain dicts ``{"text": str, "metadata": dict, ...}``, one at a time; other keys pass through untouched.
"""

import gzip
import io
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import orjson

from ecom_rag.arguments import PathLike, one_of, path_of
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import parquet
from ecom_rag.files.values import plain, shown_key, type_name

Record = dict[str, Any]

DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
FORMATS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
# orjson reads integers beyond 64 bits as floats, and numbers beyond float64 as infinity.
_LONG_NUMBER = re.compile(rb"\d{19}|[eE]\+?\d{3}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CHUNK = 1 << 20
_LEVELS = 200  # orjson writes 254, and what is read must be written again within the lists of results
_ONE_A_LINE = "; expected one object a line"
TOO_DEEP = f"nested too deep; flatten it to fewer than {_LEVELS} levels"


@dataclass
class ReadReport:
    """What happened while reading one input: counts only, safe to print at the end of a run."""

    accepted: int = 0
    rejected: int = 0
    surrogates_replaced: int = 0
    rejections: list[dict[str, Any]] = field(default_factory=list)  # drained by whoever writes them down


def file_format(path: PathLike) -> str:
    """The format of a path by its extension; ``-`` (a pipe) is ``.jsonl``.

    Raises:
        UsageError: The extension is none of the known ones.
    """
    path = path_of(path, "path")
    if path == "-":
        return ".jsonl"
    for suffix in sorted(FORMATS, key=len, reverse=True):
        if path.endswith(suffix):
            return suffix
    raise UsageError(f"{path}: unknown file type; expected one of {', '.join(FORMATS)}, or - for a pipe")


def read(
    path: PathLike,
    *,
    on_bad_line: str = "fail",
    check: Callable[[Record], None] | None = None,
    report: ReadReport | None = None,
) -> Iterator[Record]:
    """Stream the records of a file.

    Args:
        path: Path (``str`` or ``Path``) of a known format, or ``-`` for JSON lines on standard input.
        on_bad_line: ``fail`` raises at the first bad line; ``skip`` notes it in ``report.rejections`` and goes on.
        check: A further check of a record; raises ``ValueError`` with the reason.
        report: Filled with counts while reading. A caller that gives none offers no skipping, and errors do not either.

    Yields:
        Records in file order.

    Raises:
        RecordError: A bad line under ``fail``, or a file that cannot be read at all.
        UsageError: No such file, or an unknown extension.
    """
    return (record for _, record in placed(path, on_bad_line=on_bad_line, check=check, report=report))


def placed(
    path: PathLike,
    *,
    on_bad_line: str = "fail",
    check: Callable[[Record], None] | None = None,
    report: ReadReport | None = None,
) -> Iterator[tuple[str, Record]]:
    """As ``read``, each record with its place, e.g. ``seeds.jsonl:7``, for errors that show only later."""
    path = path_of(path, "path")
    one_of(on_bad_line, "on_bad_line", ("fail", "skip"))
    hint = "" if report is None else " (or pass --on-bad-line skip)"
    report = report if report is not None else ReadReport()
    for where, raw in _raw_items(path, file_format(path)):
        try:
            record = _to_record(raw, report)
            if check is not None:
                check(record)
        except ValueError as error:
            if on_bad_line == "fail":
                raise RecordError(where, f"{error}{hint}") from None
            report.rejected += 1
            report.rejections.append({"where": where, "reason": str(error), "raw": _printable(raw)})
            continue
        report.accepted += 1
        yield where, record


def cleaned(items: Iterable[Record], what: str = "record") -> Iterator[Record]:
    """Records from Python as a file would give them: with a text and metadata, and nothing that JSON cannot hold.

    NumPy scalars become Python's own, tuples lists; ``metadata`` may be left out. A record that is plain already is
    passed on as it is, not copied.

    Args:
        items: Records; any iterable, read once.
        what: What one of them is called in errors: ``query``, ``seed``.

    Yields:
        The records in order.

    Raises:
        UsageError: A single record or text in place of several.
        RecordError: Something that is no record; names its number (from 0), the key and what was found there.
    """
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise UsageError(
            f"found {type_name(items)} in place of several records; expected a list of"
            ' {"text": "...", "metadata": {}}'
        )
    for number, item in enumerate(items):
        try:
            yield _sound(plain(item) if isinstance(item, Mapping) else item)
        except ValueError as error:
            raise RecordError(f"{what} {number}", str(error)) from None


def objects(path: PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of each line of JSON lines, whatever its keys; lone surrogates become U+FFFD.

    Args:
        path: Plain, or compressed where it ends in ``.gz``.

    Raises:
        RecordError: A line that is not a JSON object, or a damaged file.
        UsageError: No such file.
    """
    path = path_of(path, "path")
    for where, raw in _raw_items(path, ".jsonl.gz" if path.endswith(".gz") else ".jsonl"):
        try:
            item = _without_surrogates(raw, loads(raw))
        except ValueError as error:
            raise RecordError(where, str(error)) from None
        if not isinstance(item, dict):
            raise RecordError(where, f"is not an object but {_kind(item)}; expected one object a line")
        yield where, item


def dumps(record: Any) -> bytes:
    """One JSON line, UTF-8, ending in a newline; integers of any size survive.

    Raises:
        RecordError: It is nested deeper than ``loads`` would read again.
    """
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        if _too_deep(record, _LEVELS + 4):  # a result holds metadata within a list
            raise RecordError("a record", TOO_DEEP) from None
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def convert(jsonl: Path, target: Path, output_format: str) -> None:
    """Write finished JSON lines as another format, with the same bytes for the same input.

    Args:
        jsonl: File of JSON lines that this module wrote.
        target: File to write.
        output_format: One of ``FORMATS``.
    """
    if output_format == ".jsonl.gz":
        with jsonl.open("rb") as source, target.open("wb") as sink:
            with gzip.GzipFile(filename="", mode="wb", fileobj=sink, mtime=0, compresslevel=6) as zipped:
                while chunk := source.read(_CHUNK):
                    zipped.write(chunk)
    elif output_format == ".json":
        with jsonl.open("rb") as source, target.open("wb") as sink:
            sink.write(b"[")
            for number, line in enumerate(source):
                sink.write((b",\n" if number else b"\n") + line.rstrip(b"\n"))
            sink.write(b"\n]\n")
    elif output_format == ".parquet":
        parquet.write(lambda: map(loads, _stripped_lines(jsonl)), target, dumps)
    else:
        raise UsageError(f"cannot convert JSON lines to {output_format}")


def _stripped_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        for line in source:
            yield line.rstrip(b"\n")


# --- reading ----------------------------------------------------------------------------------------------------------


def _raw_items(path: str, file_type: str) -> Iterator[tuple[str, Any]]:
    """Pairs of place and raw item: bytes of a JSON line, or an already parsed object."""
    name = "stdin" if path == "-" else path
    try:
        if path == "-":
            yield from _lines(name, sys.stdin.buffer)
        elif file_type == ".parquet":
            yield from parquet.rows(path, loads)
        elif file_type == ".json":
            with Path(path).open("rb") as source:
                yield from _array_items(name, source)
        else:
            with Path(path).open("rb") as source:
                yield from _lines(name, gzip.open(source) if file_type == ".jsonl.gz" else source)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path, or pass - to read standard input") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; expected a file ({', '.join(FORMATS)})") from None
    except PermissionError:
        raise UsageError(f"{path}: may not be read; check its permissions") from None
    except DAMAGED_GZIP as error:
        raise RecordError(path, f"damaged gzip file ({error}); expected a complete .jsonl.gz, copy it again") from None
    except OSError as error:  # a disk that fails, a descriptor that is not for reading
        raise UsageError(f"{name}: cannot be read ({error.strerror or error}); check the file and its disk") from None


def _lines(name: str, source: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(source, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        line = line.strip(b" \t\r\n")
        if line:
            yield f"{name}:{number}", line


def _array_items(name: str, source: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Items of a JSON array as bytes, cut at top-level commas, so that memory holds one item and not the file."""
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
    decoder = json.JSONDecoder()
    buffer, position, number, expect = "", 0, 0, "["
    while True:
        while position < len(buffer) and buffer[position] in " \t\r\n":
            position += 1
        if position == len(buffer):
            buffer, position = text.read(_CHUNK), 0
            if not buffer:
                break
            continue
        character = buffer[position]
        if expect == "[":
            if character != "[":
                raise RecordError(
                    name,
                    f"starts with {character!r}; a .json file must hold one array of records"
                    " (for one record a line, name it .jsonl)",
                )
            position, expect = position + 1, "item or ]"
        elif expect == "end":
            raise RecordError(f"{name}: item {number}", "text after the end of the array; remove it")
        elif character == "]" and expect != "item":
            position, expect = position + 1, "end"
        elif character == "," and expect == ", or ]":
            position, expect = position + 1, "item"
        elif expect == ", or ]":
            raise RecordError(f"{name}: item {number}", f"found {character!r} after it; expected , or ]")
        else:
            number += 1
            start = position
            while True:
                try:
                    _, position = decoder.raw_decode(buffer, start)
                    if position < len(buffer):  # a number at the buffer's end may go on in the next chunk
                        break
                except RecursionError:  # more of the file does not help
                    raise RecordError(f"{name}: item {number}", TOO_DEEP) from None
                except ValueError as error:  # not JSON, or an integer of thousands of digits
                    problem = str(error)
                else:
                    problem = ""
                more = text.read(max(_CHUNK, len(buffer) - start))
                if not more:
                    if not problem:
                        break
                    raise RecordError(f"{name}: item {number}", f"not valid JSON ({problem}); mend the file")
                buffer, start = buffer[start:] + more, 0
            yield f"{name}: item {number}", buffer[start:position].encode("utf-8", "surrogateescape")
            expect = ", or ]"
    if expect == "[":
        return  # an empty file holds no records, as an empty .jsonl does
    if expect != "end":
        raise RecordError(name, f"the array ends after item {number} without ]; the file is cut off, copy it again")


def loads(raw: bytes) -> Any:
    """Parse JSON without losing integers beyond 64 bits.

    Raises:
        ValueError: Not JSON, or nested too deep; the message says why and what to do.
    """
    value = _parsed(raw)
    if raw.count(b"[") + raw.count(b"{") > _LEVELS and _too_deep(value, _LEVELS):
        raise ValueError(TOO_DEEP)
    return value


def loads_file(raw: bytes) -> Any:
    """As ``loads``, of a whole file that holds one value."""
    try:
        return loads(raw)
    except ValueError as error:
        raise ValueError(str(error).removesuffix(_ONE_A_LINE)) from None


def _too_deep(value: Any, levels: int) -> bool:
    """Whether lists and objects lie within each other on more levels; goes breadth first, since depth is in doubt."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        inner = (item for one in level for item in (one.values() if isinstance(one, dict) else one))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _parsed(raw: bytes) -> Any:
    if not _LONG_NUMBER.search(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # the standard library reads lone surrogates, and words its errors for people

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON; use null or leave the key out")

    def finite(number: str) -> float:
        value = float(number)
        if math.isinf(value):
            raise ValueError(f"the number {number:.30} is too large; numbers reach about 1.8e308")
        return value

    try:
        return json.loads(raw.decode(), parse_constant=refuse, parse_float=finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"{'' if error.lineno == 1 else f'line {error.lineno}, '}column {error.colno}"
        raise ValueError(f"not valid JSON ({error.msg} at {place}){_ONE_A_LINE}") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def _to_record(raw: Any, report: ReadReport) -> Record:
    if not isinstance(raw, bytes) and _too_deep(raw, _LEVELS):
        raise ValueError(TOO_DEEP)
    record: Any = loads(raw) if isinstance(raw, bytes) else _plain_row(raw)
    if isinstance(record, dict) and not isinstance(raw, bytes) and isinstance(record.get("metadata"), str):
        record["metadata"] = _metadata_of_string(record["metadata"])  # as other tools' parquet keeps objects
    record = _sound(record)
    clean = _without_surrogates(raw, record)
    report.surrogates_replaced += clean is not record
    return dict(clean)


def _sound(record: Any) -> Record:
    """A record with a text and an object as metadata; ``ValueError`` says why it is none."""
    if not isinstance(record, dict):
        raise ValueError(f'found {_kind(record)}; expected an object like {{"text": "...", "metadata": {{}}}}')
    if "text" not in record:
        found = ", ".join(map(shown_key, list(record)[:8])) or "none"
        raise ValueError(f'"text" is missing (found keys: {found}); every record needs a string "text"')
    text = record["text"]
    if not isinstance(text, str):
        raise ValueError(f'"text" is {_kind(text)}; expected a string')
    if not text.strip():
        raise ValueError('"text" is empty; remove the record or give it a text')
    metadata = record.get("metadata")
    if metadata is None:
        return {**record, "metadata": {}}
    if not isinstance(metadata, dict):
        raise ValueError(f'"metadata" is {_kind(metadata)}; expected an object (or leave it out)')
    return record


def _plain_row(row: Any, column: str = "") -> Any:
    """A parquet row with decimals as floats; bytes and spans of time have no place in JSON."""
    if isinstance(row, dict):
        return {key: _plain_row(value, column or str(key)) for key, value in row.items()}
    if isinstance(row, list):
        return [_plain_row(value, column) for value in row]
    if isinstance(row, ValueError):
        raise ValueError(f'the column "{column}" holds {row}')
    if isinstance(row, Decimal | float):
        return _finite(float(row), column)
    if isinstance(row, bytes | timedelta):
        raise ValueError(
            f'the column "{column}" holds {type(row).__name__}, which JSON cannot hold; leave the column out'
        )
    return row


def _finite(number: float, column: str) -> float:
    """The number; NaN and infinity are no JSON, and would be written as null."""
    if not math.isfinite(number):
        raise ValueError(f'"{column}" holds {number}, which is not a number of JSON; use null or leave it out')
    return number


def check_numbers(record: Record) -> None:
    """Raise ``ValueError`` where a record that was not read from JSON holds NaN or infinity, at any depth."""
    for key, value in record.items():
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, float):
                _finite(item, str(key))
            elif isinstance(item, dict):
                todo += item.values()
            elif isinstance(item, list | tuple):
                todo += item


def _metadata_of_string(text: str) -> Any:
    try:
        return loads(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise ValueError(f'"metadata" is a string that is not JSON ({error}); expected an object') from None


def _without_surrogates(raw: Any, value: Any) -> Any:
    """What was parsed of ``raw``, without lone surrogates; the very same object where there is none."""
    # Only the escape \udXXX can bring one in, so most lines are not looked at twice.
    if isinstance(raw, bytes) and b"\\u" not in raw:
        return value
    return _replace_surrogates(value)


def _replace_surrogates(value: Any) -> Any:
    """The value with each lone surrogate replaced by U+FFFD; the very same object where there is none."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value) if _SURROGATE.search(value) else value
    if isinstance(value, list):
        items = [_replace_surrogates(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, dict):
        pairs = {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
        same = all(k is j and v is w for (k, v), (j, w) in zip(pairs.items(), value.items(), strict=False))
        return value if same and len(pairs) == len(value) else pairs
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)


def _printable(raw: Any) -> str:
    try:
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else json.dumps(raw, default=str)
    except RecursionError:
        text = TOO_DEEP
    return _SURROGATE.sub("\ufffd", text)
