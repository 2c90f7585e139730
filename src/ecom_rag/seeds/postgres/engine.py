"""A bank's place in PostgreSQL: its rows within a transaction, and the changes of them."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.files.records import Record
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank.documents import CONTENT, Row
from ecom_rag.seeds.bank.filtered import Filtered
from ecom_rag.seeds.postgres import candidates, changes, schema, table, terms, upkeep, vectors
from ecom_rag.seeds.postgres.store import Store
from ecom_rag.seeds.remote.bounds import Asked, Where
from ecom_rag.seeds.remote.engine import Sides, Writer
from ecom_rag.seeds.remote.state import State

_NAMELESS = f"AND id >= '{CONTENT}' AND id < '{CONTENT}g'"  # documents without an id: theirs is a digest
_BYTES = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
            WHERE relnamespace = %s::regnamespace AND relkind = 'r'"""
_SERVER = """SELECT current_setting('server_version'), extversion, current_setting('fsync') FROM pg_extension
             WHERE extname = 'vector'"""


@dataclass(slots=True)
class Transaction:
    """One state of a bank, see ``remote.engine.Rows``; in a write transaction also its ``Writer``.

    Args:
        db: The connection.
        state: Where the bank stands.
    """

    db: Any
    state: State

    def meta(self) -> dict[str, Any]:
        """See ``Rows``."""
        return schema.read_meta(self.db)

    def candidates(self, route: str, asked: Sequence[Asked], k: int, where: Where | None) -> list[NDArray[np.int64]]:
        """See ``Rows``."""
        return candidates.candidates(self.db, route, asked, k, where)

    def known(self, route: str, names: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See ``Rows``."""
        return terms.known(self.db, route, names)

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """See ``Rows``."""
        query = "SELECT text FROM documents WHERE row = ANY(%s) ORDER BY row"
        return [bytes(text).decode() for (text,) in self.db.execute(query, (rows.tolist(),))]

    def dense(self, rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
        """See ``Rows``."""
        return vectors.stored_dense(self.db, rows, dimension)

    def sparse(self, rows: NDArray[np.int64], vocabulary: int) -> csr_matrix:
        """See ``Rows``."""
        return vectors.stored_sparse(self.db, rows, vocabulary)

    def records(self, rows: Sequence[int]) -> dict[int, Record]:
        """See ``Rows``."""
        return table.records(self.db, rows)

    def metadata(self) -> Iterator[tuple[int, str, str]]:
        """See ``Rows``."""
        return table.metadata(self.db)

    def live_rows(self) -> NDArray[np.int64]:
        """See ``Rows``."""
        return np.array([row for (row,) in self.db.execute("SELECT row FROM documents ORDER BY row")], np.int64)

    def rows_where(self, what: str, values: Iterable[str], *, nameless: bool = False) -> dict[str, list[int]]:
        """See ``Rows``."""
        return table.rows_where(self.db, what, values, _NAMELESS if nameless else "")

    def filtered(self, filter: Any) -> Filtered:
        """See ``Rows``."""
        return table.filtered(self.db, self.state, filter)

    def where(self, filter: Any) -> Where:
        """See ``Rows``."""
        condition, parameters = table.condition_of(filter)
        return Where(self.state.next_row, condition, tuple(parameters))

    def label_counts(self, key: str) -> dict[str, int]:
        """See ``Rows``."""
        return table.label_counts(self.db, key)

    def documents(self, found: Filtered) -> Iterator[Record]:
        """See ``Rows``."""
        return table.documents(self.db, found.where, found.parameters)

    def page(self, after: int, limit: int) -> list[tuple[int, Record]]:
        """See ``Rows``."""
        return table.page(self.db, after, limit)

    def documents_of(self, ids: Iterable[str]) -> dict[str, Record]:
        """See ``Rows``."""
        return table.documents_of(self.db, ids)

    def note(self, key: str, value: Any) -> None:
        """See ``Writer``."""
        schema.write_meta(self.db, key, value)

    def append(self, rows: list[Row], vectors: Embeddings, sides: Sides, routes: Sequence[str]) -> int:
        """See ``Writer``."""
        return changes.append(self.db, self.state, rows, vectors, sides, routes)

    def remove(self, what: Filtered | Sequence[str], sides: Sides, routes: Sequence[str]) -> int:
        """See ``Writer``."""
        if isinstance(what, Filtered):
            return changes.remove(self.db, self.state, what.where, what.parameters, sides, routes)
        return changes.remove(self.db, self.state, "sha256(id) = ANY(%s)", [table.digests(what)], sides, routes)


class PostgresEngine:
    """A bank's place in PostgreSQL, see ``remote.engine.Engine``.

    Args:
        address: Of the bank.
        timeout: Seconds to wait for another writer.
        unfinished: The bank is being built.

    Raises:
        UsageError: psycopg is not installed.
        BankError: The server cannot be reached, has no pgvector, or no such bank.
    """

    kind = "PostgreSQL"
    most_drift = 1.02

    def __init__(self, address: Address, *, timeout: float = 10.0, unfinished: bool = False) -> None:
        self.address, self.unfinished = address, unfinished
        self.store = Store(address, timeout=timeout)
        self.check_open, self.close = self.store.check_open, self.store.close

    @contextlib.contextmanager
    def reading(self) -> Iterator[Transaction]:
        """See ``Engine``."""
        with self.store.reading() as (db, state):
            yield Transaction(db, state)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """See ``Engine``."""
        with self.store.writing() as (db, state):
            yield Transaction(db, state)

    def index_anew(self, sides: Sides, made: dict[str, str]) -> None:
        """See ``Engine``."""
        upkeep.index_anew(self.store, sides.values(), made)

    def tidy(self) -> None:
        """See ``Engine``; rows that are gone are the server's own business."""

    def figures(self) -> dict[str, Any]:
        """See ``Engine``."""
        with self.store.reading() as (db, _):
            (size,) = db.execute(_BYTES, (f'"{self.address.name}"',)).fetchone()
            version, vector, fsync = db.execute(_SERVER).fetchone()
        return {
            "bytes": size,
            "exactness": "exact",
            "engine": f"PostgreSQL {version}, pgvector {vector}",
            "fsync": fsync,
        }
