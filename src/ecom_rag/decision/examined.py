"""Every labelled seed as its neighbours outside its own campaign see it.

The unit is the *group*: the seeds of one campaign that have one label. Copies are never asked about each other. What is
found for each seed is spooled, to the disk where it is much, so memory does not grow with what was searched.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.decision.combiner import Combiner, Verdicts, combiner_of, verdicts, votes
from ecom_rag.decision.evidence import Neighbours
from ecom_rag.decision.own_seeds import LabelledSeeds, drawn_seeds, search_among_others
from ecom_rag.pipeline import Pipeline
from ecom_rag.retrieval import Ranking
from ecom_rag.seeds.source import SeedView

LIKELY = 0.5  # probability of another label, from which on it is a contradiction and not just a lack of support
NEAR = 5  # neighbours that are named as reasons
_MOST = 32  # seeds of a group that are searched: the copies of a flood all find the same
_SUSPECT, _LOW, _HIGH = 0.05, 0.01, 0.1  # of its own label: the first time, the last time, at most

_TIMES = 2  # as improbable as the labels that a usual seed does not have, a label may be
_IN_MEMORY = 64_000_000  # bytes; more goes to the disk


@dataclass(frozen=True, slots=True)
class Examined:
    """The groups of a bank, by what their neighbours say.

    Args:
        seeds: The labelled seeds.
        group: ``(seeds,)`` int64 group of each.
        classes: ``(groups,)`` int64 class.
        campaigns: ``(groups,)`` int64 campaign.
        own: ``(groups,)`` float64 probability of the label that the group has, in 0..1.
        suggested: ``(groups,)`` int64 the most probable other class, -1 for none.
        probability: ``(groups,)`` float64 its probability.
        nearest: ``(groups,)`` int64 class of the nearest labelled seed of another campaign, -1 for none.
        near: ``(groups, NEAR)`` int64 rows of the view, the nearest seeds of other campaigns; -1 for none.
        below: Probability of the own label below which it conflicts with the neighbours.
        method: ``logit`` or ``votes``: what made probabilities of neighbours.
    """

    seeds: LabelledSeeds
    group: NDArray[np.int64]
    classes: NDArray[np.int64]
    campaigns: NDArray[np.int64]
    own: NDArray[np.float64]
    suggested: NDArray[np.int64]
    probability: NDArray[np.float64]
    nearest: NDArray[np.int64]
    near: NDArray[np.int64]
    below: float
    method: str

    def campaigns_of_classes(self) -> NDArray[np.int64]:
        """``(classes,)``: campaigns that have seeds of each class."""
        return np.bincount(self.classes, minlength=len(self.seeds.labels))

    def members(self) -> list[NDArray[np.int64]]:
        """For each group the places of its seeds, ascending."""
        return np.split(np.argsort(self.group, kind="stable"), np.cumsum(np.bincount(self.group))[:-1])


def examine(
    pipeline: Pipeline,
    view: SeedView,
    seeds: LabelledSeeds,
    *,
    conflict: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Examined:
    """Search each seed among those of other campaigns and weigh what is found, twice.

    The second time, the groups whose own label was improbable the first time neither vote nor take part in the fit:
    wrong seeds speak for each other otherwise, and teach the combiner that a label is often wrong. What is improbable
    the bank says: less than a usual seed (the median) leaves to all labels but its first, and at last twice that.

    Args:
        pipeline: Recall as listings go through it, without a reranker.
        view: One state of its seeds.
        seeds: The labelled ones of that state.
        conflict: Probability of the own label below which it conflicts, in place of that.
        progress: Called with the number of seeds encoded.
    """
    classes = seeds.classes[seeds.rows]
    _, first, group = np.unique(seeds.campaigns * len(seeds.labels) + classes, return_index=True, return_inverse=True)
    chosen, fitted = to_search(group), drawn_seeds(seeds)
    with _Spool(pipeline.routes) as spool:
        for places in (fitted, np.setdiff1d(chosen, fitted)):
            for part, found, neighbours in search_among_others(pipeline, view, seeds, places, progress=progress):
                spool.add(part, found, neighbours)
        before = _weigh(spool, seeds, group, fitted, np.zeros(len(first), np.bool_), pipeline)
        suspect = (before.own < _low(before, _SUSPECT, 1)) & (before.probability >= LIKELY)
        after = before if suspect.all() else _weigh(spool, seeds, group, fitted, suspect, pipeline)
        nearest, near = _nearest(spool, seeds.classes, group, len(first))
    return Examined(
        seeds,
        group,
        classes[first],
        seeds.campaigns[first],
        after.own,
        after.suggested,
        after.probability,
        nearest,
        near,
        _low(after, _LOW, _TIMES) if conflict is None else conflict,
        after.method,
    )


def to_search(group: NDArray[np.int64], most: int = _MOST) -> NDArray[np.int64]:
    """The first ``most`` seeds of each group.

    Args:
        group: ``(seeds,)`` group of each.
        most: Seeds per group.

    Returns:
        Their places, ascending.
    """
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.sort(order[rank < most])


class _Spool:
    """What was found for seeds, block by block, to be read more than once."""

    def __init__(self, routes: tuple[str, ...]) -> None:
        self._routes = routes
        self._blocks = 0

    def __enter__(self) -> "_Spool":
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, places: NDArray[np.int64], found: Ranking, neighbours: Neighbours) -> None:
        """Keep a block."""
        arrays: list[NDArray[Any]] = [places, found.rows, neighbours.lengths]
        for route in self._routes:
            arrays += [neighbours.scores[route], neighbours.ranks[route]]
        for array in arrays:
            np.save(self._file, array, allow_pickle=False)
        self._blocks += 1

    def read(self, classes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Neighbours]]:
        """For each block its places, the rows found, and what they say.

        Args:
            classes: ``(rows of the view,)`` class of each, -1 for those that say nothing.
        """
        self._file.seek(0)
        for _ in range(self._blocks):
            places, rows, lengths = (self._load() for _ in range(3))
            by_route = {route: (self._load(), self._load()) for route in self._routes}
            labels = np.where(rows >= 0, classes[np.maximum(rows, 0)], -1)
            scores, ranks = ({route: own[side] for route, own in by_route.items()} for side in (0, 1))
            yield places, rows, Neighbours(labels, scores, ranks, lengths)

    def _load(self) -> NDArray[Any]:
        return np.asarray(np.load(self._file, allow_pickle=False))


@dataclass(frozen=True, slots=True)
class _Weighed:
    """``own``, ``suggested``, ``probability`` and ``method`` as in ``Examined``; ``left`` for other labels, median."""

    own: NDArray[np.float64]
    suggested: NDArray[np.int64]
    probability: NDArray[np.float64]
    left: float
    method: str


def _low(weighed: _Weighed, least: float, times: float) -> float:
    """The probability of its own label below which a group is suspect; votes are too coarse for more than none."""
    return _LOW if weighed.method == "votes" else min(max(least, times * weighed.left), _HIGH)


def _weigh(
    spool: _Spool,
    seeds: LabelledSeeds,
    group: NDArray[np.int64],
    fitted: NDArray[np.int64],
    suspect: NDArray[np.bool_],
    pipeline: Pipeline,
) -> _Weighed:
    """Probabilities of each group, by a combiner and by votes of which the suspect groups are no part."""
    heard = seeds.classes.copy()
    heard[seeds.rows[suspect[group]]] = -1
    own = seeds.classes[seeds.rows]
    combiner = _fit(spool, heard, fitted[~suspect[group[fitted]]], own, seeds.labels, pipeline)
    count, total = np.zeros(len(suspect)), csr_matrix((len(suspect), len(seeds.labels)))
    for places, _, neighbours in spool.read(heard):
        total = total + _summed(verdicts(combiner, neighbours), group[places], total.shape)
        count += np.bincount(group[places], minlength=len(count))
    of_group = np.zeros(len(suspect), np.int64)
    of_group[group] = own
    found = total.tocoo()
    p = found.data / count[found.row]
    mine = found.col == of_group[found.row]
    of_own, suggested, probability = np.zeros(len(count)), np.full(len(count), -1, np.int64), np.zeros(len(count))
    of_own[found.row[mine]] = p[mine]
    order = np.lexsort((found.col, -p, found.row))
    order = order[~mine[order] & (p[order] > 0)]
    groups, first = np.unique(found.row[order], return_index=True)
    suggested[groups], probability[groups] = found.col[order[first]], p[order[first]]
    left = 1 - float(np.median(np.maximum(of_own, probability)))
    return _Weighed(of_own.round(6), suggested, probability.round(6), left, combiner.name)


def _fit(
    spool: _Spool,
    heard: NDArray[np.int64],
    fitted: NDArray[np.int64],
    own: NDArray[np.int64],
    labels: tuple[str, ...],
    pipeline: Pipeline,
) -> Combiner:
    parts, truth = [], []
    if not len(fitted):
        return votes(labels, pipeline.routes, NEAR, why="every campaign is suspect")
    for places, _, neighbours in spool.read(heard):
        mine = np.flatnonzero(np.isin(places, fitted))
        if len(mine):
            parts.append(neighbours.take(mine))
            truth.append(own[places[mine]])
    routes, width = pipeline.routes, pipeline.settings.top_k
    found = combiner_of(Neighbours.concatenate(parts), np.concatenate(truth), labels, routes, width)
    return found if found.name == "logit" else votes(labels, routes, NEAR, why="too few campaigns for a fit")


def _summed(found: Verdicts, groups: NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    """``(groups, classes)`` sums of probabilities."""
    seeds, candidates = np.nonzero(found.classes >= 0)
    cells = groups[seeds], found.classes[seeds, candidates]
    return csr_matrix((found.probabilities[seeds, candidates], cells), shape=shape)


def _nearest(
    spool: _Spool, classes: NDArray[np.int64], group: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For the first seed of each group that was searched, the class of the nearest seed, and the rows of the first."""
    first = np.full(count, len(group))
    nearest, near = np.full(count, -1, np.int64), np.full((count, NEAR), -1, np.int64)
    for places, rows, neighbours in spool.read(classes):
        known = neighbours.labels >= 0
        at = known.argmax(axis=1)[:, None]
        said = np.where(known.any(axis=1), np.take_along_axis(neighbours.labels, at, axis=1)[:, 0], -1)
        new = np.flatnonzero(places < first[group[places]])
        new = new[::-1]  # of several seeds of a group the earliest is written last
        groups = group[places[new]]
        first[groups], nearest[groups] = places[new], said[new]
        near[groups, : rows.shape[1]] = rows[new, :NEAR]
    return nearest, near
