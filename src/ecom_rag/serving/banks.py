"""The open banks of a service: searched without waiting for writers, watched for changes, and swapped under load.

Searches use a pinned state. One background thread asks each bank every ``poll_seconds`` whether it was changed, by this
process or another, makes the later state beside the one in use, and then lets it take its place. A state, and a bank
that was swapped, are closed after their last reader has left. What fails in the background is shown by ``health``,
and the state that was served before goes on being served.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Self

from ecom_rag.arguments import PathLike, number
from ecom_rag.errors import BankError, UsageError
from ecom_rag.models import Encoder
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.seeds.source import check_built
from ecom_rag.serving.opening import Reader, check_successor, pinned, warm
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.shared import Pauses, Shared
from ecom_rag.serving.slots import Health, Slot
from ecom_rag.serving.watching import Watcher

logger = logging.getLogger(__name__)


class Banks:
    """The registry of open banks; all methods may be called by any thread.

    Args:
        poll_seconds: How often a bank is asked whether it was changed.
        timeout: Seconds to wait for another writer.
        changed: Called with a bank's name and its sequence after a later state, or another bank, has taken its place;
            by the background thread, or the one that swaps.
        maintain: Compact banks and save their indexes in the background where it is due.

    Raises:
        UsageError: A number out of range.
    """

    def __init__(
        self,
        *,
        poll_seconds: float = 0.5,
        timeout: float = 10.0,
        changed: Callable[[str, int], object] | None = None,
        maintain: bool = True,
    ) -> None:
        poll_seconds = number(poll_seconds, "poll_seconds", low=0.001, expected="seconds from 0.001 on")
        self._timeout = timeout
        self._changed = changed
        self._slots: dict[str, Slot] = {}
        self._encoders: dict[str, Encoder] = {}
        self._guard = threading.Lock()  # of the slots
        self._swapping = threading.Lock()
        self._watcher = Watcher(self._all, poll_seconds=poll_seconds, changed=self._tell, maintain=maintain)

    def open(self, name: str, path: PathLike, *, encoder: Encoder | None = None, routes: Sequence[str] = ()) -> None:
        """Open a bank under a name, load its indexes and search it once.

        Args:
            name: In the API.
            path: Folder of the bank.
            encoder: Of its model, where one is loaded already; other banks of the same model take it too.
            routes: Those that requests use, which a bank that is swapped in must have; by default all of this one's.

        Raises:
            BankError: No bank, a damaged one, or of another model than the encoder's.
            UsageError: The name is taken, or a route that the bank does not have.
        """
        with self._swapping:
            if name in self._slots:
                raise UsageError(f"a bank named {name!r} is open already; swap it, or choose another name")

            def check(bank: SeedBank) -> None:
                check_built(routes, bank.routes)
                if encoder is not None:
                    bank.use(encoder)
                    self._encoders[encoder.fingerprint] = encoder

            bank, state = self._opened(path, check)
            with self._guard:
                self._slots[name] = Slot(name, bank, state, routes)

    def swap(self, name: str, path: PathLike) -> int:
        """Let another bank take a bank's place; no request fails, and on an error the old bank stays.

        Args:
            name: Of an open bank. Changes that begin after this are made in the new one, whose sequences are its own.
            path: Folder of the new one.

        Returns:
            The sequence of the new bank.

        Raises:
            Problem: 404, no bank of that name.
            BankError: No bank, a damaged or empty one, or of a model that is not loaded.
            UsageError: It lacks a route.
        """
        with self._swapping:
            slot = self._slot(name)
            old = slot.bank()
            try:
                bank, state = self._opened(
                    path, lambda new: check_successor(new, old.value, slot.routes, self._encoders)
                )
            finally:
                old.leave()
            sequence = state.value.view.sequence
            slot.replace(bank, state)
        self._tell(name, sequence)
        return sequence

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Reader]:
        """The latest state of a bank that is ready, for a batch of searches; neither a write nor a swap is waited for.

        Args:
            name: Of an open bank.

        Raises:
            Problem: 404, no bank of that name.
            BankError: The registry is closed.
        """
        state = self._slot(name).state()
        try:
            with state.value.bank.using(state.value.view):
                yield state.value
        finally:
            state.leave()

    @contextlib.contextmanager
    def lease(self, name: str) -> Iterator[SeedBank]:
        """A bank that stays open for the length of a ``with`` block, for a change.

        Args:
            name: Of an open bank.

        Raises:
            Problem: 404, no bank of that name.
            BankError: The registry is closed.
        """
        bank = self._slot(name).bank()
        try:
            yield bank.value
        finally:
            bank.leave()

    def visible(self, name: str, sequence: int) -> "Future[int]":
        """Wait until searches see a change.

        Args:
            name: Of an open bank.
            sequence: Of the change.

        Returns:
            Gives the sequence that searches see; ``BankError`` where the bank was swapped or closed before.

        Raises:
            Problem: 404, no bank of that name.
            BankError: The registry is closed.
        """
        waiting = self._slot(name).wait_for(sequence)
        if not waiting.done():
            self._watcher.wake()
        return waiting

    def names(self) -> list[str]:
        """Names of the open banks, in the order they were opened."""
        return [slot.name for slot in self._all()]

    def health(self) -> dict[str, Health]:
        """How each bank is, by its name."""
        return {slot.name: slot.health() for slot in self._all()}

    @property
    def is_watched(self) -> bool:
        """Whether changes are looked for: until ``close``."""
        return self._watcher.is_alive

    def close(self) -> None:
        """Close all banks; one that is being read is closed by its last reader. A second time does nothing."""
        self._watcher.stop.set()  # a swap under way ends with an error
        with self._swapping:
            for slot in self._all():
                slot.close()
        self._watcher.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _opened(self, path: PathLike, check: Callable[[SeedBank], None]) -> tuple[Shared[SeedBank], Shared[Reader]]:
        """A bank that was checked, and its state, searched once; what fails is closed again."""
        if self._watcher.stop.is_set():
            raise BankError(f"{path}: the service is closing; start it again")
        opened = SeedBank.open(path, timeout=self._timeout, maintain=False)
        bank = Shared(opened, lambda: self._watcher.close_soon(opened.close))
        with contextlib.ExitStack() as failed:
            failed.callback(bank.leave)
            check(opened)
            if opened.model is not None and opened.model.fingerprint in self._encoders:
                opened.use(self._encoders[opened.model.fingerprint])
            state = pinned(bank, Pauses(self._watcher.stop))
            failed.callback(state.leave)
            warm(state.value)
            failed.pop_all()
        return bank, state

    def _all(self) -> list[Slot]:
        with self._guard:
            return list(self._slots.values())

    def _slot(self, name: str) -> Slot:
        with self._guard:
            if name in self._slots:
                return self._slots[name]
        raise Problem(404, "there is no bank of that name; GET /v1/banks lists them", code="no_bank", param="bank")

    def _tell(self, name: str, sequence: int) -> None:
        if self._changed is None:
            return
        try:
            self._changed(name, sequence)
        except Exception:  # the bank is well, whatever its users are
            logger.exception("bank %s: the callback for sequence %d failed", name, sequence)
