"""Candidates of a search: the server scores all rows, and is asked for more until none can be missing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.seeds.milvus.client import MOST, Client
from ecom_rag.seeds.remote.bounds import SPARE, Asked, together

_ANSWERS = 1_000_000  # rows in an answer


def candidates(
    client: Client, collection: str, route: str, asked: Sequence[Asked], k: int, where: str, rows: int
) -> list[NDArray[np.int64]]:
    """For each query the rows that can be among its k best, in any order.

    Args:
        client: A connection.
        collection: Of rows.
        route: Whose vectors are searched.
        asked: The queries.
        k: How many are asked for.
        where: An expression for the rows that may be returned.
        rows: Of the bank, those that are gone included.
    """
    found = [np.empty(0, np.int64)] * len(asked)
    some = [number for number, one in enumerate(asked) if len(one.weights)]
    vectors = {number: _vector(asked[number]) for number in some}
    todo = [(some, 0, rows, min(k + max(SPARE, k // 4), MOST))]
    while todo:
        numbers, first, last, limit = todo.pop()
        within = where if (first, last) == (0, rows) else f"({where}) and row >= {first} and row < {last}"
        unsure = []
        step = max(1, _ANSWERS // limit)
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            answers = client.search(collection, "row", route, [vectors[number] for number in part], limit, within)
            for number, (own, scores) in zip(part, answers, strict=True):
                kth = float(scores[k - 1]) if len(scores) >= k else -np.inf
                found[number] = together([found[number], own[asked[number].kept(scores, kth)]])
                if len(scores) >= limit and not _complete(asked[number], float(scores[-1]), kth):
                    unsure.append(number)
        if unsure and limit < MOST:
            todo.append((unsure, first, last, min(8 * limit, MOST)))
        elif unsure:  # more ties than a server gives at once: half of the rows at a time
            middle = (first + last) // 2
            todo += [(unsure, first, middle, limit), (unsure, middle, last, limit)]
    return found


def _complete(asked: Asked, least: float, kth: float) -> bool:
    """Whether a row that scores no more than ``least`` is surely no candidate."""
    cut, above = asked.cut(kth)
    return least < cut or (above and least <= cut)


def _vector(asked: Asked) -> Any:
    """A query as the server takes it; 0 is the number of what every row has."""
    if asked.terms is None:
        return asked.weights
    return dict(zip((asked.terms + 1).tolist(), asked.weights.tolist(), strict=True))
