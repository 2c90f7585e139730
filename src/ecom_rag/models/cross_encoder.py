"""Pairs of query and document to relevance, with each distinct text tokenised once."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import PathLike, flag, pairs_of, path_of, text_of, whole, whole_or_none
from ecom_rag.errors import EmbeddingError, ModelError
from ecom_rag.models.checkpoints.checkpoint import check_no_prompt, position_limit
from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.folder import read_config
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.embeddings import Ragged
from ecom_rag.models.runtimes import loading
from ecom_rag.models.runtimes.batching import batches
from ecom_rag.models.runtimes.placement import Placement, choose


class CrossEncoder:
    """A loaded reranker: bge-reranker-base, -large, -v2-m3, or any sequence classifier with one logit.

    Attributes:
        folder: Where the checkpoint lies.
        placement: Runtime, precision and device in use.
        fingerprint: Changes with the weights.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer,
        runtime: loading.Runtime,
        placement: Placement,
        *,
        fingerprint: str,
        batch_tokens: int,
        max_length: int,
    ) -> None:
        self.folder = folder
        self.placement = placement
        self.fingerprint = fingerprint
        self._tokenizer = tokenizer
        self._runtime = runtime
        self._batch_tokens = batch_tokens
        self._max_length = max_length

    @classmethod
    def from_pretrained(
        cls,
        model: PathLike,
        *,
        runtime: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        batch_tokens: int | None = None,
        max_length: int = 512,
    ) -> Self:
        """Load a checkpoint.

        Args:
            model: Local folder (``str`` or ``Path``), hub id, or ``starter``.
            runtime: ``auto``, ``torch`` or ``openvino``.
            precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            batch_tokens: Budget of padded tokens a batch; by default what suits the device.
            max_length: Tokens of a pair, special ones included; of the query at most three quarters of it are kept.

        Raises:
            ModelError: The checkpoint cannot be found, read, or does not give one logit.
            UsageError: An option of the wrong kind.
        """
        model, device = path_of(model, "model"), text_of(device, "device")
        batch_tokens, max_length = whole_or_none(batch_tokens, "batch_tokens"), whole(max_length, "max_length")
        folder = locate(model, reranker=True)
        check_no_prompt(folder)
        config = read_config(folder)
        labels = len(config.get("id2label") or {}) or int(config.get("num_labels", 2))
        architectures = config.get("architectures") or []
        if not any("SequenceClassification" in name for name in architectures) or labels != 1:
            found = f"{', '.join(architectures) or 'no architecture'}, {labels} labels"
            raise ModelError(
                f"{model}: is not a reranker (found {found}); expected a sequence classifier with one"
                " logit, such as BAAI/bge-reranker-v2-m3"
            )
        limit = position_limit(config)
        if not 32 <= max_length <= limit:
            raise ModelError(
                f"{model}: max length {max_length} is outside what this checkpoint can read; expected 32 to {limit}"
            )
        placement = choose(runtime, precision, device, config)
        tokenizer = Tokenizer(folder)
        print_of_files = fingerprint(folder)

        def build() -> Any:
            from ecom_rag.models.networks import modules

            types = tokenizer.uses_token_types
            if placement.fused:
                return modules.FusedCrossEncoderNetwork(folder, uses_token_types=types, precision=placement.precision)
            return modules.CrossEncoderNetwork(folder, uses_token_types=types)

        return cls(
            folder,
            tokenizer,
            loading.load(build, placement, f"{print_of_files}-cross"),
            placement,
            fingerprint=print_of_files,
            batch_tokens=batch_tokens or placement.batch_tokens,
            max_length=max_length,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on beside the fingerprint; equal settings give equal numbers."""
        return {
            "runtime": self.placement.runtime,
            "precision": self.placement.precision,
            "device": self.placement.device,
            "batch_tokens": self._batch_tokens,
            "max_length": self._max_length,
        }

    def __repr__(self) -> str:
        at = self.placement
        return (
            f"CrossEncoder({str(self.folder)!r}, max_length={self._max_length},"
            f" {at.runtime} {at.precision} on {at.device})"
        )

    def score(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        normalize: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Relevance of documents to queries; each distinct pair is scored once.

        Args:
            pairs: Any iterable of ``(query, document)``.
            normalize: Put the logits through a sigmoid.
            progress: Called with the number of pairs done, as they get done.

        Returns:
            ``(pairs,)`` float32 logits (any real), or in 0..1 with ``normalize``; higher is more relevant.

        Raises:
            UsageError: A single pair in place of several, or something that is no pair of texts.
            EmbeddingError: The model gave NaN or infinity.
        """
        pairs, normalize = pairs_of(pairs), flag(normalize, "normalize")
        distinct: dict[tuple[str, str], int] = {}
        inverse = np.fromiter(
            (distinct.setdefault((query, document), len(distinct)) for query, document in pairs), np.int64, len(pairs)
        )
        copies = np.bincount(inverse, minlength=len(distinct))
        ids, second_starts = self._pair_ids(list(distinct))
        scores = np.empty(len(distinct), np.float32)
        starts = second_starts if self._tokenizer.uses_token_types else None
        work = batches(ids, pad_id=self._tokenizer.pad_id, token_budget=self._batch_tokens, second_starts=starts)
        for batch, (logits,) in self._runtime.run(work, [0]):
            scores[batch.rows] = logits
            if progress is not None:
                progress(int(copies[batch.rows].sum()))
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise EmbeddingError(
                f"the reranker gave NaN or infinity for pair {first}; the checkpoint is damaged,"
                " or needs --precision fp32"
            )
        if normalize:
            scores = (1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32)
        return scores[inverse]

    def _pair_ids(self, pairs: list[tuple[str, str]]) -> tuple[Ragged, NDArray[np.int64]]:
        """Token ids of each pair with special tokens, and where the second text's token types begin."""
        layout, single = self._tokenizer.pair, self._tokenizer.single
        room = self._max_length - layout.special
        queries, query_rows = self._distinct_ids([query for query, _ in pairs], self._max_length * 3 // 4)
        documents, document_rows = self._distinct_ids([document for _, document in pairs], self._max_length)
        rows, starts = [], []
        for query_row, document_row in zip(query_rows, document_rows, strict=True):
            query = queries[query_row][:room]
            if len(documents[document_row]) == 0:  # as FlagEmbedding 1.4.2: nothing to pair with, a single text
                rows.append(np.concatenate([single.prefix, query, single.suffix]))
                starts.append(len(rows[-1]))
                continue
            document = documents[document_row][: room - len(query)]
            rows.append(np.concatenate([layout.prefix, query, layout.middle, document, layout.suffix]))
            starts.append(len(layout.prefix) + len(query) + len(layout.middle))
        if not rows:
            return Ragged(np.empty(0, np.int32), np.zeros(1, np.int64)), np.empty(0, np.int64)
        second = np.array(starts, np.int64)
        if layout.document_type == 0:  # token types exist, but the tokenizer gives 0 throughout
            second[:] = np.iinfo(np.int64).max
        return Ragged.of(rows), second

    def _distinct_ids(self, texts: list[str], max_tokens: int) -> tuple[Ragged, NDArray[np.int64]]:
        distinct: dict[str, int] = {}
        rows = np.fromiter((distinct.setdefault(text, len(distinct)) for text in texts), np.int64, len(texts))
        return self._tokenizer.ids(list(distinct), max_tokens), rows
