"""The table of documents: its questions, each within a transaction of the caller."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ecom_rag.files.identity import shown_label
from ecom_rag.files.keys import Path, parse_key
from ecom_rag.files.records import Record
from ecom_rag.filters.parse import parse
from ecom_rag.filters.postgres import conditions, value_at
from ecom_rag.filters.unmet import SAMPLE, filter_notes
from ecom_rag.seeds.bank.documents import record_of
from ecom_rag.seeds.bank.filtered import Filtered
from ecom_rag.seeds.remote.state import State

TOGETHER = 4096  # documents fetched at once
_RECORD = "text, metadata, extra"
_KINDS = {"string": "string", "number": "number", "boolean": "bool", "null": "null"}


def condition_of(filter: Any) -> tuple[str, list[Any]]:
    """A filter as SQL over the table of documents, and its parameters; ``None`` is met by all.

    Raises:
        UsageError: Not a filter.
    """
    return ("TRUE", []) if filter is None else conditions(parse(filter), column="filter")


def filtered(db: Any, state: State, filter: Any) -> Filtered:
    """Look at a filter; see ``bank.filtered``.

    Args:
        db: In a transaction.
        state: As of the transaction's begin.
        filter: An expression or its dict form; ``None`` matches all documents.

    Raises:
        UsageError: Not a filter.
    """
    where, parameters = condition_of(filter)
    if filter is None:
        return Filtered(where, parameters, state.live, [])
    count = int(db.execute(f"SELECT count(*) FROM documents WHERE {where}", parameters).fetchone()[0])
    notes = filter_notes(
        filter,
        matched=count,
        seeds=state.live,
        kinds_at=lambda path: kinds_at(db, path),
        sample=lambda: some_metadata(db, SAMPLE),
    )
    return Filtered(where, parameters, count, notes)


def documents(db: Any, where: str, parameters: list[Any]) -> Iterator[Record]:
    """The documents that an SQL condition holds for, in row order, read as they are asked for."""
    query = f"SELECT {_RECORD} FROM documents WHERE {where} ORDER BY row"
    return (_record(row) for row in _streamed(db, query, parameters))


def page(db: Any, after: int, limit: int) -> list[tuple[int, Record]]:
    """Row and document of the first documents from a row on."""
    query = f"SELECT row, {_RECORD} FROM documents WHERE row >= %s ORDER BY row LIMIT %s"
    return [(row, _record(rest)) for row, *rest in db.execute(query, (after, limit))]


def documents_of(db: Any, ids: Iterable[str]) -> dict[str, Record]:
    """The documents of ids; those that do not exist are left out."""
    query = f"SELECT id, {_RECORD} FROM documents WHERE sha256(id) = ANY(%s)"
    return {bytes(id_).decode(): _record(rest) for id_, *rest in db.execute(query, (digests(ids),))}


def records(db: Any, rows: Sequence[int]) -> dict[int, Record]:
    """The documents of rows."""
    query = f"SELECT row, {_RECORD} FROM documents WHERE row = ANY(%s)"
    return {row: _record(rest) for row, *rest in db.execute(query, (list(rows),))}


def rows_where(db: Any, column: str, values: Iterable[str], more: str = "") -> dict[str, list[int]]:
    """Value of ``id`` or ``text`` -> rows that have it."""
    found: dict[str, list[int]] = {}
    query = f"SELECT {column}, row FROM documents WHERE sha256({column}) = ANY(%s) {more} ORDER BY row"
    for value, row in db.execute(query, (digests(values),)):
        found.setdefault(bytes(value).decode(), []).append(row)
    return found


def texts(db: Any, where: str, parameters: Sequence[Any]) -> Iterator[tuple[list[int], list[str]]]:
    """Rows and texts of the documents that a condition holds for, in row order and in blocks."""
    query = f"SELECT row, text FROM documents WHERE {where} ORDER BY row"
    with db.cursor("texts") as cursor:
        cursor.execute(query, list(parameters))
        while block := cursor.fetchmany(TOGETHER):
            yield [row for row, _ in block], [bytes(text).decode() for _, text in block]


def metadata(db: Any) -> Iterator[tuple[int, str, Any]]:
    """Row, id and metadata of all documents."""
    for row, id_, own in _streamed(db, "SELECT row, id, metadata FROM documents ORDER BY row", []):
        yield row, bytes(id_).decode(), own


def label_counts(db: Any, key: str) -> dict[str, int]:
    """How many documents have each label, the most frequent first; an array or object counts as its JSON."""
    value, parameters = value_at(parse_key(key), "filter")
    found: Counter[str] = Counter()
    query = f"SELECT {value}::text AS own, count(*) FROM documents GROUP BY own ORDER BY 2 DESC, 1"
    for text, count in db.execute(query, parameters):
        label = None if text is None else shown_label(json.loads(text))
        if label is not None:
            found[label] += count
    return dict(found.most_common())


def kinds_at(db: Any, path: Path) -> set[str]:
    """The kinds of value, as ``filters.kind`` names them, that documents have at a path of their metadata."""
    value, parameters = value_at(path, "filter")
    found = db.execute(f"SELECT DISTINCT jsonb_typeof({value}) FROM documents", parameters)
    return {_KINDS.get(kind, "other") for (kind,) in found if kind is not None}


def some_metadata(db: Any, limit: int) -> Iterator[dict[str, Any]]:
    """Metadata of some documents."""
    for (text,) in db.execute("SELECT metadata FROM documents LIMIT %s", (limit,)):
        yield json.loads(text)


def digests(values: Iterable[str]) -> list[bytes]:
    """What the indexes on ids and texts hold of them."""
    return [hashlib.sha256(value.encode()).digest() for value in values]


def _streamed(db: Any, query: str, parameters: list[Any]) -> Iterator[Any]:
    with db.cursor("documents") as cursor:
        cursor.itersize = TOGETHER
        cursor.execute(query, parameters)
        yield from cursor


def _record(row: Sequence[Any]) -> Record:
    text, own, extra = row
    return record_of(bytes(text).decode(), own, extra)
