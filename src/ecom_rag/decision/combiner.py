"""The combiner: what the evidence of a listing's candidate classes comes to, as probabilities.

A conditional logit (McFadden 1974): every candidate class has the same features with the same weights, plus a bias of
its own, and competes with the others of the listing and with "none of them":

    P(c) = exp(w . x_c + b_c) / (exp(a) + sum over candidates d of exp(w . x_d + b_d))

It is fitted on the bank's own seeds as listings, each without its relatives among the seeds, so that no label beyond
the bank is spent on it. Where the bank has too few, the seeds vote: P(c) is the share of c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ecom_rag.decision.evidence import Evidence, Neighbours, evidence_of, feature_names, neighbours_of_results
from ecom_rag.files.records import Record

LEAST = 100  # seeds as listings: with fewer, weights would be fitted to chance
_PENALTY = 3.0  # of squared weights, beside the sum of the listings' losses


@dataclass(frozen=True, slots=True)
class Combiner:
    """Weights of evidence.

    Args:
        name: ``logit``, or ``votes``, which has no weights.
        routes: What recall searched.
        top_k: Results per listing.
        labels: The classes, in the order of their numbers.
        mean: ``(features,)``, subtracted from the features.
        scale: ``(features,)``, by which they are then divided.
        weights: ``(features,)`` of the features so scaled.
        bias: ``(classes,)``, what a class adds by itself.
        none: What "none of them" has.
        trained_on: How many listings of which kind.
    """

    name: Literal["logit", "votes"]
    routes: tuple[str, ...]
    top_k: int
    labels: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    none: float
    trained_on: Mapping[str, Any]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return feature_names(self.routes, self.top_k)

    def probabilities(self, evidence: Evidence) -> NDArray[np.float64]:
        """How probable each candidate is.

        Args:
            evidence: Of listings, by the same routes to the same depth.

        Returns:
            ``(listings, candidates)`` in 0..1, 0 where there is no candidate; what a listing's lack to 1 is the
            probability of none of them.
        """
        if self.name == "votes":
            place = self.features.index(f"share of the first {self.top_k}")
            return np.asarray(evidence.features[:, :, place])
        x = np.where((evidence.classes >= 0)[:, :, None], (evidence.features - self.mean) / self.scale, 0.0)
        return _softmax(x @ self.weights + self.bias[evidence.classes], evidence.classes >= 0, self.none)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The candidate classes of listings, the most probable first; of equals the one whose seed is nearer.

    Args:
        classes: ``(listings, candidates)`` int64, -1 for none.
        probabilities: ``(listings, candidates)`` float64 in 0..1 to six decimals, as files hold them; 0 for none.
    """

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def first(self) -> NDArray[np.int64]:
        """``(listings,)``: the most probable class, -1 for none."""
        return self.classes[:, 0]

    @property
    def highest(self) -> NDArray[np.float64]:
        """``(listings,)``: its probability."""
        return self.probabilities[:, 0]

    def flags(self, innocent: Sequence[int]) -> NDArray[np.float64]:
        """``(listings,)``: the highest probability of a class that is not innocent; 0 for none."""
        wrong = (self.classes >= 0) & ~np.isin(self.classes, np.array(innocent, np.int64))
        return np.asarray(np.where(wrong, self.probabilities, 0.0).max(axis=1))


def verdicts(combiner: Combiner, neighbours: Neighbours) -> Verdicts:
    """What the combiner makes of what was found for listings.

    Args:
        combiner: Of the same routes.
        neighbours: By class numbers of the combiner's labels.
    """
    evidence = evidence_of(neighbours, combiner.routes, combiner.top_k)
    probabilities = combiner.probabilities(evidence).round(6)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    classes = np.take_along_axis(evidence.classes, order, axis=1)
    return Verdicts(classes, np.take_along_axis(probabilities, order, axis=1))


def verdicts_of(combiner: Combiner, results: Sequence[Record], labels: Sequence[Sequence[str | None]]) -> Verdicts:
    """As ``verdicts``, of results.

    Args:
        combiner: Of the same routes.
        results: Of recall, checked by ``files.results.check_result``.
        labels: Of their seeds, as ``evidence.seed_labels`` gives them.

    Raises:
        RecordError: Evidence without a score or a rank.
    """
    number = {label: place for place, label in enumerate(combiner.labels)}
    return verdicts(combiner, neighbours_of_results(results, labels, number, combiner.routes, combiner.top_k))


def votes(labels: Sequence[str], routes: Sequence[str], top_k: int, *, why: str) -> Combiner:
    """The combiner that needs no fit.

    Args:
        labels: The classes.
        routes: What recall searched.
        top_k: Results per listing.
        why: What is written down of why the seeds vote.
    """
    zeros = np.zeros(len(feature_names(routes, top_k)))
    bias = np.zeros(len(labels))
    return Combiner("votes", tuple(routes), top_k, tuple(labels), zeros, zeros + 1, zeros, bias, 0.0, {"why": why})


def combiner_of(
    neighbours: Neighbours, truth: NDArray[np.int64], labels: Sequence[str], routes: Sequence[str], top_k: int
) -> Combiner:
    """Fit the weights where the bank has enough for that; where it has too few, the seeds vote.

    Args:
        neighbours: Of the bank's own seeds as listings, one per campaign.
        truth: ``(listings,)`` class of each.
        labels: The classes.
        routes: What recall searched.
        top_k: Results per listing.
    """
    counts = np.bincount(truth, minlength=len(labels))
    if (counts > 1).sum() < 2 or len(truth) < LEAST:
        why = f"the bank has {len(truth)} campaigns of seeds with a label; a fit needs {LEAST} of two classes"
        return votes(labels, routes, top_k, why=why)
    return fit_combiner(evidence_of(neighbours, routes, top_k), truth, labels, routes, top_k)


def fit_combiner(
    evidence: Evidence, truth: NDArray[np.int64], labels: Sequence[str], routes: Sequence[str], top_k: int
) -> Combiner:
    """Fit the weights on listings whose class is known.

    Args:
        evidence: Of the listings.
        truth: ``(listings,)`` class of each; one that is no candidate counts for none of them.
        labels: The classes.
        routes: What recall searched.
        top_k: Results per listing.
    """
    there = evidence.classes >= 0
    known = evidence.features[there]
    mean = known.mean(axis=0)
    scale = known.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = np.where(there[:, :, None], (evidence.features - mean) / scale, 0.0)
    loss = _Loss(x, evidence.classes, truth, len(labels))
    found = minimize(loss, np.zeros(loss.size), jac=True, method="L-BFGS-B").x.round(8)
    counted = {"listings": len(truth), "classes": len(np.unique(truth))}
    split = 1 + x.shape[2]
    return Combiner(
        "logit", tuple(routes), top_k, tuple(labels), mean, scale, found[1:split], found[split:], found[0], counted
    )


class _Loss:
    """Mean negative log-likelihood with an L2 penalty, and its gradient; parameters are none, weights, biases."""

    def __init__(
        self, x: NDArray[np.float64], classes: NDArray[np.int64], truth: NDArray[np.int64], count: int
    ) -> None:
        self._x, self._classes, self._there, self._count = x, classes, classes >= 0, count
        hit = self._there & (classes == truth[:, None])
        self._right = np.concatenate([~hit.any(axis=1, keepdims=True), hit], axis=1)
        self._places = np.maximum(classes, 0).ravel()
        self.size = 1 + x.shape[2] + count

    def __call__(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        split, listings = 1 + self._x.shape[2], len(self._x)
        none, weights, bias = parameters[0], parameters[1:split], parameters[split:]
        given = _softmax(self._x @ weights + bias[self._classes], self._there, none)
        p = np.concatenate([1 - given.sum(axis=1, keepdims=True), given], axis=1)
        loss = -np.log(np.maximum((p * self._right).sum(axis=1), 1e-300)).sum()
        surplus = p - self._right
        of_bias = np.bincount(self._places, (surplus[:, 1:] * self._there).ravel(), minlength=self._count)
        of_weights = np.einsum("nc,ncf->f", surplus[:, 1:], self._x)
        gradient = np.concatenate([[surplus[:, 0].sum()], of_weights, of_bias])
        free = np.concatenate([[0.0], parameters[1:]])
        return (loss + _PENALTY / 2 * (free @ free)) / listings, (gradient + _PENALTY * free) / listings


def _softmax(scores: NDArray[np.float64], there: NDArray[np.bool_], none: float) -> NDArray[np.float64]:
    """``(listings, candidates)`` shares of candidates beside one that is always there and not returned."""
    scores = np.where(there, scores, -np.inf)
    highest = np.maximum(scores.max(axis=1, keepdims=True, initial=-np.inf), none)
    powers = np.exp(scores - highest)
    return np.asarray(powers / (powers.sum(axis=1, keepdims=True) + np.exp(none - highest)))
