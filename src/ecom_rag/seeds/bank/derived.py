"""What is computed from the record: an index a route, over rows in the order of the record.

Loaded from saved arrays where there are sound ones, otherwise built anew; then the later changes are replayed. Nothing
here is ever the only copy of anything.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag._version import __version__
from ecom_rag.models.embeddings import Embeddings, Ragged
from ecom_rag.retrieval import Index
from ecom_rag.retrieval.growing import GrowingRows
from ecom_rag.retrieval.routes import ROUTES, TEXT_ROUTES, Queries
from ecom_rag.seeds.bank import saved
from ecom_rag.seeds.bank.store import State
from ecom_rag.text.analysis import Analyzer

logger = logging.getLogger(__name__)

FOLDER = "indexes"
_FETCH = 4096  # rows read from the record at once
_SLICE = 32  # texts analysed between two pauses: some milliseconds

Pause = Callable[[], object]
"""Called between slices of work in the background, so that searches get the interpreter."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the indexes depend on beside the documents.

    Args:
        bank: The bank's own name, so that arrays of another bank are never taken for this one's.
        routes: Which indexes there are.
        analyzer: Of the text routes.
        sizes: Dimension of ``dense`` and ``multivector``, vocabulary of ``sparse``; known from the first document on.
        span: First row of the record that is in the indexes, and the first behind them; ``None`` for all.
    """

    bank: str
    routes: tuple[str, ...]
    analyzer: Analyzer
    sizes: dict[str, int]
    span: tuple[int, int] | None = None

    def header(self) -> dict[str, Any]:
        """What saved arrays must have been made for."""
        return {
            "ecom_rag": __version__,  # another version may compute them otherwise
            "bank": self.bank,
            "routes": list(self.routes),
            "analyzer": self.analyzer.fingerprint(),
            "sizes": self.sizes,
        }


@dataclass
class Derived:
    """The indexes as of a sequence; once they are in use they are not changed again.

    Args:
        sequence: The change they are up to.
        purged: The compaction they were built after.
        next_row: The first row that is not in them.
        rows: Row number in the record of each row of the indexes, ascending.
        indexes: By route.
    """

    sequence: int
    purged: int
    next_row: int
    rows: GrowingRows = field(default_factory=lambda: GrowingRows((), np.int64))
    indexes: dict[str, Index] = field(default_factory=dict)


def load(db: Connection, state: State, plan: Plan, folder: Path, *, pause: Pause | None = None) -> Derived:
    """The indexes as of ``state``.

    Args:
        db: In the read transaction that gave ``state``.
        state: Where the bank stands.
        plan: What the indexes are.
        folder: The bank's.
        pause: Called between slices of the work; by default it is done at once.
    """
    for found in saved.newest(folder / FOLDER, state.sequence):
        if found.sequence < state.purged:  # the changes since then are gone
            continue
        try:
            derived = _from_arrays(saved.load(found.folder, plan.header()), found, state, plan)
        except saved.DamagedError as error:
            logger.warning("%s: cannot be used (%s); the indexes are built anew from the record", found.folder, error)
            continue
        _replay(derived, db, state, plan, pause)
        return derived
    derived = Derived(state.sequence, state.purged, 0)
    if state.live:
        logger.info("%s: building the indexes of %d documents", folder, state.live)
    _extend(derived, db, state, plan, pause, live_only=True)
    return derived


def replayed(derived: Derived, db: Connection, state: State, plan: Plan, *, pause: Pause | None = None) -> Derived:
    """The indexes as of a later sequence; the given ones stay as they are, and share memory.

    Rows that a compaction has dropped from the record stay in the indexes as removed ones, which changes no result.

    Args:
        derived: Up to an earlier sequence. One thread at a time may ask for later ones.
        db: In the read transaction that gave ``state``.
        state: Where the bank stands.
        plan: What the indexes are.
        pause: Called between slices of the work; by default it is done at once.
    """
    indexes = {route: index.fork() for route, index in derived.indexes.items()}
    later = Derived(derived.sequence, derived.purged, derived.next_row, copy.copy(derived.rows), indexes)
    _replay(later, db, state, plan, pause)
    return later


def _replay(derived: Derived, db: Connection, state: State, plan: Plan, pause: Pause | None) -> None:
    """Bring indexes that nobody uses yet from their sequence to a later one."""
    _extend(derived, db, state, plan, pause, live_only=False)
    # By the index: asked for rows in their order, SQLite would read the whole table for them.
    later = "SELECT row FROM documents INDEXED BY removals WHERE removed > ?"
    marks = db.execute(later, (derived.sequence,)).fetchall()
    gone = positions_of(derived.rows.rows, marks)
    if derived.purged != state.purged:  # the marks of rows that were removed before are gone with them
        found = np.fromiter((row for (row,) in db.execute("SELECT row FROM documents ORDER BY row")), np.int64)
        gone = np.union1d(gone, np.flatnonzero(~np.isin(derived.rows.rows, found, assume_unique=True)))
        derived.purged = state.purged
    if len(gone):
        for index in derived.indexes.values():
            index.remove(gone)
    derived.sequence = state.sequence


def arrays_of(derived: Derived) -> saved.Arrays:
    """The indexes as arrays; meanwhile nobody may make later ones of them: the vocabulary is the same."""
    return {**{route: index.arrays() for route, index in derived.indexes.items()}, "bank": {"rows": derived.rows.rows}}


def removed_share(derived: Derived, state: State) -> float:
    """Share of removed rows that the indexes would hold, brought to a later state."""
    rows = len(derived.rows) + state.next_row - derived.next_row
    return 1 - state.live / max(rows, 1)


def save(derived: Derived, arrays: saved.Arrays, plan: Plan, folder: Path) -> saved.Saved | None:
    """Write the arrays of indexes, to be loaded by the next one who opens the bank."""
    return saved.save(folder / FOLDER, arrays, plan.header(), sequence=derived.sequence, next_row=derived.next_row)


def blobs_of(embeddings: Embeddings, row: int) -> dict[str, bytes]:
    """One text's embeddings as they are stored."""
    found = {}
    if embeddings.dense is not None:
        found["dense"] = embeddings.dense[row].tobytes()
    if embeddings.sparse is not None:
        part = slice(*embeddings.sparse.indptr[row : row + 2])
        terms, weights = embeddings.sparse.indices[part], embeddings.sparse.data[part]
        found["sparse"] = terms.astype(np.int32).tobytes() + weights.astype(np.float32).tobytes()
    if embeddings.multivector is not None:
        found["multivector"] = np.ascontiguousarray(embeddings.multivector[row], np.float32).tobytes()
    return found


def stored_queries(db: Connection, rows: NDArray[np.int64], plan: Plan) -> Queries:
    """Documents as queries.

    Args:
        db: The record.
        rows: Their rows in the record, ascending; at most some thousands.
        plan: Of the bank.
    """
    selected = f"FROM documents WHERE row IN ({', '.join(map(str, rows.tolist()))})"
    parts = {
        route: items_of(route, db, selected, int(rows.min(initial=0)), len(rows), plan)
        for route in plan.routes
        if ROUTES[route].outputs and len(rows)
    }
    return Queries(items_of("bm25", db, selected, 0, len(rows), plan), Embeddings(**parts))


def _from_arrays(arrays: saved.Arrays, found: saved.Saved, state: State, plan: Plan) -> Derived:
    derived, rows = Derived(found.sequence, state.purged, found.next_row), arrays["bank"]["rows"]
    first, stop = (0, len(rows)) if plan.span is None else np.searchsorted(rows, plan.span).tolist()
    derived.rows.extend(rows[first:stop])
    for route in plan.routes:
        if route in arrays and stop > first:  # there is none of an empty bank
            kind = ROUTES[route].index
            own = arrays[route] if plan.span is None else kind.part(arrays[route], first, stop)
            derived.indexes[route] = kind.from_arrays(own, **options_of(route, plan))
    return derived


def _extend(
    derived: Derived, db: Connection, state: State, plan: Plan, pause: Pause | None, *, live_only: bool
) -> None:
    """Append the rows that are not in the indexes yet."""
    only = "AND removed IS NULL" if live_only else ""
    low, high = plan.span or (0, state.next_row)
    selected = f"FROM documents WHERE row >= {max(derived.next_row, low)} AND row < {high} {only}"
    rows = np.fromiter((row for (row,) in db.execute(f"SELECT row {selected} ORDER BY row")), np.int64)
    derived.next_row = state.next_row
    if len(rows) == 0:
        return
    for route in plan.routes:
        items = items_of(route, db, selected, int(rows[0]), len(rows), plan)
        size = _SLICE if pause is not None and route in TEXT_ROUTES else len(rows)
        for start in range(0, len(rows), size):
            part = items[start : start + size] if size < len(rows) else items
            if route in derived.indexes:
                derived.indexes[route].extend(part)
            else:
                derived.indexes[route] = ROUTES[route].index(part, **options_of(route, plan))
            if pause is not None:
                pause()
    derived.rows.extend(rows)


def options_of(route: str, plan: Plan) -> dict[str, Any]:
    """What the index of a route is made with beside its rows."""
    return {"analyzer": plan.analyzer} if route == "bm25" else {}


def items_of(route: str, db: Connection, selected: str, first: int, count: int, plan: Plan) -> Any:
    """A route's own form of some rows of the record.

    Args:
        route: Of the plan.
        db: The record.
        selected: ``FROM documents WHERE ...``.
        first: The first of the rows, or an earlier one.
        count: How many there are.
        plan: Of the bank.
    """
    if route in TEXT_ROUTES:
        return [text for (text,) in db.execute(f"SELECT text {selected} ORDER BY row")]
    query = f"SELECT value FROM {route} WHERE row >= {first} AND row IN (SELECT row {selected}) ORDER BY row"
    size = plan.sizes[route]
    if route == "dense":
        vectors = np.empty((count, size), np.float32)
        start = 0
        for part in _parts(db, query):
            vectors[start : start + len(part)] = np.frombuffer(b"".join(part), np.float32).reshape(-1, size)
            start += len(part)
        return vectors
    values, lengths = [], []
    terms = []
    for part in _parts(db, query):
        for blob in part:
            numbers = len(blob) // 4
            if route == "sparse":
                terms.append(np.frombuffer(blob, np.int32, numbers // 2))
                values.append(np.frombuffer(blob, np.float32, offset=len(blob) // 2))
                lengths.append(numbers // 2)
            else:
                values.append(np.frombuffer(blob, np.float32))
                lengths.append(numbers // size)
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    joined = np.concatenate(values)
    if route == "sparse":
        return csr_matrix((joined, np.concatenate(terms), offsets), shape=(count, size))
    return Ragged(joined.reshape(-1, size), offsets)


def _parts(db: Connection, query: str) -> Iterator[list[bytes]]:
    found = db.execute(query)
    while part := found.fetchmany(_FETCH):
        yield [value for (value,) in part]


def positions_mask(derived: Derived, first: int, matched: list[tuple[int]]) -> NDArray[np.bool_]:
    """Which rows of the indexes, from position ``first`` on, are among the matched rows of the record."""
    rows = derived.rows.rows[first:]
    mask = np.zeros(len(rows), bool)
    mask[positions_of(rows, matched)] = True
    return mask


def positions_of(rows: NDArray[np.int64], wanted: list[tuple[int]]) -> NDArray[np.int64]:
    """Where wanted rows stand among ascending ones; those that are not among them are left out."""
    values = np.array(wanted, np.int64).reshape(-1)
    positions = np.searchsorted(rows, values)
    inside = positions < len(rows)
    inside[inside] = rows[positions[inside]] == values[inside]
    return positions[inside]
