"""What an audit finds, one function per kind: groups of seeds in, findings out. Nothing is removed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.audit_hits import Hits
from ecom_rag.decision.examined import LIKELY, Examined
from ecom_rag.decision.guarantee import campaigns_needed, p_value

KINDS: Mapping[str, str] = {
    "duplicate_conflict": "near-duplicates with different labels",
    "conflict": "similar seeds of other campaigns have another label",
    "hit_and_wrong": "found for listings that mostly have another label",
    "near_innocent": "the nearest other campaign is innocent, or the reverse",
    "thin_class": "too few campaigns for a guarantee",
    "no_evidence": "nothing similar outside the own campaign",
    "never_hit": "campaigns found for no listing",
    "duplicate": "near-duplicates with one label (nothing to do)",
}
"""The kinds of findings and what they mean, most urgent first."""
_ALONE = 2  # campaigns of a class: with fewer nothing can speak for its label


@dataclass(frozen=True, slots=True)
class Finding:
    """Seeds of one campaign with one label, and what is the matter with them.

    Args:
        kind: Of ``KINDS``.
        places: Of the seeds among the labelled ones; each becomes a record, but for the kinds ``duplicate`` and
            ``thin_class``, whose first stands for all.
        why: In words.
        urgency: Within the kind; higher comes first.
        suggested: Another label, ``None`` for none.
        probability: That of ``suggested``, ``None`` where nothing says it.
        because: Rows of the seeds that are named as reasons.
        more: What only this kind has.
    """

    kind: str
    places: NDArray[np.int64]
    why: str
    urgency: float
    suggested: str | None = None
    probability: float | None = None
    because: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    more: Mapping[str, Any] = field(default_factory=dict)


def sorted_findings(found: Sequence[Finding]) -> list[Finding]:
    """Findings, most urgent first; of equals the earlier seed."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda one: (rank[one.kind], -one.urgency, int(one.places[0])))


def duplicate_conflicts(examined: Examined, members: Sequence[NDArray[np.int64]]) -> Iterator[Finding]:
    """Groups whose campaign has another label too, which its neighbours make more probable, or more of its seeds."""
    counts = np.bincount(examined.campaigns)
    mixed = np.flatnonzero(counts[examined.campaigns] > 1)
    by_campaign: dict[int, list[int]] = {}
    for group in mixed.tolist():
        by_campaign.setdefault(int(examined.campaigns[group]), []).append(group)
    labels, rows = examined.seeds.labels, examined.seeds.rows
    for groups in by_campaign.values():
        ranked = sorted(groups, key=lambda one: (-examined.own[one], -len(members[one]), one))
        best, second = ranked[:2]
        tie = (examined.own[best], len(members[best])) == (examined.own[second], len(members[second]))
        for group in groups:
            if group == best and not tie:
                continue
            others = np.concatenate([members[one][:1] for one in groups if one != group])
            yield Finding(
                "duplicate_conflict",
                members[group],
                f"{len(groups)} labels in one campaign: {', '.join(labels[examined.classes[one]] for one in ranked)}",
                float(examined.own[best] - examined.own[group]),
                None if tie else labels[examined.classes[best]],
                None if tie else float(examined.own[best]),
                rows[others],
                {"own_probability": float(examined.own[group])},
            )


def conflicts(examined: Examined, members: Sequence[NDArray[np.int64]], known: NDArray[np.bool_]) -> Iterator[Finding]:
    """Groups whose own label is improbable by what similar seeds of other campaigns say.

    Ranked by how much more probable the suggested label is. Confident learning (Northcutt et al., arXiv:1911.00068)
    compares with a threshold per class; the probability of the own label found more of the planted errors.

    Args:
        examined: The groups.
        members: The seeds of each.
        known: ``(groups,)`` whether it is reported already.
    """
    several = examined.campaigns_of_classes()[examined.classes] >= _ALONE
    labels = examined.seeds.labels
    for group in np.flatnonzero(
        (examined.own < examined.below) & (examined.probability >= LIKELY) & several & ~known
    ).tolist():
        own, other = float(examined.own[group]), float(examined.probability[group])
        suggested = labels[examined.suggested[group]]
        yield Finding(
            "conflict",
            members[group],
            f"similar seeds of other campaigns make {suggested} {other:.1%} probable, the own label {own:.1%}",
            float(np.log(other + 1e-6) - np.log(own + 1e-6)),
            suggested,
            other,
            examined.near[group],
            {"own_probability": own},
        )


def near_innocents(
    examined: Examined, members: Sequence[NDArray[np.int64]], innocent: Sequence[str], known: NDArray[np.bool_]
) -> Iterator[Finding]:
    """Groups on one side of innocence whose nearest other campaign is on the other.

    Args:
        examined: The groups.
        members: The seeds of each.
        innocent: The labels that stand for nothing wrong.
        known: ``(groups,)`` whether it is reported already.
    """
    labels = examined.seeds.labels
    numbers = [labels.index(label) for label in innocent]
    mine, other = np.isin(examined.classes, numbers), np.isin(examined.nearest, numbers)
    for group in np.flatnonzero((examined.nearest >= 0) & (mine != other) & ~known).tolist():
        nearest = labels[examined.nearest[group]]
        yield Finding(
            "near_innocent",
            members[group],
            f"{'innocent' if mine[group] else 'prohibited'}; the nearest other campaign has the label {nearest}",
            1 - float(examined.own[group]),
            because=examined.near[group],
            more={"own_probability": float(examined.own[group])},
        )


def thin_classes(examined: Examined, members: Sequence[NDArray[np.int64]], rate: float, delta: float) -> list[Finding]:
    """Classes with fewer campaigns than a guarantee needs without a single error.

    Args:
        examined: The groups.
        members: The seeds of each.
        rate: The highest error rate to promise.
        delta: Probability with which the promise may be broken.
    """
    needed = campaigns_needed(0, rate, delta)
    found = []
    for number, count in enumerate(examined.campaigns_of_classes().tolist()):
        if count < needed:
            unchecked = "; nothing can speak for its label" if count < _ALONE else ""
            found.append(
                Finding(
                    "thin_class",
                    np.sort(
                        np.concatenate([members[one] for one in np.flatnonzero(examined.classes == number).tolist()])
                    ),
                    f"{count} campaigns; a guarantee needs at least {needed} labelled ones{unchecked}",
                    float(needed - count),
                    more={"campaigns": count, "campaigns_needed": needed, "campaigns_missing": needed - count},
                )
            )
    return found


def without_evidence(examined: Examined, members: Sequence[NDArray[np.int64]]) -> Iterator[Finding]:
    """Groups for which the search finds no labelled seed of another campaign."""
    for group in np.flatnonzero(examined.nearest < 0).tolist():
        yield Finding(
            "no_evidence",
            members[group],
            "no labelled seed outside its campaign is similar: its label is unchecked",
            0.0,
        )


def duplicates(examined: Examined, members: Sequence[NDArray[np.int64]]) -> Iterator[Finding]:
    """Campaigns of several seeds with one label."""
    alone = np.bincount(examined.campaigns)[examined.campaigns] == 1
    for group in np.flatnonzero(alone & (np.bincount(examined.group) > 1)).tolist():
        size = len(members[group])
        why = f"{size} near-duplicates with one label; they count as one campaign and need not be removed"
        yield Finding("duplicate", members[group], why, float(size))


def hit_and_wrong(examined: Examined, hits: Hits, delta: float) -> Iterator[Finding]:
    """Seeds that are wrong more often than right, campaigns of listings counted, by the exact binomial tail.

    Args:
        examined: The groups.
        hits: Of labelled listings.
        delta: Probability of so few right ones up to which half of them could be right.
    """
    for place in np.flatnonzero(2 * hits.wrong > hits.judged).tolist():
        judged, wrong = int(hits.judged[place]), int(hits.wrong[place])
        if p_value(judged - wrong, judged, 0.5) > delta:
            continue
        suggested = hits.instead[place]
        yield Finding(
            "hit_and_wrong",
            np.array([place]),
            f"found for {judged} labelled campaigns of listings; {wrong} have another label, mostly {suggested}",
            float(wrong),
            suggested,
            more={"campaigns": judged, "campaigns_wrong": wrong},
        )


def never_hit(examined: Examined, members: Sequence[NDArray[np.int64]], hits: Hits) -> Iterator[Finding]:
    """Campaigns of which no seed was found for a listing.

    Args:
        examined: The groups.
        members: The seeds of each.
        hits: Of any listings.
    """
    of_campaign = np.bincount(examined.seeds.campaigns, hits.hit, minlength=int(examined.campaigns.max()) + 1)
    for group in np.flatnonzero(of_campaign[examined.campaigns] == 0).tolist():
        why = f"no seed of its campaign was found for any of {hits.campaigns} campaigns of listings"
        yield Finding("never_hit", members[group], why, 0.0)
