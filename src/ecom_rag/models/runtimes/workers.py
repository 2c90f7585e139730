"""Threads that stay: the batches of all calls go through the same few, so that no call pays for starting its own."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Barrier, Lock
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")
Entering = Callable[[], AbstractContextManager[Callable[[], None]]]


class Workers:
    """A few threads, started by the first work, and ended with this object or the interpreter.

    Args:
        count: Threads, and so pieces of work that are done at a time.
        entering: Entered while they start, gives what each of them does first; by default nothing.
    """

    def __init__(self, count: int, entering: Entering = lambda: contextlib.nullcontext(lambda: None)) -> None:
        self.count = count
        self._entering = entering
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
                self._pool = self._started()
            return self._pool.submit(work)

    def _started(self) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(self.count, thread_name_prefix="ecom_rag-model")
        ready = Barrier(self.count + 1)  # so that each thread takes one
        with self._entering() as enter:
            for _ in range(self.count):
                pool.submit(lambda: (enter(), ready.wait()))
            ready.wait()
        return pool

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
