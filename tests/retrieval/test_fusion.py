"""Fusion equals a slow one over dicts; a worked example; what a missing candidate counts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.files.results import evidence_lists
from ecom_rag.retrieval.fusion import METHODS, fuse, gather
from ecom_rag.retrieval.ranking import Ranking


def topk(*lists, depth=None):
    """Lists of (row, score) a query as a Ranking."""
    found = Ranking.empty(len(lists), depth or max((len(one) for one in lists), default=0))
    for query, one in enumerate(lists):
        for rank, (row, score) in enumerate(one):
            found.rows[query, rank], found.scores[query, rank] = row, score
    return found


def slow(routes, query, k, method, weights, constant):
    """The definitions of the module's table, one candidate at a time."""
    total, by_route = {}, {}
    for name, found in routes.items():
        pairs = [(int(i), float(s)) for i, s in zip(found.rows[query], found.scores[query], strict=True) if i >= 0]
        by_route[name] = {row: (score, rank) for rank, (row, score) in enumerate(pairs, start=1)}
        if weights[name] == 0:
            continue
        values = [score for _, score in pairs]
        mean = sum(values) / max(len(values), 1)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values), 1))
        for rank, (row, score) in enumerate(pairs, start=1):
            if method == "rrf":
                normal = 1 / (constant + rank)
            elif max(values) == min(values):
                normal = 0.5 if method == "dbsf" else 1.0
            elif method == "minmax":
                normal = (score - min(values)) / (max(values) - min(values))
            elif method == "zscore":
                normal = (score - mean) / std - (min(values) - mean) / std
            else:
                normal = min(max((score - (mean - 3 * std)) / (6 * std), 0), 1)
            share = weights[name] if method == "rrf" else weights[name] / sum(weights.values())
            total[row] = total.get(row, 0.0) + share * normal
    best = sorted(total, key=lambda row: (-np.float32(total[row]), row))[:k]
    return [(row, total[row]) for row in best], by_route


def random_routes(rng, queries, rows, depth, *, ties):
    routes = {}
    for name in ("bm25", "dense", "variant"):
        scores = rng.integers(0, 4, (queries, rows)) if ties else rng.standard_normal((queries, rows))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        found = Ranking(order.astype(np.int64), np.take_along_axis(scores, order, axis=1).astype(np.float32))
        for query, count in enumerate(rng.integers(0, order.shape[1] + 1, queries)):
            found.rows[query, count:], found.scores[query, count:] = -1, -np.inf
        routes[name] = found
    return routes


def test_worked_example():
    """Two lists of three, by reciprocal rank and by weighted scores."""
    fused = fuse({"bm25": topk([(3, 9.0), (7, 6.0), (5, 3.0)]), "dense": topk([(4, 0.9), (7, 0.8), (3, 0.4)])}, k=4)
    expected = [(3, 1 / 61 + 1 / 63), (7, 2 / 62), (4, 1 / 61), (5, 1 / 63)]
    assert fused.rows.tolist() == [[row for row, _ in expected]]
    np.testing.assert_allclose(fused.scores[0], [score for _, score in expected], rtol=1e-6)
    assert fused.evidence["bm25"].ranks.tolist() == [[1, 2, 0, 3]]
    np.testing.assert_array_equal(fused.evidence["dense"].scores, np.float32([[0.4, 0.8, 0.9, np.nan]]))
    assert evidence_lists(fused)[0][2] == {"dense": {"score": 0.9, "rank": 1}}
    by_score = fuse(
        {"bm25": topk([(3, 9.0), (7, 6.0), (5, 3.0)]), "dense": topk([(4, 0.9), (7, 0.8), (3, 0.4)])},
        k=4,
        method="minmax",
        weights={"bm25": 3, "dense": 1},
    )
    assert by_score.rows.tolist() == [[3, 7, 4, 5]]
    np.testing.assert_allclose(by_score.scores[0], [0.75, 0.375 + 0.2, 0.25, 0], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 12), st.booleans(), st.sampled_from([1, 0.3, 0]))
def test_equals_the_slow_one(method, seed, rows, k, ties, weight):
    rng = np.random.default_rng(seed)
    routes = random_routes(rng, 3, rows, 8, ties=ties)
    weights = {"bm25": 1.0, "dense": weight, "variant": 0.5}
    fused = fuse(routes, k=k, method=method, weights=weights, rrf_constant=10)
    for query in range(3):
        expected, by_route = slow(routes, query, k, method, weights, 10)
        ids = [row for row in fused.rows[query].tolist() if row >= 0]
        assert len(ids) == len(expected)
        np.testing.assert_allclose(fused.scores[query, : len(ids)], [s for _, s in expected], rtol=1e-5, atol=1e-7)
        assert np.isneginf(fused.scores[query, len(ids) :]).all()
        scores = fused.scores[query, : len(ids)].tolist()
        pairs = list(zip(scores, ids, strict=True))
        assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
        if not ties:
            assert ids == [row for row, _ in expected]
        for name, evidence in fused.evidence.items():
            for place, row in enumerate(ids):
                score, rank = by_route[name].get(row, (math.nan, 0))
                assert evidence.ranks[query, place] == rank
                np.testing.assert_equal(float(evidence.scores[query, place]), score)
            assert (evidence.ranks[query, len(ids) :] == 0).all()
            assert np.isnan(evidence.scores[query, len(ids) :]).all()


@pytest.mark.parametrize("method", METHODS)
def test_one_route_keeps_its_order_and_the_order_of_routes_is_nothing(method):
    rng = np.random.default_rng(1)
    routes = random_routes(rng, 40, 60, 20, ties=False)
    alone = fuse({"dense": routes["dense"]}, k=20, method=method)
    np.testing.assert_array_equal(alone.rows, routes["dense"].rows)
    fused = fuse(routes, k=30, method=method)
    turned = fuse(dict(reversed(routes.items())), k=30, method=method)
    np.testing.assert_allclose(fused.scores, turned.scores, rtol=1e-6)
    heavier = fuse(routes, k=30, method=method, weights=dict.fromkeys(routes, 4.0))
    np.testing.assert_array_equal(fused.rows, heavier.rows)


@pytest.mark.parametrize("method", METHODS)
def test_a_lone_candidate_is_no_miss(method):
    """bm25 found one row only: it must stand above the rows that neither route liked."""
    routes = {"bm25": topk([(9, 7.5)]), "dense": topk([(1, 0.9), (2, 0.5), (3, 0.2)])}
    assert fuse(routes, k=4, method=method).rows[0].tolist().index(9) < 3


def test_ties_and_empty_routes():
    routes = {"bm25": topk([(8, 1.0), (2, 1.0)], []), "dense": topk([(2, 1.0), (8, 1.0)], [])}
    fused = fuse(routes, k=5)
    assert fused.rows.tolist() == [[2, 8], [-1, -1]]
    assert evidence_lists(fused)[1] == []
    nothing = fuse({"bm25": Ranking.empty(3, 0), "dense": Ranking.empty(3, 4)}, k=5, method="zscore")
    assert nothing.rows.shape == (3, 0)
    unasked = fuse({"bm25": Ranking.empty(0, 5)}, k=5)
    assert unasked.rows.shape[0] == 0 and evidence_lists(unasked) == []
    assert gather({"bm25": Ranking.empty(2, 0)}).rows.shape == (2, 0)


def test_a_route_of_weight_0_gives_evidence_only():
    routes = {"bm25": topk([(1, 5.0), (2, 4.0)]), "dense": topk([(3, 0.9), (2, 0.8)])}
    fused = fuse(routes, k=9, weights={"bm25": 1, "dense": 0})
    assert fused.rows.tolist() == [[1, 2, -1]]
    assert fused.evidence["dense"].ranks.tolist() == [[0, 2, 0]]


def test_mistakes():
    routes = {"bm25": topk([(1, 5.0)]), "dense": topk([(3, 0.9)])}
    for options, message in [
        ({"method": "sum"}, "fusion 'sum' is unknown; expected one of rrf, minmax"),
        ({"weights": {"bm25": 1}}, "given for bm25, the routes are bm25, dense"),
        ({"weights": {"bm25": 0, "dense": 0}}, "one of them above 0"),
        ({"weights": {"bm25": 1, "dense": -1}}, "dense -1; expected"),
        ({"weights": {"bm25": 1, "dense": math.nan}}, "at least 0"),
        ({"rrf_constant": -1}, "RRF constant is -1"),
    ]:
        with pytest.raises(UsageError, match=message):
            fuse(routes, k=3, **options)
    with pytest.raises(UsageError, match="k is 0"):
        fuse(routes, k=0)
    with pytest.raises(UsageError, match="no routes"):
        fuse({}, k=1)
    with pytest.raises(UsageError, match="bm25 1, dense 2"):
        fuse({"bm25": routes["bm25"], "dense": topk([(3, 0.9)], [])}, k=1)
