"""Rows in fewer bits than float32, with proven bounds of what a product with them gets wrong.

Rows are centred first: ``q.x = q.c + q.(x - c)`` and the first term orders nothing, but embeddings of texts share a
common direction, and without it all errors shrink. What is kept of ``y = x - c`` is ``z``: in bf16, or as whole numbers
from -127 to 127 of a scale ``s`` for each dimension. The query is multiplied by the scales and rounded to ``a``, so
that

    |q.y - a.z| <= |q| |y - s z| + |s q - a| |z| + rounding of the sum and of the result

The norms on the right are measured, not estimated.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.models.runtimes.cpu import prefers_bf16
from ecom_rag.retrieval.dense_products import FEW
from ecom_rag.retrieval.growing import GrowingRows, forked, tensor

CHUNK = 65536  # rows a pass over all vectors holds beside them
Bounds = tuple[NDArray[np.float32] | None, np.float32]  # as ``Candidates`` takes them
EXACT: Bounds = (None, np.float32(0))
_STORED = {"bf16": np.int16, "int8": np.int8}  # bf16 by its bits
_LARGEST = 127


class Rows(Protocol):
    """An array of rows, or what is read like one: a part at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and dimensions."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Some rows."""


class RoughRows:
    """Rough copies of rows; new ones may come, and widen the bounds.

    Args:
        vectors: ``(n, dim)`` float32.
        kind: ``bf16`` or ``int8``.
    """

    def __init__(self, vectors: Rows, kind: str) -> None:
        dim = vectors.shape[1]
        parts = [slice(start, start + CHUNK) for start in range(0, len(vectors), CHUNK)]
        total = sum((vectors[part].sum(axis=0, dtype=np.float64) for part in parts), np.zeros(dim))
        centre = (total / max(len(vectors), 1)).astype(np.float32)
        scales = np.ones(dim, np.float32)
        if kind == "int8":
            largest = [np.abs(vectors[part] - centre).max(axis=0) for part in parts]
            scales = np.maximum(np.max(largest, axis=0, initial=0) / np.float32(_LARGEST), np.float32(1e-30))
        self._keep(centre, scales, np.zeros(3), np.empty(vectors.shape, _STORED[kind]))
        for part in parts:
            self._base[part] = self._rounded(vectors[part])

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The copies that gave ``arrays``; they are used as they are, memory-mapped ones too."""
        rows = cls.__new__(cls)
        rows._keep(arrays["centre"], arrays["scales"], np.array(arrays["bounds"]), arrays["rough"])
        return rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""
        rough = np.concatenate([self._base, self._tail.rows]) if len(self._tail) else self._base
        return {"centre": self._centre, "scales": self._scales, "bounds": self._bounds, "rough": rough}

    @property
    def kind(self) -> str:
        """``bf16`` or ``int8``."""
        return kind_of(self._base)

    @property
    def norm(self) -> float:
        """No row is longer."""
        return float(self._bounds[0]) + float(np.linalg.norm(self._centre))

    def extend(self, vectors: NDArray[np.float32]) -> None:
        """Append rows ``(m, dim)`` float32."""
        self._tail.extend(self._rounded(vectors))

    def fork(self) -> Self:
        """Copies of the same rows that can be extended while these are searched."""
        return forked(self)

    def segments(self) -> Iterator[tuple[int, Any]]:
        """First row and rows of each contiguous part: ``(m, dim)`` tensors, bf16 or int8."""
        for first, rows in ((0, self._base), (len(self._base), self._tail.rows)):
            found = tensor(rows)
            yield first, found.view(self._torch.bfloat16) if self.kind == "bf16" else found

    def asked(self, queries: Any) -> Any:
        """Queries ``(q, dim)`` float32 as they are to be multiplied with the rows; tensors, float32 or bf16."""
        scaled = queries * tensor(self._scales)
        narrow = len(queries) > FEW and (self.kind == "bf16" or prefers_bf16())
        return scaled.bfloat16() if narrow else scaled

    def bounds(self, queries: Any, asked: Any) -> Bounds:
        """For each query the largest error of a rough score, and the relative rounding of the result."""
        norm, residual, length = self._bounds.tolist()
        wide = asked.float()
        with np.errstate(invalid="ignore"):  # norms that overflow: a query without a finite bound gives up at once
            sizes, rough_sizes = queries.norm(dim=1).numpy(), wide.norm(dim=1).numpy()
            bound = sizes * residual + (queries * tensor(self._scales) - wide).norm(dim=1).numpy() * length
            bound += _rounding(queries) * (rough_sizes * length + sizes * (norm + float(np.linalg.norm(self._centre))))
        return bound.astype(np.float32), np.float32(2.0**-8 if asked.dtype == self._torch.bfloat16 else 2.0**-24)

    def _keep(self, centre: Any, scales: Any, bounds: NDArray[np.float64], base: NDArray[Any]) -> None:
        import torch

        self._torch = torch
        self._centre, self._scales, self._base = centre, scales, base
        self._bounds = bounds  # of the norms of y, of what is lost of it, and of z
        self._tail = GrowingRows(base.shape[1:], base.dtype)

    def _rounded(self, vectors: NDArray[np.float32]) -> NDArray[Any]:
        """``z`` as it is stored; the bounds are widened to hold for it."""
        centred = tensor(vectors) - tensor(self._centre)
        if self.kind == "bf16":
            narrow = centred.bfloat16()
            whole, stored = narrow.float(), narrow.view(self._torch.int16)
        else:
            whole = (centred / tensor(self._scales)).round_().clamp_(-_LARGEST, _LARGEST)
            stored = whole.to(self._torch.int8)
        lost = centred - whole * tensor(self._scales)
        norms = [float(part.norm(dim=1).max()) if len(part) else 0.0 for part in (centred, lost, whole)]
        self._bounds = np.maximum(self._bounds, norms)
        rows: NDArray[Any] = stored.numpy()
        return rows


def kind_of(rough: NDArray[Any]) -> str:
    """Of what ``RoughRows.arrays`` gave as ``rough``."""
    return next(kind for kind, dtype in _STORED.items() if rough.dtype == dtype)


def float32_bounds(queries: Any, norm: float) -> Bounds:
    """As ``RoughRows.bounds``, of products with float32 rows that are no longer than ``norm``."""
    return (2 * _rounding(queries) * queries.norm(dim=1).numpy() * norm).astype(np.float32), np.float32(2.0**-24)


def _rounding(queries: Any) -> float:
    """Of a float32 sum of so many terms, relative to the lengths of both; the final score has it once more."""
    return float((queries.shape[1] + 2) * 2.0**-23)
