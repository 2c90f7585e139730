"""Everything the service holds, and what it does with it: one object for the endpoints."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ecom_rag.decision.policy import Policy, load_policy
from ecom_rag.errors import PolicyError, UsageError
from ecom_rag.files.records import Record
from ecom_rag.pipeline.provenance import recall_of
from ecom_rag.pipeline.settings import read_settings
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.engine.asked import Asked, overridden
from ecom_rag.serving.engine.batching import Ran
from ecom_rag.serving.engine.decisions import DecisionStage, open_journal
from ecom_rag.serving.engine.fusions import Fusions
from ecom_rag.serving.engine.loading import Models
from ecom_rag.serving.engine.search import Recalled, SearchStage
from ecom_rag.serving.engine.similar import WaitingListings
from ecom_rag.serving.engine.stores import Stores
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.settings import Serve
from ecom_rag.text.spelling import tables

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[\w.-]{1,64}")
_WARM = "加微信 warm up"


class Engine:
    """Models, banks and policies of one service; used from one event loop.

    Args:
        settings: Of the service.
        watch: Called after each batch of each stage.
        begin: Called once in each thread that does the work of requests.

    Raises:
        UsageError: Settings that make no sense, or a journal that cannot be used.

    Attributes:
        banks: The open ones.
        models: Encoders and the reranker.
        stores: The seeds of the banks.
        decisions: The journal.
        waiting_listings: Of it, those that a new seed would be near.
        policies: By the name of the bank.
    """

    def __init__(
        self,
        settings: Serve,
        *,
        watch: Callable[[Ran], None] | None = None,
        begin: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self._defaults, models = read_settings(None, settings.recall)
        if models:
            raise UsageError(f"recall names {', '.join(models)}; name the models of the service beside it")
        for name in settings.banks:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} cannot be the name of a bank, as it is part of paths; expected 1 to 64 letters, digits,"
                    " '.', '_' and '-': give NAME=FOLDER"
                )
        self._watch = watch
        self._stack = contextlib.ExitStack()
        self._threads = {
            name: self._stack.enter_context(ThreadPoolExecutor(1, name, initializer=None if name == "side" else begin))
            for name in ("model", "search", "write", "side")
        }
        self.policies: dict[str, Policy] = {}
        self.banks = Banks(poll_seconds=settings.poll_seconds, changed=self._changed)
        self.models = Models(settings, self._threads["model"], watch=watch)
        self.stores = Stores(self.banks, self._threads["write"], stage=self.models.stage)
        journal = open_journal(settings) if settings.policies else None
        self.decisions = DecisionStage(journal, self._threads["write"], watch=watch)
        self.waiting_listings = WaitingListings(self.banks, self.decisions, stage=self.models.stage)
        self._fusions = Fusions(self.banks, self._threads["side"], stage=self.models.stage)
        self._search: SearchStage | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def has_started(self) -> bool:
        """Whether everything is loaded."""
        return self._search is not None

    @property
    def search(self) -> SearchStage:
        """Recall; there once the engine has started."""
        assert self._search is not None, "requests are let in once the service is ready"
        return self._search

    async def start(self) -> None:
        """Load the models, open the banks and search once in each, so that no request waits for that.

        Raises:
            EcomRagError: A model, bank or policy that cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._threads["side"], self._load)
        self._search = SearchStage(
            self.banks,
            self._threads["search"],
            stage=self.models.stage,
            reranker=self.models.reranker,
            policies=self.policies,
            fusions=self._fusions,
            queue_seconds=self.settings.limits.queue_seconds,
            watch=self._watch,
        )
        for name, health in self.banks.health().items():
            if not health.documents:
                continue
            try:
                await self.warm(name)
            except PolicyError as error:
                raise PolicyError(f"{self.settings.policies[name]}: does not fit the bank {name!r}: {error}") from None

    async def warm(self, bank: str) -> None:
        """Search once in every way that is asked for by default.

        Args:
            bank: Name of the bank.
        """
        record: Record = {"text": _WARM, "metadata": {}}
        for reranked in {False, self.models.reranker is not None}:
            await self.search.recall(self.asked(bank, {}, rerank=reranked), [record])
        if bank in self.policies:
            await self.search.recall(self.decided(bank), [record])

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
        reranked = self.models.reranker is not None if rerank is None else rerank
        if reranked and self.models.reranker is None:
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

    async def recall(self, asked: Asked, records: Sequence[Record]) -> Recalled:
        """See ``SearchStage.recall``."""
        return await self.search.recall(asked, records)

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
        found = await self.search.recall(self.decided(bank), records)
        return await self.decisions.record(bank, found, actor=actor)

    def waiting(self) -> dict[str, float]:
        """Seconds of work that wait, by stage."""
        found = [self.models.encoder, self.models.reranker, self._search, self.decisions]
        return {one.batcher.name: one.batcher.seconds for one in found if one is not None}

    async def close(self) -> None:
        """Let go of everything; requests are over by now."""
        self._fusions.close()
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        self.banks.close()
        if self.decisions.journal is not None:
            self.decisions.journal.close()
        self._stack.close()

    def _load(self) -> None:
        """Everything that takes time, in the order in which a mistake is found soonest."""
        settings = self.settings
        for name, path in settings.policies.items():
            if name not in settings.banks:
                raise UsageError(f"there is a policy for {name!r}, which is none of the banks")
            self.policies[name] = load_policy(path)
        for name, path in settings.banks.items():
            self.banks.open(name, path, encoder=self.models.of_bank(Path(path)))
        self.models.load()
        if self.decisions.journal is not None:
            tables.load()  # the page that people review on shows how evasive spellings are read

    def _changed(self, bank: str, sequence: int) -> None:
        """A bank has changed; called by the thread that found it."""
        logger.info("bank %s is at change %d", bank, sequence)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fusions.stale, bank)
