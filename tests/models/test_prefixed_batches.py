"""Batches of rows that share first tokens: each row once and whole, each prefix once a batch, within the budget."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.models.embeddings import Ragged
from ecom_rag.models.runtimes.batching import Batch, prefixed_batches

PREFIXES = [[1], [1, 2], [2, 2, 2], [3, 1, 4, 1, 5, 9, 2, 6]]
ROWS = st.lists(
    st.tuples(st.sampled_from(PREFIXES), st.lists(st.integers(1, 9), min_size=1, max_size=12)), min_size=1, max_size=30
)


def rows_of(batch: Batch) -> dict[int, list[int]]:
    """The whole rows of a batch by number, put together from its prefixes."""
    assert batch.prefixes is not None
    ids, mask, heads, head_mask, of = batch.inputs
    found = {}
    for place, number in enumerate(batch.rows.tolist()):
        head, own = heads[of[place]][head_mask[of[place]] == 1], ids[place][mask[place] == 1]
        found[number] = [*head.tolist(), *own.tolist()]
    return found


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, budget=st.integers(1, 80))
def test_each_row_once_each_prefix_once_a_batch(rows, budget):
    ids = Ragged.of([np.array(prefix + own, np.int32) for prefix, own in rows])
    starts = np.array([len(prefix) for prefix, _ in rows], np.int64)
    found = {}
    for batch in prefixed_batches(ids, pad_id=0, token_budget=budget, second_starts=starts):
        assert batch.prefixes is not None
        own = rows_of(batch)
        assert not own.keys() & found.keys()
        found |= own
        heads = batch.prefixes.input_ids * batch.prefixes.attention_mask
        assert len(np.unique(heads, axis=0)) == len(heads) and set(batch.prefixes.of) == set(range(len(heads)))
        assert batch.input_ids.size + heads.size <= budget or len(batch.rows) == 1
        if len(batch.rows) > 1:
            first, second = batch.halves()
            assert {**rows_of(first), **rows_of(second)} == own
            assert first.input_ids.shape[1] <= batch.input_ids.shape[1]
    assert found == {number: prefix + own for number, (prefix, own) in enumerate(rows)}


def test_nothing_gives_no_batch():
    ids = Ragged(np.empty(0, np.int32), np.zeros(1, np.int64))
    assert list(prefixed_batches(ids, pad_id=0, token_budget=8, second_starts=np.empty(0, np.int64))) == []
