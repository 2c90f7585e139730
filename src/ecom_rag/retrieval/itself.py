"""Search for the others: a seed that is the query itself (see ``identity.is_itself``) is never among its results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files.identity import known_id
from ecom_rag.files.records import Record
from ecom_rag.models.embeddings import Ragged
from ecom_rag.retrieval.ranking import Ranking

Rows = Sequence[NDArray[np.int64]]
"""For each query the rows that are the query itself."""

_DEEPER = 64  # a query with more rows of its own (copies of a text without ids) is searched alone, with a mask


class OwnRows:
    """Which of some seeds a query is.

    Args:
        records: The seeds.
        id_key: Metadata key of the ids of seeds and queries.
    """

    def __init__(self, records: Sequence[Record], id_key: str) -> None:
        self._id_key = id_key
        self._by_id: dict[str, list[int]] = {}
        self._by_text: dict[str, list[int]] = {}
        self._nameless: dict[str, list[int]] = {}  # by text
        for row, record in enumerate(records):
            name = known_id(record.get("metadata"), id_key)
            self._by_text.setdefault(record["text"], []).append(row)
            if name is None:
                self._nameless.setdefault(record["text"], []).append(row)
            else:
                self._by_id.setdefault(name, []).append(row)

    def of(self, queries: Sequence[Record]) -> list[NDArray[np.int64]]:
        """For each query the rows of the seeds that it is, ascending."""
        return [np.array(sorted(self._of(query)), np.int64) for query in queries]

    def _of(self, query: Record) -> list[int]:
        name = known_id(query.get("metadata"), self._id_key)
        if name is None:
            return self._by_text.get(query["text"], [])
        return self._by_id.get(name, []) + self._nameless.get(query["text"], [])


def search_others(index: Any, queries: Any, k: int, *, own: Rows | None = None, allowed: Any = None) -> Ranking:
    """As ``index.search``, without each query's own rows: the next best take their places.

    Args:
        index: An ``Index``.
        queries: In the index's own form.
        k: Results a query.
        own: Rows that are the query itself; by default none.
        allowed: ``(n,)``: rows that may be returned, a mask or what else the index takes; by default all.
    """
    counts = np.array([len(rows) for rows in own or ()], np.int64)
    if own is None or not counts.any():
        return _search(index, queries, k, own=None, allowed=allowed)
    few = [rows if len(rows) <= _DEEPER else rows[:0] for rows in own]
    deeper = k + max(map(len, few))
    top = _without(_search(index, queries, deeper, own=few, allowed=allowed), few, k)
    for query in np.flatnonzero(counts > _DEEPER).tolist():
        mask = _masked(allowed, own[query], len(index))
        asked = queries.take(np.array([query])) if isinstance(queries, Ragged) else queries[query : query + 1]
        one = _search(index, asked, k, own=[own[query]], allowed=mask)
        top.rows[query], top.scores[query] = -1, -np.inf
        width = min(one.rows.shape[1], top.rows.shape[1])
        top.rows[query, :width], top.scores[query, :width] = one.rows[0, :width], one.scores[0, :width]
    return top


def _search(index: Any, queries: Any, k: int, *, own: Rows | None, allowed: Any) -> Ranking:
    more = {"own": own} if getattr(index, "needs_own", False) else {}
    found: Ranking = index.search(queries, k, allowed=allowed, **more)
    return found


def _masked(allowed: Any, rows: NDArray[np.int64], count: int) -> Any:
    """What is allowed but for some rows; a store elsewhere has a condition of its own kind in place of a mask."""
    if hasattr(allowed, "without"):
        return allowed.without(rows)
    mask = np.ones(count, np.bool_) if allowed is None else allowed.copy()
    mask[rows] = False
    return mask


def _without(top: Ranking, own: Rows, k: int) -> Ranking:
    """The k best of a ranking that are none of a query's own rows."""
    gone = top.rows < 0
    for query, rows in enumerate(own):
        if len(rows):
            gone[query] |= np.isin(top.rows[query], rows)
    order = np.argsort(gone, axis=1, kind="stable")[:, :k]
    gone = np.take_along_axis(gone, order, axis=1)
    rows_left = np.where(gone, -1, np.take_along_axis(top.rows, order, axis=1))
    scores = np.where(gone, np.float32(-np.inf), np.take_along_axis(top.scores, order, axis=1))
    return Ranking(rows_left, scores)
