"""Floods of near copies: the search returns exactly what sorting all float32 scores does, whichever pass finds it."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecom_rag.retrieval import DenseIndex, dense_kernels


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def flooded(rng, rows, floods, size, noise, dim=24):
    """Rows of which some have ``size`` near copies each, in mixed order."""
    seeds = unit(rng, rows, dim)
    copies = np.repeat(seeds[:floods], size, axis=0)
    near = copies + np.float32(noise) * rng.standard_normal(copies.shape).astype(np.float32)
    return rng.permutation(np.concatenate([seeds, near]))


def assert_sorted_scores(index, asked, k, allowed=None):
    """The rows of a stable sort of every row's float32 score, which is that of float64 up to rounding."""
    found = index.search(asked, k, allowed=allowed)
    rows = np.arange(len(index)) if allowed is None else np.flatnonzero(allowed)
    pairs = np.stack(np.meshgrid(np.arange(len(asked)), rows, indexing="ij"), axis=-1).reshape(-1, 2)
    scores = index.pair_scores(asked, pairs).reshape(len(asked), len(rows))
    vectors = np.concatenate([index._base, index._tail.rows])[rows].astype(np.float64)
    np.testing.assert_allclose(scores, asked.astype(np.float64) @ vectors.T, atol=2e-6)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.rows[:, : len(rows)], rows[order])
    np.testing.assert_array_equal(found.scores[:, : len(rows)], np.take_along_axis(scores, order, axis=1))
    assert (found.rows[:, len(rows) :] == -1).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int16", "int8", "fp32"]),
    st.sampled_from([0, 1e-7, 1e-4, 1e-2]),
    st.sampled_from([1, 10, 100, 1000]),
    st.sampled_from([1, 9, 40]),
    st.sampled_from([None, 0.02, 0.5, 0.99]),
    st.integers(0, 10**6),
)
@example("int16", 0, 1000, 40, None, 0)
@example("int16", 1e-7, 10, 1, 0.5, 0)
def test_floods_equal_sorted_scores(rough, noise, k, queries, share, seed):
    rng = np.random.default_rng(seed)
    seeds = flooded(rng, 1500, 3, 2500, noise)
    asked = np.concatenate([seeds[:queries] + np.float32(0.05) * unit(rng, queries, 24), unit(rng, 2, 24)])
    first = rng.integers(4000, 9001)
    index = DenseIndex(seeds[:first], rough=rough)
    index.extend(seeds[first:])
    assert_sorted_scores(index, asked, k, None if share is None else rng.random(len(seeds)) < share)


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
@pytest.mark.parametrize("queries", [1, 50])
@pytest.mark.parametrize("rows", [40_000, 400_000])
def test_twenty_thousand_rows_within_the_bound(rough, queries, rows):
    """With few other rows they are scored with all the others, with many they are candidates."""
    rng = np.random.default_rng(5)
    seeds = flooded(rng, rows - 20_000, 1, 20_000, 1e-4, dim=8)
    copy = seeds[np.argsort(seeds @ seeds.mean(axis=0))[-10_000]]
    index = DenseIndex(seeds, rough=rough)
    asked = np.tile(copy, (queries, 1)) + np.float32(0.01) * unit(rng, queries, 8)
    assert_sorted_scores(index, asked[:3], 100)
    np.testing.assert_array_equal(index.search(asked, 100).rows[:3], index.search(asked[:3], 100).rows)


def test_a_full_pool_changes_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    index = DenseIndex(flooded(rng, 60_000, 4, 2000, 1e-3), rough="int16")
    asked = unit(rng, 40, 24)
    asked[:20] = index._base[rng.integers(0, 68_000, 20)]
    expected = index.search(asked, 20)
    monkeypatch.setattr(dense_kernels, "POOL", 3000)  # tiles of a few queries, which have no room to grow
    found = index.search(asked, 20)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
def test_a_bank_of_nothing_but_copies(rough):
    rng = np.random.default_rng(7)
    seeds = np.tile(unit(rng, 1, 24), (30_000, 1))
    for queries in (1, 50):
        found = DenseIndex(seeds, rough=rough).search(unit(rng, queries, 24), 11)
        np.testing.assert_array_equal(found.rows, np.tile(np.arange(11), (queries, 1)))


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
def test_zeros_and_numbers_that_overflow_the_bounds(rough):
    rng = np.random.default_rng(8)
    seeds = unit(rng, 3000, 4)
    index = DenseIndex(seeds, rough=rough)
    for queries in (1, 50):
        np.testing.assert_array_equal(index.search(np.zeros((queries, 4), np.float32), 3).rows[-1], [0, 1, 2])
    seeds[1000] *= np.float32(1e20)
    index = DenseIndex(seeds, rough=rough)
    for queries in (1, 50):
        assert index.search(np.tile(seeds[1000] / np.float32(1e20), (queries, 1)), 1).rows[-1, 0] == 1000


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 200), st.integers(1, 7), st.booleans(), st.floats(0, 1), st.integers(0, 10**6)
)
def test_candidates_of_final_scores_are_the_first_of_a_stable_sort(block, k, values, narrow, share, seed):
    """Few distinct scores, of both signs, in blocks and under a mask, with candidates many times as many as k."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-values, values, (3, 3000)).astype(np.float32)
    scores[2].sort()  # the worst order for a running cut
    allowed = rng.random(3000) < share if share < 0.9 else np.empty(0, bool)
    candidates = dense_kernels.Candidates(3, k, 0, None, np.float32(0))
    bits = (scores.view(np.int32) >> 16).astype(np.int16) if narrow else scores.view(np.int32)  # whole numbers: bf16
    for start in range(0, 3000, block):
        candidates.take(np.ascontiguousarray(bits[:, start : start + block]), start, allowed)
    rows, found = np.full((3, k), -1, np.int64), np.zeros((3, k), np.float32)
    none = np.empty((0, 1), np.float32)
    candidates.settle(np.empty((3, 1), np.float32), none, none, rows, found)
    for query in range(3):
        left = np.arange(3000) if allowed.size == 0 else np.flatnonzero(allowed)
        expected = left[np.argsort(-scores[query, left], kind="stable")[:k]]
        np.testing.assert_array_equal(rows[query, : len(expected)], expected)
        np.testing.assert_array_equal(found[query, : len(expected)], scores[query, expected])
