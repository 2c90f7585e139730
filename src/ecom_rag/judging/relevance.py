"""What is relevant to each query, and the nDCG of rankings against it.

In: grades of single documents, or labels. Out: gains, the best possible DCG and nDCG as arrays over all queries, for
searches that measure thousands of rankings; the numbers are trec_eval's, which ``measures`` gives by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Grades:
    """Judgements of single documents.

    Args:
        judged: For each query, row of each judged document and its grade; 1 and above is relevant.
        documents: Number of documents.
    """

    judged: Sequence[Mapping[int, int]]
    documents: int

    @cached_property
    def matrix(self) -> csr_matrix:
        """``(queries, documents)`` of grades."""
        starts = np.cumsum([0, *map(len, self.judged)])
        rows = np.array([row for one in self.judged for row in one], np.int64)
        grades = np.array([grade for one in self.judged for grade in one.values()], np.float64)
        return csr_matrix((grades, rows, starts), shape=(len(self.judged), self.documents))

    def gains(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The gain of each row found ``(queries, k)``, at least 0; of row -1 it is 0."""
        queries = np.arange(len(rows))[:, None].repeat(rows.shape[1], 1)
        grades = np.asarray(self.matrix[queries.ravel(), np.maximum(rows, 0).ravel()], np.float64).reshape(rows.shape)
        return np.where(rows >= 0, np.maximum(grades, 0), 0)

    def ideal(self, k: int) -> NDArray[np.float64]:
        """``(queries,)``: the DCG@k of the best possible ranking."""
        return ideal_dcg([one.values() for one in self.judged], k)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of it, for a digest."""
        return self.matrix.indptr, self.matrix.indices, self.matrix.data


@dataclass(frozen=True)
class Classes:
    """Labels as judgements: the documents of a query's class have grade 1, the query itself aside.

    Args:
        queries: ``(queries,)`` class numbers.
        documents: ``(documents,)`` class numbers.
        own: ``(queries,)`` row of the document that is the query itself, -1 for none.
    """

    queries: NDArray[np.int64]
    documents: NDArray[np.int64]
    own: NDArray[np.int64]

    @property
    def relevant(self) -> NDArray[np.int64]:
        """``(queries,)``: how many documents are relevant."""
        ordered = np.sort(self.documents)
        first, last = (np.searchsorted(ordered, self.queries, side) for side in ("left", "right"))
        return np.asarray(last - first - (self.own >= 0), np.int64)

    def part(self, start: int, stop: int) -> "Classes":
        """The same documents for a part of the queries."""
        return Classes(self.queries[start:stop], self.documents, self.own[start:stop])

    def gains(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The gain of each row found ``(queries, k)``, at least 0; of row -1 it is 0."""
        same = self.documents[np.maximum(rows, 0)] == self.queries[:, None]
        return np.asarray(same & (rows >= 0) & (rows != self.own[:, None]), np.float64)

    def ideal(self, k: int) -> NDArray[np.float64]:
        """``(queries,)``: the DCG@k of the best possible ranking."""
        return np.asarray((np.arange(k) < self.relevant[:, None]).astype(np.float64) @ discounts(k), np.float64)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of it, for a digest."""
        return self.queries, self.documents, self.own


Relevance = Grades | Classes
"""What is relevant to each query."""


def same_class(labels: Sequence[str]) -> Classes:
    """Documents that ask for the others of their label; one whose label has no other does not ask."""
    _, numbers, counts = np.unique(np.array(labels, object), return_inverse=True, return_counts=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    own = np.flatnonzero(counts[numbers] > 1).astype(np.int64)
    return Classes(numbers[own], numbers, own)


def discounts(k: int) -> NDArray[np.float64]:
    """What a gain counts at each of the ranks 1 to k: ``1 / log2(rank + 1)`` (Järvelin and Kekäläinen 2002)."""
    return np.asarray(1 / np.log2(np.arange(2, k + 2)), np.float64)


def ideal_dcg(grades: Sequence[Iterable[int]], k: int) -> NDArray[np.float64]:
    """``(queries,)``: the DCG@k of the best possible ranking, from the grades of each query's judged documents."""
    best = np.zeros((len(grades), k))
    for query, judged in enumerate(grades):
        top = sorted((max(0, grade) for grade in judged), reverse=True)[:k]
        best[query, : len(top)] = top
    return np.asarray(best @ discounts(k), np.float64)


def ndcg(rows: NDArray[np.int64], relevance: Relevance) -> NDArray[np.float64]:
    """The nDCG of rankings as trec_eval has it: gain = grade, over ``log2(rank + 1)``.

    Args:
        rows: ``(queries, k)`` documents, best first, -1 for none.
        relevance: What is relevant to the same queries.

    Returns:
        ``(queries,)`` in 0 to 1; 0 where nothing is relevant.
    """
    k = rows.shape[1]
    ideal = relevance.ideal(k)
    dcg = relevance.gains(rows) @ discounts(k)
    return np.divide(dcg, ideal, out=np.zeros(len(rows)), where=ideal > 0)
