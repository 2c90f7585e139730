"""Features of candidate classes: a listing worked by hand, and the same from arrays and from files."""

import numpy as np
import pytest

from ecom_rag.decision.combiner import Combiner, _Loss, fit_combiner, verdicts, votes
from ecom_rag.decision.evidence import (
    MOST_CANDIDATES,
    Neighbours,
    evidence_of,
    feature_names,
    neighbours_of_ranking,
    neighbours_of_results,
    seed_labels,
)
from ecom_rag.errors import RecordError
from ecom_rag.pipeline import Pipeline, Recall, Seeds

ROUTES = ("bm25", "variant")


def by_name(found, routes, top_k, listing=0):
    names = feature_names(routes, top_k)
    return [dict(zip(names, row, strict=True)) for row in found.features[listing].tolist()]


def test_a_listing_by_hand():
    """Four seeds: fraud, ok, fraud, and one without a label; bm25 found three of them, variant one."""
    nan = np.nan
    neighbours = Neighbours(
        labels=np.array([[7, 2, 7, -1]]),
        scores={"bm25": np.array([[4.0, 3.0, nan, 1.0]]), "variant": np.array([[nan, nan, 0.5, nan]])},
        ranks={"bm25": np.array([[1, 2, 0, 3]]), "variant": np.array([[0, 0, 1, 0]])},
        lengths=np.array([9]),
    )
    found = evidence_of(neighbours, ROUTES, 4)
    assert found.classes.tolist() == [[7, 2]]
    fraud, ok = by_name(found, ROUTES, 4)
    assert [fraud[f"share of the first {k}"] for k in (1, 3, 4)] == [1, pytest.approx(2 / 3), pytest.approx(2 / 3)]
    assert fraud["share by rank"] == pytest.approx((1 + 1 / 3) / (1 + 1 / 2 + 1 / 3))
    assert (fraud["nearness of the first"], ok["nearness of the first"]) == (1, 0.5)
    assert (fraud["closeness in bm25"], ok["closeness in bm25"]) == (1, 0.75)
    assert (fraud["margin in bm25"], ok["margin in bm25"]) == (0.25, -0.25)
    assert (fraud["share by score in bm25"], ok["share by score in bm25"]) == (pytest.approx(0.6), pytest.approx(0.4))
    assert (fraud["closeness in variant"], ok["closeness in variant"], ok["margin in variant"]) == (1, 0, -1)
    assert (fraud["nearness of the first in bm25"], ok["nearness of the first in bm25"]) == (1, 0.5)
    assert ok["score in bm25"] == pytest.approx(np.log1p(3))
    assert fraud["classes"] == pytest.approx(np.log(2))
    assert fraud["length"] == pytest.approx(np.log1p(9))


def test_a_listing_without_seeds_has_no_candidate():
    nothing = {"text": "x", "metadata": {}, "topk_sim": [], "topk_seed": [], "topk_metadata": []}
    neighbours = neighbours_of_results([nothing], [[]], {"a": 0}, ROUTES, 10)
    found = evidence_of(neighbours, ROUTES, 10)
    assert found.classes.tolist() == [[-1]]
    assert not found.features.any()
    combiner = votes(["a"], ROUTES, 10, why="few")
    assert verdicts(combiner, neighbours).probabilities.tolist() == [[0]]


@pytest.mark.parametrize("spoiled", [{}, {"score": 1}, {"score": "high", "rank": 1}, {"score": 1, "rank": 10**30}, 7])
def test_evidence_that_is_none_is_an_error_in_a_line(spoiled):
    one = {"text": "x", "topk_seed": ["y"], "topk_metadata": [{"label": "a"}], "topk_evidence": [{"bm25": spoiled}]}
    with pytest.raises(RecordError, match='"topk_evidence" of seed 1 is not what recall writes'):
        neighbours_of_results([one], [["a"]], {"a": 0}, ROUTES, 10)


def test_classes_beyond_the_most_are_left_out():
    labels = np.arange(20)[None]
    neighbours = Neighbours(labels, {"bm25": np.ones((1, 20))}, {"bm25": labels + 1}, np.array([3]))
    assert evidence_of(neighbours, ("bm25",), 20).classes.tolist() == [list(range(MOST_CANDIDATES))]


@pytest.mark.parametrize("routes", [("bm25", "variant"), ("bm25",)], ids="+".join)
def test_results_and_rankings_say_the_same(routes):
    drawn = np.random.default_rng(0)
    seeds = [
        {"text": " ".join(drawn.choice(list("abcdefghij"), 5)), "metadata": {"label": int(drawn.integers(3))}}
        for _ in range(60)
    ]
    pipeline = Pipeline(Seeds(seeds, routes=routes), Recall(routes=routes, top_k=7))
    texts = [" ".join(drawn.choice(list("abcdefghij"), 4)) for _ in range(20)]
    results = pipeline.recall([{"text": text} for text in texts])
    with pipeline.view() as view:
        ranking = pipeline.rank(view, pipeline.asked(texts), 7)
    classes = np.array([seed["metadata"]["label"] for seed in seeds])
    one = neighbours_of_ranking(ranking, classes, texts, routes)
    other = neighbours_of_results(results, seed_labels(results, "label", 7), {"0": 0, "1": 1, "2": 2}, routes, 7)
    width = other.labels.shape[1]
    np.testing.assert_array_equal(one.labels[:, :width], other.labels)
    for route in routes:
        np.testing.assert_array_equal(one.ranks[route][:, :width], other.ranks[route])
        np.testing.assert_array_equal(one.scores[route][:, :width], other.scores[route])


def separable(count=300):
    """Listings of two candidates each, the right one of which has more in the only feature that tells."""
    random = np.random.default_rng(0)
    labels = np.argsort(random.uniform(size=(count, 4)), axis=1)[:, :2]
    right = random.integers(0, 2, count)
    scores = random.uniform(0.4, 0.6, (count, 2))
    scores[np.arange(count), right] += 0.15
    order = np.argsort(-scores, axis=1)
    labels, scores = (np.take_along_axis(one, order, axis=1) for one in (labels, scores))
    truth = np.where(
        np.take_along_axis(right[:, None] == order, np.zeros((count, 1), np.int64), axis=1)[:, 0],
        labels[:, 0],
        labels[:, 1],
    )
    ranks = np.broadcast_to(np.array([1, 2]), scores.shape)
    return Neighbours(labels, {"bm25": scores}, {"bm25": ranks}, np.full(count, 5)), truth


def test_the_fit_is_where_the_gradient_is_zero_and_the_gradient_is_that_of_the_loss():
    neighbours, truth = separable()
    evidence = evidence_of(neighbours, ("bm25",), 2)
    loss = _Loss(evidence.features, evidence.classes, truth, 4)
    at = np.random.default_rng(0).normal(size=loss.size) / 5
    value, gradient = loss(at)
    for place in range(loss.size):
        step = np.zeros(loss.size)
        step[place] = 1e-6
        assert (loss(at + step)[0] - loss(at - step)[0]) / 2e-6 == pytest.approx(gradient[place], abs=1e-6)
    combiner = fit_combiner(evidence, truth, "abcd", ("bm25",), 2)
    fitted = np.concatenate([[combiner.none], combiner.weights, combiner.bias])
    scaled = (evidence.features - combiner.mean) / combiner.scale
    again = _Loss(scaled, evidence.classes, truth, 4)(fitted)
    assert np.abs(again[1]).max() < 1e-4
    assert again[0] < value


def test_probabilities_of_a_fit_are_calibrated_and_leave_room_for_none():
    neighbours, truth = separable(2000)
    truth = np.where(np.random.default_rng(1).uniform(size=2000) < 0.2, 9, truth)  # a fifth is none of the candidates
    combiner = fit_combiner(evidence_of(neighbours, ("bm25",), 2), truth, "abcd", ("bm25",), 2)
    found = verdicts(combiner, neighbours)
    assert found.probabilities.sum(axis=1).mean() == pytest.approx(0.8, abs=0.02)
    assert (np.diff(found.probabilities, axis=1) <= 0).all()
    right = (found.first == truth).mean()
    assert found.highest.mean() == pytest.approx(right, abs=0.02)


def test_votes_are_shares():
    neighbours, _ = separable(5)
    assert isinstance(combiner := votes("abcd", ("bm25",), 2, why="few"), Combiner)
    assert (verdicts(combiner, neighbours).probabilities == 0.5).all()
