"""Parts of something large, each held by an actor of a Ray cluster, and what becomes of one whose actor dies."""

import copy
import logging
import socket
from collections.abc import Sequence
from typing import Any

from ecom_rag.distribution.ray_pool import line_of
from ecom_rag.errors import DistributionError, EcomRagError
from ecom_rag.files.parts import Part

logger = logging.getLogger(__name__)

_TRIES = 3  # of a question whose actor dies
_PATIENCE = 60.0  # seconds without an answer of a new actor, after which a user should know


class _Holder:
    """What runs in an actor's process."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._held: Any = None

    def ready(self) -> tuple[str, str]:
        """Open the part; the host, and why that cannot be."""
        try:
            self._open()
        except EcomRagError as error:
            return socket.gethostname(), str(error)
        return socket.gethostname(), ""

    def answer(self, question: tuple[str, tuple[Any, ...]]) -> Any:
        """What a method of the part gives; after a death the part is opened anew."""
        name, arguments = copy.deepcopy(question)  # arrays of Ray's own store cannot be written to
        return getattr(self._open(), name)(*arguments)

    def _open(self) -> Any:
        if self._held is None:
            self._held = self._part.open()
        return self._held


class RayParts:
    """Parts on actors that Ray starts again when they die, on as many machines as it can; see ``files.parts.Held``.

    Args:
        parts: Each for an actor, which takes one CPU.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        holder = (
            _ray()
            .remote(_Holder)
            .options(num_cpus=1, max_restarts=-1, max_task_retries=_TRIES, scheduling_strategy="SPREAD")
        )
        self._actors = [holder.remote(part) for part in parts]

    def __len__(self) -> int:
        return len(self._actors)

    def wait(self) -> None:
        """Wait until all are open.

        Raises:
            DistributionError: One cannot be opened where its actor is, or its actors end while they try.
        """
        ray = _ray()
        waiting = {actor.ready.remote(): number for number, actor in enumerate(self._actors, start=1)}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_PATIENCE)
            if not ready:
                free = ray.available_resources().get("CPU", 0)
                logger.warning(
                    "%d of %d shards are not open after %.0f s more; the cluster has %g free CPUs, a shard takes one",
                    *(len(waiting), len(self._actors), _PATIENCE, free),
                )
            for ref in ready:
                self._opened(ref, waiting.pop(ref))

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """See ``Held.ask``."""
        ray = _ray()
        question = ray.put((name, arguments))
        asked = [actor.answer.remote(question) for actor in self._actors]
        return [self._answer(ref, number) for number, ref in enumerate(asked, start=1)]

    def close(self) -> None:
        """End the actors."""
        ray = _ray()
        for actor in self._actors:
            ray.kill(actor)

    def _opened(self, ref: Any, number: int) -> None:
        host, reason = self._answer(ref, number)
        if reason:
            raise DistributionError(f"the process on {host} cannot hold shard {number}: {reason}")

    def _answer(self, ref: Any, number: int) -> Any:
        ray = _ray()
        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # what the part raised
            raise error.cause if isinstance(error.cause, EcomRagError) else error from None
        except ray.exceptions.RayError as error:
            raise DistributionError(
                f"shard {number} of {len(self._actors)} ended {_TRIES + 1} processes, one after the other"
                f" ({line_of(error)}); look whether the memory of their machines is enough, or take more shards"
            ) from None


def _ray() -> Any:
    import ray

    return ray
