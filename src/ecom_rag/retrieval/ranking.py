"""What a search gives: rows and scores as arrays, and what each route says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one route says of given candidates.

    Args:
        scores: ``(queries, candidates)`` float32, NaN where the route did not find the candidate.
        ranks: ``(queries, candidates)`` int64 from 1, 0 where the route did not find the candidate.
    """

    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]

    def at(self, places: NDArray[np.int64], found: NDArray[np.bool_]) -> "Evidence":
        """The evidence at other places.

        Args:
            places: ``(queries, k)`` columns to take.
            found: ``(queries, k)``: where there is a candidate at all.
        """
        scores = np.take_along_axis(self.scores, places, axis=1)
        ranks = np.take_along_axis(self.ranks, places, axis=1)
        return Evidence(np.where(found, scores, np.float32(np.nan)), np.where(found, ranks, 0))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best rows for each query, best first; equal scores in row order.

    Args:
        rows: ``(queries, k)`` int64 row numbers, -1 where a query has fewer than k results.
        scores: ``(queries, k)`` float32, descending, -inf where there is no result.
        evidence: By route, and ``reranker``: scores and ranks at the places of ``rows``; empty for a route by itself.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    evidence: Mapping[str, Evidence] = field(default_factory=dict)

    @classmethod
    def empty(cls, queries: int, k: int) -> Self:
        """No results at all."""
        return cls(np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32))

    @classmethod
    def concatenate(cls, parts: Sequence["Ranking"]) -> Self:
        """The rankings of blocks of queries below each other; all of one k and with the same evidence."""
        evidence = {
            name: Evidence(
                np.concatenate([part.evidence[name].scores for part in parts]),
                np.concatenate([part.evidence[name].ranks for part in parts]),
            )
            for name in parts[0].evidence
        }
        rows, scores = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "scores"))
        return cls(rows, scores, evidence)

    def __len__(self) -> int:
        """Queries."""
        return len(self.rows)

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(queries,)``: results of each query."""
        return (self.rows >= 0).sum(axis=1)

    def take(self, queries: slice) -> "Ranking":
        """The rankings of some of the queries."""
        evidence = {name: Evidence(own.scores[queries], own.ranks[queries]) for name, own in self.evidence.items()}
        return replace(self, rows=self.rows[queries], scores=self.scores[queries], evidence=evidence)

    def first(self, k: int) -> "Ranking":
        """The k best of each query."""
        evidence = {name: Evidence(own.scores[:, :k], own.ranks[:, :k]) for name, own in self.evidence.items()}
        return replace(self, rows=self.rows[:, :k], scores=self.scores[:, :k], evidence=evidence)
