"""A folder's tokenizer: read by transformers once, and from then on out of the cache."""

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ecom_rag.errors import ModelError
from ecom_rag.files import cache
from ecom_rag.models.checkpoints import pieces
from ecom_rag.models.checkpoints.folder import sentence_settings

logger = logging.getLogger(__name__)

_FORM = "5"  # of what is kept in the cache; raise it when the same files give other tokens or facts
_READERS = ("transformers", "tokenizers", "sentencepiece")
_WHOLE, _PIECES = ".tokenizer", ".pieces"  # files beside the facts
_FACTS = {
    "cut_left": bool,
    "pad_id": int,
    "start_id": int,
    "vocab_size": int,
    "uses_token_types": bool,
    "max_length": int,
    "unweighted_ids": list,
    "eos_id": int,
    "single": list,
    "pair": list,
    "pieces": dict,
}


class Engine:
    """What turns texts into ids: sentencepiece where it gives the same, else ``tokenizers``.

    Args:
        read: Gives the tokenizer of ``tokenizers``; called when it is needed.
        model: Sentencepiece's file, where there is one.
        needed: What ``Pieces`` takes besides.
    """

    def __init__(self, read: Callable[[], Any], model: bytes | None, needed: dict[str, str]) -> None:
        self._read, self._reading = read, threading.Lock()
        self._tokenizer: Any = None
        self._pieces = model and pieces.Pieces(model, **needed)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; several threads may call it at once."""
        return self._pieces.ids(texts, self._slow) if self._pieces else self._slow(texts)

    def decoded(self, ids: list[int]) -> str:
        """The text of ids, special tokens written out."""
        return str(self._whole().decode(ids, skip_special_tokens=False))

    def _slow(self, texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self._whole().encode_batch_fast(list(texts), add_special_tokens=False)]

    def _whole(self) -> Any:
        with self._reading:
            if self._tokenizer is None:
                self._tokenizer = self._read()
            return self._tokenizer


def read_tokenizer(folder: Path) -> tuple[Engine, dict[str, Any]]:
    """The tokenizer of a folder, and what has to be known of it.

    Args:
        folder: Where the network and its tokenizer lie.

    Raises:
        ModelError: There is none, or only a slow one, or one without a vocabulary.
    """
    return _from_cache(folder) or _from_checkpoint(folder)


def _from_checkpoint(folder: Path) -> tuple[Engine, dict[str, Any]]:
    """The tokenizer as transformers builds it of the folder's files; kept in the cache."""
    tokenizer = _loaded(folder)
    backend = tokenizer.backend_tokenizer
    facts, whole = _facts(tokenizer, folder), backend.to_str()
    model, facts["pieces"] = pieces.packed(json.loads(whole)) or (None, {})
    place = _cache_place(folder)
    kept = cache.keep(place.with_suffix(_WHOLE), whole)
    kept = kept and (model is None or cache.keep(place.with_suffix(_PIECES), model))
    if kept:
        cache.keep(place, json.dumps(facts))  # last: with it the files are complete
    return Engine(lambda: backend, model, facts["pieces"]), facts


def _loaded(folder: Path) -> Any:
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
    backend = tokenizer.backend_tokenizer
    if sentence_settings(folder).get("do_lower_case"):
        _lower(backend)
    if not backend.get_vocab_size(with_added_tokens=False):
        raise ModelError(
            f"{folder}: its tokenizer has no vocabulary, so that all texts would be the same; expected tokenizer.json"
            " and tokenizer_config.json beside the weights"
        )
    backend.no_truncation()
    backend.no_padding()
    return tokenizer


def _facts(tokenizer: Any, folder: Path) -> dict[str, Any]:
    """What this module has to know of a tokenizer of transformers."""
    start = tokenizer.bos_token_id
    # What FlagEmbedding drops from learned term weights: [SEP] of a BERT is not among them.
    special = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return {
        "cut_left": tokenizer.truncation_side == "left",
        "pad_id": int(tokenizer.pad_token_id or 0),
        "start_id": -1 if start is None or start == tokenizer.pad_token_id else int(start),
        "vocab_size": max(tokenizer.get_vocab().values()) + 1,
        "uses_token_types": "token_type_ids" in tokenizer.model_input_names,
        "max_length": int(tokenizer.model_max_length),
        "unweighted_ids": sorted({int(i) for i in special if i is not None}),
        "eos_id": -1 if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id),
        "single": _layout(folder, tokenizer.backend_tokenizer.encode("a")),
        "pair": _layout(folder, tokenizer.backend_tokenizer.encode("a", "b")),
    }


def _layout(folder: Path, probe: Any) -> list[Any]:
    """What ``Layout.of`` takes."""
    special = np.array(probe.special_tokens_mask, bool)
    ids: list[int] = probe.ids
    plain = np.flatnonzero(~special)
    if not len(plain):
        raise ModelError(
            f"{folder}: its tokenizer finds no token in a text, so that all texts would be the same; copy the"
            " tokenizer's files from the model that it was tuned from"
        )
    first, last = int(plain[0]), int(plain[-1])
    # The run of special tokens strictly between the two texts; empty for a single text.
    inside = [ids[place] for place in range(first, last) if special[place]]
    return [ids[:first], inside, ids[last + 1 :], int(probe.type_ids[last])]


def _from_cache(folder: Path) -> tuple[Engine, dict[str, Any]] | None:
    """What an earlier start kept: importing transformers takes a second, more than encoding a small file."""
    place = _cache_place(folder)
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        if {key: type(value) for key, value in facts.items()} != _FACTS:
            raise ValueError(f"other facts than {', '.join(_FACTS)}")
        if not facts["pieces"]:
            backend = _kept(place)
            return Engine(lambda: backend, None, {}), facts
        model = place.with_suffix(_PIECES).read_bytes()
        return Engine(lambda: _kept_or_loaded(place, folder), model, facts["pieces"]), facts
    except Exception as error:  # tokenizers raises a bare Exception; a damaged cache is made anew
        logger.debug("no tokenizer in the cache (%s)", error)
        return None


def _kept(place: Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(place.with_suffix(_WHOLE)))


def _kept_or_loaded(place: Path, folder: Path) -> Any:
    try:
        return _kept(place)
    except Exception:
        return _loaded(folder).backend_tokenizer


def _lower(backend: Any) -> None:
    """Lower-case texts before all else, unless the tokenizer does, as sentence-transformers under ``do_lower_case``."""
    from tokenizers.normalizers import Lowercase, Sequence

    own: Any = backend.normalizer
    steps: list[Any] = []
    if own is not None:
        steps = [own[i] for i in range(len(own))] if isinstance(own, Sequence) else [own]
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *steps])


def _cache_place(folder: Path) -> Path:
    """Named by what the tokenizer is made of: the folder's own small files, and the libraries' versions."""
    digest = hashlib.sha256(" ".join([_FORM, *map(version, _READERS)]).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model") and "safetensors" not in path.name:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return cache.cache_folder() / "tokenizers" / f"{digest.hexdigest()[:32]}.json"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
