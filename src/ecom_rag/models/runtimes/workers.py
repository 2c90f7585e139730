"""Threads that stay: the batches of all calls go through the same few, so that no call pays for starting its own."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Workers:
    """A few threads, started by the first work, and ended with this object or the interpreter.

    Args:
        count: Threads, and so pieces of work that are done at a time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()
        _all.add(self)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have something done; any thread may ask.

        Args:
            work: Called in one of the threads, in the order of asking.

        Returns:
            What it returns or raises; an exception reaches this future alone.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="ecom_rag-model")
            return self._pool.submit(work)

    def _forget(self) -> None:
        """Begin anew: a forked child has none of its parent's threads, and one of them may have held the lock."""
        self._pool = None
        self._lock = Lock()


_all: WeakSet[Workers] = WeakSet()


def _forget_all() -> None:
    for workers in list(_all):
        workers._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
