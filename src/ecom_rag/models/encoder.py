"""Texts to embeddings, with bge-m3's three outputs from one pass."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.arguments import (
    PathLike,
    names_of,
    one_of,
    path_of,
    text_of,
    text_or_none,
    texts_of,
    whole_or_none,
)
from ecom_rag.errors import EmbeddingError, ModelError, UsageError
from ecom_rag.models.checkpoints.checkpoint import Checkpoint, encoder_checkpoint
from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.folder import read_config
from ecom_rag.models.checkpoints.locate import hub_name, locate
from ecom_rag.models.checkpoints.tokens import Layout, Tokenizer
from ecom_rag.models.embeddings import OUTPUTS, Embeddings, Ragged
from ecom_rag.models.runtimes import loading
from ecom_rag.models.runtimes.batching import Batch, batches
from ecom_rag.models.runtimes.placement import Placement, choose

logger = logging.getLogger(__name__)

_REMEDY = {"sparse": "sparse_linear.pt", "multivector": "colbert_linear.pt"}


class Encoder:
    """A loaded embedding checkpoint. Make one with ``Encoder.from_pretrained``.

    Attributes:
        checkpoint: What was read and decided about the checkpoint.
        placement: Runtime, precision and device in use.
        fingerprint: Changes with the weights, the pooling and the dimension: embeddings of different fingerprints do
            not belong together.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        runtime: loading.Runtime,
        placement: Placement,
        *,
        fingerprint: str,
        batch_tokens: int,
        truncate_dim: int | None,
    ) -> None:
        self.checkpoint = checkpoint
        self.placement = placement
        self.fingerprint = fingerprint
        self._tokenizer = tokenizer
        self._runtime = runtime
        self._batch_tokens = batch_tokens
        self._truncate_dim = truncate_dim
        heads = ["dense"] + ["sparse"] * checkpoint.has_sparse + ["multivector"] * checkpoint.has_multivector
        self._positions = {name: position for position, name in enumerate(heads)}

    @classmethod
    def from_pretrained(
        cls,
        model: PathLike,
        *,
        runtime: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        batch_tokens: int | None = None,
        max_length: int | None = None,
        pooling: str | None = None,
        query_instruction: str | None = None,
        passage_instruction: str | None = None,
        truncate_dim: int | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            model: Local folder (``str`` or ``Path``), hub id, or ``starter``.
            runtime: ``auto``, ``torch`` or ``openvino``.
            precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            batch_tokens: Budget of padded tokens a batch; by default what suits the device.
            max_length: Tokens a text is cut to, special ones included; by default the checkpoint's, at most 512.
            pooling: ``cls``, ``mean`` or ``last``; by default what the checkpoint says.
            query_instruction: Put before queries; by default what the checkpoint or its family says, ``""`` for none.
            passage_instruction: Put before passages (seeds).
            truncate_dim: Keep only the first dimensions (Matryoshka, Kusupati et al. 2022, arXiv:2205.13147); by
                default as many as the checkpoint says, else all.

        Raises:
            ModelError: The checkpoint cannot be found, read or used.
            UsageError: Options that do not go together.
        """
        model = path_of(model, "model")
        device = text_of(device, "device")
        batch_tokens = whole_or_none(batch_tokens, "batch_tokens")
        truncate_dim = whole_or_none(truncate_dim, "truncate_dim")
        folder = locate(model)
        checkpoint = encoder_checkpoint(
            folder,
            name=hub_name(model),
            pooling=pooling,
            max_length=whole_or_none(max_length, "max_length"),
            query_instruction=text_or_none(query_instruction, "query_instruction"),
            passage_instruction=text_or_none(passage_instruction, "passage_instruction"),
        )
        if truncate_dim is None:
            truncate_dim = checkpoint.truncate_dim
        if truncate_dim is not None and not 1 <= truncate_dim <= checkpoint.dimension:
            raise UsageError(
                f"truncate_dim is {truncate_dim}; expected 1 to {checkpoint.dimension}, as many as {model} has"
            )
        placement = choose(runtime, precision, device, read_config(folder))
        print_of_files = fingerprint(folder)

        def build() -> Any:
            from ecom_rag.models.networks.modules import EncoderNetwork

            return EncoderNetwork(checkpoint, fused=placement.precision if placement.fused else None)

        tokenizer = Tokenizer(folder)
        loaded = loading.load(build, placement, f"{print_of_files}-encoder-{checkpoint.pooling}")
        dimension = f"-{truncate_dim}" if truncate_dim else ""
        return cls(
            checkpoint,
            tokenizer,
            loaded,
            placement,
            fingerprint=f"{print_of_files}-{checkpoint.pooling}{dimension}",
            batch_tokens=batch_tokens or placement.batch_tokens,
            truncate_dim=truncate_dim,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on beside the fingerprint; equal settings give equal numbers."""
        return {
            "runtime": self.placement.runtime,
            "precision": self.placement.precision,
            "device": self.placement.device,
            "batch_tokens": self._batch_tokens,
            "max_length": self.checkpoint.max_length,
            "query_instruction": self.checkpoint.query_instruction,
            "passage_instruction": self.checkpoint.passage_instruction,
        }

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs this checkpoint can give, of ``dense``, ``sparse``, ``multivector``."""
        return tuple(self._positions)

    def __repr__(self) -> str:
        at = self.placement
        return (
            f"Encoder({str(self.checkpoint.folder)!r}, outputs={'+'.join(self.outputs)}, dimension={self.dimension},"
            f" max_length={self.checkpoint.max_length}, {at.runtime} {at.precision} on {at.device})"
        )

    @property
    def dimension(self) -> int:
        """Of a dense embedding."""
        return self._truncate_dim or self.checkpoint.dimension

    def encode(
        self,
        texts: Iterable[str],
        *,
        side: str = "passage",
        outputs: Sequence[str] = ("dense",),
        progress: Callable[[int], None] | None = None,
    ) -> Embeddings:
        """Encode texts; each distinct text is tokenised and encoded once.

        Args:
            texts: Any iterable of strings; an empty one is encoded as its special tokens.
            side: ``query`` or ``passage``: which instruction is put before each text.
            outputs: What to compute, of ``dense``, ``sparse``, ``multivector``.
            progress: Called with the number of texts done, as they get done.

        Returns:
            One row per text, in the order of ``texts``; of no texts arrays of no rows.

        Raises:
            UsageError: A single text in place of several, something that is no text, or an unknown side or output.
            ModelError: An output that this checkpoint has no weights for.
            EmbeddingError: The model gave NaN or infinity.
        """
        texts = texts_of(texts)
        outputs = names_of(outputs, "outputs")
        self.check_outputs(outputs)
        one_of(side, "side", ("query", "passage"))
        if not texts:  # the shapes are those of a text; one that is empty costs next to nothing
            return self.encode([""], side=side, outputs=outputs).take(np.empty(0, np.int64))
        wanted = [name for name in OUTPUTS if name in outputs]
        rows: dict[str, int] = {}
        inverse = np.fromiter((rows.setdefault(text, len(rows)) for text in texts), np.int64, len(texts))
        copies = np.bincount(inverse, minlength=len(rows))
        collect = _Collector(wanted, len(rows), self._tokenizer)
        instruction = self.checkpoint.query_instruction if side == "query" else self.checkpoint.passage_instruction
        ids = self._layout_ids([instruction + text for text in rows] if instruction else list(rows))
        work = batches(ids, pad_id=self._tokenizer.pad_id, token_budget=self._batch_tokens)
        positions = [self._positions[name] for name in wanted]
        for batch, arrays in self._runtime.run(work, positions):
            collect.add(batch, dict(zip(wanted, arrays, strict=True)), self._truncate_dim)
            if progress is not None:
                progress(int(copies[batch.rows].sum()))
        found = collect.finish()
        return found if len(rows) == len(texts) else found.take(inverse)

    def check_outputs(self, outputs: Sequence[str]) -> None:
        """Raise before any work is done if an output cannot be had.

        Args:
            outputs: Of ``dense``, ``sparse``, ``multivector``; at least one.

        Raises:
            ModelError: The checkpoint lacks the head; random weights are never used.
            UsageError: No such output, or none.
        """
        names = names_of(outputs, "outputs")
        if not names:
            raise UsageError(f"outputs is empty; expected some of {', '.join(OUTPUTS)}")
        for name in names:
            if name not in OUTPUTS:
                raise UsageError(f"output {name!r} is unknown; expected one of {', '.join(OUTPUTS)}")
            if name not in self._positions:
                raise ModelError(
                    f"{self.checkpoint.folder}: {_REMEDY[name]} is missing, so it cannot give {name};"
                    " use a bge-m3 checkpoint or --mode dense"
                )

    def _layout_ids(self, texts: list[str]) -> Ragged:
        layout = self._tokenizer.single
        ids = self._tokenizer.ids(texts, self.checkpoint.max_length - layout.special)
        return with_special_tokens(ids, layout)


def with_special_tokens(ids: Ragged, layout: Layout) -> Ragged:
    """Put the single-text layout around each row."""
    before, after = len(layout.prefix), len(layout.suffix)
    offsets = ids.offsets + np.arange(len(ids) + 1) * (before + after)
    values = np.empty(offsets[-1], np.int32)
    starts, ends = offsets[:-1], offsets[1:]
    values[starts[:, None] + np.arange(before)] = layout.prefix
    values[ends[:, None] - after + np.arange(after)] = layout.suffix
    lengths = ids.lengths
    within = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    values[np.repeat(starts + before, lengths) + within] = ids.values
    return Ragged(values, offsets)


class _Collector:
    """Gathers the outputs of batches into whole arrays in the order of the input."""

    def __init__(self, wanted: Sequence[str], count: int, tokenizer: Tokenizer) -> None:
        self._wanted = wanted
        self._count = count
        self._tokenizer = tokenizer
        self._dense: NDArray[np.float32] | None = None
        self._terms: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._vectors: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * count

    def add(self, batch: Batch, arrays: dict[str, NDArray[np.float32]], truncate_dim: int | None) -> None:
        for name, array in arrays.items():
            if not np.isfinite(
                array if name == "dense" else array[batch.attention_mask[:, -array.shape[1] :] > 0]
            ).all():
                raise EmbeddingError(
                    f"the model gave NaN or infinity ({name}) for text {int(batch.rows[0])} or its"
                    " batch; the checkpoint is damaged, or needs --precision fp32"
                )
        if "dense" in arrays:
            dense = _unit(arrays["dense"][:, :truncate_dim])
            if self._dense is None:
                self._dense = np.empty((self._count, dense.shape[1]), np.float32)
            self._dense[batch.rows] = dense
        if "sparse" in arrays:
            self._terms.append(_term_weights(batch, arrays["sparse"], self._tokenizer.unweighted_ids))
        if "multivector" in arrays:
            lengths = batch.attention_mask.sum(axis=1) - 1
            vectors = _unit(arrays["multivector"][..., :truncate_dim])
            for position, row in enumerate(batch.rows):
                self._vectors[row] = vectors[position, : lengths[position]].copy()

    def finish(self) -> Embeddings:
        weights = None
        if "sparse" in self._wanted:
            shape = (self._count, self._tokenizer.vocab_size)
            rows, terms, values = (np.concatenate(part) for part in zip(*self._terms, strict=True))
            weights = csr_matrix((values, (rows, terms)), shape=shape, dtype=np.float32)
            weights.sort_indices()
        multivector = None
        if "multivector" in self._wanted:
            multivector = Ragged.of(self._vectors)
        return Embeddings(self._dense, weights, multivector)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; a zero row stays zero."""
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
    return vectors / np.maximum(norms, 1e-12)[..., None]


def _term_weights(
    batch: Batch, weights: NDArray[np.float32], unweighted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows, term ids and the largest weight of each term in each row; special tokens and zero weights left out."""
    keep = (batch.attention_mask > 0) & (weights > 0) & ~np.isin(batch.input_ids, unweighted)
    position, _ = np.nonzero(keep)
    rows, terms, values = batch.rows[position], batch.input_ids[keep], weights[keep]
    order = np.lexsort((values, terms, rows))
    rows, terms, values = rows[order], terms[order], values[order]
    last = np.ones(len(rows), bool)  # of each run of equal (row, term), the largest value stands last
    last[:-1] = (rows[1:] != rows[:-1]) | (terms[1:] != terms[:-1])
    return rows[last], terms[last], values[last]
