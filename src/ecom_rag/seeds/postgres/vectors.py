"""Vectors in the server's tables."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.seeds.postgres import wire


def stored_dense(db: Any, rows: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """Vectors of rows that are there, ascending."""
    return wire.of_vectors(_values(db, "dense", rows), dimension)


def stored_sparse(db: Any, rows: NDArray[np.int64], vocabulary: int) -> csr_matrix:
    """Term weights of rows that are there, ascending."""
    return wire.of_sparse_vectors(_values(db, "sparse", rows), vocabulary)


def _values(db: Any, table: str, rows: NDArray[np.int64]) -> list[bytes]:
    query = f"SELECT value FROM {table} WHERE row = ANY(%s) ORDER BY row"
    with db.cursor(binary=True) as cursor:
        return [value for (value,) in cursor.execute(query, (rows.tolist(),))]
