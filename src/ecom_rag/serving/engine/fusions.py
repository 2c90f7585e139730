"""Weights fitted on a bank's labels for the fusion ``auto``, beside the searches: nobody waits for a fit twice."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace

from ecom_rag.errors import EcomRagError
from ecom_rag.pipeline.search import Pipeline
from ecom_rag.retrieval.learned_fusion import LearnedFusion
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.engine.asked import Asked
from ecom_rag.serving.engine.models import EncoderStage

logger = logging.getLogger(__name__)

Key = tuple[str, tuple[str, ...], str | None]


class Fusions:
    """Fitted weights by bank and routes.

    They are fitted once for each set of routes, at the depth of the first request that names it, and again when the
    bank is swapped or has changed.

    Args:
        banks: The open banks.
        executor: A thread of its own: a fit searches a thousand seeds.
        patience: Seconds after a change before the weights are fitted again, together for all changes meanwhile.
        stage: The encoder of an open bank.
    """

    def __init__(
        self,
        banks: Banks,
        executor: Executor,
        *,
        patience: float = 30.0,
        stage: Callable[[SeedBank], EncoderStage | None],
    ) -> None:
        self._banks, self._executor, self._stage = banks, executor, stage
        self._patience = patience
        self._fits: dict[Key, tuple[SeedBank, LearnedFusion | None]] = {}
        self._asked: dict[Key, Asked] = {}
        self._running: dict[Key, asyncio.Future[None]] = {}
        self._renewing: set[str] = set()
        self._tasks: set[asyncio.Future[None]] = set()

    async def prepare(self, asked: Asked) -> None:
        """Have the weights for a request ready.

        Args:
            asked: What is searched.
        """
        key = _key(asked)
        if key is None or key in self._fits:
            return
        running = self._running.get(key)
        if running is None:
            self._asked[key] = asked
            running = self._running[key] = asyncio.ensure_future(self._fit(key))
            running.add_done_callback(lambda _: self._running.pop(key, None))
        await asyncio.shield(running)

    def stale(self, bank: str) -> None:
        """Fit the weights of a bank again, soon; called in the event loop.

        Args:
            bank: Name of the bank, which has changed or was swapped.
        """
        if bank in self._renewing or not any(key[0] == bank for key in self._fits):
            return
        self._renewing.add(bank)
        task = asyncio.ensure_future(self._renew(bank))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Fit no more."""
        for task in (*self._tasks, *self._running.values()):
            task.cancel()

    async def _renew(self, bank: str) -> None:
        """Fit the weights of a bank once it has been left alone for a while, or was changed for long."""
        try:
            await asyncio.sleep(self._patience)
            for key in [one for one in self._fits if one[0] == bank]:
                await self._fit(key)
        except EcomRagError as error:  # the weights of before stay
            logger.warning("bank %s: its fusion weights could not be fitted again (%s)", bank, error)
        finally:
            self._renewing.discard(bank)

    def fitted(self, asked: Asked, bank: SeedBank) -> LearnedFusion | None:
        """The weights, where they are of this very bank; ``None`` where there are none.

        Args:
            asked: What is searched.
            bank: The handle that is searched.
        """
        key = _key(asked)
        found = None if key is None else self._fits.get(key)
        return found[1] if found is not None and found[0] is bank else None

    async def _fit(self, key: Key) -> None:
        asked = self._asked[key]

        def fit() -> tuple[SeedBank, LearnedFusion | None]:
            with self._banks.lease(asked.bank) as bank:
                stage = self._stage(bank)
                settings = replace(asked.settings, filter=None)
                return bank, Pipeline(bank, settings, encoder=None if stage is None else stage.encoder).fitted

        self._fits[key] = await asyncio.get_running_loop().run_in_executor(self._executor, fit)


def _key(asked: Asked) -> Key | None:
    """What weights depend on; ``None`` where there are none to fit."""
    settings = asked.settings
    if settings.fused_by != "auto" or len(settings.routes) < 2:
        return None
    return asked.bank, settings.routes, settings.label_key
