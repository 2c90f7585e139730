"""Smaller checkpoints: fewer layers and pieces, and int8 rows; what stays must compute what it did."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from ecom_rag import CrossEncoder
from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.quantized import PACKED, pack, unpacked
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.training.shrinking import shrink

pytestmark = pytest.mark.slow

TEXTS = ["leather wallet card", "replica watch price", "quick brown fox", "减肥 茶", "case 3.5mm"]
PAIRS = [(query, text) for query in TEXTS for text in TEXTS]


def scores(folder):
    encoder = CrossEncoder.from_pretrained(str(folder), runtime="torch", precision="fp32", device="cpu", max_length=32)
    return encoder.score(PAIRS)


@pytest.fixture(scope="module")
def unigram_reranker(xlmr_reranker, tmp_path_factory):
    """A BERT that reads the pieces of XLM-R, as multilingual E5 does."""
    folder = tmp_path_factory.mktemp("m") / "bert-with-pieces"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((xlmr_reranker / name).read_bytes())
    size = Tokenizer(xlmr_reranker).vocab_size
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=size, num_labels=1, **shape)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("which", ["bert_reranker", "unigram_reranker"])
def test_unused_pieces_change_nothing(which, tmp_path, request):
    source = request.getfixturevalue(which)
    before = Tokenizer(source)
    used = {int(i) for i in before.ids(TEXTS, 32).values}
    shrink(source, tmp_path / "small", TEXTS, layers=(0, 1), vocabulary=before.vocab_size - 1)
    size = Tokenizer(tmp_path / "small").vocab_size
    assert len(used) < size < before.vocab_size
    assert len(load_file(tmp_path / "small" / "model.safetensors")["bert.embeddings.word_embeddings.weight"]) == size
    np.testing.assert_allclose(scores(tmp_path / "small"), scores(source), atol=1e-6)


def test_layers_are_kept_in_the_order_asked_for(bert_reranker, tmp_path):
    shrink(bert_reranker, tmp_path / "one", TEXTS, layers=(1,), vocabulary=1000)
    old, new = (load_file(folder / "model.safetensors") for folder in (bert_reranker, tmp_path / "one"))
    kept = [name for name in new if "encoder.layer." in name]
    assert kept and all(torch.equal(new[name], old[name.replace("layer.0.", "layer.1.")]) for name in kept)
    assert json.loads((tmp_path / "one" / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 1
    assert np.isfinite(scores(tmp_path / "one")).all()


def test_what_cannot_be_shrunk(bert_reranker, xlmr_reranker, tmp_path):
    with pytest.raises(ModelError, match=r"has layers 0 to 1, but \[5\] were asked for"):
        shrink(bert_reranker, tmp_path / "x", TEXTS, layers=(5,), vocabulary=1000)
    with pytest.raises(ModelError, match="cannot hold the"):
        shrink(bert_reranker, tmp_path / "x", TEXTS, layers=(0,), vocabulary=5)
    with pytest.raises(ModelError, match="expected a BERT checkpoint"):
        shrink(xlmr_reranker, tmp_path / "x", TEXTS, layers=(0,), vocabulary=1000)


def test_packing_moves_no_weight_by_more_than_half_a_step(bert_reranker, tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "cache"))
    original = load_file(bert_reranker / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    original[name][3] = 0  # a row without a scale
    folder = tmp_path / "plain"
    folder.mkdir()
    for path in bert_reranker.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(original, folder / "model.safetensors", metadata={"format": "pt"})
    pack(folder, tmp_path / "packed")
    assert (tmp_path / "packed" / PACKED).stat().st_size < 0.4 * (folder / "model.safetensors").stat().st_size
    place = unpacked(tmp_path / "packed")
    assert place == unpacked(tmp_path / "packed")
    found = load_file(place / "model.safetensors")
    assert set(found) == set(original)
    for key, tensor in original.items():
        if tensor.dim() == 2:
            step = tensor.abs().amax(dim=1, keepdim=True) / 127
            assert ((found[key] - tensor).abs() <= step / 2 + 1e-7).all()
        else:
            assert torch.equal(found[key], tensor)
    np.testing.assert_allclose(scores(tmp_path / "packed"), scores(place), atol=0)  # a packed folder is a model too
    (tmp_path / "packed" / PACKED).write_bytes(b"cut short")
    with pytest.raises(ModelError, match="cannot be read"):
        unpacked(tmp_path / "packed")
