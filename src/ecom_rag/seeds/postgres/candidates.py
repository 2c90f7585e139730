"""Candidates of a search: the server orders the rows for each query, or all rows pass by for many queries at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.seeds.postgres import wire
from ecom_rag.seeds.remote.bounds import SPARE, Asked, Where, together
from ecom_rag.seeds.remote.terms import DIMENSIONS

FEW = 8  # queries up to which the server orders the rows for each of them
_AT_ONCE = 512  # queries for which the rows pass by
_ROWS = 4096  # rows at a time


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
    conditions, values = _conditions(where)
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limit = k + max(SPARE, k // 4)
    score, of_score = _score_of(asked)
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


def _streamed(db: Any, table: str, where: Where | None) -> Iterator[tuple[NDArray[np.int64], list[bytes]]]:
    conditions, values = _conditions(where)
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
        found = wire.of_sparse_vectors(values, DIMENSIONS)
        at = np.searchsorted(numbers, found.indices)
        known = (at < len(numbers)) & (numbers[np.minimum(at, len(numbers) - 1)] == found.indices)
        rows = np.repeat(np.arange(len(values)), np.diff(found.indptr))[known]
        own = csr_matrix((found.data[known], (rows, at[known])), shape=(len(values), len(numbers)))
        product: NDArray[np.float32] = (weights @ own.T).toarray()
        return product

    return score


def _conditions(where: Where | None) -> tuple[list[str], list[Any]]:
    """SQL of conditions on ``row``, and their values."""
    found: list[str] = []
    values: list[Any] = []
    if where is not None and where.condition is not None:
        found.append(f"row IN (SELECT row FROM documents WHERE {where.condition})")
        values += where.parameters
    if where is not None and where.left_out:
        found.append("row <> ALL(%s)")
        values.append(list(where.left_out))
    return found, values


def _score_of(asked: Asked) -> tuple[str, list[Any]]:
    """SQL of a row's score with the sign turned, the smallest is best, and its parameters."""
    if asked.terms is None:
        return "(value <#> %s::float8[]::vector)", [asked.weights.tolist()]
    starts = range(0, max(len(asked.terms), 1), wire.MOST_TERMS)
    parts = [slice(start, start + wire.MOST_TERMS) for start in starts]
    texts = [wire.sparse_text(asked.terms[part], asked.weights[part]) for part in parts]
    return f"({' + '.join(['(value <#> %s::sparsevec)'] * len(texts))})", texts
