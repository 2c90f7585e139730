"""A fork of an index can be changed while the index that it is of goes on as it was."""

import numpy as np
import pytest

from ecom_rag.models.embeddings import Ragged
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.growing import GrowingRows, forked
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.variant import VariantIndex
from helpers.small_banks import seed

TEXTS = [seed(number)["text"] for number in range(90)]


def dense(first, last):
    return np.array([np.random.default_rng(n).standard_normal(8) for n in range(first, last)], np.float32)


def sparse(first, last):
    from scipy.sparse import csr_matrix

    return csr_matrix(np.abs(dense(first, last)))


def multivector(first, last):
    return Ragged(dense(2 * first, 2 * last), np.arange(0, 2 * (last - first) + 1, 2))


ROUTES = {
    "bm25": (BM25Index, lambda first, last: TEXTS[first:last], ["leather wallet", "茶 3"]),
    "variant": (VariantIndex, lambda first, last: TEXTS[first:last], ["销.量.弟一", "l3ather w.a.l.l.e.t"]),
    "dense": (lambda items: DenseIndex(items, rough="fp32"), dense, dense(500, 502)),
    "dense in int16": (lambda items: DenseIndex(items, rough="int16"), dense, dense(500, 502)),
    "dense in int8": (lambda items: DenseIndex(items, rough="int8"), dense, dense(500, 502)),
    "sparse": (SparseIndex, sparse, sparse(500, 502)),
    "multivector": (MultiVectorIndex, multivector, multivector(500, 502)),
}


@pytest.mark.parametrize("route", ROUTES)
def test_an_index_is_as_before_after_its_forks_have_changed(route):
    make, items, queries = ROUTES[route]
    index = make(items(0, 40))
    index.remove(np.array([3]))
    before = index.search(queries, 50)
    for last in (41, 45, 90):  # within the spare room, and beyond it
        fork = index.fork()
        fork.extend(items(40, last))
        fork.remove(np.array([4, 40]))
        fresh = make(items(0, last))
        fresh.remove(np.array([3, 4, 40]))
        for one, other in ((index.search(queries, 50), before), (fork.search(queries, 99), fresh.search(queries, 99))):
            np.testing.assert_array_equal(one.rows, other.rows)
            np.testing.assert_array_equal(one.scores, other.scores)
    assert (len(index), len(fork)) == (40, 90)


def test_two_forks_never_write_into_the_same_room():
    rows = GrowingRows((), np.int64)
    rows.extend(np.arange(3))

    class Holder:
        def __init__(self):
            self.rows = rows

    one, other = forked(Holder()), forked(Holder())
    one.rows.extend(np.array([7]))
    seen = one.rows.rows
    other.rows.extend(np.array([8, 9]))
    rows.extend(np.array([5]))
    assert seen.tolist() == one.rows.rows.tolist() == [0, 1, 2, 7]
    assert other.rows.rows.tolist() == [0, 1, 2, 8, 9] and rows.rows.tolist() == [0, 1, 2, 5]
