"""What several threads use, and what the last of them closes; and work that leaves room for others."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ecom_rag.errors import BankError

Value = TypeVar("Value")
_LONGEST = 0.1  # seconds of one pause


class Shared(Generic[Value]):
    """A value that is closed when its last user leaves; whoever makes it is the first.

    Args:
        value: What is used.
        close: Called once, by the last user.
    """

    def __init__(self, value: Value, close: Callable[[], object]) -> None:
        self.value = value
        self._close = close
        self._users = 1
        self._guard = threading.Lock()

    def take(self) -> bool:
        """Become a user; whether that was in time."""
        with self._guard:
            if self._users == 0:
                return False
            self._users += 1
            return True

    def leave(self) -> None:
        """Stop being a user."""
        with self._guard:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self._close()


class Pauses:
    """Sleeps as long as the work since the last pause has kept the processor busy: half of it is left to others.

    Args:
        stop: Ends the pause, and the work with a ``BankError``.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._busy = time.thread_time()

    def __call__(self) -> None:
        """Pause.

        Raises:
            BankError: It is time to stop.
        """
        if self._stop.wait(min(_LONGEST, time.thread_time() - self._busy)):
            raise BankError("the banks are being closed; start the service again")
        self._busy = time.thread_time()
