"""What a person should label next: texts that the policy is unsure of and that are new to the bank, and a random audit.

In: decided records, read once, in any order. Out: at most one text of each campaign, marked with how it was chosen.
Only the texts of the audit are a random sample: of all campaigns, those decided automatically included. Statistics on
the decisions (``monitor``, ``calibrate``) may use these alone.
"""

import hashlib
import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import PathLike, number, path_of, whole
from ecom_rag.decision.decided import Decided, decided
from ecom_rag.errors import RecordError
from ecom_rag.files import jobs, records, writing
from ecom_rag.files.records import Record

_BUFFER = 1 << 20  # campaigns counted at a time


@dataclass(frozen=True)
class Chosen:
    """The result of a choice.

    Args:
        records: What to label: the uncertain ones, highest score first, then the audit in random order; each with
            ``chosen``.
        read: Records read.
        campaigns: Campaigns among them.
        audit: Records of the audit among the chosen.
        notes: What is worth saying, one line each.
    """

    records: list[Record]
    read: int
    campaigns: int
    audit: int
    notes: list[str] = field(default_factory=list)


def choose_file(
    decided_file: PathLike, output: PathLike, *, count: int, audit_share: float = 0.2, seed: int = 0
) -> Chosen:
    """Choose from a file of decided records, and write what was chosen.

    Args:
        decided_file: That ``decide`` wrote; ``-`` is standard input.
        output: Of any record format.
        count: Texts to choose, one per campaign at most.
        audit_share: Share of them that is drawn at random from all campaigns, 0 to 1.
        seed: Of the draw. The same records and seed give the same choice, in whatever order the records come.

    Raises:
        UsageError: An argument, or a file that cannot be read or written.
        RecordError: A record that is not decided.
    """
    source, target = path_of(decided_file, "decided"), path_of(output, "output")
    jobs.check_not_read(target, (source,))
    found = _choose(records.placed(source), count=count, audit_share=audit_share, seed=seed)
    writing.write(target, found.records)
    return found


def choose(items: Iterable[Record], *, count: int, audit_share: float = 0.2, seed: int = 0) -> Chosen:
    """As ``choose_file``, of decided records from Python; any iterable, read once."""
    cleaned = enumerate(records.cleaned(items, "decided record"))
    placed = ((f"decided record {number}", record) for number, record in cleaned)
    return _choose(placed, count=count, audit_share=audit_share, seed=seed)


def _choose(placed: Iterable[tuple[str, Record]], *, count: int, audit_share: float, seed: int) -> Chosen:
    """Of records with their places; memory holds two times ``count`` records and 8 bytes per campaign."""
    count, seed = whole(count, "count"), whole(seed, "seed", least=0)
    share = number(audit_share, "audit_share", low=0, high=1, expected="a number from 0 to 1")
    audit, uncertain, campaigns = _Best(_part(count, share)), _Best(count), _Distinct()
    read = 0
    for where, record in placed:
        read += 1
        own = _checked(where, record)
        drawn, unsure = _hash(f"{seed} {own.campaign}".encode()), round(uncertainty(own.probabilities), 6)
        campaigns.add(drawn)
        if audit.admits(-drawn):
            audit.offer(own.campaign, (-drawn, -_hash(f"{seed} ".encode() + records.dumps(record))), (record, unsure))
        if uncertain.admits(unsure):  # no score is higher than the uncertainty alone
            rank = _score(record, unsure)["score"], -_hash(records.dumps(record))
            uncertain.offer(own.campaign, rank, (record, unsure))
    total = len(campaigns)
    audited = audit.best()[: _part(min(count, total), share)]
    names = {campaign for campaign, _ in audited}
    others = [kept for campaign, kept in uncertain.best() if campaign not in names][: count - len(audited)]
    probability = {"probability_of_selection": round(len(audited) / total, 9)} if audited else {}
    marked = [_marked(record, "uncertainty", _score(record, unsure)) for record, unsure in others]
    marked += [_marked(record, "audit", {**_score(record, unsure), **probability}) for _, (record, unsure) in audited]
    return Chosen(marked, read, total, len(audited), _notes(read, total, count))


def _part(count: int, share: float) -> int:
    """The audit's part of a count, rounded up; 0.07 of 100 is 7, though the floats' product is a little more."""
    return math.ceil(count * share - 1e-9)


def uncertainty(probabilities: tuple[float, ...]) -> float:
    """1 - (first - second probability): 1 where two classes are equally likely or there is none, 0 where one is sure.

    Args:
        probabilities: Of the candidate classes, descending.
    """
    first, second = (*probabilities, 0.0, 0.0)[:2]
    return 1 - (first - second)


def novelty(record: Record) -> float:
    """How unlike its seeds a text is: 2 * (1 - overlap with the most similar one), at most 1.

    The overlap is the Jaccard similarity of the sets of character pairs. So a text is new (1) where it has less than
    half of the pairs in common with each seed or nothing was found, and a copy of a seed is not new at all (0). It
    needs no model and means the same for every route, unlike the scores of the routes.

    Args:
        record: With ``text`` and ``topk_seed``.
    """
    own = _pairs(record["text"])
    seeds = (_pairs(seed) for seed in record["topk_seed"])
    return min(1.0, 2 - 2 * max((len(own & other) / len(own | other) for other in seeds), default=0.0))


class _Best:
    """The best entry of each campaign, of the campaigns whose best entries are highest; memory holds only those."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self._heap: list[tuple[tuple[Any, ...], str]] = []  # lowest first; may hold entries that were beaten since

    def admits(self, first: Any) -> bool:
        """Whether an entry could be kept whose rank begins with this at most."""
        return self._most > 0 and (len(self._entries) < self._most or first >= self._heap[0][0][0])

    def offer(self, campaign: str, rank: tuple[Any, ...], kept: Any) -> None:
        known = self._entries.get(campaign)
        if known is not None and known[0] >= rank:
            return
        self._entries[campaign] = rank, kept
        heapq.heappush(self._heap, (rank, campaign))
        while len(self._entries) > self._most or len(self._heap) > 4 * self._most + 16:
            self._drop()

    def best(self) -> list[tuple[str, Any]]:
        """Campaigns with what was kept of them, best first."""
        ranked = sorted(self._entries.items(), key=lambda item: item[1][0], reverse=True)
        return [(campaign, kept) for campaign, (_, kept) in ranked]

    def _drop(self) -> None:
        if len(self._entries) <= self._most:  # too many beaten entries: build the heap anew
            self._heap = [(rank, campaign) for campaign, (rank, _) in self._entries.items()]
            heapq.heapify(self._heap)
            return
        rank, campaign = heapq.heappop(self._heap)
        if self._entries.get(campaign, (None,))[0] == rank:
            del self._entries[campaign]


class _Distinct:
    """Counts distinct 64-bit numbers in 8 bytes each."""

    def __init__(self) -> None:
        self._known: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._new: set[int] = set()

    def add(self, number: int) -> None:
        self._new.add(number)
        if len(self._new) >= _BUFFER:
            self._merge()

    def __len__(self) -> int:
        self._merge()
        return len(self._known)

    def _merge(self) -> None:
        new = np.fromiter(self._new, np.uint64, len(self._new))
        self._known = np.union1d(self._known, new)
        self._new.clear()


def _checked(where: str, record: Record) -> Decided:
    """The decision of a record that has what a score needs."""
    try:
        own = decided(record)
    except ValueError as error:
        raise RecordError(where, str(error)) from None
    seeds = record.get("topk_seed")
    if not isinstance(seeds, list) or not all(isinstance(seed, str) for seed in seeds):
        raise RecordError(where, '"topk_seed" is not an array of texts; expected a record that ecom-rag decide wrote')
    return own


def _score(record: Record, unsure: float) -> dict[str, float]:
    new = novelty(record)
    return {"score": round(unsure * new, 6), "uncertainty": unsure, "novelty": round(new, 6)}


def _pairs(text: str) -> set[str]:
    """Pairs of neighbouring characters of a text, case and white space left out; a single character is one."""
    plain = "".join(text.casefold().split())
    return {plain[place : place + 2] for place in range(max(len(plain) - 1, 1))}


def _hash(data: bytes) -> int:
    """64 bits that are as good as random, and the same on every machine."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _marked(record: Record, by: str, score: dict[str, float]) -> Record:
    return {**record, "chosen": {"by": by, **score}}


def _notes(read: int, campaigns: int, count: int) -> list[str]:
    if not read:
        return ["there are no records; nothing was chosen"]
    if campaigns < count:
        return [f"there are {campaigns} campaigns in {read} records, fewer than the `count` {count}; all were chosen"]
    return []
