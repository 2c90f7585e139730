"""A range of the rows of a bank on disk: what one process holds, and what it is asked."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import BankError
from ecom_rag.filters.tree import Filter
from ecom_rag.retrieval.growing import combine
from ecom_rag.retrieval.postings import Saturation, Weights
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.routes import TEXT_ROUTES
from ecom_rag.seeds.bank import SeedBank, derived
from ecom_rag.seeds.bank.masks import Masks
from ecom_rag.seeds.bank.store import State

Curve = tuple[np.float32, np.float32]
"""Constant and slope of a ``Saturation``; the lengths are the shard's own."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Rows that may be returned: those that a filter matches, as each shard finds out for its own.

    Args:
        rows: Rows of the record, those that are gone included.
        tree: The filter.
        left_out: Rows that may not be returned although they match.
    """

    rows: int
    tree: Filter
    left_out: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.rows

    def without(self, rows: NDArray[np.int64]) -> "Allowed":
        """The same but for some rows."""
        return replace(self, left_out=(*self.left_out, *rows.tolist()))


Where = Allowed | NDArray[np.bool_] | None
"""A condition, a mask over the rows of the record, or ``None`` for all."""


@dataclass(frozen=True, slots=True)
class Part:
    """A shard by name, see ``files.parts.Part``.

    Args:
        bank: Folder of the bank.
        span: First row of the record that is in the shard, and the first behind it.
        sequence: Number of the change that the bank is at.
    """

    bank: str
    span: tuple[int, int]
    sequence: int

    def open(self) -> "Shard":
        """Load the shard.

        Raises:
            BankError: No bank there, a damaged one, or one that has changed.
        """
        return Shard(self)


class Shard:
    """The indexes of a range of the rows. All its rows are numbers in the record, as the whole bank counts them.

    Args:
        part: Which.

    Raises:
        BankError: As of ``Part.open``.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._bank = SeedBank.open(part.bank, maintain=False)
        self._masks = Masks(whole=False)
        with self._reading() as (db, state):
            plan = replace(self._bank.plan, span=part.span)
            self._derived = derived.load(db, state, plan, self._bank.path)
        self._rows = self._derived.rows.rows

    def terms(self) -> dict[str, int]:
        """By route over texts, the terms of all its rows together."""
        return {route: self._index(route).counted.terms for route in TEXT_ROUTES if route in self._derived.indexes}

    def search(self, route: str, queries: Any, k: int, where: Where) -> Ranking:
        """The k best rows by a route over embeddings.

        Args:
            route: Its name.
            queries: In its form.
            k: Results per query; fewer where there are fewer rows.
            where: Rows that may be returned.
        """
        return self._numbered(self._derived.indexes[route].search(queries, k, allowed=self._mask(where)))

    def rescore(self, route: str, queries: Any, offered: NDArray[np.int64], k: int) -> Ranking:
        """The k best of given rows, of which those of other shards are left out; see ``MultiVectorIndex.rescore``."""
        index: Any = self._derived.indexes[route]
        return self._numbered(index.rescore(queries, self._places(offered), k))

    def frequencies(self, route: str, terms: Any) -> NDArray[np.int64]:
        """In how many live rows each term is.

        Args:
            route: Over texts.
            terms: Words for ``bm25``, codes for ``variant``.
        """
        state = self._index(route).counted
        found: NDArray[np.int64] = state.postings.frequencies(self._numbers(route, terms), state.live)
        return found

    def sums(self, route: str, terms: Any, weights: Weights, k: int, curve: Curve, where: Where) -> Ranking:
        """The k rows with the largest sums, see ``Postings.search``.

        Args:
            route: Over texts.
            terms: Each once, as of ``frequencies``.
            weights: Starts, places in ``terms``, and weights.
            k: Results per query.
            curve: Of the whole bank.
            where: Rows that may be returned.
        """
        state, (starts, places, values) = self._index(route).counted, weights
        numbers = self._numbers(route, terms)[places]
        mask = combine(state.live, self._mask(where), state.postings.rows)
        curve_here = Saturation(state.lengths, *curve)
        return self._numbered(state.postings.search((starts, numbers, values), k, saturation=curve_here, mask=mask))

    def overlaps(self, route: str, candidates: NDArray[np.int64], curve: Curve, asked: Any) -> NDArray[np.float32]:
        """Overlaps of queries with their candidates, of those of this shard alone and one after the other.

        Args:
            route: ``variant``.
            candidates: ``(q, n)`` rows, ascending, -1 before the first.
            curve: Of the whole bank.
            asked: See ``Near.overlaps``.
        """
        state, places = self._index(route).counted, self._places(candidates)
        own = places >= 0
        width = int(own.sum(axis=1).max(initial=0))
        order = np.argsort(own, axis=1, kind="stable")[:, places.shape[1] - width :]  # those of others come first
        near = state.postings.near(np.take_along_axis(places, order, axis=1), Saturation(state.lengths, *curve))
        out = np.zeros(places.shape, np.float32)
        np.put_along_axis(out, order, near.overlaps(asked), axis=1)
        found: NDArray[np.float32] = out[own]
        return found

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tuple[Connection, State]]:
        with self._bank.store.reading() as (db, state):
            check_sequence(self._part.bank, self._part.sequence, state)
            yield db, state

    def _index(self, route: str) -> Any:
        return self._derived.indexes[route]

    def _numbers(self, route: str, terms: Any) -> NDArray[np.int64]:
        """Terms as the postings number them; one that is not there has none of them."""
        found: NDArray[np.int64] = self._index(route).numbers(terms) if route == "bm25" else terms
        return found

    def _numbered(self, found: Ranking) -> Ranking:
        return Ranking(np.where(found.rows >= 0, self._rows[found.rows], -1), found.scores)

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows stand in the indexes, -1 for those of other shards."""
        at = np.minimum(np.searchsorted(self._rows, rows), len(self._rows) - 1)
        return np.where(self._rows[at] == rows, at, -1)

    def _mask(self, where: Where) -> NDArray[np.bool_] | None:
        if not isinstance(where, Allowed):
            return None if where is None else where[self._rows]
        with self._reading() as (db, _):
            mask = self._masks.of(where.tree, db, self._derived, self._bank.indexed)
        if where.left_out:
            mask = mask & ~np.isin(self._rows, where.left_out)
        return mask


def check_sequence(bank: str, expected: int, state: State) -> None:
    """Raise ``BankError`` where a bank has changed since it was cut."""
    if state.sequence != expected:
        raise BankError(
            f"{bank}: has changed since the run began (sequence {expected}, now {state.sequence}); run again, without"
            " `resume`"
        )


def spans_of(rows: NDArray[np.int64], count: int, next_row: int) -> Sequence[tuple[int, int]]:
    """Rows cut into ranges of about equally many, none of them empty.

    Args:
        rows: Those that can be found, ascending; at least one.
        count: Ranges; fewer where there are fewer rows.
        next_row: Behind the last row.
    """
    count = min(count, len(rows))
    starts = [0, *rows[np.arange(1, count) * len(rows) // count].tolist()]
    return list(zip(starts, [*starts[1:], next_row], strict=True))
