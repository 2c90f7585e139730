"""A bank whose indexes others hold in shards; its records are read from the bank's own file."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from sqlite3 import Connection
from typing import Any

import numpy as np

from ecom_rag.errors import UsageError
from ecom_rag.files.keys import Path
from ecom_rag.files.parts import Held
from ecom_rag.filters.tree import Filter
from ecom_rag.models import Encoder
from ecom_rag.retrieval.growing import GrowingRows
from ecom_rag.retrieval.routes import ROUTES
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.seeds.bank.derived import Derived
from ecom_rag.seeds.bank.store import State
from ecom_rag.seeds.bank.view import View
from ecom_rag.seeds.sharded.indexes import Shards, Spread, SpreadBM25, spread_variant
from ecom_rag.seeds.sharded.shard import Allowed, Part, check_sequence, spans_of


class ShardedBank:
    """Seeds of a bank in shards, see ``SeedSource``. In its views a row is the number of a document in the record.

    Args:
        bank: The bank, of which no index is loaded.
        shards: Its shards.

    Raises:
        BankError: The bank has changed since it was cut.
    """

    def __init__(self, bank: SeedBank, shards: Shards) -> None:
        self._bank, self._shards = bank, shards
        self.routes, self.id_key, self.label_key = bank.routes, bank.id_key, bank.label_key
        with bank.store.reading() as (_, state):
            check_sequence(str(bank.path), shards.sequence, state)
        self._derived = self._spread(state)

    def __repr__(self) -> str:
        return f"ShardedBank({self._bank!r}, shards={len(self._shards.starts)})"

    def __len__(self) -> int:
        return len(self._bank)

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """The bank as it was cut; raises ``BankError`` where it has changed since."""
        store = self._bank.store
        with store.reading() as (db, state):
            check_sequence(str(self._bank.path), self._shards.sequence, state)
            view = View(
                db,
                state,
                self._derived,
                plan=self._bank.plan,
                masks=_Conditions(),
                indexed=self._bank.indexed,
                name=str(self._bank.path),
                store=store,
                release=lambda: None,
            )
            try:
                yield view
            finally:
                view.end()

    def query_encoder(self, encoder: Encoder | None) -> Encoder | None:
        """See ``SeedBank.query_encoder``."""
        return self._bank.query_encoder(encoder)

    def filter_notes(self, filter: Any) -> list[str]:
        """See ``SeedBank.filter_notes``."""
        return self._bank.filter_notes(filter)

    def _spread(self, state: State) -> Derived:
        """The indexes. Every number below ``next_row`` is a row, those of documents that are gone are never found."""
        found = Derived(state.sequence, state.purged, state.next_row)
        found.rows = GrowingRows((), np.int64)
        found.rows.extend(np.arange(state.next_row))
        terms: Counter[str] = sum(map(Counter, self._shards.held.ask("terms")), Counter())
        indexes: dict[str, Any] = found.indexes
        for route in self.routes:
            size = state.next_row, state.live
            if ROUTES[route].outputs:
                indexes[route] = Spread(self._shards.held, route, *size)
            elif route == "bm25":
                indexes[route] = SpreadBM25(self._shards, *size, terms[route], self._bank.settings.analyzer)
            else:
                indexes[route] = spread_variant(self._shards, *size, terms[route])
        return found


class _Conditions:
    """In place of masks the filters themselves, which each shard looks at for its own rows."""

    def of(self, tree: Filter, db: Connection, derived: Derived, indexed: frozenset[Path]) -> Allowed:
        """See ``Matching.of``."""
        return Allowed(len(derived.rows), tree)


def shards_of(bank: Any, routes: Sequence[str], count: int, hold: Callable[[Sequence[Part]], Held]) -> Shards:
    """A bank cut into shards of about equally many documents.

    Args:
        bank: An open one.
        routes: That will be searched.
        count: Shards; fewer where there are fewer documents.
        hold: Has the shards held.

    Raises:
        UsageError: A bank in a server, or a route that cannot be searched so.
        BankError: The bank is closed.
    """
    if not isinstance(bank, SeedBank):
        raise UsageError(f"{bank.path}: a bank in a server has no shards; leave out `shards`")
    if combined := [route for route in routes if ROUTES[route].index is None]:
        raise UsageError(
            f"route {combined[0]!r} ranks all rows by each of its parts, which shards cannot; leave it out, or `shards`"
        )
    with bank.store.reading() as (db, state):
        found = db.execute("SELECT row FROM documents INDEXED BY live_ids WHERE removed IS NULL")
        rows = np.sort(np.fromiter((row for (row,) in found), np.int64, state.live))
    spans = spans_of(rows, count, state.next_row) if len(rows) else []
    parts = [Part(str(bank.path), span, state.sequence) for span in spans]
    return Shards(hold(parts), np.array([span[0] for span in spans], np.int64), state.sequence)
