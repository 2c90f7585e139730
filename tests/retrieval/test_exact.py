"""Search equals brute force in float64, up to ties; ties go to the earlier row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_sparse

from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.models.embeddings import Embeddings, Ragged
from ecom_rag.retrieval import DenseIndex, MultiVectorIndex, SparseIndex, dense, hybrid, pair_scores
from ecom_rag.retrieval.topk import select


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def assert_exact(found, scores, k, tolerance=2e-6):
    """Each returned score is right, and nothing better was left out; equal scores stand in row order."""
    for ids, values, row in zip(found.rows, found.scores, scores, strict=True):
        assert len(set(ids.tolist())) == len(ids)
        np.testing.assert_allclose(values, row[ids], atol=tolerance)
        np.testing.assert_allclose(values, np.sort(row)[::-1][:k], atol=tolerance)
        assert all(a > b or (a == b and i < j) for a, b, i, j in zip(values, values[1:], ids, ids[1:], strict=False))


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_dense_equals_float64(rough, queries):
    rng = np.random.default_rng(0)
    seeds, asked = unit(rng, 9000, 48), unit(rng, queries, 48)
    found = DenseIndex(seeds, rough=rough).search(asked, 25)
    assert_exact(found, asked.astype(np.float64) @ seeds.T.astype(np.float64), 25)


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
def test_dense_survives_crowds_of_near_ties(rough):
    """More near ties than the candidate buffer holds: the fallback scores every row."""
    rng = np.random.default_rng(1)
    seeds = unit(rng, 1, 32) + 1e-4 * rng.standard_normal((5000, 32)).astype(np.float32)
    asked = unit(rng, 4, 32)
    found = DenseIndex(seeds, rough=rough).search(asked, 10)
    assert_exact(found, asked.astype(np.float64) @ seeds.T.astype(np.float64), 10)


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
def test_equal_rows_come_in_row_order(rough):
    rng = np.random.default_rng(2)
    seeds = np.repeat(unit(rng, 700, 16), 5, axis=0)
    found = DenseIndex(seeds, rough=rough).search(seeds[:20:5], 5)
    np.testing.assert_array_equal(found.rows, np.arange(20).reshape(4, 5))
    same = DenseIndex(np.ones((3000, 8), np.float32), rough=rough).search(np.ones((2, 8), np.float32), 7)
    np.testing.assert_array_equal(same.rows, np.tile(np.arange(7), (2, 1)))


def test_negative_and_ascending_scores():
    """The worst order for a running cut, and scores below zero."""
    seeds = np.linspace(-1, -0.001, 5000, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    asked = np.ones((2, 4), np.float32)
    for rough in ("int16", "int8", "fp32"):
        found = DenseIndex(seeds, rough=rough).search(asked, 9)
        np.testing.assert_array_equal(found.rows[0], np.arange(4999, 4990, -1))


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
def test_score_does_not_depend_on_company(rough):
    rng = np.random.default_rng(3)
    seeds, asked = unit(rng, 6000, 64), unit(rng, 50, 64)
    index = DenseIndex(seeds, rough=rough)
    together = index.search(asked, 10)
    for i in (0, 17, 49):
        alone = index.search(asked[i : i + 1], 10)
        np.testing.assert_array_equal(alone.rows[0], together.rows[i])
        np.testing.assert_array_equal(alone.scores[0], together.scores[i])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 10**6))
def test_dense_property(n, k, seed):
    rng = np.random.default_rng(seed)
    seeds = rng.integers(-2, 3, (n, 3)).astype(np.float32)  # many exact ties
    asked = rng.integers(-2, 3, (4, 3)).astype(np.float32)
    scores = asked @ seeds.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, n)]
    for rough in ("int16", "int8", "fp32"):
        np.testing.assert_array_equal(DenseIndex(seeds, rough=rough).search(asked, k).rows, expected)
    np.testing.assert_array_equal(select(scores, min(k, n)).rows, expected)


def test_wrong_embeddings_are_refused():
    seeds = np.eye(4, dtype=np.float32)
    with pytest.raises(EmbeddingError, match="3 dimensions, the seeds 4"):
        DenseIndex(seeds).search(np.ones((1, 3), np.float32), 1)
    bad = seeds.copy()
    bad[2, 1] = np.nan
    with pytest.raises(EmbeddingError, match="row 2 holds NaN"):
        DenseIndex(bad)
    with pytest.raises(EmbeddingError, match="query embeddings: row 2"):
        DenseIndex(seeds).search(bad, 1)


def sparse_rows(rng, rows, terms=50):
    weights = random_sparse(rows, terms, 0.1, format="csr", random_state=rng, dtype=np.float32)
    weights.data += np.float32(0.01)
    return weights


def test_sparse_equals_scipy_and_drops_rows_that_share_nothing():
    rng = np.random.default_rng(4)
    seeds, asked = sparse_rows(rng, 400), sparse_rows(rng, 30)
    scores = (asked @ seeds.T).toarray()
    index = SparseIndex(seeds)
    np.testing.assert_allclose(index.scores(asked), scores, atol=1e-5)
    found = index.search(asked, 500)
    for ids, values, row in zip(found.rows, found.scores, scores, strict=True):
        count = (row > 0).sum()
        assert (ids[count:] == -1).all() and np.isneginf(values[count:]).all()
        np.testing.assert_allclose(values[:count], np.sort(row)[::-1][:count], atol=1e-5)
        np.testing.assert_allclose(values[:count], row[ids[:count]], atol=1e-5)
    with pytest.raises(EmbeddingError, match="vocabulary"):
        index.search(csr_matrix((1, 3), dtype=np.float32), 1)


def ragged(rng, rows, dim=16, shortest=1):
    return Ragged.of([unit(rng, rng.integers(shortest, 9), dim) for _ in range(rows)])


def brute_max_sim(queries, documents):
    return np.array([[(q @ d.T).max(axis=1).mean() for d in documents] for q in queries])


def test_multivector_equals_brute_force(monkeypatch):
    from ecom_rag.retrieval import multivector

    monkeypatch.setattr(multivector, "DOCUMENT_TOKENS", 37)  # several blocks, cut at document ends
    monkeypatch.setattr(multivector, "QUERY_TOKENS", 11)
    rng = np.random.default_rng(5)
    documents, queries = ragged(rng, 120), ragged(rng, 13)
    scores = brute_max_sim(list(map(queries.__getitem__, range(13))), list(map(documents.__getitem__, range(120))))
    index = MultiVectorIndex(documents)
    np.testing.assert_allclose(index.scores(queries), scores, atol=1e-5)
    assert_exact(index.search(queries, 6), index.scores(queries), 6)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_multivector_among_near_copies_is_that_of_all_pairs(k):
    """Hundreds of documents whose scores differ in the last digits, if at all: more than the spare candidates."""
    rng = np.random.default_rng(7)
    one, queries = unit(rng, 5, 64), Ragged.of([unit(rng, 4, 64), unit(rng, 7, 64), unit(rng, 0, 64), unit(rng, 1, 64)])
    noise = 1e-7 * rng.standard_normal((300, 5, 64)).astype(np.float32) * rng.integers(0, 2, (300, 1, 1))
    documents = Ragged.of([*unit(rng, 100, 3, 64), *(one + noise).astype(np.float32), *unit(rng, 100, 2, 64)])
    index = MultiVectorIndex(documents)
    index.remove(np.arange(120, 160))
    pairs = np.array([[q, d] for q in range(4) for d in range(500)])
    scores = index.pair_scores(queries, pairs).reshape(4, 500)
    scores[:, 120:160] = -np.inf
    allowed = rng.random(500) < 0.9
    for mask in (None, allowed):
        left = scores if mask is None else np.where(mask, scores, -np.inf)
        expected = np.lexsort((np.broadcast_to(np.arange(500), left.shape), -left), axis=1)[:, :k]
        found = index.search(queries, k, allowed=mask)
        np.testing.assert_array_equal(found.rows, expected)
        np.testing.assert_array_equal(found.scores, np.take_along_axis(left, expected, axis=1))


def test_worked_max_sim():
    """Two query tokens, one document of two tokens: (max(1, 0) + max(0, .6)) / 2."""
    query = Ragged.of([np.array([[1, 0], [0, 1]], np.float32)])
    document = Ragged.of([np.array([[1, 0], [0.8, 0.6]], np.float32)])
    assert MultiVectorIndex(document).scores(query)[0, 0] == pytest.approx(0.8)


def hybrid_seeds(rng, count):
    return Embeddings(unit(rng, count, 16), sparse_rows(rng, count), ragged(rng, count))


def indexes_of(seeds):
    parts = {"dense": DenseIndex, "sparse": SparseIndex, "multivector": MultiVectorIndex}
    return {name: kind(getattr(seeds, name)) for name, kind in parts.items()}


def hybrid_scores(asked, seeds):
    return {
        "dense": asked.dense @ seeds.dense.T,
        "sparse": (asked.sparse @ seeds.sparse.T).toarray(),
        "multivector": MultiVectorIndex(seeds.multivector).scores(asked.multivector),
    }


def test_hybrid_is_the_weighted_mean_with_ranks_of_each_output():
    rng = np.random.default_rng(6)
    seeds, asked = hybrid_seeds(rng, 80), hybrid_seeds(rng, 7)
    weights = (2.0, 0.5, 1.0)
    found = hybrid.search(indexes_of(seeds), asked, 12, weights=weights)
    by_output = hybrid_scores(asked, seeds)
    mixed = sum(w * s for w, s in zip(weights, by_output.values(), strict=True)) / 3.5
    assert_exact(found, mixed, 12)
    for name, scores in by_output.items():
        ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable") + 1
        np.testing.assert_array_equal(found.evidence[name].ranks, np.take_along_axis(ranks, found.rows, axis=1))
        own = np.take_along_axis(scores, found.rows, axis=1)
        np.testing.assert_allclose(found.evidence[name].scores, own, atol=1e-6)
    pairs = np.array([[q, d] for q in range(7) for d in range(80)])
    scored = pair_scores(asked, seeds, pairs, weights)
    for name, scores in {**by_output, "hybrid": mixed}.items():
        np.testing.assert_allclose(scored[name], scores.ravel(), atol=1e-5)
    with pytest.raises(UsageError, match="three numbers"):
        hybrid.search(indexes_of(seeds), asked, 12, weights=(1.0, 1.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6))
def test_hybrid_after_changes_and_under_a_filter_equals_brute_force(first, later, gone, allowed, seed):
    rng = np.random.default_rng(seed)
    seeds, asked = hybrid_seeds(rng, first + later), hybrid_seeds(rng, 3)
    indexes = indexes_of(seeds.take(np.arange(first)))
    weights = rng.permutation([0.0, 1.0, 2.5])
    removed, mask = rng.random(first + later) < gone, rng.random(first + later) < allowed
    for name, index in indexes.items():
        index.extend(getattr(seeds.take(np.arange(first, first + later)), name))
        index.remove(np.flatnonzero(removed))
    found = hybrid.search(indexes, asked, 9, weights=weights, allowed=mask)
    left = np.flatnonzero(mask & ~removed)
    by_output = hybrid_scores(asked, seeds)
    mixed = sum(w * s for w, s in zip(weights, by_output.values(), strict=True)) / 3.5
    assert found.rows.shape == (3, min(9, len(left)))
    expected = -np.sort(-mixed[:, left], axis=1)[:, : found.rows.shape[1]]
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert np.isin(found.rows, left).all()
    for name, scores in by_output.items():
        own = np.take_along_axis(scores, found.rows, axis=1)
        better = (scores[:, None, left] > own[:, :, None] + 1e-6).sum(axis=2)
        assert (found.evidence[name].ranks > better).all()


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 12), st.floats(0, 1), st.integers(0, 10**6))
def test_dense_after_changes_equals_a_fresh_index(rough, sizes, k, share, seed):
    """extend and remove, and a filter on top: what a fresh index over the surviving rows gives."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(-2, 3, (size, 6)).astype(np.float32) for size in sizes]
    index = DenseIndex(parts[0], rough=rough)
    for part in parts[1:]:
        index.extend(part)
        if len(index):
            index.remove(np.flatnonzero(rng.random(len(index)) < 0.05))
    rows = np.concatenate(parts)
    gone = np.flatnonzero(rng.random(len(rows)) < share)
    index.remove(gone)
    live = np.ones(len(rows), bool) if index._live.mask is None else index._live.mask
    asked = rng.integers(-2, 3, (3, 6)).astype(np.float32)
    survivors = np.flatnonzero(live)
    fresh = DenseIndex(rows[survivors], rough=rough).search(asked, k)
    for same in (index, DenseIndex.from_arrays(index.arrays())):
        found = same.search(asked, k)
        np.testing.assert_array_equal(found.rows, survivors[fresh.rows] if fresh.rows.size else fresh.rows)
        np.testing.assert_array_equal(found.scores, fresh.scores)
        allowed = rng.random(len(rows)) < share
        some = same.search(asked, k, allowed=allowed)
        kept = np.flatnonzero(allowed & live)
        few = DenseIndex(rows[kept], rough=rough).search(asked, k)
        np.testing.assert_array_equal(some.rows[:, : len(kept)], kept[few.rows] if few.rows.size else few.rows)
        assert (some.rows[:, len(kept) :] == -1).all()


@pytest.mark.parametrize("rough", ["int16", "int8", "fp32"])
def test_dense_snapshot_is_usable_memory_mapped(rough, tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "_suitable", lambda vectors: rough)
    rng = np.random.default_rng(9)
    rows, more, asked = unit(rng, 5000, 24), unit(rng, 30, 24), unit(rng, 5, 24)
    index = DenseIndex(rows[:4990])
    index.extend(rows[4990:])
    for name, array in index.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.iterdir()}
    again = DenseIndex.from_arrays(mapped)
    assert np.shares_memory(again._base, mapped["vectors"])
    assert again._rough is None or np.shares_memory(again._rough._base[0], mapped["rough"])
    monkeypatch.undo()
    again.extend(more)
    expected = DenseIndex(np.concatenate([rows, more])).search(asked, 12)
    found = again.search(asked, 12)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_filter_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected one for each of the 4 rows"):
        DenseIndex(np.eye(4, dtype=np.float32)).search(np.eye(4, dtype=np.float32), 1, allowed=np.ones(3, bool))


def test_multivector_after_changes_equals_a_fresh_index(tmp_path):
    rng = np.random.default_rng(11)
    documents = [unit(rng, rng.integers(0, 7), 8) for _ in range(60)]
    index = MultiVectorIndex(Ragged.of(documents[:20]))
    for start, stop in ((20, 21), (21, 50), (50, 60)):
        index.extend(Ragged.of(documents[start:stop]))
    gone = np.array([0, 3, 20, 44, 59])
    index.remove(gone)
    survivors = np.setdiff1d(np.arange(60), gone)
    fresh = MultiVectorIndex(Ragged.of([documents[i] for i in survivors]))
    queries = ragged(rng, 6, dim=8)
    expected = fresh.search(queries, 10)
    for name, array in index.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = MultiVectorIndex.from_arrays({p.stem: np.load(p, mmap_mode="r") for p in tmp_path.iterdir()})
    for same in (index, mapped):
        found = same.search(queries, 10)
        np.testing.assert_array_equal(found.rows, survivors[expected.rows])
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    allowed = np.arange(60) % 2 == 0
    some = index.search(queries, 60, allowed=allowed)
    assert set(some.rows[0].tolist()) - {-1} == set(np.flatnonzero(allowed).tolist()) - set(gone.tolist())


def test_multivector_over_candidates_equals_the_search_where_they_hold_the_best():
    rng = np.random.default_rng(12)
    index, queries = MultiVectorIndex(ragged(rng, 80)), ragged(rng, 5)
    full = index.search(queries, 30)
    shuffled = rng.permuted(full.rows, axis=1)
    shuffled[0, 5:] = -1
    found = index.rescore(queries, shuffled, 10)
    np.testing.assert_array_equal(found.rows[1:], full.rows[1:, :10])
    np.testing.assert_allclose(found.scores[1:], full.scores[1:, :10], atol=1e-6)
    assert set(found.rows[0].tolist()) == set(shuffled[0, :5].tolist()) | {-1}


@pytest.mark.parametrize("rough", ["fp32", "int16", "int8"])
def test_longer_rows_that_come_later_widen_the_bounds(rough):
    rng = np.random.default_rng(3)
    first, later = (rng.standard_normal((n, 16)).astype(np.float32) * size for n, size in ((3000, 1), (500, 1000)))
    index = DenseIndex(first, rough=rough)
    index.extend(later)
    longest = index._norm if index._rough is None else index._rough.norm
    assert longest >= np.linalg.norm(later, axis=1).max() * 0.999
    queries = rng.standard_normal((4, 16)).astype(np.float32)
    exact = queries.astype(np.float64) @ np.concatenate([first, later]).T.astype(np.float64)
    assert np.array_equal(index.search(queries, 5).rows, np.argsort(-exact, axis=1)[:, :5])
