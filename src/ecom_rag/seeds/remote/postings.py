"""The routes over texts: postings that lie in a server, for the indexes that search ``retrieval.postings``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.counted import Counted
from ecom_rag.retrieval.postings import Level, Near, Postings, Saturation, Weights, level_of_postings
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.variant import VariantIndex
from ecom_rag.seeds.remote import terms
from ecom_rag.seeds.remote.bounds import Where, asked_terms, parts, together
from ecom_rag.seeds.remote.engine import Rows
from ecom_rag.seeds.remote.terms import Side
from ecom_rag.text.analysis import Analyzer


@dataclass(frozen=True, slots=True)
class RemotePostings:
    """Postings in a server, with what ``Postings`` offers to a search.

    Args:
        held: One state of the bank.
        side: The route.
        asked: The names of a search's terms, by their numbers there.
        named: A search's number of a name; a name that it does not ask for may have none.
    """

    held: Rows
    side: Side
    asked: Callable[[NDArray[np.int64]], Sequence[bytes]]
    named: Callable[[Sequence[bytes]], NDArray[np.int64]]

    @property
    def rows(self) -> int:
        """Of the bank, those that are gone included."""
        return self.held.state.next_row

    def frequencies(self, asked: NDArray[np.int64], live: None) -> NDArray[np.int64]:
        """In how many documents each term is."""
        return self.held.known(self.side.route, self.asked(asked))[1]

    def search(self, weights: Weights, k: int, *, saturation: Saturation, mask: Where | None) -> Ranking:
        """See ``Postings.search``; ``mask`` is a condition for the server."""
        starts, asked, values = weights
        found = Ranking.empty(len(starts) - 1, k)
        distinct, places = np.unique(asked, return_inverse=True)
        numbers = self.held.known(self.side.route, self.asked(distinct))[0][places]
        if found.rows.size == 0:
            return found
        each = [slice(*pair) for pair in pairwise(starts.tolist())]
        offered = self._candidates([(numbers[one], values[one]) for one in each], k, saturation, mask)
        for part in parts(len(found)):
            rows = together(offered[part])
            if len(rows):
                postings, curve = self._local(rows, saturation)
                bounds = starts[part.start : part.stop + 1]
                some = slice(bounds[0], bounds[-1])
                ranking = postings.search((bounds - bounds[0], asked[some], values[some]), k, saturation=curve)
                found.rows[part] = np.where(ranking.rows >= 0, rows[ranking.rows], -1)
                found.scores[part] = ranking.scores
        return found

    def near(self, rows: NDArray[np.int64], curve: Saturation) -> Near:
        """See ``Postings.near``: here the rows' texts are fetched."""
        distinct = together([rows[rows >= 0]])
        postings, curve = self._local(distinct, curve)
        return Near(np.where(rows < 0, -1, np.searchsorted(distinct, rows)), postings.levels, curve)

    def _candidates(
        self,
        weights: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
        k: int,
        curve: Saturation,
        mask: Where | None,
    ) -> Sequence[NDArray[np.int64]]:
        """Candidates of queries, of which terms without a number are left out: no document has them."""
        # The share of saturation changes by no larger a factor than the slope.
        slope = self.held.state.statistics.texts[self.side.route].slope
        ratio = max(float(curve.slope) / slope, slope / float(curve.slope))
        asked = [asked_terms(n[n >= 0], values[n >= 0], largest=1.0, ratio=ratio) for n, values in weights]
        return self.held.candidates(self.side.route, asked, k, mask)

    def _local(self, rows: NDArray[np.int64], curve: Saturation) -> tuple[Postings, Saturation]:
        """Postings of some rows, numbered from 0, and the saturation for their lengths."""
        counts = self.side.count(self.held.texts(rows))
        level = _renumbered(counts.level, self.named(counts.names))
        lengths = counts.lengths.astype(np.int32)
        return Postings.empty().extended(level, len(rows)), curve._replace(lengths=lengths)


def bm25(rows: Rows, side: Side, analyzer: Analyzer, queries: Sequence[str]) -> BM25Index:
    """An index for some queries.

    Args:
        rows: One state of the bank.
        side: The route.
        analyzer: The bank's.
        queries: Texts.
    """
    words = sorted({word for tokens in analyzer.tokens(queries) for word in tokens})
    names = list(map(terms.name_of, words))
    numbers = {name: number for number, name in enumerate(names)}

    def asked(own: NDArray[np.int64]) -> list[bytes]:
        return [names[number] for number in own.tolist()]

    def named(found: Sequence[bytes]) -> NDArray[np.int64]:
        return np.array([numbers.get(name, -1) for name in found], np.int64)

    vocabulary = {word: number for number, word in enumerate(words)}
    return BM25Index.over(_counted(rows, side, asked, named), vocabulary, analyzer)


def variant(rows: Rows, side: Side) -> VariantIndex:
    """An index.

    Args:
        rows: One state of the bank.
        side: The route.
    """
    return VariantIndex.over(_counted(rows, side, terms.names_of, terms.codes_of))


def _counted(rows: Rows, side: Side, asked: Any, named: Any) -> Counted:
    postings: Any = RemotePostings(rows, side, asked, named)
    count = rows.state.live
    return Counted(postings, np.empty(0, np.int32), None, count, rows.state.statistics.texts[side.route].terms)


def _renumbered(level: Level, numbers: NDArray[np.int64]) -> Level:
    """Postings under other numbers of their terms; those of -1 are left out."""
    found = np.repeat(numbers[level.terms], np.diff(level.starts))
    order = np.argsort(found, kind="stable")  # rows stay ascending within a term
    order = order[np.searchsorted(found[order], 0) :]
    return level_of_postings(found[order], level.rows[order], level.values[order])
