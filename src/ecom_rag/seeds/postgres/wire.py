"""pgvector's binary forms of ``vector`` and ``sparsevec``, to and from arrays; its numbers are big-endian."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.seeds.remote.terms import DIMENSIONS

MOST_TERMS = 16_000  # the most that are not 0


def vectors(rows: NDArray[np.float32]) -> list[bytes]:
    """The rows ``(n, dim)`` as vectors."""
    head = np.array([rows.shape[1], 0], ">i2").tobytes()
    return [head + row.tobytes() for row in rows.astype(">f4")]


def of_vectors(values: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """What ``vectors`` gave, ``(n, dim)``."""
    whole = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), 4 + 4 * dimension)
    return np.ascontiguousarray(whole[:, 4:]).view(">f4").astype(np.float32)


def sparse_vectors(matrix: csr_matrix) -> list[bytes]:
    """The rows of a matrix as sparse vectors.

    Args:
        matrix: ``(n, dimensions)`` CSR float32, indices ascending within a row and no weight 0.
    """
    counts = np.diff(matrix.indptr)
    heads = np.column_stack([np.full(len(counts), DIMENSIONS), counts, np.zeros(len(counts))]).astype(">i4")
    indices, values = matrix.indices.astype(">i4").tobytes(), matrix.data.astype(">f4").tobytes()
    starts = (4 * matrix.indptr).tolist()
    return [
        head.tobytes() + indices[start:stop] + values[start:stop]
        for head, start, stop in zip(heads, starts[:-1], starts[1:], strict=True)
    ]


def of_sparse_vectors(values: Sequence[bytes], dimensions: int) -> csr_matrix:
    """What ``sparse_vectors`` gave."""
    counts = [(len(value) - 12) // 8 for value in values]
    indices = [np.frombuffer(value, ">i4", count, 12) for value, count in zip(values, counts, strict=True)]
    weights = [np.frombuffer(value, ">f4", count, 12 + 4 * count) for value, count in zip(values, counts, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])
    return csr_matrix(
        (_joined(weights, np.float32), _joined(indices, np.int32), offsets), shape=(len(values), dimensions)
    )


def sparse_text(terms: NDArray[np.int64], weights: NDArray[np.float32]) -> str:
    """A sparse vector as text.

    Args:
        terms: ``(n,)`` from 0, ascending.
        weights: ``(n,)``, none of them 0.
    """
    pairs = ",".join(f"{term + 1}:{weight!r}" for term, weight in zip(terms.tolist(), weights.tolist(), strict=True))
    return f"{{{pairs}}}/{DIMENSIONS}"


def _joined(parts: list[Any], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)
