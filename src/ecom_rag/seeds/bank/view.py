"""A bank as of one change: what a search needs, and nothing that moves under it."""

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import whole
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files.identity import known_id, label_at
from ecom_rag.files.json_text import loads
from ecom_rag.files.keys import Path
from ecom_rag.files.records import Record
from ecom_rag.filters.parse import parse
from ecom_rag.retrieval import Index, Ranking, routes
from ecom_rag.retrieval.itself import Rows
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.bank.derived import Derived, Plan, stored_queries
from ecom_rag.seeds.bank.documents import CONTENT, record_of
from ecom_rag.seeds.bank.masks import Matching
from ecom_rag.seeds.bank.store import State, Store
from ecom_rag.seeds.source import MOST_SAMPLED, drawn

_TOGETHER = 500  # records fetched by one statement
_AT_ONCE = 10_000  # values looked for by one statement; without an index on them it reads all documents
_NAMELESS = f"AND id >= '{CONTENT}' AND id < '{CONTENT}g'"  # documents without an id: theirs is a digest


class View:
    """One state of a bank, for the length of a ``with bank.view() as view:``.

    Attributes:
        sequence: Number of the last change that this state holds.
        live: Documents that can be found.
        routes: Names of the indexes.
        derived: The indexes and their rows; not to be changed.
        transaction: The connection that reads this state, and where the bank stands in it.
    """

    def __init__(
        self,
        db: Connection,
        state: State,
        derived: Derived,
        *,
        plan: Plan,
        masks: Matching,
        indexed: frozenset[Path],
        name: str,
        store: Store,
        release: Callable[[], object],
    ) -> None:
        self.sequence = state.sequence
        self.live = state.live
        self.routes = plan.routes
        self.name: str | None = plan.bank
        self._plan = plan
        self._db = db
        self.transaction = db, state
        self.derived = derived
        self._masks = masks
        self._indexed = indexed
        self._name = name
        self._store = store
        self._release = release
        self._over = False

    def __repr__(self) -> str:
        return f"View({self._name!r}, {self.live} seeds, sequence={self.sequence}, routes={'+'.join(self.routes)})"

    def end(self) -> None:
        """No more questions: the connection goes to another. A second time does nothing."""
        if not self._over:
            self._over = True
            self._release()

    def _check(self) -> None:
        self._store.check_open()
        if self._over:
            raise BankError(f"{self._name}: this view has ended; use it inside `with bank.view() as view:`")

    def __len__(self) -> int:
        """Rows of the indexes, removed ones included: the length of a mask."""
        return len(self.derived.rows)

    def index(self, route: str) -> Index:
        """A route's index. Its rows are those that ``record`` and ``rows`` speak of.

        Args:
            route: Of ``routes``.

        Raises:
            UsageError: The bank has no such route.
            BankError: The bank is empty or closed, or the view has ended.
        """
        self._check()
        if route not in self.routes:
            raise UsageError(f"{self._name}: has no route {route!r}; it was built with {', '.join(self.routes)}")
        if self.live == 0:
            raise BankError(f"{self._name}: holds no seeds; add some with ecom-rag bank add")
        return self.derived.indexes[route]

    def search(
        self,
        route: str,
        queries: Queries,
        k: int,
        *,
        where: Any = None,
        own: Rows | None = None,
        weights: Sequence[float] | None = None,
    ) -> Ranking:
        """What one route finds.

        Args:
            route: One that the seeds were built with, or ``hybrid`` where they have its parts.
            queries: With the outputs that the route searches.
            k: Results per query.
            where: A filter over the seeds' metadata, as an expression or in its dict form; by default all seeds.
            own: For each query the rows that it is itself, and that are left out; by default none.
            weights: Of dense, sparse and multivector, for ``hybrid``; by default all 1.

        Raises:
            UsageError: The seeds do not have the route, or not a filter.
            BankError: The bank is empty or closed, or the view has ended.
        """
        indexes = {name: self.index(name) for name in routes.indexes_of([route])}
        return routes.search(indexes, route, queries, k, allowed=self.rows(where), own=own, weights=weights)

    def rescore(self, route: str, queries: Queries, rows: NDArray[np.int64], k: int) -> Ranking:
        """The k best of given rows by one route.

        Args:
            route: One that can score given rows: ``multivector``.
            queries: With the route's output.
            rows: ``(queries, n)`` candidates of each query in any order, -1 for none; one may stand there twice.
            k: Results per query.

        Raises:
            UsageError: The seeds do not have the route.
            BankError: The bank is empty or closed, or the view has ended.
        """
        return routes.rescore(self.index(route), route, queries, rows, k)

    def rows(self, filter: Any) -> NDArray[np.bool_] | None:
        """The mask of the rows whose metadata a filter matches, for ``Index.search(allowed=...)``.

        Args:
            filter: An expression, its dict form, or ``None`` for all rows.

        Returns:
            ``(len(view),)``, not to be written to; removed rows may be in it, an index leaves them out by itself.

        Raises:
            UsageError: Not a filter.
            BankError: The bank is closed, or the view has ended.
        """
        self._check()
        return None if filter is None else self._masks.of(parse(filter), self._db, self.derived, self._indexed)

    def own_rows(self, queries: Sequence[Record], id_key: str) -> list[NDArray[np.int64]]:
        """For each query the rows that it is itself, see ``identity.is_itself``.

        Args:
            queries: Records.
            id_key: The bank's.

        Raises:
            UsageError: Not a key.
        """
        names = [known_id(query.get("metadata"), id_key) for query in queries]
        texts = [query["text"] for query in queries]
        pairs = list(zip(names, texts, strict=True))
        by_id = self._matching("id", [name for name in names if name is not None])
        by_text = self._matching("text", [text for name, text in pairs if name is None])
        nameless = self._matching("text", [text for name, text in pairs if name is not None], _NAMELESS)
        found = [
            by_text.get(text, []) if name is None else by_id.get(name, []) + nameless.get(text, [])
            for name, text in pairs
        ]
        return [np.array(sorted(rows), np.int64) for rows in found]

    def _matching(self, column: str, values: Sequence[str], condition: str = "") -> dict[str, list[int]]:
        """Value of a column -> rows of the indexes that have it."""
        found: dict[str, list[int]] = {}
        distinct = list(dict.fromkeys(values))
        for start in range(0, len(distinct), _AT_ONCE):
            part = distinct[start : start + _AT_ONCE]
            where = f"removed IS NULL AND {column} IN ({_marks(part)}) {condition}"
            for value, row in self._db.execute(f"SELECT {column}, row FROM documents WHERE {where}", part):
                found.setdefault(value, []).append(int(np.searchsorted(self.derived.rows.rows, row)))
        return found

    def record(self, row: int) -> Record:
        """The record of a row of the indexes.

        Args:
            row: Its number, from 0.

        Raises:
            IndexError: No such row.
            BankError: The bank is closed, or the view has ended.
        """
        return self.records([row])[0]

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The records of rows of the indexes, in their order; new ones at each call.

        Args:
            rows: Row numbers from 0.

        Raises:
            IndexError: No such row.
            BankError: The bank is closed, or the view has ended.
        """
        self._check()
        wanted = self.derived.rows.rows[np.asarray(rows, np.int64)].tolist()
        found: dict[int, tuple[str, str, str | None]] = {}
        distinct = list(dict.fromkeys(wanted))
        for start in range(0, len(distinct), _TOGETHER):
            part = distinct[start : start + _TOGETHER]
            for row, *parts in self._db.execute(
                f"SELECT row, text, metadata, extra FROM documents WHERE row IN ({_marks(part)})", part
            ):
                found[row] = (parts[0], parts[1], parts[2])
        return [record_of(*found[row]) for row in wanted]

    def labels(self, key: str) -> list[str | None]:
        """The label of each row, ``None`` for none and for a row that is removed.

        Args:
            key: Metadata key; its values are read as ``identity.label_of`` reads them.

        Raises:
            UsageError: Not a key.
            RecordError: A value that cannot be a label.
            BankError: The bank is closed, or the view has ended.
        """
        self._check()
        rows = self.derived.rows.rows
        found: list[str | None] = [None] * len(rows)
        for row, name, metadata in self._db.execute("SELECT row, id, metadata FROM documents WHERE removed IS NULL"):
            found[int(np.searchsorted(rows, row))] = label_at(f"{self._name}: {name}", loads(metadata.encode()), key)
        return found

    def sample(self, count: int) -> tuple[NDArray[np.int64], Queries]:
        """Some of the seeds as queries, see ``SeedView``.

        Args:
            count: At most; no more than ``MOST_SAMPLED`` are given.

        Raises:
            UsageError: ``count`` is no whole number from 1.
            BankError: The bank is closed, or the view has ended.
        """
        self._check()
        whole(count, "count")
        found = self._db.execute("SELECT row FROM documents WHERE removed IS NULL ORDER BY row")
        live = np.fromiter((row for (row,) in found), np.int64)
        chosen = live[drawn(len(live), min(count, MOST_SAMPLED))]
        return np.searchsorted(self.derived.rows.rows, chosen), stored_queries(self._db, chosen, self._plan)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
