"""Search for evasive spellings: rows that sound or look like the query more than they are written like it.

Texts are compared by pairs of neighbouring characters (four letters or digits where they stand together) in three
channels (``ecom_rag.text.spelling``). ``overlap`` is the share of the query's pairs, weighted by idf, that a row holds,
in sound or in shape; ``written`` is the same for the texts as they are written. A pair counts a little less in a long
row, as in BM25. A pair of the query may also be another one, and then counts for 0.8 or 0.9 of it: turned round or
across a neighbour, as where characters were swapped; and with initials (``wx``) all that begin so. A query with emoji
or letters that may stand for characters is read both ways, and each row counts as in the better one. A row is a result
where

    overlap >= floor   and   overlap >= margin + the largest ``written`` of all rows

and its score is the overlap: a query that some row holds as it is written is no evasive spelling, and one that no row
holds so, though a row sounds or looks like it, is. So the route reports what the others cannot see, and is silent where
they suffice: fused with them it adds candidates, and leaves the matches of clean texts alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.retrieval import variant_kernels as kernels
from ecom_rag.retrieval.counted import Counted
from ecom_rag.retrieval.growing import GrowingRows, combine
from ecom_rag.retrieval.postings import Postings, Saturation, Weights, in_threads, level_of_tokens
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.text.spelling import CHANNELS, Codes, codes, tables, with_words

FLOOR, MARGIN = 0.4, 0.15
_K1, _B = 0.4, 0.5
_ROUNDING = 1e-4  # of sums of overlaps
_CHUNK = 20_000  # texts coded at once
_SPARE = 20  # candidates beyond four times those asked for
# What a pair of initials counts, one in another order, and one across the character before.
_FACTORS = np.array([0.9, 0.8, 0.79], np.float32)
_CERTAIN = 0.75  # overlap from which a query is not read in another way too
MANY = 4096  # pairs of a query: from so many on, equal ones are one with their weights added up


class VariantIndex:
    """Seeds by how they sound and look.

    Args:
        texts: The seeds.
        floor: The least overlap of a result, 0 to 1.
        margin: By how much it is more than the best overlap as written, 0 to 1.

    Raises:
        UsageError: ``floor`` or ``margin`` is not within 0 to 1.
    """

    def __init__(self, texts: Sequence[str] = (), *, floor: float = FLOOR, margin: float = MARGIN) -> None:
        if not (0 <= floor <= 1 and 0 <= margin <= 1):
            raise UsageError(f"variant: floor is {floor} and margin is {margin}; expected 0 to 1 for both")
        self.floor, self.margin = floor, margin
        self._lengths = GrowingRows((), np.int32)  # pairs of characters as written
        self._state = Counted.of(Postings.empty(), self._lengths.rows)
        self.extend(texts)

    def __len__(self) -> int:
        return self._state.postings.rows

    def extend(self, texts: Sequence[str]) -> None:
        """Append rows."""
        for start in range(0, len(texts), _CHUNK):
            self._append(texts[start : start + _CHUNK])

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
        curve = state.saturation(_K1, _B)
        mask = combine(state.live, allowed, state.postings.rows)
        asked = _Asked.of(queries, state)
        closest = np.maximum(self._closest(asked.written, own, curve), 0) * (1 + curve.constant)
        rest = np.flatnonzero(closest[:, 0] + self.margin < 1 + _ROUNDING)  # for the others no overlap is enough
        texts = [queries[number] for number in rest.tolist()]
        if len(rest) < len(queries):
            asked = _Asked.of(texts, state)
        found.rows[rest], found.scores[rest] = self._best(asked, closest[rest], found.rows.shape[1], curve, mask)
        again = [place for place in with_words(texts) if found.scores[rest[place], 0] < _CERTAIN]
        if again:
            asked = _Asked.of([texts[place] for place in again], state, as_words=True)
            rows, scores = self._best(asked, closest[rest[again]], found.rows.shape[1], curve, mask)
            for number, *best in zip(rest[again].tolist(), rows, scores, strict=True):
                _merge(found, number, *best)
        return found

    def _best(
        self, asked: "_Asked", closest: NDArray[np.float32], k: int, curve: Saturation, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and overlaps of one reading of queries, of which ``closest`` is the best overlap as written."""
        postings = self._state.postings
        rough = postings.search(asked.rough(), 4 * k + _SPARE, saturation=curve, mask=mask)
        candidates = np.sort(rough.rows, axis=1)
        overlap = _overlaps(candidates, asked.folded, postings, curve)
        own_starts, plain, less = asked.written
        each = np.arange(len(plain) + 1), plain, np.ones(len(plain), np.float32)
        written = np.maximum(_overlaps(candidates, (own_starts, *each, less), postings, curve), closest)
        overlap[(candidates < 0) | (overlap < self.floor) | (overlap < written + self.margin)] = -np.inf
        order = np.argsort(-overlap, axis=1, kind="stable")[:, :k]  # stable: the earlier row first
        scores = np.take_along_axis(overlap, order, axis=1)
        return np.where(scores > 0, np.take_along_axis(candidates, order, axis=1), -1), np.minimum(scores, 1)

    def _closest(
        self, written: Weights, own: Sequence[NDArray[np.int64]] | None, curve: Saturation
    ) -> NDArray[np.float32]:
        """How alike each query and the seed that is written most like it are, ``(q, 1)``; its own rows do not count."""
        deeper = max(map(len, own), default=0) if own else 0
        best = self._state.postings.search(written, 1 + deeper, saturation=curve, mask=self._state.live)
        for query, rows in enumerate(own or ()):
            best.scores[query, np.isin(best.rows[query], rows)] = -np.inf
        return best.scores.max(axis=1, keepdims=True, initial=-np.inf)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        return self._state.arrays()

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], *, floor: float = FLOOR, margin: float = MARGIN) -> Self:
        """The index that gave ``arrays``; the postings are used as they are, memory-mapped ones too."""
        index = cls(floor=floor, margin=margin)
        index._state = Counted.from_arrays(arrays, index._lengths)
        return index

    def _append(self, texts: Sequence[str]) -> None:
        pairs = _pairs(texts)
        rows = np.concatenate([pairs[name][1] for name in CHANNELS])
        terms = np.concatenate([pairs[name][0] for name in CHANNELS])
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=len(texts)).astype(np.int64)
        lengths = np.bincount(pairs["plain"][1], minlength=len(texts))
        self._state = self._state.extended(level_of_tokens(terms[order], counts, len(self)), lengths, self._lengths)


Grams = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Terms, and the text that each is of."""


def _pairs(texts: Sequence[str]) -> dict[str, Grams]:
    channels = codes(texts)
    return {name: (terms, channels[name].rows[places]) for name, (terms, places) in _grams(channels).items()}


def _grams(channels: Mapping[str, Codes]) -> dict[str, Grams]:
    """By channel terms, and the place where each begins."""
    return {
        name: kernels.grams(channel.values, channel.rows, number)
        for number, (name, channel) in enumerate(channels.items())
    }


@dataclass(frozen=True, slots=True)
class _Asked:
    """Queries, each with weights that add up to 1 in both of their forms.

    Args:
        folded: Starts of the queries' places, starts of the places' terms, terms, how much each counts in its place,
            and the places' weights.
        written: Starts, terms and weights.
    """

    folded: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
    written: Weights

    @classmethod
    def of(cls, queries: Sequence[str], state: Counted, *, as_words: bool = False) -> Self:
        channels = codes(queries, as_words=as_words)
        grams = _grams(channels)
        bounds = np.arange(len(queries) + 1)
        idf = {name: state.idf(terms) for name, (terms, _) in grams.items()}
        idf["folded"] = (idf["sound"] + idf["shape"]) / 2

        def shares(name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return np.asarray(idf[name] / np.bincount(rows, idf[name], len(queries))[rows], np.float32)

        (sound, places), (shape, _), (plain, at) = grams["sound"], grams["shape"], grams["plain"]
        rows, owners = channels["sound"].rows[places], channels["plain"].rows[at]
        written = _each_once(np.searchsorted(owners, bounds), (plain,), shares("plain", owners))
        starts = np.searchsorted(rows, bounds)
        if (np.diff(starts) > MANY).any():
            starts, sound, shape, weights = _each_once(starts, (sound, shape), shares("folded", rows))
            return cls((starts, *_of_places(sound, shape), weights), written)
        table = tables.load()
        others = kernels.readings(
            sound,
            places,
            *(channels["sound"].values, channels["sound"].rows, CHANNELS.index("sound")),
            *(tables.INITIALS, table.beginning, table.readings, _FACTORS),
        )
        return cls((starts, *_of_places(sound, shape, others), shares("folded", rows)), written)

    def rough(self) -> Weights:
        """Weights of a plain sum that finds candidates: sound and shape, less half of what is written alike."""
        starts, of_place, terms, factors, weights = self.folded
        own, plain, less = self.written
        once = factors != _FACTORS[2]  # the pair across the character before is that across the next, one place before
        queries = np.arange(len(starts) - 1)
        ends = np.concatenate([[0], np.cumsum(once)])[of_place[starts]]
        rows = np.concatenate([np.repeat(queries, np.diff(s)) for s in (ends, own)])
        order = np.argsort(rows, kind="stable")
        spread = (np.repeat(weights, np.diff(of_place)) * factors)[once]
        values = np.concatenate([spread, -less])[order]
        return ends + own, np.concatenate([terms[once], plain])[order], np.asarray(values / 2, np.float32)


def _of_places(sound: NDArray[np.int64], shape: NDArray[np.int64], others: Any = None) -> Any:
    """Where the terms of each place start, the terms, and how much each counts.

    Args:
        sound: ``(places,)``.
        shape: ``(places,)``.
        others: The same three of further terms; by default none.
    """
    count = np.arange(len(sound) + 1)
    starts, terms, factors = others or (np.zeros_like(count), np.empty(0, np.int64), np.empty(0, np.float32))
    before = np.repeat(count[:-1], np.diff(starts))  # the place of each further term
    found, weights = np.empty(2 * len(sound) + len(terms), np.int64), np.ones(2 * len(sound) + len(terms), np.float32)
    both = 2 * count[:-1] + starts[:-1]
    found[both], found[both + 1] = sound, shape
    at = np.arange(len(terms)) + 2 * (before + 1)
    found[at], weights[at] = terms, factors
    return 2 * count + starts, found, weights


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


def _each_once(starts: NDArray[np.int64], terms: tuple[NDArray[np.int64], ...], weights: NDArray[np.float32]) -> Any:
    """Starts, terms and weights, where the terms of a very long query are in order and none is twice.

    Args:
        starts: ``(q + 1,)``.
        terms: ``(n,)`` each; places are equal where all of them are.
        weights: ``(n,)``.
    """
    sizes = np.diff(starts)
    if not (sizes > MANY).any():
        return starts.astype(np.int64), *terms, weights
    columns: list[NDArray[Any]] = [*terms, weights]
    split = zip(*(np.split(column, starts[1:-1]) for column in columns), strict=True)
    parts = [_summed(values) if len(values[0]) > MANY else values for values in split]
    starts = np.cumsum([0, *(len(values[0]) for values in parts)])
    return starts.astype(np.int64), *(np.concatenate(column) for column in zip(*parts, strict=True))


def _summed(values: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    """Terms in order, each once, with their weights, which come last, added up."""
    order = np.lexsort(values[-2::-1])
    *terms, weights = (column[order] for column in values)
    new = np.any([column[1:] != column[:-1] for column in terms], axis=0)
    at = np.flatnonzero(np.append(True, new))
    return *(column[at] for column in terms), np.add.reduceat(weights, at, dtype=np.float64).astype(np.float32)


def _overlaps(candidates: NDArray[np.int64], asked: Any, postings: Postings, curve: Saturation) -> NDArray[np.float32]:
    """Overlap of each query with each of its candidates, ``(q, candidates)``."""
    out, shares = np.zeros(candidates.shape, np.float32), np.empty(candidates.shape, np.float32)

    def work(first: int, step: int) -> None:
        kernels.overlaps(first, step, candidates, asked, postings.levels, curve, shares, out)

    in_threads(work, len(candidates))
    return out
