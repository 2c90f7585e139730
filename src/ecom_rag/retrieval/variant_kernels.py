"""Loops of the variant route: grams of codes, and the overlap of a query with given rows."""

import numba
import numpy as np

from ecom_rag.retrieval.postings_kernels import find, position

_LETTERS = 4  # letters and digits in a gram


@numba.njit(cache=True, nogil=True)
def _letter(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return 48 <= value <= 57 or 97 <= value <= 122


@numba.njit(cache=True, nogil=True)
def grams(values, rows, channel):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Terms and the place where each begins: pairs of neighbours, and runs of four where all are letters or digits.

    Fewer than four letters that stand alone are one term. Channels with letters in the same places give terms in the
    same places.
    """
    n = values.shape[0]
    terms, places = np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
    count = 0
    for i in range(n):
        last = i + 1 == n or rows[i + 1] != rows[i]
        if _letter(values[i]):
            first = i == 0 or rows[i - 1] != rows[i] or not _letter(values[i - 1])
            key, size = np.int64(0), 0
            while size < _LETTERS and i + size < n and rows[i + size] == rows[i] and _letter(values[i + size]):
                key = key << 7 | values[i + size]
                size += 1
            if size == _LETTERS or first:
                terms[count], places[count] = channel << 60 | np.int64(1) << 59 | key, i
                count += 1
        if not last and not (_letter(values[i]) and _letter(values[i + 1])):
            terms[count], places[count] = channel << 60 | values[i] << 21 | values[i + 1], i
            count += 1
    return terms[:count].copy(), places[:count].copy()


@numba.njit(cache=True, nogil=True)
def readings(terms, places, values, rows, channel, first, beginning, sounds, factors):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What else the pairs of a channel may have been: starts, terms, and how much each counts.

    A pair with an initial is every pair of sounds that begins so. Other pairs that are no letters may have been
    swapped, or have a swapped neighbour: the pair turned round, and the pairs across the next character and the one
    before.
    ``first`` is the code of the initial a; ``sounds[beginning[i] : beginning[i + 1]]`` begin with the letter i.
    """
    n, of_initials, of_order, of_before = values.shape[0], factors[0], factors[1], factors[2]
    starts = np.zeros(terms.shape[0] + 1, np.int64)
    for turn in range(2):
        found, weights = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.float32)
        at = 0
        for g in range(terms.shape[0]):
            i = places[g]
            if not terms[g] >> 59 & 1:
                a, b = values[i], values[i + 1]
                one, other = first <= a < first + 26, first <= b < first + 26
                if one or other:
                    left = sounds[beginning[a - first] : beginning[a - first + 1]] if one else values[i : i + 1]
                    right = sounds[beginning[b - first] : beginning[b - first + 1]] if other else values[i + 1 : i + 2]
                    for x in left:
                        for y in right:
                            if turn:
                                found[at], weights[at] = channel << 60 | x << 21 | y, of_initials
                            at += 1
                elif not (_letter(a) or _letter(b)):
                    if turn:
                        found[at], weights[at] = channel << 60 | b << 21 | a, of_order
                    at += 1
                    if i + 2 < n and rows[i + 2] == rows[i] and not _letter(values[i + 2]):
                        if turn:
                            found[at], weights[at] = channel << 60 | a << 21 | values[i + 2], of_order
                        at += 1
                    if i > 0 and rows[i - 1] == rows[i] and not _letter(values[i - 1]):
                        if turn:
                            found[at], weights[at] = channel << 60 | values[i - 1] << 21 | b, of_before
                        at += 1
            starts[g + 1] = at
    return starts, found, weights


@numba.njit(cache=True, nogil=True)
def _shares(levels, term, factor, rows, curve, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Raise ``out`` to how much a term counts in each of the ascending ``rows``: 0 without it, ``factor`` at most."""
    for level in levels:
        found = find(level.terms, term)
        if found < 0:
            continue
        low, high = level.starts[found], level.starts[found + 1]
        for c in range(rows.shape[0]):
            low = position(level.rows, low, high, rows[c])
            if low < high and level.rows[low] == rows[c]:
                norm = curve.constant + curve.slope * np.float32(curve.lengths[rows[c]])
                share = level.values[low] / (level.values[low] + norm) * (np.float32(1) + curve.constant)
                out[c] = max(out[c], factor * min(share, np.float32(1)))


@numba.njit(cache=True, nogil=True)
def overlaps(first, step, candidates, folded, levels, curve, shares, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Overlap of queries with their candidates: rows in ascending order, those below 0 first and left out.

    ``folded`` holds where the places of each query start, where the terms of each place start, the terms, how much each
    counts, and the weights of the places; the best of a place's terms counts. ``shares`` is room for a line a query.
    """
    starts, of_place, terms, factors, weights = folded
    for q in range(first, candidates.shape[0], step):
        begin = 0
        while begin < candidates.shape[1] and candidates[q, begin] < 0:
            begin += 1
        rows, share, result = candidates[q, begin:], shares[q, begin:], out[q, begin:]
        for i in range(starts[q], starts[q + 1]):
            for c in range(rows.shape[0]):
                share[c] = 0
            for t in range(of_place[i], of_place[i + 1]):
                _shares(levels, terms[t], factors[t], rows, curve, share)
            for c in range(rows.shape[0]):
                result[c] += weights[i] * share[c]
