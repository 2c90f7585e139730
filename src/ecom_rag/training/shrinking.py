"""A smaller start for a small reranker: some of a BERT's layers, and the part of its vocabulary that is used.

What is left must be trained again, since texts are cut into other pieces and layers meet that never met before; but it
begins from weights that know the language (Sun et al. 2019, arXiv:1908.09355; Sanh et al. 2019, arXiv:1910.01108).
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ecom_rag.errors import ModelError
from ecom_rag.files import disk
from ecom_rag.models.checkpoints.folder import read_json

_LAYER = "encoder.layer."
_WORDS = "embeddings.word_embeddings.weight"


def shrink(source: Path, target: Path, texts: Iterable[str], *, layers: Sequence[int], vocabulary: int) -> None:
    """Write a smaller checkpoint.

    Special tokens and every character of the texts stay, then the pieces that the texts need most.

    Args:
        source: A BERT with ``model.safetensors`` and a ``tokenizer.json`` of WordPiece or Unigram, with or without a
            head.
        target: The new folder.
        texts: What the vocabulary has to serve.
        layers: Which to keep, by number, in their new order.
        vocabulary: Pieces to keep.

    Raises:
        ModelError: Another kind of checkpoint, layers it does not have, or a vocabulary too small for the characters.
    """
    config, tokenizer = read_json(source / "config.json"), read_json(source / "tokenizer.json")
    if config.get("model_type") != "bert" or tokenizer.get("model", {}).get("type") not in ("WordPiece", "Unigram"):
        raise ModelError(f"{source}: expected a BERT checkpoint with a tokenizer.json of WordPiece or Unigram")
    count = int(config["num_hidden_layers"])
    if not layers or not all(0 <= layer < count for layer in layers):
        raise ModelError(f"{source}: has layers 0 to {count - 1}, but {list(layers)} were asked for")
    kept = _kept_pieces(source, tokenizer, texts, vocabulary)
    numbers = {old: new for new, old in enumerate(kept)}

    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name.endswith(_WORDS):
            tensors[name] = tensor[torch.tensor(kept)].contiguous()
        elif _LAYER not in name:
            tensors[name] = tensor
    for new, old in enumerate(layers):
        for name, tensor in load_file(source / "model.safetensors").items():
            before, found, after = name.partition(f"{_LAYER}{old}.")
            if found:
                tensors[f"{before}{_LAYER}{new}.{after}"] = tensor

    target.mkdir(parents=True, exist_ok=True)
    with disk.writing(target):
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    disk.open_to_others(target / "model.safetensors")
    config |= {"num_hidden_layers": len(layers), "vocab_size": len(kept)}
    config["pad_token_id"] = numbers[config.get("pad_token_id") or 0]
    for name, content in (("config.json", config), ("tokenizer.json", _renumbered(tokenizer, numbers))):
        (target / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    if tokenizer["model"]["type"] == "WordPiece":
        by_id = {old: piece for piece, old in _vocabulary(tokenizer).items()}
        (target / "vocab.txt").write_text("".join(f"{by_id[old]}\n" for old in kept), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _kept_pieces(source: Path, tokenizer: dict[str, Any], texts: Iterable[str], vocabulary: int) -> list[int]:
    """Old numbers of the pieces that stay, ascending."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(source / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    uses: Counter[int] = Counter()
    for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False):
        uses.update(encoding.ids)
    vocab = _vocabulary(tokenizer)
    by_id = {number: piece for piece, number in vocab.items()}
    characters = {c for number in uses for c in by_id[number].removeprefix("##")}
    needed = {int(token["id"]) for token in tokenizer["added_tokens"]}
    needed |= {vocab[piece] for c in characters for piece in (c, f"##{c}", f"▁{c}") if piece in vocab}
    if len(needed) > vocabulary:
        raise ModelError(
            f"a vocabulary of {vocabulary} cannot hold the {len(needed)} special tokens and characters of the texts"
        )
    frequent = [number for number, _ in uses.most_common() if number not in needed]
    return sorted(needed | set(frequent[: vocabulary - len(needed)]))


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Number of each piece."""
    vocab = tokenizer["model"]["vocab"]
    return dict(vocab) if isinstance(vocab, dict) else {piece: number for number, (piece, _) in enumerate(vocab)}


def _renumbered(tokenizer: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    """The tokenizer's file with a smaller vocabulary, of new numbers by old ones."""
    ids = {piece: numbers[old] for piece, old in _vocabulary(tokenizer).items() if old in numbers}
    model, after = tokenizer["model"], tokenizer.get("post_processor") or {}
    if "special_tokens" in after:  # a template
        special = {
            piece: entry | {"ids": [ids[piece] for piece in entry["tokens"]]}
            for piece, entry in after["special_tokens"].items()
        }
        after = after | {"special_tokens": special}
    else:
        after = after | {side: [after[side][0], ids[after[side][0]]] for side in ("sep", "cls") if side in after}
    if model["type"] == "Unigram":  # a list of pieces and their log-probabilities
        smaller = {"vocab": [model["vocab"][old] for old in numbers], "unk_id": numbers[model["unk_id"]]}
    else:
        smaller = {"vocab": ids}
    return tokenizer | {
        "model": model | smaller,
        "added_tokens": [token | {"id": ids[token["content"]]} for token in tokenizer["added_tokens"]],
        "post_processor": after or None,
        "truncation": None,
        "padding": None,
    }
