"""Everything the service holds, and what it does with it: one object for the endpoints."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ecom_rag.decision.policy import Policy, load_policy
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.models.spec import ModelSpec, cross_encoder_of, encoder_of
from ecom_rag.pipeline.provenance import recall_of
from ecom_rag.pipeline.settings import read_settings
from ecom_rag.seeds.bank import Change, SeedBank, SeedPage
from ecom_rag.serving import writes
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.engine.asked import Asked, overridden
from ecom_rag.serving.engine.batching import Batcher, Ran
from ecom_rag.serving.engine.fusions import Fusions
from ecom_rag.serving.engine.models import EncoderStage, RerankerStage, embeddings_of
from ecom_rag.serving.engine.search import Recalled, SearchStage
from ecom_rag.serving.journal.journal import Journal
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.settings import Serve

logger = logging.getLogger(__name__)

_WARM = "加微信 warm up"
_DECISIONS = 4096  # per transaction of the journal
_SEEN = 5.0  # seconds to wait until searches see a write
T = TypeVar("T")


class Engine:
    """Models, banks and policies of one service; used from one event loop.

    Args:
        settings: Of the service.
        watch: Called after each batch of each stage.

    Attributes:
        banks: The open ones.
        encoder: Behind ``embed``; ``None`` where no model is served.
        reranker: ``None`` where reranking is not offered.
        policies: By the name of the bank.
    """

    def __init__(self, settings: Serve, *, watch: Callable[[Ran], None] | None = None) -> None:
        self.settings = settings
        self._defaults, models = read_settings(None, settings.recall)
        if models:
            raise UsageError(f"recall names {', '.join(models)}; name the models of the service beside it")
        self._watch = watch
        self._stack = contextlib.ExitStack()
        pool = self._stack.enter_context
        self._model_thread = pool(ThreadPoolExecutor(1, thread_name_prefix="model"))
        self._search_thread = pool(ThreadPoolExecutor(1, thread_name_prefix="search"))
        self._side_thread = pool(ThreadPoolExecutor(1, thread_name_prefix="side"))
        self._write_thread = pool(ThreadPoolExecutor(1, thread_name_prefix="write"))
        self._journaling = Batcher("journal", self._journal, self._write_thread, budget=_DECISIONS, watch=watch)
        self.journal: Journal | None = None
        self._encoders: dict[str, EncoderStage] = {}  # by fingerprint
        self.encoder: EncoderStage | None = None
        self.reranker: RerankerStage | None = None
        self.policies: dict[str, Policy] = {}
        self.banks = Banks(poll_seconds=settings.poll_seconds, changed=self._changed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._search_stage: SearchStage | None = None

    async def start(self) -> None:
        """Load the models, open the banks and search once in each, so that no request waits for that.

        Raises:
            EcomRagError: A model, bank or policy that cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._side_thread, self._load)
        self._fusions = Fusions(self.banks, self._side_thread, stage=self._stage_for)
        self._search_stage = SearchStage(
            self.banks,
            self._search_thread,
            stage=self._stage_for,
            reranker=self.reranker,
            policies=self.policies,
            fusions=self._fusions,
            queue_seconds=self.settings.limits.queue_seconds,
            watch=self._watch,
        )
        for name in self.banks.names():
            await self.warm(name)

    async def warm(self, bank: str) -> None:
        """Search once in every way that is asked for by default.

        Args:
            bank: Name of the bank.
        """
        record: Record = {"text": _WARM, "metadata": {}}
        asked = self.asked(bank, {}, rerank=self.reranker is not None)
        await self._search.recall(asked, [record])
        if bank in self.policies:
            await self._search.recall(self.decided(bank), [record])

    def asked(self, bank: str, overrides: Mapping[str, Any], *, rerank: bool | None) -> Asked:
        """What a request for recall asks.

        Args:
            bank: Name of the bank.
            overrides: Settings of ``Recall`` by name; ``None`` for those that the request does not say.
            rerank: Whether to rerank; ``None`` for "where there is a reranker".

        Raises:
            Problem: 404 where there is no such bank.
            UsageError: Settings that make no sense, or a reranker that is not there.
        """
        with self.banks.lease(bank) as own:
            routes = own.routes
        reranked = self.reranker is not None if rerank is None else rerank
        if reranked and self.reranker is None:
            raise UsageError("rerank is true, but the service has no reranker; leave it out")
        return Asked.of(
            bank, overridden(self._defaults, overrides, routes=routes, reranked=reranked), reranked=reranked
        )

    def decided(self, bank: str) -> Asked:
        """What a request for decisions asks: the recall that the policy was calibrated on.

        Args:
            bank: Name of the bank.

        Raises:
            Problem: 404 where there is no such bank, 409 where it has no policy.
        """
        policy = self.policies.get(bank)
        if policy is None:
            raise Problem(409, "this bank has no policy, so nothing is decided over it", code="no_policy", param="bank")
        return Asked.of(bank, recall_of(policy.evidence), decided=True)

    @property
    def _search(self) -> SearchStage:
        assert self._search_stage is not None, "requests are let in once the service is ready"
        return self._search_stage

    async def recall(self, asked: Asked, records: Sequence[Record]) -> Recalled:
        """See ``SearchStage.recall``."""
        return await self._search.recall(asked, records)

    async def decide(self, bank: str, records: Sequence[Record], *, actor: str) -> Recalled:
        """Decide records by the bank's policy; once this returns, the decisions are on the disk.

        Args:
            bank: Name of the bank.
            records: Clean ones.
            actor: Whose request it is.

        Returns:
            The results; each decision has an ``id``, by which people speak of it.

        Raises:
            Problem: As ``decided``, and as ``Batcher.submit``.
            EcomRagError: What cannot be decided.
        """
        found = await self._search.recall(self.decided(bank), records)
        started = time.monotonic()
        key = (bank, found.state.sequence, actor)
        [ids] = await self._journaling.submit([found.results], key=key, costs=[len(records)])
        for result, id_ in zip(found.results, ids, strict=True):
            result["decision"]["id"] = id_
        milliseconds = {**found.milliseconds, "journal": round(1000 * (time.monotonic() - started), 3)}
        return replace(found, milliseconds=milliseconds)

    async def upsert(
        self, bank: str, records: Sequence[Record], *, expected_sequence: int | None = None, key: str | None = None
    ) -> Change:
        """Write seeds, all or none; once this returns they are on the disk, and searches see them.

        Args:
            bank: Name of the bank.
            records: Clean ones.
            expected_sequence: Sequence that the bank must be at.
            key: Idempotency key.

        Raises:
            Problem: As of ``writes.upsert``.
            EcomRagError: As there.
        """
        with self.banks.lease(bank) as own:
            change = await self._written(writes.answered, own, records, key=key, expected_sequence=expected_sequence)
            if change is None:
                embeddings = fingerprint = None
                stage = self._stage_for(own)
                if stage is not None and records:
                    texts, outputs = [one["text"] for one in records], own.settings.outputs
                    embeddings = embeddings_of(await stage.encode(texts, side="passage", outputs=outputs))
                    fingerprint = stage.encoder.fingerprint
                change = await self._written(
                    writes.upsert,
                    own,
                    records,
                    embeddings=embeddings,
                    fingerprint=fingerprint,
                    expected_sequence=expected_sequence,
                    key=key,
                )
        await self._seen(bank, change)
        return change

    async def delete(self, bank: str, *, dry_run: bool, **asked: Any) -> Change:
        """Remove seeds; once this returns they are gone from the disk and from searches.

        Args:
            bank: Name of the bank.
            dry_run: Only say how many would go.
            asked: As of ``writes.delete``.

        Raises:
            Problem: As of ``writes.delete``.
            EcomRagError: As there.
        """
        with self.banks.lease(bank) as own:
            if dry_run:
                return await self._written(writes.dry_run, own, asked.get("ids"), filter=asked.get("filter"))
            change = await self._written(writes.delete, own, confirmed=True, **asked)
        await self._seen(bank, change)
        return change

    async def page(self, bank: str, filter: str | None, *, after: int, limit: int) -> SeedPage:
        """Some of a bank's seeds, in row order. Raises as ``SeedBank.page``."""

        def read() -> SeedPage:
            with self.banks.lease(bank) as own:
                return own.page(filter, after=after, limit=limit)

        return await asyncio.to_thread(read)

    async def seed(self, bank: str, id_: str) -> Record | None:
        """The seed of an id; ``None`` where there is none. Raises as ``SeedBank.get``."""

        def read() -> Record | None:
            with self.banks.lease(bank) as own:
                return own.get([id_])[0]

        return await asyncio.to_thread(read)

    async def swap(self, bank: str, path: str) -> int:
        """Let another bank take a bank's place; gives its sequence. Raises as ``Banks.swap``."""
        return await asyncio.to_thread(self.banks.swap, bank, path)

    async def _written(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Do something in the thread that writes."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._write_thread, lambda: function(*arguments, **named))

    async def _seen(self, bank: str, change: Change) -> None:
        """Wait until searches see a change; a change that they cannot see yet is on the disk all the same."""
        seen = asyncio.wrap_future(self.banks.visible(bank, change.sequence))
        with contextlib.suppress(TimeoutError, BankError):
            await asyncio.wait_for(seen, _SEEN)

    def waiting(self) -> dict[str, float]:
        """Seconds of work that wait, by stage."""
        stages = [self._journaling]
        stages += [one.batcher for one in (self.encoder, self.reranker) if one is not None]
        if self._search_stage is not None:
            stages.append(self._search_stage.batcher)
        return {stage.name: stage.seconds for stage in stages}

    async def journaled(self, work: Callable[[Journal], T]) -> T:
        """Do something with the journal, beside the event loop.

        Args:
            work: Is given the journal.

        Raises:
            Problem: 404 where nothing is kept.
        """
        journal = self.journal
        if journal is None:
            raise Problem(404, "the service keeps no decisions; it was started without a policy", code="no_policy")
        return await asyncio.to_thread(work, journal)

    def _journal(self, key: tuple[str, int, str], units: list[list[Record]]) -> list[list[str]]:
        """Write the decisions of several requests in one transaction."""
        assert self.journal is not None
        bank, sequence, actor = key
        decided = [one for unit in units for one in unit]
        ids = iter(self.journal.admit_and_record(decided, bank=bank, sequence=sequence, actor=actor))
        return [[next(ids) for _ in unit] for unit in units]

    async def close(self) -> None:
        """Let go of everything; requests are over by now."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        self.banks.close()
        if self.journal is not None:
            self.journal.close()
        self._stack.close()

    def _load(self) -> None:
        """Everything that takes time, in the order in which a mistake is found soonest."""
        settings = self.settings
        for name, path in settings.policies.items():
            if name not in settings.banks:
                raise UsageError(f"there is a policy for {name!r}, which is none of the banks")
            self.policies[name] = load_policy(path)
        if self.policies:
            self.journal = self._open_journal()
        for name, path in settings.banks.items():
            self.banks.open(name, path, encoder=self._encoder_for(Path(path)))
        if settings.model is not None:
            named = [one for one in self._encoders.values() if one.name == settings.model]
            own = named[0] if named else None
            self.encoder = own or self._stage(encoder_of(ModelSpec(settings.model, settings.placement)), settings.model)
        elif self._encoders:
            self.encoder = next(iter(self._encoders.values()))
        if settings.rerank is not None:
            model = cross_encoder_of(ModelSpec(settings.rerank, settings.placement))
            self.reranker = RerankerStage(
                model,
                self._model_thread,
                name=settings.rerank,
                queue_seconds=settings.limits.queue_seconds,
                watch=self._watch,
            )

    def _open_journal(self) -> Journal:
        """The journal in the folder of the service's state, which is made where there is none."""
        settings = self.settings
        if settings.state is None:
            raise UsageError("decisions are kept in a folder, and none is given; give `state`, an empty or a new one")
        folder = Path(settings.state)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be used as a folder ({error.strerror}); give another `state`") from None
        return Journal.open(folder / "journal.db", second_looks=settings.second_looks)

    def _encoder_for(self, path: Path) -> Encoder | None:
        """The encoder of a bank, loaded where no other bank of its model is open."""
        with SeedBank.open(path, maintain=False) as own:
            model = own.model
        if model is None:
            return None
        stage = self._encoders.get(model.fingerprint)
        if stage is None:
            stage = self._stage(model.load(**self.settings.placement), model.path)
        return stage.encoder

    def _stage(self, encoder: Encoder, name: str) -> EncoderStage:
        stage = EncoderStage(
            encoder,
            self._model_thread,
            name=name,
            queue_seconds=self.settings.limits.queue_seconds,
            watch=self._watch,
        )
        return self._encoders.setdefault(encoder.fingerprint, stage)

    def _stage_for(self, bank: SeedBank) -> EncoderStage | None:
        """The encoder of an open bank."""
        return None if bank.model is None else self._encoders[bank.model.fingerprint]

    def _changed(self, bank: str, sequence: int) -> None:
        """A bank has changed; called by the thread that found it."""
        logger.info("bank %s is at change %d", bank, sequence)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fusions.stale, bank)
