"""Torch as it is, on a GPU or a CPU."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ecom_rag.errors import ModelError
from ecom_rag.models.runtimes.batching import Batch, Outputs
from ecom_rag.models.runtimes.placement import Placement

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def dtype_of(precision: str) -> "torch.dtype":
    """Of the weights, for ``fp32``, ``bf16`` or ``fp16``."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


class TorchRuntime:
    """Runs the module itself; on a GPU, a batch that does not fit is halved and the size remembered."""

    def __init__(self, module: "torch.nn.Module", placement: Placement) -> None:
        import torch

        self._torch = torch
        self._module = _moved(module, placement).eval()
        self._device = torch.device(placement.device)
        self._threads = torch.get_num_threads()
        self._fits: int | None = None  # padded tokens, known after the first batch that did not

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """See ``Runtime.run``."""
        for batch in batches:
            waiting = [batch]
            while waiting:
                part = waiting.pop(0)
                size = part.input_ids.size
                if self._fits is not None and size > self._fits and len(part.rows) > 1:
                    waiting = [*part.halves(), *waiting]
                    continue
                try:
                    yield part, self._forward(part, outputs)
                except self._torch.OutOfMemoryError:
                    self._torch.cuda.empty_cache()
                    if len(part.rows) == 1:
                        raise ModelError(
                            f"out of memory on {self._device} with one text of {size} tokens;"
                            " lower `max_length` or use another device"
                        ) from None
                    self._fits = size // 2
                    logger.warning("out of memory on %s: going on with batches of %d tokens", self._device, self._fits)
                    waiting = [*part.halves(), *waiting]

    def _forward(self, batch: Batch, outputs: Sequence[int]) -> Outputs:
        if self._torch.get_num_threads() != self._threads:  # compiled loops change it, and the last bits depend on it
            self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            tensors = [self._torch.from_numpy(array).to(self._device) for array in batch.inputs]
            results = self._module(*tensors, outputs=tuple(outputs))
        return tuple(result.float().cpu().numpy() for result in results)


def _moved(module: "torch.nn.Module", placement: Placement) -> "torch.nn.Module":
    """On its device and in its precision, with the frequencies of rotary positions in float32, as in transformers.

    In bf16 they would be off by up to 0.2 %, and the angles of position 1,000 by more than a radian.
    """
    exact = [
        (part, name, buffer.float())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name.endswith("inv_freq")
    ]
    module = module.to(device=placement.device, dtype=dtype_of(placement.precision))
    for part, name, buffer in exact:
        setattr(part, name, buffer.to(placement.device))
    return module
