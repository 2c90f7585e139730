import numpy as np
import pytest
from scipy.sparse import csr_matrix, random, vstack

from ecom_rag.errors import EmbeddingError
from ecom_rag.retrieval import SparseIndex, postings


def weights(rows, seed, density=0.05):
    return random(rows, 300, density, "csr", np.float32, rng=np.random.default_rng(seed))


def test_changes_end_where_a_fresh_index_does(monkeypatch, tmp_path):
    monkeypatch.setattr(postings, "FULL", (0, 2000, 400, 60))
    rng = np.random.default_rng(0)
    parts = [weights(int(rng.integers(1, 60)), seed) for seed in range(20)]
    index = SparseIndex(parts[0])
    gone: list[int] = []
    for part in parts[1:]:
        index.extend(part)
        gone += rng.integers(0, len(index), 3).tolist()
        index.remove(np.array(gone[-3:]))
    every = vstack(parts).tocsr()
    live = np.setdiff1d(np.arange(every.shape[0]), gone)
    queries = weights(9, 99)
    expected = SparseIndex(every[live]).search(queries, 1000)
    for name, array in index.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = SparseIndex.from_arrays({p.stem: np.load(p, mmap_mode="r") for p in tmp_path.iterdir()})
    for same in (index, mapped):
        found = same.search(queries, 1000)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.rows, np.where(expected.rows < 0, -1, live[expected.rows]))
    mapped.extend(every[:2])
    assert len(mapped) == len(index) + 2
    # Rows that are filtered away are no result; those that remain keep their scores.
    allowed = np.zeros(len(index), bool)
    allowed[live[::3]] = True
    some = index.search(queries, 1000, allowed=allowed)
    dense = (queries @ every.T).toarray()
    for row in range(9):
        ids = some.rows[row][some.rows[row] >= 0]
        assert set(ids) == set(np.flatnonzero((dense[row] > 0) & allowed))
        np.testing.assert_allclose(some.scores[row, : len(ids)], dense[row][ids], rtol=1e-5)


def test_duplicates_within_a_row_are_summed():
    doubled = csr_matrix((np.ones(3, np.float32), np.array([1, 1, 2]), np.array([0, 3])), shape=(1, 5))
    assert SparseIndex(doubled).search(csr_matrix(np.eye(5, dtype=np.float32)[1:2]), 1).scores.tolist() == [[2.0]]


def test_what_does_not_fit_is_refused():
    index = SparseIndex(weights(5, 1))
    bad = weights(3, 2)
    bad.data[0] = np.nan
    row = int(np.searchsorted(bad.indptr, 0, side="right")) - 1
    with pytest.raises(EmbeddingError, match=f"row {row} holds NaN"):
        index.extend(bad)
    with pytest.raises(EmbeddingError, match="vocabulary"):
        index.extend(weights(3, 2)[:, :10])
