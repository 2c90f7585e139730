"""Compiled loops of the dense search: collecting candidates from rough scores, and rescoring them in float32.

Scores are compared as integers: the bits of a float, with the lower ones of negative numbers flipped, order as the
floats do. That lets one vectorised kernel read bf16 (which NumPy and numba do not know) and float32 alike.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval.topk import select_row


class State:
    """Candidate buffers of a tile of queries; ``counts`` is -1 for a query whose near ties did not fit.

    Args:
        queries: Number of queries.
        capacity: Candidates a query.
        bound: ``(queries,)`` largest absolute error of a rough score.
        relative: Rounding of the result itself, relative to its size.
    """

    def __init__(self, queries: int, capacity: int, bound: NDArray[np.float32], relative: np.float32) -> None:
        self.counts = np.zeros(queries, np.int64)
        self.arrays: tuple[Any, ...] = (
            np.empty((queries, capacity), np.int32),  # keys
            np.empty((queries, capacity), np.int32),  # row numbers
            self.counts,
            np.full(queries, np.iinfo(np.int32).min, np.int32),  # cuts
            bound,
            relative,
        )


@numba.njit(cache=True)
def _cut_of(kept, k, bound, relative):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The key below which no row can be among the k best: the k-th rough score less twice the error bound."""
    if kept.shape[0] < k:
        return np.int32(-(2**31))
    kth = np.empty(1, np.int32)
    kth[0] = np.partition(kept, kept.shape[0] - k)[kept.shape[0] - k]
    kth[0] ^= (kth[0] >> 31) & 0x7FFFFFFF
    value = kth.view(np.float32)
    value[0] = value[0] - np.float32(2.02) * (bound + relative * abs(value[0])) - np.float32(1e-12)
    key = value.view(np.int32)[0]
    return np.int32(key ^ ((key >> 31) & 0x7FFFFFFF))


@numba.njit(cache=True, parallel=True)
def scan(bits, first, k, allowed, keys, ids, counts, cuts, bound, relative):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Collect the rows of one block whose rough score is above each query's cut; an empty ``allowed`` allows all."""
    shift = 32 - 8 * bits.itemsize
    sign = 8 * bits.itemsize - 1
    low = (1 << sign) - 1
    n = bits.shape[1]
    capacity = keys.shape[1]
    masked = allowed.shape[0] > 0
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
                if key < (cut >> shift) << shift or (masked and not allowed[first + column]):
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
def rescore(queries, base, tail, k, keys, ids, counts, cuts, bound, relative, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Float32 scores of the candidates that can be among the k best, in order."""
    split = base.shape[0]
    for q in numba.prange(queries.shape[0]):
        count = counts[q]
        if count < 0:
            continue
        cut = _cut_of(keys[q, :count], k, bound[q], relative)
        scores = np.empty(count, np.float32)
        rows = np.empty(count, np.int64)
        kept = 0
        for i in range(count):
            if keys[q, i] >= cut:
                row = ids[q, i]
                rows[kept] = row
                scores[kept] = _dot(queries[q], base[row]) if row < split else _dot(queries[q], tail[row - split])
                kept += 1
        order = np.argsort(-scores[:kept], kind="mergesort")  # candidates stand in row order: ties keep it
        for rank in range(min(k, kept)):
            ids_out[q, rank] = rows[order[rank]]
            scores_out[q, rank] = scores[order[rank]]


@numba.njit(cache=True, parallel=True)
def dots(queries, base, tail, pairs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Float32 inner products of given pairs of query and row."""
    split = base.shape[0]
    scores = np.empty(pairs.shape[0], np.float32)
    for i in numba.prange(pairs.shape[0]):
        query, row = queries[pairs[i, 0]], pairs[i, 1]
        scores[i] = _dot(query, base[row]) if row < split else _dot(query, tail[row - split])
    return scores


@numba.njit(cache=True)
def select_rows(scores, rows, k, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The k best of some rows' scores, under their own row numbers."""
    select_row(scores, k, np.float32(-np.inf), ids_out, scores_out)
    for rank in range(ids_out.shape[0]):
        if ids_out[rank] >= 0:
            ids_out[rank] = rows[ids_out[rank]]
