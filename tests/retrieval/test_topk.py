import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.retrieval import SparseIndex
from ecom_rag.retrieval.topk import select


def slow(row, k, floor):
    order = np.lexsort((np.arange(len(row)), -row))
    order = order[row[order] > floor][:k]
    return np.pad(order, (0, k - len(order)), constant_values=-1)


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200, 5000])
@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("floor", [-np.inf, 0.0])
def test_selection_is_that_of_a_full_sort(columns, k, floor):
    rng = np.random.default_rng(columns + k)
    scores = rng.integers(-5, 12, (6, columns)).astype(np.float32)  # many ties
    scores[1], scores[2] = 3, -np.inf
    scores[3] = rng.standard_normal(columns)
    found = select(scores, k, floor=floor)
    for row in range(6):
        np.testing.assert_array_equal(found.rows[row], slow(scores[row], k, floor))
        at = found.rows[row] >= 0
        np.testing.assert_array_equal(found.scores[row, at], scores[row, found.rows[row, at]])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_gathered_and_scanned_rows_are_selected_alike(share):
    # Few, some and many rows share a term with the query: each takes another way to the same k.
    rng = np.random.default_rng(3)
    dense = np.where(rng.random((20_000, 1)) < share, rng.integers(1, 50, (20_000, 1)), 0).astype(np.float32)
    found = SparseIndex(csr_matrix(dense)).search(csr_matrix(np.ones((5, 1), np.float32)), 3)
    for row in range(5):
        np.testing.assert_array_equal(found.rows[row], slow(dense[:, 0], 3, 0))


def test_negative_weights_are_refused():
    with pytest.raises(EmbeddingError, match="below 0"):
        SparseIndex(csr_matrix(np.array([[1.0, -0.5]], np.float32)))
