"""Figures of a calibration: what its policy decides of the listings that it was made of, by listings and by campaigns.

They describe; what is promised is in the policy alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.decide import Decider
from ecom_rag.decision.guarantee import lower_bound, passing, within_reach
from ecom_rag.decision.judged import Judged
from ecom_rag.decision.policy import Policy, Rule
from ecom_rag.decision.rules import by_label, nearest

REVIEW = -1
_BLOCK = 1024  # listings decided at a time
_EDGES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)  # of probabilities: most of them are high


@dataclass(frozen=True, slots=True)
class Outcome:
    """Judged listings and what a policy decides of each.

    Args:
        judged: The listings.
        decided: ``(listings,)`` int64 class that is decided without a person, ``REVIEW`` where a person must look.
    """

    judged: Judged
    decided: NDArray[np.int64]

    @property
    def automatic(self) -> NDArray[np.bool_]:
        """``(listings,)``: decided without a person."""
        return np.asarray(self.decided != REVIEW)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """``(listings,)``: decided without a person as another class than its own."""
        return np.asarray(self.automatic & (self.decided != self.judged.truth))


class Tally(NamedTuple):
    """Listings or campaigns: how many there are, are decided without a person, and are decided so wrongly."""

    total: int
    decided: int
    wrong: int

    @property
    def precision(self) -> float | None:
        """Share of the decided that is right; ``None`` where nothing is decided."""
        return 1 - self.wrong / self.decided if self.decided else None

    @property
    def coverage(self) -> float:
        """Share that is decided without a person."""
        return self.decided / max(self.total, 1)


class Bin(NamedTuple):
    """Campaigns whose most probable class has a probability from ``low`` to ``high``.

    ``probability`` is their mean, ``right`` the share whose class it is, with its 95 % interval (Clopper and Pearson
    1934).
    """

    low: float
    high: float
    campaigns: int
    probability: float
    right: float
    interval: tuple[float, float]


class Curve(NamedTuple):
    """The precision of the most probable campaigns of some classes, over the share of them that is taken."""

    coverage: NDArray[np.float64]
    precision: NDArray[np.float64]


class Lacking(NamedTuple):
    """What a class without a threshold needs: so many further campaigns, to pass so large a share of all campaigns.

    ``would_pass`` is ``None`` where no calibration campaign passes a threshold that labels could certify, or where
    the campaigns in evasive spellings are too few or too often wrong.
    """

    label: str
    rule: Rule
    would_pass: float | None


class Campaign(NamedTuple):
    """A campaign of several listings: the text that stands for it, its labels, and its listings by what is decided."""

    text: str
    labels: tuple[str, ...]
    listings: int
    decided: Counter[int]


def outcome_of(policy: Policy, judged: Judged) -> Outcome:
    """What a policy decides of judged listings.

    Args:
        policy: The rules.
        judged: Listings with results of the same recall.
    """
    decider, number = Decider(policy), {label: place for place, label in enumerate(policy.combiner.labels)}
    found: list[int] = []
    for start in range(0, len(judged.results), _BLOCK):
        for one in decider.decide_checked(judged.results[start : start + _BLOCK]):
            decision = one["decision"]
            found.append(REVIEW if decision["action"] == "review" else number[decision["label"]])
    return Outcome(judged, np.array(found, np.int64))


def tally(found: Outcome, chosen: NDArray[np.bool_] | None = None) -> Tally:
    """Count listings.

    Args:
        found: Listings and decisions.
        chosen: ``(listings,)``, those that are counted; by default all. Those that stand for their campaigns count
            campaigns.
    """
    chosen = np.ones(len(found.decided), np.bool_) if chosen is None else chosen
    return Tally(int(chosen.sum()), int(found.automatic[chosen].sum()), int(found.wrong[chosen].sum()))


def bins_of(judged: Judged) -> list[Bin]:
    """Campaigns by the probability of their most probable class, those with a candidate class; empty bins left out."""
    one = judged.representative & (judged.verdicts.first >= 0)
    probability, right = judged.verdicts.highest[one], (judged.verdicts.first == judged.truth)[one]
    place = np.clip(np.searchsorted(_EDGES, probability, side="right") - 1, 0, len(_EDGES) - 2)
    found = []
    for number in np.unique(place).tolist():
        here = place == number
        count, hits = int(here.sum()), int(right[here].sum())
        interval = lower_bound(count - hits, count, 0.025), 1 - lower_bound(hits, count, 0.025)
        mean = float(probability[here].mean())
        found.append(Bin(_EDGES[number], _EDGES[number + 1], count, mean, hits / count, interval))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """How far probabilities are from shares on average over the campaigns, 0..1 (expected calibration error)."""
    total = sum(one.campaigns for one in bins)
    return sum(one.campaigns * abs(one.probability - one.right) for one in bins) / max(total, 1)


def curve_of(judged: Judged, classes: Sequence[int]) -> Curve:
    """Precision over coverage of the campaigns that are put in some classes, a point for each threshold there can be.

    Args:
        judged: The listings.
        classes: One class, or the classes of a pool.
    """
    put = judged.representative & np.isin(judged.verdicts.first, classes)
    probability, right = judged.verdicts.highest[put], (judged.verdicts.first == judged.truth)[put]
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    count = np.arange(1, len(ranked) + 1)
    last = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]  # equals pass a threshold together
    return Curve((count / max(len(ranked), 1))[last], (np.cumsum(right[order]) / count)[last])


def lacking(policy: Policy, judged: Judged) -> list[Lacking]:
    """The classes without a threshold, those that lack fewest labels first; those that labels would not help last."""
    campaigns = int(judged.representative.sum())
    guarantee, found = policy.guarantee, []
    delta = guarantee.delta / len(policy.classes) if guarantee.jointly else guarantee.delta
    for label, rule in by_label(policy.classes):
        if rule.threshold is None:
            found.append(Lacking(label, rule, _would_pass(rule, delta, campaigns)))
    return sorted(found, key=lambda one: (one.rule.labels_missing is None, one.rule.labels_missing or 0))


def largest(found: Outcome, most: int) -> list[Campaign]:
    """The campaigns of several listings with the most of them.

    Args:
        found: Listings and decisions.
        most: How many.
    """
    judged = found.judged
    numbers, counts = np.unique(judged.campaigns, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    campaigns = []
    for number in numbers[order[counts[order] > 1]].tolist():
        rows = np.flatnonzero(judged.campaigns == number)
        text = judged.results[int(rows[judged.representative[rows]][0])]["text"]
        labels = Counter(judged.labels[row] for row in rows.tolist())
        named = tuple(label for label, _ in sorted(labels.items(), key=lambda one: (-one[1], one[0])))
        campaigns.append(Campaign(text, named, len(rows), Counter(found.decided[rows].tolist())))
    return campaigns


def worst(found: Outcome, most: int) -> list[int]:
    """Rows of the listings, one per campaign, that are decided wrongly with the highest probability.

    Args:
        found: Listings and decisions.
        most: How many.
    """
    rows = np.flatnonzero(found.wrong & found.judged.representative)
    order = np.argsort(-found.judged.verdicts.highest[rows], kind="stable")
    return [int(row) for row in rows[order][:most]]


def _would_pass(rule: Rule, delta: float, campaigns: int) -> float | None:
    """Share of the campaigns that the nearest threshold passes; ``None`` where evasive spellings are what lacks."""
    if passing(rule.steps, target=rule.target, delta=delta):
        return None
    near = within_reach(rule.steps, target=rule.target, delta=delta)
    open_ = [step for step in near if step.campaigns and step.errors <= (1 - rule.target) * step.campaigns]
    return nearest(open_, rule.target, delta)[0].campaigns / campaigns if open_ else None
