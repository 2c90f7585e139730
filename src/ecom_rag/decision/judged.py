"""Labelled listings beside what the combiner says of them, by campaign."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecom_rag.decision.combiner import Verdicts, verdicts_of
from ecom_rag.decision.evidence import seed_labels
from ecom_rag.decision.learned import Learned
from ecom_rag.decision.rules import Units
from ecom_rag.errors import UsageError
from ecom_rag.files.digest import of_texts
from ecom_rag.files.records import Record
from ecom_rag.text.near_duplicates import near_duplicates


@dataclass(frozen=True, slots=True)
class Judged:
    """Labelled listings, none of them a relative of a seed, and what the combiner says of them.

    Args:
        results: The listings with their seeds.
        labels: ``(listings,)`` the label of each.
        truth: ``(listings,)`` int64 class of each, -1 for a label that no seed has.
        verdicts: Of the combiner.
        campaigns: ``(listings,)`` int64 campaign number of each.
        representative: ``(listings,)`` whether it stands for its campaign.
        relatives: Listings that have relatives among the seeds, judged likewise; no part of any promise. ``None`` for
            none.
    """

    results: list[Record]
    labels: list[str]
    truth: NDArray[np.int64]
    verdicts: Verdicts
    campaigns: NDArray[np.int64]
    representative: NDArray[np.bool_]
    relatives: "Judged | None" = None

    @property
    def left_out(self) -> int:
        """Listings that have relatives among the seeds."""
        return 0 if self.relatives is None else len(self.relatives.labels)

    def units(self, innocent: Sequence[int]) -> Units:
        """One text per campaign.

        Args:
            innocent: The classes that stand for nothing wrong.
        """
        one = self.representative
        found = self.verdicts
        return Units(self.truth[one], found.first[one], found.highest[one], found.flags(innocent)[one])


def judge(items: Sequence[Record], labels: Sequence[str], learned: Learned, similarity: float) -> Judged:
    """What the combiner says of labelled results.

    Args:
        items: Results of the same recall.
        labels: The label of each.
        learned: From the bank.
        similarity: From which two texts are of one campaign.

    Raises:
        UsageError: All of them have relatives among the seeds.
    """
    groups = near_duplicates([*learned.seeds.texts, *(item["text"] for item in items)], similarity=similarity)
    of_seeds, of_items = groups[: len(learned.seeds.texts)], groups[len(learned.seeds.texts) :]
    known = np.isin(of_items, of_seeds)
    if known.all():
        raise UsageError(
            f"all {len(items)} listings have near-duplicates among the seeds, which say nothing of new ones; calibrate"
            " on listings that are not in the bank"
        )
    relatives = _judged(items, labels, of_items, np.flatnonzero(known), learned) if known.any() else None
    found = _judged(items, labels, of_items, np.flatnonzero(~known), learned)
    return replace(found, relatives=relatives)


def _judged(
    items: Sequence[Record],
    labels: Sequence[str],
    campaigns: NDArray[np.int64],
    kept: NDArray[np.int64],
    learned: Learned,
) -> Judged:
    """Some of the listings; ``campaigns`` are those of all."""
    provenance, number = learned.provenance, {label: place for place, label in enumerate(learned.seeds.labels)}
    used, own = [items[place] for place in kept.tolist()], [labels[place] for place in kept.tolist()]
    found = seed_labels(used, provenance.label_key, provenance.top_k)
    return Judged(
        used,
        own,
        np.array([number.get(label, -1) for label in own], np.int64),
        verdicts_of(learned.combiner, used, found),
        campaigns[kept],
        _representatives([item["text"] for item in used], campaigns[kept]),
    )


def _representatives(texts: Sequence[str], campaigns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """One text of each campaign, by its digest: not the first nor the last, and the same in any order of the file."""
    chosen: dict[int, tuple[str, int]] = {}
    for place, (text, campaign) in enumerate(zip(texts, campaigns.tolist(), strict=True)):
        mine = (of_texts([text]), place)
        chosen[campaign] = min(chosen.get(campaign, mine), mine)
    found = np.zeros(len(texts), np.bool_)
    found[[place for _, place in chosen.values()]] = True
    return found
