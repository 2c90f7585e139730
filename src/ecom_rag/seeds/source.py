"""What a search asks of seeds, wherever they live: memory, a bank on disk, another machine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ecom_rag import arguments
from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.files.records import Record
from ecom_rag.models import Embeddings, Encoder
from ecom_rag.retrieval import Ranking, routes
from ecom_rag.retrieval.itself import Rows
from ecom_rag.retrieval.routes import Queries
from ecom_rag.values import type_name

MOST_SAMPLED = 1000  # seeds as queries


class SeedView(Protocol):
    """One state of the seeds. Rows are numbers of seeds within it; scores are higher for what is closer.

    Attributes:
        sequence: Number of the last change that this state holds.
        name: Together with the sequence tells these seeds from all others; ``None`` where nothing does.
    """

    sequence: int
    name: str | None

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
            route: Of ``retrieval.routes.ROUTES``.
            queries: With the outputs that the route searches.
            k: Results per query.
            where: A filter over the seeds' metadata, as an expression or in its dict form; by default all seeds.
            own: For each query the rows that it is itself, and that are left out; by default none.
            weights: Of dense, sparse and multivector, for ``hybrid``; by default all 1.

        Raises:
            UsageError: The seeds do not have the route, or not a filter.
        """

    def rescore(self, route: str, queries: Queries, rows: NDArray[np.int64], k: int) -> Ranking:
        """The k best of given rows by one route.

        Args:
            route: One that can score given rows: ``multivector``.
            queries: With the route's output.
            rows: ``(queries, n)`` candidates of each query in any order, -1 for none; one may stand there twice.
            k: Results per query.
        """

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The records of rows, not to be changed."""

    def labels(self, key: str) -> list[str | None]:
        """The label of each row, ``None`` for none and for a row that is removed.

        Args:
            key: Metadata key, as ``identity.label_of`` reads it.

        Raises:
            UsageError: Not a key.
            RecordError: A value that cannot be a label.
        """

    def sample(self, count: int) -> tuple[NDArray[np.int64], Queries]:
        """Some of the seeds as queries; of the same seeds the same ones.

        Args:
            count: At most; without replacement.

        Returns:
            Their rows, ascending, and their texts with the embeddings that are searched.
        """

    def own_rows(self, queries: Sequence[Record], id_key: str) -> Rows:
        """For each query the rows of the seeds that it is itself, see ``identity.is_itself``."""


@runtime_checkable
class SeedSource(Protocol):
    """Seeds that can be searched.

    Attributes:
        routes: What a search uses where no routes are named.
        id_key: Metadata key of the seeds' ids; ``None`` where the search says it.
        label_key: Metadata key of the seeds' labels, where the search does not say it.
    """

    routes: tuple[str, ...]
    id_key: Any
    label_key: Any

    def __len__(self) -> int:
        """Seeds."""

    def view(self) -> AbstractContextManager[SeedView]:
        """The seeds as they are now, for the length of a ``with`` block."""

    def query_encoder(self, encoder: Encoder | None) -> Encoder | None:
        """The encoder for queries.

        Args:
            encoder: The one to use; by default that of the seeds.

        Raises:
            EcomRagError: It is of another model than the seeds' embeddings.
        """

    def filter_notes(self, filter: Any) -> list[str]:
        """A line each for: no seed meets the filter; no seed has one of its keys."""


def drawn(count: int, most: int) -> NDArray[np.int64]:
    """Up to ``most`` of the numbers below ``count``, ascending: the same for the same two."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most]).astype(np.int64)


def check_routes(
    names: Sequence[str], encoder: Encoder | None, known: Sequence[str] = tuple(routes.ROUTES)
) -> tuple[str, ...]:
    """The encoder outputs that routes need.

    Args:
        names: The routes.
        encoder: The encoder, if there is one.
        known: The routes that may be named.

    Raises:
        UsageError: No route, an unknown one, one twice, or one that needs an encoder where there is none.
        ModelError: The checkpoint lacks the weights of a route.
    """
    routes.check_routes(names, known)
    outputs = routes.outputs_of(names)
    if outputs and encoder is None:
        encoded = ", ".join(name for name in names if routes.ROUTES[name].outputs)
        raise UsageError(
            f"routes {encoded} search embeddings; give `encoder`, or only the routes {' and '.join(routes.TEXT_ROUTES)}"
        )
    arguments.model(encoder, "encoder", "check_outputs", "Encoder", optional=True)
    if encoder is not None and outputs:
        encoder.check_outputs(outputs)
    return outputs


def check_built(names: Sequence[str], built: Sequence[str]) -> None:
    """Raise ``UsageError`` where seeds were not built with the indexes that routes search."""
    for name in names:
        missing = [] if name in built else [index for index in routes.indexes_of([name]) if index not in built]
        if missing:
            whose = f"route {name!r}" if missing == [name] else f"route {name!r} searches {', '.join(missing)}, which"
            raise UsageError(
                f"{whose} is not among those of the seeds ({', '.join(built)}); build them with it, or leave it out"
            )


def fitting(embeddings: Embeddings, outputs: Sequence[str], count: int) -> Embeddings:
    """Embeddings from outside, checked.

    Raises:
        EmbeddingError: An output is missing, there are more or fewer than records, or one is not finite.
    """
    if not isinstance(embeddings, Embeddings):
        raise UsageError(f"`embeddings` is of type {type_name(embeddings)}; expected what Encoder.encode gives")
    for name in outputs:
        own = getattr(embeddings, name)
        if own is None:
            raise EmbeddingError(f"the embeddings have no {name}; the routes need {', '.join(outputs)}")
        rows = own.shape[0] if name != "multivector" else len(own)
        if rows != count:
            raise EmbeddingError(f"there are {rows} {name} embeddings for {count} records; expected one each")
        values = {"dense": lambda x: x, "sparse": lambda x: x.data, "multivector": lambda x: x.values}[name](own)
        if not np.isfinite(values).all():
            raise EmbeddingError(f"the {name} embeddings hold NaN or infinity; encode them again")
    dense = embeddings.dense if embeddings.dense is None else np.asarray(embeddings.dense, np.float32)
    return Embeddings(dense, embeddings.sparse, embeddings.multivector)
