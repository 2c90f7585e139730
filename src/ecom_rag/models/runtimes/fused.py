"""Fused layers in torch on a CPU, with a batch to each core at a time."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from ecom_rag.models.runtimes import cpu
from ecom_rag.models.runtimes.batching import Batch, Outputs
from ecom_rag.models.runtimes.workers import Workers

if TYPE_CHECKING:
    import torch


class FusedRuntime:
    """Runs a fused module on a CPU, a batch to each core at a time: faster than all cores on one batch."""

    def __init__(self, module: "torch.nn.Module") -> None:
        import torch

        self._torch = torch
        self._module = module.eval()
        threads = max(1, cpu.cores() // cpu.streams())  # of a batch: the last bits of its numbers depend on it
        self._workers = Workers(cpu.streams(), partial(_entering, threads))  # not a method: weights would wait for gc

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """See ``Runtime.run``."""
        busy: deque[tuple[Batch, Future[Outputs]]] = deque()
        try:
            for batch in batches:
                if len(busy) > self._workers.count:  # one more than can run, so that none waits for its input
                    yield busy[0][0], busy[0][1].result()
                    busy.popleft()
                busy.append((batch, self.submit(batch, outputs)))
            for batch, future in busy:
                yield batch, future.result()
        finally:
            for _, future in busy:
                future.cancel()

    def submit(self, batch: Batch, outputs: Sequence[int]) -> Future[Outputs]:
        """Have one batch run, beside those of other calls.

        Args:
            batch: What to run.
            outputs: Positions in the module's output tuple that are wanted.

        Returns:
            The arrays; what the batch raises reaches this future alone.
        """
        return self._workers.submit(partial(self._forward, batch, tuple(outputs)))

    def _forward(self, batch: Batch, outputs: tuple[int, ...]) -> Outputs:
        with self._torch.inference_mode():
            results = self._module(*(self._torch.from_numpy(array) for array in batch.inputs), outputs=outputs)
        return tuple(result.float().numpy() for result in results)


@contextlib.contextmanager
def _entering(threads: int) -> Iterator[Callable[[], None]]:
    """While workers start: what each does first. What torch gives to other threads stays as it was."""
    import torch

    def enter() -> None:
        torch.get_num_threads()  # torch sets up a thread when it is first asked something, and would undo this:
        torch.set_num_threads(threads)

    before = torch.get_num_threads()
    yield enter
    torch.set_num_threads(before)
