"""One network saved in any of the ways that people have merges; anything that changes vectors is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conftest import TEXTS, make_encoder, make_reranker
from ecom_rag import CrossEncoder, Encoder
from ecom_rag.errors import ModelError
from ecom_rag.merging import Mix, merge

pytestmark = pytest.mark.slow

PAIRS = [("leather wallet", "replica watch"), ("手机壳", "全国销量第一")]
KINDS = {
    "bert": ("bert", False),
    "xlmr": ("xlmr", False),
    "bert reranker": ("bert", True),
    "xlmr reranker": ("xlmr", True),
}
PREFIXES = {"bert": "bert.", "xlmr": "roberta."}
LAYOUTS = st.fixed_dictionaries(
    {
        "prefix": st.booleans(),
        "pooler": st.booleans(),
        "position_ids": st.sampled_from([None, torch.int64, torch.float32]),
        "old_names": st.booleans(),
        "pretraining_head": st.booleans(),
        "file": st.sampled_from(["model.safetensors", "pytorch_model.bin"]),
        "shards": st.booleans(),
    }
)
PLAIN = dict.fromkeys(("prefix", "old_names", "pretraining_head", "shards"), False) | {
    "pooler": True,
    "position_ids": None,
    "file": "model.safetensors",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Of each kind two models of one network, as transformers saves them, and the plain names of their tensors."""
    root = tmp_path_factory.mktemp("layouts")
    found = {}
    for kind, (network, reranker) in KINDS.items():
        folders = []
        for seed in (1, 2):
            folder = root / f"{kind.replace(' ', '-')}-{seed}"
            if reranker:
                make_reranker(folder, network)
            else:
                make_encoder(folder, network, pooling="mean", seed=seed)
            folders.append(folder)
        if reranker:
            noise(folders[1])
        found[kind] = folders
    return found


def noise(folder):
    torch.manual_seed(3)
    state = {
        key: value + 0.1 * torch.randn_like(value) for key, value in load_file(folder / "model.safetensors").items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def plain_state(folder, network):
    state = load_file(folder / "model.safetensors")
    return {key.removeprefix(PREFIXES[network]): value for key, value in state.items()}


def laid_out(source, target, kind, layout):
    """A copy of a model in another layout."""
    network, reranker = KINDS[kind]
    shutil.copytree(source, target)
    (target / "model.safetensors").unlink()
    state = plain_state(source, network)
    if not layout["pooler"] and not reranker:
        state = {key: value for key, value in state.items() if not key.startswith("pooler.")}
    if layout["position_ids"] is not None:
        state["embeddings.position_ids"] = torch.arange(512)[None].to(layout["position_ids"])
    if layout["old_names"]:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, former in old.items():
            state = {key.replace(new, former): value for key, value in state.items()}
    if layout["prefix"] or reranker:  # transformers itself saves no reranker without
        state = {
            key if key.startswith("classifier") else PREFIXES[network] + key: value for key, value in state.items()
        }
    if layout["pretraining_head"] and not reranker:
        state["cls.predictions.bias"] = torch.zeros(7)
    write(target, state, layout["file"], layout["shards"])
    return target


def write(target, state, file, shards):
    save = save_file if file.endswith(".safetensors") else torch.save
    if not shards:
        save(state, target / file)
        return
    stem, ending = file.split(".")
    names = {key: f"{stem}-0000{1 + number % 2}-of-00002.{ending}" for number, key in enumerate(sorted(state))}
    for shard in set(names.values()):
        save({key: value for key, value in state.items() if names[key] == shard}, target / shard)
    (target / f"{file}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def outputs(folder, kind):
    if KINDS[kind][1]:
        return CrossEncoder.from_pretrained(str(folder), runtime="torch", precision="fp32").score(PAIRS)
    model = Encoder.from_pretrained(str(folder), runtime="torch", precision="fp32")
    return model.encode([text for text in TEXTS if text][:4]).dense


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=LAYOUTS, second=LAYOUTS)
@example(first=PLAIN, second=PLAIN | {"prefix": True, "pooler": False})
@example(first=PLAIN | {"prefix": True, "old_names": True, "shards": True}, second=PLAIN)
@example(first=PLAIN | {"pooler": False}, second=PLAIN | {"position_ids": torch.float32, "pretraining_head": True})
def test_the_same_network_in_any_layout_merges(kind, first, second, models, tmp_path_factory):
    root, network = tmp_path_factory.mktemp("run"), KINDS[kind][0]
    folders = [laid_out(models[kind][0], root / "a", kind, first), laid_out(models[kind][1], root / "b", kind, second)]
    merge([str(folder) for folder in folders], str(root / "out"), Mix(((1.0, 3.0),)))
    left, right = (plain_state(folder, network) for folder in models[kind])
    expected = root / "expected"
    shutil.copytree(models[kind][0], expected)
    stored = load_file(expected / "model.safetensors")
    mean = {
        key: 0.25 * left[name] + 0.75 * right[name]
        for key, name in ((key, key.removeprefix(PREFIXES[network])) for key in stored)
    }
    save_file(mean, expected / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_allclose(outputs(root / "out", kind), outputs(expected, kind), atol=2e-5)
    written = load_file(root / "out" / "model.safetensors")
    for key, value in written.items():
        name = key.removeprefix(PREFIXES[network]).replace("gamma", "weight").replace("beta", "bias")
        if name in left and not (name.startswith("pooler.") and not KINDS[kind][1]):
            torch.testing.assert_close(value, 0.25 * left[name] + 0.75 * right[name], atol=1e-6, rtol=0)


def test_a_merged_folder_loads_in_transformers_and_sentence_transformers(models, tmp_path):
    from sentence_transformers import SentenceTransformer

    first = laid_out(models["bert"][0], tmp_path / "a", "bert", PLAIN | {"prefix": True, "pretraining_head": True})
    second = laid_out(models["bert"][1], tmp_path / "b", "bert", PLAIN | {"pooler": False})
    merge([str(first), str(second)], str(tmp_path / "out"), Mix(((0.5, 0.5),)))
    texts = [text for text in TEXTS if text][:4]
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(theirs, outputs(tmp_path / "out", "bert"), atol=1e-5)


def _json(name, **values):
    def change(folder):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | values))

    return change


def _tokenizer(**values):
    def change(folder):
        path = folder / "tokenizer.json"
        known = json.loads(path.read_text(encoding="utf-8"))
        for key, value in values.items():
            known[key] = value(known[key]) if callable(value) else value
        path.write_text(json.dumps(known), encoding="utf-8")

    return change


ST, SBERT = "config_sentence_transformers.json", "sentence_bert_config.json"
DIFFERENCES = {
    "query prompt": (_json(ST, prompts={"query": ""}), _json(ST, prompts={"query": "find: "}), "query instruction"),
    "passage prompt": (_json(ST, prompts={}), _json(ST, prompts={"document": "d: "}), "passage instruction"),
    "another task's prompt": (_json(ST, prompts={"sts": "a"}), _json(ST, prompts={"sts": "b"}), "task 'sts'"),
    "default prompt": (_json(ST, prompts={}), _json(ST, prompts={}, default_prompt_name="query"), "default.prompt"),
    "dimensions": (_json(ST, prompts={}), _json(ST, prompts={}, truncate_dim=16), "truncate.dim"),
    "length": (_json(SBERT, max_seq_length=128), _json(SBERT, max_seq_length=64), "max length"),
    "lower case": (_json(SBERT, do_lower_case=False), _json(SBERT, do_lower_case=True), "."),
    "pooling": (
        None,
        _json("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True),
        "pooling",
    ),
    "pooled prompt": (None, _json("1_Pooling/config.json", include_prompt=False), "include.prompt"),
    "activation": (None, _json("config.json", hidden_act="relu"), "hidden_act"),
    "epsilon": (None, _json("config.json", layer_norm_eps=1e-5), "layer_norm_eps"),
    "heads": (None, _json("config.json", num_attention_heads=2), "num_attention_heads"),
    "cut on the left": (None, _json("tokenizer_config.json", truncation_side="left"), "read"),
    "case of the tokenizer": (None, _tokenizer(normalizer=lambda old: {**old, "lowercase": False}), "read"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_changes_vectors_is_refused_in_one_line(name, models, tmp_path):
    left, right, said = DIFFERENCES[name]
    kind = "xlmr" if name == "lower case" else "bert"  # the tokenizer of the other lower-cases itself
    folders = [shutil.copytree(models[kind][seed], tmp_path / f"m{seed}") for seed in (0, 1)]
    for folder, change in zip(folders, (left, right), strict=True):
        if change is not None:
            change(folder)
    for order in (folders, folders[::-1]):
        with pytest.raises(ModelError, match=said) as caught:
            merge([str(folder) for folder in order], str(tmp_path / "out"), Mix(((1.0, 1.0),)))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_dense_modules_of_other_activation_are_refused(models, tmp_path):
    folders = []
    for seed, activation in ((0, "torch.nn.modules.activation.Tanh"), (1, "torch.nn.modules.linear.Identity")):
        folder = shutil.copytree(models["bert"][seed], tmp_path / f"m{seed}")
        (folder / "2_Dense").mkdir()
        dense = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": activation}
        (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
        save_file(
            {"linear.weight": torch.zeros(8, 32), "linear.bias": torch.zeros(8)},
            folder / "2_Dense" / "model.safetensors",
        )
        modules = json.loads((folder / "modules.json").read_text())
        modules[2] = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        (folder / "modules.json").write_text(json.dumps(modules))
        folders.append(str(folder))
    with pytest.raises(ModelError, match="activation_function 'Identity' for 'Tanh'"):
        merge(folders, str(tmp_path / "out"), Mix(((1.0, 1.0),)))


def test_a_tuned_model_that_names_its_familys_instruction_merges_with_the_base(tmp_path):
    """The base's instruction is known by its name alone, the tuned one's stands in its files."""
    base = make_encoder(tmp_path / "bge-small-zh", "bert", pooling="cls", seed=1)
    tuned = make_encoder(tmp_path / "tuned", "bert", pooling="cls", seed=2)
    _json(ST, prompts={"query": "为这个句子生成表示以用于检索相关文章：", "document": ""})(tuned)
    merge([str(tuned), str(base)], str(tmp_path / "out"), Mix(((1.0, 1.0),)))


def test_one_tensor_under_two_names_is_refused(models, tmp_path):
    folder = shutil.copytree(models["bert"][1], tmp_path / "twice")
    state = load_file(folder / "model.safetensors")
    state["bert.embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"].clone()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"embeddings.word_embeddings.weight twice"):
        merge([str(models["bert"][0]), str(folder)], str(tmp_path / "out"), Mix(((1.0, 1.0),)))
