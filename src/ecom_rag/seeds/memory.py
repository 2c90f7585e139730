"""Seeds held in memory, searched by the same routes and through the same view as a persistent bank."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import names_of, whole
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files import records as record_files
from ecom_rag.files.identity import label_at
from ecom_rag.files.keys import lookup
from ecom_rag.files.records import Record
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import kind, matches
from ecom_rag.filters.unmet import filter_notes
from ecom_rag.models import Embeddings, Encoder
from ecom_rag.retrieval import Index, Ranking
from ecom_rag.retrieval import routes as table
from ecom_rag.retrieval.itself import OwnRows, Rows
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.source import MOST_SAMPLED, SeedView, check_built, check_routes, drawn, fitting
from ecom_rag.text.analysis import Analyzer


class Seeds:
    """Seed records with the indexes of their routes.

    Args:
        records: The seeds, at least one; any iterable of records, ``metadata`` may be left out. They are kept as they
            are, not copied.
        routes: Of ``retrieval.routes.ROUTES``.
        encoder: For ``dense``, ``sparse`` and ``multivector``.
        embeddings: The seeds' embeddings where they are known already.
        analyzer: How texts become the terms of ``bm25``.

    Raises:
        UsageError: No seeds, or a route that is unknown or needs an encoder.
        RecordError: Something that is no record, or holds what JSON cannot hold; says which and why.
        EmbeddingError: Embeddings that are not of these records.
        ModelError: The checkpoint lacks the weights of a route.

    Attributes:
        routes: As given.
    """

    id_key: str | None = None  # ids are looked for where a search says
    label_key: str = "label"
    sequence = 0
    name: str | None = None

    def __init__(
        self,
        records: Iterable[Record],
        *,
        routes: Sequence[str] = ("bm25", "dense"),
        encoder: Encoder | None = None,
        embeddings: Embeddings | None = None,
        analyzer: Analyzer | None = None,
    ) -> None:
        records = list(record_files.cleaned(records, "seed"))
        if not records:
            raise UsageError("there are no seeds to search; give at least one")
        routes = names_of(routes, "routes")
        outputs = check_routes(routes, encoder)
        self.routes = routes
        self._records = records
        texts = [record["text"] for record in records]
        if outputs and embeddings is None:
            assert encoder is not None
            embeddings = encoder.encode(texts, outputs=outputs)
        elif outputs and embeddings is not None:
            embeddings = fitting(embeddings, outputs, len(records))
        self._encoder = encoder
        chosen = drawn(len(records), MOST_SAMPLED)
        self._sample = chosen, None if embeddings is None else embeddings.take(chosen)
        self._indexes = {route: _index(route, texts, embeddings, analyzer) for route in table.indexes_of(routes)}
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._own_rows: dict[str, OwnRows] = {}

    def __repr__(self) -> str:
        return f"Seeds({len(self)} seeds, routes={'+'.join(self.routes)})"

    def __len__(self) -> int:
        return len(self._records)

    @contextlib.contextmanager
    def view(self) -> Iterator[SeedView]:
        """The seeds; they never change."""
        yield self

    def index(self, route: str) -> Index:
        """The index of a route.

        Args:
            route: Of ``routes``.

        Raises:
            UsageError: The seeds were not built with it.
        """
        check_built((route,), tuple(self._indexes))
        return self._indexes[route]

    def query_encoder(self, encoder: Encoder | None) -> Encoder | None:
        """The encoder for queries: the one given, else the one that the seeds were built with.

        Args:
            encoder: Of the same model.

        Raises:
            BankError: It is of another model.
        """
        own = self._encoder
        if encoder is None or own is None:
            return encoder or own
        if encoder is not own and encoder.fingerprint != own.fingerprint:
            raise BankError(
                f"the seeds were encoded with {own!r}, and the queries with {encoder!r}; use one model for both"
            )
        return encoder

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
        """
        check_built((route,), tuple(self._indexes))
        return table.search(self._indexes, route, queries, k, allowed=self.rows(where), own=own, weights=weights)

    def rescore(self, route: str, queries: Queries, rows: NDArray[np.int64], k: int) -> Ranking:
        """The k best of given rows by one route.

        Args:
            route: One that can score given rows: ``multivector``.
            queries: With the route's output.
            rows: ``(queries, n)`` candidates of each query in any order, -1 for none; one may stand there twice.
            k: Results per query.

        Raises:
            UsageError: The seeds do not have the route.
        """
        return table.rescore(self.index(route), route, queries, rows, k)

    def rows(self, filter: Any) -> NDArray[np.bool_] | None:
        """The rows whose metadata a filter matches.

        Args:
            filter: An expression, its dict form, or ``None`` for all rows.

        Returns:
            ``(len(self),)`` mask, not to be written to; ``None`` for no filter.

        Raises:
            UsageError: Not a filter.
        """
        if filter is None:
            return None
        tree = parse(filter)
        name = repr(tree)  # trees of 1 and of True are equal
        if name not in self._masks:
            found = (matches(tree, record["metadata"]) for record in self._records)
            self._masks[name] = np.fromiter(found, np.bool_, len(self))
        return self._masks[name]

    def filter_notes(self, filter: Any) -> list[str]:
        """A line each for: no seed meets the filter; no seed has one of its keys.

        Args:
            filter: An expression or its dict form; ``None`` for none.

        Raises:
            UsageError: Not a filter.
        """
        mask = self.rows(filter)
        metadata = [record["metadata"] for record in self._records]
        return (
            []
            if mask is None
            else filter_notes(
                filter,
                matched=int(mask.sum()),
                seeds=len(self),
                sample=lambda: metadata,
                kinds_at=lambda path: {
                    kind(value) for there, value in (lookup(one, path) for one in metadata) if there
                },
            )
        )

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The records of rows.

        Args:
            rows: Row numbers from 0.

        Returns:
            The records themselves, not copies: not to be changed.
        """
        return [self._records[row] for row in rows]

    def labels(self, key: str) -> list[str | None]:
        """The label of each row.

        Args:
            key: Metadata key; its values are read as ``identity.label_of`` reads them.

        Raises:
            UsageError: Not a key.
            RecordError: A value that cannot be a label.
        """
        return [label_at(f"seed {row + 1}", record["metadata"], key) for row, record in enumerate(self._records)]

    def sample(self, count: int) -> tuple[NDArray[np.int64], Queries]:
        """Some of the seeds as queries, see ``SeedView``.

        Args:
            count: At most; no more than ``MOST_SAMPLED`` are given.

        Raises:
            UsageError: ``count`` is no whole number from 1.
        """
        whole(count, "count")
        chosen, embeddings = self._sample
        kept = np.flatnonzero(np.isin(chosen, chosen[drawn(len(chosen), count)]))
        texts = [self._records[row]["text"] for row in chosen[kept].tolist()]
        return chosen[kept], Queries(texts, Embeddings() if embeddings is None else embeddings.take(kept))

    def own_rows(self, queries: Sequence[Record], id_key: str) -> list[NDArray[np.int64]]:
        """For each query the rows of the seeds that it is itself.

        Args:
            queries: Records.
            id_key: Key of the metadata that holds an id.

        Raises:
            UsageError: Not a key.
        """
        if id_key not in self._own_rows:
            self._own_rows[id_key] = OwnRows(self._records, id_key)
        return self._own_rows[id_key].of(queries)


def _index(route: str, texts: list[str], embeddings: Embeddings | None, analyzer: Analyzer | None) -> Index:
    options = {"analyzer": analyzer} if route == "bm25" else {}
    items = texts if route in table.TEXT_ROUTES else getattr(embeddings, route)
    index: Index = table.ROUTES[route].index(items, **options)
    return index
