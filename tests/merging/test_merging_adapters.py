"""Adapters that others trained, merged into their base: peft's own numbers, in the base's files."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ecom_rag import CrossEncoder, Encoder
from ecom_rag.cli import app
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.merging import merge_adapter
from helpers import decoders, prompted, zoo
from helpers.prompted import PAIRS
from helpers.zoo import update

pytestmark = [pytest.mark.slow, pytest.mark.reference]


def adapted(folder, base, auto="AutoModel", **options):
    """An adapter of random weights over a network of transformers, and that network merged by peft."""
    torch.manual_seed(3)
    network = getattr(transformers, auto).from_pretrained(base, dtype=torch.float32)
    asked = {"r": 3, "lora_alpha": 6, "init_lora_weights": False, "target_modules": ["q_proj", "down_proj"], **options}
    model = peft.get_peft_model(network, peft.LoraConfig(**asked))
    model.save_pretrained(folder)
    return model.merge_and_unload()


def least_cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return decoders.make(tmp_path_factory.mktemp("base"), "Qwen3-Embedding-0.6B", "Qwen3")


@pytest.fixture
def answering_base(tmp_path):
    prompted.language_model(tmp_path / "gemma", "Gemma2", prompted.gemma_tokenizer())
    return tmp_path / "gemma"


OPTIONS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "other ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 9}},
    "a whole module": {"modules_to_save": ["norm"]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_the_weights_are_pefts(base, tmp_path, options):
    expected = adapted(tmp_path / "adapter", base, **options).state_dict()
    report = merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    found, start = load_file(tmp_path / "out" / "model.safetensors"), load_file(base / "model.safetensors")
    assert found.keys() == start.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    changed = sum(not torch.equal(found[key], start[key]) for key in found)
    assert 0 < changed <= report["adapter"]["layers"] < len(found)
    assert json.loads((tmp_path / "out" / "merge_report.json").read_text()) == report
    assert sorted(path.name for path in base.glob("*.json")) == sorted(
        path.name for path in (tmp_path / "out").glob("*.json") if path.name != "merge_report.json"
    )


def test_an_embedder_tuned_by_flag_embedding(base, tmp_path):
    """Its decoders are tuned as ``AutoModel``; sentence-transformers reads the merged folder to the same vectors."""
    from sentence_transformers import SentenceTransformer

    adapted(tmp_path / "adapter", base, task_type="FEATURE_EXTRACTION")
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    theirs = SentenceTransformer(str(base), device="cpu")
    theirs.load_adapter(str(tmp_path / "adapter"))
    texts = [text for text in zoo.TEXTS if text]
    ours = Encoder.from_pretrained(tmp_path / "out", precision="fp32").encode(texts).dense
    assert least_cosine(ours, theirs.encode_document(texts, show_progress_bar=False)) > 0.99999
    plain = Encoder.from_pretrained(base, precision="fp32").encode(texts).dense
    assert least_cosine(ours, plain) < 0.999


@pytest.mark.parametrize("auto", ["AutoModelForCausalLM", "AutoModel"])
def test_a_reranker_of_either_class(answering_base, tmp_path, auto):
    """Trained on the whole language model, or on what is below its head."""
    merged = adapted(tmp_path / "adapter", answering_base, auto)
    merge_adapter(answering_base, tmp_path / "adapter", tmp_path / "out")
    whole = transformers.AutoModelForCausalLM.from_pretrained(answering_base, dtype=torch.float32)
    (whole if auto == "AutoModelForCausalLM" else whole.model).load_state_dict(merged.state_dict())
    shutil.copytree(answering_base, tmp_path / "expected")
    whole.save_pretrained(tmp_path / "expected")
    scores = [
        CrossEncoder.from_pretrained(tmp_path / name, precision="fp32", max_length=64).score(PAIRS)
        for name in ("gemma", "expected", "out")
    ]
    np.testing.assert_allclose(scores[1], scores[2], atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 0.1


def test_an_adapter_of_a_language_model_on_the_network_below_its_head(base, tmp_path):
    """The base is stored without a head, the adapter was trained on it with one."""
    whole = adapted(tmp_path / "adapter", base, "AutoModelForCausalLM")
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    found, expected = load_file(tmp_path / "out" / "model.safetensors"), whole.model.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_a_classifier_and_a_pickle_of_tensors(bert_reranker, tmp_path):
    expected = adapted(
        tmp_path / "adapter",
        bert_reranker,
        "AutoModelForSequenceClassification",
        task_type="SEQ_CLS",
        target_modules=["query", "value"],
    ).state_dict()
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("classifier" in key for key in stored)  # peft trains and stores the head
    torch.save(stored, tmp_path / "adapter" / "adapter_model.bin")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    merge_adapter(bert_reranker, tmp_path / "adapter", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_half_precision_stays_half(base, tmp_path):
    shutil.copytree(base, tmp_path / "half")
    stored = {key: value.bfloat16() for key, value in load_file(base / "model.safetensors").items()}
    save_file(stored, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    expected = adapted(tmp_path / "adapter", tmp_path / "half").state_dict()
    merge_adapter(tmp_path / "half", tmp_path / "adapter", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[key], expected[key].bfloat16()) for key in found)  # added in float32, rounded once


def damaged(change):
    def make(folder, base):
        adapted(folder, base)
        path = folder / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)

    return make


def _first(values, key=None):
    return {key or name: value for name, value in list(values.items())[:1]}


def _configured(**keys):
    def make(folder, base):
        adapted(folder, base)
        update(folder / "adapter_config.json", **keys)

    return make


def _other_tokens(folder, base):
    adapted(folder, base)
    decoders._qwen("<|im_end|>", adds_eos=True).save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 999, "content": "<query>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


REFUSED = {
    "no folder": (lambda folder, base: None, "no such folder"),
    "a checkpoint": (lambda folder, base: shutil.copytree(base, folder), "holds no adapter_config.json"),
    "other kind": (_configured(peft_type="PROMPT_TUNING"), "of type PROMPT_TUNING; expected LORA"),
    "other network": (damaged(lambda v: {k.replace("q_proj", "query"): x for k, x in v.items()}), "does not have"),
    "half of it": (damaged(_first), "are not those that its adapter_config.json describes"),
    "other rank": (_configured(r=5), "cannot be loaded as an adapter"),
    "NaN": (damaged(lambda v: {k: torch.full_like(x, torch.nan) for k, x in v.items()}), "NaN"),
    "other tokens": (_other_tokens, "e.g. in the token '<query>'"),
    "no weights": (
        lambda folder, base: (adapted(folder, base), (folder / "adapter_model.safetensors").unlink()),
        "holds no weights",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_merged_is_refused_in_one_line(base, tmp_path, make, message):
    make(tmp_path / "adapter", base)
    with pytest.raises(ModelError, match=message) as caught:
        merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_of_the_head_needs_one_of_its_own(tmp_path, tied):
    shape = {"head_dim": 12, "tie_word_embeddings": tied}
    prompted.language_model(tmp_path / "base", "Qwen2", prompted.qwen_tokenizer(), **shape)
    merged = adapted(tmp_path / "adapter", tmp_path / "base", "AutoModelForCausalLM", target_modules=["lm_head"])
    if tied:
        with pytest.raises(ModelError, match="does not store by itself"):
            merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
        return
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    found, start = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "base"))
    assert [key for key in found if not torch.equal(found[key], start[key])] == ["lm_head.weight"]
    assert torch.equal(found["lm_head.weight"], merged.lm_head.weight)


def test_the_command(base, tmp_path, monkeypatch):
    adapted(tmp_path / "adapter", base)
    words = ["merge", str(base), "--adapter", str(tmp_path / "adapter"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "into 4 layers" in result.output, result.output
    assert "already exists" in str(CliRunner().invoke(app, words).exception)
    other = [*words[:-1], str(tmp_path / "other")]
    for extra, message in (
        (["--method", "slerp"], "with --adapter"),
        (["--base", str(base)], "with --adapter"),
        ([str(base)], "expected the one that it was trained on"),
    ):
        assert message in str(CliRunner().invoke(app, [*other, *extra]).exception)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"\(peft\); install it in the checkout with pip install .*\[train\]"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "other")
