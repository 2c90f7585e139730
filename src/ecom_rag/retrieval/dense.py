"""Exact inner-product search in two steps: a rough product that finds candidates, a float32 rescore that decides.

On a CPU with AMX or AVX512-BF16 the rough product is in bf16, several times faster than float32. Raw bf16 would lose
some percent of the neighbours, so every row whose rough score is within a proven error bound of the k-th is rescored:

    |q.x - rough| <= |q - q'| |x| + |q'| |x - x'| + rounding of the sum and of the result

where ``q'``, ``x'`` are the rounded vectors; the two residual norms are measured, not estimated. A query with more near
ties than fit the buffer falls back to scoring every row. The result is that of a float32 brute force, and each score
depends on its query and its row alone, not on what else was searched.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.runtimes import cpu_has_bf16
from ecom_rag.retrieval.topk import TopK, select_row

_ROWS = 4096  # rows of seeds a block: with a tile of queries the rough scores stay in the cache
_QUERIES = 1024  # queries a tile
_SMALL = 2048  # fewer rows than this are not worth a bf16 copy


class DenseIndex:
    """Seeds' dense embeddings, ready for exact inner-product search.

    Args:
        vectors: ``(n, dim)`` float32; kept, not copied (a bf16 copy is added where it pays).
        rough: ``bf16`` or ``fp32``: the precision of the candidate step; by default what this CPU is faster at.
    """

    def __init__(self, vectors: NDArray[np.float32], *, rough: str | None = None) -> None:
        import torch

        self._vectors = np.ascontiguousarray(vectors, np.float32)
        check_finite(self._vectors, "seed embeddings")
        self._bf16 = rough == "bf16" or (rough is None and len(vectors) >= _SMALL and cpu_has_bf16())
        self._rough = torch.from_numpy(self._vectors)
        self._norm = self._residual = 0.0
        if self._bf16:
            self._rough = torch.empty(vectors.shape, dtype=torch.bfloat16)
        for start in range(0, len(vectors), 65536):
            block = torch.from_numpy(self._vectors[start : start + 65536])
            self._norm = max(self._norm, float(block.norm(dim=1).max()))
            if self._bf16:
                rounded = block.bfloat16()
                self._rough[start : start + 65536] = rounded
                self._residual = max(self._residual, float((block - rounded.float()).norm(dim=1).max()))

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> TopK:
        """The k rows with the largest inner product.

        Args:
            queries: ``(q, dim)`` float32.
            k: At most the number of rows is returned.

        Returns:
            Row numbers and float32 inner products (cosines, for rows of length 1), best first.

        Raises:
            EmbeddingError: The dimensions differ, or a query holds NaN or infinity.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        k = min(k, len(self))
        if len(queries) == 0 or k == 0:
            return TopK.empty(len(queries), k)
        if queries.shape[1] != self._vectors.shape[1]:
            raise EmbeddingError(f"queries have {queries.shape[1]} dimensions, the seeds {self._vectors.shape[1]};"
                                 " encode both with the same checkpoint")  # fmt: skip
        check_finite(queries, "query embeddings")
        found = TopK.empty(len(queries), k)
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            self._search_tile(queries[part], k, found.ids[part], found.scores[part])
        return found

    def _search_tile(self, queries: NDArray[Any], k: int, ids: NDArray[Any], scores: NDArray[Any]) -> None:
        import torch

        exact = torch.from_numpy(queries)
        rough = exact.bfloat16() if self._bf16 else exact
        n, count, dim = len(self), len(queries), queries.shape[1]
        query_residual = (exact - rough.float()).norm(dim=1).numpy()
        rough_norm = rough.float().norm(dim=1).numpy()
        bound = query_residual * self._norm + rough_norm * self._residual
        bound += dim * 2.0**-24 * rough_norm * (self._norm + self._residual)  # float32 sums of dim terms
        relative = 2.0**-8 if self._bf16 else 2.0**-24  # the result's own rounding
        capacity = max(4 * k, 512)
        state = _State(count, capacity, bound.astype(np.float32), np.float32(relative))
        if count == 1 and self._bf16:  # one product over all rows: bound by memory alone
            product = torch.mv(self._rough, rough[0])[None, :]
            _scan(_bits(product), 0, k, state.keys, state.ids, state.counts, state.cuts, state.bound, state.relative)
        else:
            rows = n if count * n <= _ROWS * _QUERIES else max(_ROWS, _ROWS * _QUERIES // count)
            buffer = torch.empty((count, min(rows, n)), dtype=rough.dtype)
            for start in range(0, n, rows):
                block = self._rough[start : start + rows]
                product = (
                    buffer if len(block) == buffer.shape[1] else torch.empty((count, len(block)), dtype=rough.dtype)
                )
                torch.mm(rough, block.T, out=product)
                keys = _bits(product)
                _scan(keys, start, k, state.keys, state.ids, state.counts, state.cuts, state.bound, state.relative)
        _rescore(
            queries, self._vectors, k, state.keys, state.ids, state.counts, state.bound, state.relative, ids, scores
        )


class _State:
    """Candidate buffers of a tile of queries; ``counts`` is -1 for a query whose near ties did not fit."""

    def __init__(self, queries: int, capacity: int, bound: NDArray[np.float32], relative: np.float32) -> None:
        self.keys = np.empty((queries, capacity), np.int32)
        self.ids = np.empty((queries, capacity), np.int32)
        self.counts = np.zeros(queries, np.int64)
        self.cuts = np.full(queries, np.iinfo(np.int32).min, np.int32)
        self.bound = bound
        self.relative = relative


def check_finite(vectors: NDArray[np.float32], what: str) -> None:
    """Raise ``EmbeddingError`` for NaN or infinity."""
    for start in range(0, len(vectors), 65536):
        block = vectors[start : start + 65536]
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise EmbeddingError(f"{what}: row {row} holds NaN or infinity; encode it again")


def _bits(product: Any) -> NDArray[Any]:
    """The bits of a float32 or bf16 tensor as signed integers."""
    import torch

    return product.view(torch.int16 if product.dtype == torch.bfloat16 else torch.int32).numpy()


# Scores are compared as integers: the bits of a float, with the lower ones of negative numbers flipped, order as the
# floats do. That lets one vectorised kernel read bf16 (which NumPy and numba do not know) and float32 alike.


@numba.njit(cache=True)
def _cut_of(kept, k, bound, relative):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The key below which no row can be among the k best: the k-th rough score less twice the error bound."""
    kth = np.empty(1, np.int32)
    kth[0] = np.partition(kept, kept.shape[0] - k)[kept.shape[0] - k]
    kth[0] ^= (kth[0] >> 31) & 0x7FFFFFFF
    value = kth.view(np.float32)
    value[0] = value[0] - np.float32(2.02) * (bound + relative * abs(value[0])) - np.float32(1e-12)
    key = value.view(np.int32)[0]
    return key ^ ((key >> 31) & 0x7FFFFFFF)


@numba.njit(cache=True, parallel=True)
def _scan(bits, first, k, keys, ids, counts, cuts, bound, relative):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Collect the rows of one block whose rough score is above each query's cut."""
    shift = 32 - 8 * bits.itemsize
    sign = 8 * bits.itemsize - 1
    low = (1 << sign) - 1
    n = bits.shape[1]
    capacity = keys.shape[1]
    for q in numba.prange(bits.shape[0]):
        count = counts[q]
        if count < 0:
            continue
        cut = cuts[q]
        row = bits[q]
        for start in range(0, n, 64):
            stop = min(start + 64, n)
            best = row[start] ^ ((row[start] >> sign) & low)
            for column in range(start, stop):
                best = max(best, row[column] ^ ((row[column] >> sign) & low))
            if (np.int32(best) << shift) < (cut >> shift) << shift:
                continue
            for column in range(start, stop):
                key = np.int32(row[column] ^ ((row[column] >> sign) & low)) << shift
                if key < (cut >> shift) << shift:
                    continue
                if count == capacity:
                    cut = _cut_of(keys[q], k, bound[q], relative)
                    kept = 0
                    for i in range(count):
                        if keys[q, i] >= cut:
                            keys[q, kept] = keys[q, i]
                            ids[q, kept] = ids[q, i]
                            kept += 1
                    count = kept
                    if kept > capacity - capacity // 8:
                        count = -1
                        break
                    if key < cut:
                        continue
                keys[q, count] = key
                ids[q, count] = first + column
                count += 1
            if count < 0:
                break
        counts[q] = count
        cuts[q] = cut


@numba.njit(cache=True, fastmath=True)
def _dot(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, parallel=True)
def _rescore(queries, vectors, k, keys, ids, counts, bound, relative, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for q in numba.prange(queries.shape[0]):
        count = counts[q]
        if count < 0:  # too many near ties: score every row
            everything = np.empty(vectors.shape[0], np.float32)
            for row in range(vectors.shape[0]):
                everything[row] = _dot(queries[q], vectors[row])
            select_row(everything, k, np.float32(-np.inf), ids_out[q], scores_out[q])
            continue
        cut = _cut_of(keys[q, :count], k, bound[q], relative)
        scores = np.empty(count, np.float32)
        rows = np.empty(count, np.int64)
        kept = 0
        for i in range(count):
            if keys[q, i] >= cut:
                rows[kept] = ids[q, i]
                scores[kept] = _dot(queries[q], vectors[ids[q, i]])
                kept += 1
        order = np.argsort(-scores[:kept], kind="mergesort")  # candidates stand in row order: ties keep it
        for rank in range(k):
            ids_out[q, rank] = rows[order[rank]]
            scores_out[q, rank] = scores[order[rank]]
