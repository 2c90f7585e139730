"""The background thread that brings banks up to date beside their readers, and closes what these have left."""

import logging
import queue
import threading
from collections.abc import Callable

from ecom_rag.seeds.bank import SeedBank
from ecom_rag.serving.opening import pinned
from ecom_rag.serving.shared import Pauses, Shared
from ecom_rag.serving.slots import Slot

logger = logging.getLogger(__name__)

LOG_BYTES = 1 << 26  # of a write-ahead log that is made to start anew
_FEW = 1000  # rows that are made visible while writers wait


class Watcher:
    """A thread that looks at every slot, again and again, until it is stopped. No error ends it.

    Args:
        slots: Gives those that there are.
        poll_seconds: Between two looks.
        changed: Called with a slot's name and sequence after a later state has taken its place.
        maintain: Compact banks and save their indexes where it is due.
    """

    def __init__(
        self,
        slots: Callable[[], list[Slot]],
        *,
        poll_seconds: float,
        changed: Callable[[str, int], object],
        maintain: bool,
    ) -> None:
        self._slots = slots
        self._poll = poll_seconds
        self._changed = changed
        self._maintain = maintain
        self._renewed: dict[str, int] = {}  # sequence at which a log was made to start anew
        self.stop = threading.Event()
        self._wake = threading.Event()
        self._to_close: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ecom-rag banks", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether banks are looked at."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def close_soon(self, close: Callable[[], object]) -> None:
        """Close something that a reader was the last to use, without keeping the reader waiting."""
        self._to_close.put(close)
        self._wake.set()
        if not self._thread.is_alive():
            self._close_what_is_left()

    def end(self) -> None:
        """Stop, also within a preparation, and close what is left."""
        self.stop.set()
        self._wake.set()
        self._thread.join()
        self._close_what_is_left()

    def _run(self) -> None:
        while not self.stop.is_set():
            self._wake.wait(self._poll)
            self._wake.clear()
            for slot in self._slots():
                if not self.stop.is_set():
                    self._look(slot)
            self._close_what_is_left()

    def _look(self, slot: Slot) -> None:
        try:
            bank = slot.bank()
            try:
                self._bring_up(slot, bank)
            finally:
                bank.leave()
        except Exception as error:
            if not self.stop.is_set() and slot.looked(error):
                logger.error("bank %s: sequence %d is served, for no later one: %s", slot.name, slot.sequence, error)
        else:
            if slot.looked(None):
                logger.warning("bank %s: is well again", slot.name)

    def _bring_up(self, slot: Slot, bank: Shared[SeedBank]) -> None:
        """Let the last state take the place of the present one, where it is another."""
        bank.value.store.check_in_place()
        before, latest = slot.sequence, bank.value.sequence
        if latest != before and slot.advance(bank, pinned(bank, Pauses(self.stop))):
            self._changed(slot.name, slot.sequence)
        if bank.value.store.log_bytes() > LOG_BYTES and self._renewed.get(slot.name) != slot.sequence:
            self._renew_log(slot, bank)
        if latest != before and self._maintain:
            for note in bank.value.maintain(pause=Pauses(self.stop)):
                if not self.stop.is_set():
                    logger.warning("bank %s: %s", slot.name, note)

    def _renew_log(self, slot: Slot, bank: Shared[SeedBank]) -> None:
        """Pin a state that needs nothing of the log while writers wait: the next change starts the log anew."""
        with bank.value.store.between_changes():
            with bank.value.store.reading() as (_, latest):
                pass
            at = slot.stand
            if latest.purged == at.purged and latest.next_row - at.next_row <= _FEW:  # else writers would wait long
                slot.advance(bank, pinned(bank, None))
                self._renewed[slot.name] = slot.sequence

    def _close_what_is_left(self) -> None:
        while True:
            try:
                close = self._to_close.get_nowait()
            except queue.Empty:
                return
            try:
                close()
            except Exception:
                logger.exception("a bank that was swapped could not be closed")
