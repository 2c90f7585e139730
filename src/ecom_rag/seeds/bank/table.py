"""The table of documents: its statements, each within a transaction of the caller."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ecom_rag.files.identity import as_label
from ecom_rag.files.keys import Path as KeyPath
from ecom_rag.files.keys import parse_key
from ecom_rag.files.records import Record
from ecom_rag.filters.sql import extraction
from ecom_rag.seeds.bank.documents import Row, record_of
from ecom_rag.seeds.bank.store import State

_EMBEDDINGS = ("dense", "sparse", "multivector")  # tables beside that of the documents
_KINDS = {
    "text": "string",
    "integer": "number",
    "real": "number",
    "true": "bool",
    "false": "bool",
    "null": "null",
    "array": "other",
    "object": "other",
}


def documents(db: sqlite3.Connection, where: str, parameters: list[Any]) -> Iterator[Record]:
    """The live documents that an SQL condition holds for, in row order, read as they are asked for."""
    query = f"SELECT text, metadata, extra FROM documents WHERE removed IS NULL AND {where} ORDER BY row"
    return (record_of(*row) for row in db.execute(query, parameters))


def page(
    db: sqlite3.Connection, where: str, parameters: list[Any], *, after: int, limit: int
) -> list[tuple[int, Record]]:
    """Row and document of the first live documents behind a row that an SQL condition holds for."""
    query = (
        f"SELECT row, text, metadata, extra FROM documents WHERE row > ? AND removed IS NULL AND {where}"
        " ORDER BY row LIMIT ?"
    )
    return [(row, record_of(*rest)) for row, *rest in db.execute(query, [after, *parameters, limit])]


def documents_of(db: sqlite3.Connection, ids: Iterable[str]) -> dict[str, Record]:
    """The live documents of ids; those that do not exist are left out."""
    query = "SELECT text, metadata, extra FROM documents WHERE id = ? AND removed IS NULL"
    return {id_: record_of(*row) for id_ in ids for row in db.execute(query, (id_,))}


def count_where(db: sqlite3.Connection, where: str, parameters: list[Any]) -> int:
    """How many live documents an SQL condition holds for."""
    query = f"SELECT count(*) FROM documents WHERE removed IS NULL AND {where}"
    return int(db.execute(query, parameters).fetchone()[0])


def label_counts(db: sqlite3.Connection, key: str) -> dict[str, int]:
    """How many documents have each label, the most frequent first; an array or object counts as its JSON."""
    json_type, of_type, value, of_value = extraction(parse_key(key))
    counts = db.execute(
        f"SELECT {json_type} AS kind, {value} AS value, count(*) FROM documents"
        " WHERE removed IS NULL AND kind IS NOT NULL GROUP BY kind, value ORDER BY 3 DESC, 2",
        [*of_type, *of_value],
    )
    found: Counter[str] = Counter()
    for kind, value, count in counts:
        if kind in ("true", "false"):  # SQLite gives 1 and 0
            value = kind
        label = value if kind in ("array", "object") else as_label(value)
        if label is not None:
            found[label] += count
    return dict(found.most_common())


def kinds_at(db: sqlite3.Connection, path: KeyPath) -> set[str]:
    """The kinds of value, as ``filters.kind`` names them, that documents have at a path of their metadata."""
    json_type, of_type, _, _ = extraction(path)
    query = f"SELECT DISTINCT {json_type} AS kind FROM documents WHERE removed IS NULL AND kind IS NOT NULL"
    return {_KINDS[kind] for (kind,) in db.execute(query, of_type)}


def some_metadata(db: sqlite3.Connection, limit: int) -> Iterator[dict[str, Any]]:
    """Metadata of the first documents."""
    for (text,) in db.execute("SELECT metadata FROM documents WHERE removed IS NULL LIMIT ?", (limit,)):
        yield json.loads(text)


def append(db: sqlite3.Connection, state: State, rows: list[Row]) -> int:
    """Append documents, each in place of a live one of the same id.

    Args:
        db: In a write transaction.
        state: As it was when the transaction began.
        rows: Of distinct ids.

    Returns:
        How many live documents were replaced.
    """
    sequence = state.sequence + 1
    replaced = _mark_removed(db, sequence, [row.id for row in rows])
    first = state.next_row
    db.executemany(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, NULL)",
        [(n, row.id, row.text, row.metadata, row.extra, sequence) for n, row in enumerate(rows, start=first)],
    )
    for name in _EMBEDDINGS:
        values = [(n, row.blobs[name]) for n, row in enumerate(rows, start=first) if name in row.blobs]
        if values:
            db.executemany(f"INSERT INTO {name} VALUES (?, ?)", values)
    db.execute(
        "UPDATE state SET sequence = ?, next_row = ?, live = live + ?, removed = removed + ?",
        (sequence, first + len(rows), len(rows) - replaced, replaced),
    )
    return replaced


def remove_ids(db: sqlite3.Connection, state: State, ids: list[str]) -> int:
    """Remove documents by id; returns how many there were."""
    return _note_removed(db, state, _mark_removed(db, state.sequence + 1, ids))


def remove_where(db: sqlite3.Connection, state: State, where: str, parameters: list[Any]) -> int:
    """Remove the live documents that an SQL condition holds for; returns how many there were."""
    marked = db.execute(
        f"UPDATE documents SET removed = ? WHERE removed IS NULL AND {where}", [state.sequence + 1, *parameters]
    )
    return _note_removed(db, state, marked.rowcount)


def purge(db: sqlite3.Connection, state: State) -> int:
    """Drop the removed rows for good; returns how many there were."""
    for name in _EMBEDDINGS:
        db.execute(f"DELETE FROM {name} WHERE row IN (SELECT row FROM documents WHERE removed IS NOT NULL)")
    gone = db.execute("DELETE FROM documents WHERE removed IS NOT NULL").rowcount
    db.execute("UPDATE state SET sequence = ?, purged = ?, removed = 0", (state.sequence + 1, state.sequence + 1))
    return gone


def _mark_removed(db: sqlite3.Connection, sequence: int, ids: list[str]) -> int:
    marks = [(sequence, id_) for id_ in ids]
    return db.executemany("UPDATE documents SET removed = ? WHERE id = ? AND removed IS NULL", marks).rowcount


def _note_removed(db: sqlite3.Connection, state: State, count: int) -> int:
    if count:
        db.execute(
            "UPDATE state SET sequence = ?, live = live - ?, removed = removed + ?", (state.sequence + 1, count, count)
        )
    return count
