"""The three ways to run a network over batches, behind one protocol, and the choice among them.

All are given the same ``torch.nn.Module`` whose ``forward(input_ids, attention_mask[, token_type_ids])`` returns a
tuple of tensors, and all answer ``run(batches, outputs)`` with float32 arrays, in order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ecom_rag.models.runtimes.batching import Batch, Outputs
from ecom_rag.models.runtimes.eager import TorchRuntime
from ecom_rag.models.runtimes.fused import FusedRuntime
from ecom_rag.models.runtimes.openvino import OpenVinoRuntime
from ecom_rag.models.runtimes.placement import Placement

if TYPE_CHECKING:
    import torch


class Runtime(Protocol):
    """A loaded network."""

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """Run batches.

        Args:
            batches: What to run; consumed lazily.
            outputs: Positions in the module's output tuple that are wanted.

        Yields:
            ``(batch, arrays)``; a batch may come back in parts, each with its own rows.
        """
        ...


def load(build: "Callable[[], torch.nn.Module]", placement: Placement, cache_key: str) -> Runtime:
    """Load a network on its runtime.

    Args:
        build: Makes the module with its weights; not called where a converted model is in the cache.
        placement: Where to run it.
        cache_key: Names the conversion: the checkpoint's fingerprint and what was built on it.
    """
    if placement.runtime == "torch":
        return FusedRuntime(build()) if placement.fused else TorchRuntime(build(), placement)
    return OpenVinoRuntime(build, placement, cache_key)
