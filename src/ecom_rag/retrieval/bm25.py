"""BM25 as Lucene 8 and later score it, exact and up to date after every change.

    score(q, d) = sum over query terms of idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avgdl))
    idf(t)      = ln(1 + (N - df + 0.5) / (df + 0.5))

Robertson and Zaragoza 2009, The Probabilistic Relevance Framework, with Lucene's idf, which is never negative, and
without the factor k1 + 1, which orders nothing (Kamphuis et al. 2020, Which BM25 do you mean?). Lengths are exact, not
Lucene's 8-bit ones. N, df and avgdl count the rows that have not been removed; a term that a query holds twice counts
twice. Frequencies and lengths are stored as they are, so that a row more changes no stored number.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.models.embeddings import Ragged
from ecom_rag.retrieval.counted import Counted, Part
from ecom_rag.retrieval.growing import GrowingRows, combine, forked
from ecom_rag.retrieval.postings import Postings, Weights, level_of_tokens
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.text.analysis import Analyzer, Runs

_CHUNK = 50_000  # texts analysed at once


K1, B = 0.9, 0.4


class BM25Index:
    """Seeds' terms, ready for exact BM25 search.

    Args:
        texts: The seeds.
        analyzer: How texts become terms.
        k1: How slowly repetition saturates, at least 0.
        b: How much long texts are held back, 0 to 1.

    Raises:
        UsageError: ``k1`` or ``b`` out of range.
    """

    def __init__(
        self, texts: Sequence[str] = (), *, analyzer: Analyzer | None = None, k1: float = K1, b: float = B
    ) -> None:
        if not (0 <= k1 < np.inf and 0 <= b <= 1):
            raise UsageError(f"bm25: k1 is {k1} and b is {b}; expected k1 of at least 0 and b of 0 to 1")
        self.analyzer = analyzer or Analyzer()
        self.k1, self.b = k1, b
        # A term that is not there yet gets the next number; searches only ever look terms up.
        self._vocabulary: defaultdict[str, int] = defaultdict()
        self._vocabulary.default_factory = self._vocabulary.__len__
        self._lengths = GrowingRows((), np.int32)
        self._state = Counted.of(Postings.empty(), self._lengths.rows)
        self._gathered: tuple[Part, ...] = ()
        self.extend(texts)

    def __len__(self) -> int:
        return self._state.postings.rows

    def extend(self, texts: Sequence[str]) -> None:
        """Append rows."""
        self.gather(texts)
        self.settle()

    def extend_tokens(self, tokens: Sequence[Sequence[str]]) -> None:
        """Append rows of terms that are known already; no analyzer is asked."""
        self._gather(Runs(tokens, np.arange(len(tokens)), np.ones(len(tokens), np.int64)))
        self.settle()

    def gather(self, texts: Sequence[str]) -> None:
        """Take rows in that are appended by ``settle``, all at once: of many, that costs less than part by part."""
        for start in range(0, len(texts), _CHUNK):
            self._gather(self.analyzer.runs(texts[start : start + _CHUNK]))

    def settle(self) -> None:
        """Append the rows that were gathered."""
        self._state, self._gathered = self._state.extended(self._gathered, self._lengths), ()

    def _gather(self, runs: Runs) -> None:
        if not len(runs.counts):
            return
        sizes = np.fromiter(map(len, runs.terms), np.int64, len(runs.terms))
        terms = map(self._vocabulary.__getitem__, chain.from_iterable(runs.terms))
        known = Ragged(np.fromiter(terms, np.int64, int(sizes.sum())), np.concatenate([[0], np.cumsum(sizes)]))
        found = known.take(runs.numbers)
        lengths = np.diff(found.offsets[np.concatenate([[0], np.cumsum(runs.counts)])])
        level = level_of_tokens(found.values, lengths, self._state.next_row(self._gathered))
        self._gathered += (Part(level, lengths),)

    @property
    def counted(self) -> Counted:
        """The postings and their statistics."""
        return self._state

    def numbers(self, words: Sequence[str]) -> NDArray[np.int64]:
        """The numbers of terms in the postings, -1 for one that no row ever had."""
        return np.fromiter(map(self._vocabulary.get, words, repeat(-1)), np.int64, len(words))

    def fork(self) -> Self:
        """An index over the same rows that can be changed while this one is searched; terms keep their numbers in both.

        One thread at a time may change the forks of an index: their vocabulary is one.
        """
        return forked(self)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Rows that are never returned again, and count in no statistic; the numbers of the others stay."""
        self._state = self._state.without(rows)

    def search(self, queries: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The k rows with the highest BM25 score; a row that shares no term with the query is no result.

        Args:
            queries: Texts.
            k: At most the number of rows is returned.
            allowed: ``(n,)``: rows that may be returned; by default all. The statistics stay those of all rows.
        """
        return self.search_tokens(self.analyzer.tokens(queries), k, allowed=allowed)

    def search_tokens(
        self, queries: Sequence[Sequence[str]], k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> Ranking:
        """``search`` for queries of terms that are known already."""
        state = self._state
        curve = state.saturation(self.k1, self.b)
        mask = combine(state.live, allowed, state.postings.rows)
        return state.postings.search(self._weights(queries, state), min(k, state.count), saturation=curve, mask=mask)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        words = "\n".join(self._vocabulary).encode("utf-8", "surrogatepass")
        return {
            **self._state.arrays(),
            "vocabulary": np.frombuffer(words, np.uint8),
            "analyzer": np.frombuffer(self.analyzer.fingerprint().encode(), np.uint8),
        }

    @staticmethod
    def part(arrays: dict[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone, with their words alone."""
        own = Counted.part(arrays, first, stop)
        words = _words_at(arrays["vocabulary"], own["terms"])
        return {**own, "terms": np.arange(len(own["terms"])), "vocabulary": words, "analyzer": arrays["analyzer"]}

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, NDArray[Any]], *, analyzer: Analyzer | None = None, k1: float = K1, b: float = B
    ) -> Self:
        """The index that gave ``arrays``; the postings are used as they are, memory-mapped ones too.

        Raises:
            UsageError: They were made by another analyzer: queries would not find them.
        """
        index = cls(analyzer=analyzer, k1=k1, b=b)
        made_by = arrays["analyzer"].tobytes().decode()
        if made_by != index.analyzer.fingerprint():
            raise UsageError(
                f"bm25: the index was made with {made_by}, but {index.analyzer.fingerprint()} is asked"
                " for; use the same analyzer, or build the index again"
            )
        words = arrays["vocabulary"].tobytes().decode("utf-8", "surrogatepass")
        index._vocabulary.update(zip(words.split("\n") if words else (), range(len(words) + 1), strict=False))
        index._state = Counted.from_arrays(arrays, index._lengths)
        return index

    @classmethod
    def over(cls, state: Counted, vocabulary: Mapping[str, int], analyzer: Analyzer) -> Self:
        """An index to search postings that lie elsewhere.

        Args:
            state: The postings and their statistics.
            vocabulary: Numbers of the terms that queries hold; of others nothing is found.
            analyzer: How texts become terms.
        """
        index = cls(analyzer=analyzer)
        index._vocabulary.update(vocabulary)
        index._state = state
        return index

    def _weights(self, queries: Sequence[Sequence[str]], state: Counted) -> Weights:
        """Each query's known terms with idf times the number of times it holds them, in the order they appear."""
        sizes = np.fromiter(map(len, queries), np.int64, len(queries))
        flat = chain.from_iterable(queries)
        terms = np.fromiter(map(self._vocabulary.get, flat, repeat(-1)), np.int64, int(sizes.sum()))
        owner = np.repeat(np.arange(len(queries)), sizes)
        key = owner * (len(self._vocabulary) + 1) + terms
        _, first, counts = np.unique(key, return_index=True, return_counts=True)
        order = np.argsort(first)
        first, counts = first[order], counts[order]
        known = terms[first] >= 0
        first, counts = first[known], counts[known]
        starts = np.searchsorted(owner[first], np.arange(len(queries) + 1)).astype(np.int64)
        return starts, terms[first], (state.idf(terms[first]) * counts).astype(np.float32)


def _words_at(joined: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some of the words that stand in lines, by the number of the line; again in lines."""
    ends = np.append(np.flatnonzero(joined == ord("\n")), len(joined))
    starts = np.append(0, ends[:-1] + 1)
    each = zip(starts[places].tolist(), ends[places].tolist(), strict=True)
    return np.frombuffer(b"\n".join(joined[start:end].tobytes() for start, end in each), np.uint8)
