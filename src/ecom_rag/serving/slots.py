"""A name in the registry: the bank served under it, the state that searches see, and who waits for a later one."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from ecom_rag.errors import BankError
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.seeds.bank.store import State
from ecom_rag.serving.opening import Reader
from ecom_rag.serving.shared import Shared


@dataclass(frozen=True, slots=True)
class Health:
    """How a bank is.

    Args:
        name: In the API.
        path: Folder.
        sequence: Of the state that searches see.
        documents: In that state.
        error: Why a later state cannot be had; ``None`` where all is well.
        seconds: Since the bank was last found to be well.
        waiting: Changes that somebody waits to see.
    """

    name: str
    path: str
    sequence: int
    documents: int
    error: str | None
    seconds: float
    waiting: int


class Slot:
    """What is served under a name.

    Args:
        name: In the API.
        bank: The bank, of which the slot is a user.
        state: The state that searches see, of which the slot is a user.
        routes: That requests use; none for all of the bank's.
    """

    def __init__(self, name: str, bank: Shared[SeedBank], state: Shared[Reader], routes: Sequence[str]) -> None:
        self.name = name
        self.routes = tuple(routes)
        self._bank = bank
        self._state = state
        self._waiting: list[tuple[int, Future[int]]] = []
        self._error: str | None = None
        self._well_at = time.monotonic()
        self._closed = False
        self._guard = threading.Lock()

    def bank(self) -> Shared[SeedBank]:
        """The bank; the caller is a user of it now.

        Raises:
            BankError: The registry is closed.
        """
        with self._guard:
            self._check_open()
            self._bank.take()
            return self._bank

    def state(self) -> Shared[Reader]:
        """The state that searches see; the caller is a user of it now.

        Raises:
            BankError: The registry is closed.
        """
        with self._guard:
            self._check_open()
            self._state.take()
            return self._state

    @property
    def sequence(self) -> int:
        """Of the state that searches see."""
        return self._state.value.view.sequence

    @property
    def stand(self) -> State:
        """Where the bank stands in the state that searches see."""
        return self._state.value.view.transaction[1]

    def advance(self, bank: Shared[SeedBank], state: Shared[Reader]) -> bool:
        """Let a later state take the place of the present one; ``False`` where the bank was swapped meanwhile.

        Args:
            bank: That the state is of.
            state: The slot becomes its user in place of the caller.
        """
        with self._guard:
            if self._closed or self._bank is not bank:
                old, arrived = state, []
            else:
                old, self._state = self._state, state
                arrived = [one for one in self._waiting if one[0] <= self.sequence]
                self._waiting = [one for one in self._waiting if one[0] > self.sequence]
        old.leave()
        for _, future in arrived:
            if future.set_running_or_notify_cancel():
                future.set_result(state.value.view.sequence)
        return old is not state

    def replace(self, bank: Shared[SeedBank], state: Shared[Reader]) -> None:
        """Let another bank take the place of the present one; whoever waits for a sequence of the old one gives up.

        Args:
            bank: The slot becomes its user in place of the caller.
            state: Likewise.
        """
        with self._guard:
            self._check_open()
            old = self._state, self._bank
            self._bank, self._state = bank, state
            waiting, self._waiting = self._waiting, []
            self._error, self._well_at = None, time.monotonic()
        for one in old:
            one.leave()
        _fail(waiting, f"{old[1].value.path}: was swapped for {bank.value.path}; look at the bank again")

    def close(self) -> None:
        """Stop using the bank and its state; they are closed after their last reader. A second time does nothing."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            waiting, self._waiting = self._waiting, []
        self._state.leave()
        self._bank.leave()
        _fail(waiting, f"{self._bank.value.path}: the bank is closed; start the service again")

    def wait_for(self, sequence: int) -> "Future[int]":
        """Gives the sequence that searches see once it is not below ``sequence``."""
        future: Future[int] = Future()
        with self._guard:
            self._check_open()
            if self.sequence < sequence:
                self._waiting.append((sequence, future))
                return future
        future.set_result(self.sequence)
        return future

    def looked(self, error: Exception | None) -> bool:
        """Note how the bank was found; whether that is news."""
        with self._guard:
            before, self._error = self._error, None if error is None else str(error) or repr(error)
            if error is None:
                self._well_at = time.monotonic()
            return before != self._error

    def health(self) -> Health:
        """How the bank is."""
        with self._guard:
            reader = self._state.value
            return Health(
                self.name,
                str(reader.bank.path),
                reader.view.sequence,
                reader.view.live,
                self._error,
                time.monotonic() - self._well_at,
                len(self._waiting),
            )

    def _check_open(self) -> None:
        if self._closed:
            raise BankError(f"{self._bank.value.path}: the bank is closed; start the service again")


def _fail(waiting: Sequence[tuple[int, "Future[int]"]], message: str) -> None:
    for _, future in waiting:
        if future.set_running_or_notify_cancel():
            future.set_exception(BankError(message))
