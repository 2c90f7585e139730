"""Decoders as encoders: FlagEmbedding's and sentence-transformers' vectors, instructions, EOS and in-context examples.

The checkpoints are tiny and random, of the true architectures and with tokenizers of the true kinds. Where
FlagEmbedding does not do what a model card says, the card's formula is written out.
"""

import logging
import shutil

import numpy as np
import pytest
import torch
import transformers

from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models import Encoder
from ecom_rag.models.checkpoints import checkpoint as checkpoints
from ecom_rag.models.families import FAMILIES, family_of
from ecom_rag.models.instructions import DEFAULT_TASK, TASKS, split, written
from helpers import decoders, zoo

pytestmark = [pytest.mark.slow, pytest.mark.reference]

MODELS = {
    "Qwen3-Embedding-0.6B": "Qwen3",
    "gte-Qwen2-1.5B-instruct": "Qwen2",
    "e5-mistral-7b-instruct": "Mistral",
    "bge-multilingual-gemma2": "Gemma2",
    "bge-en-icl": "Mistral",
    "bge-code-v1": "Qwen2",
}
TEXTS = [*zoo.TEXTS, "茶", "free shipping on all orders " * 60, "５折！ 😀 emoji  two  spaces"]
TASK = "Given a listing, retrieve judged listings"
LENGTH = 96  # the long texts are cut
WEB = "Given a web search query, retrieve relevant passages that answer the query"
EXAMPLES = [
    {"query": "加微信私下转账", "response": "off-platform payment"},
    {"instruct": "Given a claim, retrieve its rule", "query": "cures all pain", "response": "medical claim"},
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    parent = tmp_path_factory.mktemp("decoders")
    return {name: decoders.make(parent, name, kind) for name, kind in MODELS.items()}


def load(folder, **options):
    return Encoder.from_pretrained(str(folder), **{"precision": "fp32", "max_length": LENGTH, **options})


def least_cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


@pytest.mark.parametrize("name", MODELS)
def test_vectors_equal_flag_embedding(folders, name):
    """In its form of the instruction, over Chinese, English, odd and over-long texts."""
    from FlagEmbedding import FlagICLModel, FlagLLMModel
    from FlagEmbedding.inference.embedder.model_mapping import AUTO_EMBEDDER_MAPPING

    config = AUTO_EMBEDDER_MAPPING[name]
    assert config.pooling_method.value == "last_token"
    model = (FlagICLModel if "icl" in name else FlagLLMModel)(
        str(folders[name]),
        query_instruction_for_retrieval=TASK,
        query_instruction_format=config.query_instruction_format,
        use_fp16=False,
        devices="cpu",
        query_max_length=LENGTH,
        passage_max_length=LENGTH,
    )
    queries, passages = model.encode_queries(TEXTS), model.encode_corpus(TEXTS)
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 1e-3)):
        encoder = load(folders[name], query_task=TASK, precision=precision)
        assert least_cosine(encoder.encode(TEXTS, side="query").dense, queries) > 1 - tolerance
        assert least_cosine(encoder.encode(TEXTS).dense, passages) > 1 - tolerance


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bge-en-icl"])
def test_vectors_equal_sentence_transformers_which_pads_on_the_left(folders, name):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folders[name]), device="cpu")
    assert model.tokenizer.padding_side == "left"
    model.max_seq_length = LENGTH
    encoder = load(folders[name], query_task="search")
    prompt = encoder.checkpoint.query_instruction
    for side, put_before in (("query", prompt), ("passage", "")):
        expected = model.encode(TEXTS, prompt=put_before, normalize_embeddings=True, show_progress_bar=False)
        assert least_cosine(encoder.encode(TEXTS, side=side).dense, expected) > 1 - 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_company_and_order_in_a_batch_change_nothing(folders, name):
    encoder = load(folders[name])
    together = encoder.encode(TEXTS, side="query").dense
    alone = np.concatenate([encoder.encode([text], side="query").dense for text in TEXTS])
    turned = encoder.encode(TEXTS[::-1], side="query").dense[::-1]
    small = load(folders[name], batch_tokens=64).encode(TEXTS, side="query").dense
    for other in (alone, turned, small):
        np.testing.assert_allclose(other, together, atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_long_texts_and_fewer_dimensions(folders, name, precision):
    """Rotary frequencies rounded to bf16 would move Gemma 2's vectors to cosines of 0.994."""
    from sentence_transformers import SentenceTransformer

    texts = ["free shipping on all orders " * 50 + end for end in ("today", "tomorrow, or the day after", "never")]
    model = SentenceTransformer(str(folders[name]), device="cpu", truncate_dim=32)
    expected = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    encoder = load(folders[name], max_length=2000, truncate_dim=32, precision=precision)
    assert encoder.prepare(texts).tokens.min() > 512 and not encoder.prepare(texts).truncated.any()
    tolerance = {"fp32": 1e-5, "bf16": 2e-3}[precision]
    assert least_cosine(encoder.encode(texts).dense, expected) > 1 - tolerance


@pytest.mark.parametrize("long", [False, True])
def test_in_context_examples_equal_flag_embedding(folders, long):
    from FlagEmbedding import FlagICLModel

    examples = EXAMPLES * 20 if long else EXAMPLES
    model = FlagICLModel(
        str(folders["bge-en-icl"]),
        query_instruction_for_retrieval=TASK,
        examples_for_task=examples,
        use_fp16=False,
        devices="cpu",
        query_max_length=LENGTH,
    )
    encoder = load(folders["bge-en-icl"], query_task=TASK, query_examples=examples)
    found = encoder.encode(TEXTS, side="query").dense
    assert least_cosine(found, model.encode_queries(TEXTS)) > 1 - 1e-5
    ids = encoder.prepare(TEXTS, side="query")
    assert ids.truncated.any() and not ids.truncated.all()  # the same with texts that are cut, and that are not
    again = load(folders["bge-en-icl"], query_instruction=encoder.settings["query_instruction"])  # as a bank does
    np.testing.assert_array_equal(again.encode(TEXTS, side="query").dense, found)


def card_vectors(folder, texts, *, bidirectional=False):
    """e5-mistral's card: cut to one token less, put EOS behind, pad on the left, take the last token's vector."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    assert getattr(model.config, "is_causal", True) is not bidirectional
    found = []
    for text in texts:
        ids = [*tokenizer(text, max_length=LENGTH - 1, truncation=True).input_ids, tokenizer.eos_token_id]
        padded = tokenizer.pad({"input_ids": [ids]}, padding="max_length", max_length=LENGTH, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**padded).last_hidden_state[0, -1].numpy())
    return np.stack(found)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("e5-mistral-7b-instruct", "Mistral", False),
        ("mine", "Mistral", True),
        ("gte-Qwen2-1.5B-instruct", "Qwen2", False),
        ("mine", "Qwen2", True),
    ],
)
def test_eos_that_tokenizers_leave_out_follows_the_card(tmp_path, name, kind, told):
    """Of a folder whose family is tuned with EOS, and of one whose own files ask for it; others are left alone."""
    folder = decoders.make(tmp_path, name, kind, adds_eos=False, told=told)
    encoder = load(folder)
    assert least_cosine(encoder.encode(TEXTS).dense, card_vectors(folder, TEXTS)) > 1 - 1e-5
    assert "-eos-" in encoder.fingerprint
    folder = folder.rename(tmp_path / "other")
    zoo.update(folder / "tokenizer_config.json", add_eos_token=False)
    plain = load(folder)
    assert "-eos-" not in plain.fingerprint
    assert least_cosine(encoder.encode(TEXTS).dense, plain.encode(TEXTS).dense) < 0.99


def test_no_eos_token_to_put_behind_is_an_error(tmp_path):
    folder = decoders.make(tmp_path, "mine", "Qwen2", adds_eos=False, told=True)
    zoo.update(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="EOS token"):
        load(folder)


def test_attention_in_both_directions(tmp_path):
    """As in gte-Qwen2's own code, which is not run: ``is_causal`` of config.json says it to transformers 5."""
    folder = decoders.make(tmp_path, "gte-Qwen2-7B-instruct", "Qwen2", adds_eos=False, is_causal=False)
    encoder = load(folder)
    expected = card_vectors(folder, TEXTS, bidirectional=True)
    assert least_cosine(encoder.encode(TEXTS).dense, expected) > 1 - 1e-5
    zoo.update(folder / "config.json", is_causal=True)
    assert least_cosine(load(folder).encode(TEXTS).dense, expected) < 0.99


def test_forms_are_those_of_flag_embeddings_mapping():
    from FlagEmbedding.inference.embedder.model_mapping import AUTO_EMBEDDER_MAPPING

    compared = 0
    for name, config in AUTO_EMBEDDER_MAPPING.items():
        family = family_of(name)
        if config.trust_remote_code and "Qwen" not in name and "code" not in name:
            continue  # GTE v1.5 and gte-multilingual, which are refused
        assert family is not None, name
        assert family.pooling == config.pooling_method.value.removesuffix("_token"), name
        if config.query_instruction_format != "{}{}":
            before, _ = split(written(family.query_instruction, "x"))
            assert before == config.query_instruction_format.format("x", ""), name
            compared += 1
    assert compared > 12


def test_a_task_is_put_into_the_folders_own_form_where_its_name_tells_nothing(tmp_path, caplog):
    folder = decoders.make(tmp_path, "mine", "Qwen3")
    with pytest.raises(UsageError, match="in which form it reads a task"):
        load(folder, query_task="search")
    own = {"query": f"Instruct: {WEB}\nQuery:", "document": ""}
    zoo.update(folder / "config_sentence_transformers.json", prompts=own)
    assert load(folder).checkpoint.query_instruction == own["query"]
    found = load(folder, query_task="search").checkpoint.query_instruction
    assert found == f"Instruct: {TASKS['search']}\nQuery:"
    zoo.update(folder / "config_sentence_transformers.json", prompts={"web": f"<instruct>{WEB}\n<query>"})
    assert load(folder).checkpoint.query_instruction == ""
    assert load(folder, query_task=TASK).checkpoint.query_instruction == f"<instruct>{TASK}\n<query>"
    zoo.update(folder / "config_sentence_transformers.json", prompts={"query": "before {text} behind"})
    with pytest.raises(ModelError, match="expected a prefix"):
        load(folder)
    named = shutil.copytree(folder, tmp_path / "qwen3-embedding")
    zoo.update(named / "config_sentence_transformers.json", prompts={})
    with caplog.at_level(logging.WARNING, "ecom_rag"):
        found = checkpoints.encoder_checkpoint(named).query_instruction
    assert found == f"Instruct: {TASKS[DEFAULT_TASK]}\nQuery:" and "by its name" in caplog.text


def test_an_instruction_may_stand_around_the_text(folders):
    folder = folders["bge-code-v1"]
    plain = load(folder, query_instruction="<instruct>x\n<query>")
    written_out = load(folder, query_instruction="<instruct>x\n<query>{text}")
    expected = plain.encode(TEXTS, side="query").dense
    np.testing.assert_array_equal(written_out.encode(TEXTS, side="query").dense, expected)
    around = load(folder, query_instruction="[{text}]", max_length=24)
    bare = load(folder, query_instruction="", max_length=24)
    ids = around.prepare(["case", "free shipping " * 40], side="query")
    np.testing.assert_array_equal(ids.ids[0], bare.prepare(["[case]"]).ids[0])
    assert ids.tokens[1] == 24 and ids.ids[1][-2] == bare.prepare(["]"]).ids[0][0]  # then <|endoftext|>


def test_what_tasks_and_examples_do_not_go_with(folders):
    code, icl = folders["bge-code-v1"], folders["bge-en-icl"]
    with pytest.raises(UsageError, match="one of the two"):
        load(code, query_task="search", query_instruction="Q: ")
    with pytest.raises(UsageError, match="no place for a response"):
        load(code, query_examples=EXAMPLES)
    for wrong in ({"query": "a"}, {"query": "a", "response": ""}, {"query": "a", "response": "b", "more": "c"}, "text"):
        with pytest.raises(UsageError, match="example 2"):
            load(icl, query_examples=[EXAMPLES[0], wrong])
    encoder = load(icl, query_task="free shipping " * 60)
    with pytest.raises(UsageError, match="all texts would be the same"):
        encoder.encode(["a case"], side="query")
    encoder = load(code, query_task="free shipping " * 60)
    with pytest.raises(UsageError, match="all texts would be the same"):
        encoder.encode(["a case"], side="query")


def test_every_family_that_takes_a_task_has_one_place_for_it():
    for family in FAMILIES:
        if "{task}" in family.query_instruction:
            assert split(family.query_instruction)[0].count("{task}") == 1 and "{text}" in family.query_instruction


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_shared_beginning_of_queries_is_computed_once(folders, name, precision, monkeypatch):
    """The same vectors as of each query alone, which shares with none, while the network reads far fewer tokens."""
    texts = [f"{text} {number}" for number, text in enumerate(zoo.TEXTS[:5] * 6)]
    encoder = load(folders[name], query_task=TASK * 3, max_length=512, precision=precision, batch_tokens=100_000)
    inner, read = encoder._loaded.runtime._module.transformer, []
    forward = inner.forward
    monkeypatch.setattr(
        inner, "forward", lambda **given: (read.append(given["input_ids"].numel()), forward(**given))[1]
    )
    together = encoder.encode(texts, side="query").dense
    ids = encoder.prepare(texts, side="query")
    assert len(read) == 2 and sum(read) < ids.tokens.sum() / 2
    read.clear()
    alone = np.concatenate([encoder.encode([text], side="query").dense for text in texts])
    assert len(read) == len(texts)
    assert least_cosine(together, alone) > 1 - {"fp32": 1e-6, "bf16": 1e-3}[precision]
    encoder.encode(["one", "other"])
    assert len(read) == len(texts) + 1  # nothing shared, and nothing to save


def test_networks_that_look_both_ways_share_nothing(tmp_path):
    folder = decoders.make(tmp_path, "gte-Qwen2-7B-instruct", "Qwen2", is_causal=False)
    encoder = load(folder, query_task=TASK * 3, max_length=512)
    texts = [f"{text} {number}" for number, text in enumerate(zoo.TEXTS[:5] * 6)]
    alone = np.concatenate([encoder.encode([text], side="query").dense for text in texts])
    np.testing.assert_allclose(encoder.encode(texts, side="query").dense, alone, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "kind"), [("bge-multilingual-gemma2", "Gemma2"), ("e5-mistral-7b-instruct", "Mistral")]
)
def test_a_shared_beginning_longer_than_the_sliding_window(tmp_path, name, kind):
    from sentence_transformers import SentenceTransformer

    folder = decoders.make(tmp_path, name, kind, sliding_window=16)
    encoder = load(folder, query_task=TASK * 3, max_length=512)
    texts = [f"{text} {number}" for number, text in enumerate(zoo.TEXTS[:5] * 6)]
    model = SentenceTransformer(str(folder), device="cpu")
    prompt = encoder.checkpoint.query_instruction
    expected = model.encode(texts, prompt=prompt, normalize_embeddings=True, show_progress_bar=False)
    assert least_cosine(encoder.encode(texts, side="query").dense, expected) > 1 - 1e-5
    wide = load(decoders.make(tmp_path / "wide", name, kind), query_task=TASK * 3, max_length=512)
    assert least_cosine(wide.encode(texts, side="query").dense, expected) < 0.999  # the window does matter


def test_an_empty_text_where_there_are_no_special_tokens(tmp_path):
    """It is read as one token of padding, alone and beside others; a network cannot read nothing."""
    folder = decoders.make(tmp_path, "mine", "Qwen2", adds_eos=False)
    encoder = load(folder)
    alone = encoder.encode([""]).dense
    np.testing.assert_allclose(encoder.encode(["a", ""]).dense[1:], alone, atol=1e-6)
    padding = transformers.AutoTokenizer.from_pretrained(folder).pad_token
    np.testing.assert_array_equal(alone, encoder.encode([padding]).dense)
    assert encoder.encode([]).dense.shape == (0, encoder.dimension)
