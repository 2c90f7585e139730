"""Dynamic batching: the units of waiting requests are gathered into batches, which one thread runs one after another.

No time is waited for a batch to fill: while one runs, the next gathers. A batch takes one unit of each waiting request
in turn until its budget is full, so that a request of one text does not wait for all of another's thousand; its first
unit is taken whatever it costs, and the request that it is of was the first in line. So every request is served in
every round of the queue, and none waits for ever. A caller that is cancelled, by its deadline or because its client has
gone, is dropped at the next batch.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from ecom_rag.serving.problems import Problem

_MEMORY = 0.8  # of the throughput measured before, in the moving average


@dataclass(eq=False, slots=True)
class Request:
    """What one caller waits for.

    Args:
        key: Requests of one key may share a batch.
        units: What is computed, one answer each.
        costs: Of each unit, in the batcher's measure.
        answered: Completed with the answers, in the order of the units.

    Attributes:
        waiting: Cost of the units that no batch has taken.
    """

    key: Hashable
    units: Sequence[Any]
    costs: Sequence[int]
    answered: asyncio.Future[list[Any]]
    queued: float = field(default_factory=time.monotonic)
    taken: int = 0
    answers: list[Any] = field(default_factory=list)

    waiting: int = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = sum(self.costs)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a batch cost, for those who watch.

    Args:
        batcher: Name.
        units: In the batch.
        cost: Of them.
        seconds: In the thread.
        waited: Longest time that one of its requests had waited before its first unit was taken, in seconds.
    """

    batcher: str
    units: int
    cost: int
    seconds: float
    waited: float


class Batcher:
    """One stage of the work: a queue, and the thread that empties it. Everything here runs in one event loop.

    Args:
        name: Of the stage, for messages and metrics.
        run: Called in the executor with a key and units; gives one answer per unit.
        executor: Of one thread.
        budget: Cost of a batch.
        queue_seconds: Requests are refused once what waits would take longer than this.
        watch: Called after each batch.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Any, list[Any]], Sequence[Any]],
        executor: Executor,
        *,
        budget: int,
        queue_seconds: float = math.inf,
        watch: Callable[[Ran], None] | None = None,
    ) -> None:
        self.name = name
        self._run, self._executor, self._watch = run, executor, watch
        self._budget, self._queue_seconds = budget, queue_seconds
        self._queue: deque[Request] = deque()
        self._waiting = 0
        self._rate: float | None = None  # cost per second
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Cost of what no batch has taken yet."""
        return self._waiting

    @property
    def seconds(self) -> float:
        """How long what waits will take, by the throughput under load; 0 before there was any."""
        return self._waiting / self._rate if self._rate else 0.0

    async def submit(
        self, units: Sequence[Any], *, key: Hashable = None, costs: Sequence[int] | None = None
    ) -> list[Any]:
        """Compute units; a caller that is cancelled is not computed for any more.

        Args:
            units: What to compute.
            key: Requests of one key may share a batch.
            costs: Of the units; by default 1 each.

        Returns:
            One answer per unit, in their order.

        Raises:
            Problem: 429 where too much waits already.
        """
        if not units:
            return []
        costs = [1] * len(units) if costs is None else costs
        self._check_room(sum(costs))
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        request = Request(key, units, costs, answered)
        self._queue.append(request)
        self._waiting += request.waiting
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name=f"batcher {self.name}")
        return await answered

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        """Run batches until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while taken := self._take():
                units = [unit for request, own in taken for unit in own]
                waited = max((now := time.monotonic()) - request.queued for request, _ in taken)
                try:
                    answers = await loop.run_in_executor(self._executor, self._run, taken[0][0].key, units)
                except Exception as error:
                    await self._one_by_one(taken, error)
                else:
                    _answer(taken, answers)
                    self._note(taken, time.monotonic() - now, waited)
        finally:
            self._task = None
            if self._queue:  # only where this task itself was cancelled
                for request in self._queue:
                    request.answered.cancel()
                self._queue.clear()
                self._waiting = 0

    def _take(self) -> list[tuple[Request, list[Any]]]:
        """The next batch: the requests that it serves, and the units of each."""
        self._drop()
        if not self._queue:
            return []
        key = self._queue[0].key
        mates = [request for request in self._queue if request.key == key]
        room = self._budget
        own: dict[Request, list[Any]] = {}
        turn = deque(mates)
        while turn and room > 0:
            request = turn.popleft()
            cost = request.costs[request.taken]
            if cost > room and own:
                continue
            own.setdefault(request, []).append(request.units[request.taken])
            request.taken += 1
            request.waiting -= cost
            room -= cost
            self._waiting -= cost
            if request.taken < len(request.units):
                turn.append(request)
        for request in own:  # served in this round: behind those that were not
            self._queue.remove(request)
            if request.taken < len(request.units):
                self._queue.append(request)
        return list(own.items())

    def _drop(self) -> None:
        """Forget the requests that nobody waits for any more."""
        for request in [one for one in self._queue if one.answered.done()]:
            self._queue.remove(request)
            self._waiting -= request.waiting

    def _check_room(self, cost: int) -> None:
        """Refuse a request that would wait too long.

        Units are taken in turns, so of a larger request no more comes before a smaller one than that one's own cost:
        who writes ten thousand seeds does not keep others from searching.
        """
        if self._rate is None or self.seconds <= self._queue_seconds:
            return
        before = sum(min(one.waiting, cost) for one in self._queue if not one.answered.done())
        seconds = before / self._rate
        if seconds > self._queue_seconds:
            raise Problem(
                429,
                f"the service is busy: {seconds:.1f} seconds of work wait; try again later",
                code="overloaded",
                retry_after=seconds,
            )

    async def _one_by_one(self, taken: list[tuple[Request, list[Any]]], error: Exception) -> None:
        """After a batch that failed: each request by itself, so that only the one at fault fails."""
        loop = asyncio.get_running_loop()
        for request, own in taken:
            found: Exception | None = error
            if len(taken) > 1:
                try:
                    answers = await loop.run_in_executor(self._executor, self._run, request.key, own)
                    _answer([(request, own)], answers)
                    found = None
                except Exception as own_error:
                    found = own_error
            if found is not None and not request.answered.done():
                request.answered.set_exception(found)

    def _note(self, taken: list[tuple[Request, list[Any]]], seconds: float, waited: float) -> None:
        cost = sum(sum(request.costs[request.taken - len(own) : request.taken]) for request, own in taken)
        rate = cost / max(seconds, 1e-6)
        if self._queue:  # more was waiting: this is what the thread can do
            self._rate = rate if self._rate is None else _MEMORY * self._rate + (1 - _MEMORY) * rate
        elif self._rate is not None:  # one small batch takes longer per unit than a full one, so it tells only of more
            self._rate = max(self._rate, rate)
        if self._watch is not None:
            self._watch(Ran(self.name, sum(len(own) for _, own in taken), cost, seconds, waited))


def _answer(taken: list[tuple[Request, list[Any]]], answers: Sequence[Any]) -> None:
    """Give each request the answers of its units; it is complete with the last."""
    start = 0
    for request, own in taken:
        request.answers.extend(answers[start : start + len(own)])
        start += len(own)
        if len(request.answers) == len(request.units) and not request.answered.done():
            request.answered.set_result(request.answers)
