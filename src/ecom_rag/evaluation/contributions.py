"""What each route contributes, read off ``topk_evidence``: the ranking by it alone, and the fusion without it.

The candidates are fused anew from the ranks in the evidence, by unweighted reciprocal rank. So this says what a route
does *to the order of the candidates that the results hold*: what fell out of the fused list is not seen, which makes a
route alone look a little better or worse than its own full search, and "all" may differ from the run where that was
fused otherwise or reranked. For the full truth run the routes one by one, or keep a large ``top_k``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.files.records import Record
from ecom_rag.retrieval.fusion import Candidates, fuse_candidates
from ecom_rag.retrieval.ranking import Evidence

ALL = "all routes"
_RERANKED = ("retrieval", "reranker")  # what rerank keeps of the order before, and its own with ``blend``: no routes
_LARGEST = 3e38  # score
_LAST = 2**53  # rank


def evidence_of(results: Sequence[Record]) -> Candidates | None:
    """The candidates of results with each route's scores and ranks; ``rows`` are places in the result.

    Returns:
        ``None`` where the results hold no evidence of at least two routes.

    Raises:
        UsageError: Evidence of another form.
    """
    _check(results)
    names = {name: None for result in results for item in result.get("topk_evidence") or () for name in item}
    routes = [name for name in names if name.partition("_")[0] not in _RERANKED]
    if len(routes) < 2:
        return None
    depth = max(len(result["topk_sim"]) for result in results)
    lengths = np.array([len(result["topk_sim"]) for result in results])
    ids = np.where(np.arange(depth) < lengths[:, None], np.arange(depth), -1).astype(np.int64)
    found = {name: Evidence(np.full(ids.shape, np.nan, np.float32), np.zeros(ids.shape, np.int64)) for name in routes}
    for row, result in enumerate(results):
        for place, item in enumerate(result.get("topk_evidence") or ()):
            for name in routes:
                if name in item:
                    found[name].scores[row, place] = item[name]["score"]
                    found[name].ranks[row, place] = item[name]["rank"]
    return Candidates(ids, found)


def _check(results: Sequence[Record]) -> None:
    for number, result in enumerate(results, start=1):
        for place, item in enumerate(result.get("topk_evidence") or (), start=1):
            whole = isinstance(item, dict) and all(isinstance(own, dict) for own in item.values())
            if not whole or not all(_says(own) for own in item.values()):
                raise UsageError(
                    f"result {number}, candidate {place}: topk_evidence is {item!s:.80}; expected"
                    ' {ROUTE: {"score": NUMBER, "rank": NUMBER}}, as recall writes it'
                )


def _says(own: Mapping[str, Any]) -> bool:
    """Whether a route's entry holds a score that float32 can hold and a rank from 1."""
    score, rank = own.get("score"), own.get("rank")
    if not isinstance(score, int | float) or not isinstance(rank, int | float) or isinstance(score, bool):
        return False
    return abs(score) <= _LARGEST and 1 <= rank <= _LAST and rank == int(rank)


def ablations(candidates: Candidates) -> dict[str, NDArray[np.int64]]:
    """Rankings by all routes, by each alone, and by all but each.

    Returns:
        ``all routes``, ``only NAME`` and ``without NAME`` -> ``(queries, candidates)`` of ``candidates.rows``, best
        first, -1 behind the last.
    """
    names = list(candidates.evidence)
    weights: dict[str, Mapping[str, float]] = {ALL: dict.fromkeys(names, 1.0)}
    for name in names:
        weights[f"only {name}"] = {other: float(other == name) for other in names}
    for name in names if len(names) > 2 else ():  # of two, one left out is the other alone
        weights[f"without {name}"] = {other: float(other != name) for other in names}
    depth = max(candidates.rows.shape[1], 1)
    return {what: fuse_candidates(candidates, k=depth, weights=weight).rows for what, weight in weights.items()}
