"""Recall behind a batcher, in the one search thread: requests that ask for the same are searched as one block."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecom_rag.decision.decide import Decider
from ecom_rag.decision.policy import Policy
from ecom_rag.files.records import Record
from ecom_rag.files.results import results_of
from ecom_rag.models import Embeddings
from ecom_rag.models.cross_encoder import sigmoid
from ecom_rag.pipeline.reranking import by_relevance, pairs_of
from ecom_rag.pipeline.search import Found, Pipeline
from ecom_rag.retrieval.learned_fusion import LearnedFusion
from ecom_rag.retrieval.routes import Queries, outputs_of
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.engine.asked import Asked
from ecom_rag.serving.engine.batching import Batcher, Ran
from ecom_rag.serving.engine.fusions import Fusions
from ecom_rag.serving.engine.models import Encoded, EncoderStage, RerankerStage, embeddings_of
from ecom_rag.serving.opening import Reader

_QUERIES = 256  # per batch
_PIPELINES = 256  # that are kept ready


@dataclass(frozen=True, slots=True)
class State:
    """The bank that an answer is from.

    Args:
        name: In the API.
        bank: What tells the bank from all others.
        sequence: Number of its last change.
        void: Why the promises of its policy no longer hold; ``None`` where they do, or where nothing is decided.
        notes: What is odd about the filter, one line each: no seed meets it, or has one of its keys.
    """

    name: str
    bank: str | None
    sequence: int
    void: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was found for a request.

    Args:
        results: The records with ``topk_*``, and ``decision`` where it was asked for.
        state: The one state of the bank that all of them are from.
        truncated: Whether the encoder read each text in part only; all false where nothing is encoded.
        tokens: That the encoder read.
        milliseconds: By stage, waiting included.
    """

    results: list[Record]
    state: State
    truncated: list[bool]
    tokens: int
    milliseconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ready:
    """A pipeline over one open bank.

    Args:
        bank: The handle.
        pipeline: Over it.
        fitted: The weights that it was made with.
    """

    bank: SeedBank
    pipeline: Pipeline
    fitted: LearnedFusion | None


@dataclass(frozen=True, slots=True)
class Request:
    """The records of one request, and what the encoder said of them.

    Args:
        records: Clean ones.
        encoded: Of their texts; ``None`` where no route needs it.
    """

    records: Sequence[Record]
    encoded: Sequence[Encoded] | None


class SearchStage:
    """Recall over the open banks.

    Args:
        banks: Those.
        executor: The search thread.
        stage: The encoder of an open bank; ``None`` where it needs none.
        reranker: Of candidates; ``None`` where reranking is not offered.
        policies: By the name of the bank.
        fusions: Gives the fitted weights.
        queue_seconds: As of ``Batcher``.
        watch: As of ``Batcher``.
    """

    def __init__(
        self,
        banks: Banks,
        executor: Executor,
        *,
        stage: Callable[[SeedBank], EncoderStage | None],
        reranker: RerankerStage | None,
        policies: Mapping[str, Policy],
        fusions: Fusions,
        queue_seconds: float,
        watch: Callable[[Ran], None] | None = None,
    ) -> None:
        self._banks, self._stage, self._reranker = banks, stage, reranker
        self._policies, self._fusions = policies, fusions
        self._ready: OrderedDict[Asked, Ready] = OrderedDict()
        self._deciders: dict[tuple[str, str | None], Decider] = {}
        self._states: dict[tuple[Asked, str | None, int], State] = {}
        self.batcher = Batcher("search", self._run, executor, budget=_QUERIES, queue_seconds=queue_seconds, watch=watch)

    async def recall(self, asked: Asked, records: Sequence[Record]) -> Recalled:
        """Search for the records of a request.

        Args:
            asked: How.
            records: Clean ones.

        Raises:
            Problem: As ``Batcher.submit``.
            EcomRagError: What cannot be searched or decided as asked.
        """
        watch = _Watch()
        outputs = outputs_of(asked.settings.routes)
        encoder = self._encoder(asked.bank) if outputs else None
        encoded = None
        if encoder is not None:
            encoded = await encoder.encode([one["text"] for one in records], side="query", outputs=outputs)
            watch.lap("encode")
        await self._fusions.prepare(asked)
        request = Request(records, encoded)
        [(found, state)] = await self.batcher.submit([request], key=asked, costs=[len(records)])
        watch.lap("search")
        if asked.reranked and isinstance(found, Found):
            found = await self._reranked(asked, records, found)
            watch.lap("rerank")
        truncated = [False] * len(records) if encoded is None else [one.truncated for one in encoded]
        tokens = 0 if encoded is None else sum(one.tokens for one in encoded)
        return Recalled(found, state, truncated, tokens, watch.milliseconds)

    async def _reranked(self, asked: Asked, records: Sequence[Record], found: Found) -> list[Record]:
        assert self._reranker is not None
        texts = {row: seed["text"] for row, seed in found.seeds.items()}
        scored = await self._reranker.score(pairs_of(found.ranking, [one["text"] for one in records], texts))
        relevance = np.array([one.logit for one in scored], np.float32)
        settings = asked.settings
        if settings.normalize:
            relevance = sigmoid(relevance)
        ranking = by_relevance(found.ranking, relevance, k=settings.top_k, blend=settings.blend)
        return results_of(records, ranking, found.seeds)

    def _run(self, asked: Asked, requests: list[Request]) -> list[tuple[Any, State]]:
        records = [record for request in requests for record in request.records]
        with self._banks.reading(asked.bank) as reader:
            pipeline = self._pipeline(asked, reader)
            found = pipeline.find(reader.view, records, _queries(requests, records), self._keep(asked))
            state = self._state(asked, pipeline, reader)
        if asked.reranked:
            return [(part, state) for part in _parts(found, requests)]
        results = results_of(records, found.ranking, found.seeds)
        if asked.decided:
            results = self._decider(asked.bank, state.void).decide_checked(results)
        return [(part, state) for part in _cut(results, requests)]

    def _encoder(self, bank: str) -> EncoderStage | None:
        with self._banks.lease(bank) as own:
            return self._stage(own)

    def _keep(self, asked: Asked) -> int:
        return asked.settings.depth if asked.reranked else asked.settings.top_k

    def _pipeline(self, asked: Asked, reader: Reader) -> Pipeline:
        known, fitted = self._ready.get(asked), self._fusions.fitted(asked, reader.bank)
        if known is None or known.bank is not reader.bank or known.fitted is not fitted:
            encoder = self._stage(reader.bank)
            pipeline = Pipeline(
                reader.bank,
                asked.settings,
                encoder=None if encoder is None else encoder.encoder,
                cross_encoder=self._reranker.cross_encoder if asked.reranked and self._reranker else None,
                fitted=fitted,
            )
            known = self._ready[asked] = Ready(reader.bank, pipeline, fitted)
            while len(self._ready) > _PIPELINES:
                self._ready.popitem(last=False)
        self._ready.move_to_end(asked)
        return known.pipeline

    def _state(self, asked: Asked, pipeline: Pipeline, reader: Reader) -> State:
        key = (asked, reader.view.name, reader.view.sequence)  # a bank that was swapped in may be at the same sequence
        known = self._states.get(key)
        if known is None:
            void, where = None, asked.settings.filter
            notes = () if where is None else tuple(reader.bank.filter_notes(where))
            if asked.decided:
                void = self._policies[asked.bank].fits(pipeline.provenance(reader.view))
            if len(self._states) > 4 * _PIPELINES:
                self._states.clear()
            known = self._states[key] = State(asked.bank, key[1], key[2], void, notes)
        return known

    def _decider(self, bank: str, void: str | None) -> Decider:
        known = self._deciders.get((bank, void))
        if known is None:
            if len(self._deciders) > _PIPELINES:
                self._deciders.clear()
            known = self._deciders[bank, void] = Decider(self._policies[bank], void=void)
        return known


class _Watch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._at = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.milliseconds[stage] = round(1000 * (now - self._at), 3)
        self._at = now


def _queries(requests: Sequence[Request], records: Sequence[Record]) -> Queries:
    encoded = [one for request in requests for one in request.encoded or ()]
    return Queries([one["text"] for one in records], embeddings_of(encoded) if encoded else Embeddings())


def _cut(results: list[Record], requests: Sequence[Request]) -> list[list[Record]]:
    ends = np.cumsum([len(request.records) for request in requests]).tolist()
    return [results[end - len(request.records) : end] for end, request in zip(ends, requests, strict=True)]


def _parts(found: Found, requests: Sequence[Request]) -> list[Found]:
    ends = np.cumsum([len(request.records) for request in requests]).tolist()
    rankings = [
        found.ranking.take(slice(end - len(request.records), end)) for end, request in zip(ends, requests, strict=True)
    ]
    return [Found(one, {row: found.seeds[row] for row in one.rows[one.rows >= 0].tolist()}) for one in rankings]
