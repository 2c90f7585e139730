"""Changes of the open banks by requests, and reading their seeds."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from ecom_rag.errors import BankError
from ecom_rag.files.records import Record
from ecom_rag.seeds.bank import Change, SeedBank, SeedPage
from ecom_rag.serving import writes
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.engine.models import EncoderStage, embeddings_of

_SEEN = 5.0  # seconds to wait until searches see a write
T = TypeVar("T")


class Stores:
    """The seeds of the open banks.

    Args:
        banks: Those.
        executor: The thread that writes.
        stage: The encoder of an open bank; ``None`` where it needs none.
    """

    def __init__(self, banks: Banks, executor: Executor, *, stage: Callable[[SeedBank], EncoderStage | None]) -> None:
        self._banks, self._executor, self._stage = banks, executor, stage

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
        with self._banks.lease(bank) as own:
            change = await self._written(writes.answered, own, records, key=key, expected_sequence=expected_sequence)
            if change is None:
                embeddings = fingerprint = None
                stage = self._stage(own)
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
        with self._banks.lease(bank) as own:
            if dry_run:
                return await self._written(writes.dry_run, own, asked.get("ids"), filter=asked.get("filter"))
            change = await self._written(writes.delete, own, confirmed=True, **asked)
        await self._seen(bank, change)
        return change

    async def page(self, bank: str, filter: str | None, *, after: int, limit: int) -> SeedPage:
        """Some of a bank's seeds, in row order. Raises as ``SeedBank.page``."""

        def read() -> SeedPage:
            with self._banks.lease(bank) as own:
                return own.page(filter, after=after, limit=limit)

        return await asyncio.to_thread(read)

    async def seed(self, bank: str, id_: str) -> Record | None:
        """The seed of an id; ``None`` where there is none. Raises as ``SeedBank.get``."""

        def read() -> Record | None:
            with self._banks.lease(bank) as own:
                return own.get([id_])[0]

        return await asyncio.to_thread(read)

    async def swap(self, bank: str, path: str) -> int:
        """Let another bank take a bank's place; gives its sequence. Raises as ``Banks.swap``."""
        return await asyncio.to_thread(self._banks.swap, bank, path)

    async def _written(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Do something in the thread that writes."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*arguments, **named))

    async def _seen(self, bank: str, change: Change) -> None:
        """Wait until searches see a change; a change that they cannot see yet is on the disk all the same."""
        seen = asyncio.wrap_future(self._banks.visible(bank, change.sequence))
        with contextlib.suppress(TimeoutError, BankError):
            await asyncio.wait_for(seen, _SEEN)
