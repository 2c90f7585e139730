"""What an encoder gives back, as arrays: dense rows, sparse rows, and one small matrix of vectors a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from ecom_rag import disk

OUTPUTS = ("dense", "sparse", "multivector")


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different lengths in one array: row ``i`` is ``values[offsets[i] : offsets[i + 1]]``.

    Args:
        values: ``(total, ...)``.
        offsets: ``(rows + 1,)`` int64, ascending from 0.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``(rows,)`` int64."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any]]) -> Self:
        """Join rows; at least one is needed to know the trailing shape."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return cls(np.concatenate(rows), np.concatenate([[0], np.cumsum(lengths)]))

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        """Rows by number, in the given order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[rows], lengths) + within], offsets)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of ``n`` texts; an output that was not asked for is ``None``.

    Args:
        dense: ``(n, dim)`` float32, rows of length 1.
        sparse: ``(n, vocabulary)`` CSR float32 of positive term weights.
        multivector: ``(tokens, dim)`` float32 with a row of length 1 for each token of each text.
    """

    dense: NDArray[np.float32] | None = None
    sparse: csr_matrix | None = None
    multivector: Ragged | None = None

    def __len__(self) -> int:
        for output in (self.dense, self.multivector):
            if output is not None:
                return len(output)
        return int(self.sparse.shape[0]) if self.sparse is not None else 0

    def take(self, rows: NDArray[np.int64]) -> "Embeddings":
        """The embeddings of some texts, by row number, in the given order."""
        return Embeddings(
            None if self.dense is None else self.dense[rows],
            None if self.sparse is None else self.sparse[rows],
            None if self.multivector is None else self.multivector.take(rows),
        )

    def save(self, path: Path) -> None:
        """Write one uncompressed ``.npz``."""
        arrays: dict[str, NDArray[Any]] = {}
        if self.dense is not None:
            arrays["dense"] = self.dense
        if self.sparse is not None:
            arrays |= {"sparse_data": self.sparse.data, "sparse_indices": self.sparse.indices}
            arrays |= {"sparse_indptr": self.sparse.indptr, "sparse_shape": np.array(self.sparse.shape)}
        if self.multivector is not None:
            arrays |= {"multi_values": self.multivector.values, "multi_offsets": self.multivector.offsets}
        with disk.writing(path), path.open("wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            weights = None
            if "sparse_data" in arrays:
                parts = (arrays["sparse_data"], arrays["sparse_indices"], arrays["sparse_indptr"])
                weights = csr_matrix(parts, shape=tuple(arrays["sparse_shape"]))
            multivector = Ragged(arrays["multi_values"], arrays["multi_offsets"]) if "multi_values" in arrays else None
            return cls(arrays.get("dense"), weights, multivector)

    @classmethod
    def concatenate(cls, parts: Sequence["Embeddings"]) -> Self:
        """Join blocks that hold the same outputs."""
        dense = [part.dense for part in parts if part.dense is not None]
        weights = [part.sparse for part in parts if part.sparse is not None]
        multi = [part.multivector for part in parts if part.multivector is not None]
        joined = None
        if multi:
            lengths = np.concatenate([part.lengths for part in multi])
            joined = Ragged(np.concatenate([part.values for part in multi]), np.concatenate([[0], np.cumsum(lengths)]))
        return cls(
            np.concatenate(dense) if dense else None,
            vstack(weights, format="csr") if weights else None,
            joined,
        )
