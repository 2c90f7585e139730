"""Exact late interaction: the mean over query tokens of the best cosine with any token of the document (MaxSim).

Khattab and Zaharia 2020 (arXiv:2004.12832), averaged as in BGE-M3 (Chen et al. 2024, arXiv:2402.03216, eq. 4).
"""

from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.embeddings import Ragged
from ecom_rag.retrieval.growing import GrowingRows, LiveRows, combine, forked, rows_of, tensor
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.topk import select

DOCUMENT_TOKENS = 8192  # document tokens a block
QUERY_TOKENS = 1024  # query tokens a tile
_SPARE = 16  # more than k are scored pair by pair, as a rule enough to know that no other row is among the k best
_SCORES = 32_000_000  # float32 scores held at once: 128 MB


class MultiVectorIndex:
    """Seeds' token vectors, scored exactly.

    Args:
        vectors: Rows of length 1, a row a token, ragged by document.
    """

    def __init__(self, vectors: Ragged) -> None:
        self._base = vectors
        self._start_tail()
        self._live = LiveRows()

    def __len__(self) -> int:
        return len(self._base) + len(self._tail_ends)

    def extend(self, vectors: Ragged) -> None:
        """Append documents.

        Raises:
            EmbeddingError: Another dimension.
        """
        if len(vectors) == 0:
            return
        if len(self) and vectors.values.shape[1] != self._base.values.shape[1]:
            raise EmbeddingError(
                f"new rows have {vectors.values.shape[1]} dimensions, the seeds"
                f" {self._base.values.shape[1]}; encode both with the same checkpoint"
            )
        self._live.extend(len(vectors))
        if len(self._tail) + len(vectors.values) > len(self._base.values):  # as large as the base: become part of it
            self._base = _joined([*([self._base] if len(self._base) else []), self._tail_rows(), vectors])
            self._start_tail()
            return
        self._tail_ends.extend(len(self._tail) + vectors.offsets[1:] - vectors.offsets[0])
        self._tail.extend(vectors.values[vectors.offsets[0] : vectors.offsets[-1]])

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched."""
        return forked(self)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Documents that are never returned again; the numbers of the others stay."""
        self._live.remove(rows, len(self))

    def search(self, queries: Ragged, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The k documents with the largest MaxSim.

        Args:
            queries: Query token vectors, ragged by query.
            k: At most the number of documents is returned.
            allowed: ``(n,)``: documents that may be returned; by default all.
        """
        k = min(k, self._live.count(len(self)))
        found = Ranking.empty(len(queries), k)
        mask = combine(self._live.mask, allowed, len(self))
        if found.rows.size == 0:
            return found
        for part in tiles(queries, len(self)):
            asked = queries.take(part)
            scores = self.scores(asked)
            if mask is not None:
                scores[:, ~mask] = -np.inf
            near = select(scores, min(k + _SPARE, len(self)), floor=-1e30)
            best = self.rescore(asked, near.rows, k)
            slack = _slack(asked)
            left_out = (near.rows[:, -1] >= 0) & (near.rows.shape[1] < len(self)) & (asked.lengths > 0)
            unsure = left_out & (near.scores[:, -1] + slack >= best.scores[:, -1])
            for query in np.flatnonzero(unsure).tolist():
                rows = np.flatnonzero(scores[query] >= best.scores[query, -1] - slack[query])
                wider = self.rescore(asked.take(np.array([query])), rows[None], k)
                best.rows[query], best.scores[query] = wider.rows[0], wider.scores[0]
            found.rows[part], found.scores[part] = best.rows, best.scores
        return found

    def rescore(self, queries: Ragged, offered: NDArray[np.int64], k: int) -> Ranking:
        """The k best of other routes' candidates: all the work of late interaction on a few rows.

        Args:
            queries: Query token vectors, ragged by query.
            offered: ``(q, candidates)`` row numbers, in any order and more than once if need be, -1 for none.
            k: Results per query.
        """
        found = Ranking.empty(len(queries), min(k, offered.shape[1]))
        offered = np.sort(offered, axis=1)
        use = offered >= 0
        use[:, 1:] &= offered[:, 1:] != offered[:, :-1]
        if self._live.mask is not None:
            use &= self._live.mask[np.maximum(offered, 0)]
        rows, columns = np.nonzero(use)
        scores = np.full(offered.shape, -np.inf, np.float32)
        pairs = np.column_stack([rows, offered[rows, columns]])
        scores[rows, columns] = self.pair_scores(queries, pairs)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : found.rows.shape[1]]  # equal scores stay in row order
        found.scores[:] = np.take_along_axis(scores, order, axis=1)
        found.rows[:] = np.where(np.isfinite(found.scores), np.take_along_axis(offered, order, axis=1), -1)
        return found

    def scores(self, queries: Ragged) -> NDArray[np.float32]:
        """Every document's score: ``(q, n)`` float32 in -1..1; a query or document of no tokens scores 0."""
        if len(queries) and len(self) and queries.values.shape[1] != self._base.values.shape[1]:
            raise EmbeddingError(
                f"queries have {queries.values.shape[1]} dimensions, the seeds"
                f" {self._base.values.shape[1]}; encode both with the same checkpoint"
            )
        result = np.zeros((len(queries), len(self)), np.float32)
        _score_all(queries, self._base, result[:, : len(self._base)])
        _score_all(queries, self._tail_rows(), result[:, len(self._base) :])
        return result

    def pair_scores(self, queries: Ragged, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """MaxSim of given pairs ``(p, 2)`` of queries and documents: ``(p,)``, each as ``search`` gives it."""
        return max_sim_pairs(queries, self._whole(), pairs)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        whole = self._whole()
        return {"values": whole.values, "offsets": whole.offsets, **self._live.arrays()}

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the documents from ``first`` to ``stop`` alone; vectors are views."""
        offsets = arrays["offsets"][first : stop + 1]
        own = {"values": arrays["values"][offsets[0] : offsets[-1]], "offsets": offsets - offsets[0]}
        return {**own, **rows_of(arrays, first, stop, "live")}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The index that gave ``arrays``; they are used as they are, memory-mapped ones too."""
        index = cls(Ragged(arrays["values"], arrays["offsets"]))
        index._live = LiveRows.of(arrays)
        return index

    def _start_tail(self) -> None:
        self._tail = GrowingRows(self._base.values.shape[1:], np.float32)
        self._tail_ends = GrowingRows((), np.int64)

    def _tail_rows(self) -> Ragged:
        return Ragged(self._tail.rows, np.concatenate([np.zeros(1, np.int64), self._tail_ends.rows]))

    def _whole(self) -> Ragged:
        return _joined([self._base, self._tail_rows()]) if len(self._tail_ends) else self._base


def _joined(parts: list[Ragged]) -> Ragged:
    lengths = np.concatenate([part.lengths for part in parts])
    values = np.concatenate([part.values[part.offsets[0] : part.offsets[-1]] for part in parts if len(part.values)])
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))


def _slack(queries: Ragged) -> NDArray[np.float32]:
    """How far ``scores`` and ``pair_scores`` of a query can be apart, both rounded: ``(q,)``, for vectors of length 1.

    Twice the bound of a float32 sum of so many products, and of the sum over the query's tokens.
    """
    return np.asarray(1.02 * 2.0**-23 * (queries.values.shape[1] + queries.lengths + 2), np.float32)


def _score_all(queries: Ragged, documents: Ragged, result: NDArray[np.float32]) -> None:
    """MaxSim of every pair, a block of documents at a time."""
    query_tokens = tensor(np.ascontiguousarray(queries.values, np.float32))  # (T, d)
    offsets = documents.offsets
    first = 0
    while first < len(documents):
        last = int(np.searchsorted(offsets, offsets[first] + DOCUMENT_TOKENS, side="right")) - 1
        last = max(first + 1, min(last, len(documents)))
        block = tensor(documents.values[offsets[first] : offsets[last]])
        products = (query_tokens @ block.T).numpy()  # (T, block tokens)
        _max_sim(products, queries.offsets, offsets[first : last + 1] - offsets[first], first, result)
        first = last


def tiles(queries: Ragged, documents: int) -> list[NDArray[np.int64]]:
    """Consecutive query rows cut so that neither their tokens nor their scores take much memory."""
    most = max(1, _SCORES // max(documents, 1))
    parts, start = [], 0
    while start < len(queries):
        last = int(np.searchsorted(queries.offsets, queries.offsets[start] + QUERY_TOKENS, side="right")) - 1
        stop = min(max(start + 1, last), start + most, len(queries))
        parts.append(np.arange(start, stop))
        start = stop
    return parts


def max_sim_pairs(queries: Ragged, documents: Ragged, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """MaxSim of given pairs ``(p, 2)`` of query and document rows: ``(p,)`` float32."""
    return _pairs(queries.values, queries.offsets, documents.values, documents.offsets, pairs)


@numba.njit(cache=True, parallel=True)
def _max_sim(products, query_starts, document_starts, first, result):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for q in numba.prange(query_starts.shape[0] - 1):
        tokens = query_starts[q + 1] - query_starts[q]
        if tokens == 0:
            continue
        for document in range(document_starts.shape[0] - 1):
            begin, end = document_starts[document], document_starts[document + 1]
            if begin == end:
                continue
            total = np.float32(0)
            for token in range(query_starts[q], query_starts[q + 1]):
                best = products[token, begin]
                for column in range(begin + 1, end):
                    best = max(best, products[token, column])
                total += best
            result[q, first + document] = total / np.float32(tokens)


@numba.njit(cache=True, parallel=True, fastmath=True)
def _pairs(queries, query_starts, documents, document_starts, pairs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    result = np.zeros(pairs.shape[0], np.float32)
    for p in numba.prange(pairs.shape[0]):
        q, d = pairs[p, 0], pairs[p, 1]
        tokens = query_starts[q + 1] - query_starts[q]
        if tokens == 0 or document_starts[d] == document_starts[d + 1]:
            continue
        total = np.float32(0)
        for i in range(query_starts[q], query_starts[q + 1]):
            best = np.float32(-2)
            for j in range(document_starts[d], document_starts[d + 1]):
                product = np.float32(0)
                for x in range(queries.shape[1]):
                    product += queries[i, x] * documents[j, x]
                best = max(best, product)
            total += best
        result[p] = total / np.float32(tokens)
    return result
