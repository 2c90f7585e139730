"""Changes of the tables, each within a write transaction of the caller."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.filters.postgres import comparable
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.seeds.bank.documents import Row
from ecom_rag.seeds.postgres import table, terms, wire
from ecom_rag.seeds.remote.engine import Sides
from ecom_rag.seeds.remote.state import State, Texts
from ecom_rag.seeds.remote.terms import Side, check_terms

_JSONB = b"\x01"  # the version of its binary form


def append(db: Any, state: State, rows: list[Row], vectors: Embeddings, sides: Sides, routes: Sequence[str]) -> int:
    """Append documents, each in place of one of the same id.

    Args:
        db: In a write transaction.
        state: As it was when the transaction began; brought up to date.
        rows: Of distinct ids.
        vectors: Of the rows.
        sides: The routes over texts that are kept up to date.
        routes: Of the bank.

    Returns:
        How many documents were replaced.

    Raises:
        EmbeddingError: A learned weight below 0, or too many of them for pgvector.
        RecordError: A text of too many terms for pgvector.
    """
    sequence = state.sequence + 1
    replaced = remove(db, state, "sha256(id) = ANY(%s)", [table.digests(row.id for row in rows)], sides, routes)
    first, last = state.next_row, state.next_row + len(rows)
    values = (
        (
            row.id.encode(),
            row.text.encode(),
            row.metadata,
            row.extra,
            _JSONB + comparable(json.loads(row.metadata)).encode(),
        )
        for row in rows
    )
    columns = "documents (row, id, text, metadata, extra, filter)"
    _copy(db, columns, ["int8", "bytea", "bytea", "text", "text", "bytea"], range(first, last), values)
    if "dense" in routes:
        assert vectors.dense is not None
        _copy(db, "dense", ["int8", "bytea"], range(first, last), ((value,) for value in wire.vectors(vectors.dense)))
        lengths = np.linalg.norm(vectors.dense.astype(np.float64), axis=1)
        state.statistics.norm = max(state.statistics.norm, float(lengths.max()))
    if "sparse" in routes:
        _append_sparse(db, state, vectors, range(first, last))
    for side in sides.values():
        index(db, state, side, range(first, last), [row.text for row in rows], [row.id for row in rows])
    state.sequence, state.next_row, state.live = sequence, last, state.live + len(rows)
    return replaced


def remove(db: Any, state: State, where: str, parameters: list[Any], sides: Sides, routes: Sequence[str]) -> int:
    """Remove the documents that an SQL condition holds for.

    Args:
        db: In a write transaction.
        state: As it was when the transaction began; brought up to date.
        where: The condition.
        parameters: Its values.
        sides: The routes over texts that are kept up to date.
        routes: Of the bank.

    Returns:
        How many there were.
    """
    gone: list[int] = []
    for rows, texts in table.texts(db, where, parameters):
        gone += rows
        for side in sides.values():
            terms.discounted(db, side, side.count(texts), state.statistics.texts[side.route])
    for name in ("documents", *routes) if gone else ():
        db.execute(f"DELETE FROM {name} WHERE row = ANY(%s)", (gone,))
    state.live -= len(gone)
    state.sequence += bool(gone)
    return len(gone)


def index(db: Any, state: State, side: Side, rows: Sequence[int], texts: Sequence[str], names: Sequence[str]) -> None:
    """Write the terms of texts.

    Args:
        db: In a write transaction.
        state: Brought up to date.
        side: The route.
        rows: Of the texts.
        texts: The texts.
        names: Of the texts, for errors.

    Raises:
        RecordError: A text of too many terms for pgvector.
    """
    own = state.statistics.texts.setdefault(side.route, Texts())
    counts = side.count(texts)
    check_terms(counts, side.route, names, wire.MOST_TERMS, "PostgreSQL")
    numbers = terms.counted(db, side, counts, own)
    if not own.slope:
        own.slope = side.slope(len(texts), int(counts.lengths.sum()))
    _copy_values(db, side.route, rows, side.values(counts, numbers, own.slope))


def index_anew(db: Any, state: State, side: Side) -> None:
    """Write the terms of all texts, with the present mean length. All different terms are in memory meanwhile.

    Rows are deleted, not cut off: who searches meanwhile goes on with those that they see.

    Args:
        db: In a write transaction.
        state: Brought up to date.
        side: The route.

    Raises:
        RecordError: A text of too many terms for pgvector.
    """
    db.execute(f"DELETE FROM {side.route}")
    db.execute(f"DELETE FROM {side.route}_terms")
    own = state.statistics.texts[side.route] = Texts()
    documents: Counter[bytes] = Counter()
    for rows, texts in table.texts(db, "TRUE", []):
        counts = side.count(texts)
        check_terms(counts, side.route, [f"row {row}" for row in rows], wire.MOST_TERMS, "PostgreSQL")
        documents.update(dict(zip(counts.names, np.diff(counts.level.starts).tolist(), strict=True)))
        own.terms += int(counts.lengths.sum())
    own.numbers = len(documents)
    own.slope = side.slope(state.live, own.terms) if state.live else 0.0
    numbers = {name: number for number, name in enumerate(documents)}
    pairs = zip(numbers.values(), documents.items(), strict=True)
    with db.cursor() as cursor, cursor.copy(f"COPY {side.route}_terms FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["bytea", "int4", "int4"])
        for number, (name, count) in pairs:
            copy.write_row((name, number, count))
    for rows, texts in table.texts(db, "TRUE", []):
        counts = side.count(texts)
        found = np.fromiter(map(numbers.__getitem__, counts.names), np.int64, len(counts.names))
        _copy_values(db, side.route, rows, side.values(counts, found, own.slope))


def _append_sparse(db: Any, state: State, vectors: Embeddings, rows: range) -> None:
    assert vectors.sparse is not None
    SparseIndex(vectors.sparse)  # looks at the weights
    weights = vectors.sparse.copy()
    weights.sum_duplicates()
    weights.eliminate_zeros()
    most = int(np.diff(weights.indptr).max(initial=0))
    if most > wire.MOST_TERMS:
        raise EmbeddingError(
            f"new rows hold {most} weights; a bank in PostgreSQL holds up to {wire.MOST_TERMS}, cut the text"
        )
    _copy_values(db, "sparse", rows, weights)
    state.statistics.largest = max(state.statistics.largest, float(weights.data.max(initial=0)))


def _copy_values(db: Any, route: str, rows: Sequence[int], matrix: csr_matrix) -> None:
    _copy(db, route, ["int8", "bytea"], rows, ((value,) for value in wire.sparse_vectors(matrix)))


def _copy(db: Any, columns: str, types: list[str], rows: Sequence[int], values: Iterable[Sequence[Any]]) -> None:
    """Append rows; bytes are taken as they are."""
    with db.cursor() as cursor, cursor.copy(f"COPY {columns} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row, value in zip(rows, values, strict=True):
            copy.write_row((row, *value))
