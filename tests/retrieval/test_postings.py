from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.retrieval.postings import Postings, level_of_tokens, merged

TERM = st.one_of(st.integers(0, 5), st.integers(0, 2**63 - 1))
ROWS = st.lists(st.lists(TERM, max_size=6), max_size=12)


def level_of(rows, first=0):
    terms = np.array([term for row in rows for term in row], np.int64)
    return level_of_tokens(terms, np.array([len(row) for row in rows], np.int64), first)


def counts_in(level):
    """Term, row and value of each posting, as they stand."""
    terms = np.repeat(level.terms, np.diff(level.starts))
    return list(zip(terms.tolist(), level.rows.tolist(), level.values.tolist(), strict=True))


def counts_of(rows, first=0):
    found = Counter((term, number) for number, row in enumerate(rows, start=first) for term in row)
    return [(*key, float(count)) for key, count in sorted(found.items())]


@settings(deadline=None)
@given(ROWS, st.integers(0, 1000))
def test_a_level_counts_the_terms_of_rows(rows, first):
    level = level_of(rows, first)
    assert counts_in(level) == counts_of(rows, first)
    assert (np.diff(level.terms) > 0).all() and (np.diff(level.starts) > 0).all()


@pytest.mark.parametrize("largest", [0, 3, 1 << 11, 1 << 40, 2**63 - 1])
def test_many_terms_are_sorted_as_few_are(largest):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, largest, rng.integers(0, 40), endpoint=True).tolist() for _ in range(500)]
    assert counts_in(level_of(rows, 7)) == counts_of(rows, 7)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=5))
def test_levels_merged_at_once_are_that_of_all_rows(parts):
    firsts = np.cumsum([0, *map(len, parts)]).tolist()
    levels = [level_of(rows, first) for rows, first in zip(parts, firsts, strict=False)]
    whole = [row for rows in parts for row in rows]
    assert counts_in(merged(levels)) == counts_of(whole)
    one_by_one = Postings.empty()
    for level, rows in zip(levels, parts, strict=True):
        one_by_one = one_by_one.extended(level, len(rows))
    at_once = Postings.empty().extended(merged(levels), len(whole))
    for name, array in one_by_one.arrays().items():
        np.testing.assert_array_equal(at_once.arrays()[name], array)
