"""bge-m3's hybrid: the weighted mean of dense, sparse and multi-vector scores, exact over all rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import listed
from ecom_rag.errors import UsageError
from ecom_rag.models.embeddings import OUTPUTS, Embeddings
from ecom_rag.retrieval.dense import check_finite
from ecom_rag.retrieval.multivector import MultiVectorIndex, max_sim_pairs, tiles
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.topk import TopK, select
from ecom_rag.retrieval.weights import check_weights


class HybridIndex:
    """All three outputs of the seeds.

    Args:
        seeds: Embeddings that hold dense, sparse and multivector.
        weights: Of dense, sparse and multivector, in this order; see ``check_weights``.
    """

    def __init__(self, seeds: Embeddings, weights: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        weight = np.array(list(weights_of(weights).values()), np.float64)
        assert seeds.dense is not None and seeds.multivector is not None
        check_finite(seeds.dense, "seed embeddings")
        self._weights = weight / weight.sum()
        self._dense = seeds.dense
        self._sparse = SparseIndex(seeds.sparse)
        self._multivector = MultiVectorIndex(seeds.multivector)

    def __len__(self) -> int:
        return len(self._dense)

    def search(
        self, queries: Embeddings, k: int, *, own: Sequence[NDArray[np.int64]] | None = None
    ) -> tuple[TopK, dict[str, TopK]]:
        """The k rows with the largest weighted mean.

        Args:
            queries: Embeddings that hold dense, sparse and multivector.
            k: At most the number of rows is returned.
            own: For each query the rows that are the query itself: neither returned nor counted; by default none.

        Returns:
            The hybrid result, and for each output a ``TopK`` whose ``ids`` are the *ranks* (from 1) and whose
            ``scores`` are the scores that the hybrid's rows have in that output alone.
        """
        assert queries.multivector is not None
        k = min(k, len(self))
        found = TopK.empty(len(queries), k)
        evidence = {name: TopK.empty(len(queries), k) for name in OUTPUTS}
        for part in tiles(queries.multivector, 3 * len(self)):
            by_output = self._scores(queries.take(part))
            mixed = sum(w * by_output[name] for w, name in zip(self._weights, OUTPUTS, strict=True))
            mixed = np.asarray(mixed, np.float32)
            for row, query in enumerate(part.tolist() if own else ()):
                for scores in (mixed, *by_output.values()):
                    scores[row, own[query]] = -np.inf  # type: ignore[index]
            best = select(mixed, k)
            found.ids[part], found.scores[part] = best.ids, best.scores
            for name, scores in by_output.items():
                theirs = np.take_along_axis(scores, best.ids, axis=1)  # (tile, k)
                for position in range(k):
                    chosen, rows = theirs[:, position, None], best.ids[:, position, None]
                    earlier = (scores > chosen) | ((scores == chosen) & (np.arange(len(self)) < rows))
                    evidence[name].ids[part, position] = earlier.sum(axis=1) + 1
                evidence[name].scores[part] = theirs
        return found, evidence

    def _scores(self, queries: Embeddings) -> Mapping[str, NDArray[np.float32]]:
        assert queries.dense is not None and queries.multivector is not None
        check_finite(queries.dense, "query embeddings")
        return {
            "dense": queries.dense @ self._dense.T,
            "sparse": self._sparse.scores(queries.sparse),
            "multivector": self._multivector.scores(queries.multivector),
        }


def pair_scores(
    queries: Embeddings, documents: Embeddings, pairs: NDArray[np.int64], weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> dict[str, NDArray[np.float32]]:
    """Scores of given pairs, as FlagEmbedding's ``compute_score`` gives them, from texts encoded once.

    Args:
        queries: Embeddings with any of the three outputs.
        documents: Embeddings with the same outputs.
        pairs: ``(p, 2)`` rows of ``queries`` and ``documents``.
        weights: Of dense, sparse and multivector, for ``hybrid``.

    Returns:
        ``dense``, ``sparse``, ``multivector`` where both sides have them, and ``hybrid``, their mean: ``(p,)`` each.
    """
    given = weights_of(weights)
    left, right = pairs[:, 0], pairs[:, 1]
    scores: dict[str, NDArray[np.float32]] = {}
    if queries.dense is not None and documents.dense is not None:
        scores["dense"] = np.einsum("pd,pd->p", queries.dense[left], documents.dense[right])
    if queries.sparse is not None and documents.sparse is not None:
        product = queries.sparse[left].multiply(documents.sparse[right])
        scores["sparse"] = np.asarray(product.sum(axis=1), np.float32).ravel()
    if queries.multivector is not None and documents.multivector is not None:
        scores["multivector"] = max_sim_pairs(queries.multivector, documents.multivector, pairs)
    weight = {name: value for name, value in given.items() if name in scores}
    total = sum(weight.values())
    if total > 0:
        mixed = sum(weight[name] * scores[name].astype(np.float64) for name in weight)
        scores["hybrid"] = np.asarray(mixed / total, np.float32)
    return scores


def weights_of(weights: Sequence[float]) -> dict[str, float]:
    """The weight of each output.

    Raises:
        UsageError: Not three, or weights that ``check_weights`` refuses.
    """
    given = listed(weights, "weights", "three numbers")
    if len(given) != len(OUTPUTS):
        expected = f"expected three numbers, of {', '.join(OUTPUTS)}, e.g. 1,0.3,1"
        raise UsageError(f"hybrid weights {','.join(map(str, given))} are {len(given)}; {expected}")
    return check_weights(dict(zip(OUTPUTS, given, strict=True)), of="hybrid weights")
