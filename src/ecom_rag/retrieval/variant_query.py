"""Queries of the variant route: what each of their places may have been, and how much that counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval import variant_kernels as kernels
from ecom_rag.retrieval.counted import Counted
from ecom_rag.retrieval.postings import Weights
from ecom_rag.text.spelling import CHANNELS, Codes, codes, tables

# What a pair of initials counts, one in another order, and one across the character before.
_FACTORS = np.array([0.9, 0.8, 0.79], np.float32)
MANY = 4096  # pairs of a query: from so many on, equal ones are one with their weights added up

Grams = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Terms, and the text that each is of."""


def pairs(texts: Sequence[str]) -> dict[str, Grams]:
    """By channel the terms of texts as they are written, and the text that each is of."""
    channels = codes(texts)
    return {name: (terms, channels[name].rows[places]) for name, (terms, places) in _grams(channels).items()}


def _grams(channels: Mapping[str, Codes]) -> dict[str, Grams]:
    """By channel terms, and the place where each begins."""
    return {
        name: kernels.grams(channel.values, channel.rows, number)
        for number, (name, channel) in enumerate(channels.items())
    }


@dataclass(frozen=True, slots=True)
class Asked:
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
        """One reading of queries.

        Args:
            queries: Texts.
            state: Of the index, for idf.
            as_words: See ``spelling.codes``.
        """
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
        table = tables.load()
        others = kernels.readings(
            sound,
            places,
            *(channels["sound"].values, channels["sound"].rows, CHANNELS.index("sound")),
            *(tables.INITIALS, table.beginning, table.readings, _FACTORS),
        )
        starts = np.searchsorted(rows, bounds)
        joined, sound, shape, weights = _each_once(starts, (sound, shape), shares("folded", rows))
        if len(sound) < starts[-1]:
            others = _of_short(others, starts, joined)
        return cls((joined, *_of_places(sound, shape, others), weights), written)

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


def _of_short(others: Any, starts: NDArray[np.int64], joined: NDArray[np.int64]) -> Any:
    """Further terms for the places that are left after equal ones of very long queries became one; these get none.

    Args:
        others: Where the terms of each place start, the terms, and how much each counts.
        starts: Where the places of each query started.
        joined: And where they start now.
    """
    of_place, terms, factors = others
    counts, long = np.diff(of_place), np.diff(starts) > MANY
    short = np.repeat(~long, np.diff(starts))
    left = np.zeros(joined[-1], np.int64)
    left[np.repeat(~long, np.diff(joined))] = counts[short]
    kept = np.repeat(short, counts)
    return np.concatenate([[0], np.cumsum(left)]), terms[kept], factors[kept]


def _of_places(sound: NDArray[np.int64], shape: NDArray[np.int64], others: Any) -> Any:
    """Where the terms of each place start, the terms, and how much each counts.

    Args:
        sound: ``(places,)``.
        shape: ``(places,)``.
        others: The same three of further terms.
    """
    count = np.arange(len(sound) + 1)
    starts, terms, factors = others
    before = np.repeat(count[:-1], np.diff(starts))  # the place of each further term
    found, weights = np.empty(2 * len(sound) + len(terms), np.int64), np.ones(2 * len(sound) + len(terms), np.float32)
    both = 2 * count[:-1] + starts[:-1]
    found[both], found[both + 1] = sound, shape
    at = np.arange(len(terms)) + 2 * (before + 1)
    found[at], weights[at] = terms, factors
    return 2 * count + starts, found, weights


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
