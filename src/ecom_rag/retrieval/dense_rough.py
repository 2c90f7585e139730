"""Rows in fewer bits than float32, with proven bounds of what a product with them gets wrong.

Rows are centred first: ``q.x = q.c + q.(x - c)`` and the first term orders nothing, but embeddings of texts share a
common direction, and without it all errors shrink. ``y = x - c`` is kept as whole numbers of a scale ``s`` for each
dimension, of 16 bits in two planes of bytes, or of eight in one. A few queries read the plane of the high bytes alone,
which is what takes their time; many are multiplied with all 16 bits rounded to bf16. What a row is multiplied as is
``z``. The query is multiplied by the scales and rounded to ``a``, so that

    |q.y - a.z| <= |q| |y - s z| + |s q - a| |z| + rounding of the sum and of the result

The norms on the right are measured, not estimated.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.models.runtimes.cpu import prefers_bf16
from ecom_rag.retrieval.dense_products import FEW, LARGEST, Planes, Whole
from ecom_rag.retrieval.growing import GrowingRows, forked, tensor

CHUNK = 65536  # rows a pass over all vectors holds beside them
Bounds = tuple[NDArray[np.float32] | None, np.float32]  # as ``Candidates`` takes them
EXACT: Bounds = (None, np.float32(0))
_NAMES = ("rough", "low")  # the planes of bytes, as they are saved
_KINDS = ("int8", "int16")  # by the number of planes
_LARGEST = 256 * LARGEST


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
        kind: ``int16`` or ``int8``.
    """

    def __init__(self, vectors: Rows, kind: str) -> None:
        dim = vectors.shape[1]
        parts = [slice(start, start + CHUNK) for start in range(0, len(vectors), CHUNK)]
        total = sum((vectors[part].sum(axis=0, dtype=np.float64) for part in parts), np.zeros(dim))
        centre = (total / max(len(vectors), 1)).astype(np.float32)
        largest = [np.abs(vectors[part] - centre).max(axis=0) for part in parts]
        scales = np.maximum(np.max(largest, axis=0, initial=0) / np.float32(_LARGEST), np.float32(1e-30))
        planes = [np.empty(vectors.shape, np.int8) for _ in range(1 + _KINDS.index(kind))]
        self._keep(centre, scales, np.zeros(1 + 2 * len(planes)), planes)
        for part in parts:
            for plane, bytes_ in zip(planes, self._rounded(vectors[part]), strict=True):
                plane[part] = bytes_

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The copies that gave ``arrays``; they are used as they are, memory-mapped ones too."""
        rows = cls.__new__(cls)
        planes = [arrays[name] for name in _NAMES if name in arrays]
        rows._keep(arrays["centre"], arrays["scales"], np.array(arrays["bounds"]), planes)
        return rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs."""
        planes = (
            np.concatenate([base, tail.rows]) if len(tail) else base
            for base, tail in zip(self._base, self._tail, strict=True)
        )
        named = dict(zip(_NAMES, planes, strict=False))
        return {"centre": self._centre, "scales": self._scales, "bounds": self._bounds} | named

    @property
    def kind(self) -> str:
        """``int16`` or ``int8``."""
        return _KINDS[len(self._base) - 1]

    @property
    def norm(self) -> float:
        """No row is longer."""
        return float(self._bounds[0]) + float(np.linalg.norm(self._centre))

    def extend(self, vectors: NDArray[np.float32]) -> None:
        """Append rows ``(m, dim)`` float32."""
        for tail, plane in zip(self._tail, self._rounded(vectors), strict=True):
            tail.extend(plane)

    def fork(self) -> Self:
        """Copies of the same rows that can be extended while these are searched."""
        return forked(self)

    def segments(self) -> Iterator[tuple[int, Planes]]:
        """First row and rows of each contiguous part."""
        for first, planes in ((0, self._base), (len(self._base[0]), [tail.rows for tail in self._tail])):
            high, *low = (tensor(plane).numpy() for plane in planes)
            yield first, Planes(high, low[0] if low else None)

    def asked(self, queries: Any) -> Any:
        """Queries ``(q, dim)`` float32 as they are to be multiplied with the rows: a tensor, or ``Whole``."""
        scaled = queries * tensor(self._scales)
        if len(queries) <= FEW:
            return Whole.of(256 * scaled.numpy())
        return scaled.bfloat16() if prefers_bf16() else scaled

    def bounds(self, queries: Any, asked: Any) -> Bounds:
        """For each query the largest error of a rough score, and the relative rounding of the result."""
        few = isinstance(asked, Whole)
        norm, *measured = self._bounds.tolist()
        residual, length = measured[:2] if few else measured[-2:]
        wide = tensor(asked.values() / np.float32(256)) if few else asked.float()
        with np.errstate(invalid="ignore"):  # norms that overflow: a query without a finite bound gives up at once
            sizes, rough_sizes = queries.norm(dim=1).numpy(), wide.norm(dim=1).numpy()
            bound = sizes * residual + (queries * tensor(self._scales) - wide).norm(dim=1).numpy() * length
            bound += _rounding(queries) * (rough_sizes * length + sizes * (norm + float(np.linalg.norm(self._centre))))
        return bound.astype(np.float32), np.float32(2.0**-24 if few or wide is asked else 2.0**-8)

    def _keep(self, centre: Any, scales: Any, bounds: NDArray[np.float64], planes: list[NDArray[Any]]) -> None:
        self._centre, self._scales, self._base = centre, scales, planes
        self._bounds = bounds  # norms of y, then of what is lost of it and of z: in one plane, in both
        self._tail = tuple(GrowingRows(planes[0].shape[1:], np.int8) for _ in planes)

    def _rounded(self, vectors: NDArray[np.float32]) -> list[NDArray[np.int8]]:
        """The bytes of ``z``, a plane after the other; the bounds are widened to hold for it."""
        scales = tensor(self._scales)
        centred = tensor(vectors) - tensor(self._centre)
        number = (centred / scales).round_().clamp_(-_LARGEST, _LARGEST)
        high = ((number + 128) / 256).floor_()
        planes, multiplied = [high], [256 * high]
        if len(self._base) > 1:
            planes.append(number - 256 * high)
            multiplied.append(number.bfloat16().float())
        measured = [centred, *(part for z in multiplied for part in (centred - z * scales, z))]
        norms = [float(part.norm(dim=1).max()) if len(part) else 0.0 for part in measured]
        self._bounds = np.maximum(self._bounds, norms)
        return [plane.numpy().astype(np.int8) for plane in planes]


def kind_of(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """What ``RoughRows.arrays`` came from; ``fp32`` without any, ``None`` for what an earlier version wrote."""
    planes = [arrays[name] for name in _NAMES if name in arrays]
    if len(arrays["bounds"]) != 1 + 2 * len(planes) or any(plane.dtype != np.int8 for plane in planes):
        return None
    return _KINDS[len(planes) - 1] if planes else "fp32"


def float32_bounds(queries: Any, norm: float) -> Bounds:
    """As ``RoughRows.bounds``, of products with float32 rows that are no longer than ``norm``."""
    return (2 * _rounding(queries) * queries.norm(dim=1).numpy() * norm).astype(np.float32), np.float32(2.0**-24)


def _rounding(queries: Any) -> float:
    """Of a float32 sum of so many terms, relative to the lengths of both; the final score has it once more."""
    return float((queries.shape[1] + 2) * 2.0**-23)
