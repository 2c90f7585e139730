"""Search for evasive spellings: rows that sound or look like the query more than they are written like it.

Texts are compared by pairs of neighbouring characters (four letters or digits where they stand together) in three
channels (``ecom_rag.text.spelling``). ``overlap`` is the share of the query's pairs, weighted by idf, that a row holds,
in sound or in shape; ``written`` is the same for the texts as they are written. A pair counts a little less in a long
row, as in BM25. A pair of the query may also be another one, and then counts for 0.8 or 0.9 of it: turned round or
across a neighbour, as where characters were swapped; and with initials (``wx``) all that begin so. Where that finds
nothing certain, emoji and letters of the query that may stand for characters are read so too, and each row counts as in
the better reading. A row is a result where

    overlap >= floor   and   overlap >= margin + the largest ``written`` of all rows

and its score is the overlap: a query that some row holds as it is written is no evasive spelling, and one that no row
holds so, though a row sounds or looks like it, is. So the route reports what the others cannot see, and is silent where
they suffice: fused with them it adds candidates, and leaves the matches of clean texts alone.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.retrieval.counted import Counted, Part
from ecom_rag.retrieval.growing import GrowingRows, combine, forked
from ecom_rag.retrieval.postings import Postings, Saturation, Weights, level_of_terms
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.variant_query import Asked, pairs
from ecom_rag.text.spelling import CHANNELS, with_words

FLOOR, MARGIN = 0.4, 0.15
K1, B = 0.4, 0.5
_ROUNDING = 1e-4  # of sums of overlaps
_CHUNK = 20_000  # texts coded at once
_SPARE = 20  # candidates beyond four times those asked for
_CERTAIN = 0.75  # overlap from which a query is not read in another way too


class VariantIndex:
    """Seeds by how they sound and look.

    Args:
        texts: The seeds.
        floor: The least overlap of a result, 0 to 1.
        margin: By how much it is more than the best overlap as written, 0 to 1.

    Raises:
        UsageError: ``floor`` or ``margin`` is not within 0 to 1.
    """

    needs_own = True  # which rows are the query itself decides what the others are, see ``_closest``

    def __init__(self, texts: Sequence[str] = (), *, floor: float = FLOOR, margin: float = MARGIN) -> None:
        if not (0 <= floor <= 1 and 0 <= margin <= 1):
            raise UsageError(f"variant: floor is {floor} and margin is {margin}; expected 0 to 1 for both")
        self.floor, self.margin = floor, margin
        self._lengths = GrowingRows((), np.int32)  # pairs of characters as written
        self._state = Counted.of(Postings.empty(), self._lengths.rows)
        self._gathered: tuple[Part, ...] = ()
        self.extend(texts)

    def __len__(self) -> int:
        return self._state.postings.rows

    @property
    def counted(self) -> Counted:
        """The postings and their statistics."""
        return self._state

    def extend(self, texts: Sequence[str]) -> None:
        """Append rows."""
        self.gather(texts)
        self.settle()

    def gather(self, texts: Sequence[str]) -> None:
        """Take rows in that are appended by ``settle``, all at once: of many, that costs less than part by part."""
        for start in range(0, len(texts), _CHUNK):
            terms, owners, lengths = _terms_of(texts[start : start + _CHUNK])
            level = level_of_terms(terms, (owners + self._state.next_row(self._gathered)).astype(np.int32))
            self._gathered += (Part(level, lengths),)

    def settle(self) -> None:
        """Append the rows that were gathered."""
        self._state, self._gathered = self._state.extended(self._gathered, self._lengths), ()

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched."""
        return forked(self)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Rows that are never returned again, and count in no statistic; the numbers of the others stay."""
        self._state = self._state.without(rows)

    def search(
        self,
        queries: Sequence[str],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        own: Sequence[NDArray[np.int64]] | None = None,
    ) -> Ranking:
        """The k rows with the largest overlap in sound or shape, of those written differently.

        Args:
            queries: Texts.
            k: At most the number of rows is returned.
            allowed: ``(n,)``: rows that may be returned; by default all. The statistics stay those of all rows.
            own: For each query the rows that are the query itself, so not another way to write it; by default none.

        Returns:
            Row numbers and overlaps from ``floor`` to 1, best first.
        """
        state = self._state
        found = Ranking.empty(len(queries), min(k, state.count))
        if found.rows.size == 0:
            return found
        curve = state.saturation(K1, B)
        mask = combine(state.live, allowed, state.postings.rows)
        asked = Asked.of(queries, state)
        closest = np.maximum(_closest(asked.written, own, state, curve), 0) * (1 + curve.constant)
        rest = np.flatnonzero(closest[:, 0] + self.margin < 1 + _ROUNDING)  # for the others no overlap is enough
        if len(rest) < len(queries):
            asked = Asked.of([queries[number] for number in rest.tolist()], state)
        found.rows[rest], found.scores[rest] = self._best(asked, closest[rest], found.rows.shape[1], state, curve, mask)
        rest = rest[found.scores[rest, 0] < _CERTAIN]
        again = rest[with_words([queries[number] for number in rest.tolist()])]
        if len(again):
            asked = Asked.of([queries[number] for number in again.tolist()], state, as_words=True)
            rows, scores = self._best(asked, closest[again], found.rows.shape[1], state, curve, mask)
            for number, *best in zip(again.tolist(), rows, scores, strict=True):
                _merge(found, number, *best)
        return found

    def _best(
        self,
        asked: Asked,
        closest: NDArray[np.float32],
        k: int,
        state: Counted,
        curve: Saturation,
        mask: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and overlaps of one reading of queries, of which ``closest`` is the best overlap as written."""
        postings = state.postings
        rough = postings.search(asked.rough(), 4 * k + _SPARE, saturation=curve, mask=mask)
        candidates = np.sort(rough.rows, axis=1)
        near = postings.near(candidates, curve)
        overlap = near.overlaps(asked.folded)
        own_starts, plain, less = asked.written
        each = np.arange(len(plain) + 1), plain, np.ones(len(plain), np.float32)
        written = np.maximum(near.overlaps((own_starts, *each, less)), closest)
        overlap[(candidates < 0) | (overlap < self.floor) | (overlap < written + self.margin)] = -np.inf
        order = np.argsort(-overlap, axis=1, kind="stable")[:, :k]  # stable: the earlier row first
        scores = np.take_along_axis(overlap, order, axis=1)
        return np.where(scores > 0, np.take_along_axis(candidates, order, axis=1), -1), np.minimum(scores, 1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        return self._state.arrays()

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone."""
        return Counted.part(arrays, first, stop)

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], *, floor: float = FLOOR, margin: float = MARGIN) -> Self:
        """The index that gave ``arrays``; the postings are used as they are, memory-mapped ones too."""
        index = cls(floor=floor, margin=margin)
        index._state = Counted.from_arrays(arrays, index._lengths)
        return index

    @classmethod
    def over(cls, state: Counted) -> Self:
        """An index to search postings that lie elsewhere.

        Args:
            state: The postings, of terms as ``terms_of`` gives them, and their statistics.
        """
        index = cls()
        index._state = state
        return index


def terms_of(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The terms of all texts one after the other, how many of them each text has, and the length of each text."""
    terms, rows, lengths = _terms_of(texts)
    counts = np.bincount(rows, minlength=len(texts)).astype(np.int64)
    return terms[np.argsort(rows, kind="stable")], counts, lengths


def _terms_of(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The terms of all texts by channel, the text that each is of, and the length of each text."""
    found = pairs(texts)
    terms, rows = (np.concatenate([found[name][i] for name in CHANNELS]) for i in (0, 1))
    return terms, rows, np.bincount(found["plain"][1], minlength=len(texts)).astype(np.int64)


def _closest(
    written: Weights, own: Sequence[NDArray[np.int64]] | None, state: Counted, curve: Saturation
) -> NDArray[np.float32]:
    """How alike each query and the seed that is written most like it are, ``(q, 1)``; its own rows do not count."""
    deeper = max(map(len, own), default=0) if own else 0
    best = state.postings.search(written, 1 + deeper, saturation=curve, mask=state.live)
    for query, rows in enumerate(own or ()):
        best.scores[query, np.isin(best.rows[query], rows)] = -np.inf
    return best.scores.max(axis=1, keepdims=True, initial=-np.inf)


def _merge(found: Ranking, query: int, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
    """Put more results of a query among its own: each row once, with its higher score, best first."""
    every = np.concatenate([found.rows[query], rows])
    score = np.concatenate([found.scores[query], scores])
    order = np.lexsort((every, -score))
    order = order[every[order] >= 0]
    _, first = np.unique(every[order], return_index=True)
    best = order[np.sort(first)][: found.rows.shape[1]]
    found.rows[query], found.scores[query] = -1, -np.inf
    found.rows[query, : len(best)], found.scores[query, : len(best)] = every[best], score[best]
