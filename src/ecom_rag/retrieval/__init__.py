"""Exact search: embeddings of queries in, a ``Ranking`` of row numbers and scores out.

Each index holds the seeds' side of one route and answers ``search(queries, k)``. Ties are broken the same way
everywhere: higher score first, then the earlier row. All indexes share one shape, ``Index``, so that a file and a
persistent bank are searched by the same code.
"""

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.hybrid import pair_scores
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.sparse import SparseIndex

__all__ = ["DenseIndex", "Index", "MultiVectorIndex", "Ranking", "SparseIndex", "pair_scores"]


class Index(Protocol):
    """One route's side of the seeds. Rows are numbered in the order they came and keep their number for ever."""

    def __len__(self) -> int:
        """Rows, removed ones included."""

    def extend(self, items: Any, /) -> None:
        """Append rows, in the route's own form (vectors, term weights, texts)."""

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched."""

    def remove(self, rows: NDArray[np.int64], /) -> None:
        """Rows that are never returned again, and count in no statistic."""

    def search(self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The k best rows of each query, of those that ``allowed`` (a mask over rows) allows."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, as arrays that can be saved and memory-mapped."""

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int, /) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone."""
