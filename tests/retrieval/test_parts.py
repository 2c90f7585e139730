"""Some of the rows of saved indexes, searched by themselves: together they find what the whole index finds."""

import itertools

import numpy as np
import pytest
from scipy import sparse

from ecom_rag.models.embeddings import Ragged
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.multivector import MultiVectorIndex
from ecom_rag.retrieval.sparse import SparseIndex
from ecom_rag.retrieval.variant import VariantIndex
from ecom_rag.seeds.sharded.merged import merged
from helpers.small_banks import WORDS

CUTS = [0, 700, 703, 4000, 9000]


def unit(chance, *shape):
    vectors = chance.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def dense_case(chance, rough):
    rows = unit(chance, 9000, 48)
    rows[5000:5040] = rows[:40]  # copies in other parts
    return DenseIndex(rows, rough=rough), unit(chance, 70, 48)


def sparse_case(chance, _):
    weights = sparse.random(9000, 300, 0.03, format="csr", dtype=np.float32, random_state=1)
    weights.data = np.ceil(weights.data * 4) / 4  # ties
    return SparseIndex(weights), sparse.random(30, 300, 0.05, format="csr", dtype=np.float32, random_state=2)


def multivector_case(chance, _):
    lengths = chance.integers(0, 5, 9000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return MultiVectorIndex(Ragged(unit(chance, offsets[-1], 16), offsets)), Ragged.of([unit(chance, 3, 16)] * 4)


@pytest.mark.parametrize(
    ("case", "rough"),
    [(dense_case, "int16"), (dense_case, "int8"), (dense_case, "fp32"), (sparse_case, ""), (multivector_case, "")],
)
def test_parts_together_find_what_the_whole_finds(case, rough):
    chance = np.random.default_rng(0)
    index, queries = case(chance, rough)
    index.remove(chance.choice(9000, 500, replace=False))
    arrays = index.arrays()
    for k in (1, 10, 800):
        found = []
        for first, stop in itertools.pairwise(CUTS):
            part = type(index).from_arrays(type(index).part(arrays, first, stop))
            assert len(part) == stop - first
            own = part.search(queries, k)
            own.rows[own.rows >= 0] += first
            found.append(own)
        expected = index.search(queries, k)
        together = merged(found, k)
        np.testing.assert_array_equal(together.rows, expected.rows)
        np.testing.assert_array_equal(together.scores, expected.scores)


def test_parts_of_vectors_are_views_and_keep_eight_bits():
    chance = np.random.default_rng(1)
    arrays = DenseIndex(unit(chance, 3000, 8), rough="int8").arrays()
    part = DenseIndex.part(arrays, 1000, 2000)
    assert np.shares_memory(part["vectors"], arrays["vectors"]) and np.shares_memory(part["rough"], arrays["rough"])
    assert DenseIndex.from_arrays(part).arrays()["rough"].dtype == np.int8
    ragged = MultiVectorIndex(Ragged.of([unit(chance, 3, 8)] * 10)).arrays()
    assert np.shares_memory(MultiVectorIndex.part(ragged, 2, 5)["values"], ragged["values"])


@pytest.mark.parametrize("kind", [BM25Index, VariantIndex])
def test_statistics_of_parts_add_up(kind):
    chance = np.random.default_rng(2)
    texts = [" ".join(chance.choice(WORDS, chance.integers(0, 5))) for _ in range(300)]
    index = kind(texts)
    index.remove(np.arange(3, 300, 7))
    parts = [kind.from_arrays(kind.part(index.arrays(), *span)) for span in ((0, 1), (1, 200), (200, 300))]
    assert sum(part.counted.terms for part in parts) == index.counted.terms
    assert sum(part.counted.count for part in parts) == index.counted.count
    terms = index.arrays()["terms"]
    if kind is BM25Index:
        words = list(index._vocabulary)
        assert all(set(part._vocabulary) < set(words) for part in parts[:1])
        frequencies = [part.counted.postings.frequencies(part.numbers(words), part.counted.live) for part in parts]
        terms = index.numbers(words)
    else:
        frequencies = [part.counted.postings.frequencies(terms, part.counted.live) for part in parts]
    expected = index.counted.postings.frequencies(terms, index.counted.live)
    np.testing.assert_array_equal(sum(frequencies), expected)
    assert expected.max() > 20


def test_a_part_of_bm25_grows_by_new_words():
    """A bank adds later rows to what was saved."""
    texts = ["leather wallet", "全国 销量", "watch"]
    part = BM25Index.from_arrays(BM25Index.part(BM25Index(texts).arrays(), 1, 3))
    part.extend(["leather watch"])
    fresh = BM25Index([*texts[1:], "leather watch"])
    for query in ("leather", "watch", "全国", "wallet"):
        ours, theirs = part.search([query], 3), fresh.search([query], 3)
        assert ours.rows.tolist() == theirs.rows.tolist() and ours.scores.tolist() == theirs.scores.tolist()
