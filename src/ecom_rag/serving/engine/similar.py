"""Which waiting listings a new seed would be the nearest seed of: what adding it would change for people."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.engine.decisions import DecisionStage
from ecom_rag.serving.engine.models import EncoderStage
from ecom_rag.serving.journal.items import Decision

_LOOKED_AT = 1000  # waiting listings, in the order of the queue
_KEPT = 20_000  # vectors of listings


class Hit(NamedTuple):
    """A waiting listing that a seed would be the nearest of.

    Args:
        decision: Its id.
        text: Of the listing.
        similarity: Of the seed to it: the cosine, or without an encoder the share of common character pairs.
    """

    decision: str
    text: str
    similarity: float


class WaitingListings:
    """The listings that wait for a person.

    Args:
        banks: The open banks.
        decisions: The journal.
        stage: The encoder of an open bank.
    """

    def __init__(
        self, banks: Banks, decisions: DecisionStage, *, stage: Callable[[SeedBank], EncoderStage | None]
    ) -> None:
        self._banks, self._decisions, self._stage = banks, decisions, stage
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

    async def nearest(self, bank: str, text: str) -> list[Hit]:
        """The waiting listings that are more similar to a text than to any of the seeds that were found for them.

        Args:
            bank: Name of the bank.
            text: That would be a seed of it.

        Returns:
            The most similar first; of the first 1,000 that wait.

        Raises:
            Problem: As ``Banks.lease`` and ``Batcher.submit``.
        """
        page = await self._decisions.journaled(lambda journal: journal.waiting(limit=_LOOKED_AT))
        waiting = [one for one in page.items if one.bank == bank]
        with self._banks.lease(bank) as own:
            stage = self._stage(own) if "dense" in own.routes else None
        if stage is None:
            found = [(_overlap(text, one.record["text"]), _nearest_overlap(one.record)) for one in waiting]
        else:
            [seed] = await stage.encode([text], side="passage")
            assert seed.dense is not None
            vectors = await self._encoded(stage, waiting)
            cosines = [float(vector @ seed.dense) for vector in vectors]
            found = [(own, _nearest_dense(one.record)) for own, one in zip(cosines, waiting, strict=True)]
        hits = [
            Hit(one.id, one.record["text"], round(own, 4))
            for one, (own, before) in zip(waiting, found, strict=True)
            if own > before
        ]
        return sorted(hits, key=lambda hit: -hit.similarity)

    async def _encoded(self, stage: EncoderStage, waiting: Sequence[Decision]) -> list[NDArray[np.float32]]:
        """The vectors of listings, those that are known already as they are."""
        model = stage.encoder.fingerprint
        new = [one for one in waiting if (model, one.id) not in self._vectors]
        for one, own in zip(new, await stage.encode([one.record["text"] for one in new], side="query"), strict=True):
            assert own.dense is not None
            self._vectors[model, one.id] = own.dense.copy()
        found = [self._vectors[model, one.id] for one in waiting]
        while len(self._vectors) > _KEPT:
            self._vectors.popitem(last=False)
        return found


def _nearest_dense(record: Record) -> float:
    """The cosine of the nearest seed that was found for a listing; -1 where none was."""
    evidence = record.get(EVIDENCE)
    if evidence is None:
        return max(record["topk_sim"], default=-1.0)
    return max((one["dense"]["score"] for one in evidence if "dense" in one), default=-1.0)


def _nearest_overlap(record: Record) -> float:
    return max((_overlap(seed, record["text"]) for seed in record["topk_seed"]), default=0.0)


def _overlap(one: str, other: str) -> float:
    """Jaccard similarity of the pairs of neighbouring characters."""
    pairs, others = ({text[at : at + 2] for at in range(len(text) - 1)} for text in (one, other))
    return len(pairs & others) / len(pairs | others) if pairs | others else 0.0
