"""What an encoder gives back, as arrays: dense rows, sparse rows, and one small matrix of vectors a text."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.files import disk

_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
OUTPUTS = ("dense", "sparse", "multivector")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Ragged:
    """Rows of different lengths in one array: row ``i`` is ``values[offsets[i] : offsets[i + 1]]``.

    Args:
        values: ``(total, ...)``.
        offsets: ``(rows + 1,)`` int64, ascending from 0.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"Ragged({len(self)} rows, values {'x'.join(map(str, self.values.shape))})"

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

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"]) -> Self:
        """Join arrays, of which there is at least one."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        """Rows by number, in the given order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[rows], lengths) + within], offsets)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
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

    def __repr__(self) -> str:
        shapes = {
            "dense": None if self.dense is None else self.dense.shape,
            "sparse": None if self.sparse is None else self.sparse.shape,
            "multivector": None if self.multivector is None else self.multivector.values.shape,
        }
        shown = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items() if shape is not None)
        return f"Embeddings({len(self)} texts: {shown})" if shown else "Embeddings(none)"

    def __len__(self) -> int:
        for output in (self.dense, self.multivector):
            if output is not None:
                return len(output)
        return int(self.sparse.shape[0]) if self.sparse is not None else 0

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> "Embeddings":
        """The embeddings of some texts.

        Args:
            rows: ``(m,)`` row numbers from 0, in the order wanted.

        Returns:
            ``m`` rows of every output.
        """
        rows = np.asarray(rows, np.int64)
        return Embeddings(
            None if self.dense is None else self.dense[rows],
            None if self.sparse is None else self.sparse[rows],
            None if self.multivector is None else self.multivector.take(rows),
        )

    def save(self, path: PathLike) -> None:
        """Write one uncompressed ``.npz``.

        Args:
            path: File to write; what is there is replaced.

        Raises:
            UsageError: Not a path.
        """
        arrays: dict[str, NDArray[Any]] = {}
        if self.dense is not None:
            arrays["dense"] = self.dense
        if self.sparse is not None:
            arrays |= {"sparse_data": self.sparse.data, "sparse_indices": self.sparse.indices}
            arrays |= {"sparse_indptr": self.sparse.indptr, "sparse_shape": np.array(self.sparse.shape)}
        if self.multivector is not None:
            arrays |= {"multi_values": self.multivector.values, "multi_offsets": self.multivector.offsets}
        path = Path(path_of(path, "path"))
        with disk.writing(path), path.open("wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read what ``save`` wrote.

        Args:
            path: The file.

        Raises:
            UsageError: No such file.
            EmbeddingError: Something else than ``save`` writes, or a damaged file.
        """
        name = path_of(path, "path")
        try:
            return cls._load(name)
        except FileNotFoundError:
            raise UsageError(f"{name}: no such file; expected embeddings that Embeddings.save wrote") from None
        except _DAMAGED as error:
            kind = type(error).__name__
            raise EmbeddingError(f"{name}: is not what Embeddings.save writes, or is damaged ({kind})") from None

    @classmethod
    def _load(cls, path: str) -> Self:
        with np.load(path, allow_pickle=False) as arrays:
            weights = None
            if "sparse_data" in arrays:
                parts = (arrays["sparse_data"], arrays["sparse_indices"], arrays["sparse_indptr"])
                weights = csr_matrix(parts, shape=tuple(arrays["sparse_shape"]))
            multivector = Ragged(arrays["multi_values"], arrays["multi_offsets"]) if "multi_values" in arrays else None
            return cls(arrays.get("dense"), weights, multivector)

    @classmethod
    def concatenate(cls, parts: Sequence["Embeddings"]) -> Self:
        """Join blocks that hold the same outputs.

        Args:
            parts: At least one block, in order.

        Raises:
            EmbeddingError: No block, or blocks of different outputs.
        """
        held = {tuple(getattr(part, name) is None for name in OUTPUTS) for part in parts}
        if len(held) != 1:
            found = "no blocks" if not parts else "blocks that hold different outputs"
            raise EmbeddingError(f"found {found}; expected at least one, all with the same outputs")
        dense = [part.dense for part in parts if part.dense is not None]
        weights = [part.sparse for part in parts if part.sparse is not None]
        multi = [part.multivector for part in parts if part.multivector is not None]
        return cls(
            np.concatenate(dense) if dense else None,
            vstack(weights, format="csr") if weights else None,
            Ragged.concatenate(multi) if multi else None,
        )
