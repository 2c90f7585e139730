"""The words of bm25: each a number, and in how many documents it is; counts of one state, kept for the next."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.seeds.milvus import log
from ecom_rag.seeds.milvus.client import Client
from ecom_rag.seeds.remote.terms import name_of


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one state.

    Args:
        version: Of the numbers.
        sequence: Of the state.
        numbers: By word; later words may be there too, with numbers beyond ``counts``.
        counts: In how many documents each is, by number.
    """

    version: int
    sequence: int
    numbers: dict[bytes, int]
    counts: NDArray[np.int64]

    def known(self, names: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of words, -1 for one that there is not, and their counts."""
        found = np.fromiter((self.numbers.get(name, -1) for name in names), np.int64, len(names))
        found[found >= len(self.counts)] = -1
        if not len(self.counts):
            return found, np.zeros(len(names), np.int64)
        return found, np.where(found < 0, 0, self.counts[found])


class WordCache:
    """The words of the newest state that was asked for; a client holds all of a bank's in memory.

    Args:
        client: A connection.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._newest = Words(-1, 0, {}, np.empty(0, np.int64))
        self._guard = threading.Lock()

    def at(self, version: int, sequence: int) -> Words:
        """Those of a state."""
        with self._guard:
            known = self._newest
            if known.version != version or known.sequence > sequence:
                known = Words(version, 0, {}, np.empty(0, np.int64))
            found = self._folded(known, sequence) if known.sequence < sequence else known
            if (found.version, found.sequence) >= (self._newest.version, self._newest.sequence):
                self._newest = found
            return found

    def _folded(self, known: Words, sequence: int) -> Words:
        numbers, more = known.numbers, dict[int, int]()
        for part in log.read_terms(self._client, known.version, known.sequence, sequence):
            for word, count in part:
                number = numbers.setdefault(name_of(word), len(numbers))
                more[number] = more.get(number, 0) + count
        counts = np.zeros(max(len(known.counts), 1 + max(more, default=-1)), np.int64)
        counts[: len(known.counts)] = known.counts
        counts[list(more)] += np.array(list(more.values()), np.int64) if more else 0
        return Words(known.version, sequence, numbers, counts)
