"""Every labelled seed as its neighbours outside its own campaign see it.

The unit is the *group*: the seeds of one campaign that have one label. Copies are never asked about each other, and
what is kept of each group does not grow with what was searched.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.decision.combiner import Verdicts, combiner_of, verdicts
from ecom_rag.decision.evidence import Neighbours
from ecom_rag.decision.own_seeds import LabelledSeeds, drawn_seeds, search_among_others
from ecom_rag.pipeline import Pipeline
from ecom_rag.retrieval import Ranking
from ecom_rag.seeds.source import SeedView

NEAR = 5  # neighbours that are named as reasons
_MOST = 32  # seeds of a group that are searched: the copies of a flood all find the same


@dataclass(frozen=True, slots=True)
class Examined:
    """The groups of a bank, by what their neighbours say.

    Args:
        seeds: The labelled seeds.
        group: ``(seeds,)`` int64 group of each.
        first: ``(groups,)`` int64 place of the first seed of each.
        classes: ``(groups,)`` int64 class.
        campaigns: ``(groups,)`` int64 campaign.
        own: ``(groups,)`` float64 probability of the label that the group has, in 0..1.
        suggested: ``(groups,)`` int64 the most probable other class, -1 for none.
        probability: ``(groups,)`` float64 its probability.
        nearest: ``(groups,)`` int64 class of the nearest labelled seed of another campaign, -1 for none.
        near: ``(groups, NEAR)`` int64 rows of the view, the nearest seeds of other campaigns; -1 for none.
        method: ``logit`` or ``votes``: what made probabilities of neighbours.
    """

    seeds: LabelledSeeds
    group: NDArray[np.int64]
    first: NDArray[np.int64]
    classes: NDArray[np.int64]
    campaigns: NDArray[np.int64]
    own: NDArray[np.float64]
    suggested: NDArray[np.int64]
    probability: NDArray[np.float64]
    nearest: NDArray[np.int64]
    near: NDArray[np.int64]
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
    progress: Callable[[int], None] | None = None,
) -> Examined:
    """Search each seed among those of other campaigns and weigh what is found.

    The combiner is fitted on one seed per campaign, as for a policy. A wrong label takes part in the fit of its own
    judge, but a fit in five folds over campaigns finds no more planted errors: LOG.md has the figures.

    Args:
        pipeline: Recall as listings go through it, without a reranker.
        view: One state of its seeds.
        seeds: The labelled ones of that state.
        progress: Called with the number of seeds encoded.
    """
    classes = seeds.classes[seeds.rows]
    keys = seeds.campaigns * len(seeds.labels) + classes
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    chosen = to_search(group)
    fitted = drawn_seeds(seeds)
    rest = np.setdiff1d(chosen, fitted)
    seen = _Seen(len(seeds.rows))
    parts = []
    for places, found, neighbours in search_among_others(pipeline, view, seeds, fitted, progress=progress):
        seen.add(places, found, neighbours)
        parts.append(neighbours)
    routes, top_k = pipeline.routes, pipeline.settings.top_k
    combiner = combiner_of(Neighbours.concatenate(parts), classes[fitted], seeds.labels, routes, top_k)
    weighed = _Weighed(group, len(seeds.labels))
    weighed.add(fitted, verdicts(combiner, Neighbours.concatenate(parts)))
    for places, found, neighbours in search_among_others(pipeline, view, seeds, rest, progress=progress):
        seen.add(places, found, neighbours)
        weighed.add(places, verdicts(combiner, neighbours))
    own, suggested, probability = weighed.of(classes[first])
    shown = _searched_first(group, np.union1d(fitted, rest))
    return Examined(
        seeds,
        group,
        first,
        classes[first],
        seeds.campaigns[first],
        own,
        suggested,
        probability,
        seen.nearest[shown],
        seen.near[shown],
        combiner.name,
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


class _Seen:
    """The nearest seeds of other campaigns, for the seeds that were searched."""

    def __init__(self, count: int) -> None:
        self.near = np.full((count, NEAR), -1, np.int64)
        self.nearest = np.full(count, -1, np.int64)

    def add(self, places: NDArray[np.int64], found: Ranking, neighbours: Neighbours) -> None:
        rows = found.rows[:, :NEAR]
        self.near[places, : rows.shape[1]] = rows
        known = neighbours.labels >= 0
        at = known.argmax(axis=1)[:, None]
        self.nearest[places] = np.where(known.any(axis=1), np.take_along_axis(neighbours.labels, at, axis=1)[:, 0], -1)


class _Weighed:
    """Probabilities of classes, summed over the seeds of each group."""

    def __init__(self, group: NDArray[np.int64], classes: int) -> None:
        self._group = group
        self._count = np.zeros(int(group.max()) + 1)
        self._sum = csr_matrix((len(self._count), classes))

    def add(self, places: NDArray[np.int64], found: Verdicts) -> None:
        seeds, candidates = np.nonzero(found.classes >= 0)
        groups = self._group[places]
        cells = groups[seeds], found.classes[seeds, candidates]
        self._sum = self._sum + csr_matrix((found.probabilities[seeds, candidates], cells), shape=self._sum.shape)
        self._count += np.bincount(groups, minlength=len(self._count))

    def of(self, own: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """The mean probability of each group's own class, its most probable other class, and that one's."""
        found = self._sum.tocoo()
        p = found.data / self._count[found.row]
        mine = found.col == own[found.row]
        of_own = np.zeros(len(own))
        of_own[found.row[mine]] = p[mine]
        order = np.lexsort((found.col, -p, found.row))
        order = order[~mine[order] & (p[order] > 0)]
        groups, first = np.unique(found.row[order], return_index=True)
        suggested, probability = np.full(len(own), -1, np.int64), np.zeros(len(own))
        suggested[groups], probability[groups] = found.col[order[first]], p[order[first]]
        return of_own.round(6), suggested, probability.round(6)


def _searched_first(group: NDArray[np.int64], searched: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each group the place of its first seed that was searched."""
    _, first = np.unique(group[searched], return_index=True)
    return np.asarray(searched[first])
