"""Rerankers that are language models: adapters on the score of their prompt, and that score by other libraries."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from ecom_rag import CrossEncoder
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.training import checkpoints
from ecom_rag.training.collate import pair_inputs
from ecom_rag.training.fit import train
from helpers import prompted
from helpers.adapted import adapter_of, losses, parts, recipe, trained_and_merged
from helpers.prompted import PAIRS, card_probabilities, gemma_tokenizer, language_model, qwen_tokenizer
from helpers.small_runs import grouped, interrupted, labelled, recipe_of, weights

pytestmark = [pytest.mark.slow, pytest.mark.reference]

KINDS = {
    "Gemma": (gemma_tokenizer, 64),  # as bge-reranker-v2-gemma
    "Gemma2": (gemma_tokenizer, 64),
    "Mistral": (lambda: gemma_tokenizer(dummy_space=True, side="left"), 64),
    "Qwen2": (qwen_tokenizer, 64),
    "Qwen3": (qwen_tokenizer, 256),  # as Qwen3-Reranker, whose prompt alone has 120 tokens
}


def start_of(parent, kind):
    folder = parent / kind
    language_model(folder, kind, KINDS[kind][0](), **({"head_dim": 12} if kind == "Qwen2" else {}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Start, finished folder, report, and the weights before merging, by kind."""
    parent, found = tmp_path_factory.mktemp("answering"), {}
    data = parts(parent)

    def run(kind):
        if kind not in found:
            start, tuned = start_of(parent, kind), parent / f"{kind}-tuned"
            asked = recipe(start, data, tuned, length=KINDS[kind][1], task="reranker")
            found[kind] = start, tuned, *trained_and_merged(asked)
        return found[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_nothing_but_the_adapter_changes(trained, kind):
    start, folder, report, before = trained(kind)
    own = losses(report)
    assert np.mean(own[-6:]) < 0.8 * np.mean(own[:6])
    assert report["dev"]["after"] > report["dev"]["before"] + 0.05
    base, tuned = weights(start), weights(folder)
    frozen = {key.replace(".base_layer", ""): value for key, value in before.items() if ".lora_" not in key}
    assert all(torch.equal(frozen[key], base[key]) for key in base) and base.keys() == tuned.keys()
    changed = {key for key in base if not torch.equal(base[key], tuned[key])}
    assert len(changed) == 21 and all(key.endswith("_proj.weight") for key in changed)
    assert adapter_of(folder)["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("kind", KINDS)
def test_trained_on_the_ids_and_the_score_of_inference(trained, kind):
    """Token ids of pairs, short and cut; and the score of the network in training, in one batch and in parts."""
    from ecom_rag.training import modules

    start, _, _, _ = trained(kind)
    length = 170 if kind == "Qwen3" else 48
    asked = recipe(start, ("none.jsonl", "none.jsonl"), "out", length=length, task="reranker")
    found = checkpoints.find_start(asked)
    tokenizer = Tokenizer(start)
    ours = CrossEncoder.from_pretrained(start, precision="fp32", max_length=length)
    prepared = ours.prepare(PAIRS)
    assert prepared.truncated.any() and not prepared.truncated.all()
    queries, documents = ([pair[side] for pair in PAIRS] for side in (0, 1))
    inputs = pair_inputs(tokenizer, queries, documents, length, found.frame(tokenizer))
    for row, place in enumerate(prepared.rows):
        assert inputs["input_ids"][row][inputs["attention_mask"][row] == 1].tolist() == prepared.ids[place].tolist()
    assert inputs["attention_mask"][:, -1].all()
    model = checkpoints.load(asked, found).eval()
    with torch.inference_mode():
        for scores in (model(dict(inputs))["scores"], modules._in_parts(model, inputs, "scores")):
            np.testing.assert_allclose(scores[:, 0].numpy(), ours.score(PAIRS), atol=1e-4)


@pytest.mark.parametrize("kind", ["Gemma", "Gemma2", "Mistral", "Qwen2"])
def test_the_merged_folder_scores_as_flag_llm_reranker(trained, kind):
    from FlagEmbedding import FlagLLMReranker

    start, folder, _, _ = trained(kind)
    flag = FlagLLMReranker(str(folder), use_fp16=False, devices="cpu", max_length=32, batch_size=8)
    ours = CrossEncoder.from_pretrained(folder, precision="fp32", max_length=32, template="bge").score(PAIRS)
    np.testing.assert_allclose(ours, flag.compute_score(PAIRS), atol=1e-4)
    before = CrossEncoder.from_pretrained(start, precision="fp32", max_length=32, template="bge").score(PAIRS)
    assert np.abs(ours - before).max() > 0.1


def test_the_merged_folder_scores_as_the_card_of_qwen3_reranker(trained):
    _, folder, _, _ = trained("Qwen3")
    pairs = [pair for pair in PAIRS if len(pair[0]) < 40]
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    _, differences = card_probabilities(folder, pairs, max_length=170, instruction=instruction)
    ours = CrossEncoder.from_pretrained(folder, precision="fp32", max_length=170)
    np.testing.assert_allclose(ours.score(pairs), differences, atol=1e-4)


@pytest.mark.parametrize("kind", ["Gemma", "Qwen3"])
def test_the_adapter_is_kept_as_peft_reads_it(trained, kind):
    from peft import PeftModel

    start, folder, _, _ = trained(kind)
    base = transformers.AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().state_dict()
    found = weights(folder)
    assert all(torch.allclose(found[key], merged[key], atol=1e-6) for key in found)
    config = json.loads((start / "config.json").read_text())
    assert json.loads((folder / "config.json").read_text()) == config  # of the trainer nothing


def test_an_answering_folder_of_sentence_transformers_stays_one(tmp_path):
    """It keeps its modules, chat template and instruction, and both libraries score alike before and after."""
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    folder = prompted.answering(tmp_path)
    asked = recipe(folder, parts(tmp_path), tmp_path / "out", length=256, task="reranker", schedule={"max_steps": 4})
    train(asked)
    pairs = [(query, document) for query, document in PAIRS if document.strip() == document != ""][:18]
    scores = []
    for place in (folder, tmp_path / "out"):
        theirs = TheirCrossEncoder(str(place), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
        ours = CrossEncoder.from_pretrained(place, precision="fp32", max_length=512)
        assert ours.settings["instruction"] == "找出同类违规商品"
        scores.append(ours.score(pairs))
        np.testing.assert_allclose(scores[-1], theirs, atol=1e-4)
    assert np.abs(scores[0] - scores[1]).max() > 1e-2


OPTIONS = {
    "listwise": {"lora": {"dropout": 0.1}},
    "binary, in bf16": {"loss": {"name": "binary"}, "schedule": {"bf16": True}},
    "distilled, in little memory": {
        "loss": {"name": "none", "distillation": "margin_mse"},
        "schedule": {"mini_batch": 5, "gradient_checkpointing": True},
        "averaging": {"best_checkpoints": 2},
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, options):
    start, data = start_of(tmp_path, "Gemma"), parts(tmp_path)
    schedule = {"max_steps": 8, "save_every": 3, **options.get("schedule", {})}
    whole, broken = (
        recipe(start, data, tmp_path / name, task="reranker", **{**options, "schedule": schedule})
        for name in ("whole", "broken")
    )
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(broken, progress=interrupted(5))
    assert train(broken, resume=True)["resumed_at_step"] == 3
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        expected, found = load_file(tmp_path / "whole" / name), load_file(tmp_path / "broken" / name)
        assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in found)


def test_prompt_and_instruction_are_those_of_the_recipe(tmp_path):
    start, data = start_of(tmp_path, "Qwen3"), parts(tmp_path)
    texts = {"template": "bge", "instruction": "Does B break the rule that A breaks?"}
    asked = recipe(start, data, tmp_path / "out", task="reranker", data_table=texts)
    found = checkpoints.find_start(asked)
    ours = CrossEncoder.from_pretrained(start, precision="fp32", max_length=64, **texts)
    tokenizer = Tokenizer(start)
    inputs = pair_inputs(tokenizer, ["watch"], ["wallet"], 64, found.frame(tokenizer))
    assert inputs["input_ids"][0].tolist() == ours.prepare([("watch", "wallet")]).ids[0].tolist()


def test_what_cannot_be_trained_is_refused(tmp_path, bert_reranker, mean_folder):
    start, data = start_of(tmp_path, "Gemma"), (grouped(tmp_path / "train.jsonl"), None)

    def refused(kind, folder, **tables):
        with pytest.raises(kind) as caught:
            train(recipe_of(folder, data[0], tmp_path / "out", **{"task": "reranker", **tables}))
        assert "\n" not in str(caught.value) and not (tmp_path / "out.partial").exists()
        return str(caught.value)

    assert "set lora.rank, e.g. to 16" in refused(ModelError, start)
    prompted.layerwise(tmp_path / "layerwise")
    assert "cannot be trained, since transformers" in refused(ModelError, tmp_path / "layerwise", lora={"rank": 2})
    instructed = {"data_table": {"instruction": "Is it?"}}
    assert "`instruction` has no effect" in refused(UsageError, bert_reranker, **instructed)
    assert "expected one of auto, bge, qwen3" in refused(UsageError, start, data_table={"template": "llama"})
    assert "data.instruction" in refused(UsageError, start, data_table={"query_instruction": "x"})
    assert "for an embedder" in refused(UsageError, mean_folder, task="embedder", **instructed)
    assert "leaves" in refused(ModelError, start_of(tmp_path, "Qwen3"), lora={"rank": 2}, data_table={"max_length": 64})
    targets = {"rank": 2, "targets": ["lm_head"]}
    assert "no linear layer is called 'lm_head'" in refused(ModelError, start, lora=targets)
    data = (labelled(tmp_path / "labelled.jsonl"), None)
    assert "a reranker needs queries" in refused(UsageError, start, lora={"rank": 2})
