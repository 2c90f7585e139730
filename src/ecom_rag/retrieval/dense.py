"""Exact inner-product search: rough products find the candidates, float32 scores decide among them.

On a CPU that multiplies bf16 faster than float32 (``cpu.prefers_bf16``) the rough products are of rows in whole numbers
of 16 bits, and over very many rows on any CPU of eight bits, which take half of the memory. Either alone loses some of
the neighbours, so every row whose rough score is within a proven bound of the k-th (``dense_rough``) is rescored.
Queries with more candidates than are worth rescoring one by one are searched again together, with float32 products,
and at last with the float32 scores themselves. The result is that of a float32 brute force, and each score depends on
its query and its row alone, not on what else was searched.
"""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.runtimes.cpu import prefers_bf16
from ecom_rag.retrieval import dense_kernels as kernels
from ecom_rag.retrieval.dense_products import blocks
from ecom_rag.retrieval.dense_rough import CHUNK, EXACT, RoughRows, Rows, float32_bounds, kind_of
from ecom_rag.retrieval.growing import GrowingRows, LiveRows, combine, forked, read_at_random, rows_of, tensor
from ecom_rag.retrieval.ranking import Ranking

_QUERIES = 1024  # queries a tile
_PROBE = 32  # queries that tell whether rough candidates can be certified on these rows
_SMALL = 2048  # fewer rows than this are not worth a rough copy
_LARGE = 4 << 30  # bytes of float32 from which on the rough copy is in eight bits
_FEW = 16  # less than one row in this many is scored row by row: left by a filter, or the candidates of a query
_TOGETHER = 32  # queries from which on a product of matrices is faster than the float32 scores


class DenseIndex:
    """Seeds' dense embeddings, ready for exact inner-product search.

    Args:
        vectors: ``(n, dim)`` float32; kept, not copied (a rough copy is added where it pays).
        rough: ``int16``, ``int8`` or ``fp32``: the precision of the candidate step; by default what suits this CPU and
            so many rows.

    Raises:
        EmbeddingError: NaN or infinity.
    """

    _base: NDArray[Any]
    _tail: GrowingRows
    _rough: RoughRows | None
    _norm: float  # of the longest row, where there is no rough copy

    def __init__(self, vectors: NDArray[np.float32], *, rough: str | None = None) -> None:
        vectors = np.ascontiguousarray(vectors, np.float32)
        check_finite(vectors, "seed embeddings")
        self._precision = rough
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
        if self._rough is not None:
            self._rough.extend(vectors)
        else:
            self._norm = max(self._norm, float(tensor(vectors).norm(dim=1).max()))

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched."""
        index = forked(self)
        index._rough = self._rough and self._rough.fork()
        return index

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
        start, rough, tile = 0, self._rough is not None, min(_QUERIES, kernels.tile_of(k))
        while start < len(queries):
            part = everything[start:][: _PROBE if start == 0 and rough and len(queries) > 4 * _PROBE else tile]
            left = self._search_tile(queries, part, mask, found, "rough") if rough else part
            rough = rough and 2 * len(left) < len(part)
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
        rough = {"bounds": np.array([self._norm])} if self._rough is None else self._rough.arrays()
        return {"vectors": vectors} | rough | self._live.arrays()

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone: views, under the bounds of all rows."""
        return {**arrays, **rows_of(arrays, first, stop, "vectors", "rough", "low", "live")}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The index that gave ``arrays``; they are used as they are, memory-mapped ones too."""
        vectors = arrays["vectors"]
        index = cls(np.empty((0, vectors.shape[1]), np.float32))
        kind = kind_of(arrays)
        if kind not in (_suitable(vectors), "int8"):
            index._set_base(vectors)  # written on another kind of CPU, or by an earlier version
        elif kind == "fp32":
            index._keep(vectors, None, float(arrays["bounds"][0]))
        else:
            index._keep(vectors, RoughRows.from_arrays(arrays), 0.0)
        index._live = LiveRows.of(arrays)
        return index

    def _keep(self, vectors: NDArray[np.float32], rough: RoughRows | None, norm: float) -> None:
        import torch

        self._torch = torch
        if rough is not None and rough.kind == "int8":
            read_at_random(vectors)  # of so many a search reads the candidates alone
        self._base = tensor(vectors).numpy()  # never read-only: the kernels are compiled for one kind of array
        self._rough, self._norm = rough, norm
        self._tail = GrowingRows((vectors.shape[1],), np.float32)

    def _set_base(self, vectors: NDArray[np.float32]) -> None:
        kind = self._precision or _suitable(vectors)
        if kind == "fp32":
            self._keep(vectors, None, _longest(vectors))
        else:
            self._keep(vectors, RoughRows(vectors, kind), 0.0)

    def _segments(self, kind: str, rows: NDArray[np.int64] | None) -> Iterator[tuple[int, Any]]:
        """First row and rows of each contiguous part; of given ``rows`` first place and copies of them."""
        if rows is not None:
            for start in range(0, len(rows), CHUNK):
                part = rows[start : start + CHUNK]
                split = np.searchsorted(part, len(self._base))
                yield (
                    start,
                    tensor(np.concatenate([self._base[part[:split]], self._tail.rows[part[split:] - len(self._base)]])),
                )
        elif kind == "rough" and self._rough is not None:
            yield from self._rough.segments()
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
        asked, bounds = exact, EXACT
        if kind == "rough" and self._rough is not None:
            asked = self._rough.asked(exact)
            bounds = self._rough.bounds(exact, asked)
        elif kind == "fp32":
            bounds = float32_bounds(exact, self._norm if self._rough is None else self._rough.norm)
        candidates = kernels.Candidates(len(which), part.rows.shape[1], len(self) // _FEW, *bounds)
        allowed = np.empty(0, bool) if mask is None else mask
        for first, segment in self._segments(kind, rows):
            for start, bits in blocks(asked, segment, final=kind == "scores"):
                candidates.take(bits, first + start, allowed)
        candidates.settle(exact.numpy(), self._base, self._tail.rows, part.rows, part.scores)
        if rows is not None:
            there = part.rows >= 0
            part.rows[there] = rows[part.rows[there]]
        found.rows[which], found.scores[which] = part.rows, part.scores
        return which[candidates.counts < 0]


def beside(vectors: Rows) -> dict[str, NDArray[Any]]:
    """What ``DenseIndex.arrays`` gives beside the vectors, of rows that are read a part at a time.

    Args:
        vectors: ``(n, dim)`` float32, finite.
    """
    kind = _suitable(vectors)
    return {"bounds": np.array([_longest(vectors)])} if kind == "fp32" else RoughRows(vectors, kind).arrays()


def _longest(vectors: Rows) -> float:
    """Norm of the longest row."""
    parts = (tensor(vectors[start : start + CHUNK]) for start in range(0, len(vectors), CHUNK))
    return max((float(part.norm(dim=1).max()) for part in parts), default=0.0)


def _suitable(vectors: Rows) -> str:
    """The kind of rough copy that suits this CPU and so many rows."""
    if 4 * vectors.shape[0] * vectors.shape[1] >= _LARGE:
        return "int8"
    return "int16" if len(vectors) >= _SMALL and prefers_bf16() else "fp32"


def check_finite(vectors: NDArray[np.float32], what: str) -> None:
    """Raise ``EmbeddingError`` for NaN or infinity."""
    for start in range(0, len(vectors), CHUNK):
        block = vectors[start : start + CHUNK]
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise EmbeddingError(f"{what}: row {row} holds NaN or infinity; encode it again")
