"""Actors of a Ray cluster that do the same work, and what becomes of a block whose actor dies."""

import gc
import logging
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ecom_rag.errors import DistributionError, EcomRagError
from ecom_rag.files.jobs import COLLECTED, Block, Process, Work, Written, written

logger = logging.getLogger(__name__)

_AHEAD = 2  # blocks that an actor has: one that it does, and one that waits for it
_WINDOW = 4  # blocks per actor that are done or under way before the first of them is written
_TRIES = 3  # of a block that a worker had to itself, and of a start
_PATIENCE = 60.0  # seconds without any actor, after which a user should know


class _Actor:
    """What runs in an actor's process."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process: Process | None = None

    def ready(self) -> tuple[str, str]:
        """Make the work ready; the host, and why that cannot be."""
        gc.set_threshold(*COLLECTED)
        try:
            self._process = self._work.start()
        except EcomRagError as error:
            return socket.gethostname(), str(error)
        return socket.gethostname(), ""

    def do(self, block: Block) -> Written:
        """The results of one block, as lines: the other side writes them, and need not read them."""
        assert self._process is not None
        return written(self._process(block))


@dataclass(eq=False)
class _Task:
    """A block, and who does it."""

    block: Block
    first: int  # number of its first record
    worker: "_Worker | None" = None
    ref: Any = None
    tries: int = 0
    suspected: bool = False  # a worker that had it is gone: the next one has this block alone
    done: Written | None = None
    error: Exception | None = None


@dataclass(eq=False)
class _Worker:
    """An actor, as this process knows it."""

    actor: Any
    starting: Any  # reference of what ``ready`` gives; None once it is
    failed: int  # starts that had failed, one after the other, before this one
    tasks: list[_Task] = field(default_factory=list)

    def has_room(self, task: _Task) -> bool:
        if self.starting is not None or (self.tasks and (task.suspected or self.tasks[0].suspected)):
            return False
        return len(self.tasks) < _AHEAD


class Pool:
    """Actors that do the same work."""

    def __init__(self, ray: Any, work: Work, count: int) -> None:
        self._ray, self._count = ray, count
        self._work = ray.put(work)
        self._kind = ray.remote(_Actor).options(num_cpus=1, num_gpus=work.gpus, max_restarts=0)
        self._workers: list[_Worker] = []
        self._waiting: deque[_Task] = deque()  # to be given to a worker
        self._lonely = 0.0
        self._failed = 0  # starts, one after the other

    def each(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Written]]:
        """See ``RayActors.each``."""
        order: deque[_Task] = deque()
        records, more = 0, True
        while more or order:
            while more and len(order) < _WINDOW * self._count:
                block = next(blocks, None)
                if block is None:
                    more = False
                    break
                order.append(_Task(block, records + 1))
                records += len(block)
                self._waiting.append(order[-1])
            if order:
                self._give()
                self._collect()
            while order and (order[0].done is not None or order[0].error is not None):
                task = order.popleft()
                if task.error is not None:
                    raise task.error
                assert task.done is not None
                yield task.block, task.done

    def close(self) -> None:
        """End the actors."""
        for worker in list(self._workers):
            self._dismiss(worker)

    def _give(self) -> None:
        """Blocks to the workers that have the fewest; new workers in place of those that died."""
        while len(self._workers) < min(self._count, len(self._waiting) + len(self._busy())):
            actor = self._kind.remote(self._work)
            self._workers.append(_Worker(actor, actor.ready.remote(), self._failed))
        while self._waiting:
            free = [worker for worker in self._workers if worker.has_room(self._waiting[0])]
            if not free:
                return
            worker, task = min(free, key=lambda one: len(one.tasks)), self._waiting.popleft()
            task.worker, task.ref = worker, worker.actor.do.remote(task.block)
            worker.tasks.append(task)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.tasks]

    def _collect(self) -> None:
        """Wait until something is done, and take it."""
        starting = {worker.starting: worker for worker in self._workers if worker.starting is not None}
        doing = {task.ref: task for worker in self._workers for task in worker.tasks}
        ready, _ = self._ray.wait([*starting, *doing], num_returns=1, timeout=1.0)
        for ref in ready:
            if ref in starting:
                self._started(starting[ref])
            else:
                self._finished(doing[ref])
        self._tell_of_waiting(idle=not ready and len(starting) == len(self._workers))

    def _started(self, worker: _Worker) -> None:
        try:
            host, reason = self._ray.get(worker.starting)
        except self._ray.exceptions.RayActorError as error:
            self._dismiss(worker)
            self._failed += worker.failed >= self._failed  # those that end together, as with their machine, count once
            if self._failed < _TRIES:
                return
            raise DistributionError(
                f"{_TRIES} workers ended while they loaded the models and the bank ({line_of(error)}); look whether the"
                " memory of their machines is enough, or take fewer workers"
            ) from None
        if reason:
            raise DistributionError(f"the worker on {host} cannot do what this machine does: {reason}")
        worker.starting, self._failed = None, 0

    def _finished(self, task: _Task) -> None:
        worker = task.worker
        assert worker is not None
        try:
            task.done = self._ray.get(task.ref)
        except self._ray.exceptions.RayTaskError as error:  # what the work raised
            task.error = error.cause if isinstance(error.cause, EcomRagError) else error
        except self._ray.exceptions.RayError as error:  # the actor or its machine is gone
            self._lost(worker, error)
            return
        worker.tasks.remove(task)

    def _lost(self, worker: _Worker, error: Exception) -> None:
        """The blocks of a worker that is gone, to others.

        Which of two blocks ended it cannot be known: the results of the first may have gone down with the second. So
        each is done again by a worker that has nothing else.
        """
        self._dismiss(worker)
        tasks, worker.tasks = worker.tasks, []
        for task in tasks:
            task.suspected = True
        last = tasks[-1].first + len(tasks[-1].block) - 1
        logger.warning("a worker that had records %d to %d is gone (%s)", tasks[0].first, last, line_of(error))
        if len(tasks) == 1:
            task = tasks[0]
            task.tries += 1
            if task.tries == _TRIES:
                task.error = DistributionError(
                    f"records {task.first} to {last} ended {_TRIES} workers, one after the other ({line_of(error)});"
                    " look at these records and at the memory of the machines, then run again with `resume`"
                )
                return
        self._waiting.extendleft(reversed(tasks))

    def _dismiss(self, worker: _Worker) -> None:
        """Do without an actor; one that is only out of reach must not keep its CPU, nor finish what others do."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor)

    def _tell_of_waiting(self, *, idle: bool) -> None:
        """A warning where the cluster has had no room for a worker for long."""
        self._lonely = self._lonely + 1.0 if idle else 0.0
        if self._lonely == _PATIENCE:
            free = {name: self._ray.available_resources().get(name, 0) for name in ("CPU", "GPU")}
            logger.warning(
                "no worker has started in %.0f s; the cluster has %g free CPUs and %g free GPUs, a worker takes one",
                _PATIENCE,
                free["CPU"],
                free["GPU"],
            )


def line_of(error: Exception) -> str:
    """The first line of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
