"""Which candidates may be negatives, and which of those are taken. Pure functions over arrays of row numbers."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import number, one_of, whole
from ecom_rag.errors import UsageError

REASONS = ("known", "label", "duplicate", "margin", "percentage", "reranker")
"""Why a candidate is no negative; one that several rules refuse counts under the first."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is mined.

    Args:
        negatives: Wanted of each query.
        first: Rank of the first candidate considered, from 1.
        last: Rank of the last.
        margin: A negative scores at least this much below the query's lowest positive: TopK-MarginPos of NV-Retriever
            (Moreira et al. 2024, arXiv:2407.15831).
        percentage: A negative scores at most this share of the lowest positive's score: TopK-PercPos, the paper's best
            at 0.95.
        pick: ``random`` of those that are left, or ``top`` for the hardest.
        seed: Of the random picks; each query has its own stream, so that a pick depends on nothing but seed and query.
        reranker_threshold: A candidate to which the reranker gives more than this relevance (0 to 1) is no negative.
        reranker_margin: Nor one that it puts less than this below the query's lowest positive (0 to 1).

    Raises:
        UsageError: A number out of its range, or no number.
    """

    negatives: int = 7
    first: int = 10
    last: int = 100
    margin: float | None = None
    percentage: float | None = None
    pick: str = "random"
    seed: int = 42
    reranker_threshold: float | None = None
    reranker_margin: float | None = None

    def __post_init__(self) -> None:
        for name in ("negatives", "first", "last", "seed"):
            object.__setattr__(self, name, whole(getattr(self, name), name, least=-sys.maxsize))
        for name in ("margin", "percentage", "reranker_threshold", "reranker_margin"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, number(value, name.replace("_", " "), expected="a number"))
        one_of(self.pick, "pick", ("random", "top"))
        threshold, least = self.reranker_threshold, self.reranker_margin
        limits: list[tuple[bool, str, object, str]] = [
            (self.negatives >= 1, "negatives", self.negatives, "at least 1"),
            (1 <= self.first <= self.last, "range", f"{self.first}-{self.last}", "two ranks from 1 on, e.g. 10-100"),
            (self.percentage is None or 0 < self.percentage <= 1, "percentage", self.percentage, "above 0, at most 1"),
            (threshold is None or 0 <= threshold <= 1, "reranker threshold", threshold, "a relevance of 0 to 1"),
            (least is None or 0 <= least <= 1, "reranker margin", least, "a difference of 0 to 1"),
        ]
        for holds, name, value, expected in limits:
            if not holds:
                raise UsageError(f"{name} is {value}; expected {expected}")


def allowed(
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    rules: Rules,
    *,
    groups: NDArray[np.int64],
    known: Sequence[NDArray[np.int64]],
    same_label: Sequence[NDArray[np.int64]],
    floors: NDArray[np.float32] | None,
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which candidates may be negatives, the reranker aside.

    Args:
        ids: ``(queries, depth)`` rows of the corpus, best first, -1 for none.
        scores: ``(queries, depth)``.
        rules: Ranks, margin and percentage.
        groups: ``(corpus,)``: rows of one group are the same text.
        known: For each query the groups that are no negatives: its positives and itself.
        same_label: For each query the rows of its label; what is the same text as one of them is refused too.
        floors: ``(queries,)`` score of the lowest positive; needed for margin and percentage.

    Returns:
        ``(queries, depth)`` mask, and how many candidates within the ranks each rule refused.
    """
    ranks = np.arange(1, ids.shape[1] + 1)
    keep = (ids >= 0) & (ranks >= rules.first) & (ranks <= rules.last)
    found = groups[np.maximum(ids, 0)]
    refused: dict[str, NDArray[np.bool_]] = {
        "known": _among(found, known),
        "label": _among(found, [groups[rows] for rows in same_label]),
        "duplicate": _repeated(np.where(keep, found, -1)),
    }
    if floors is not None:
        positive = floors[:, None]
        if rules.margin is not None:
            refused["margin"] = scores > positive - rules.margin
        if rules.percentage is not None:
            # For a score below 0, a share of it would lie above it; the same distance below is meant.
            refused["percentage"] = scores > positive - np.abs(positive) * (1 - rules.percentage)
    counts = {}
    for reason, mask in refused.items():
        counts[reason] = int((keep & mask).sum())
        keep &= ~mask
    return keep, counts


def order_of(rows: NDArray[np.int64], query: str, rules: Rules) -> NDArray[np.int64]:
    """The rows that may be negatives in the order in which they are taken.

    Args:
        rows: Best first.
        query: Its text decides the random order together with the seed.
        rules: Says ``random`` or ``top``.
    """
    if rules.pick == "top":
        return rows
    return random_of(rules.seed, query).permutation(rows)


def random_of(seed: int, text: str) -> np.random.Generator:
    """A stream of random numbers that depends on seed and text alone."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest))


def _among(found: NDArray[np.int64], refused: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """``(queries, depth)``: which of a query's groups are refused to it."""
    rows = [np.isin(own, groups) for own, groups in zip(found, refused, strict=True)]
    return np.array(rows, bool).reshape(found.shape)


def _repeated(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``(queries, depth)``: whether the group stands earlier in its row too; -1 never does."""
    order = np.argsort(groups, axis=1, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=1)
    repeated = np.zeros(groups.shape, bool)
    repeated[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    result = np.empty_like(repeated)
    np.put_along_axis(result, order, repeated, axis=1)
    return result
