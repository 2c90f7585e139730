"""Blocks on the actors of a Ray cluster (Moritz et al. 2018, arXiv:1712.05889).

Each actor makes the work ready once, models and bank included, and then takes block after block. A block whose actor
dies is given to another one; one that takes several actors with it ends the run.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ecom_rag.arguments import text_of, whole_or_none
from ecom_rag.errors import DistributionError, EcomRagError, UsageError
from ecom_rag.files.jobs import Block, Done, Process, Work
from ecom_rag.models.runtimes.cpu import cores

logger = logging.getLogger(__name__)

_AHEAD = 2  # blocks that an actor has: one that it does, and one that waits for it
_WINDOW = 4  # blocks per actor that are done or under way before the first of them is written
_TRIES = 3  # of a block that a worker had to itself
_PATIENCE = 60.0  # seconds without any actor, after which a user should know
_OBJECTS = 256 << 20  # bytes of the store of a cluster that we start


class RayActors:
    """Workers on a Ray cluster; ``jobs.run`` hands them its blocks.

    Args:
        address: ``HOST:PORT`` of a cluster; ``auto`` for the one that this machine belongs to, or where there is none,
            this machine alone.
        workers: Actors; by default one per CPU (or GPU, where the work needs them) of the cluster.

    Raises:
        UsageError: An argument of the wrong kind, or the package ``ray`` is not installed.
        DistributionError: No cluster answers at the address.
    """

    def __init__(self, address: str = "auto", *, workers: int | None = None) -> None:
        self.address = text_of(address, "address")
        self.workers = whole_or_none(workers, "workers")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UsageError(
                f"Ray needs the package {error.name}, which is not installed; pip install 'ecom-rag[ray]'"
            ) from None
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect()

    def each(self, work: Work, blocks: Iterator[Block]) -> Iterator[tuple[Block, Done]]:
        """Have blocks done.

        Args:
            work: What is done.
            blocks: Taken as actors become free.

        Yields:
            Each block with what was made of it, in their order.

        Raises:
            DistributionError: An actor could not do the work as this process would, or a block took several with it.
            EcomRagError: What the work raised, of the first block in order that did.
        """
        pool = _Pool(self._ray, work, self.workers or self._count(work))
        try:
            yield from pool.each(blocks)
        finally:
            pool.close()

    def close(self) -> None:
        """Leave the cluster, and end it where it was started here."""
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()

    def _connect(self) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": f"ecom_rag-{os.getpid()}"}
        if self.address != "auto":
            _check_answers(self.address)
            return self._joined(self.address, quiet)
        try:
            self._joined("auto", quiet)
        except DistributionError:
            self._ray.init(
                address="local",
                num_cpus=cores(),
                object_store_memory=_OBJECTS,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )

    def _joined(self, address: str, quiet: dict[str, Any]) -> None:
        try:
            self._ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _no_cluster(address, error) from None

    def _count(self, work: Work) -> int:
        kind = "GPU" if work.gpus else "CPU"
        return max(1, int(self._ray.cluster_resources().get(kind, 1)))


class _Actor:
    """What runs in an actor's process."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process: Process | None = None

    def ready(self) -> tuple[str, str]:
        """Make the work ready; the host, and why that cannot be."""
        try:
            self._process = self._work.start()
        except EcomRagError as error:
            return socket.gethostname(), str(error)
        return socket.gethostname(), ""

    def do(self, block: Block) -> Done:
        """The results of one block."""
        assert self._process is not None
        return self._process(block)


@dataclass(eq=False)
class _Task:
    """A block, and who does it."""

    block: Block
    first: int  # number of its first record
    worker: "_Worker | None" = None
    ref: Any = None
    tries: int = 0
    suspected: bool = False  # a worker that had it is gone: the next one has this block alone
    done: Done | None = None
    error: Exception | None = None


@dataclass(eq=False)
class _Worker:
    """An actor, as this process knows it."""

    actor: Any
    starting: Any  # reference of what ``ready`` gives; None once it is
    tasks: list[_Task] = field(default_factory=list)

    def has_room(self, task: _Task) -> bool:
        if self.starting is not None or (self.tasks and (task.suspected or self.tasks[0].suspected)):
            return False
        return len(self.tasks) < _AHEAD


class _Pool:
    """Actors that do the same work."""

    def __init__(self, ray: Any, work: Work, count: int) -> None:
        self._ray, self._count = ray, count
        self._work = ray.put(work)
        self._kind = ray.remote(_Actor).options(num_cpus=1, num_gpus=work.gpus, max_restarts=0)
        self._workers: list[_Worker] = []
        self._waiting: deque[_Task] = deque()  # to be given to a worker
        self._lonely = 0.0
        self._failed = 0  # starts, one after the other

    def each(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Done]]:
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
        for worker in self._workers:
            self._ray.kill(worker.actor)

    def _give(self) -> None:
        """Blocks to the workers that have the fewest; new workers in place of those that died."""
        while len(self._workers) < min(self._count, len(self._waiting) + len(self._busy())):
            actor = self._kind.remote(self._work)
            self._workers.append(_Worker(actor, actor.ready.remote()))
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
            self._workers.remove(worker)
            self._failed += 1
            if self._failed < _TRIES:
                return
            raise DistributionError(
                f"{_TRIES} workers ended while they loaded the models and the bank ({_line(error)}); look whether the"
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
        self._workers.remove(worker)
        tasks, worker.tasks = worker.tasks, []
        for task in tasks:
            task.suspected = True
        last = tasks[-1].first + len(tasks[-1].block) - 1
        logger.info("a worker that had records %d to %d is gone: %s", tasks[0].first, last, _line(error))
        if len(tasks) == 1:
            task = tasks[0]
            task.tries += 1
            if task.tries == _TRIES:
                task.error = DistributionError(
                    f"records {task.first} to {last} ended {_TRIES} workers, one after the other ({_line(error)}); look"
                    " at these records and at the memory of the machines, then run again with `resume`"
                )
                return
        self._waiting.extendleft(reversed(tasks))

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


def _check_answers(address: str) -> None:
    """Raise unless something listens at ``HOST:PORT``; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> DistributionError:
    return DistributionError(
        f"no Ray cluster answers at {address} ({_line(error)}); expected HOST:PORT of one that runs, or auto"
    )


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
