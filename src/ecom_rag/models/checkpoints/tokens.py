"""Texts to token ids, once per distinct text and without special tokens; single and pair layouts are put on afterwards.

Cutting the ids ourselves gives the same ids as the tokenizer's own truncation, and lets a cross-encoder tokenise each
query and each document once, however many pairs they appear in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.folder import network_folder, read_config
from ecom_rag.models.checkpoints.tokenizer_cache import read_tokenizer
from ecom_rag.models.embeddings import Ragged

_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """Where special tokens stand: ``prefix text suffix``, or ``prefix query middle document suffix``."""

    prefix: NDArray[np.int32]
    middle: NDArray[np.int32]
    suffix: NDArray[np.int32]
    document_type: int  # token type id of ``document suffix``

    @classmethod
    def of(cls, facts: list[Any]) -> "Layout":
        """The layout of what ``read_tokenizer`` tells: the ids of prefix, middle and suffix, and the type."""
        prefix, middle, suffix = (np.array(ids, np.int32) for ids in facts[:3])
        return cls(prefix, middle, suffix, facts[3])

    @property
    def special(self) -> int:
        """Number of special tokens."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


class Tokenizer:
    """A checkpoint's fast tokenizer, reduced to ids.

    Args:
        folder: The checkpoint.
        ends_with_eos: Put the EOS token behind single texts if the tokenizer itself puts no special token there.

    Raises:
        ModelError: The folder has no tokenizer, or only a slow one, or one with more tokens than the network; or an
            EOS token is wanted and it has none.
    """

    def __init__(self, folder: Path, *, ends_with_eos: bool = False) -> None:
        network = network_folder(folder)
        self._engine, facts = read_tokenizer(network)
        _check_size(folder, facts["vocab_size"])
        self._cut_left = facts["cut_left"]
        self.pad_id: int = facts["pad_id"]
        self.start_id: int = facts["start_id"]  # -1 where there is none, or it is the one to pad with
        self.vocab_size: int = facts["vocab_size"]
        self.uses_token_types: bool = facts["uses_token_types"]
        self.max_length: int = facts["max_length"]
        self.unweighted_ids = np.array(facts["unweighted_ids"], np.int64)
        self.single, self.pair = Layout.of(facts["single"]), Layout.of(facts["pair"])
        self.eos_added = ends_with_eos and not len(self.single.suffix)
        if self.eos_added:
            self.single = replace(self.single, suffix=_eos(folder, facts["eos_id"]))
        if self.uses_token_types and self.single.document_type != 0:
            raise ModelError(
                f"{folder}: its tokenizer gives single texts token type {self.single.document_type}; expected 0, which"
                " is all that is supported"
            )

    def ids(self, texts: Sequence[str], max_tokens: int) -> Ragged:
        """Token ids of each text, without special tokens, cut to ``max_tokens``.

        Returns:
            Ragged int32, one row per text.
        """
        return self.cut_ids(texts, max_tokens)[0]

    def cut_ids(self, texts: Sequence[str], max_tokens: int) -> tuple[Ragged, NDArray[np.int64]]:
        """As ``ids``, with what was cut off; several threads may call it at once.

        Returns:
            Ragged int32 with one row per text, and ``(texts,)`` the tokens of each that did not fit.
        """
        rows: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        whole: list[int] = [0]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            chunk = list(texts[start : start + _TEXTS_AT_ONCE])
            for ids in self._engine.ids(chunk):
                cut = ids[len(ids) - max_tokens :] if self._cut_left and len(ids) > max_tokens else ids[:max_tokens]
                rows.append(np.array(cut, np.int32))
                whole.append(len(ids))
        joined = Ragged.of(rows)
        return Ragged(joined.values, joined.offsets[1:]), (np.array(whole, np.int64) - joined.lengths)[1:]

    def decoded(self, ids: Ragged) -> list[str]:
        """The texts of rows of token ids, special tokens written out."""
        return [self._engine.decoded(ids[row].tolist()) for row in range(len(ids))]


def end_with_eos(tokenizer: Any) -> None:
    """Have a tokenizer put its EOS token behind texts, and be saved so, unless it puts a special token there.

    Args:
        tokenizer: Of transformers, with an EOS token.
    """
    from tokenizers.processors import TemplateProcessing

    probe = tokenizer.backend_tokenizer.encode("a")
    if probe.special_tokens_mask[-1]:
        return
    before = probe.tokens[: probe.special_tokens_mask.index(0)]
    single = " ".join([*before, "$A", tokenizer.eos_token])
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in (*before, tokenizer.eos_token)}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, pair=f"{single} {single.replace('$A', '$B')}", special_tokens=list(special.items())
    )


def _eos(folder: Path, eos_id: int) -> NDArray[np.int32]:
    if eos_id < 0:
        raise ModelError(
            f"{folder}: its texts end with the EOS token, but its tokenizer names none; set eos_token in"
            " tokenizer_config.json"
        )
    return np.array([eos_id], np.int32)


def _check_size(folder: Path, size: int) -> None:
    """Refuse a tokenizer that gives ids beyond the embedding table."""
    rows = read_config(folder).get("vocab_size")
    if rows is not None and size > rows:
        raise ModelError(
            f"{folder}: its tokenizer has tokens up to number {size - 1}, but the embedding table only {rows} rows;"
            " resize the table (transformers' resize_token_embeddings) and train the new rows, or take the added tokens"
            " out of the tokenizer"
        )
