"""Postings that grow: for each term the rows that hold it and a value each, in a few immutable levels.

New rows go to the smallest level; a level that is full is merged into the next, so that one more row costs little and
a posting is rewritten a few times only (O'Neil et al. 1996, the log-structured merge tree). Nothing is changed in
place: ``extended`` gives new ``Postings``, and a search under way keeps those that it started with. There are always
the same number of levels with arrays of the same types, so that the compiled kernels take them as they are,
memory-mapped ones too.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval import postings_kernels as kernels
from ecom_rag.retrieval import variant_kernels
from ecom_rag.retrieval.ranking import Ranking

# A level that holds more postings than this goes into the level before it. The first has no bound, and the second goes
# into it when it holds a quarter as many.
FULL = (0, 1 << 20, 1 << 16, 1 << 12)
_LEVELS = len(FULL)
FEW_QUERIES = 4  # fewer are not worth a second thread

Weights = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Queries as starts ``(q + 1,)``, terms, and the terms' weights."""


class Level(NamedTuple):
    """Postings in order of term, then row.

    Args:
        terms: int64, ascending, each once.
        starts: ``(terms + 1,)`` int64: where each term's postings begin.
        rows: int32, ascending for a term.
        values: float32, not below 0.
    """

    terms: NDArray[np.int64]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    values: NDArray[np.float32]


class Saturation(NamedTuple):
    """A value counts as ``value / (value + constant + slope * length of its row)``.

    Args:
        lengths: ``(rows,)`` int32.
        constant: float32.
        slope: float32.
    """

    lengths: NDArray[np.int32]
    constant: np.float32
    slope: np.float32


class Near(NamedTuple):
    """Given rows with what is needed to score them.

    Args:
        rows: int64 numbers within the levels, -1 for none.
        levels: Postings of these rows, maybe of others too.
        curve: How their values count.
    """

    rows: NDArray[np.int64]
    levels: tuple[Level, ...]
    curve: Saturation

    def overlaps(self, asked: Any) -> NDArray[np.float32]:
        """Overlap of each query with each of its rows, ``(q, rows)``.

        Args:
            asked: As ``variant_kernels.overlaps`` takes it.
        """
        out, shares = np.zeros(self.rows.shape, np.float32), np.empty(self.rows.shape, np.float32)

        def work(first: int, step: int) -> None:
            variant_kernels.overlaps(first, step, self.rows, asked, self.levels, self.curve, shares, out)

        in_threads(work, len(self.rows))
        return out


_LINEAR = Saturation(np.empty(0, np.int32), np.float32(0), np.float32(0))


@dataclass(frozen=True, slots=True)
class Postings:
    """Rows and values by term. Make them with ``empty`` and ``extended``.

    Args:
        levels: Largest first; their rows do not overlap and come in this order.
        rows: Number of rows, those without a term included.
    """

    levels: tuple[Level, ...]
    rows: int

    @classmethod
    def empty(cls) -> Self:
        """No rows."""
        return cls(tuple(_nothing() for _ in range(_LEVELS)), 0)

    def extended(self, level: Level, rows: int, live: NDArray[np.bool_] | None = None) -> "Postings":
        """With more rows.

        Args:
            level: The new rows' postings, row numbers from ``self.rows`` on.
            rows: Number of new rows.
            live: ``(self.rows + rows,)``: postings of other rows may be dropped.
        """
        levels = list(self.levels)
        mask = np.empty(0, bool) if live is None else live
        if len(level.rows) > FULL[-1]:  # many at once: not through the small levels
            levels.append(level)
        else:
            levels[-1] = _merged(levels[-1], level, mask)
        for i in range(len(levels) - 1, 0, -1):
            size = len(levels[i].rows)
            if i >= _LEVELS or size > FULL[i] or (i == 1 and 4 * size > len(levels[0].rows)):
                levels[i - 1] = _merged(levels[i - 1], levels[i], mask)
                levels[i] = _nothing()
        return Postings(tuple(levels[:_LEVELS]), self.rows + rows)

    def search(
        self,
        weights: Weights,
        k: int,
        *,
        saturation: Saturation | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Ranking:
        """The k rows with the largest scores above 0; rows that share no term with the query are no result.

        Args:
            weights: Of the queries' terms, added up in the order given.
            k: Results a query.
            saturation: How a posting's value counts, by the length of its row; by default as it is.
            mask: ``(rows,)``: rows that may be returned; by default all.
        """
        queries = len(weights[0]) - 1
        found = Ranking.empty(queries, k)
        if found.rows.size == 0 or self.rows == 0:
            return found
        curve = _LINEAR if saturation is None else saturation
        mask = np.empty(0, bool) if mask is None else mask

        def work(first: int, step: int) -> None:
            kernels.search(first, step, *weights, self.levels, curve, mask, self.rows, k, found.rows, found.scores)

        in_threads(work, queries)
        return found

    def near(self, rows: NDArray[np.int64], curve: Saturation) -> Near:
        """Given rows, -1 for none, with what is needed to score them: here all is at hand."""
        return Near(rows, self.levels, curve)

    def scores(self, weights: Weights) -> NDArray[np.float32]:
        """Every row's sum of products: ``(q, rows)`` float32."""
        result = np.zeros((len(weights[0]) - 1, self.rows), np.float32)

        def work(first: int, step: int) -> None:
            kernels.scores(first, step, *weights, self.levels, _LINEAR, result)

        in_threads(work, len(result))
        return result

    def frequencies(self, terms: NDArray[np.int64], live: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """In how many rows each term is, of those that are live."""
        return kernels.frequencies(terms, self.levels, np.empty(0, bool) if live is None else live)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All as one level, to be saved and memory-mapped."""
        whole = self.levels[0]
        for level in self.levels[1:]:
            if len(level.rows):
                whole = _merged(whole, level, np.empty(0, bool))
        return {**whole._asdict(), "rows_count": np.array([self.rows])}

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone; copies."""
        [whole, *_] = Postings.from_arrays(arrays).levels
        level = _frozen(*kernels.part(whole, first, stop))
        return {**level._asdict(), "rows_count": np.array([stop - first])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The postings that gave ``arrays``; they are used as they are."""
        base = _frozen(*(arrays[name] for name in Level._fields))
        return cls((base, *cls.empty().levels[1:]), int(arrays["rows_count"][0]))


def level_of_tokens(terms: NDArray[np.int64], lengths: NDArray[np.int64], first_row: int) -> Level:
    """Count the terms of rows: each posting's value is how often the row holds the term.

    Args:
        terms: Of all rows, one after the other; not below 0.
        lengths: ``(rows,)`` number of terms of each row.
        first_row: Number of the first row.
    """
    return level_of_terms(terms, np.repeat(np.arange(first_row, first_row + len(lengths), dtype=np.int32), lengths))


def level_of_terms(terms: NDArray[np.int64], rows: NDArray[np.int32]) -> Level:
    """As ``level_of_tokens``, of terms ``(n,)`` in any order with the row of each; the rows of a term ascend."""
    return _frozen(*kernels.counted(*kernels.sorted_by_term(terms, rows)))


def merged(levels: Sequence[Level]) -> Level:
    """Levels as one, each posting moved once; the rows of a level come after those of the levels before it."""
    levels = [level for level in levels if len(level.rows)]
    if len(levels) < 2:
        return levels[0] if levels else _nothing()
    terms = np.unique(np.concatenate([level.terms for level in levels]))
    counts = np.zeros(len(terms) + 1, np.int64)
    for level in levels:
        counts[1 + np.searchsorted(terms, level.terms)] += np.diff(level.starts)
    starts = np.cumsum(counts)
    rows, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    free = starts[:-1].copy()
    for level in levels:
        kernels.put(level, np.searchsorted(terms, level.terms), free, rows, values)
    return _frozen(terms, starts, rows, values)


def level_of_postings(terms: NDArray[np.int64], rows: NDArray[np.int32], values: NDArray[np.float32]) -> Level:
    """Postings ``(p,)`` in order of term, then row, as a level."""
    new = np.ones(len(terms), bool)
    new[1:] = terms[1:] != terms[:-1]
    at = np.flatnonzero(new)
    return _frozen(terms[at], np.append(at, len(terms)), rows, values)


def _nothing() -> Level:
    return _frozen(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


def _frozen(terms: NDArray[Any], starts: NDArray[Any], rows: NDArray[Any], values: NDArray[Any]) -> Level:
    """Read-only arrays, in memory and memory-mapped ones alike: to the compiler they are of one type."""
    arrays = []
    for array, dtype in ((terms, np.int64), (starts, np.int64), (rows, np.int32), (values, np.float32)):
        view = np.ascontiguousarray(array, dtype).view(np.ndarray)
        view.flags.writeable = False
        arrays.append(view)
    return Level(*arrays)


def _merged(old: Level, new: Level, live: NDArray[np.bool_]) -> Level:
    if len(old.rows) == 0 and len(live) == 0:
        return new
    return _frozen(*kernels.merge(old, new, live)) if len(new.rows) else old


def in_threads(work: Any, queries: int) -> None:
    """Call ``work(first, step)`` so that all queries are done; the kernels leave the interpreter's lock alone."""
    threads = min(numba.get_num_threads(), queries) if queries >= FEW_QUERIES else 1
    if threads == 1:
        work(0, 1)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads), [threads] * threads))
