"""The rows that can be among the k best: the server scores all rows, and what its scores cannot rule out comes here.

A score of the server is not ours to the last bit: it adds in another order, and its values of terms are of the mean
length of when they were written. But how far the two can be apart is known,

    server / ratio - slack  <=  ours  <=  server * ratio + slack

so a row whose score is below ``(kth / ratio - 2 slack) / ratio``, with the k-th largest of the server, is surely not
among our k best. All others are, and our own arithmetic decides among them; so the result is exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.seeds.postgres import wire

_ROUNDING = 2.0**-23  # relative, of a sum a term: twice that of float32, for the server's and for ours
FEW = 8  # queries up to which the server orders the rows for each of them
_AT_ONCE = 512  # queries for which the rows pass by
_ROWS = 4096  # rows at a time
_SPARE = 32  # rows asked for beyond the k best, since most often they show that there are no further candidates


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows may be returned, as a condition for the server.

    Args:
        rows: Rows of the bank, those that are gone included.
        condition: SQL over the table of documents; ``None`` for all.
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

    def sql(self) -> tuple[list[str], list[Any]]:
        """Conditions on ``row``, and their values."""
        found: list[str] = []
        values: list[Any] = []
        if self.condition is not None:
            found.append(f"row IN (SELECT row FROM documents WHERE {self.condition})")
            values += self.parameters
        if self.left_out:
            found.append("row <> ALL(%s)")
            values.append(list(self.left_out))
        return found, values


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

    def sql(self) -> tuple[str, list[Any]]:
        """SQL of a row's score with the sign turned, the smallest is best, and its parameters."""
        if self.terms is None:
            return "(value <#> %s::float8[]::vector)", [self.weights.tolist()]
        starts = range(0, max(len(self.terms), 1), wire.MOST_TERMS)
        parts = [slice(start, start + wire.MOST_TERMS) for start in starts]
        texts = [wire.sparse_text(self.terms[part], self.weights[part]) for part in parts]
        return f"({' + '.join(['(value <#> %s::sparsevec)'] * len(texts))})", texts

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


def candidates(db: Any, table: str, asked: Sequence[Asked], k: int, where: Where | None) -> list[NDArray[np.int64]]:
    """For each query the rows that can be among its k best, in any order.

    Args:
        db: In a read transaction.
        table: Of a route.
        asked: The queries.
        k: How many are asked for.
        where: Rows that may be returned; by default all.
    """
    found = [np.empty(0, np.int64)] * len(asked)
    some = [number for number, one in enumerate(asked) if len(one.weights)]
    for start in range(0, len(some), _AT_ONCE):
        part = some[start : start + _AT_ONCE]
        ones = [asked[number] for number in part]
        many = len(some) > FEW
        rows = scanned(db, table, ones, k, where) if many else [ranked(db, table, one, k, where) for one in ones]
        for number, own in zip(part, rows, strict=True):
            found[number] = own
    return found


def ranked(db: Any, table: str, asked: Asked, k: int, where: Where | None) -> NDArray[np.int64]:
    """The candidates of a query: the server orders all rows."""
    conditions, values = (where or Where(0)).sql()
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limit = k + max(_SPARE, k // 4)
    score, of_score = asked.sql()
    query = f"SELECT row, {score} AS score FROM {table}{filtered} ORDER BY score LIMIT {limit}"
    found = db.execute(query, [*of_score, *values]).fetchall()
    rows = np.array([row for row, _ in found], np.int64)
    scores = -np.array([score for _, score in found], np.float64)
    kth = float(scores[k - 1]) if len(scores) >= k else -np.inf
    cut, above = asked.cut(kth)
    if len(scores) < limit or scores[-1] < cut or (above and scores[-1] <= cut):
        return rows[asked.kept(scores, kth)]
    conditions += [f"-{score} >= %s", *([] if asked.terms is None else [f"{score} <> 0"])]
    values += [*of_score, cut, *([] if asked.terms is None else of_score)]
    query = f"SELECT row FROM {table} WHERE {' AND '.join(conditions)}"
    return np.array([row for (row,) in db.execute(query, values)], np.int64)


def scanned(db: Any, table: str, asked: Sequence[Asked], k: int, where: Where | None) -> list[NDArray[np.int64]]:
    """The candidates of many queries: all rows pass by once, which costs as much as some ten orderings."""
    kept = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(asked)
    least = [-np.inf] * len(asked)
    score = _scoring(asked)
    for rows, values in _streamed(db, table, where):
        scores = score(values)
        for number, one in enumerate(asked):
            own = scores[number]
            new = np.flatnonzero(one.kept(own, least[number]))
            if len(new):
                found = np.concatenate([kept[number][0], rows[new]]), np.concatenate([kept[number][1], own[new]])
                if len(found[1]) >= k:
                    least[number] = float(np.partition(found[1], len(found[1]) - k)[len(found[1]) - k])
                still = one.kept(found[1], least[number])
                kept[number] = found[0][still], found[1][still]
    return [rows for rows, _ in kept]


def together(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of several queries, ascending, each once."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))


def _streamed(db: Any, table: str, where: Where | None) -> Iterator[tuple[NDArray[np.int64], list[bytes]]]:
    conditions, values = (where or Where(0)).sql()
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    with db.cursor("scan", binary=True) as cursor:
        cursor.execute(f"SELECT row, value FROM {table}{filtered}", values)
        while block := cursor.fetchmany(_ROWS):
            yield np.array([row for row, _ in block], np.int64), [value for _, value in block]


def _scoring(asked: Sequence[Asked]) -> Callable[[list[bytes]], NDArray[np.float32]]:
    """What gives the scores ``(queries, rows)`` of values as the server keeps them."""
    if asked[0].terms is None:
        queries = np.stack([one.weights for one in asked])
        return lambda values: queries @ wire.of_vectors(values, queries.shape[1]).T
    terms = [one.terms for one in asked if one.terms is not None]
    numbers = together(terms)
    places = np.searchsorted(numbers, np.concatenate(terms))
    offsets = np.cumsum([0, *(len(one.weights) for one in asked)])
    weights = csr_matrix(
        (np.concatenate([one.weights for one in asked]), places, offsets), shape=(len(asked), len(numbers))
    )

    def score(values: list[bytes]) -> NDArray[np.float32]:
        found = wire.of_sparse_vectors(values, wire.DIMENSIONS)
        at = np.searchsorted(numbers, found.indices)
        known = (at < len(numbers)) & (numbers[np.minimum(at, len(numbers) - 1)] == found.indices)
        rows = np.repeat(np.arange(len(values)), np.diff(found.indptr))[known]
        own = csr_matrix((found.data[known], (rows, at[known])), shape=(len(values), len(numbers)))
        product: NDArray[np.float32] = (weights @ own.T).toarray()
        return product

    return score
