"""bge-m3's hybrid: the weighted mean of dense, sparse and multi-vector scores, exact over all rows.

A combination of three indexes, not an index of its own: whatever has these three can be searched by it, a persistent
bank while it changes too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import listed
from ecom_rag.errors import UsageError
from ecom_rag.models.embeddings import OUTPUTS, Embeddings
from ecom_rag.retrieval.growing import combine
from ecom_rag.retrieval.multivector import max_sim_pairs, tiles
from ecom_rag.retrieval.ranking import Evidence, Ranking
from ecom_rag.retrieval.topk import select
from ecom_rag.retrieval.weights import check_weights

EQUAL = (1.0, 1.0, 1.0)
_SPARE = 16  # more than k are scored pair by pair: a pair's score must not depend on what else is searched


def search(
    indexes: Mapping[str, Any],
    queries: Embeddings,
    k: int,
    *,
    weights: Sequence[float] = EQUAL,
    allowed: NDArray[np.bool_] | None = None,
    own: Sequence[NDArray[np.int64]] | None = None,
) -> Ranking:
    """The k rows with the largest weighted mean of the three scores.

    Args:
        indexes: ``dense``, ``sparse`` and ``multivector``, over the same rows.
        queries: Embeddings that hold all three.
        k: At most the number of rows is returned.
        weights: Of dense, sparse and multivector, in this order; see ``weights_of``.
        allowed: ``(n,)``: rows that may be returned; by default all.
        own: For each query the rows that are the query itself: neither returned nor counted; by default none.

    Returns:
        The ranking, with each output's own scores, and its ranks over all rows that may be returned, as evidence.

    Raises:
        UsageError: Weights that make no sense.
    """
    weight = np.array(list(weights_of(weights).values()), np.float64)
    assert queries.multivector is not None
    size = len(indexes["dense"])
    mask = combine(indexes["dense"].live, allowed, size)
    k = min(k, size if mask is None else int(mask.sum()))
    parts = [
        _search_tile(
            indexes, queries.take(part), k, weight / weight.sum(), mask, [own[query] for query in part] if own else ()
        )
        for part in tiles(queries.multivector, 3 * size)
    ]
    return Ranking.concatenate(parts) if parts else Ranking.empty(0, k)


def _search_tile(
    indexes: Mapping[str, Any],
    queries: Embeddings,
    k: int,
    share: NDArray[np.float64],
    mask: NDArray[np.bool_] | None,
    own: Sequence[NDArray[np.int64]],
) -> Ranking:
    by_output = {name: indexes[name].scores(getattr(queries, name)) for name in OUTPUTS}  # (q, n) each
    rough = _mixed(by_output, share)
    for scores in (rough, *by_output.values()):
        if mask is not None:
            scores[:, ~mask] = -np.inf
        for number, itself in enumerate(own):
            scores[number, itself] = -np.inf
    near = select(rough, min(k + _SPARE, len(indexes["dense"])), floor=-1e30)
    found, places = near.rows >= 0, np.maximum(near.rows, 0)
    near_scores = {
        name: np.where(found, np.take_along_axis(scores, places, axis=1), np.float32(np.nan))
        for name, scores in by_output.items()
    }
    query, place = np.nonzero(found)
    pairs = np.column_stack([query, near.rows[query, place]])
    near_scores["dense"][query, place] = indexes["dense"].pair_scores(queries.dense, pairs)
    near_scores["multivector"][query, place] = indexes["multivector"].pair_scores(queries.multivector, pairs)
    mixed = np.where(found, _mixed(near_scores, share), -np.inf)
    order = np.lexsort((near.rows, -mixed), axis=1)[:, :k]
    rows, scores = np.take_along_axis(near.rows, order, axis=1), np.take_along_axis(mixed, order, axis=1)
    evidence = {
        name: Evidence(np.take_along_axis(own, order, axis=1), np.where(rows >= 0, _ranks(by_output[name], rows), 0))
        for name, own in near_scores.items()
    }
    return Ranking(rows, scores, evidence)


def _mixed(by_output: Mapping[str, NDArray[np.float32]], share: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(sum(w * by_output[name] for w, name in zip(share, OUTPUTS, strict=True)), np.float32)


def _ranks(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank, from 1, of some rows among all rows of ``scores (queries, n)``: ``(queries, k)``."""
    own = np.take_along_axis(scores, rows, axis=1)
    ranks = np.empty_like(rows)
    for place in range(rows.shape[1]):
        chosen, row = own[:, place, None], rows[:, place, None]
        earlier = (scores > chosen) | ((scores == chosen) & (np.arange(scores.shape[1]) < row))
        ranks[:, place] = earlier.sum(axis=1) + 1
    return ranks


def pair_scores(
    queries: Embeddings, documents: Embeddings, pairs: NDArray[np.int64], weights: Sequence[float] = EQUAL
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
