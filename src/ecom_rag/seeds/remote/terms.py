"""Terms of texts as a server keeps them: each term a number and in how many documents it is, each text its counts.

The server's value of a term in a text is its share of saturation, ``count / (count + constant + slope * length)``, with
the slope (that is, the mean length) of when the text was written. A search uses the present one; see ``bounds``
for what becomes of the difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import RecordError
from ecom_rag.retrieval import bm25, variant
from ecom_rag.retrieval.postings import Level, level_of_tokens
from ecom_rag.seeds.remote.state import State
from ecom_rag.text.analysis import Analyzer

DIMENSIONS = 1_000_000_000  # of the values of a text: numbers of terms stay below, as pgvector demands


class Counts(NamedTuple):
    """Terms of some texts.

    Args:
        names: Each term once, in order.
        level: How often each text holds each of them; its terms are places in ``names``.
        lengths: ``(texts,)``.
    """

    names: list[bytes]
    level: Level
    lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Side:
    """What a route over texts makes of them.

    Args:
        route: Its name.
        k1: Of its saturation.
        b: Of its saturation.
        count: Terms of texts.
    """

    route: str
    k1: float
    b: float
    count: Callable[[Sequence[str]], Counts]

    def slope(self, texts: int, terms: int) -> float:
        """Of the saturation, for a mean length."""
        return self.k1 * self.b * texts / max(terms, 1)

    def values(self, counts: Counts, numbers: NDArray[np.int64], slope: float) -> csr_matrix:
        """What the server keeps of texts.

        Args:
            counts: Of the texts.
            numbers: Of ``counts.names``.
            slope: Of the saturation.
        """
        level = counts.level
        shares = level.values / (level.values + self.k1 * (1 - self.b) + slope * counts.lengths[level.rows])
        terms = np.repeat(numbers[level.terms], np.diff(level.starts))
        shape = len(counts.lengths), DIMENSIONS
        found = csr_matrix((shares.astype(np.float32), (level.rows, terms.astype(np.int32))), shape=shape)
        found.sort_indices()
        return found


def drift(state: State, side: Side) -> float:
    """By what factor the slope of a route has changed since the server's values were made."""
    own = state.statistics.texts.get(side.route)
    if own is None or not own.slope or not state.live:
        return 1.0
    slope = side.slope(state.live, own.terms)
    return max(slope / own.slope, own.slope / slope)


def sides_of(routes: Sequence[str], analyzer: Analyzer) -> dict[str, Side]:
    """The routes over texts among some routes."""
    sides = {
        "bm25": Side("bm25", bm25.K1, bm25.B, lambda texts: words_of(analyzer.tokens(texts))),
        "variant": Side("variant", variant.K1, variant.B, _counts_of_codes),
    }
    return {route: sides[route] for route in routes if route in sides}


def words_of(tokens: Sequence[Sequence[str]]) -> Counts:
    """Counts of texts whose words are known."""
    numbers = {word: number for number, word in enumerate(sorted(set(chain.from_iterable(tokens))))}
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    flat = map(numbers.__getitem__, chain.from_iterable(tokens))
    level = level_of_tokens(np.fromiter(flat, np.int64, int(lengths.sum())), lengths, 0)
    return Counts([name_of(word) for word in numbers], level, lengths)


def _counts_of_codes(texts: Sequence[str]) -> Counts:
    terms, counts, lengths = variant.terms_of(texts)
    distinct, places = np.unique(terms, return_inverse=True)
    return Counts(names_of(distinct), level_of_tokens(places.astype(np.int64), counts, 0), lengths)


def name_of(word: str) -> bytes:
    """A word of bm25 as the server keeps it."""
    return word.encode("utf-8", "surrogatepass")


def names_of(codes: NDArray[np.int64]) -> list[bytes]:
    """Codes of the variant route as the server keeps them."""
    whole = codes.astype(">i8").tobytes()
    return [whole[start : start + 8] for start in range(0, len(whole), 8)]


def codes_of(names: Sequence[bytes]) -> NDArray[np.int64]:
    """What ``names_of`` was given."""
    return np.frombuffer(b"".join(names), ">i8").astype(np.int64)


def check_terms(counts: Counts, route: str, names: Sequence[str], most: int, kind: str) -> None:
    """Refuse texts of more terms than a server holds.

    Args:
        counts: Of the texts.
        route: Named in the error.
        names: Of the texts.
        most: Terms that it holds.
        kind: Of the server.

    Raises:
        RecordError: There are more.
    """
    each = np.bincount(counts.level.rows, minlength=len(names))
    if len(each) and each.max() > most:
        raise RecordError(
            names[int(each.argmax())],
            f"has {each.max()} different terms for the route {route}; a bank in {kind} holds texts of up to {most},"
            " cut it",
        )
