"""The routes over embeddings: candidates from a server, and an index of our own over these."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.retrieval.dense import DenseIndex, check_finite
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.seeds.remote.bounds import Where, asked_dense, asked_terms, parts, together
from ecom_rag.seeds.remote.engine import Rows


@dataclass(frozen=True, slots=True)
class DenseVectors:
    """Dense vectors in a server, searched as ``DenseIndex`` searches.

    Args:
        rows: One state of the bank.
        dimension: Of a vector.
    """

    rows: Rows
    dimension: int

    def __len__(self) -> int:
        return self.rows.state.next_row

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: Where | None = None) -> Ranking:
        """See ``DenseIndex.search``; ``allowed`` is a condition for the server."""
        queries = np.ascontiguousarray(queries, np.float32)
        found = Ranking.empty(len(queries), min(k, self.rows.state.live))
        if found.rows.size == 0:
            return found
        if queries.shape[1] != self.dimension:
            raise EmbeddingError(
                f"queries have {queries.shape[1]} dimensions, the seeds {self.dimension};"
                " encode both with the same checkpoint"
            )
        check_finite(queries, "query embeddings")
        asked = [asked_dense(query, self.rows.state.statistics.norm) for query in queries]
        offered = self.rows.candidates("dense", asked, k, allowed)
        for part in parts(len(queries)):
            rows = together(offered[part])
            index = DenseIndex(self.rows.dense(rows, self.dimension))
            _put(found, part, index.search(queries[part], k), rows)
        return found


@dataclass(frozen=True, slots=True)
class TermWeights:
    """Learned term weights in a server, searched as ``SparseIndex`` searches.

    Args:
        rows: One state of the bank.
        vocabulary: Number of terms.
    """

    rows: Rows
    vocabulary: int

    def __len__(self) -> int:
        return self.rows.state.next_row

    def search(self, queries: csr_matrix, k: int, *, allowed: Where | None = None) -> Ranking:
        """See ``SparseIndex.search``; ``allowed`` is a condition for the server.

        Args:
            queries: ``(q, vocabulary)`` CSR float32, no weight below 0.
            k: At most the number of rows is returned.
            allowed: Rows that may be returned; by default all.

        Raises:
            EmbeddingError: The vocabularies differ, NaN, infinity or a weight below 0.
        """
        found = Ranking.empty(queries.shape[0], min(k, self.rows.state.live))
        SparseIndex(csr_matrix((0, self.vocabulary), dtype=np.float32)).search(queries, k)  # looks at the queries
        if queries.nnz and queries.data.min() < 0:
            raise EmbeddingError(
                f"queries hold a weight of {queries.data.min()}; a bank in a server expects none below 0 (bge-m3's go"
                " through relu)"
            )
        if found.rows.size == 0:
            return found
        largest = self.rows.state.statistics.largest
        starts = pairwise(queries.indptr.tolist())
        ones = [(queries.indices[start:stop].astype(np.int64), queries.data[start:stop]) for start, stop in starts]
        asked = [asked_terms(*one, largest=largest, ratio=1.0) for one in ones]
        offered = self.rows.candidates("sparse", asked, k, allowed)
        for part in parts(queries.shape[0]):
            rows = together(offered[part])
            index = SparseIndex(self.rows.sparse(rows, self.vocabulary))
            _put(found, part, index.search(queries[part], k), rows)
        return found


def _put(found: Ranking, part: slice, ranking: Ranking, rows: NDArray[np.int64]) -> None:
    """Write a ranking of candidates, under the rows' own numbers."""
    width = ranking.rows.shape[1]
    if width and len(rows):
        found.rows[part, :width] = np.where(ranking.rows >= 0, rows[ranking.rows], -1)
        found.scores[part, :width] = ranking.scores
