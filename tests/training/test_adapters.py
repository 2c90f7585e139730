"""Adapters of decoder embedders: trained, resumed, kept, merged, and read by other libraries."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecom_rag import Encoder
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.training import checkpoints
from ecom_rag.training.collate import single_inputs
from ecom_rag.training.fit import train
from helpers import decoders, zoo
from helpers.adapted import adapter_of, losses, parts, recipe, trained_and_merged
from helpers.small_runs import interrupted, weights

pytestmark = [pytest.mark.slow, pytest.mark.reference]

MODELS = {
    "Qwen3-Embedding-0.6B": "Qwen3",
    "gte-Qwen2-1.5B-instruct": "Qwen2",
    "e5-mistral-7b-instruct": "Mistral",
    "bge-multilingual-gemma2": "Gemma2",
}
PROJECTIONS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def encoded(folder, texts, **options):
    return Encoder.from_pretrained(folder, precision="fp32", max_length=64, **options).encode(texts).dense


def least_cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Start, finished folder, report and the weights before merging, by the kind of decoder."""
    parent, found = tmp_path_factory.mktemp("adapted"), {}
    data = parts(parent)

    def run(name):
        kind = MODELS[name]
        if kind not in found:
            start, tuned = decoders.make(parent, name, kind), parent / f"{kind}-tuned"
            found[kind] = start, tuned, *trained_and_merged(recipe(start, data, tuned))
        return found[kind]

    return run


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_and_nothing_but_the_adapter_changes(trained, name):
    start, _, report, before = trained(name)
    own = losses(report)
    assert np.mean(own[-4:]) < 0.5 * np.mean(own[:4])
    assert report["dev"]["after"] > report["dev"]["before"] + 0.1
    base, seen = weights(start), 0
    for key, value in before.items():
        if ".lora_" not in key:
            assert torch.equal(value, base[key.replace(".base_layer", "")]), key
            seen += 1
    assert seen == len(base) and len(before) - seen == 2 * 7 * 2  # A and B of seven layers in each of two


@pytest.mark.parametrize("name", MODELS)
def test_the_merged_folder_is_read_by_sentence_transformers_and_flag_embedding(trained, name):
    from FlagEmbedding import FlagLLMModel
    from sentence_transformers import SentenceTransformer

    _, folder, _, _ = trained(name)
    texts = [text for text in zoo.TEXTS if text]
    theirs = SentenceTransformer(str(folder), device="cpu")
    theirs.max_seq_length = 64
    assert least_cosine(encoded(folder, texts), theirs.encode_document(texts, show_progress_bar=False)) > 0.99999
    ours = Encoder.from_pretrained(folder, precision="fp32", max_length=64)
    queries = ours.encode(texts, side="query").dense
    assert least_cosine(queries, theirs.encode_query(texts, show_progress_bar=False)) > 0.99999
    flag = FlagLLMModel(str(folder), use_fp16=False, devices="cpu", passage_max_length=64, normalize_embeddings=True)
    assert least_cosine(encoded(folder, texts), flag.encode_corpus(texts)) > 0.99999


@pytest.mark.parametrize("name", MODELS)
def test_the_adapter_is_kept_as_peft_reads_it(trained, name):
    """On the base by peft itself it gives the merged weights."""
    from peft import PeftModel
    from transformers import AutoModel

    start, folder, _, _ = trained(name)
    config = adapter_of(folder)
    assert config["base_model_name_or_path"] == str(start) and config["target_modules"] == PROJECTIONS
    base = AutoModel.from_pretrained(start, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().state_dict()
    found = weights(folder)
    assert found.keys() == merged.keys()
    changed = {key for key in found if not torch.equal(found[key], weights(start)[key])}
    assert len(changed) == 14 and all(torch.allclose(found[key], merged[key], atol=1e-6) for key in found)


@pytest.mark.parametrize("name", MODELS)
def test_trained_on_the_ids_of_inference(trained, name):
    """Instruction and EOS as the encoder has them, short texts and cut ones."""
    start, _, _, _ = trained(name)
    found = checkpoints.find_start(recipe(start, ("none.jsonl", "none.jsonl"), Path("out")))
    tokenizer = Tokenizer(start, ends_with_eos=found.ends_with_eos)
    ours, texts = (
        Encoder.from_pretrained(start, precision="fp32", max_length=64),
        [*zoo.TEXTS, "加微信 cheap pills " * 20],
    )
    for side, instruction in zip(("query", "passage"), found.instructions, strict=True):
        inputs = single_inputs(tokenizer, [instruction + text for text in texts], 64)
        prepared = ours.prepare(texts, side=side)
        assert prepared.truncated.any() and not prepared.truncated.all()
        for row, place in enumerate(prepared.rows):
            length = int(inputs["attention_mask"][row].sum())
            assert inputs["input_ids"][row, :length].tolist() == prepared.ids[place].tolist()


OPTIONS = {
    "plain": {},
    "dropout and averages": {
        "lora": {"dropout": 0.1, "targets": ["q_proj", "v_proj"]},
        "averaging": {"best_checkpoints": 2},
    },
    "less memory": {"schedule": {"gradient_checkpointing": True, "mini_batch": 5}, "averaging": {"ema_decay": 0.9}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, options):
    start, data = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3"), parts(tmp_path)
    schedule = {"epochs": 2, "save_every": 3, **options.get("schedule", {})}
    whole, broken = (
        recipe(start, data, tmp_path / name, **{**options, "schedule": schedule}) for name in ("whole", "broken")
    )
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(broken, progress=interrupted(5))
    checkpoint = tmp_path / "broken.partial" / "checkpoint-3"
    assert (checkpoint / "adapter_model.safetensors").exists() and (checkpoint / "optimizer.pt").exists()
    assert not list(checkpoint.glob("model*"))
    assert train(broken, resume=True)["resumed_at_step"] == 3
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        expected, found = load_file(tmp_path / "whole" / name), load_file(tmp_path / "broken" / name)
        assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in found)


def test_a_killed_process_is_resumed_to_the_same_weights(tmp_path):
    """kill -9, as the command line meets it."""
    start, data = decoders.make(tmp_path, "e5-mistral-7b-instruct", "Mistral"), parts(tmp_path)
    commands = {}
    for name in ("whole", "killed"):
        lines = [
            f'model = "{start}"',
            f'output = "{tmp_path / name}"',
            f'[data]\ntrain = "{data[0]}"\nmax_length = 32',
            "[sampling]\nbatch_size = 4",
            '[schedule]\nmax_steps = 40\nlearning_rate = 1e-3\nsave_every = 2\ndevice = "cpu"',
            "[lora]\nrank = 4\ndropout = 0.1",
        ]
        (tmp_path / f"{name}.toml").write_text("\n".join(lines), encoding="utf-8")
        commands[name] = [sys.executable, "-m", "ecom_rag", "train", "embedder", str(tmp_path / f"{name}.toml")]
    subprocess.run(commands["whole"], check=True, capture_output=True)
    process = subprocess.Popen(commands["killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed.partial").glob("checkpoint-*/complete")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed").exists()
    subprocess.run([*commands["killed"], "--resume"], check=True, capture_output=True)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in found)


def test_gradient_checkpointing_runs_each_layer_again(tmp_path, monkeypatch):
    """In the backward pass, to the same losses."""
    from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

    start, data = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3"), parts(tmp_path)
    forward, runs, found = Qwen3MLP.forward, [], []

    def counted(self, x):
        runs.append(self.training)
        return forward(self, x)

    monkeypatch.setattr(Qwen3MLP, "forward", counted)
    for on in (False, True):
        runs.clear()
        schedule = {"max_steps": 3, "gradient_checkpointing": on}
        found.append((losses(train(recipe(start, data, tmp_path / str(on), schedule=schedule))), sum(runs)))
    (plain, once), (again, twice) = found
    np.testing.assert_allclose(plain, again, rtol=1e-5)
    assert twice == 2 * once > 0


def test_an_instruction_that_leaves_no_room_is_refused(tmp_path):
    start, data = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3"), parts(tmp_path)
    with pytest.raises(UsageError, match="the instruction fills the 31 tokens that are read of a text"):
        train(recipe(start, data, tmp_path / "out", length=32))


def test_targets_are_looked_at_before_anything_is_loaded(tmp_path):
    start, data = decoders.make(tmp_path, "Qwen3-Embedding-0.6B", "Qwen3"), parts(tmp_path)
    with pytest.raises(ModelError, match=r"no linear layer is called 'query'.*q_proj, k_proj") as caught:
        train(recipe(start, data, tmp_path / "out", lora={"targets": ["q_proj", "query"]}))
    assert "\n" not in str(caught.value) and not (tmp_path / "out.partial").exists()
    report = train(
        recipe(start, data, tmp_path / "out", lora={"targets": ["self_attn.q_proj"]}, schedule={"max_steps": 1})
    )
    assert report["steps"] == 1 and adapter_of(tmp_path / "out")["target_modules"] == ["self_attn.q_proj"]
    assert {key.split(".")[4] for key in load_file(tmp_path / "out/adapter/adapter_model.safetensors")} == {"self_attn"}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0, "targets": ["q_proj"]}, "without adapters"),
        ({"targets": []}, "expected at least one name of a layer"),
        ({"alpha": 0}, "expected above 0"),
        ({"rank": -1}, "expected 0 or more"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path, lora, message):
    if lora.get("rank") == 0:
        lora = {"alpha": 8, **lora}
    with pytest.raises(UsageError, match=message):
        recipe(tmp_path, ("train.jsonl", "dev.jsonl"), tmp_path / "out", lora=lora)
