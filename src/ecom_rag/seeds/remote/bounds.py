"""The rows that can be among the k best: the server scores all rows, and what its scores cannot rule out comes here.

A score of the server is not ours to the last bit: it adds in another order, and its values of terms are of the mean
length of when they were written. But how far the two can be apart is known,

    server / ratio - slack  <=  ours  <=  server * ratio + slack

so a row whose score is below ``(kth / ratio - 2 slack) / ratio``, with the k-th largest of the server, is surely not
among our k best. All others are, and our own arithmetic decides among them; so the result is exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPARE = 32
"""Rows asked for beyond the k best, since most often they show that there are no further candidates."""
_ROUNDING = 2.0**-23  # relative, of a sum a term: twice that of float32, for the server's and for ours
_TOGETHER = 64  # queries whose candidates are fetched at once


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows may be returned, as a condition for the server.

    Args:
        rows: Rows of the bank, those that are gone included.
        condition: In the words of the server; ``None`` for all.
        parameters: Its values.
        left_out: Rows that may not be returned.
    """

    rows: int
    condition: str | None = None
    parameters: tuple[Any, ...] = ()
    left_out: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return self.rows

    def without(self, rows: NDArray[np.int64]) -> "Where":
        """The same but for some rows."""
        return replace(self, left_out=(*self.left_out, *rows.tolist()))


class Bound(NamedTuple):
    """How far the server's score may be from ours, see above.

    Args:
        ratio: At least 1.
        slack: At least 0.
    """

    ratio: float
    slack: float

    @property
    def least(self) -> float:
        """The server's score below which ours is not above 0."""
        return -self.slack / self.ratio

    def cut(self, kth: float) -> float:
        """The server's score below which a row is not among the k best."""
        return (kth / self.ratio - 2 * self.slack) / self.ratio if kth > 0 or self.ratio == 1 else -np.inf


class Asked(NamedTuple):
    """One query for the server.

    Args:
        terms: ``(n,)`` numbers of terms, ascending; ``None`` for a query over dense vectors.
        weights: ``(n,)`` of the terms; or the vector.
        bound: How far the server's score is from ours.
    """

    terms: NDArray[np.int64] | None
    weights: NDArray[np.float32]
    bound: Bound

    def cut(self, kth: float) -> tuple[float, bool]:
        """The server's score below which a row is no candidate, and whether one of just this score is none either.

        Rows that share no term with a query score 0 and are no results. A row whose terms cancel each other out scores
        0 too; the one route that takes terms away never gives it as a result.

        Args:
            kth: The k-th largest score; -inf where there are fewer.
        """
        cut = self.bound.cut(kth)
        if self.terms is not None and cut <= self.bound.least:
            return self.bound.least, self.bound.slack == 0
        return cut, False

    def kept(self, scores: NDArray[Any], kth: float) -> NDArray[np.bool_]:
        """Which of some rows are candidates, by their scores."""
        cut, above = self.cut(kth)
        kept: NDArray[np.bool_] = scores > cut if above else scores >= cut
        return kept if self.terms is None else kept & (scores != 0)


def asked_dense(query: NDArray[np.float32], norm: float) -> Asked:
    """A query for vectors of at most the length ``norm``."""
    apart = 1.01 * _ROUNDING * len(query) * float(np.linalg.norm(query.astype(np.float64))) * norm
    return Asked(None, query, Bound(1.0, apart))


def asked_terms(terms: NDArray[np.int64], weights: NDArray[np.float32], *, largest: float, ratio: float) -> Asked:
    """A query for values of terms.

    Args:
        terms: ``(n,)`` numbers; one may stand there twice.
        weights: ``(n,)``.
        largest: The largest value.
        ratio: By what factor the server's values may be larger or smaller than ours.
    """
    distinct, places = np.unique(terms, return_inverse=True)
    sums = np.bincount(places, weights.astype(np.float64), len(distinct)).astype(np.float32)
    rounding = 2 * _ROUNDING * (len(terms) + 8)
    bound = Bound(ratio * (1 + rounding), 0.0)
    if len(weights) and weights.min() < 0:  # terms that are taken away: what is left may be small, and is not as exact
        bound = Bound(1.0, (ratio - 1 + rounding) * float(np.abs(weights).sum(dtype=np.float64)) * largest)
    return Asked(distinct[sums != 0], sums[sums != 0], bound)


def together(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of several queries, ascending, each once."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))


def parts(count: int) -> Iterator[slice]:
    """Slices of queries whose candidates are fetched at once."""
    return (slice(start, min(start + _TOGETHER, count)) for start in range(0, count, _TOGETHER))
