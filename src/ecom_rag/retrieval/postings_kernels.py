"""Loops over postings: sums along the query's terms, the selection of the best rows, merging of levels."""

import numba
import numpy as np

from ecom_rag.retrieval.topk import maxima, select_row

_BITS = 11
_DIGITS, _MASK = -(-63 // _BITS), (1 << _BITS) - 1
_FEW_ROWS = 6  # with less than a posting for so many rows, rows are gathered from the postings and not scanned


@numba.njit(cache=True, nogil=True)
def find(terms, term):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Position of a term, or -1."""
    low, high = 0, terms.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if terms[middle] < term:
            low = middle + 1
        else:
            high = middle
    return low if low < terms.shape[0] and terms[low] == term else -1


@numba.njit(cache=True, nogil=True)
def _add(begin, end, rows, values, weight, sums):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Four at a time: a term's rows are distinct, so that none waits for another."""
    whole = begin + (end - begin) // 4 * 4
    for j in range(begin, whole, 4):
        a, b, c, d = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        of_a, of_b = sums[a] + weight * values[j], sums[b] + weight * values[j + 1]
        of_c, of_d = sums[c] + weight * values[j + 2], sums[d] + weight * values[j + 3]
        sums[a], sums[b], sums[c], sums[d] = of_a, of_b, of_c, of_d
    for j in range(whole, end):
        sums[rows[j]] += weight * values[j]


@numba.njit(cache=True, nogil=True)
def _accumulate(begin, end, terms, weights, levels, curve, sums):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Terms outside, levels inside: a row's sum is made in the same order however its postings are spread."""
    for i in range(begin, end):
        weight = weights[i]
        for level in levels:
            found = find(level.terms, terms[i])
            if found < 0:
                continue
            rows, values = level.rows, level.values
            if curve.lengths.shape[0]:
                for j in range(level.starts[found], level.starts[found + 1]):
                    value = values[j]
                    norm = curve.constant + curve.slope * np.float32(curve.lengths[rows[j]])
                    sums[rows[j]] += weight * (value / (value + norm))
            else:
                _add(level.starts[found], level.starts[found + 1], rows, values, weight, sums)


@numba.njit(cache=True, nogil=True)
def _gather(begin, end, terms, levels, mask, sums, touched, kept):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Rows that the terms' postings name, each once, with their sums, which are cleared; returns how many."""
    count = 0
    for i in range(begin, end):
        for level in levels:
            found = find(level.terms, terms[i])
            if found < 0:
                continue
            for j in range(level.starts[found], level.starts[found + 1]):
                row = level.rows[j]
                value = sums[row]
                sums[row] = 0
                touched[count], kept[count] = row, value
                count += value > 0 and (mask.shape[0] == 0 or mask[row])
    return count


@numba.njit(cache=True, nogil=True)
def _select_few(touched, kept, k, ids, scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The k best of rows in any order: higher first, then the earlier row."""
    if kept.shape[0] > 64 * k > 0:
        runs = maxima(kept)  # the k-th highest maximum of runs is at most the k-th highest score
        best = np.flatnonzero(kept >= np.partition(runs, runs.shape[0] - k)[runs.shape[0] - k])
        touched, kept = touched[best], kept[best]
    if kept.shape[0] > k:
        cut = np.partition(kept, kept.shape[0] - k)[kept.shape[0] - k]
        best = np.flatnonzero(kept >= cut)
        touched, kept = touched[best], kept[best]
    by_row = np.argsort(touched)
    order = by_row[np.argsort(-kept[by_row], kind="mergesort")]
    for rank in range(min(k, order.shape[0])):
        ids[rank], scores[rank] = touched[order[rank]], kept[order[rank]]


@numba.njit(cache=True, nogil=True)
def position(rows, low, high, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """First place from ``low`` to ``high`` whose row is not below ``row``."""
    while low < high:
        middle = (low + high) >> 1
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True, nogil=True)
def search(first, step, starts, terms, weights, levels, curve, mask, rows, k, ids, scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill every ``step``-th line of ``ids`` and ``scores`` from ``first`` on."""
    sums = np.zeros(rows, np.float32)
    most = rows // _FEW_ROWS
    touched, kept = np.empty(most + 1, np.int32), np.empty(most + 1, np.float32)
    for q in range(first, starts.shape[0] - 1, step):
        begin, end = starts[q], starts[q + 1]
        _accumulate(begin, end, terms, weights, levels, curve, sums)
        if frequencies(terms[begin:end], levels, np.empty(0, np.bool_)).sum() <= most:
            count = _gather(begin, end, terms, levels, mask, sums, touched, kept)
            _select_few(touched[:count], kept[:count], k, ids[q], scores[q])
            continue
        if mask.shape[0]:
            for row in range(rows):
                if not mask[row]:
                    sums[row] = 0
        select_row(sums, k, np.float32(0), ids[q], scores[q])
        sums[:] = 0


@numba.njit(cache=True, nogil=True)
def scores(first, step, starts, terms, weights, levels, curve, result):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill every ``step``-th line of ``result`` from ``first`` on with the scores of all rows."""
    for q in range(first, starts.shape[0] - 1, step):
        _accumulate(starts[q], starts[q + 1], terms, weights, levels, curve, result[q])


@numba.njit(cache=True, nogil=True)
def frequencies(terms, levels, live):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """In how many rows each term is, of those that are live."""
    counts = np.zeros(terms.shape[0], np.int64)
    for i in range(terms.shape[0]):
        for level in levels:
            found = find(level.terms, terms[i])
            if found < 0:
                continue
            if live.shape[0]:
                for j in range(level.starts[found], level.starts[found + 1]):
                    counts[i] += live[level.rows[j]]
            else:
                counts[i] += level.starts[found + 1] - level.starts[found]
    return counts


@numba.njit(cache=True, nogil=True)
def part(level, first, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The postings of the rows from ``first`` to ``stop`` as a level, in which ``first`` is row 0.

    Of a term's rows only those are read that a search for the two looks at, and those of the part.
    """
    n = level.terms.shape[0]
    low, high = np.empty(n, np.int64), np.empty(n, np.int64)
    for t in range(n):
        end = level.starts[t + 1]
        low[t] = position(level.rows, level.starts[t], end, first)
        high[t] = position(level.rows, low[t], end, stop)
    kept = np.flatnonzero(high > low)
    terms, starts = level.terms[kept], np.zeros(kept.shape[0] + 1, np.int64)
    starts[1:] = np.cumsum((high - low)[kept])
    rows, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    for i in range(kept.shape[0]):
        t = kept[i]
        rows[starts[i] : starts[i + 1]] = level.rows[low[t] : high[t]] - np.int32(first)
        values[starts[i] : starts[i + 1]] = level.values[low[t] : high[t]]
    return terms, starts, rows, values


@numba.njit(cache=True, nogil=True)
def merge(old, new, live):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Two levels as one; all rows of ``new`` come after those of ``old``. Rows that are not live are left out."""
    most = old.rows.shape[0] + new.rows.shape[0]
    terms = np.empty(old.terms.shape[0] + new.terms.shape[0], np.int64)
    starts = np.empty(terms.shape[0] + 1, np.int64)
    rows, values = np.empty(most, np.int32), np.empty(most, np.float32)
    count, end, i, j = 0, 0, 0, 0
    while i < old.terms.shape[0] or j < new.terms.shape[0]:
        take_old = j == new.terms.shape[0] or (i < old.terms.shape[0] and old.terms[i] <= new.terms[j])
        take_new = i == old.terms.shape[0] or (j < new.terms.shape[0] and new.terms[j] <= old.terms[i])
        terms[count] = old.terms[i] if take_old else new.terms[j]
        starts[count] = end
        if take_old:
            end = _append(old, i, live, rows, values, end)
            i += 1
        if take_new:
            end = _append(new, j, live, rows, values, end)
            j += 1
        count += end > starts[count]
    starts[count] = end
    return terms[:count].copy(), starts[: count + 1].copy(), rows[:end].copy(), values[:end].copy()


@numba.njit(cache=True, nogil=True)
def _append(level, term, live, rows, values, end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for p in range(level.starts[term], level.starts[term + 1]):
        if live.shape[0] == 0 or live[level.rows[p]]:
            rows[end], values[end] = level.rows[p], level.values[p]
            end += 1
    return end


@numba.njit(cache=True, nogil=True)
def put(level, places, free, rows, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Copy a level's postings to where each of its terms, by its place among all, has room; and move that on."""
    for t in range(places.shape[0]):
        end = free[places[t]]
        for p in range(level.starts[t], level.starts[t + 1]):
            rows[end], values[end] = level.rows[p], level.values[p]
            end += 1
        free[places[t]] = end


@numba.njit(cache=True, nogil=True)
def sorted_by_term(terms, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Terms, which are not below 0, in ascending order, and the row of each; those of equal terms stay in their order.

    A radix sort from the lowest digit; digits that are the same in all terms are passed over.
    """
    n = terms.shape[0]
    if n <= 1 << _BITS:
        order = np.argsort(terms, kind="mergesort")
        return terms[order], rows[order]
    counts = np.zeros((_DIGITS, 1 << _BITS), np.int64)
    for i in range(n):
        for digit in range(_DIGITS):
            counts[digit, terms[i] >> (digit * _BITS) & _MASK] += 1
    one, other = (terms, rows), (np.empty_like(terms), np.empty_like(rows))
    fresh = False  # whether ``one`` is ours
    for digit in range(_DIGITS):
        if counts[digit, terms[0] >> (digit * _BITS) & _MASK] == n:
            continue
        ends = np.cumsum(counts[digit]) - counts[digit]
        for i in range(n):
            key = one[0][i] >> (digit * _BITS) & _MASK
            other[0][ends[key]], other[1][ends[key]] = one[0][i], one[1][i]
            ends[key] += 1
        if fresh:
            one, other = other, one
        else:
            one, other = other, (np.empty_like(terms), np.empty_like(rows))
            fresh = True
    return one


@numba.njit(cache=True, nogil=True)
def counted(terms, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Terms in order, each with the row that it is in, as a level whose values say how often."""
    n = terms.shape[0]
    distinct, starts = np.empty(n, np.int64), np.empty(n + 1, np.int64)
    held, values = np.empty(n, np.int32), np.empty(n, np.float32)
    count, end = 0, 0
    for i in range(n):
        new = i == 0 or terms[i] != terms[i - 1]
        if new:
            distinct[count], starts[count] = terms[i], end
            count += 1
        if new or rows[i] != rows[i - 1]:
            held[end], values[end] = rows[i], np.float32(0)
            end += 1
        values[end - 1] += np.float32(1)
    starts[count] = end
    return distinct[:count].copy(), starts[: count + 1].copy(), held[:end].copy(), values[:end].copy()
