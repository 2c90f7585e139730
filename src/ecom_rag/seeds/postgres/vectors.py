"""The routes over embeddings: candidates from the server, and an index of our own over these."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.retrieval.dense import DenseIndex, check_finite
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.seeds.postgres import wire
from ecom_rag.seeds.postgres.candidates import Where, asked_dense, asked_terms, candidates, together

_TOGETHER = 64  # queries whose candidates are fetched at once


@dataclass(frozen=True, slots=True)
class DenseVectors:
    """Dense vectors in the server, searched as ``DenseIndex`` searches.

    Args:
        db: In a read transaction.
        rows: Of the bank, those that are gone included.
        live: Documents.
        dimension: Of a vector.
        norm: The largest length of a vector.
    """

    db: Any
    rows: int
    live: int
    dimension: int
    norm: float

    def __len__(self) -> int:
        return self.rows

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: Where | None = None) -> Ranking:
        """See ``DenseIndex.search``; ``allowed`` is a condition for the server."""
        queries = np.ascontiguousarray(queries, np.float32)
        found = Ranking.empty(len(queries), min(k, self.live))
        if found.rows.size == 0:
            return found
        if queries.shape[1] != self.dimension:
            raise EmbeddingError(
                f"queries have {queries.shape[1]} dimensions, the seeds {self.dimension};"
                " encode both with the same checkpoint"
            )
        check_finite(queries, "query embeddings")
        asked = [asked_dense(query, self.norm) for query in queries]
        offered = candidates(self.db, "dense", asked, k, allowed)
        for part in parts(len(queries)):
            rows = together(offered[part])
            index = DenseIndex(stored_dense(self.db, rows, self.dimension))
            _put(found, part, index.search(queries[part], k), rows)
        return found


@dataclass(frozen=True, slots=True)
class TermWeights:
    """Learned term weights in the server, searched as ``SparseIndex`` searches.

    Args:
        db: In a read transaction.
        rows: Of the bank, those that are gone included.
        live: Documents.
        vocabulary: Number of terms.
        largest: The largest weight.
    """

    db: Any
    rows: int
    live: int
    vocabulary: int
    largest: float

    def __len__(self) -> int:
        return self.rows

    def search(self, queries: csr_matrix, k: int, *, allowed: Where | None = None) -> Ranking:
        """See ``SparseIndex.search``; ``allowed`` is a condition for the server.

        Args:
            queries: ``(q, vocabulary)`` CSR float32, no weight below 0.
            k: At most the number of rows is returned.
            allowed: Rows that may be returned; by default all.

        Raises:
            EmbeddingError: The vocabularies differ, NaN, infinity or a weight below 0.
        """
        found = Ranking.empty(queries.shape[0], min(k, self.live))
        SparseIndex(csr_matrix((0, self.vocabulary), dtype=np.float32)).search(queries, k)  # looks at the queries
        if queries.nnz and queries.data.min() < 0:
            raise EmbeddingError(
                f"queries hold a weight of {queries.data.min()}; a bank in PostgreSQL expects none below 0 (bge-m3's go"
                " through relu)"
            )
        if found.rows.size == 0:
            return found
        starts = pairwise(queries.indptr.tolist())
        ones = [(queries.indices[start:stop].astype(np.int64), queries.data[start:stop]) for start, stop in starts]
        asked = [asked_terms(*one, largest=self.largest, ratio=1.0) for one in ones]
        offered = candidates(self.db, "sparse", asked, k, allowed)
        for part in parts(queries.shape[0]):
            rows = together(offered[part])
            index = SparseIndex(stored_sparse(self.db, rows, self.vocabulary))
            _put(found, part, index.search(queries[part], k), rows)
        return found


def stored_dense(db: Any, rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """Vectors of rows that are there, ascending."""
    return wire.of_vectors(_values(db, "dense", rows), dimension)


def stored_sparse(db: Any, rows: NDArray[np.int64], vocabulary: int) -> csr_matrix:
    """Term weights of rows that are there, ascending."""
    return wire.of_sparse_vectors(_values(db, "sparse", rows), vocabulary)


def _values(db: Any, table: str, rows: NDArray[np.int64]) -> list[bytes]:
    query = f"SELECT value FROM {table} WHERE row = ANY(%s) ORDER BY row"
    with db.cursor(binary=True) as cursor:
        return [value for (value,) in cursor.execute(query, (rows.tolist(),))]


def parts(count: int) -> Iterator[slice]:
    """Slices of queries whose candidates are fetched at once."""
    return (slice(start, min(start + _TOGETHER, count)) for start in range(0, count, _TOGETHER))


def _put(found: Ranking, part: slice, ranking: Ranking, rows: NDArray[np.int64]) -> None:
    """Write a ranking of candidates, under the rows' own numbers."""
    width = ranking.rows.shape[1]
    if width and len(rows):
        found.rows[part, :width] = np.where(ranking.rows >= 0, rows[ranking.rows], -1)
        found.scores[part, :width] = ranking.scores
