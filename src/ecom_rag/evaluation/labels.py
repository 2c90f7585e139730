"""Figures for labelled records: the neighbours vote, and the vote is held against the query's own label.

In: each query's label and its neighbours' labels, nearest first. Out: accuracy, macro-F1, and for each class precision,
recall, support, average precision of the vote share, and the recall that a fixed precision leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.judging.significance import RESAMPLES, Comparison, Interval, drawn_times, signs

Counts = tuple[csr_matrix, csr_matrix, csr_matrix]
"""Right votes, votes and own classes, each ``(queries, classes)``."""

_NONE = -1
_CELLS = 4_000_000  # figures of swaps held at a time


@dataclass(frozen=True)
class Votes:
    """What the neighbours say of each query.

    Args:
        classes: Labels, sorted.
        truth: ``(queries,)`` int64 index of the query's own class.
        predicted: ``(queries,)`` int64 class with the most votes, of equals the nearest one's; -1 without neighbours.
        shares: ``(queries, classes)`` float64, 0..1, each class's share of the votes.
    """

    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    shares: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.float64]:
        """``(queries,)``, 1 where the vote is the query's own class."""
        return np.asarray(self.truth == self.predicted, np.float64)


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class, all 0..1 and higher is better, ``support`` excepted.

    Args:
        label: The class.
        support: Queries of it.
        predicted: Queries voted into it.
        precision: 0 where nothing was voted into it.
        recall: 0 where there are no queries of it.
        f1: Harmonic mean of both.
        average_precision: Area under the precision-recall curve of the vote share; NaN without queries of it.
        recall_at_precision: The best recall at any threshold of the vote share whose precision is high enough.
    """

    label: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float
    average_precision: float
    recall_at_precision: float


@dataclass(frozen=True)
class Curve:
    """A precision-recall curve, one point a distinct threshold, highest threshold first."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    @property
    def average_precision(self) -> float:
        """The step-wise area: sum of precision times gain in recall."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def recall_at(self, precision: float) -> float:
        """The largest recall among points of at least this precision; 0 where there is none."""
        return float(self.recall[self.precision >= precision - 1e-12].max(initial=0.0))


def vote(labels: Sequence[str], neighbours: Sequence[Sequence[str]], *, k: int | None = None) -> Votes:
    """One neighbour, one vote.

    Args:
        labels: Each query's own label.
        neighbours: The labels of each query's neighbours, nearest first.
        k: Ask the nearest k only; by default all.
    """
    asked = [found[:k] for found in neighbours]
    lengths = np.array([len(found) for found in asked], np.int64)[:, None]
    places = np.arange(lengths.max(initial=0))
    rows = np.where(places < lengths, np.cumsum(lengths)[:, None] - lengths + places, _NONE)
    return vote_of_rows(labels, [label for found in asked for label in found], rows)


def vote_of_rows(labels: Sequence[str], seed_labels: Sequence[str], rows: NDArray[np.int64]) -> Votes:
    """As ``vote``, where the neighbours are rows of seeds.

    Args:
        labels: Each query's own label.
        seed_labels: The label of each seed.
        rows: ``(queries, k)`` rows of the seeds, nearest first, -1 for none.
    """
    voting = (seed_labels[row] for row in np.unique(rows[rows >= 0]).tolist())
    classes = tuple(sorted({*labels, *voting}))
    number = {label: index for index, label in enumerate(classes)}
    truth = np.array([number[label] for label in labels], np.int64)
    seeds = np.array([number.get(label, _NONE) for label in seed_labels], np.int64)
    nearest = np.where(rows >= 0, seeds[np.maximum(rows, 0)], _NONE)
    counts = np.zeros((len(rows), len(classes)), np.float64)
    query, place = np.nonzero(nearest >= 0)
    np.add.at(counts, (query, nearest[query, place]), 1.0)
    predicted = np.full(len(rows), _NONE, np.int64)
    if rows.shape[1]:
        votes_of = np.where(nearest >= 0, np.take_along_axis(counts, np.maximum(nearest, 0), axis=1), -1.0)
        first = votes_of.argmax(axis=1)  # the first of equals is the nearest
        predicted = nearest[np.arange(len(rows)), first]
    return Votes(classes, truth, predicted, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def class_figures(votes: Votes, *, fixed_precision: float = 0.9) -> list[ClassFigures]:
    """Figures of every class that is a query's or was voted for, most frequent first, then by name."""
    right, named, support = (np.asarray(part.sum(axis=0)).ravel() for part in _counts(votes))
    figures = []
    for index, label in enumerate(votes.classes):
        if support[index] == 0 and named[index] == 0:
            continue
        precision, recall = _ratio(right[index], named[index]), _ratio(right[index], support[index])
        curve = pr_curve(votes.truth == index, votes.shares[:, index]) if support[index] else None
        figures.append(
            ClassFigures(
                label,
                int(support[index]),
                int(named[index]),
                precision,
                recall,
                _ratio(2 * right[index], named[index] + support[index]),
                curve.average_precision if curve else float("nan"),
                curve.recall_at(fixed_precision) if curve else float("nan"),
            )
        )
    return sorted(figures, key=lambda one: (-one.support, one.label))


def pr_curve(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Curve:
    """Precision and recall at every distinct threshold.

    Args:
        positive: ``(queries,)``, at least one true.
        scores: ``(queries,)``, higher is more likely positive; equal scores pass a threshold together.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(positive[order])[last]
    return Curve(hits / (last + 1), hits / positive.sum(), ranked[last])


def macro_f1(votes: Votes) -> float:
    """Mean F1 over the classes that are a query's or were voted for."""
    return float(_macro_f1(*(np.asarray(part.sum(axis=0)) for part in _counts(votes)))[0])


def macro_f1_interval(votes: Votes, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Macro-F1 and its 95 % percentile bootstrap interval over queries."""
    counts = _counts(votes)
    values = np.concatenate([_weighted_f1(counts, times) for times in drawn_times(len(votes.truth), resamples, seed)])
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return Interval(macro_f1(votes), low, high)


def compare_macro_f1(first: Votes, second: Votes, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Macro-F1 of the second minus the first: paired bootstrap interval, and p by swapping votes query by query.

    ``better`` and ``worse`` count queries that only the second or only the first has right.
    """
    return paired_macro_f1([first, second], [(0, 1)], resamples=resamples, seed=seed)[0]


def paired_macro_f1(
    votes: Sequence[Votes], couples: Sequence[tuple[int, int]], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Comparison]:
    """``compare_macro_f1`` of many couples of runs, over one set of draws.

    Args:
        votes: Of each run, over the same queries.
        couples: Indices of the first and the second run.
        resamples: Of bootstrap and randomisation.
        seed: Of both.
    """
    if not couples:
        return []
    votes = _same_classes(votes)
    counts = [_counts(one) for one in votes]
    queries = len(votes[0].truth)
    drawn = np.concatenate(
        [np.stack([_weighted_f1(own, times) for own in counts]) for times in drawn_times(queries, resamples, seed)],
        axis=1,
    )  # (runs, resamples)
    f1 = [macro_f1(one) for one in votes]
    beyond = np.zeros(len(couples), np.int64)
    rows = max(1, _CELLS // (3 * len(votes) * len(votes[0].classes)))
    for flips in signs(queries, resamples, seed):
        for start in range(0, len(flips), rows):
            beyond += _beyond(counts, couples, f1, flips[start : start + rows] < 0)
    found = []
    for (i, j), times in zip(couples, beyond.tolist(), strict=True):
        low, high = np.percentile(drawn[j] - drawn[i], [2.5, 97.5]).tolist()
        change = votes[j].correct - votes[i].correct
        ways = [int((change > 0).sum()), int((change < 0).sum()), int((change == 0).sum())]
        found.append(Comparison(f1[j] - f1[i], low, high, (1 + times) / (1 + resamples), *ways))
    return found


def _beyond(
    counts: Sequence[Counts], couples: Sequence[tuple[int, int]], f1: Sequence[float], swapped: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """For each couple how many of the swaps ``(rows, queries)`` give a difference at least as large as its own."""
    sums = [np.stack([np.asarray(part.sum(axis=0)) for part in own]) for own in counts]  # (3, 1, classes)
    moves = [np.stack([np.asarray(swapped.astype(np.float64) @ part) for part in own]) for own in counts]
    found = np.empty(len(couples), np.int64)
    for number, (i, j) in enumerate(couples):
        moved = moves[i] - moves[j]  # (3, rows, classes)
        difference = _macro_f1(*(sums[j] + moved)) - _macro_f1(*(sums[i] - moved))
        found[number] = (np.abs(difference) >= abs(f1[j] - f1[i]) - 1e-12).sum()
    return found


def _counts(votes: Votes) -> Counts:
    """One-hot rows a query: right votes, votes, and own classes, each ``(queries, classes)``."""
    shape = (len(votes.truth), len(votes.classes))

    def one_hot(column: NDArray[np.int64], rows: NDArray[np.int64]) -> csr_matrix:
        return csr_matrix((np.ones(len(rows)), (rows, column[rows])), shape=shape)

    return (
        one_hot(votes.truth, np.flatnonzero(votes.truth == votes.predicted)),
        one_hot(votes.predicted, np.flatnonzero(votes.predicted >= 0)),
        one_hot(votes.truth, np.arange(len(votes.truth))),
    )


def _weighted_f1(counts: Counts, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1 where query q counts ``times[row, q]`` times: ``(rows,)``."""
    return _macro_f1(*(np.asarray(times @ part) for part in counts))


def _macro_f1(
    right: NDArray[np.float64], named: NDArray[np.float64], support: NDArray[np.float64]
) -> NDArray[np.float64]:
    both = np.atleast_2d(named + support)
    f1 = np.divide(2 * np.atleast_2d(right), both, out=np.zeros_like(both), where=both > 0)
    return np.asarray(f1.sum(axis=1) / np.maximum((both > 0).sum(axis=1), 1))


def _same_classes(votes: Sequence[Votes]) -> list[Votes]:
    classes = tuple(sorted({label for one in votes for label in one.classes}))
    number = {label: place for place, label in enumerate(classes)}

    def renumbered(one: Votes) -> Votes:
        new = np.array([*(number[label] for label in one.classes), _NONE], np.int64)
        shares = np.zeros((len(one.truth), len(classes)))
        shares[:, new[:-1]] = one.shares
        return Votes(classes, new[one.truth], new[one.predicted], shares)

    return [renumbered(one) for one in votes]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
