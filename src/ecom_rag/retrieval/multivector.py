"""Exact late interaction: the mean over query tokens of the best cosine with any token of the document (MaxSim).

Khattab and Zaharia 2020 (arXiv:2004.12832), averaged as in BGE-M3 (Chen et al. 2024, arXiv:2402.03216, eq. 4).
"""

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.embeddings import Ragged
from ecom_rag.retrieval.topk import TopK, select

_DOCUMENT_TOKENS = 8192  # document tokens a block
_QUERY_TOKENS = 1024  # query tokens a tile
_SCORES = 32_000_000  # float32 scores held at once: 128 MB


class MultiVectorIndex:
    """Seeds' token vectors, scored exactly.

    Args:
        vectors: Rows of length 1, a row a token, ragged by document.
    """

    def __init__(self, vectors: Ragged) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Ragged, k: int) -> TopK:
        """The k documents with the largest MaxSim.

        Args:
            queries: Query token vectors, ragged by query.
            k: At most the number of documents is returned.
        """
        k = min(k, len(self))
        found = TopK.empty(len(queries), k)
        for part in tiles(queries, len(self)):
            best = select(self.scores(queries.take(part)), k)
            found.ids[part], found.scores[part] = best.ids, best.scores
        return found

    def scores(self, queries: Ragged) -> NDArray[np.float32]:
        """Every document's score: ``(q, n)`` float32 in -1..1; a query or document of no tokens scores 0."""
        import torch

        if len(queries) and queries.values.shape[1] != self._vectors.values.shape[1]:
            raise EmbeddingError(f"queries have {queries.values.shape[1]} dimensions, the seeds"
                                 f" {self._vectors.values.shape[1]}; encode both with the same checkpoint")  # fmt: skip
        result = np.zeros((len(queries), len(self)), np.float32)
        query_tokens = torch.from_numpy(np.ascontiguousarray(queries.values))  # (T, d)
        offsets = self._vectors.offsets
        first = 0
        while first < len(self):
            last = int(np.searchsorted(offsets, offsets[first] + _DOCUMENT_TOKENS, side="right")) - 1
            last = max(first + 1, min(last, len(self)))
            block = torch.from_numpy(self._vectors.values[offsets[first] : offsets[last]])
            products = torch.mm(query_tokens, block.T).numpy()  # (T, block tokens)
            _max_sim(products, queries.offsets, offsets[first : last + 1] - offsets[first], first, result)
            first = last
        return result


def tiles(queries: Ragged, documents: int) -> list[NDArray[np.int64]]:
    """Consecutive query rows cut so that neither their tokens nor their scores take much memory."""
    most = max(1, _SCORES // max(documents, 1))
    parts, start = [], 0
    while start < len(queries):
        last = int(np.searchsorted(queries.offsets, queries.offsets[start] + _QUERY_TOKENS, side="right")) - 1
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
