"""Exact inner-product search: rough products find the candidates, float32 scores decide among them.

On a CPU that multiplies bf16 faster than float32 (``cpu.prefers_bf16``) the rough product is in bf16. Raw bf16 loses
some percent of the neighbours, so every row whose rough score is within a proven error bound of the k-th is rescored.
Rough rows are centred: ``q.x = q.c + q.(x - c)`` and the first term orders nothing, but embeddings of texts share a
common direction, and without it all errors shrink. With ``y = x - c``, rounded ``q'`` and ``y'``:

    |q.y - rough| <= |q - q'| |y| + |q'| |y - y'| + rounding of the sum and of the result

The norms of the residuals are measured, not estimated. Queries with more candidates than are worth rescoring one by one
are searched again together, with products of a smaller error, and at last with the float32 scores themselves. The
result is that of a float32 brute force, and each score depends on its query and its row alone, not on what else was
searched.
"""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.runtimes.cpu import prefers_bf16
from ecom_rag.retrieval import dense_kernels as kernels
from ecom_rag.retrieval.dense_products import FEW, blocks
from ecom_rag.retrieval.growing import GrowingRows, LiveRows, combine, forked, tensor
from ecom_rag.retrieval.ranking import Ranking

_QUERIES = 1024  # queries a tile
_PROBE = 32  # queries that tell whether rough candidates can be certified on these rows
_SMALL = 2048  # fewer rows than this are not worth a bf16 copy
_CHUNK = 65536  # rows a pass over all vectors holds beside them
_FEW = 16  # less than one row in this many is scored row by row: left by a filter, or the candidates of a query
_TOGETHER = 32  # queries from which on a product of matrices is faster than the float32 scores


class DenseIndex:
    """Seeds' dense embeddings, ready for exact inner-product search.

    Args:
        vectors: ``(n, dim)`` float32; kept, not copied (a bf16 copy is added where it pays).
        rough: ``bf16`` or ``fp32``: the precision of the candidate step; by default what this CPU is faster at.

    Raises:
        EmbeddingError: NaN or infinity.
    """

    def __init__(self, vectors: NDArray[np.float32], *, rough: str | None = None) -> None:
        vectors = np.ascontiguousarray(vectors, np.float32)
        check_finite(vectors, "seed embeddings")
        self._precision = rough
        self._norm = 0.0
        self._live = LiveRows()
        self._set_base(vectors)

    def __len__(self) -> int:
        return len(self._base) + len(self._tail)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._base.shape[1])

    def extend(self, vectors: NDArray[np.float32]) -> None:
        """Append rows ``(m, dim)`` float32.

        Raises:
            EmbeddingError: Another dimension, NaN or infinity.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if len(self) and vectors.shape[1] != self.dimension:
            raise EmbeddingError(
                f"new rows have {vectors.shape[1]} dimensions, the seeds {self.dimension};"
                " encode both with the same checkpoint"
            )
        check_finite(vectors, "new embeddings")
        if len(vectors) == 0:
            return
        self._live.extend(len(vectors))
        if len(self._tail) + len(vectors) > len(self._base):  # as large as the base: become part of it
            parts = [self._base, self._tail.rows, vectors] if len(self) else [vectors]
            self._set_base(np.concatenate(parts))
            return
        self._tail.extend(vectors)
        if self._bf16:
            self._tail_rough.extend(self._rough_of(vectors).view(self._torch.int16).numpy())
        else:
            self._norm = max(self._norm, float(tensor(vectors).norm(dim=1).max()))

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched."""
        return forked(self)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Rows that are never returned again; the numbers of the others stay."""
        self._live.remove(rows, len(self))

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The k rows with the largest inner product.

        Args:
            queries: ``(q, dim)`` float32.
            k: At most the number of rows is returned.
            allowed: ``(n,)``: rows that may be returned; by default all.

        Returns:
            Row numbers and float32 inner products (cosines, for rows of length 1), best first.

        Raises:
            EmbeddingError: The dimensions differ, or a query holds NaN or infinity.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        k = min(k, self._live.count(len(self)))
        found = Ranking.empty(len(queries), k)
        mask = combine(self._live.mask, allowed, len(self))
        if found.rows.size == 0:
            return found
        if queries.shape[1] != self.dimension:
            raise EmbeddingError(
                f"queries have {queries.shape[1]} dimensions, the seeds {self.dimension};"
                " encode both with the same checkpoint"
            )
        check_finite(queries, "query embeddings")
        everything = np.arange(len(queries))
        if mask is not None:
            rows = np.flatnonzero(mask)
            if len(rows) * _FEW <= len(self):
                for part in np.array_split(everything, range(_QUERIES, len(queries), _QUERIES)):
                    self._search_tile(queries, part, None, found, "scores", rows)
                return found
        start, bf16, tile = 0, self._bf16, min(_QUERIES, kernels.tile_of(k))
        while start < len(queries):
            part = everything[start:][: _PROBE if start == 0 and bf16 and len(queries) > 4 * _PROBE else tile]
            left = self._search_tile(queries, part, mask, found, "bf16") if bf16 else part
            bf16 = bf16 and 2 * len(left) < len(part)
            if len(left) > _TOGETHER:
                left = self._search_tile(queries, left, mask, found, "fp32")
            if len(left):
                self._search_tile(queries, left, mask, found, "scores")
            start += len(part)
        return found

    @property
    def live(self) -> NDArray[np.bool_] | None:
        """``(n,)``: rows that have not been removed; ``None`` for all."""
        return self._live.mask

    def scores(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every row's inner product: ``(q, n)`` float32, of removed rows too; good to float32's rounding of sums."""
        check_finite(queries, "query embeddings")
        return np.concatenate([queries @ self._base.T, queries @ self._tail.rows.T], axis=1)

    def pair_scores(self, queries: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products of given pairs ``(p, 2)`` of queries and rows: ``(p,)``, each as ``search`` gives it."""
        found: NDArray[np.float32] = kernels.dots(queries, self._base, self._tail.rows, pairs)
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        vectors = np.concatenate([self._base, self._tail.rows]) if len(self._tail) else self._base
        state = {"vectors": vectors, "centre": self._centre, "bounds": np.array([self._norm, self._residual])}
        if self._bf16:
            bits = self._rough.view(self._torch.int16).numpy()
            state["rough"] = np.concatenate([bits, self._tail_rough.rows]) if len(self._tail) else bits
        return state | self._live.arrays()

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The index that gave ``arrays``; they are used as they are, memory-mapped ones too."""
        index = cls(np.empty((0, arrays["vectors"].shape[1]), np.float32))
        rough = arrays.get("rough")
        if (rough is not None) != (prefers_bf16() and len(arrays["vectors"]) >= _SMALL):
            index._set_base(arrays["vectors"])  # written on another kind of CPU
        else:
            norm, residual = arrays["bounds"].tolist()
            index._keep(arrays["vectors"], arrays["centre"], norm, residual, rough)
        index._live = LiveRows.of(arrays)
        return index

    def _keep(
        self, vectors: NDArray[np.float32], centre: NDArray[Any], norm: float, residual: float, rough: Any
    ) -> None:
        import torch

        self._torch = torch
        self._base = tensor(vectors).numpy()  # never read-only: the kernels are compiled for one kind of array
        self._centre, self._norm, self._residual = centre, norm, residual
        self._bf16 = rough is not None
        self._rough: Any = None if rough is None else tensor(rough).view(torch.bfloat16)
        self._tail = GrowingRows((vectors.shape[1],), np.float32)
        self._tail_rough = GrowingRows((vectors.shape[1],), np.int16)

    def _set_base(self, vectors: NDArray[np.float32]) -> None:
        bf16 = self._precision == "bf16" or (self._precision is None and len(vectors) >= _SMALL and prefers_bf16())
        centre = np.zeros(vectors.shape[1], np.float32)
        if bf16 and len(vectors):
            centre = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        rough = np.empty(vectors.shape, np.int16) if bf16 else None
        self._keep(vectors, centre, 0.0, 0.0, rough)
        for start in range(0, len(vectors), _CHUNK):
            part = slice(start, start + _CHUNK)
            if rough is not None:
                rough[part] = self._rough_of(vectors[part]).view(self._torch.int16).numpy()
            else:
                self._norm = max(self._norm, float(tensor(vectors[part]).norm(dim=1).max()))

    def _rough_of(self, vectors: NDArray[np.float32]) -> Any:
        """Centred rows in bf16; the bounds are widened to hold for them."""
        centred = tensor(vectors) - tensor(self._centre)
        rounded = centred.bfloat16()
        self._norm = max(self._norm, float(centred.norm(dim=1).max()))
        self._residual = max(self._residual, float((centred - rounded.float()).norm(dim=1).max()))
        return rounded

    def _segments(self, kind: str, rows: NDArray[np.int64] | None) -> Iterator[tuple[int, Any]]:
        """First row and rows of each contiguous part; of given ``rows`` first place and copies of them."""
        if rows is not None:
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                split = np.searchsorted(part, len(self._base))
                yield (
                    start,
                    tensor(np.concatenate([self._base[part[:split]], self._tail.rows[part[split:] - len(self._base)]])),
                )
        elif kind == "bf16":
            yield 0, self._rough
            yield len(self._base), tensor(self._tail_rough.rows).view(self._torch.bfloat16)
        else:
            yield 0, tensor(self._base)
            yield len(self._base), tensor(self._tail.rows)

    def _search_tile(
        self,
        queries: NDArray[np.float32],
        which: NDArray[np.int64],
        mask: NDArray[np.bool_] | None,
        found: Ranking,
        kind: str,
        rows: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Search for some of the queries with products of one kind; returns those with too many candidates."""
        part = Ranking.empty(len(which), found.rows.shape[1])
        exact = self._torch.from_numpy(queries[which])
        rough = exact.bfloat16() if kind == "bf16" and len(which) > FEW else exact
        bound, relative = (None, np.float32(0)) if kind == "scores" else self._bounds(exact, rough, kind)
        candidates = kernels.Candidates(len(which), part.rows.shape[1], len(self) // _FEW, bound, relative)
        allowed = np.empty(0, bool) if mask is None else mask
        for first, segment in self._segments(kind, rows):
            for start, bits in blocks(rough, segment, final=kind == "scores"):
                candidates.take(bits, first + start, allowed)
        candidates.settle(exact.numpy(), self._base, self._tail.rows, part.rows, part.scores)
        if rows is not None:
            there = part.rows >= 0
            part.rows[there] = rows[part.rows[there]]
        found.rows[which], found.scores[which] = part.rows, part.scores
        return which[candidates.counts < 0]

    def _bounds(self, exact: Any, rough: Any, kind: str) -> tuple[NDArray[np.float32], np.float32]:
        """For each query the largest error of a rough score, and the relative rounding of the result."""
        centre = float(tensor(self._centre).norm())
        norm, residual = (self._norm, self._residual) if kind == "bf16" else (self._norm + centre, 0.0)
        rough_norm = rough.float().norm(dim=1).numpy()
        with np.errstate(invalid="ignore"):  # norms that overflow: a query without a finite bound gives up at once
            bound = (exact - rough.float()).norm(dim=1).numpy() * norm + rough_norm * residual
            # float32 sums of so many terms, here and in the final score
            bound += self.dimension * 2.0**-23 * rough_norm * (norm + residual + centre)
        return bound.astype(np.float32), np.float32(2.0**-8 if rough.dtype == self._torch.bfloat16 else 2.0**-24)


def check_finite(vectors: NDArray[np.float32], what: str) -> None:
    """Raise ``EmbeddingError`` for NaN or infinity."""
    for start in range(0, len(vectors), _CHUNK):
        block = vectors[start : start + _CHUNK]
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise EmbeddingError(f"{what}: row {row} holds NaN or infinity; encode it again")
