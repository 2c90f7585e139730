"""Fusion: what several routes found, as one ranking, with each route's own score and rank beside every candidate.

A candidate that a route did not find scores 0 in it, and every method is shifted so that 0 is what that means:

========  ==================================  ==================================================================
method    a candidate's score in one route    a candidate the route did not find counts as
========  ==================================  ==================================================================
rrf       ``1 / (constant + rank)``           of infinite rank
minmax    ``(s - min) / (max - min)``         as good as the last one the route did find
zscore    ``(s - min) / std``                 the same (the z-score, shifted to 0 at the route's minimum)
dbsf      ``(s - mean + 3 std) / (6 std)``    three standard deviations below the mean; cut to 0..1
========  ==================================  ==================================================================

Minimum, maximum, mean and standard deviation are over the route's candidates of that one query. Where these are all
equal (a lone candidate, say) each counts 1 under minmax and zscore and 0.5 under dbsf, so that a route's only find is
not taken for a miss. ``rrf`` sums up (Cormack, Clarke and Buettcher, SIGIR 2009); the others take the weighted mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.retrieval.ranking import Evidence, Ranking
from ecom_rag.retrieval.weights import MOST, check_weights
from ecom_rag.values import shown

METHODS = ("rrf", "minmax", "zscore", "dbsf")
RRF_CONSTANT = 60.0


@dataclass(frozen=True, slots=True)
class Candidates:
    """The union of what the routes found, each candidate once.

    Args:
        rows: ``(queries, candidates)`` int64 rows in ascending order, -1 behind the last.
        evidence: By route.
    """

    rows: NDArray[np.int64]
    evidence: Mapping[str, Evidence]


def fuse(
    routes: Mapping[str, Ranking],
    *,
    k: int,
    method: str = "rrf",
    weights: Mapping[str, float] | None = None,
    rrf_constant: float = RRF_CONSTANT,
) -> Ranking:
    """The k best of what all routes found.

    Args:
        routes: What each route found for the same queries, to any depth.
        k: Results a query; fewer where the routes found fewer.
        method: ``rrf``, ``minmax``, ``zscore`` or ``dbsf``; see the module.
        weights: One for each route, as ``check_weights`` wants them; by default all 1. A route of weight 0 adds no
            candidate but still gives evidence.
        rrf_constant: Of ``rrf``; the larger, the less the first ranks stand out.

    Returns:
        Scores descending, equal ones by row. ``rrf`` scores lie in 0..sum of weights / (constant + 1), ``minmax`` and
        ``dbsf`` in 0..1, ``zscore`` from 0.

    Raises:
        UsageError: No route, routes over different queries, an unknown method, or weights that make no sense.
    """
    return fuse_candidates(gather(routes), k=k, method=method, weights=weights, rrf_constant=rrf_constant)


def fuse_candidates(
    candidates: Candidates,
    *,
    k: int,
    method: str = "rrf",
    weights: Mapping[str, float] | None = None,
    rrf_constant: float = RRF_CONSTANT,
) -> Ranking:
    """As ``fuse``, over candidates that are gathered already."""
    weight = weights_of(weights, candidates.evidence)
    if k < 1:
        raise UsageError(f"k is {k}; expected at least 1")
    total = np.zeros(candidates.rows.shape, np.float64)
    offered = np.zeros(candidates.rows.shape, np.bool_)
    for name, evidence in candidates.evidence.items():
        if weight[name] > 0:
            total += weight[name] * route_scores(evidence, method=method, rrf_constant=rrf_constant)
            offered |= evidence.ranks > 0
    if method != "rrf":
        total /= sum(weight.values())
    if not np.isfinite(total).all():
        raise EmbeddingError(
            "a route gave NaN or infinity as a score; its checkpoint is damaged, or needs more precision"
        )
    # In float32 before sorting: what is equal in the result is a tie, and goes to the earlier row.
    scores = np.where(offered, total, -np.inf).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    found = np.isfinite(best)
    rows = np.where(found, np.take_along_axis(candidates.rows, order, axis=1), -1)
    return Ranking(rows, best, {name: own.at(order, found) for name, own in candidates.evidence.items()})


def gather(routes: Mapping[str, Ranking]) -> Candidates:
    """The union of what the routes found.

    Args:
        routes: What each route found for the same queries; a row at most once a query, as every search gives it.

    Raises:
        UsageError: No route, or routes over different numbers of queries.
    """
    if not routes:
        raise UsageError("there are no routes to fuse; give at least one")
    queries = {name: len(found.rows) for name, found in routes.items()}
    if len(set(queries.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in queries.items())
        raise UsageError(f"the routes answer different numbers of queries ({counts}); search all with the same ones")
    rows = np.concatenate([found.rows for found in routes.values()], axis=1)  # (q, sum of depths)
    order = np.argsort(rows, axis=1, kind="stable")
    ranked = np.take_along_axis(rows, order, axis=1)
    first = ranked >= 0
    first[:, 1:] &= ranked[:, 1:] != ranked[:, :-1]
    slot_sorted = np.cumsum(first, axis=1) - 1  # which column of the union; -1 where there is no result
    slots = np.empty_like(slot_sorted)
    np.put_along_axis(slots, order, slot_sorted, axis=1)
    width = int(slot_sorted[:, -1].max(initial=-1)) + 1 if rows.shape[1] else 0
    ids = np.full((len(rows), width), -1, np.int64)
    query, column = np.nonzero(first)
    ids[query, slot_sorted[query, column]] = ranked[query, column]
    gathered, start = {}, 0
    for name, found in routes.items():
        gathered[name] = _evidence(found, slots[:, start : start + found.rows.shape[1]], width)
        start += found.rows.shape[1]
    return Candidates(ids, gathered)


def route_scores(evidence: Evidence, *, method: str, rrf_constant: float = RRF_CONSTANT) -> NDArray[np.float64]:
    """What one route gives each candidate: ``(queries, candidates)``, at least 0, and 0 where it did not find it.

    Raises:
        UsageError: Unknown method, or a constant below 0.
    """
    found = evidence.ranks > 0
    if method == "rrf":
        check_constant(rrf_constant)
        return np.where(found, 1.0 / np.maximum(rrf_constant + evidence.ranks, 1), 0.0)
    if method not in METHODS:
        raise UsageError(f"fusion {method!r} is unknown; expected one of {', '.join(METHODS)}")
    scores = np.where(found, evidence.scores, 0.0).astype(np.float64)
    count = np.maximum(found.sum(axis=1, keepdims=True), 1)
    low = np.min(scores, axis=1, keepdims=True, where=found, initial=np.inf)
    high = np.max(scores, axis=1, keepdims=True, where=found, initial=-np.inf)
    flat = ~(high > low)  # also where the route found nothing
    low = np.where(np.isfinite(low), low, 0.0)
    if method == "minmax":
        normal = (scores - low) / np.where(flat, 1.0, high - low)
        return np.where(found, np.where(flat, 1.0, normal), 0.0)
    mean = scores.sum(axis=1, keepdims=True) / count
    variance = np.where(found, (scores - mean) ** 2, 0.0).sum(axis=1, keepdims=True) / count
    std = np.where(flat, 1.0, np.sqrt(variance))
    if method == "zscore":
        return np.where(found, np.where(flat, 1.0, (scores - low) / std), 0.0)
    return np.where(found, np.where(flat, 0.5, np.clip((scores - mean + 3 * std) / (6 * std), 0.0, 1.0)), 0.0)


def check_constant(value: Any) -> None:
    """Raise ``UsageError`` unless ``value`` may be the constant of ``rrf``: beyond the bound, scores would be 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise UsageError(f"the RRF constant is {shown(value)}; expected 0 to {MOST:g}, {RRF_CONSTANT:g} as a rule")


def weights_of(weights: Mapping[str, float] | None, routes: Mapping[str, Any] | Sequence[str]) -> dict[str, float]:
    """One weight a route; 1 each where none are given.

    Raises:
        UsageError: A route without a weight, a weight without a route, or weights that ``check_weights`` refuses.
    """
    names = list(routes)
    if weights is None:
        return dict.fromkeys(names, 1.0)
    if set(weights) != set(names):
        raise UsageError(
            f"fusion weights are given for {', '.join(weights) or 'no route'}, the routes are"
            f" {', '.join(names)}; give one for each route, 0 to leave its candidates out"
        )
    return check_weights({name: weights[name] for name in names}, of="fusion weights")


def _evidence(found: Ranking, slots: NDArray[np.int64], width: int) -> Evidence:
    scores = np.full((len(slots), width), np.nan, np.float32)
    ranks = np.zeros((len(slots), width), np.int64)
    query, rank = np.nonzero(slots >= 0)
    slot = slots[query, rank]
    scores[query, slot] = found.scores[query, rank]
    ranks[query, slot] = rank + 1
    return Evidence(scores, ranks)
