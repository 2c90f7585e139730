"""What an encoder and a cross-encoder have in common: a tokenizer, and a network on its runtime."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.folder import read_config
from ecom_rag.models.checkpoints.size import parameters
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.runtimes import loading
from ecom_rag.models.runtimes.batching import Batch, Outputs, batches, prefixed_batches
from ecom_rag.models.runtimes.memory import check_fits
from ecom_rag.models.runtimes.placement import Placement, choose
from ecom_rag.models.token_ids import TokenIds

if TYPE_CHECKING:
    from torch import nn


@dataclass(slots=True)
class Loaded:
    """A checkpoint that is ready to run.

    Args:
        fingerprint: Of the checkpoint's files.
        tokenizer: Of the checkpoint.
        runtime: The network.
        placement: Where the network runs.
        batch_tokens: Budget of padded tokens per batch.
        prefixed: Whether rows share their first tokens, up to ``second_starts``, with others.
    """

    fingerprint: str
    tokenizer: Tokenizer
    runtime: loading.Runtime
    placement: Placement
    batch_tokens: int
    prefixed: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on beside the files and the length."""
        at = self.placement
        return {
            "runtime": at.runtime,
            "precision": at.precision,
            "device": at.device,
            "batch_tokens": self.batch_tokens,
        }

    def run(
        self, ids: TokenIds, outputs: Sequence[int], progress: Callable[[int], None] | None
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Run each distinct row of token ids once.

        Args:
            ids: What to run.
            outputs: Positions in the network's outputs.
            progress: Called with the number of items done, after each batch.

        Yields:
            Batches, whose rows are those of ``ids.ids``, and their outputs.
        """
        copies = np.bincount(ids.rows, minlength=len(ids.ids))
        budget = self.placement.batch_budget(len(ids.ids.values), self.batch_tokens)
        cut = prefixed_batches if self.prefixed else batches
        work = cut(ids.ids, pad_id=self.tokenizer.pad_id, token_budget=budget, second_starts=ids.second_starts)
        for batch, arrays in self.runtime.run(work, outputs):
            yield batch, arrays
            if progress is not None:
                progress(int(copies[batch.rows].sum()))


def load(
    folder: Path,
    build: "Callable[[Tokenizer, Placement], nn.Module]",
    *,
    kind: str,
    ends_with_eos: bool = False,
    runtime: str,
    precision: str,
    device: str,
    batch_tokens: int | None,
    reranks: bool = False,
    prefixed: bool = False,
    layers: int | None = None,
) -> Loaded:
    """Load a checkpoint's tokenizer, and its network on the runtime that suits it.

    Args:
        folder: The checkpoint.
        build: Makes the network; not called where a converted one is in the cache.
        kind: What ``build`` makes of the checkpoint; names the conversion.
        ends_with_eos: As in ``Tokenizer``.
        runtime: ``auto``, ``torch`` or ``openvino``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_tokens: Budget of padded tokens per batch; by default what suits the device.
        reranks: As in ``choose``.
        prefixed: Whether ``build`` makes a network that takes prefixes.
        layers: How many layers ``build`` loads; ``None`` is all.

    Raises:
        ModelError: The checkpoint cannot be read, or its weights do not fit in memory.
        UsageError: Runtime, precision and device do not go together, or the device is not there.
    """
    config = read_config(folder)
    tokenizer = Tokenizer(folder, ends_with_eos=ends_with_eos)  # first: some are read while torch is imported
    placement = choose(runtime, precision, device, config, reranks=reranks)
    check_fits(folder, parameters(folder, layers=layers), placement)
    files = fingerprint(folder)
    network = loading.load(lambda: build(tokenizer, placement), placement, f"{files}-{kind}")
    return Loaded(files, tokenizer, network, placement, batch_tokens or placement.batch_tokens, prefixed)
