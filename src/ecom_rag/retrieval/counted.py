"""Postings of rows with the statistics that BM25 and the variant route weigh by: lengths, and counts of live rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.retrieval.growing import GrowingRows, LiveRows, rows_of
from ecom_rag.retrieval.postings import Level, Postings, Saturation, merged


class Part(NamedTuple):
    """Rows that are not among the others yet.

    Args:
        level: Their postings, row numbers from the first that is free.
        lengths: ``(rows,)`` terms in each.
    """

    level: Level
    lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """What one search sees, whatever is changed meanwhile.

    Args:
        postings: How often each row holds each term.
        lengths: ``(rows,)`` int32 terms in each row.
        live: ``(rows,)``: rows that have not been removed; ``None`` for all.
        count: Rows that have not been removed.
        terms: Terms in them.
    """

    postings: Postings
    lengths: NDArray[np.int32]
    live: NDArray[np.bool_] | None
    count: int
    terms: int

    @classmethod
    def of(cls, postings: Postings, lengths: NDArray[np.int32], live: NDArray[np.bool_] | None = None) -> Self:
        """The statistics of postings."""
        terms = int((lengths if live is None else lengths[live]).sum(dtype=np.int64))
        return cls(postings, lengths, live, LiveRows(live).count(len(lengths)), terms)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], room: GrowingRows) -> Self:
        """What gave ``arrays``; the postings are used as they are, memory-mapped ones too. Lengths go into ``room``."""
        room.extend(arrays["lengths"])
        return cls.of(Postings.from_arrays(dict(arrays)), room.rows, LiveRows.of(arrays).mask)

    @staticmethod
    def part(arrays: Mapping[str, NDArray[Any]], first: int, stop: int) -> dict[str, NDArray[Any]]:
        """What ``arrays`` is of the rows from ``first`` to ``stop`` alone."""
        rows = rows_of(arrays, first, stop, "lengths", "live")
        return {**Postings.part(dict(arrays), first, stop), **rows}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``from_arrays`` needs, as arrays that can be saved and memory-mapped."""
        return {**self.postings.arrays(), "lengths": self.lengths, **LiveRows(self.live).arrays()}

    def next_row(self, gathered: Sequence[Part]) -> int:
        """Number of the row behind those that are here and those that were gathered."""
        return self.postings.rows + sum(len(part.lengths) for part in gathered)

    def extended(self, parts: Sequence[Part], room: GrowingRows) -> "Counted":
        """With more rows: their postings, and their lengths, which go into ``room`` behind those that are there."""
        if not parts:
            return self
        level, lengths = merged([part.level for part in parts]), np.concatenate([part.lengths for part in parts])
        room.extend(lengths)
        live = LiveRows(self.live)
        live.extend(len(lengths))
        postings = self.postings.extended(level, len(lengths), live.mask)
        return Counted(postings, room.rows, live.mask, self.count + len(lengths), self.terms + int(lengths.sum()))

    def without(self, rows: NDArray[np.int64]) -> "Counted":
        """With some rows removed; the numbers of the others stay."""
        live = LiveRows(self.live)
        live.remove(rows, self.postings.rows)
        gone = np.unique(rows)
        if self.live is not None:
            gone = gone[self.live[gone]]
        terms = self.terms - int(self.lengths[gone].sum())
        return replace(self, live=live.mask, count=self.count - len(gone), terms=terms)

    def saturation(self, k1: float, b: float) -> Saturation:
        """BM25's, for the present mean length."""
        slope = k1 * b * self.count / max(self.terms, 1)
        return Saturation(self.lengths, np.float32(k1 * (1 - b)), np.float32(slope))

    def idf(self, terms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each term."""
        distinct, which = np.unique(terms, return_inverse=True)
        frequency = self.postings.frequencies(distinct, self.live)
        return np.asarray(np.log1p((self.count - frequency + 0.5) / (frequency + 0.5))[which], np.float64)
