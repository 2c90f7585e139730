"""Judged sets: what is kept of a large corpus, who is never found, and how ties among candidates fall."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.labels import vote, vote_of_rows
from ecom_rag.evaluation.sets import candidate_set, evaluate_rows, read_beir_set, sampled
from ecom_rag.judging.relevance import Classes, Grades, ndcg, same_class
from ecom_rag.mining.triples import Example


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 50), st.data())
def test_a_sample_keeps_what_is_judged_and_grows(judged, most, data):
    judged = np.array(judged)
    kept = sampled(judged, most)
    assert np.isin(np.flatnonzero(judged), kept).all() and (np.diff(kept) > 0).all()
    assert len(kept) == min(len(judged), max(most, int(judged.sum())))
    assert np.isin(kept, sampled(judged, most + data.draw(st.integers(0, 9)))).all()
    assert sampled(judged, None).tolist() == list(range(len(judged)))


def test_two_splits_of_a_corpus_share_the_rest_of_their_samples():
    first, second = np.zeros(1000, np.bool_), np.zeros(1000, np.bool_)
    first[:10], second[500:510] = True, True
    kept = [set(sampled(judged, 110).tolist()) for judged in (first, second)]
    assert len(kept[0] & kept[1]) >= 90


def folder_of(tmp_path, qrels):
    (tmp_path / "qrels").mkdir()
    corpus = [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(6)]
    queries = [{"_id": name, "text": name} for name in ("q0", "q1", "d4")]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels" / "dev.tsv").write_text(qrels)
    return str(tmp_path)


def test_a_beir_set_and_its_figures(tmp_path):
    judged = read_beir_set(folder_of(tmp_path, "q0\td1\t2\nq0\td2\t0\nq0\tgone\t1\nq1\td3\t0\nd4\td5\t1\n"), "dev")
    assert judged.queries == ["q0", "q1", "d4"] and len(judged.documents) == 6
    assert judged.own.tolist() == [-1, -1, 4]
    assert judged.relevance.judged == [{1: 2, 2: 0}, {3: 0}, {5: 1}]
    eye = np.eye(6, dtype=np.float32)
    rows = judged.search(eye, np.stack([eye[1], eye[3], eye[4] + eye[5] / 2]), 5)
    assert rows.shape == (3, 5) and rows[:, 0].tolist() == [1, 3, 5] and 4 not in rows[2]
    assert ndcg(rows, judged.relevance).tolist() == [1, 0, 1]
    assert evaluate_rows(rows, judged, ["nDCG@5", "R@1"]).values.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_a_query_whose_relevant_documents_are_not_in_the_corpus_is_an_error(tmp_path):
    folder = folder_of(tmp_path, "q0\td1\t2\nq1\tgone\t1\n")
    with pytest.raises(UsageError, match="1 of 2 queries of split dev have no relevant document in the corpus"):
        read_beir_set(folder, "dev")


def test_what_a_model_cannot_tell_apart_is_ranked_against_it():
    judged = candidate_set([Example("a", ["p", "p"], ["n", "m", "n"]), Example("b", ["p", "r"], ["n"])])
    assert judged.pairs() == [("a", "n"), ("a", "m"), ("a", "p"), ("b", "n"), ("b", "p"), ("b", "r")]
    tied = judged.ranked(np.zeros(6))
    assert [judged.documents[row] for row in tied[0]] == ["n", "m", "p"] and judged.relevance.gains(tied)[0, 2] == 1
    rows = judged.ranked(np.array([3, 2, 9, 1, 5, 7], np.float32))
    assert [[judged.documents[row] for row in own if row >= 0] for own in rows] == [["p", "n", "m"], ["r", "p", "n"]]
    wide = candidate_set([Example("a", ["p"], ["n", "m"]), Example("b", ["q"], [])])
    assert wide.ranked(np.arange(4.0)).tolist()[1][1:] == [-1, -1]


def test_labels_ask_for_the_others():
    relevance = same_class(["a", "b", "a", "c", "b", "b"])
    assert relevance.own.tolist() == [0, 1, 2, 4, 5] and relevance.relevant.tolist() == [1, 2, 1, 2, 2]
    rows = np.array([[2, 0, -1], [4, 0, 5], [3, 0, 1], [1, 5, 4], [-1, -1, 4]])
    assert relevance.gains(rows).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert ndcg(rows, Classes(relevance.queries, relevance.documents, relevance.own))[3] == pytest.approx(1)


def test_grades_below_zero_gain_nothing():
    grades = Grades([{0: -2, 1: 3}, {}], 3)
    rows = np.array([[0, 1], [2, -1]])
    assert grades.gains(rows).tolist() == [[0, 3], [0, 0]] and ndcg(rows, grades)[1] == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_a_vote_of_rows_is_the_vote_of_their_labels(seed):
    random = np.random.default_rng(seed)
    names = ["", "b", "a\0", "a", "中"]
    own, seeds = (random.choice(np.array(names, object), count).tolist() for count in (6, 9))
    rows = random.integers(-1, 9, (6, 4))
    ours = vote_of_rows(own, seeds, rows)
    slow = vote(own, [[seeds[row] for row in found if row >= 0] for found in rows.tolist()])
    assert ours.classes == slow.classes and ours.truth.tolist() == slow.truth.tolist()
    assert ours.shares.tolist() == slow.shares.tolist()
    assert ours.predicted.tolist() == slow.predicted.tolist()
