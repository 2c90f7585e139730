"""Compiled loops of the dense search: collecting candidates from blocks of scores, and float32 scores.

Scores are compared as integers: the bits of a float, with the lower ones of negative numbers flipped, order as the
floats do. That lets one vectorised kernel read bf16 (which NumPy and numba do not know) and float32 alike.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_RUN = 64  # scores that are passed over at once where none reaches the cut
PART = 256  # rows that stay in the second-level cache while all queries are multiplied with them
POOL = 1 << 25  # candidates of a tile together: 256 MB
_GROWTH = 4


class Candidates:
    """The rows that can still be among the k best of each query of a tile; ``counts`` is -1 for a query that gave up.

    Args:
        queries: Number of queries.
        k: Results per query.
        most: Candidates at which a query gives up.
        bound: ``(queries,)`` largest absolute error of a score; ``None``: the scores are final, so the first k of equal
            ones suffice.
        relative: Rounding of the score itself, relative to its size.
    """

    def __init__(
        self, queries: int, k: int, most: int, bound: NDArray[np.float32] | None, relative: np.float32
    ) -> None:
        room = _room(k)
        self._k, self._most = k, max(most, room)
        self._final = bound is None
        self._error = (np.zeros(queries, np.float32) if bound is None else bound, relative)
        self._keys, self._ids = np.empty(queries * room, np.int32), np.empty(queries * room, np.int32)
        self._starts, self._rooms = np.arange(queries) * room, np.full(queries, room)
        self._taken = queries * room
        self._cuts = np.full(queries, np.iinfo(np.int32).min, np.int32)
        self.counts = np.where(np.isfinite(self._error[0]), 0, -1)

    def take(self, bits: NDArray[Any], first: int, allowed: NDArray[np.bool_]) -> None:
        """Look through a block of scores.

        Args:
            bits: ``(queries, block)`` int16 or int32: the scores.
            first: Row of the first column.
            allowed: By row; an empty one allows all.
        """
        columns = np.zeros(len(self.counts), np.int64)
        while True:
            _scan(bits, first, self._k, allowed, columns, *self._arrays())
            full = np.flatnonzero((columns < bits.shape[1]) & (self.counts >= 0))
            if len(full) == 0:
                return
            self._grow(full)

    def settle(
        self, queries: NDArray[Any], base: NDArray[Any], tail: NDArray[Any], ids: NDArray[Any], scores: NDArray[Any]
    ) -> None:
        """Write the k best of each query that did not give up, by float32 scores."""
        _settle(queries, base, tail, self._k, *self._arrays(), ids, scores)

    def _arrays(self) -> tuple[Any, ...]:
        places = (self._keys, self._ids, self._starts, self._rooms, self.counts, self._cuts)
        return (*places, *self._error, self._final)

    def _grow(self, full: NDArray[np.int64]) -> None:
        """More room for some queries, at the end of the pool."""
        for query in full:
            room = min(_GROWTH * self._rooms[query], self._most)
            if self._rooms[query] >= self._most or self._taken + room > POOL:
                self.counts[query] = -1
                continue
            if self._taken + room > len(self._keys):
                spare = np.empty(max(room, len(self._keys)), np.int32)
                self._keys, self._ids = np.concatenate([self._keys, spare]), np.concatenate([self._ids, spare])
            old = slice(self._starts[query], self._starts[query] + self.counts[query])
            new = slice(self._taken, self._taken + self.counts[query])
            self._keys[new], self._ids[new] = self._keys[old], self._ids[old]
            self._starts[query], self._rooms[query] = self._taken, room
            self._taken += room


def tile_of(k: int) -> int:
    """Queries whose candidates have room in the pool together."""
    return max(1, POOL // _room(k))


def _room(k: int) -> int:
    """Candidates that a query begins with."""
    return max(8 * k, 512)


@numba.njit(cache=True)
def _flip(key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The key of a float's 32 bits, and the bits of a key."""
    return np.int32(key ^ ((key >> 31) & 0x7FFFFFFF))


@numba.njit(cache=True)
def _cut_of(kth, bound, relative):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The key below which no row can be among the k best: the k-th rough score less twice the error bound."""
    bits = np.empty(1, np.int32)
    bits[0] = _flip(kth)
    value = bits.view(np.float32)
    value[0] = value[0] - np.float32(2.02) * (bound + relative * abs(value[0])) - np.float32(1e-12)
    return _flip(bits[0])


@numba.njit(cache=True)
def _thin(keys, ids, count, k, bound, relative, final):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Drop the candidates that cannot be among the k best, in place: how many are left, and the cut for later rows."""
    if count < k:
        return count, np.int32(-(2**31))
    kth = np.partition(keys[:count], count - k)[count - k]
    cut = kth if final else _cut_of(kth, bound, relative)
    ties = k - (keys[:count] > kth).sum() if final else count
    kept = 0
    for i in range(count):
        if keys[i] > kth or (keys[i] >= cut and ties > 0):
            ties -= keys[i] <= kth
            keys[kept] = keys[i]
            ids[kept] = ids[i]
            kept += 1
    return kept, np.int32(cut + 1) if final else cut  # a later row loses against an equal one


@numba.njit(cache=True)
def _highest(run, positive):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The highest key of a run; where only ``positive`` ones count, it is enough to compare the bits as they are."""
    shift = 32 - 8 * run.itemsize
    if positive and run.shape[0] == _RUN:
        best = run[0]
        for i in range(_RUN // 2):  # of a known length and in the type of the bits: many at once
            higher = run[i] if run[i] > run[i + _RUN // 2] else run[i + _RUN // 2]
            best = higher if higher > best else best
        return np.int64(best) << shift
    highest = np.int64(-(2**31))
    for i in range(run.shape[0]):
        highest = max(highest, np.int64(_flip(np.int32(run[i]) << shift)))
    return highest


@numba.njit(cache=True)
def _least(cut, shift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Bits as they are, below which no key reaches the cut."""
    return np.int64(cut) >> shift if cut > 0 else np.int64(-(2**31))


@numba.njit(cache=True)
def _scan_row(row, column, first, k, allowed, keys, ids, counts, cuts, bound, relative, final):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Collect from one query's scores; returns where it stopped for want of room, or the number of columns."""
    shift = 32 - 8 * row.itemsize
    count, cut = counts[0], cuts[0]
    least = _least(cut, shift)
    full = False
    while column < row.shape[0] and not full:
        stop = min(column + _RUN, row.shape[0])
        if _highest(row[column:stop], cut > 0) < cut:
            column = stop
            continue
        while column < stop:
            if row[column] < least:
                column += 1
                continue
            key = _flip(np.int32(row[column]) << shift)
            if key >= cut and (allowed.shape[0] == 0 or allowed[first + column]):
                if count == keys.shape[0]:
                    count, cut = _thin(keys, ids, count, k, bound, relative, final)
                    least = _least(cut, shift)
                    full = 2 * count > keys.shape[0]
                    if full:
                        break
                    continue
                keys[count] = key
                ids[count] = first + column
                count += 1
            column += 1
    counts[0], cuts[0] = count, cut
    return column


@numba.njit(cache=True, parallel=True)
def _scan(bits, first, k, allowed, columns, keys, ids, starts, rooms, counts, cuts, bound, relative, final):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for q in numba.prange(bits.shape[0]):
        if counts[q] >= 0:
            own = slice(starts[q], starts[q] + rooms[q])
            columns[q] = _scan_row(
                bits[q],
                columns[q],
                first,
                k,
                allowed,
                keys[own],
                ids[own],
                counts[q : q + 1],
                cuts[q : q + 1],
                bound[q],
                relative,
                final,
            )


@numba.njit(cache=True, fastmath=True)
def _sum(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True)
def _dot(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return _sum(a, b) + np.float32(0)  # there is no -0, which would order below 0


@numba.njit(cache=True)
def _settle_row(query, base, tail, k, keys, ids, count, bound, relative, final, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    split = base.shape[0]
    count, _ = _thin(keys, ids, count, k, bound, relative, final)
    scores = np.empty(count, np.float32)
    if final:
        for i in range(count):
            keys[i] = _flip(keys[i])
        scores[:] = keys[:count].view(np.float32)
    else:
        for i in range(count):
            row = ids[i]
            scores[i] = _dot(query, base[row]) if row < split else _dot(query, tail[row - split])
    if count > k:
        kth = np.partition(scores, count - k)[count - k]
        good = np.flatnonzero(scores >= kth)
    else:
        good = np.arange(count)
    order = good[np.argsort(-scores[good], kind="mergesort")]  # candidates stand in row order: ties keep it
    for rank in range(min(k, count)):
        ids_out[rank] = ids[order[rank]]
        scores_out[rank] = scores[order[rank]]


@numba.njit(cache=True, parallel=True)
def _settle(queries, base, tail, k, keys, ids, starts, rooms, counts, _, bound, relative, final, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for q in numba.prange(queries.shape[0]):
        if counts[q] >= 0:
            own = slice(starts[q], starts[q] + rooms[q])
            _settle_row(
                queries[q],
                base,
                tail,
                k,
                keys[own],
                ids[own],
                counts[q],
                bound[q],
                relative,
                final,
                ids_out[q],
                scores_out[q],
            )


@numba.njit(cache=True, parallel=True)
def dots(queries, base, tail, pairs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Float32 inner products of given pairs of query and row."""
    split = base.shape[0]
    scores = np.empty(pairs.shape[0], np.float32)
    for i in numba.prange(pairs.shape[0]):
        query, row = queries[pairs[i, 0]], pairs[i, 1]
        scores[i] = _dot(query, base[row]) if row < split else _dot(query, tail[row - split])
    return scores


@numba.njit(cache=True, parallel=True)
def products(queries, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Float32 inner products of all pairs, each as ``dots`` gives it."""
    n = rows.shape[0]
    for part in numba.prange((n + PART - 1) // PART):
        for q in range(queries.shape[0]):
            for r in range(part * PART, min(n, (part + 1) * PART)):
                out[q, r] = _dot(queries[q], rows[r])
