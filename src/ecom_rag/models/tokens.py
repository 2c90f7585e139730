"""Texts to token ids, once per distinct text and without special tokens; single and pair layouts are put on afterwards.

Cutting the ids ourselves gives the same ids as the tokenizer's own truncation, and lets a cross-encoder tokenise each
query and each document once, however many pairs they appear in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import ModelError
from ecom_rag.models.embeddings import Ragged

_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """Where special tokens stand: ``prefix text suffix``, or ``prefix query middle document suffix``."""

    prefix: NDArray[np.int32]
    middle: NDArray[np.int32]
    suffix: NDArray[np.int32]
    document_type: int  # token type id of ``document suffix``

    @property
    def special(self) -> int:
        """Number of special tokens."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


class Tokenizer:
    """A checkpoint's fast tokenizer, reduced to ids.

    Args:
        folder: The checkpoint.

    Raises:
        ModelError: The folder has no tokenizer, or only a slow one.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            raise ModelError(f"{folder}: its tokenizer cannot be loaded ({_first_line(error)}); expected tokenizer.json"
                             " and tokenizer_config.json beside the weights") from None  # fmt: skip
        if not tokenizer.is_fast:
            raise ModelError(
                f"{folder}: has only a slow tokenizer; save a fast one (tokenizer.json) beside the weights"
            )
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._cut_left = tokenizer.truncation_side == "left"
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self.vocab_size = len(tokenizer)
        self.uses_token_types = "token_type_ids" in tokenizer.model_input_names
        self.max_length = int(tokenizer.model_max_length)
        # What FlagEmbedding drops from learned term weights: [SEP] of a BERT is not among them.
        special = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
        self.unweighted_ids = np.array(sorted({int(i) for i in special if i is not None}), np.int64)
        self.single = self._layout(self._backend.encode("a"))
        self.pair = self._layout(self._backend.encode("a", "b"))

    def ids(self, texts: Sequence[str], max_tokens: int) -> Ragged:
        """Token ids of each text, without special tokens, cut to ``max_tokens``.

        Returns:
            Ragged int32, one row a text.
        """
        rows: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            chunk = list(texts[start : start + _TEXTS_AT_ONCE])
            for encoding in self._backend.encode_batch_fast(chunk, add_special_tokens=False):
                ids = encoding.ids
                cut = ids[len(ids) - max_tokens :] if self._cut_left and len(ids) > max_tokens else ids[:max_tokens]
                rows.append(np.array(cut, np.int32))
        joined = Ragged.of(rows)
        return Ragged(joined.values, joined.offsets[1:])

    @staticmethod
    def _layout(probe: Any) -> Layout:
        special = np.array(probe.special_tokens_mask, bool)
        ids = np.array(probe.ids, np.int32)
        plain = np.flatnonzero(~special)
        first, last = int(plain[0]), int(plain[-1])
        # The run of special tokens strictly between the two texts; empty for a single text.
        inside = np.flatnonzero(special[first:last]) + first
        return Layout(ids[:first], ids[inside], ids[last + 1 :], int(probe.type_ids[last]))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
