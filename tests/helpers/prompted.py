"""Tiny rerankers that are language models, in the layouts of their hub folders: random weights, true architectures."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ecom_rag.models.prompts import BGE, QWEN3
from helpers.zoo import noisy, update

QUERIES = [
    "红色连衣裙 女 夏季",
    "iPhone 15 手机壳?",
    "VX123 加微信",
    "cheap pills",
    "one long query after another " * 12,
]
DOCUMENTS = [
    "夏季新款红色碎花连衣裙 显瘦",
    "Apple iPhone 15 Pro Max Case SHOCKPROOF",
    "",
    " 高仿包包 原单",
    "\nbuy now",
    "加微信私下转账便宜 VX123 " * 9,
    "a",
]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_position_embeddings": 1024,
}
_TRAINED_ON = [*QUERIES, *DOCUMENTS, BGE.instruction, *QWEN3.start, *QWEN3.end, "Yes No yes no A: B: \n"] * 3
# How GPT-4's and Qwen's tokenizers split a text before they merge bytes.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Bytes that are merged, with Qwen's special tokens, and no token for the beginning."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(_TRAINED_ON, trainer)
    inner.add_tokens(["<think>", "</think>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<|endoftext|>", eos_token="<|im_end|>", model_max_length=1024
    )


def gemma_tokenizer(*, dummy_space: bool = False, side: str = "right") -> transformers.PreTrainedTokenizerFast:
    """As sentencepiece: spaces are letters, unknown ones bytes; Llama's puts a space before each text."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    steps: list[Any] = [normalizers.Prepend("▁")] if dummy_space else []
    inner.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner.train_from_iterator(_TRAINED_ON, trainers.BpeTrainer(vocab_size=480, special_tokens=special))
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side=side,
        model_max_length=1024,
    )


def language_model(folder: Path, kind: str, tokenizer: Any, **config: object) -> Any:
    """A causal language model of transformers with its tokenizer; returns the network."""
    tokenizer.save_pretrained(folder)
    built = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **{**SIZES, **config})
    network = noisy(getattr(transformers, f"{kind}ForCausalLM")(built))
    network.save_pretrained(folder)
    return network


CHAT = (
    QWEN3.start[0]
    + "<Instruct>: {{ messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | first }}\n"
    "<Query>: "
    "{{ messages | selectattr('role', 'equalto', 'query') | map(attribute='content') | first }}\n<Document>: "
    "{{ messages | selectattr('role', 'equalto', 'document') | map(attribute='content') | first }}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)


def answering(parent: Path) -> Path:
    """Qwen3-Reranker as sentence-transformers saves it: Transformer and LogitScore, with an instruction of its own."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = CHAT
    language_model(parent / "plain", "Qwen3", tokenizer)
    words = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(word) for name, word in (("true", "yes"), ("false", "no"))
    }
    kwargs = {"chat_template": {"add_generation_prompt": True}}
    first = Transformer(str(parent / "plain"), transformer_task="text-generation", processing_kwargs=kwargs)
    prompts = {"prompts": {"task": "找出同类违规商品"}, "default_prompt_name": "task"}
    CrossEncoder(modules=[first, LogitScore(**words)], **prompts, device="cpu").save_pretrained(
        str(parent / "answering")
    )
    return parent / "answering"


def _own(folder: Path, tokenizer: Any, model_type: str, architecture: str, network: Any, **config: object) -> None:
    """A folder whose architecture the hub describes by code of its own: weights, config.json, tokenizer."""
    tokenizer.save_pretrained(folder)
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    code = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    common = {**SIZES, "vocab_size": len(tokenizer), "rms_norm_eps": 1e-6, "auto_map": code}
    update(folder / "config.json", model_type=model_type, architectures=[architecture], **{**common, **config})


class _Heads(torch.nn.Module):
    """A decoder, and a linear head for the hidden states after each exit layer."""

    def __init__(self, decoder: torch.nn.Module, width: int, exits: int) -> None:
        super().__init__()
        self.model = decoder
        self.lm_head = torch.nn.ModuleList(torch.nn.ModuleDict() for _ in range(exits))
        for head in self.lm_head:
            head["linear_head"] = torch.nn.Linear(width, 1, bias=False)


LAYERWISE = {"scale_emb": 12, "dim_model_base": 16, "scale_depth": 1.4, "start_layer": 2, "head_type": "simple"}


def layerwise(folder: Path, **config: object) -> Any:
    """As bge-reranker-v2-minicpm-layerwise: MiniCPM (a Llama with scales) with heads from layer 2 of 5 on."""
    tokenizer = gemma_tokenizer(dummy_space=True)
    sizes = {**SIZES, "num_hidden_layers": 5, "head_dim": 12, "vocab_size": len(tokenizer)}
    network = noisy(_Heads(transformers.LlamaModel(transformers.LlamaConfig(**sizes)), 48, 4))
    own = {"num_hidden_layers": 5, "head_dim": 12, "rope_theta": 10000.0, **LAYERWISE, **config}
    _own(folder, tokenizer, "minicpm", "LayerWiseMiniCPMForCausalLM", network, **own)
    return network


def lightweight(folder: Path, **config: object) -> Any:
    """As bge-reranker-v2.5-gemma2-lightweight: Gemma 2 with heads from layer 2 of 6 on."""
    tokenizer = gemma_tokenizer()
    sizes = {**SIZES, "num_hidden_layers": 6, "query_pre_attn_scalar": 24, "vocab_size": len(tokenizer)}
    network = noisy(_Heads(transformers.Gemma2Model(transformers.Gemma2Config(**sizes)), 48, 5))
    own = {"num_hidden_layers": 6, "query_pre_attn_scalar": 24, "start_layer": 2, "layer_sep": 1, "layer_wise": True}
    _own(folder, tokenizer, "cost_wise_gemma", "CostWiseGemmaForCausalLM", network, **{**own, **config})
    return network


def card_probabilities(
    folder: Path, pairs: list[tuple[str, str]], *, max_length: int, instruction: str
) -> tuple[Any, Any]:
    """The model card of Qwen3-Reranker-0.6B, written out: ``process_inputs`` and ``compute_logits``."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prefix, suffix = (tokenizer.encode(text, add_special_tokens=False) for text in (QWEN3.start[0], QWEN3.end[0]))
    texts = [f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}" for query, document in pairs]
    room = max_length - len(prefix) - len(suffix)
    cut = tokenizer(texts, truncation="longest_first", return_attention_mask=False, max_length=room)["input_ids"]
    rows = tokenizer.pad({"input_ids": [prefix + ids + suffix for ids in cut]}, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = network(**rows).logits[:, -1, :]
    no, yes = (logits[:, tokenizer.convert_tokens_to_ids(word)] for word in ("no", "yes"))
    chances = torch.nn.functional.log_softmax(torch.stack([no, yes], dim=1), dim=1)[:, 1].exp()
    return chances.numpy(), (yes - no).numpy()


def flag_ids(
    folder: Path, copy: Path, pairs: list[tuple[str, str]], *, max_length: int, prompt: str | None = None
) -> tuple[list[list[int]], list[int], int]:
    """Token ids of pairs by FlagEmbedding's own data set, the tokens before each document, and those of the end.

    Args:
        folder: The checkpoint.
        copy: A folder for its tokenizer alone: of the rest, the data set would ask for the code that it names.
        pairs: Query and document each.
        max_length: As FlagEmbedding's.
        prompt: By default FlagEmbedding's own.
    """
    from FlagEmbedding.inference.reranker.decoder_only.base import DatasetForReranker

    copy.mkdir(exist_ok=True)
    for path in folder.glob("tokenizer*"):
        (copy / path.name).write_bytes(path.read_bytes())
    tokenizer = transformers.AutoTokenizer.from_pretrained(copy)

    def cut(texts: list[str], most: int) -> list[dict[str, list[int]]]:
        ids = tokenizer(texts, add_special_tokens=False, max_length=most, truncation=True)["input_ids"]
        return [{"input_ids": row} for row in ids]

    queries = cut([f"A: {query}" for query, _ in pairs], max_length * 3 // 4)
    documents = cut([f"B: {document}" for _, document in pairs], max_length)
    data = DatasetForReranker(queries, documents, str(copy), max_length, prompt=prompt)
    start = tokenizer.bos_token_id is not None and tokenizer.bos_token_id != tokenizer.pad_token_id
    before = [int(start) + len(query["input_ids"]) + len(data.sep_inputs) for query in queries]
    return [data[row]["input_ids"] for row in range(len(pairs))], before, len(data.sep_inputs + data.prompt_inputs)
