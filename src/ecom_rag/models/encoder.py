"""Texts to embeddings, with bge-m3's three outputs from one pass."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from ecom_rag.arguments import PathLike, flag, names_of, one_of, path_of, text_of, text_or_none, texts_of, whole_or_none
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.checkpoint import Checkpoint, encoder_checkpoint
from ecom_rag.models.checkpoints.locate import hub_name, locate
from ecom_rag.models.collecting import Collector
from ecom_rag.models.embeddings import OUTPUTS, Embeddings
from ecom_rag.models.instructions import Example, examples_of
from ecom_rag.models.loaded import Loaded, load
from ecom_rag.models.runtimes.placement import Placement
from ecom_rag.models.token_ids import TokenIds, of_texts

logger = logging.getLogger(__name__)

_LONG = 2048  # tokens of a text: attention is a fifth of Qwen3-0.6B's arithmetic there, half at four times as many
_REMEDY = {"sparse": "sparse_linear.pt", "multivector": "colbert_linear.pt"}


class Encoder:
    """A loaded embedding checkpoint. Make one with ``Encoder.from_pretrained``.

    Several threads may call ``encode``, ``prepare`` and ``run`` at once. ``encode`` is ``run(prepare(texts))``; a
    service calls the two by themselves, and joins the texts of several requests between them.

    Attributes:
        checkpoint: What was read and decided about the checkpoint.
        placement: Runtime, precision and device in use.
        fingerprint: Changes with the weights, the pooling, the dimension and ``deobfuscate``: embeddings of different
            fingerprints do not belong together.
    """

    def __init__(self, checkpoint: Checkpoint, loaded: Loaded, *, deobfuscate: bool = False) -> None:
        self.checkpoint = checkpoint
        self.placement = loaded.placement
        dimension = f"-{checkpoint.truncate_dim}" if checkpoint.truncate_dim else ""
        eos = "-eos" if loaded.tokenizer.eos_added else ""
        read = "-deobfuscated" if deobfuscate else ""
        self.fingerprint = f"{loaded.fingerprint}{eos}{read}-{checkpoint.pooling}{dimension}"
        self._loaded = loaded
        self._deobfuscate = deobfuscate
        heads = ["dense"] + ["sparse"] * checkpoint.has_sparse + ["multivector"] * checkpoint.has_multivector
        self._positions = {name: position for position, name in enumerate(heads)}
        if checkpoint.max_length > _LONG and self.placement.device == "cpu":
            logger.warning(
                "max length %d: on a CPU, the time of texts beyond %d tokens grows with the square of their length",
                checkpoint.max_length,
                _LONG,
            )

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
        query_task: str | None = None,
        query_examples: Sequence[Example] = (),
        passage_instruction: str | None = None,
        truncate_dim: int | None = None,
        deobfuscate: bool = False,
    ) -> Self:
        """Load a checkpoint.

        Args:
            model: Local folder (``str`` or ``Path``), hub id, or ``starter``.
            runtime: Inference runtime: ``auto``, ``torch`` or ``openvino``.
            precision: Numeric precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
            device: Device of the network: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            batch_tokens: Maximum padded tokens per batch; by default what suits the device.
            max_length: Maximum tokens per text, special ones included; by default the checkpoint's, at most 512.
            pooling: Pooling of the token vectors: ``cls``, ``mean`` or ``last``; by default what the checkpoint says.
            query_instruction: Text put before each query, or around it where it holds ``{text}``; by default the
                checkpoint's or its family's, ``""`` for none.
            query_task: Description of the task in place of a whole instruction, for models tuned on instructions; or
                a name of ``instructions.TASKS``. It is put into the form of the family, or of the folder's own prompts.
            query_examples: In-context examples of the task, for models that read them (bge-en-icl): mappings with
                ``query``, ``response`` and optionally ``instruct``, another task's description.
            passage_instruction: Text put before each passage (seed); by default as for queries, ``""`` for none.
            truncate_dim: Keep only the first dimensions (Matryoshka, Kusupati et al. 2022, arXiv:2205.13147); by
                default as many as the checkpoint says, else all.
            deobfuscate: Read disguised letters (``c@s1no``, ``b.u.l.l.e.t.s``) as what they stand for, in queries and
                passages (see ``deobfuscation``). Texts without any are encoded as before.

        Raises:
            ModelError: The checkpoint cannot be found, read or used.
            UsageError: Options that do not go together.
        """
        model, device = path_of(model, "model"), text_of(device, "device")
        found = encoder_checkpoint(
            locate(model),
            name=hub_name(model),
            pooling=pooling,
            max_length=whole_or_none(max_length, "max_length"),
            query_instruction=text_or_none(query_instruction, "query_instruction"),
            query_task=text_or_none(query_task, "query_task"),
            query_examples=examples_of(query_examples, "query_examples"),
            passage_instruction=text_or_none(passage_instruction, "passage_instruction"),
        )
        checkpoint = _truncated(found, whole_or_none(truncate_dim, "truncate_dim"), model)
        loaded = load(
            checkpoint.folder,
            lambda _, placement: _network(checkpoint, placement),
            kind=f"encoder-{checkpoint.pooling}",
            ends_with_eos=checkpoint.ends_with_eos,
            runtime=runtime,
            precision=precision,
            device=device,
            batch_tokens=whole_or_none(batch_tokens, "batch_tokens"),
        )
        return cls(checkpoint, loaded, deobfuscate=flag(deobfuscate, "deobfuscate"))

    @property
    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on beside the fingerprint; equal settings give equal numbers."""
        return {
            **self._loaded.settings,
            "max_length": self.checkpoint.max_length,
            "query_instruction": self.checkpoint.query_instruction,
            "passage_instruction": self.checkpoint.passage_instruction,
            **({"deobfuscate": True} if self._deobfuscate else {}),  # absent in what was made before there was a choice
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
        return self.checkpoint.truncate_dim or self.checkpoint.dimension

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
            texts: Any iterable of strings; an empty one is encoded as its special tokens, or as padding.
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
        outputs = names_of(outputs, "outputs")
        self.check_outputs(outputs)
        return self.run(self.prepare(texts, side=side), outputs=outputs, progress=progress)

    def prepare(self, texts: Iterable[str], *, side: str = "passage") -> TokenIds:
        """Tokenise texts, each distinct one once; the first half of ``encode``.

        Args:
            texts: Any iterable of strings; an empty one is its special tokens, or padding.
            side: ``query`` or ``passage``: which instruction is put before each text.

        Returns:
            What ``run`` takes; it tells the tokens of each text, and whether the text was cut.

        Raises:
            UsageError: A single text in place of several, something that is no text, or an unknown side.
        """
        tokenizer, texts = self._loaded.tokenizer, texts_of(texts)
        one_of(side, "side", ("query", "passage"))
        at = self.checkpoint
        instruction = at.query_instruction if side == "query" else at.passage_instruction
        if self._deobfuscate:
            from ecom_rag.models.deobfuscation import deobfuscated

            texts = deobfuscated(list(texts), tokenizer)
        return of_texts(tokenizer, texts, at.max_length, instruction=instruction, model=self.fingerprint)

    def run(
        self,
        ids: TokenIds,
        *,
        outputs: Sequence[str] = ("dense",),
        progress: Callable[[int], None] | None = None,
    ) -> Embeddings:
        """Run the network over prepared texts; the second half of ``encode``.

        Args:
            ids: What ``prepare`` gave, or several of them joined by ``TokenIds.concatenate``.
            outputs: As in ``encode``.
            progress: As in ``encode``.

        Returns:
            One row per text, in their order; of no texts arrays of no rows.

        Raises:
            UsageError: An unknown output, or token ids of another model.
            ModelError: An output that this checkpoint has no weights for.
            EmbeddingError: The model gave NaN or infinity.
        """
        outputs = names_of(outputs, "outputs")
        self.check_outputs(outputs)
        ids.check_of(self.fingerprint)
        if not len(ids):  # the shapes are those of a text; one that is empty costs next to nothing
            return self.run(self.prepare([""]), outputs=outputs).take(np.empty(0, np.int64))
        wanted = [name for name in OUTPUTS if name in outputs]
        collect = Collector(wanted, len(ids.ids), self._loaded.tokenizer)
        for batch, arrays in self._loaded.run(ids, [self._positions[name] for name in wanted], progress):
            collect.add(batch, dict(zip(wanted, arrays, strict=True)), self.checkpoint.truncate_dim)
        found = collect.finish()
        return found if np.array_equal(ids.rows, np.arange(len(found))) else found.take(ids.rows)

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
            raise UsageError(f"`outputs` is empty; expected some of {', '.join(OUTPUTS)}")
        for name in names:
            if name not in OUTPUTS:
                raise UsageError(f"output {name!r} is unknown; expected one of {', '.join(OUTPUTS)}")
            if name not in self._positions:
                raise ModelError(
                    f"{self.checkpoint.folder}: {_REMEDY[name]} is missing, so it cannot give {name};"
                    " use a bge-m3 checkpoint, or dense alone"
                )


def _truncated(checkpoint: Checkpoint, asked: int | None, model: str) -> Checkpoint:
    """The checkpoint with the dimensions that are asked for, else with as many as its files say."""
    found = checkpoint.truncate_dim if asked is None else asked
    if found is not None and not 1 <= found <= checkpoint.dimension:
        raise UsageError(f"`truncate_dim` is {found}; expected 1 to {checkpoint.dimension}, as many as {model} has")
    return replace(checkpoint, truncate_dim=found)


def _network(checkpoint: Checkpoint, placement: Placement) -> Any:
    from ecom_rag.models.networks.modules import EncoderNetwork
    from ecom_rag.models.runtimes.eager import dtype_of

    if placement.fused:
        return EncoderNetwork(checkpoint, fused=placement.precision)
    return EncoderNetwork(
        checkpoint, dtype=dtype_of("fp32" if placement.runtime == "openvino" else placement.precision)
    )
