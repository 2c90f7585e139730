"""Which seeds recall found for listings, and for how many campaigns of another label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.files.identity import known_id, label_at
from ecom_rag.files.records import Record
from ecom_rag.text.near_duplicates import near_duplicates


@dataclass(frozen=True, slots=True)
class Hits:
    """Campaigns of listings per seed; copies of a listing count once.

    Args:
        hit: ``(seeds,)`` int64 campaigns in whose first results the seed is.
        judged: ``(seeds,)`` int64 those of them that have a label.
        wrong: ``(seeds,)`` int64 those of them most of whose listings have another label than the seed.
        instead: ``(seeds,)`` the commonest label of the wrong ones, ``None`` for none.
        campaigns: Of the listings.
        listings: How many there are.
        labelled: How many have a label.
        unknown: Results that are no labelled seed of the bank.
        found: Results that are.
    """

    hit: NDArray[np.int64]
    judged: NDArray[np.int64]
    wrong: NDArray[np.int64]
    instead: list[str | None]
    campaigns: int
    listings: int
    labelled: int
    unknown: int
    found: int


def hits_of(
    results: Sequence[Record],
    own: Sequence[str],
    ids: Sequence[str | None],
    texts: Sequence[str],
    *,
    label_key: str,
    id_key: str,
    first: int,
    similarity: float,
) -> Hits:
    """Count the campaigns of listings that each seed was found for.

    Args:
        results: Checked ones.
        own: ``(seeds,)`` label of each seed.
        ids: ``(seeds,)`` id of each seed; one without is known by its text.
        texts: ``(seeds,)`` text of each seed.
        label_key: Metadata key of the listings' labels.
        id_key: Metadata key of the seeds' ids.
        first: Results per listing that count.
        similarity: From which two listings are of one campaign.

    Raises:
        UsageError: No result is a seed of the bank.
        RecordError: A label that is none.
    """
    places = _Places(ids, texts)
    groups = near_duplicates([one["text"] for one in results], similarity=similarity).tolist()
    labels = [label_at(f"listing {number}", one["metadata"], label_key) for number, one in enumerate(results, 1)]
    said: dict[tuple[int, int], dict[str | None, int]] = {}  # listings by label, for each seed and campaign
    unknown = found = 0
    for one, group, label in zip(results, groups, labels, strict=True):
        for text, metadata in zip(one["topk_seed"][:first], one["topk_metadata"][:first], strict=True):
            at = places.of(text, known_id(metadata, id_key))
            unknown, found = unknown + (not at), found + bool(at)
            for place in at:
                counts = said.setdefault((place, group), {})
                counts[label] = counts.get(label, 0) + 1
    if unknown and not found:
        raise UsageError(
            "none of the seeds that the results name is a labelled seed of the bank; recall from this bank"
        )
    hit, judged, wrong, instead = _counted(said, own)
    labelled = sum(label is not None for label in labels)
    return Hits(hit, judged, wrong, instead, len(set(groups)), len(results), labelled, unknown, found)


class _Places:
    """Seeds by id, or where they have none by text."""

    def __init__(self, ids: Sequence[str | None], texts: Sequence[str]) -> None:
        self._by_id: dict[str, list[int]] = {}
        self._by_text: dict[str, list[int]] = {}
        for place, (name, text) in enumerate(zip(ids, texts, strict=True)):
            by, key = (self._by_text, text) if name is None else (self._by_id, name)
            by.setdefault(key, []).append(place)

    def of(self, text: str, name: str | None) -> list[int]:
        return self._by_text.get(text, []) if name is None else self._by_id.get(name, [])


def _counted(
    said: Mapping[tuple[int, int], Mapping[str | None, int]], own: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[str | None]]:
    hit, judged, wrong = (np.zeros(len(own), np.int64) for _ in range(3))
    others: dict[int, dict[str, int]] = {}
    for (place, _), counts in said.items():
        known = {label: count for label, count in counts.items() if label is not None}
        hit[place] += 1
        judged[place] += bool(known)
        if 2 * known.get(own[place], 0) < sum(known.values()):
            wrong[place] += 1
            label = min((one for one in known if one != own[place]), key=lambda one: (-known[one], one))
            tally = others.setdefault(place, {})
            tally[label] = tally.get(label, 0) + 1
    instead = [None if (one := others.get(place)) is None else _commonest(one) for place in range(len(own))]
    return hit, judged, wrong, instead


def _commonest(counts: Mapping[str, int]) -> str:
    return min(counts, key=lambda label: (-counts[label], label))
