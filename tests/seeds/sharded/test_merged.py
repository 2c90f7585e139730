"""The merge of what shards found, against sorting all of it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.seeds.sharded.merged import merged


def best(scores, rows, k):
    """The k best of given rows, -1 behind the last; scores of -inf are no results."""
    found = Ranking.empty(len(scores), k)
    for query, own in enumerate(scores):
        order = [place for place in np.lexsort((rows, -own)) if np.isfinite(own[place])][:k]
        found.rows[query, : len(order)], found.scores[query, : len(order)] = rows[order], own[order]
    return found


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 4),
    st.lists(st.integers(0, 6), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
def test_merged_is_what_sorting_all_rows_gives(queries, sizes, k, seed):
    """With few different scores, so that most are ties across borders, some rows that are no results, empty shards."""
    chance = np.random.default_rng(seed)
    rows = np.sort(chance.choice(1000, sum(sizes), replace=False))
    scores = chance.integers(0, 3, (queries, sum(sizes))).astype(np.float32) - 1
    scores[chance.random(scores.shape) < 0.3] = -np.inf
    cuts = np.cumsum(sizes)[:-1]
    own = zip(np.split(scores, cuts, axis=1), np.split(rows, cuts), strict=True)
    found = merged([best(part, numbers, int(chance.integers(k, k + 3))) for part, numbers in own], k)
    expected = best(scores, rows, k)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_merged_by_hand():
    """Equal scores: the earlier row, which is the one of the earlier shard."""
    left = Ranking(np.array([[2, 0]]), np.array([[0.5, 0.25]], np.float32))
    right = Ranking(np.array([[4, 7, -1]]), np.array([[0.75, 0.5, -np.inf]], np.float32))
    found = merged([left, right], 4)
    assert found.rows.tolist() == [[4, 2, 7, 0]] and found.scores.tolist() == [[0.75, 0.5, 0.5, 0.25]]
    assert merged([left, right], 2).rows.tolist() == [[4, 2]]
    wide = merged([left, right], 7)
    assert wide.rows.tolist() == [[4, 2, 7, 0, -1, -1, -1]] and wide.scores[0, 4:].tolist() == [-np.inf] * 3
