"""Indexes whose rows lie in shards: they are searched as those of a whole bank, and give the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files.parts import Held
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.counted import Counted
from ecom_rag.retrieval.postings import Saturation, Weights
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.variant import VariantIndex
from ecom_rag.seeds.sharded.merged import merged
from ecom_rag.seeds.sharded.shard import Allowed
from ecom_rag.text.analysis import Analyzer


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of a bank, and who holds them.

    Args:
        held: They.
        starts: ``(shards,)`` int64 first row of each, ascending.
        sequence: Number of the change that the bank is at.
    """

    held: Held
    starts: NDArray[np.int64]
    sequence: int


@dataclass(frozen=True, slots=True)
class Spread:
    """A route over embeddings. Its scores depend on nothing but the query and the row.

    Args:
        held: The shards.
        route: Its name.
        rows: Of the record, those that are gone included.
        live: Rows that can be found.
    """

    held: Held
    route: str
    rows: int
    live: int

    def __len__(self) -> int:
        return self.rows

    def search(self, queries: Any, k: int, *, allowed: Any = None) -> Ranking:
        """See ``Index.search``; ``allowed`` is a condition or a mask."""
        k = min(k, self.live)
        return merged(self.held.ask("search", self.route, queries, k, allowed), k)

    def rescore(self, queries: Any, offered: NDArray[np.int64], k: int) -> Ranking:
        """See ``MultiVectorIndex.rescore``."""
        k = min(k, offered.shape[1])
        return merged(self.held.ask("rescore", self.route, queries, offered, k), k)


@dataclass(frozen=True, slots=True)
class SpreadPostings:
    """Postings in shards, with what ``Postings`` offers to a search.

    Args:
        shards: They.
        route: Over texts.
        rows: Of the record, those that are gone included.
        names: What the shards know terms by, from a search's numbers of them.
    """

    shards: Shards
    route: str
    rows: int
    names: Callable[[NDArray[np.int64]], Any]

    def frequencies(self, terms: NDArray[np.int64], live: None) -> NDArray[np.int64]:
        """In how many live rows each term is."""
        found: NDArray[np.int64] = np.sum(self.shards.held.ask("frequencies", self.route, self.names(terms)), axis=0)
        return found

    def search(
        self, weights: Weights, k: int, *, saturation: Saturation, mask: Allowed | NDArray[np.bool_] | None
    ) -> Ranking:
        """See ``Postings.search``; ``mask`` may be a condition."""
        starts, terms, values = weights
        distinct, places = np.unique(terms, return_inverse=True)
        asked = self.names(distinct), (starts, places, values), k, _curve(saturation), mask
        return merged(self.shards.held.ask("sums", self.route, *asked), k)

    def near(self, rows: NDArray[np.int64], curve: Saturation) -> "SpreadNear":
        """See ``Postings.near``."""
        return SpreadNear(self.shards, self.route, rows, curve)


@dataclass(frozen=True, slots=True)
class SpreadNear:
    """Given rows, which their shards score; see ``Near``."""

    shards: Shards
    route: str
    rows: NDArray[np.int64]
    curve: Saturation

    def overlaps(self, asked: Any) -> NDArray[np.float32]:
        """See ``Near.overlaps``."""
        out = np.zeros(self.rows.shape, np.float32)
        owner = np.where(self.rows < 0, -1, np.searchsorted(self.shards.starts, self.rows, side="right") - 1)
        found = self.shards.held.ask("overlaps", self.route, self.rows, _curve(self.curve), asked)
        for number, own in enumerate(found):
            out[owner == number] = own
        return out


@dataclass(frozen=True, slots=True)
class SpreadBM25:
    """BM25 over shards: those know words, and numbers of them are made for each search.

    Args:
        shards: They.
        rows: Of the record, those that are gone included.
        live: Rows that can be found.
        terms: Terms in them.
        analyzer: How texts become terms.
    """

    shards: Shards
    rows: int
    live: int
    terms: int
    analyzer: Analyzer

    def __len__(self) -> int:
        return self.rows

    def search(self, queries: Sequence[str], k: int, *, allowed: Any = None) -> Ranking:
        """See ``BM25Index.search``; ``allowed`` is a condition or a mask."""
        tokens = self.analyzer.tokens(queries)
        words = sorted(set(chain.from_iterable(tokens)))

        def names(numbers: NDArray[np.int64]) -> list[str]:
            return [words[number] for number in numbers.tolist()]

        postings = SpreadPostings(self.shards, "bm25", self.rows, names)
        vocabulary = {word: number for number, word in enumerate(words)}
        index = BM25Index.over(_counted(postings, self.live, self.terms), vocabulary, self.analyzer)
        return index.search_tokens(tokens, k, allowed=allowed)


def spread_variant(shards: Shards, rows: int, live: int, terms: int) -> VariantIndex:
    """The variant route over shards: statistics, candidates and overlaps come from these.

    Args:
        shards: They.
        rows: Of the record, those that are gone included.
        live: Rows that can be found.
        terms: Terms in them.
    """
    return VariantIndex.over(_counted(SpreadPostings(shards, "variant", rows, lambda codes: codes), live, terms))


def _counted(postings: SpreadPostings, live: int, terms: int) -> Counted:
    held: Any = postings
    return Counted(held, np.empty(0, np.int32), None, live, terms)


def _curve(saturation: Saturation) -> tuple[np.float32, np.float32]:
    return saturation.constant, saturation.slope
