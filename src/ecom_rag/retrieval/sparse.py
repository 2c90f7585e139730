"""Exact search over sparse term weights: scores are summed up along each query term's postings."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.retrieval.growing import LiveRows, combine, forked, rows_of
from ecom_rag.retrieval.postings import Level, Postings, Weights, level_of_postings
from ecom_rag.retrieval.ranking import Ranking


class SparseIndex:
    """Seeds' term weights as postings.

    Args:
        weights: ``(n, vocabulary)`` CSR float32, weights above 0.

    Raises:
        EmbeddingError: A weight that is NaN, infinite or below 0.
    """

    def __init__(self, weights: csr_matrix) -> None:
        self._vocabulary = int(weights.shape[1])
        self._postings = Postings.empty()
        self._live = LiveRows()
        self.extend(weights)

    def __len__(self) -> int:
        return self._postings.rows

    def extend(self, weights: csr_matrix) -> None:
        """Append rows ``(m, vocabulary)`` CSR float32.

        Raises:
            EmbeddingError: Another vocabulary, NaN, infinity or a weight below 0.
        """
        self._check(weights, "new rows")
        if weights.nnz and weights.data.min() < 0:
            raise EmbeddingError(
                f"new rows hold a weight of {weights.data.min()}; expected none below 0 (bge-m3's go through relu)"
            )
        if weights.shape[0] == 0:
            return
        self._live.extend(weights.shape[0])
        level = _level(weights, len(self))
        self._postings = self._postings.extended(level, weights.shape[0], self._live.mask)

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched."""
        return forked(self)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Rows that are never returned again; the numbers of the others stay."""
        self._live.remove(rows, len(self))

    def search(self, queries: csr_matrix, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The k rows with the largest inner product; a row that shares no term with the query is no result.

        Args:
            queries: ``(q, vocabulary)`` CSR float32.
            k: At most the number of rows is returned.
            allowed: ``(n,)``: rows that may be returned; by default all.

        Raises:
            EmbeddingError: The vocabularies differ, NaN or infinity.
        """
        self._check(queries, "queries")
        postings = self._postings
        live = LiveRows(None if self._live.mask is None else self._live.mask[: postings.rows])
        mask = combine(live.mask, allowed, postings.rows)
        return postings.search(_weights(queries), min(k, live.count(postings.rows)), mask=mask)

    def scores(self, queries: csr_matrix) -> NDArray[np.float32]:
        """Every row's score: ``(q, n)`` float32."""
        self._check(queries, "queries")
        return self._postings.scores(_weights(queries))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        return {**self._postings.arrays(), "vocabulary": np.array([self._vocabulary]), **self._live.arrays()}

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone."""
        own = {"vocabulary": arrays["vocabulary"], **rows_of(arrays, first, stop, "live")}
        return {**Postings.part(arrays, first, stop), **own}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The index that gave ``arrays``; they are used as they are, memory-mapped ones too."""
        index = cls(csr_matrix((0, int(arrays["vocabulary"][0])), dtype=np.float32))
        index._postings = Postings.from_arrays(arrays)
        index._live = LiveRows.of(arrays)
        return index

    def _check(self, matrix: csr_matrix, what: str) -> None:
        if matrix.shape[1] != self._vocabulary:
            raise EmbeddingError(
                f"{what} have a vocabulary of {matrix.shape[1]}, the seeds of {self._vocabulary};"
                " encode both with the same checkpoint"
            )
        if not np.isfinite(matrix.data).all():
            position = int(np.flatnonzero(~np.isfinite(matrix.data))[0])
            row = int(np.searchsorted(matrix.indptr, position, side="right")) - 1
            raise EmbeddingError(f"{what}: row {row} holds NaN or infinity; encode it again")


def _level(weights: csr_matrix, first_row: int) -> Level:
    if not weights.has_canonical_format:
        weights = weights.copy()
        weights.sum_duplicates()
    rows = np.repeat(np.arange(first_row, first_row + weights.shape[0], dtype=np.int32), np.diff(weights.indptr))
    order = np.argsort(weights.indices, kind="stable")  # rows stay ascending within a term
    return level_of_postings(weights.indices[order].astype(np.int64), rows[order], weights.data[order])


def _weights(queries: csr_matrix) -> Weights:
    return queries.indptr.astype(np.int64), queries.indices.astype(np.int64), queries.data.astype(np.float32)
