"""Fitted weights: the search equals fuse and ir_measures, finds planted weights, and refuses what is chance."""

import json
import logging

import numpy as np
import pytest

from ecom_rag.errors import UsageError
from ecom_rag.evaluation import evaluate_run
from ecom_rag.judging.fit_fusion import _features, _Search, fit_fusion
from ecom_rag.judging.judged import judge, judge_labels
from ecom_rag.retrieval.fusion import METHODS, fuse, gather
from ecom_rag.retrieval.learned_fusion import LearnedFusion, load_fusion
from ecom_rag.retrieval.ranking import Ranking

pytestmark = pytest.mark.slow

ROWS = 80
NAMES = [f"d{row}" for row in range(ROWS)]


def world(seed, *, noise, queries=150, depth=30):
    """Routes that see the true relevance through noise of the given strength."""
    rng = np.random.default_rng(seed)
    quality = rng.standard_normal((queries, ROWS))
    routes = {}
    for name, strength in noise.items():
        scores = quality + strength * rng.standard_normal((queries, ROWS))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        routes[name] = Ranking(order.astype(np.int64), np.take_along_axis(scores, order, axis=1).astype(np.float32))
    best = np.argsort(-quality, axis=1)[:, :3]
    grades = [{NAMES[row]: 3 - place for place, row in enumerate(one)} for one in best.tolist()]
    return routes, grades


@pytest.mark.parametrize("method", METHODS)
def test_the_search_sees_what_fuse_and_ir_measures_see(method):
    routes, grades = world(0, noise={"bm25": 1.0, "dense": 0.7, "variant": 2.0}, queries=40, depth=6)
    routes["bm25"].rows[:9, 2:] = -1  # short lists, and a query where a route found nothing
    routes["bm25"].scores[:9, 2:] = -np.inf
    routes["dense"].rows[3], routes["dense"].scores[3] = -1, -np.inf
    candidates = gather(routes)
    judged = judge(candidates, [NAMES] * 40, grades, k=5)
    weights = np.array([[0.2, 0.7, 0.1], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    search = _Search(_features(candidates, np.arange(40), method, 60.0), judged, 5)
    qrels = {str(query): one for query, one in enumerate(grades)}
    for row, values in zip(weights, search.values(weights), strict=True):
        fused = fuse(routes, k=5, method=method, weights=dict(zip(routes, row.tolist(), strict=True)))
        run = {str(q): [NAMES[i] for i in ids if i >= 0] for q, ids in enumerate(fused.rows.tolist())}
        np.testing.assert_allclose(values, evaluate_run(run, qrels, ("nDCG@5",)).of("nDCG@5"), atol=1e-6)


def test_a_useless_route_is_turned_down_and_the_gain_is_real():
    routes, grades = world(1, noise={"bm25": 0.8, "dense": 0.8, "chance": 50.0})
    candidates = gather(routes)
    fitted = fit_fusion(candidates, judge(candidates, [NAMES] * 150, grades), fitted_on={"set": "planted"})
    assert fitted.accepted and 0 < fitted.gain_low <= fitted.gain <= fitted.gain_high
    assert fitted.weights["chance"] < 0.1 < min(fitted.weights["bm25"], fitted.weights["dense"])
    assert fitted.fitted_on["set"] == "planted" and fitted.fitted_on["queries"] == 150
    fresh, fresh_grades = world(2, noise={"bm25": 0.8, "dense": 0.8, "chance": 50.0})
    qrels = {str(query): one for query, one in enumerate(fresh_grades)}

    def ndcg(found):
        run = {str(q): [NAMES[i] for i in ids if i >= 0] for q, ids in enumerate(found.rows.tolist())}
        return evaluate_run(run, qrels, ("nDCG@10",)).means()["nDCG@10"]

    assert ndcg(fitted.fuse(fresh, k=10)) > ndcg(fuse(fresh, k=10)) + fitted.gain_low / 2


def test_where_there_is_nothing_to_gain_the_baseline_is_kept(caplog):
    """Three copies of one route: no weighting can help, whatever chance says."""
    routes, grades = world(3, noise={"bm25": 1.0}, queries=60)
    routes = dict.fromkeys(("bm25", "dense", "variant"), routes["bm25"])
    candidates = gather(routes)
    with caplog.at_level(logging.WARNING, logger="ecom_rag"):
        fitted = fit_fusion(candidates, judge(candidates, [NAMES] * 60, grades), folds=3)
    assert not fitted.accepted and fitted.method == "rrf" and fitted.baseline == "rrf"
    assert set(fitted.weights.values()) == {1.0}
    assert "learned fusion refused: its gain over rrf" in caplog.text
    lone, lone_grades = world(4, noise={"dense": 0.1, "chance": 50.0}, queries=60)
    kept = fit_fusion(gather(lone), judge(gather(lone), [NAMES] * 60, lone_grades), folds=3)
    assert not kept.accepted and (kept.baseline, dict(kept.weights)) == ("only dense", {"dense": 1.0, "chance": 0.0})


def test_chance_is_seldom_accepted():
    """Routes that know nothing: at most one of twelve fits may pass (2.5 % each is due)."""
    passed = 0
    for seed in range(12):
        routes, grades = world(seed, noise={"a": 99.0, "b": 99.0}, queries=60)
        candidates = gather(routes)
        judged = judge(candidates, [NAMES] * 60, grades)
        passed += fit_fusion(candidates, judged, methods=["rrf", "minmax"], folds=3, seed=seed).accepted
    assert passed <= 1


def test_labels_are_judgements():
    routes, _ = world(5, noise={"a": 1.0, "b": 1.0}, queries=20)
    rng = np.random.default_rng(5)
    seed_labels, query_labels = rng.integers(0, 30, ROWS), rng.integers(0, 31, 20)
    grades = [{NAMES[row]: 1 for row in np.flatnonzero(seed_labels == own)} for own in query_labels]
    candidates = gather(routes)
    ours, slow = judge_labels(candidates, query_labels, seed_labels), judge(candidates, [NAMES] * 20, grades)
    np.testing.assert_array_equal(ours.gains, slow.gains)
    np.testing.assert_allclose(ours.ideal, slow.ideal)


def test_same_seed_same_fit_and_the_file_keeps_it(tmp_path):
    routes, grades = world(6, noise={"bm25": 0.5, "dense": 1.5}, queries=80)
    candidates = gather(routes)
    judged = judge(candidates, [NAMES] * 80, grades)
    fitted = fit_fusion(candidates, judged)
    assert fitted == fit_fusion(candidates, judged)
    fitted.save(tmp_path / "fusion.json")
    loaded = load_fusion(tmp_path / "fusion.json")
    assert loaded == fitted
    np.testing.assert_array_equal(loaded.fuse(routes, k=9).rows, fitted.fuse(routes, k=9).rows)
    with pytest.raises(UsageError, match="fitted for the routes bm25, dense, asked for are bm25"):
        loaded.fuse({"bm25": routes["bm25"]}, k=3)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "fusion.json"
    with pytest.raises(UsageError, match="no such file; fit a fusion"):
        load_fusion(path)
    good = {"format": 1, "method": "rrf", "weights": {"a": 1.0, "b": 0.5}}
    for content, message in [
        ("{", "not valid JSON"),
        ("[]", "not a fitted fusion of format 1"),
        (json.dumps({**good, "format": 2}), "not a fitted fusion of format 1"),
        (json.dumps({**good, "wieght": 1}), "unknown keys wieght"),
        (json.dumps({**good, "method": "sum"}), "method 'sum' is unknown"),
        (json.dumps({**good, "weights": {"a": "1"}}), "expected numbers of at least 0"),
        (json.dumps({**good, "weights": {"a": 0, "b": 0}}), "one of them above 0"),
    ]:
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            load_fusion(path)
    path.write_text(json.dumps(good))
    assert load_fusion(path) == LearnedFusion("rrf", {"a": 1.0, "b": 0.5})


def test_too_little_to_fit_on():
    routes, grades = world(7, noise={"a": 1.0, "b": 1.0}, queries=9)
    candidates = gather(routes)
    with pytest.raises(UsageError, match="9 queries have anything relevant; 5 folds need at least 10"):
        fit_fusion(candidates, judge(candidates, [NAMES] * 9, grades))
    alone = gather({"a": routes["a"]})
    with pytest.raises(UsageError, match="the routes are a; fusing needs at least two"):
        fit_fusion(alone, judge(alone, [NAMES] * 9, grades))
