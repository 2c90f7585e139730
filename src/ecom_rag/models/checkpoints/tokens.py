"""Texts to token ids, once per distinct text and without special tokens; single and pair layouts are put on afterwards.

Cutting the ids ourselves gives the same ids as the tokenizer's own truncation, and lets a cross-encoder tokenise each
query and each document once, however many pairs they appear in.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import ModelError
from ecom_rag.files import cache
from ecom_rag.models.checkpoints.folder import network_folder, read_config, sentence_settings
from ecom_rag.models.embeddings import Ragged

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 1024
_FORM = "4"  # of what is kept in the cache; raise it when the same files give other tokens or facts
_FACTS = {
    "cut_left": bool,
    "pad_id": int,
    "start_id": int,
    "vocab_size": int,
    "uses_token_types": bool,
    "max_length": int,
    "unweighted_ids": list,
    "eos_id": int,
}


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
        ends_with_eos: Put the EOS token behind single texts if the tokenizer itself puts no special token there.

    Raises:
        ModelError: The folder has no tokenizer, or only a slow one, or one with more tokens than the network; or an
            EOS token is wanted and it has none.
    """

    def __init__(self, folder: Path, *, ends_with_eos: bool = False) -> None:
        network = network_folder(folder)
        backend, facts = _from_cache(network) or _from_checkpoint(network)
        _check_size(folder, facts["vocab_size"])
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        self._cut_left = facts["cut_left"]
        self.pad_id: int = facts["pad_id"]
        self.start_id: int = facts["start_id"]  # -1 where there is none, or it is the one to pad with
        self.vocab_size: int = facts["vocab_size"]
        self.uses_token_types: bool = facts["uses_token_types"]
        self.max_length: int = facts["max_length"]
        self.unweighted_ids = np.array(facts["unweighted_ids"], np.int64)
        self.single = self._layout(folder, self._backend.encode("a"))
        self.pair = self._layout(folder, self._backend.encode("a", "b"))
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
            for encoding in self._backend.encode_batch_fast(chunk, add_special_tokens=False):
                ids = encoding.ids
                cut = ids[len(ids) - max_tokens :] if self._cut_left and len(ids) > max_tokens else ids[:max_tokens]
                rows.append(np.array(cut, np.int32))
                whole.append(len(ids))
        joined = Ragged.of(rows)
        return Ragged(joined.values, joined.offsets[1:]), (np.array(whole, np.int64) - joined.lengths)[1:]

    def decoded(self, ids: Ragged) -> list[str]:
        """The texts of rows of token ids, special tokens written out."""
        return [self._backend.decode(ids[row].tolist(), skip_special_tokens=False) for row in range(len(ids))]

    @staticmethod
    def _layout(folder: Path, probe: Any) -> Layout:
        special = np.array(probe.special_tokens_mask, bool)
        ids = np.array(probe.ids, np.int32)
        plain = np.flatnonzero(~special)
        if not len(plain):
            raise ModelError(
                f"{folder}: its tokenizer finds no token in a text, so that all texts would be the same; copy the"
                " tokenizer's files from the model that it was tuned from"
            )
        first, last = int(plain[0]), int(plain[-1])
        # The run of special tokens strictly between the two texts; empty for a single text.
        inside = np.flatnonzero(special[first:last]) + first
        return Layout(ids[:first], ids[inside], ids[last + 1 :], int(probe.type_ids[last]))


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


def _from_checkpoint(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The tokenizer as transformers builds it of the folder's files; kept in the cache."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise ModelError(
            f"{folder}: its tokenizer cannot be loaded ({_first_line(error)}); expected tokenizer.json and"
            " tokenizer_config.json beside the weights"
        ) from None
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: has only a slow tokenizer; save a fast one (tokenizer.json) beside the weights")
    if sentence_settings(folder).get("do_lower_case"):
        _lower(tokenizer.backend_tokenizer)
    if not tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False):
        raise ModelError(
            f"{folder}: its tokenizer has no vocabulary, so that all texts would be the same; expected tokenizer.json"
            " and tokenizer_config.json beside the weights"
        )
    start = tokenizer.bos_token_id
    # What FlagEmbedding drops from learned term weights: [SEP] of a BERT is not among them.
    special = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    facts = {
        "cut_left": tokenizer.truncation_side == "left",
        "pad_id": int(tokenizer.pad_token_id or 0),
        "start_id": -1 if start is None or start == tokenizer.pad_token_id else int(start),
        "vocab_size": max(tokenizer.get_vocab().values()) + 1,
        "uses_token_types": "token_type_ids" in tokenizer.model_input_names,
        "max_length": int(tokenizer.model_max_length),
        "unweighted_ids": sorted({int(i) for i in special if i is not None}),
        "eos_id": -1 if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id),
    }
    place = _cache_place(folder)
    if cache.keep(place.with_suffix(".tokenizer"), tokenizer.backend_tokenizer.to_str()):
        cache.keep(place, json.dumps(facts))  # last: with it the pair is complete
    return tokenizer.backend_tokenizer, facts


def _from_cache(folder: Path) -> tuple[Any, dict[str, Any]] | None:
    """What an earlier start kept: importing transformers takes a second, more than encoding a small file."""
    import tokenizers

    place = _cache_place(folder)
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        if {key: type(value) for key, value in facts.items()} != _FACTS:
            raise ValueError(f"other facts than {', '.join(_FACTS)}")
        return tokenizers.Tokenizer.from_file(str(place.with_suffix(".tokenizer"))), facts
    except Exception as error:  # tokenizers raises a bare Exception; a damaged cache is made anew
        logger.debug("no tokenizer in the cache (%s)", error)
        return None


def _lower(backend: Any) -> None:
    """Lower-case texts before all else, unless the tokenizer does, as sentence-transformers under ``do_lower_case``."""
    from tokenizers.normalizers import Lowercase, Sequence

    own: Any = backend.normalizer
    steps: list[Any] = []
    if own is not None:
        steps = [own[i] for i in range(len(own))] if isinstance(own, Sequence) else [own]
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *steps])


def _check_size(folder: Path, size: int) -> None:
    """Refuse a tokenizer that gives ids beyond the embedding table."""
    rows = read_config(folder).get("vocab_size")
    if rows is not None and size > rows:
        raise ModelError(
            f"{folder}: its tokenizer has tokens up to number {size - 1}, but the embedding table only {rows} rows;"
            " resize the table (transformers' resize_token_embeddings) and train the new rows, or take the added tokens"
            " out of the tokenizer"
        )


def _cache_place(folder: Path) -> Path:
    """Named by what the tokenizer is made of: the folder's own small files, and the libraries' versions."""
    digest = hashlib.sha256(f"{_FORM} {version('transformers')} {version('tokenizers')}".encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model") and "safetensors" not in path.name:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return cache.cache_folder() / "tokenizers" / f"{digest.hexdigest()[:32]}.json"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
