"""Evidence: what the seeds that were found for a listing say of each class they have.

In: results of multi-route recall, or rankings with the labels of the seeds. Out: for each listing its candidate
classes, and the same features for each of them. Features compare a class with the others *of one listing*, or are a
route's own scores; fused scores are not comparable from one listing to the next, so only their order is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import RecordError
from ecom_rag.files.identity import as_label, label_at
from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE
from ecom_rag.retrieval import Ranking

MOST_CANDIDATES = 8  # classes per listing: the nearest seeds name few more, and the last of them are not the right one
_BY_ROUTE = ("share by score", "closeness", "margin", "nearness of the first", "score")
_PLACES = (1, 3, 5, 10, 20, 50)  # how many of the first seeds vote, as far as there are so many


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The seeds found for listings, as what they say and no longer who they are.

    Args:
        labels: ``(listings, k)`` int64 class of each seed in the order of the results, -1 for none.
        scores: By route ``(listings, k)`` float64, NaN where the route did not find the seed.
        ranks: By route ``(listings, k)`` int64 from 1, 0 where the route did not find the seed.
        lengths: ``(listings,)`` characters of each listing's text.
    """

    labels: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    ranks: Mapping[str, NDArray[np.int64]]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, listings: NDArray[np.int64]) -> "Neighbours":
        """The neighbours of some listings.

        Args:
            listings: Their places.
        """
        scores = {route: own[listings] for route, own in self.scores.items()}
        ranks = {route: own[listings] for route, own in self.ranks.items()}
        return Neighbours(self.labels[listings], scores, ranks, self.lengths[listings])

    @classmethod
    def concatenate(cls, parts: Sequence["Neighbours"]) -> Self:
        """The neighbours of blocks of listings below each other, of the same routes and of any width."""
        width = max(part.labels.shape[1] for part in parts)
        routes = parts[0].scores

        def joined(arrays: Sequence[NDArray[Any]], fill: Any) -> NDArray[Any]:
            wide = [np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=fill) for one in arrays]
            return np.concatenate(wide)

        return cls(
            joined([part.labels for part in parts], -1),
            {route: joined([part.scores[route] for part in parts], np.nan) for route in routes},
            {route: joined([part.ranks[route] for part in parts], 0) for route in routes},
            np.concatenate([part.lengths for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """The candidate classes of listings and what speaks for each.

    Args:
        classes: ``(listings, candidates)`` int64, in the order in which the listing's seeds have them; -1 for none.
        features: ``(listings, candidates, features)`` float64, 0 where there is no candidate.
    """

    classes: NDArray[np.int64]
    features: NDArray[np.float64]


def neighbours_of_ranking(
    ranking: Ranking, labels: NDArray[np.int64], texts: Sequence[str], routes: Sequence[str]
) -> Neighbours:
    """The neighbours of listings from what a search found.

    Args:
        ranking: With the evidence of ``routes``; a ranking of one route is its own evidence.
        labels: ``(seeds,)`` class of each seed, -1 for none.
        texts: Of the listings.
        routes: What the search used.
    """
    found = ranking.rows >= 0
    own = np.where(found, labels[np.maximum(ranking.rows, 0)], -1)
    places = np.broadcast_to(np.arange(1, own.shape[1] + 1), own.shape)
    scores, ranks = {}, {}
    for route in routes:
        evidence = ranking.evidence.get(route)
        given = (ranking.scores, np.where(found, places, 0)) if evidence is None else (evidence.scores, evidence.ranks)
        scores[route] = np.where(given[1] > 0, given[0].astype(np.float64).round(6), np.nan)  # as files hold them
        ranks[route] = given[1].astype(np.int64)
    return Neighbours(own, scores, ranks, np.array([len(text) for text in texts], np.int64))


def neighbours_of_results(
    results: Sequence[Record],
    labels: Sequence[Sequence[str | None]],
    classes: Mapping[str, int],
    routes: Sequence[str],
    top_k: int,
) -> Neighbours:
    """The neighbours of listings from their results, as ``recall`` writes them.

    Args:
        results: Checked by ``files.results.check_result``.
        labels: Of their seeds, as ``seed_labels`` gives them.
        classes: Number of each label; a label that is not among them counts as none.
        routes: What recall searched.
        top_k: Results per listing that are read.

    Raises:
        RecordError: Evidence without a score or a rank.
    """
    shape = len(results), max((min(len(one["topk_seed"]), top_k) for one in results), default=1) or 1
    numbers = np.full(shape, -1, np.int64)
    scores = {route: np.full(shape, np.nan) for route in routes}
    ranks = {route: np.zeros(shape, np.int64) for route in routes}
    alone = routes[0] if len(routes) == 1 else None
    for row, one in enumerate(results):
        found = labels[row]
        numbers[row, : len(found)] = [classes.get(label, -1) if label is not None else -1 for label in found]
        if EVIDENCE in one:
            try:
                for place, by_route in enumerate(one[EVIDENCE][:top_k]):
                    for route, own in by_route.items():
                        if route in scores:
                            scores[route][row, place], ranks[route][row, place] = own["score"], own["rank"]
            except (KeyError, TypeError, ValueError, OverflowError):
                raise RecordError(
                    f"result {row + 1}", f'"{EVIDENCE}" of seed {place + 1} is not what recall writes; recall it again'
                ) from None
        elif alone is not None:
            scores[alone][row, : len(found)] = one["topk_sim"][:top_k]
            ranks[alone][row, : len(found)] = range(1, len(found) + 1)
    return Neighbours(numbers, scores, ranks, np.array([len(one["text"]) for one in results], np.int64))


def seed_labels(results: Sequence[Record], key: str, top_k: int) -> list[list[str | None]]:
    """The labels of the seeds of results, ``None`` for none.

    Args:
        results: Checked ones.
        key: Metadata key of the labels.
        top_k: Seeds per result that are read.

    Raises:
        RecordError: A seed whose label is no label.
    """
    known: dict[str, str | None] = {}  # a bank has few labels and results repeat them
    plain = "." not in key

    def label(metadata: Mapping[str, Any]) -> str | None:
        value = metadata.get(key) if plain else None
        if type(value) is not str:
            return label_at("a seed found", metadata, key)
        if value not in known:
            known[value] = as_label(value)
        return known[value]

    return [[label(metadata) for metadata in one["topk_metadata"][:top_k]] for one in results]


def feature_names(routes: Sequence[str], top_k: int) -> tuple[str, ...]:
    """The names of the features, in order.

    Args:
        routes: What recall searched.
        top_k: Results per listing.
    """
    shares = [f"share of the first {k}" for k in _voting(top_k)]
    by_route = [f"{what} in {route}" for route in routes for what in _BY_ROUTE]
    return (*shares, "share by rank", "nearness of the first", *by_route, "classes", "length")


def evidence_of(neighbours: Neighbours, routes: Sequence[str], top_k: int) -> Evidence:
    """Candidates and features of listings.

    Args:
        neighbours: At most ``top_k`` seeds each.
        routes: What recall searched.
        top_k: Results per listing.
    """
    labels = neighbours.labels[:, :top_k]
    classes, member = _candidates(labels)
    counted = labels >= 0
    columns = [_share(member, counted, k) for k in _voting(top_k)]
    by_rank = 1 / np.arange(1, labels.shape[1] + 1)
    total = np.maximum((counted * by_rank).sum(axis=1), 1e-12)
    columns.append(np.einsum("nkc,k->nc", member, by_rank) / total[:, None])
    columns.append(_best(member, np.broadcast_to(by_rank, labels.shape)))
    for route in routes:
        scores = np.nan_to_num(neighbours.scores[route][:, :top_k], nan=0.0)
        ranks = neighbours.ranks[route][:, :top_k]
        columns += _of_route(member, counted, np.maximum(scores, 0.0), ranks)
    several = np.log((classes >= 0).sum(axis=1).clip(1)).astype(np.float64)
    length = np.log1p(neighbours.lengths.astype(np.float64))
    columns += [np.broadcast_to(one[:, None], classes.shape) for one in (several, length)]
    features = np.stack(columns, axis=2)
    return Evidence(classes, np.where(classes[:, :, None] >= 0, features, 0.0))


def _voting(top_k: int) -> tuple[int, ...]:
    return (*(k for k in _PLACES if k < top_k), top_k)


def _candidates(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes ``(listings, candidates)`` by first appearance, and who has which: ``(listings, k, candidates)``."""
    same = labels[:, :, None] == labels[:, None, :]
    new = (labels >= 0) & (same.argmax(axis=2) == np.arange(labels.shape[1]))
    number = np.where(new, np.cumsum(new, axis=1) - 1, -1)
    most = int(min(max(number.max(initial=-1) + 1, 1), MOST_CANDIDATES))
    classes = np.full((len(labels), most), -1, np.int64)
    listing, place = np.nonzero(new & (number < most))
    classes[listing, number[listing, place]] = labels[listing, place]
    member = (labels[:, :, None] == classes[:, None, :]) & (classes >= 0)[:, None, :]
    return classes, member.astype(np.float64)


def _share(member: NDArray[np.float64], counted: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    return np.asarray(member[:, :k].sum(axis=1) / np.maximum(counted[:, :k].sum(axis=1), 1)[:, None])


def _best(member: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of ``values (listings, k)``, all at least 0, among the seeds of each candidate; 0 for none."""
    return np.asarray((member * values[:, :, None]).max(axis=1, initial=0.0))


def _of_route(
    member: NDArray[np.float64],
    counted: NDArray[np.bool_],
    scores: NDArray[np.float64],
    ranks: NDArray[np.int64],
) -> list[NDArray[np.float64]]:
    """Features of a route, as ``_BY_ROUTE`` names them; closeness and margin are shares of the listing's best score."""
    best = _best(member, scores)
    highest = np.maximum((counted * scores).max(axis=1, initial=0.0), 1e-12)[:, None]
    other = np.where(_only_best(best), _second(best), best.max(axis=1, keepdims=True))
    nearness = np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0)
    weights = _spread(scores, ranks > 0) * counted
    by_score = np.einsum("nkc,nk->nc", member, weights) / np.maximum(weights.sum(axis=1), 1e-12)[:, None]
    return [by_score, best / highest, (best - other) / highest, _best(member, nearness), np.log1p(best)]


def _spread(scores: NDArray[np.float64], found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores from 0, a listing's last, to 1, its first; 1 where all are equal, 0 for what the route did not find."""
    low = np.min(scores, axis=1, keepdims=True, where=found, initial=np.inf)
    high = np.max(scores, axis=1, keepdims=True, where=found, initial=-np.inf)
    flat = ~(high > low)
    width = np.where(flat, 1.0, high - np.where(flat, 0.0, low))
    return np.where(found, np.where(flat, 1.0, (scores - np.where(flat, 0.0, low)) / width), 0.0)


def _only_best(best: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a candidate is the first of the best."""
    return np.asarray(np.arange(best.shape[1]) == best.argmax(axis=1)[:, None])


def _second(best: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best of the others than the best, 0 for none: ``(listings, 1)``."""
    if best.shape[1] < 2:
        return np.zeros((len(best), 1))
    return np.sort(best, axis=1)[:, -2:-1]
