"""The selection of the k best of rows of scores."""

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval.ranking import Ranking

_RUN = 64  # columns


@numba.njit(cache=True)
def maxima(scores):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The maximum of each run of 64 columns; in 16 lanes, which the compiler takes at once."""
    n = scores.shape[0]
    highest = np.empty((n + _RUN - 1) // _RUN, np.float32)
    lanes = np.empty(16, np.float32)
    for run in range(n // _RUN):
        start = run * _RUN
        for lane in range(16):
            a, b = scores[start + lane], scores[start + 16 + lane]
            c, d = scores[start + 32 + lane], scores[start + 48 + lane]
            a = a if a > b else b
            c = c if c > d else d
            lanes[lane] = a if a > c else c
        best = lanes[0]
        for lane in range(1, 16):
            best = best if best > lanes[lane] else lanes[lane]
        highest[run] = best
    if n % _RUN:
        highest[n // _RUN] = scores[n // _RUN * _RUN :].max()
    return highest


@numba.njit(cache=True)
def select_row(scores, k, floor, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the k best of one row of scores that are above ``floor``: higher first, then the earlier column.

    The k-th highest maximum of runs of 64 columns bounds the k-th highest score from below, so that most of a long row
    is read once and only the few runs that reach the bound are looked into.
    """
    n = scores.shape[0]
    highest = maxima(scores)
    runs = highest.shape[0]
    bound = np.partition(highest, runs - k)[runs - k] if 0 < k < runs else np.float32(-np.inf)
    good = np.flatnonzero((highest >= bound) & (highest > floor))
    kept = np.empty(good.shape[0] * _RUN, np.float32)
    columns = np.empty(good.shape[0] * _RUN, np.int64)
    count = 0
    for start in good * _RUN:
        for column in range(start, min(start + _RUN, n)):
            if scores[column] >= bound and scores[column] > floor:
                kept[count] = scores[column]
                columns[count] = column
                count += 1
    order = np.argsort(-kept[:count], kind="mergesort")  # stable: equal scores stay in column order
    found = min(k, count)
    for rank in range(found):
        ids_out[rank] = columns[order[rank]]
        scores_out[rank] = kept[order[rank]]
    for rank in range(found, k):
        ids_out[rank] = -1
        scores_out[rank] = -np.inf


@numba.njit(cache=True, parallel=True)
def _select_rows(scores, k, floor, ids_out, scores_out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for row in numba.prange(scores.shape[0]):
        select_row(scores[row], k, floor, ids_out[row], scores_out[row])


def select(scores: NDArray[np.float32], k: int, *, floor: float = -np.inf) -> Ranking:
    """The k best columns of each row of ``scores (rows, columns)`` that are above ``floor``."""
    found = Ranking.empty(scores.shape[0], k)
    _select_rows(np.ascontiguousarray(scores), k, np.float32(floor), found.rows, found.scores)
    return found
