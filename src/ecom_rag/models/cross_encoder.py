"""Pairs of query and document to relevance, with each distinct text tokenised once."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import PathLike, flag, pairs_of, path_of, text_of, whole, whole_or_none
from ecom_rag.errors import EmbeddingError, ModelError, UsageError
from ecom_rag.models.checkpoints.checkpoint import check_no_prompt, position_limit
from ecom_rag.models.checkpoints.folder import read_config
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.loaded import Loaded, load
from ecom_rag.models.prompted import ARCHITECTURES, Asked, Prompted, prompted
from ecom_rag.models.prompts import of_prompted_pairs
from ecom_rag.models.runtimes.eager import dtype_of
from ecom_rag.models.runtimes.placement import Placement
from ecom_rag.models.token_ids import TokenIds, of_pairs


class CrossEncoder:
    """A loaded reranker: a sequence classifier with one logit, or a language model that answers a prompt.

    The first are bge-reranker-base, -large, -v2-m3 and others; the second bge-reranker-v2-gemma, -v2-minicpm-layerwise,
    -v2.5-gemma2-lightweight and Qwen3-Reranker. In a prompt the query stands before the document, and what comes before
    the document runs once for all documents of a query that are in one batch.

    Several threads may call ``score``, ``prepare`` and ``run`` at once. ``score`` is ``run(prepare(pairs))``; a service
    calls the two by themselves, and joins the pairs of several requests between them.

    Attributes:
        folder: Where the checkpoint lies.
        placement: Runtime, precision and device in use.
        fingerprint: Changes with the weights, and with all that is asked of a language model (prompt, layers).
    """

    def __init__(self, folder: Path, loaded: Loaded, *, max_length: int, prompted: Prompted | None = None) -> None:
        self.folder = folder
        self.placement = loaded.placement
        self.fingerprint = loaded.fingerprint + ("" if prompted is None else f"-{prompted.digest}")
        self._loaded = loaded
        self._max_length = max_length
        self._prompted = prompted
        self._frame = None if prompted is None else prompted.frame(loaded.tokenizer, max_length)

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
        template: str = "auto",
        instruction: str | None = None,
        exit_layer: int | None = None,
        compress_ratio: int | None = None,
        compress_layers: Sequence[int] | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            model: Local folder (``str`` or ``Path``), hub id, or ``starter``.
            runtime: Inference runtime: ``auto``, ``torch`` or ``openvino``.
            precision: Numeric precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
            device: Device of the network: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            batch_tokens: Maximum padded tokens per batch; by default what suits the device.
            max_length: Maximum tokens per pair, special ones included; the query keeps at most three quarters of them.
                The prompt ``qwen3`` counts too; of ``bge``, as in FlagEmbedding, what follows the document does not.
            template: Prompt of a language model: ``auto`` (by its architecture), ``bge`` or ``qwen3``.
            instruction: What the prompt asks of query and document; by default what the model was trained with.
            exit_layer: Layer after which the score is read, of a layerwise or lightweight reranker; by default all.
            compress_ratio: Neighbouring tokens of a document that a lightweight reranker merges: 1, 2, 4 or 8.
            compress_layers: Layers before which it does, counted from 0; by default 8.

        Raises:
            ModelError: The checkpoint cannot be found, read, or does not give one logit.
            UsageError: An option of the wrong kind.
        """
        model, device = path_of(model, "model"), text_of(device, "device")
        batch_tokens, max_length = whole_or_none(batch_tokens, "batch_tokens"), whole(max_length, "max_length")
        asked = Asked(template, instruction, exit_layer, compress_ratio, compress_layers)
        folder = locate(model, reranker=True)
        found = prompted(folder, model, asked)
        if found is None:
            _check(folder, model, max_length)
        elif runtime == "openvino":
            raise UsageError(f"`runtime` openvino does not run language models ({model}); take torch")
        loaded = load(
            folder,
            _building(folder, found, max_length),
            kind="cross",
            runtime=runtime,
            precision=precision,
            device=device,
            batch_tokens=batch_tokens,
            reranks=True,
            prefixed=found is not None,
            layers=None if found is None else found.exit_layer,
        )
        return cls(folder, loaded, max_length=max_length, prompted=found)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on beside the fingerprint; equal settings give equal numbers."""
        own = {} if self._prompted is None else self._prompted.settings
        return {**self._loaded.settings, "max_length": self._max_length, **own}

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
        normalize = flag(normalize, "normalize")
        return self.run(self.prepare(pairs), normalize=normalize, progress=progress)

    def prepare(self, pairs: Iterable[tuple[str, str]]) -> TokenIds:
        """Tokenise pairs, each distinct text once; the first half of ``score``.

        Args:
            pairs: Any iterable of ``(query, document)``.

        Returns:
            What ``run`` takes; it tells the tokens of each pair, and whether the pair was cut.

        Raises:
            UsageError: A single pair in place of several, or something that is no pair of texts.
        """
        tokenizer, checked = self._loaded.tokenizer, pairs_of(pairs)
        if self._frame is None:
            return of_pairs(tokenizer, checked, self._max_length, model=self.fingerprint)
        return of_prompted_pairs(tokenizer, checked, self._frame, model=self.fingerprint)

    def run(
        self, ids: TokenIds, *, normalize: bool = False, progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Run the network over prepared pairs; the second half of ``score``.

        Args:
            ids: What ``prepare`` gave, or several of them joined by ``TokenIds.concatenate``.
            normalize: Give the sigmoid of the logit, as ``score`` does.
            progress: Called with the number of pairs done.

        Returns:
            As ``score``.

        Raises:
            UsageError: Token ids of another model.
            EmbeddingError: The model gave NaN or infinity.
        """
        normalize = flag(normalize, "normalize")
        ids.check_of(self.fingerprint)
        scores = np.empty(len(ids.ids), np.float32)
        for batch, (logits,) in self._loaded.run(ids, [0], progress):
            scores[batch.rows] = logits
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise EmbeddingError(
                f"the reranker gave NaN or infinity for pair {first}; the checkpoint is damaged,"
                " or needs `precision` fp32"
            )
        if normalize:
            scores = sigmoid(scores)
        return scores[ids.rows]


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits as a relevance in 0..1.

    Args:
        logits: Any shape.
    """
    return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def _check(folder: Path, model: str, max_length: int) -> None:
    """Refuse what is not a reranker, or cannot read pairs of this length."""
    check_no_prompt(folder)
    config = read_config(folder)
    labels = len(config.get("id2label") or {}) or int(config.get("num_labels", 2))
    architectures = config.get("architectures") or []
    if not any("SequenceClassification" in name for name in architectures) or labels != 1:
        found = f"{', '.join(architectures) or 'no architecture'}, {labels} labels"
        raise ModelError(
            f"{model}: is not a reranker (found {found}); expected a sequence classifier with one logit, such as"
            f" BAAI/bge-reranker-v2-m3, or a language model: {', '.join(ARCHITECTURES)}"
        )
    limit = position_limit(config)
    if not 32 <= max_length <= limit:
        raise ModelError(
            f"{model}: max length {max_length} is outside what this checkpoint can read; expected 32 to {limit}"
        )


def _building(folder: Path, found: Prompted | None, max_length: int) -> Callable[[Tokenizer, Placement], Any]:
    """What makes the network of a checkpoint."""
    if found is None:
        return partial(_network, folder)
    return lambda tokenizer, placement: found.network(
        tokenizer, found.frame(tokenizer, max_length), dtype_of(placement.precision)
    )


def _network(folder: Path, tokenizer: Tokenizer, placement: Placement) -> Any:
    from ecom_rag.models.networks.modules import CrossEncoderNetwork, FusedCrossEncoderNetwork

    types = tokenizer.uses_token_types
    if placement.fused:
        return FusedCrossEncoderNetwork(folder, uses_token_types=types, precision=placement.precision)
    dtype = dtype_of("fp32" if placement.runtime == "openvino" else placement.precision)
    return CrossEncoderNetwork(folder, uses_token_types=types, dtype=dtype)
