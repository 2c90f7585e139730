"""Tiny checkpoints of the decoders that are encoders, with byte-level and sentencepiece tokenizers."""

import json
from pathlib import Path

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from helpers import zoo

_CORPUS = [
    *zoo.TEXTS,
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: \n\n",
    "<instruct>Given a product listing, retrieve judged listings that break the same rule in the same way\n<query>",
] * 3
_EOT, _IM_END = "<|endoftext|>", "<|im_end|>"
SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def _qwen(eos: str, *, adds_eos: bool) -> transformers.PreTrainedTokenizerFast:
    """Byte-level; Qwen3-Embedding's puts ``<|endoftext|>`` behind texts, though its EOS token is another."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[_EOT, _IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_CORPUS, trainer)
    level = processors.ByteLevel(trim_offsets=False)
    ending = processors.TemplateProcessing(
        single=f"$A {_EOT}", pair=f"$A {_EOT} $B {_EOT}", special_tokens=[(_EOT, inner.token_to_id(_EOT))]
    )
    inner.post_processor = processors.Sequence([level, ending]) if adds_eos else level
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=eos, pad_token=_EOT, padding_side="left"
    )


def _sentencepiece(
    bos: str, eos: str, extra: tuple[str, ...] = (), *, adds_eos: bool
) -> transformers.PreTrainedTokenizerFast:
    """As Mistral's and Gemma's: spaces as pieces, bytes for what has no piece, BOS before and EOS behind texts."""
    special = ["<pad>", eos, bos, "<unk>", "<mask>"] if bos == "<bos>" else ["<unk>", bos, eos]
    inner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    inner.train_from_iterator((text.replace("\n", "") for text in _CORPUS), trainer)
    state = json.loads(inner.to_str())  # bytes are pieces, none of them is special
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    inner = Tokenizer.from_str(json.dumps(state))
    inner.add_tokens([AddedToken(token, normalized=False) for token in extra])
    end = f" {eos}" if adds_eos else ""
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A{end}",
        pair=f"{bos} $A{end} {bos}:1 $B:1{end}",
        special_tokens=[(token, inner.token_to_id(token)) for token in (bos, eos)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>",
        pad_token=special[0] if bos == "<bos>" else eos,
        padding_side="left",
    )


def _tokenizer(kind: str, name: str, *, adds_eos: bool) -> transformers.PreTrainedTokenizerFast:
    if kind.startswith("Qwen"):
        return _qwen(_IM_END if kind == "Qwen3" else _EOT, adds_eos=adds_eos)
    if kind == "Gemma2":
        return _sentencepiece("<bos>", "<eos>", adds_eos=adds_eos)
    extra = ("<instruct>", "<query>", "<response>") if "icl" in name else ()
    return _sentencepiece("<s>", "</s>", extra, adds_eos=adds_eos)


_CLASSES = {
    "Qwen2": "Qwen2Tokenizer",
    "Qwen3": "Qwen2Tokenizer",
    "Mistral": "LlamaTokenizer",
    "Gemma2": "GemmaTokenizer",
}


def make(parent: Path, name: str, kind: str, *, adds_eos: bool = True, told: bool = False, **config: object) -> Path:
    """A folder named as on the hub, with sentence-transformers' files.

    Args:
        parent: Where it is made.
        name: Of the folder.
        kind: ``Qwen2``, ``Qwen3``, ``Mistral`` or ``Gemma2``.
        adds_eos: Whether tokenizer.json puts the EOS token behind texts.
        told: Whether the tokenizer's configuration asks for it.
        config: More of the network's configuration.
    """
    folder = parent / name
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(kind, name, adds_eos=adds_eos)
    tokenizer.model_max_length = 2048
    tokenizer.save_pretrained(folder)
    flags = {"add_bos_token": True, "add_eos_token": True} if told else {}
    zoo.update(folder / "tokenizer_config.json", tokenizer_class=_CLASSES[kind], **flags)
    shape = {**SHAPE, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **config}
    if kind != "Qwen2":
        shape["head_dim"] = 16
    if kind == "Gemma2":
        shape["query_pre_attn_scalar"] = 16
    built = getattr(transformers, f"{kind}Config")(**shape)
    zoo.noisy(getattr(transformers, f"{kind}Model")(built)).save_pretrained(folder)
    zoo.settings(folder, "last")
    zoo.update(folder / "sentence_bert_config.json", max_seq_length=2048)
    return folder
