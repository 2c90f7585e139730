"""Exact search over sparse term weights: scores are summed up along each query term's postings."""

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.retrieval.topk import TopK, select_row


class SparseIndex:
    """Seeds' term weights as postings (CSC).

    Args:
        weights: ``(n, vocabulary)`` CSR float32, weights above 0.
    """

    def __init__(self, weights: csr_matrix) -> None:
        postings = weights.tocsc()
        postings.sort_indices()
        self.shape = weights.shape
        self._starts = postings.indptr.astype(np.int64)
        self._rows = postings.indices.astype(np.int32)
        self._weights = postings.data.astype(np.float32)

    def __len__(self) -> int:
        return int(self.shape[0])

    def search(self, queries: csr_matrix, k: int) -> TopK:
        """The k rows with the largest inner product; a row that shares no term with the query is no result.

        Args:
            queries: ``(q, vocabulary)`` CSR float32.
            k: At most the number of rows is returned.

        Raises:
            EmbeddingError: The vocabularies differ.
        """
        self._check(queries)
        found = TopK.empty(queries.shape[0], min(k, len(self)))
        if found.ids.size:
            workers = min(numba.get_num_threads(), queries.shape[0])
            parts = np.linspace(0, queries.shape[0], workers + 1).astype(np.int64)
            _search(parts, *_arrays(queries), *self._postings, len(self), found.ids.shape[1], found.ids, found.scores)
        return found

    def scores(self, queries: csr_matrix) -> NDArray[np.float32]:
        """Every row's score: ``(q, n)`` float32."""
        self._check(queries)
        result = np.zeros((queries.shape[0], len(self)), np.float32)
        _accumulate_all(*_arrays(queries), *self._postings, result)
        return result

    @property
    def _postings(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        return self._starts, self._rows, self._weights

    def _check(self, queries: csr_matrix) -> None:
        if queries.shape[1] != self.shape[1]:
            raise EmbeddingError(f"queries have a vocabulary of {queries.shape[1]}, the seeds of {self.shape[1]};"
                                 " encode both with the same checkpoint")  # fmt: skip


def _arrays(matrix: csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32)


@numba.njit(cache=True)
def _accumulate(begin, end, terms, values, starts, rows, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(begin, end):
        value = values[i]
        for j in range(starts[terms[i]], starts[terms[i] + 1]):
            sums[rows[j]] += value * weights[j]


@numba.njit(cache=True, parallel=True)
def _search(parts, q_starts, terms, values, starts, rows, weights, n, k, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for worker in numba.prange(parts.shape[0] - 1):
        sums = np.zeros(n, np.float32)
        for q in range(parts[worker], parts[worker + 1]):
            _accumulate(q_starts[q], q_starts[q + 1], terms, values, starts, rows, weights, sums)
            select_row(sums, k, np.float32(0), ids_out[q], scores_out[q])
            sums[:] = 0


@numba.njit(cache=True, parallel=True)
def _accumulate_all(q_starts, terms, values, starts, rows, weights, result):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for q in numba.prange(result.shape[0]):
        _accumulate(q_starts[q], q_starts[q + 1], terms, values, starts, rows, weights, result[q])
