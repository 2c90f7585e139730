"""A bank in a server as of one change, and what a search asks of it."""

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
from ecom_rag.seeds.remote import postings
from ecom_rag.seeds.remote.bounds import Where
from ecom_rag.seeds.remote.engine import Engine
from ecom_rag.seeds.remote.engine import Rows as Held
from ecom_rag.seeds.remote.terms import Side
from ecom_rag.seeds.remote.vectors import DenseVectors, TermWeights
from ecom_rag.seeds.source import MOST_SAMPLED, drawn
from ecom_rag.text.analysis import Analyzer


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
        held: What the server says in this state.
    """

    def __init__(self, held: Held, engine: Engine, plan: Plan, *, check_terms: Callable[[], None]) -> None:
        self.sequence = held.state.sequence
        self.live = held.state.live
        self.routes = plan.routes
        self.name: str | None = plan.bank
        self.held, self._engine, self._plan = held, engine, plan
        self._check_terms = check_terms

    def __repr__(self) -> str:
        routes = "+".join(self.routes)
        return f"View({self._engine.address!s}, {self.live} seeds, sequence={self.sequence}, routes={routes})"

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
            weights: Of no route that a bank in a server has.

        Raises:
            UsageError: The seeds do not have the route, or not a filter.
            BankError: The bank is empty or closed.
        """
        index = self._index(route, queries)
        form = getattr(queries.embeddings, route) if ROUTES[route].outputs else queries.texts
        return search_others(index, form, k, own=own, allowed=self._where(where))

    def rescore(self, route: str, queries: Queries, rows: NDArray[np.int64], k: int) -> Ranking:
        """Of no route that a bank in a server has.

        Args:
            route: One that can score given rows.
            queries: With the route's output.
            rows: Candidates.
            k: Results per query.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self._engine.address}: has no route {route!r}; it was built with {', '.join(self.routes)}")

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The records of rows, in their order; new ones at each call.

        Args:
            rows: Row numbers.

        Raises:
            IndexError: No such row.
            BankError: The bank is closed.
        """
        self._engine.check_open()
        found = self.held.records(list(map(int, rows)))
        if len(found) < len(set(rows)):
            raise IndexError(f"{self._engine.address}: has no row {next(row for row in rows if row not in found)}")
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
        self._engine.check_open()
        found: list[str | None] = [None] * self.held.state.next_row
        for row, name, metadata in self.held.metadata():
            found[row] = label_at(f"{self._engine.address}: {name}", loads(metadata.encode()), key)
        return found

    def sample(self, count: int) -> tuple[NDArray[np.int64], Queries]:
        """Some of the seeds as queries, see ``SeedView``.

        Args:
            count: At most; no more than ``MOST_SAMPLED`` are given.

        Raises:
            UsageError: ``count`` is no whole number from 1.
            BankError: The bank is closed.
        """
        self._engine.check_open()
        whole(count, "count")
        live = self.held.live_rows()
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
        dense = self.held.dense(rows, self._plan.sizes["dense"]) if "dense" in self.routes else None
        sparse = self.held.sparse(rows, self._plan.sizes["sparse"]) if "sparse" in self.routes else None
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
        named = {text for name, text in pairs if name is not None}
        by_id = self.held.rows_where("id", {name for name, _ in pairs if name is not None})
        by_text = self.held.rows_where("text", {text for name, text in pairs if name is None})
        nameless = self.held.rows_where("text", named, nameless=True)
        found = [
            by_text.get(text, []) if name is None else by_id.get(name, []) + nameless.get(text, [])
            for name, text in pairs
        ]
        return [np.array(sorted(rows), np.int64) for rows in found]

    def _index(self, route: str, queries: Queries) -> Any:
        self._engine.check_open()
        if route not in self.routes:
            raise UsageError(
                f"{self._engine.address}: has no route {route!r}; it was built with {', '.join(self.routes)}"
            )
        if self.live == 0:
            raise BankError(f"{self._engine.address}: holds no seeds; add some with ecom-rag bank add")
        if route == "dense":
            return DenseVectors(self.held, self._plan.sizes["dense"])
        if route == "sparse":
            return TermWeights(self.held, self._plan.sizes["sparse"])
        self._check_terms()
        if route == "bm25":
            return postings.bm25(self.held, self._plan.sides[route], self._plan.analyzer, queries.texts)
        return postings.variant(self.held, self._plan.sides[route])

    def _where(self, filter: Any) -> Where:
        return Where(self.held.state.next_row) if filter is None else self.held.where(filter)
