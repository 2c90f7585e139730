import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.retrieval import postings
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.text.analysis import Analyzer

pytestmark = pytest.mark.reference

WORDS = ["red", "blue", "green", "shoe", "case", "cover", "手机壳", "数据线", "充电器", "防摔", "15", "256gb"]


def brute_force(documents, query, k1, b):
    """Scores by the formula, in float64, from lists of terms."""
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for term in query:
            frequency = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
            norm = k1 * (1 - b + b * len(document) / average) if average else k1
            if counts[term]:
                score += idf * counts[term] / (counts[term] + norm)
        scores.append(score)
    return np.array(scores)


def random_texts(rng, count, longest=12):
    return [" ".join(rng.choice(WORDS, rng.integers(0, longest))) for _ in range(count)]


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (0.0, 0.0), (2.0, 1.0)])
def test_scores_are_those_of_the_formula(k1, b):
    rng = np.random.default_rng(0)
    texts, queries = random_texts(rng, 120), [*random_texts(rng, 20, 5), "shoe shoe red", "unknown", ""]
    index = BM25Index(texts, k1=k1, b=b)
    found = index.search(queries, 120)
    documents = index.analyzer.tokens(texts)
    for row, query in enumerate(index.analyzer.tokens(queries)):
        expected = brute_force(documents, query, k1, b)
        count = int((expected > 0).sum())
        ids = found.rows[row, :count]
        assert (found.rows[row, count:] == -1).all() and np.isneginf(found.scores[row, count:]).all()
        np.testing.assert_allclose(found.scores[row, :count], expected[ids], atol=1e-5)
        np.testing.assert_allclose(found.scores[row, :count], np.sort(expected)[::-1][:count], atol=1e-5)
        ties = np.diff(found.scores[row, :count]) == 0
        assert (np.diff(ids)[ties] > 0).all()


def test_a_worked_example():
    # N 2, avgdl 3; "shoe" in one row of 2 terms: ln(1 + 1.5 / 1.5) / (1 + 0.9 * (0.6 + 0.4 * 2 / 3))
    found = BM25Index(["red shoe", "green case case blue"]).search(["shoe", "case"], 2)
    assert found.scores[0, 0] == pytest.approx(math.log(2) / (1 + 0.9 * (0.6 + 0.4 * 2 / 3)))
    assert found.scores[1, 0] == pytest.approx(math.log(2) * 2 / (2 + 0.9 * (0.6 + 0.4 * 4 / 3)))
    assert found.rows.tolist() == [[0, -1], [1, -1]]


def test_scores_agree_with_bm25s():
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(1)
    texts, queries = random_texts(rng, 200), [query for query in random_texts(rng, 20, 5) if query]
    index = BM25Index(texts, k1=1.2, b=0.75)
    reference = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    reference.index(index.analyzer.tokens(texts), show_progress=False)
    found = index.search(queries, 200)
    for row, query in enumerate(index.analyzer.tokens(queries)):
        expected = reference.get_scores(query)
        count = int((expected > 0).sum())
        np.testing.assert_allclose(found.scores[row, :count], expected[found.rows[row, :count]], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_changes_end_where_a_fresh_index_does(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "FULL", (0, 200, 40, 8))  # so that few rows pass through all levels
        index, live = BM25Index(), []
        texts: list[str] = []
        for _ in range(data.draw(st.integers(1, 8))):
            more = random_texts(rng, int(rng.integers(1, 20)))
            live += range(len(texts), len(texts) + len(more))
            texts += more
            index.extend(more)
            gone = rng.choice(live, rng.integers(0, len(live)), replace=False)
            live = sorted(set(live) - set(gone.tolist()))
            index.remove(gone.astype(np.int64))
    queries = random_texts(rng, 6, 5)
    fresh = BM25Index([texts[row] for row in live]).search(queries, len(live))
    for same in (index, BM25Index.from_arrays(index.arrays())):
        found = same.search(queries, len(texts))
        assert found.rows.shape == fresh.rows.shape
        np.testing.assert_array_equal(found.scores, fresh.scores)
        np.testing.assert_array_equal(found.rows, np.where(fresh.rows < 0, -1, np.array([*live, -1])[fresh.rows]))


def test_many_postings_and_few_postings_select_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    texts, queries = random_texts(rng, 3000), random_texts(rng, 10, 4)
    index = BM25Index(texts)
    found = index.search(queries, 50)
    monkeypatch.setattr(postings, "FEW_QUERIES", 100)
    single = [index.search([query], 50) for query in queries]
    np.testing.assert_array_equal(found.rows, np.concatenate([one.rows for one in single]))
    # Rare words take the other way of selecting: their rows are gathered, not scanned.
    index.extend(["rare red"] * 3 + ["rare"])
    assert index.search(["rare"], 10).rows[0].tolist()[:5] == [3003, 3000, 3001, 3002, -1]


def test_a_filter_keeps_the_statistics():
    index = BM25Index(["red shoe", "red case", "blue shoe"])
    allowed = np.array([False, True, True])
    every, some = index.search(["red shoe"], 3), index.search(["red shoe"], 3, allowed=allowed)
    np.testing.assert_array_equal(some.rows[0], [1, 2, -1])
    np.testing.assert_array_equal(some.scores[0, :2], every.scores[0][np.isin(every.rows[0], [1, 2])])
    with pytest.raises(ValueError, match="one for each"):
        index.search(["red"], 1, allowed=allowed[:2])


def test_snapshots_are_mapped_and_grow(tmp_path):
    index = BM25Index(["red shoe", "蓝色 手机壳"])
    index.remove(np.array([0]))
    for name, array in index.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = BM25Index.from_arrays({p.stem: np.load(p, mmap_mode="r") for p in tmp_path.iterdir()})
    mapped.extend(["手机壳 new", "red"])
    mapped.remove(np.array([3]))
    assert mapped.search(["手机壳", "red", "new"], 4).rows.tolist() == [[1, 2], [-1, -1], [2, -1]]
    assert len(mapped) == 4


def test_another_analyzer_is_refused():
    arrays = BM25Index(["red"]).arrays()
    with pytest.raises(UsageError, match="analyzer"):
        BM25Index.from_arrays(arrays, analyzer=Analyzer(stem=False))


def test_edges():
    assert BM25Index().search(["red"], 5).rows.shape == (1, 0)
    assert BM25Index([""]).search(["red"], 5).rows.tolist() == [[-1]]
    assert BM25Index(["red"]).search([], 5).rows.shape == (0, 1)
    empty = BM25Index.from_arrays(BM25Index().arrays())
    empty.extend(["red"])
    assert empty.search(["red"], 9).rows.tolist() == [[0]]
    with pytest.raises(IndexError):
        empty.remove(np.array([7]))
    for k1, b in ((-1, 0.5), (1, 1.5), (float("nan"), 0.5)):
        with pytest.raises(UsageError, match="k1"):
            BM25Index(k1=k1, b=b)
