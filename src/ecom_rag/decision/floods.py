"""The flood guard: after some automatic decisions in one campaign, a person looks at one of its texts.

Fraud comes in floods of one text in small variations, so that one wrong decision is made hundreds of times. The guard
counts the automatic decisions of each campaign and lets no more than ``limit`` pass unseen.

Its campaigns are wider than those of ``near_duplicates``: bigrams at a similarity of 0.7. Of 300 texts of 30 to 60
characters with one or two random characters changed, 10 or 11 pass; with trigrams at 0.85 up to 190 do. On 10,031
Chinese SMS of 12 classes, 6 texts are of another class than most of their campaign. A campaign too wide costs a review.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import whole
from ecom_rag.decision.campaigns import NONE, CampaignStream, names_of
from ecom_rag.decision.sketches import packed, sketches_of, unpacked
from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.files.records import Record
from ecom_rag.text.minhash import plain

FLOOD = "flood"  # the reason of a review
_NGRAM = 2
_EXAMPLES = 8  # texts of a campaign by which a later run recognises it


class Admitted(NamedTuple):
    """What the guard says of a block.

    Args:
        campaigns: The campaign of each text, twelve hexadecimal digits.
        flooded: ``(texts,)`` whether an automatic decision must go to review, with the reason ``FLOOD``.
    """

    campaigns: list[str]
    flooded: NDArray[np.bool_]


class Known(NamedTuple):
    """What is known of a campaign from earlier batches.

    Args:
        campaign: Its number.
        decisions: Automatic decisions in it.
        examples: Sketches of texts of it, ``packed`` one after the other.
    """

    campaign: int
    decisions: int
    examples: bytes


@dataclass(slots=True)
class Look:
    """What a person said of a campaign.

    Args:
        label: The label; ``None`` where the texts that the person saw together had several.
        example: Sketch of the text, ``packed``.
        fresh: Whether it is new since the guard was made or restored.
        met: Whether a text of the campaign was met.
    """

    label: str | None
    example: bytes
    fresh: bool = True
    met: bool = False


@dataclass(slots=True)
class Count:
    """Automatic decisions of a campaign that nobody has looked at.

    Args:
        before: Those of earlier batches.
        added: Those of this one.
        examples: Sketches of this batch's texts, ``packed``.
        known: How many examples there are, those of earlier batches included.
        met: Whether a text of the campaign was met in this batch.
    """

    before: int = 0
    added: int = 0
    examples: list[bytes] = field(default_factory=list)
    known: int = 0
    met: bool = False


class FloodGuard:
    """Sends the automatic decisions of a campaign to review once there are too many of them, until a person looks.

    Memory is bounded: of more than ``capacity`` campaigns with automatic decisions the one that was met least recently
    is forgotten.

    Args:
        limit: Automatic decisions in one campaign before a person must look.
        similarity: As of ``CampaignStream``.
        capacity: Texts per generation of the stream, and campaigns that are counted; a million campaigns take 0.5 GB.

    Attributes:
        counts: Of campaigns with automatic decisions, the one met last at the end.
        looks: Of campaigns that a person has looked at.

    Raises:
        UsageError: An argument is out of range.
    """

    def __init__(self, *, limit: int = 10, similarity: float = 0.7, capacity: int = 1_000_000) -> None:
        whole(limit, "limit", least=0)
        self.limit = limit
        self.counts: OrderedDict[int, Count] = OrderedDict()
        self.looks: dict[int, Look] = {}
        self._stream = CampaignStream(similarity=similarity, ngram=_NGRAM, capacity=capacity)
        self._elsewhere = CampaignStream(similarity=similarity, ngram=_NGRAM, capacity=1)

    def admit(self, texts: Sequence[str], labels: Sequence[Any], automatic: NDArray[np.bool_]) -> Admitted:
        """Decide which automatic decisions of the next texts stand.

        The result depends on the sequence of all texts since the guard was made, not on how it is cut into blocks. A
        resumed run therefore gives the guard the texts and decisions of the blocks that are done, and goes on.

        Args:
            texts: The next texts, reviewed ones too.
            labels: The label that each decision gives; those of texts that are not decided do not matter.
            automatic: ``(texts,)`` which texts are decided without a person.

        Raises:
            UsageError: The arguments differ in length.
        """
        if not len(texts) == len(labels) == len(automatic):
            raise UsageError(
                f"{len(texts)} texts, {len(labels)} labels and {len(automatic)} values of `automatic`; expected as many"
            )
        campaigns, unseen, sketches = self._stream.assign(texts)
        flooded = np.zeros(len(texts), np.bool_)
        numbers, is_automatic = campaigns.tolist(), np.asarray(automatic, np.bool_).tolist()
        for text, campaign in enumerate(numbers):
            count, look = self._met(campaign)
            if not is_automatic[text]:
                continue
            if self._stands(count, look, labels[text]):
                count = count or self._begun(campaign)
                count.added += 1
                if count.known < _EXAMPLES and (unseen[text] or not count.known):
                    count.examples.append(packed(sketches, text))
                    count.known += 1
            else:
                flooded[text] = True
        return Admitted(names_of(numbers), flooded)

    def looked(self, texts: Sequence[str], labels: Sequence[Any]) -> list[str]:
        """Note that a person has looked at texts.

        From here on the automatic decisions of their campaigns stand where they give the person's label, and go to
        review where they do not. Where texts of one call give a campaign two labels, all of its decisions go to review.
        A later call replaces what an earlier one said of a campaign.

        Args:
            texts: The texts.
            labels: The person's label of each.

        Returns:
            The campaigns of the texts.

        Raises:
            UsageError: The arguments differ in length, or a label is none.
        """
        said = [_label(label, place) for place, label in enumerate(labels)]
        if len(texts) != len(said):
            raise UsageError(f"{len(texts)} texts that a person looked at, and {len(said)} labels; expected as many")
        sketches = sketches_of(plain(texts), _NGRAM)
        here, elsewhere = self._stream.find(texts), self._elsewhere.find(texts)
        for place in np.flatnonzero((here == NONE) & (elsewhere != NONE)).tolist():
            self._stream.remember(unpacked([packed(sketches, place)])[0], elsewhere[place : place + 1])
        campaigns = self._stream.assign(texts).campaigns.tolist()
        found: dict[int, Look] = {}
        for text, campaign in enumerate(campaigns):
            look = found.setdefault(campaign, Look(said[text], packed(sketches, text)))
            if look.label != said[text]:
                look.label = None
        self.looks |= found
        return names_of(campaigns)

    def restore(self, known: Iterable[Known], looks: dict[int, Look], elsewhere: Iterable[Known] = ()) -> None:
        """Begin with what earlier batches left.

        Args:
            known: Campaigns with automatic decisions.
            looks: What people have said.
            elsewhere: Campaigns of which only the names are used, for texts that a person looks at.

        Raises:
            ValueError: Examples are not packed sketches.
        """
        campaigns = list(known)
        for item, examples in zip(campaigns, self._remember(self._stream, campaigns), strict=True):
            count = self.counts.setdefault(item.campaign, Count())
            count.before += item.decisions
            count.known += examples
        self._forget()
        self.looks |= looks
        self._remember(self._stream, [Known(campaign, 0, look.example) for campaign, look in looks.items()])
        others = list(elsewhere)
        if others:
            stream = self._stream
            self._elsewhere = CampaignStream(similarity=stream.similarity, ngram=_NGRAM, capacity=stream.capacity)
            self._remember(self._elsewhere, others)

    def _remember(self, stream: CampaignStream, known: list[Known]) -> list[int]:
        """Note the examples of campaigns; gives how many each has."""
        sketches, items = unpacked([item.examples for item in known])
        stream.remember(sketches, np.array([item.campaign for item in known], np.int64)[items])
        found: list[int] = np.bincount(items, minlength=len(known)).tolist()
        return found

    def _met(self, campaign: int) -> tuple[Count | None, Look | None]:
        """What is known of a campaign, which is now the one met last."""
        count, look = self.counts.get(campaign), self.looks.get(campaign)
        if count is not None:
            self.counts.move_to_end(campaign)
            count.met = True
        if look is not None:
            look.met = True
        return count, look

    def _stands(self, count: Count | None, look: Look | None, label: Any) -> bool:
        """Whether one more automatic decision stands."""
        if look is not None:
            return look.label is not None and as_label(label) == look.label
        return (0 if count is None else count.before + count.added) < self.limit

    def _begun(self, campaign: int) -> Count:
        count = self.counts[campaign] = Count(met=True)
        self._forget()
        return count

    def _forget(self) -> None:
        while len(self.counts) > self._stream.capacity:
            self.counts.popitem(last=False)


def admit_decided(guard: FloodGuard, decided: Sequence[Record]) -> None:
    """Name the campaign of each decision, and send those of a flood to review.

    Args:
        guard: Of all decisions before these.
        decided: Decided records, whose ``decision`` is changed in place; those that a guard has sent to review already
            count as automatic, so that decisions may be admitted again.
    """
    decisions = [one["decision"] for one in decided]
    automatic = np.array([one["action"] != "review" or one["reason"] == FLOOD for one in decisions], np.bool_)
    found = guard.admit([one["text"] for one in decided], [one["label"] for one in decisions], automatic)
    for decision, campaign, flooded in zip(decisions, found.campaigns, found.flooded.tolist(), strict=True):
        decision["campaign"] = campaign
        if flooded:
            decision.update(action="review", reason=FLOOD, guarantee=None)


def _label(value: Any, place: int) -> str:
    """A person's label."""
    try:
        label = as_label(value)
    except ValueError as error:
        raise UsageError(f"the label of look {place + 1} {error}") from None
    if label is None:
        raise UsageError(f"look {place + 1} has no label; expected the label that the person gave")
    return label
