"""The routes: one table of what each searches and what it needs, and the search of one route over given indexes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.models.embeddings import OUTPUTS, Embeddings
from ecom_rag.retrieval import hybrid
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.itself import Rows, search_others
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.variant import VariantIndex


@dataclass(frozen=True, slots=True)
class Route:
    """One way to find candidates.

    Args:
        name: As users write it.
        index: Class of its index; ``None`` for a route that combines the indexes of others.
        outputs: The encoder outputs that it searches; none where it searches texts.
        weight: Its weight in fusion, where none is given.
    """

    name: str
    index: Any
    outputs: tuple[str, ...] = ()
    weight: float = 1.0


ROUTES: Mapping[str, Route] = {
    route.name: route
    for route in (
        Route("bm25", BM25Index),
        Route("dense", DenseIndex, ("dense",), weight=0.5),  # on shop queries words tell more; see benchmarks.md
        Route("sparse", SparseIndex, ("sparse",)),
        Route("multivector", MultiVectorIndex, ("multivector",)),
        Route("variant", VariantIndex, weight=0.3),  # adds what the others miss, without moving what they agree on
        Route("hybrid", None, OUTPUTS),
    )
}
INDEXED = tuple(name for name, route in ROUTES.items() if route.index is not None)
TEXT_ROUTES = tuple(name for name in INDEXED if not ROUTES[name].outputs)
ENCODED_ROUTES = tuple(name for name in INDEXED if ROUTES[name].outputs)


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries in the forms that routes search by.

    Args:
        texts: The texts.
        embeddings: Of the same texts, with the outputs that the routes need.
    """

    texts: Sequence[str]
    embeddings: Embeddings

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[np.int64]) -> "Queries":
        """Some of them, by number."""
        embeddings = self.embeddings if self.embeddings == Embeddings() else self.embeddings.take(rows)
        return Queries([self.texts[row] for row in rows.tolist()], embeddings)


def default_weights(routes: Iterable[str]) -> dict[str, float]:
    """The weight of each route in fusion, where none is given; 1 for one that is not in the table."""
    return {name: ROUTES[name].weight if name in ROUTES else 1.0 for name in routes}


def check_routes(routes: Sequence[str], known: Sequence[str] = tuple(ROUTES)) -> None:
    """Whether there can be a search by these routes.

    Args:
        routes: Names.
        known: Those that may be named; a bank keeps only ``INDEXED`` ones.

    Raises:
        UsageError: No route, an unknown one, or one twice.
    """
    if not routes:
        raise UsageError(f"there are no routes; give at least one of {', '.join(known)}")
    for route in routes:
        if route not in known:
            raise UsageError(f"route {route!r} is unknown; expected some of {', '.join(known)}")
    if len(set(routes)) < len(routes):
        raise UsageError(f"routes {','.join(routes)} name one twice; give each once")


def outputs_of(routes: Iterable[str]) -> tuple[str, ...]:
    """The encoder outputs that routes search, in the encoder's order."""
    wanted = {output for route in routes for output in ROUTES[route].outputs}
    return tuple(output for output in OUTPUTS if output in wanted)


def indexes_of(routes: Iterable[str]) -> tuple[str, ...]:
    """The routes whose indexes these routes need: themselves, and the parts of a combined one."""
    wanted: set[str] = set()
    for route in routes:
        wanted |= set(ROUTES[route].outputs) if ROUTES[route].index is None else {route}
    return tuple(name for name in INDEXED if name in wanted)


def search(
    indexes: Mapping[str, Any],
    route: str,
    queries: Queries,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    own: Rows | None = None,
    weights: Sequence[float] | None = None,
) -> Ranking:
    """What one route finds.

    Args:
        indexes: By name; at least those that ``indexes_of`` gives for the route.
        route: Of ``ROUTES``.
        queries: With the route's outputs.
        k: At most the number of rows is returned.
        allowed: ``(rows,)``: rows that may be returned; by default all.
        own: For each query the rows that it is itself, and that are left out; by default none.
        weights: Of dense, sparse and multivector, for ``hybrid``; by default all 1.
    """
    if ROUTES[route].index is None:
        return hybrid.search(indexes, queries.embeddings, k, weights=weights or hybrid.EQUAL, allowed=allowed, own=own)
    return search_others(indexes[route], _form(route, queries), k, own=own, allowed=allowed)


def rescore(index: Any, route: str, queries: Queries, rows: NDArray[np.int64], k: int) -> Ranking:
    """The k best of given rows by a route whose index can score given rows; see ``MultiVectorIndex.rescore``."""
    found: Ranking = index.rescore(_form(route, queries), rows, k)
    return found


def _form(route: str, queries: Queries) -> Any:
    """The queries as a route's index takes them."""
    return getattr(queries.embeddings, route) if ROUTES[route].outputs else queries.texts
