"""Measures against the formulas by hand; every judged query counts; the order given is the ranking."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.measures import cutoff, evaluate_run, parse_measures, run_notes


def by_hand(documents, judged, k):
    grades = [max(0, judged.get(document, 0)) for document in documents]
    hits = [grade > 0 for grade in grades]
    relevant = sum(grade > 0 for grade in judged.values())
    ideal = sorted((max(g, 0) for g in judged.values()), reverse=True)

    def dcg(gains):
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:k], start=1))

    return {
        f"nDCG@{k}": dcg(grades) / dcg(ideal) if dcg(ideal) else 0.0,
        f"R@{k}": sum(hits[:k]) / relevant if relevant else 0.0,
        f"P@{k}": sum(hits[:k]) / k,
        f"RR@{k}": next((1 / rank for rank, hit in enumerate(hits[:k], start=1) if hit), 0.0),
        "AP": sum(sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit) / relevant
        if relevant
        else 0.0,
        f"Success@{k}": float(any(hits[:k])),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_equals_the_formulas(seed, k):
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(15)]
    qrels = {f"q{i}": {d: int(rng.integers(0, 4)) for d in rng.choice(names, 5, replace=False)} for i in range(4)}
    run = {query: rng.permutation(names)[: rng.integers(1, 15)].tolist() for query in qrels}
    found = evaluate_run(run, qrels, (f"nDCG@{k}", f"R@{k}", f"P@{k}", f"RR@{k}", "AP", f"Success@{k}"))
    assert found.queries == tuple(qrels)
    for row, query in enumerate(found.queries):
        expected = by_hand(run[query], qrels[query], k)
        for name, value in zip(found.measures, found.values[row], strict=True):
            assert value == pytest.approx(expected[name], abs=1e-6), (name, query)


def test_a_query_without_results_counts_0_and_an_unjudged_one_not_at_all():
    qrels = {"1": {"a": 1}, "2": {"b": 1}, "3": {"c": 0}}
    run = {"1": ["a", "x", "x"], "9": ["a"]}
    found = evaluate_run(run, qrels, ("nDCG@10", "RR@10"))
    np.testing.assert_array_equal(found.values, [[1, 1], [0, 0], [0, 0]])
    assert found.means() == {"nDCG@10": pytest.approx(1 / 3), "RR@10": pytest.approx(1 / 3)}
    notes = " ".join(run_notes(run, qrels))
    for part in (
        "2 of 3 judged queries have no result",
        "1 queries of the run are not judged (e.g. '9')",
        "1 judged queries have no relevant",
        "1 queries name a document more than once",
    ):
        assert part in notes
    assert "no judged document occurs in the run at all" in " ".join(run_notes({"1": ["zz"]}, qrels))


def test_many_results_keep_their_order():
    """The order is kept exactly, where scores rounded to six digits would tie."""
    documents = [f"{i:05d}" for i in range(3000)]
    found = evaluate_run({"q": documents}, {"q": {"02999": 1, "00000": 1}}, ("AP", "RR", "R@2999"))
    assert found.values[0].tolist() == pytest.approx([(1 + 2 / 3000) / 2, 1, 0.5])


def test_names():
    assert parse_measures("ndcg@10, MRR@10 recall@100 MAP,hit@1,P(rel=2)@5") == (
        "nDCG@10",
        "RR@10",
        "R@100",
        "AP",
        "Success@1",
        "P(rel=2)@5",
    )
    assert parse_measures("nDCG@10 nDCG@10") == ("nDCG@10",)
    assert [cutoff(name) for name in ("nDCG@10", "AP", "P(rel=2)@5")] == [10, None, 5]
    for wrong in ("nDGC@10", "nDCG@", "nDCG@ten", "nDCG@0", "@10", "nDCG@10@5", "__import__"):
        with pytest.raises(UsageError, match="is unknown; expected names"):
            parse_measures(wrong)
    with pytest.raises(UsageError, match="no measure is named"):
        parse_measures(" , ")


def test_mistakes():
    with pytest.raises(UsageError, match="no judgements"):
        evaluate_run({"1": ["a"]}, {})
    with pytest.raises(UsageError, match=r"none of the 1 judged queries \(judged '7', in the run '1'\)"):
        evaluate_run({"1": ["a"]}, {"7": {"a": 1}})
    with pytest.raises(UsageError, match="in the run 'nothing'"):
        evaluate_run({}, {"7": {"a": 1}})
