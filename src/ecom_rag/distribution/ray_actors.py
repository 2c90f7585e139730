"""Blocks on the actors of a Ray cluster (Moritz et al. 2018, arXiv:1712.05889).

Each actor makes the work ready once, models and bank included, and then takes block after block. A block whose actor
dies is given to another one; one that takes several actors with it ends the run.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecom_rag.arguments import text_of, whole_or_none
from ecom_rag.distribution.ray_parts import RayParts
from ecom_rag.distribution.ray_pool import Pool, line_of
from ecom_rag.errors import DistributionError, UsageError
from ecom_rag.files.jobs import Block, Work, Written
from ecom_rag.files.parts import Part
from ecom_rag.models.runtimes.cpu import cores

logger = logging.getLogger(__name__)

_QUIET: dict[str, Any] = {
    "logging_level": logging.ERROR,
    "log_to_driver": False,
    "namespace": f"ecom_rag-{os.getpid()}",
}
_OBJECTS = 256 << 20  # bytes of the store of a cluster that we start
_PRINTS = "print_to_stdstream"  # what Ray calls, in releases that have it, to print what befell its processes


class RayActors:
    """Workers on a Ray cluster; ``jobs.run`` hands them its blocks.

    Args:
        address: ``HOST:PORT`` of a cluster; ``auto`` for the one that this machine belongs to, or where there is none,
            this machine alone.
        workers: Actors; by default one per CPU (or GPU, where the work needs them) of the cluster.
        shards: Parts that a bank is cut into, each held by an actor of its own, which takes a CPU too; by default each
            worker opens it whole.

    Raises:
        UsageError: An argument of the wrong kind, or the package ``ray`` is not installed.
        DistributionError: No cluster answers at the address.
    """

    def __init__(self, address: str = "auto", *, workers: int | None = None, shards: int | None = None) -> None:
        self.address = text_of(address, "address")
        self.workers = whole_or_none(workers, "workers")
        self.shards = whole_or_none(shards, "shards")
        self._held: RayParts | None = None
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
            self._print = getattr(ray._private.worker, _PRINTS, None)
            setattr(ray._private.worker, _PRINTS, _log)

    def hold(self, parts: Sequence[Part]) -> RayParts:
        """Have parts held, in place of those before.

        Args:
            parts: Each for an actor.

        Raises:
            DistributionError: One cannot be opened where its actor is, or its actors end while they try.
        """
        self._let_go()
        self._held = RayParts(parts)
        self._held.wait()
        return self._held

    def each(self, work: Work, blocks: Iterator[Block]) -> Iterator[tuple[Block, Written]]:
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
        pool = Pool(self._ray, work, self.workers or self._count(work))
        try:
            yield from pool.each(blocks)
        finally:
            pool.close()

    def close(self) -> None:
        """Leave the cluster, and end it where it was started here."""
        if self._ray.is_initialized():
            self._let_go()
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()
            setattr(self._ray._private.worker, _PRINTS, self._print)

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _connect(self) -> None:
        if self.address != "auto":
            _check_answers(self.address)
            return self._join(self.address)
        try:
            self._begin(None)
        except ValueError:  # Ray refuses these options where `ray start` or RAY_ADDRESS names a cluster
            try:
                self._join(None)
            except DistributionError:  # it has ended without taking its name back
                self._begin("local")

    def _join(self, address: str | None) -> None:
        """Become part of a cluster that runs."""
        try:
            self._ray.init(address, **_QUIET)
        except self._ray.exceptions.RayError as error:  # e.g. a token is wanted
            raise UsageError(f"the Ray cluster at {self.address} refuses this process ({line_of(error)})") from None
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _no_cluster(self.address, error) from None

    def _begin(self, address: str | None) -> None:
        """A cluster of this machine alone.

        Not the address ``auto``: with it Ray would join any cluster on the machine, e.g. that of another run, which
        ends with it. Its workers are as nice to others as this process, and not by 15 more, as is usual with Ray.
        """
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            self._ray.init(
                address,
                num_cpus=max(cores(), (self.workers or 1) + (self.shards or 0)),
                object_store_memory=_OBJECTS,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **_QUIET,
            )
        except ValueError:
            raise
        except Exception as error:  # a bare one, where a process of Ray ends early or the machine is busy
            raise DistributionError(f"Ray does not start on this machine ({line_of(error)}); run again") from None

    def _count(self, work: Work) -> int:
        kind, taken = ("GPU", 0) if work.gpus else ("CPU", 0 if self._held is None else len(self._held))
        return max(1, int(self._ray.cluster_resources().get(kind, 1)) - taken)


def _log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    """In place of what Ray prints of its processes, to standard output, where the results may go."""
    logger.info("Ray: %s", " ".join(data["lines"]))


def _check_answers(address: str) -> None:
    """Raise unless something listens at ``HOST:PORT``; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> DistributionError:
    return DistributionError(
        f"no Ray cluster answers at {address} ({line_of(error)}); expected HOST:PORT of one that runs, or auto"
    )
