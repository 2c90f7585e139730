"""A bank as of one change: one read transaction, and what a search asks of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import whole
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files.identity import known_id, label_at
from ecom_rag.files.json_text import loads
from ecom_rag.files.records import Record
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval import Ranking
from ecom_rag.retrieval.itself import Rows, search_others
from ecom_rag.retrieval.routes import ROUTES, Queries
from ecom_rag.seeds.bank.documents import CONTENT
from ecom_rag.seeds.postgres import postings, table
from ecom_rag.seeds.postgres.candidates import Where
from ecom_rag.seeds.postgres.store import State, Store
from ecom_rag.seeds.postgres.terms import Side
from ecom_rag.seeds.postgres.vectors import DenseVectors, TermWeights, stored_dense, stored_sparse
from ecom_rag.seeds.source import MOST_SAMPLED, drawn
from ecom_rag.text.analysis import Analyzer

_NAMELESS = f"AND id >= '{CONTENT}' AND id < '{CONTENT}g'"  # documents without an id: theirs is a digest


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search must know of a bank beside its rows.

    Args:
        bank: The bank's own name.
        routes: Which there are.
        sizes: Dimension of ``dense``, vocabulary of ``sparse``.
        sides: The routes over texts.
        analyzer: Of these.
    """

    bank: str
    routes: tuple[str, ...]
    sizes: Mapping[str, int]
    sides: Mapping[str, Side]
    analyzer: Analyzer


class View:
    """One state of a bank, for the length of a ``with bank.view() as view:``.

    Its rows are the numbers that documents have in the table; those of removed documents are gaps.

    Attributes:
        sequence: Number of the last change that this state holds.
        live: Documents that can be found.
        routes: Names of the routes.
        transaction: The connection that reads this state, and where the bank stands in it.
    """

    def __init__(
        self,
        db: Any,
        state: State,
        store: Store,
        plan: Plan,
        *,
        check_terms: Callable[[], None],
    ) -> None:
        self.sequence = state.sequence
        self.live = state.live
        self.routes = plan.routes
        self.name: str | None = plan.bank
        self.transaction = db, state
        self._db, self._state, self._store, self._plan = db, state, store, plan
        self._check_terms = check_terms

    def __repr__(self) -> str:
        routes = "+".join(self.routes)
        return f"View({self._store.address!s}, {self.live} seeds, sequence={self.sequence}, routes={routes})"

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
            route: One that the seeds were built with.
            queries: With the outputs that the route searches.
            k: Results per query.
            where: A filter over the seeds' metadata, as an expression or in its dict form; by default all seeds.
            own: For each query the rows that it is itself, and that are left out; by default none.
            weights: Of no route that a bank in PostgreSQL has.

        Raises:
            UsageError: The seeds do not have the route, or not a filter.
            BankError: The bank is empty or closed.
        """
        index = self._index(route, queries)
        form = getattr(queries.embeddings, route) if ROUTES[route].outputs else queries.texts
        return search_others(index, form, k, own=own, allowed=self._where(where))

    def rescore(self, route: str, queries: Queries, rows: NDArray[np.int64], k: int) -> Ranking:
        """Of no route that a bank in PostgreSQL has.

        Args:
            route: One that can score given rows.
            queries: With the route's output.
            rows: Candidates.
            k: Results per query.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self._store.address}: has no route {route!r}; it was built with {', '.join(self.routes)}")

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The records of rows, in their order; new ones at each call.

        Args:
            rows: Row numbers.

        Raises:
            IndexError: No such row.
            BankError: The bank is closed.
        """
        self._store.check_open()
        found = table.records(self._db, list(map(int, rows)))
        if len(found) < len(set(rows)):
            raise IndexError(f"{self._store.address}: has no row {next(row for row in rows if row not in found)}")
        return [found[row] for row in rows]

    def labels(self, key: str) -> list[str | None]:
        """The label of each row, ``None`` for none and for a row that is removed.

        Args:
            key: Metadata key; its values are read as ``identity.label_of`` reads them.

        Raises:
            UsageError: Not a key.
            RecordError: A value that cannot be a label.
            BankError: The bank is closed.
        """
        self._store.check_open()
        found: list[str | None] = [None] * self._state.next_row
        for row, name, metadata in table.metadata(self._db):
            found[row] = label_at(f"{self._store.address}: {name}", loads(metadata.encode()), key)
        return found

    def sample(self, count: int) -> tuple[NDArray[np.int64], Queries]:
        """Some of the seeds as queries, see ``SeedView``.

        Args:
            count: At most; no more than ``MOST_SAMPLED`` are given.

        Raises:
            UsageError: ``count`` is no whole number from 1.
            BankError: The bank is closed.
        """
        self._store.check_open()
        whole(count, "count")
        live = np.array([row for (row,) in self._db.execute("SELECT row FROM documents ORDER BY row")], np.int64)
        chosen = live[drawn(len(live), min(count, MOST_SAMPLED))]
        texts = [record["text"] for record in self.records(chosen.tolist())]
        return chosen, Queries(texts, self.stored(chosen))

    def stored(self, rows: NDArray[np.int64]) -> Embeddings:
        """Embeddings of documents.

        Args:
            rows: Their rows, ascending; all there.
        """
        if len(rows) == 0:
            return Embeddings()
        dense = stored_dense(self._db, rows, self._plan.sizes["dense"]) if "dense" in self.routes else None
        sparse = stored_sparse(self._db, rows, self._plan.sizes["sparse"]) if "sparse" in self.routes else None
        return Embeddings(dense, sparse)

    def own_rows(self, queries: Sequence[Record], id_key: str) -> list[NDArray[np.int64]]:
        """For each query the rows that it is itself, see ``identity.is_itself``.

        Args:
            queries: Records.
            id_key: The bank's.

        Raises:
            UsageError: Not a key.
        """
        names = [known_id(query.get("metadata"), id_key) for query in queries]
        pairs = [(name, query["text"]) for name, query in zip(names, queries, strict=True)]
        by_id = table.rows_where(self._db, "id", {name for name, _ in pairs if name is not None})
        by_text = table.rows_where(self._db, "text", {text for name, text in pairs if name is None})
        nameless = table.rows_where(self._db, "text", {text for name, text in pairs if name is not None}, _NAMELESS)
        found = [
            by_text.get(text, []) if name is None else by_id.get(name, []) + nameless.get(text, [])
            for name, text in pairs
        ]
        return [np.array(sorted(rows), np.int64) for rows in found]

    def _index(self, route: str, queries: Queries) -> Any:
        self._store.check_open()
        if route not in self.routes:
            raise UsageError(
                f"{self._store.address}: has no route {route!r}; it was built with {', '.join(self.routes)}"
            )
        if self.live == 0:
            raise BankError(f"{self._store.address}: holds no seeds; add some with ecom-rag bank add")
        db, state = self._db, self._state
        if route == "dense":
            return DenseVectors(db, state.next_row, self.live, self._plan.sizes["dense"], state.statistics.norm)
        if route == "sparse":
            return TermWeights(db, state.next_row, self.live, self._plan.sizes["sparse"], state.statistics.largest)
        self._check_terms()
        if route == "bm25":
            return postings.bm25(db, self._plan.sides[route], state, self._plan.analyzer, queries.texts)
        return postings.variant(db, self._plan.sides[route], state)

    def _where(self, filter: Any) -> Where:
        if filter is None:
            return Where(self._state.next_row)
        condition, parameters = table.condition_of(filter)
        return Where(self._state.next_row, condition, tuple(parameters))
