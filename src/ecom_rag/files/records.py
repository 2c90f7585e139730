"""Records: reading, checking and writing them. Nothing here knows about models.

In: a path of one of the ``formats``, or ``-`` for JSON lines on standard input.
Out: plain dicts ``{"text": str, "metadata": dict, ...}``, one at a time; other keys pass through untouched.

What others need of files of records is all here; how JSON is parsed and written lies in ``json_text``.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ecom_rag.arguments import PathLike, one_of, path_of
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import formats
from ecom_rag.files.formats import ENDINGS, convert, file_format
from ecom_rag.files.json_text import TOO_DEEP, dumps, kind_name, loads, too_deep, without_surrogates
from ecom_rag.values import SURROGATE, Refused, plain, shown_key, type_name

__all__ = [
    "ENDINGS",
    "ReadReport",
    "Record",
    "cleaned",
    "convert",
    "dumps",
    "file_format",
    "loads",
    "objects",
    "placed",
    "read",
]

Record = dict[str, Any]


@dataclass
class ReadReport:
    """What happened while reading one input: counts only, safe to print at the end of a run."""

    accepted: int = 0
    rejected: int = 0
    surrogates_replaced: int = 0
    rejections: list[dict[str, Any]] = field(default_factory=list)  # drained by whoever writes them down


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
    hint = "" if report is None else " (or pass `on_bad_line` skip)"
    report = report if report is not None else ReadReport()
    for where, raw in formats.items(path, file_format(path)):
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
    for where, raw in formats.items(path, ".jsonl.gz" if path.endswith(".gz") else ".jsonl"):
        try:
            item = without_surrogates(raw, loads(raw))
        except ValueError as error:
            raise RecordError(where, str(error)) from None
        if not isinstance(item, dict):
            raise RecordError(where, f"is not an object but {kind_name(item)}; expected one object per line")
        yield where, item


def _to_record(raw: Any, report: ReadReport) -> Record:
    if isinstance(raw, Refused):
        raise ValueError(raw.reason)
    if isinstance(raw, bytes):
        record: Any = loads(raw)
    elif too_deep(raw):
        raise ValueError(TOO_DEEP)
    elif isinstance(raw.get("metadata"), str):  # as other tools keep objects in tables
        record = {**raw, "metadata": _metadata_of_string(raw["metadata"])}
    else:
        record = raw
    record = _sound(record)
    clean = without_surrogates(raw, record)
    report.surrogates_replaced += clean is not record
    return dict(clean)


def _sound(record: Any) -> Record:
    """A record with a text and an object as metadata; ``ValueError`` says why it is none."""
    if not isinstance(record, dict):
        raise ValueError(f'found {kind_name(record)}; expected an object like {{"text": "...", "metadata": {{}}}}')
    if "text" not in record:
        found = ", ".join(map(shown_key, list(record)[:8])) or "none"
        raise ValueError(f'"text" is missing (found keys: {found}); every record needs a string "text"')
    text = record["text"]
    if not isinstance(text, str):
        raise ValueError(f'"text" is {kind_name(text)}; expected a string')
    if not text.strip():
        raise ValueError('"text" is empty; remove the record or give it a text')
    metadata = record.get("metadata")
    if metadata is None:
        return {**record, "metadata": {}}
    if not isinstance(metadata, dict):
        raise ValueError(f'"metadata" is {kind_name(metadata)}; expected an object (or leave it out)')
    return record


def _metadata_of_string(text: str) -> Any:
    try:
        return loads(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise ValueError(f'"metadata" is a string that is not JSON ({error}); expected an object') from None


def _printable(raw: Any) -> str:
    raw = raw.raw if isinstance(raw, Refused) else raw
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        return SURROGATE.sub("\ufffd", text if isinstance(text, str) else json.dumps(text, default=str))
    except RecursionError:
        return TOO_DEEP
