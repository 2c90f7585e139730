"""Decisions and what people say of them, kept in the journal; decisions of several requests in one transaction."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ecom_rag.errors import UsageError
from ecom_rag.files.records import Record
from ecom_rag.serving.engine.batching import Batcher, Ran
from ecom_rag.serving.engine.search import Recalled
from ecom_rag.serving.journal.journal import Journal
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.settings import Serve

_DECISIONS = 4096  # per transaction
T = TypeVar("T")


class DecisionStage:
    """The journal behind a batcher.

    Args:
        journal: Open; ``None`` where nothing is decided.
        executor: The thread that writes.
        watch: As of ``Batcher``.

    Attributes:
        journal: As given.
        batcher: Of the writing.
    """

    def __init__(
        self, journal: Journal | None, executor: Executor, *, watch: Callable[[Ran], None] | None = None
    ) -> None:
        self.journal = journal
        self.batcher = Batcher("journal", self._record, executor, budget=_DECISIONS, watch=watch)

    async def record(self, bank: str, found: Recalled, *, actor: str) -> Recalled:
        """Write the decisions of a request; once this returns they are on the disk, each with its ``id``.

        Args:
            bank: Name of the bank.
            found: Decided results.
            actor: Whose request it is.

        Raises:
            Problem: As ``Batcher.submit``.
            OSError: The disk is full.
        """
        started = time.monotonic()
        key = (bank, found.state.sequence, actor)
        [ids] = await self.batcher.submit([found.results], key=key, costs=[len(found.results)])
        for result, id_ in zip(found.results, ids, strict=True):
            result["decision"]["id"] = id_
        milliseconds: Mapping[str, float] = {
            **found.milliseconds,
            "journal": round(1000 * (time.monotonic() - started), 3),
        }
        return replace(found, milliseconds=milliseconds)

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

    def _record(self, key: tuple[str, int, str], units: list[list[Record]]) -> list[list[str]]:
        """Write the decisions of several requests in one transaction."""
        assert self.journal is not None
        bank, sequence, actor = key
        decided = [one for unit in units for one in unit]
        ids = iter(self.journal.admit_and_record(decided, bank=bank, sequence=sequence, actor=actor))
        return [[next(ids) for _ in unit] for unit in units]


def open_journal(settings: Serve) -> Journal:
    """The journal in the folder of a service's state, which is made where there is none.

    Args:
        settings: Of the service.

    Raises:
        UsageError: No folder is given, or it cannot be used.
    """
    if settings.state is None:
        raise UsageError("decisions are kept in a folder, and none is given; give `state`, an empty or a new one")
    folder = Path(settings.state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be used as a folder ({error.strerror}); give another `state`") from None
    return Journal.open(folder / "journal.db", second_looks=settings.second_looks)
