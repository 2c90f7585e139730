"""Rerankers that are language models: the numbers of FlagEmbedding 1.4.2 and of the model cards."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers

from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models import CrossEncoder, Encoder, TokenIds
from ecom_rag.models.cross_encoder import sigmoid
from ecom_rag.models.prompts import QWEN3
from helpers import prompted
from helpers.prompted import PAIRS, card_probabilities, flag_ids, gemma_tokenizer, language_model, qwen_tokenizer
from helpers.zoo import modules, save, update, weights, write

pytestmark = [pytest.mark.slow, pytest.mark.reference]

LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PLAIN = {
    "gemma": ("Gemma", lambda: gemma_tokenizer(side="left"), {}),
    "gemma2": ("Gemma2", gemma_tokenizer, {"sliding_window": 24, "query_pre_attn_scalar": 24}),
    "llama": ("Llama", lambda: gemma_tokenizer(dummy_space=True), {"head_dim": 12, "attention_bias": True}),
    "llama3": ("Llama", gemma_tokenizer, {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64}}),
    "mistral": ("Mistral", lambda: gemma_tokenizer(dummy_space=True, side="left"), {"sliding_window": 75}),
    "qwen2": ("Qwen2", qwen_tokenizer, {}),
    "qwen3": ("Qwen3", qwen_tokenizer, {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders by name, each made once."""
    found = {}

    def make(name):
        if name not in found:
            found[name] = tmp_path_factory.mktemp("decoders") / name
            if name in PLAIN:
                kind, tokenizer, config = PLAIN[name]
                sizes = {} if "head_dim" in config or kind != "Qwen2" else {"head_dim": 12}
                language_model(found[name], kind, tokenizer(), **{**sizes, **config})
            else:
                getattr(prompted, name)(found[name])
        return found[name]

    return make


def loaded(folder, *, precision="fp32", max_length=64, **options):
    return CrossEncoder.from_pretrained(folder, precision=precision, max_length=max_length, **options)


def check_rough(rough, exact, flag_rough):
    """Bf16 is as close to fp32 as FlagEmbedding's bf16 is, whose rounding is another."""
    ours, theirs = (np.abs(np.array(scores) - exact) for scores in (rough, flag_rough))
    print(f"bf16: mean {ours.mean():.4f}, Flag {theirs.mean():.4f}; largest {ours.max():.4f}, Flag {theirs.max():.4f}")
    assert ours.mean() <= 1.5 * theirs.mean() and np.corrcoef(rough, exact)[0, 1] > 0.98


@pytest.mark.parametrize("name", PLAIN)
def test_the_logit_of_yes_equals_flag_llm_reranker(made, name):
    from FlagEmbedding import FlagLLMReranker

    folder = made(name)
    flag = FlagLLMReranker(str(folder), use_fp16=False, devices="cpu", max_length=32, batch_size=8)
    theirs = np.array(flag.compute_score(PAIRS))
    ours = loaded(folder, max_length=32, template="bge")
    assert ours.prepare(PAIRS).truncated.any() and np.ptp(theirs) > 0.5
    np.testing.assert_allclose(ours.score(PAIRS), theirs, atol=1e-4)
    np.testing.assert_allclose(ours.score(PAIRS, normalize=True), flag.compute_score(PAIRS, normalize=True), atol=1e-4)
    flag_rough = FlagLLMReranker(str(folder), use_bf16=True, devices="cpu", max_length=32).compute_score(PAIRS)
    rough = loaded(folder, precision="bf16", max_length=32, template="bge").score(PAIRS)
    check_rough(rough, theirs, flag_rough)
    asked = "Does B break the law that A names?"
    own = loaded(folder, max_length=32, template="bge", instruction=asked)
    np.testing.assert_allclose(own.score(PAIRS[:9]), flag.compute_score(PAIRS[:9], prompt=asked), atol=1e-4)


@pytest.mark.parametrize("instruction", [QWEN3.instruction, "找出违反同一条规则的商品"])
def test_yes_against_no_equals_the_card_of_qwen3_reranker(made, instruction):
    folder = made("qwen3")
    pairs = [pair for pair in PAIRS if len(pair[0]) < 40]  # the card cuts documents only; its query fills the room
    chances, differences = card_probabilities(folder, pairs, max_length=170, instruction=instruction)
    ours = loaded(folder, max_length=170, instruction=instruction)
    assert ours.prepare(pairs).truncated.any() and np.ptp(differences) > 0.5
    np.testing.assert_allclose(ours.score(pairs), differences, atol=1e-4)
    np.testing.assert_allclose(ours.score(pairs, normalize=True), chances, atol=1e-5)
    rough = loaded(folder, precision="bf16", max_length=170, instruction=instruction).score(pairs)
    assert np.corrcoef(rough, differences)[0, 1] > 0.98


def test_a_folder_of_sentence_transformers_gives_its_scores(tmp_path, caplog):
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    folder = prompted.answering(tmp_path)
    reference = TheirCrossEncoder(str(folder), device="cpu")
    pairs = [(query, document) for query, document in PAIRS if document.strip() == document != ""][:18]
    theirs = reference.predict(pairs, activation_fn=torch.nn.Identity())
    ours = loaded(folder, max_length=512)
    np.testing.assert_allclose(ours.score(pairs), theirs, atol=1e-4)
    assert ours.settings["instruction"] == "找出同类违规商品"
    assert not [record for record in caplog.records if record.name.startswith("ecom_rag")]
    update(folder / "1_LogitScore/config.json", false_token_id=None)
    assert "no other prompt is supported" in refused(folder, max_length=512)
    with pytest.raises(ModelError, match="is a reranker"):
        Encoder.from_pretrained(folder)
    update(folder / "sentence_bert_config.json", transformer_task="sequence-classification")
    assert "does not fit the modules" in refused(folder, max_length=512)


@pytest.mark.parametrize("exit_layer", [2, 3, 5, None])
def test_layerwise_equals_the_layers_of_flag_embedding(made, tmp_path, exit_layer):
    """Its model does not load on transformers 5; its layers do, and are put together here as its ``forward`` does."""
    from FlagEmbedding.inference.reranker.decoder_only.models import modeling_minicpm_reranker as minicpm

    folder = made("layerwise")
    network = prompted.layerwise(tmp_path / "again")  # the same weights
    given = json.loads((folder / "config.json").read_text())
    extra = {"attention_dropout": 0.0, "attention_bias": False, "pretraining_tp": 1, "rope_scaling": None}
    config = transformers.PreTrainedConfig()
    for key, value in {**given, **extra, "hidden_act": "silu", "_attn_implementation_internal": "eager"}.items():
        if key not in ("architectures", "model_type", "auto_map"):
            setattr(config, key, value)
    config.rope_scaling = None
    layers = [minicpm.MiniCPMDecoderLayer(config, number) for number in range(5)]
    for own, layer in zip(network.model.layers, layers, strict=True):
        found = layer.load_state_dict(own.state_dict(), strict=False)
        assert found.unexpected_keys == [] and all("rotary" in key for key in found.missing_keys)
    norm = minicpm.MiniCPMRMSNorm(48, eps=1e-6)
    norm.load_state_dict(network.model.norm.state_dict())
    rows, _, _ = flag_ids(folder, tmp_path / "ids", PAIRS, max_length=40)
    theirs = []
    with torch.inference_mode():
        for row in rows:
            x = network.model.embed_tokens(torch.tensor([row])) * given["scale_emb"]
            mask = torch.full((len(row), len(row)), -torch.inf).triu(1)[None, None]
            for layer in layers[: exit_layer or 5]:
                x = layer(x, attention_mask=mask, position_ids=torch.arange(len(row))[None])[0]
            head = network.lm_head[(exit_layer or 5) - given["start_layer"]]["linear_head"]
            theirs.append(float(head(norm(x[0, -1]))[0]))
    assert np.ptp(theirs) > 0.1
    np.testing.assert_allclose(loaded(folder, max_length=40, exit_layer=exit_layer).score(PAIRS), theirs, atol=1e-4)
    rough = loaded(folder, max_length=40, exit_layer=exit_layer, precision="bf16").score(PAIRS)
    assert np.corrcoef(rough, theirs)[0, 1] > 0.98


@pytest.mark.parametrize(("exit_layer", "ratio", "at"), [(None, 1, None), (3, 1, None), (5, 2, (2, 4)), (6, 8, (3,))])
def test_lightweight_equals_flag_embeddings_formula(made, tmp_path, exit_layer, ratio, at):
    """Its model asks transformers 4 for layers; its ``token_compress`` runs, between the layers of transformers 5."""
    from FlagEmbedding.inference.reranker.decoder_only.models.gemma_model import token_compress
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RotaryEmbedding

    folder = made("lightweight")
    network = prompted.lightweight(tmp_path / "again")
    rotary, width = Gemma2RotaryEmbedding(network.model.config), network.model.config.hidden_size
    network.model.config._attn_implementation = "eager"
    prompt = "Predict whether passage B contains an answer to query A."
    rows, query_lengths, tail = flag_ids(folder, tmp_path / "ids", PAIRS, max_length=40, prompt=prompt)
    theirs = []
    with torch.inference_mode():
        for row, query_length in zip(rows, query_lengths, strict=True):
            x = network.model.embed_tokens(torch.tensor([row]))  # Gemma's embedding has its factor
            for number, layer in enumerate(network.model.layers[: exit_layer or 6]):
                if number in (at or ()) and ratio > 1:
                    full = torch.ones(1, x.shape[1], dtype=torch.long)
                    x, _ = token_compress(ratio, x, full, torch.tensor([query_length]), torch.tensor([tail]))
                places = torch.arange(x.shape[1])[None]
                mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)[None, None]
                x = layer(x, position_embeddings=rotary(x, places), attention_mask=mask)
            logit = network.lm_head[0]["linear_head"](network.model.norm(x[0, -1]))[0]
            theirs.append(float(torch.tanh(logit / 30.0) * 30.0))
    assert np.ptp(theirs) > 0.1 and width == 48
    options = {"exit_layer": exit_layer, "compress_ratio": ratio, "compress_layers": at}
    np.testing.assert_allclose(loaded(folder, max_length=40, **options).score(PAIRS), theirs, atol=1e-4)


@pytest.mark.parametrize("name", [*PLAIN, "layerwise", "lightweight"])
def test_sharing_order_and_batches_change_nothing(made, name):
    options = {"compress_ratio": 2, "compress_layers": (2,)} if name == "lightweight" else {}
    encoder = loaded(made(name), max_length=170, **options)
    ids = encoder.prepare(PAIRS)
    whole = encoder.run(ids)
    # Without sharing: one token before each row. Compression needs to know the query, so each pair runs alone.
    apart = dataclasses.replace(ids, second_starts=np.ones_like(ids.second_starts))
    unshared = [encoder.score([pair])[0] for pair in PAIRS] if name == "lightweight" else encoder.run(apart)
    np.testing.assert_allclose(whole, unshared, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(PAIRS))
    np.testing.assert_allclose(encoder.score([PAIRS[row] for row in order]), whole[order], atol=1e-5)
    parts = TokenIds.concatenate([encoder.prepare(PAIRS[:3]), encoder.prepare(PAIRS[3:])])
    np.testing.assert_allclose(encoder.run(parts), whole, atol=1e-5)
    small = loaded(made(name), max_length=170, batch_tokens=1, **options)
    np.testing.assert_allclose(small.score(PAIRS), whole, atol=1e-5)
    np.testing.assert_array_equal(encoder.score(PAIRS), whole)
    assert len(encoder.score([])) == 0


def test_each_query_runs_once_per_batch(made, monkeypatch):
    """50 documents of one query: the query's tokens are counted once, not 50 times."""
    from ecom_rag.models.networks.decoder import Decoder

    encoder = loaded(made("qwen3"), max_length=256)
    pairs = [("cheap pills", f"item {number} 原单") for number in range(50)]
    counted = []
    embed = Decoder.embed
    monkeypatch.setattr(Decoder, "embed", lambda self, ids: counted.append(len(ids)) or embed(self, ids))
    ids = encoder.prepare(pairs)
    encoder.run(ids)
    prefix = int(ids.second_starts[0])
    assert counted == [prefix + int(ids.tokens.sum()) - 50 * prefix]


def refused(folder, *, kind=ModelError, **options):
    with pytest.raises(kind) as error:
        CrossEncoder.from_pretrained(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_read_is_refused(made, tmp_path, bert_reranker, bge_folder):
    qwen, gemma = made("qwen3"), made("gemma")
    assert "language model" in refused(bge_folder)
    assert "at least 32" in refused(qwen, max_length=64)
    assert "at most 1024" in refused(gemma, max_length=1024)
    assert "openvino" in refused(qwen, kind=UsageError, runtime="openvino")
    assert "int8" in refused(qwen, kind=UsageError, precision="int8")
    assert "heads for layers 2 to 5" in refused(made("layerwise"), kind=UsageError, exit_layer=1)
    assert "heads for layers 2 to 6" in refused(made("lightweight"), kind=UsageError, exit_layer=7)
    assert "no heads for earlier layers" in refused(gemma, kind=UsageError, exit_layer=2)
    assert "`compress_ratio` has no effect" in refused(gemma, kind=UsageError, compress_ratio=2)
    assert "expected one of 1, 2, 4, 8" in refused(made("lightweight"), kind=UsageError, compress_ratio=3)
    late = {"compress_ratio": 2, "exit_layer": 3, "compress_layers": [3, 4]}
    assert "no layer of 3, 4 runs before the exit layer 3" in refused(made("lightweight"), kind=UsageError, **late)
    assert "no layer of 8 runs" in refused(made("lightweight"), kind=UsageError, compress_ratio=2)
    assert "`compress_layers` has no effect" in refused(made("lightweight"), kind=UsageError, compress_layers=[2])
    assert "no language model" in refused(bert_reranker, kind=UsageError, exit_layer=2)
    assert "one of auto, bge, qwen3" in refused(qwen, kind=UsageError, template="chatml")


def test_folders_of_other_kinds_are_refused(tmp_path):
    def made(name, **config):
        language_model(tmp_path / name, "Qwen3", qwen_tokenizer())
        update(tmp_path / name / "config.json", **config)
        return tmp_path / name

    embedder = made("embedder")
    write(embedder / "modules.json", modules("Transformer", "Pooling"))
    write(embedder / "1_Pooling/config.json", {"pooling_mode_lasttoken": True})
    assert "is an encoder" in refused(embedder)
    prompted.lightweight(tmp_path / "lightweight")
    with pytest.raises(ModelError, match=r"is a reranker \(CostWiseGemmaForCausalLM\), not an encoder"):
        Encoder.from_pretrained(tmp_path / "lightweight")
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert "'dynamic'" in refused(made("dynamic", rope_parameters=rope), max_length=256)
    assert "lack tensors (e.g. layers.3" in refused(
        made("short", num_hidden_layers=4, layer_types=None), max_length=256
    )
    assert "does not have" in refused(made("long", num_hidden_layers=2, layer_types=None), max_length=256)
    assert "its own code" in refused(made("code", auto_map={"AutoModel": "own.Net"}))
    norm = weights(
        lambda found: {name: value for name, value in found.items() if "layers.1.self_attn.q_norm" not in name}
    )
    norm(made("normless"))
    assert "lack tensors (e.g. layers.1.self_attn.q_norm" in refused(tmp_path / "normless", max_length=256)
    bias = weights(lambda found: {**found, "model.layers.0.self_attn.q_proj.bias": torch.ones(64)})
    bias(made("biased"))
    assert "does not have (e.g. layers.0.self_attn.q_proj.bias" in refused(tmp_path / "biased", max_length=256)
    prompted.layerwise(tmp_path / "complex", head_type="complex")
    assert "do not give one score" in refused(tmp_path / "complex")
    save(tmp_path / "lm", "Bert", "ForMaskedLM")
    assert "is not a reranker (found BertForMaskedLM" in refused(tmp_path / "lm")


def test_a_note_says_which_prompt_was_chosen(made, caplog):
    loaded(made("gemma"))
    [told] = [record.getMessage() for record in caplog.records if "prompt" in record.getMessage()]
    assert told.startswith("gemma: its files do not say in which prompt it reads; read as bge")
    caplog.clear()
    loaded(made("gemma"), template="bge")
    loaded(made("layerwise"))
    assert not [record for record in caplog.records if "prompt" in record.getMessage()]


def test_settings_tell_what_the_numbers_depend_on(made):
    first, second = (loaded(made("layerwise"), exit_layer=layer).settings for layer in (3, 4))
    assert first != second and {key for key in first if first[key] != second[key]} == {"exit_layer"}
    own, other = loaded(made("gemma"), instruction="x"), loaded(made("gemma"))
    assert own.settings != other.settings and own.fingerprint != other.fingerprint
    assert loaded(made("gemma")).fingerprint == other.fingerprint
    with pytest.raises(UsageError):
        own.run(other.prepare(PAIRS[:2]))


def test_normalized_scores_are_sigmoids(made):
    encoder = loaded(made("gemma"))
    np.testing.assert_array_equal(encoder.score(PAIRS, normalize=True), sigmoid(encoder.score(PAIRS)))
