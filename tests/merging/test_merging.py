"""Merging: the methods against mergekit's numbers and plain definitions, whole folders against what loads them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conftest import TEXTS, make_encoder
from ecom_rag import CrossEncoder, Encoder
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.merging import Mix, Models, merge
from ecom_rag.merging import methods as ways
from ecom_rag.merging.models import block_of
from helpers.merging_expectations import CASES, made

pytestmark = [pytest.mark.slow, pytest.mark.reference]

EXPECTED = json.loads((Path(__file__).parent / "merging_expected.json").read_text())


def ours(name, tensors, base, parameters):
    weights = parameters.get("weight")
    if name == "linear":
        return ways.linear(tensors, weights)
    if name == "slerp":
        return ways.slerp(*tensors, t=parameters["t"])
    if name == "task_arithmetic":
        return ways.task_arithmetic(base, tensors, weights, scale=parameters["lambda"])
    return ways.ties(base, tensors, weights, density=parameters["density"], scale=parameters["lambda"])


@pytest.mark.parametrize("name", CASES)
def test_methods_give_mergekits_numbers(name):
    case = CASES[name]
    tensors = [made(number) for number in range(1, case["models"] + 1)]
    found = ours(name, tensors, made(0), case["parameters"])
    np.testing.assert_allclose(found.flatten().numpy(), EXPECTED[name], rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", CASES)
def test_methods_agree_with_mergekit_itself(name):
    merge_methods = pytest.importorskip("mergekit.merge_methods")
    torch.manual_seed(0)
    for _ in range(20):
        case = CASES[name]
        tensors, base = [torch.randn(7, 5) for _ in range(case["models"])], torch.randn(7, 5)
        parameters = dict(case["parameters"])
        theirs, index = tensors, 0 if name == "slerp" else None
        if case["base"]:
            theirs, index = [base, *tensors], 0
            parameters["weight"] = dict(enumerate(parameters["weight"], start=1))
        expected = merge_methods.merge_tensors(theirs, case["method"], parameters=parameters, base_index=index)
        assert torch.allclose(ours(name, tensors, base, case["parameters"]), expected, rtol=0, atol=1e-6)


def test_ties_worked_example():
    """Yadav et al. 2023, figure 1's steps by hand: trim, elect, mean of those that agree."""
    base = torch.zeros(4)
    first, second = torch.tensor([3.0, -1.0, 0.1, 2.0]), torch.tensor([-1.0, -2.0, 0.2, 4.0])
    # density 0.75 keeps three of four: first loses 0.1, second loses 0.2. Signs of the sums: +, -, +, +.
    found = ways.ties(base, [first, second], [1.0, 1.0], density=0.75)
    assert found.tolist() == [3.0, -1.5, 0.0, 3.0]


def test_slerp_worked_example():
    found = ways.slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), t=1 / 3)
    assert torch.allclose(found, torch.tensor([2 * 3**0.5 / 2, 0.5]))  # 30 of 90 degrees
    parallel = torch.tensor([1.0, 2.0])
    assert torch.allclose(ways.slerp(parallel, 3 * parallel, t=0.5), 2 * parallel)
    assert torch.allclose(ways.slerp(parallel, -parallel, t=0.25), 0.5 * parallel)
    assert torch.equal(ways.slerp(torch.zeros(2), parallel, t=1.0), parallel)


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
def test_ties_keeps_the_earlier_of_equal_values_whatever_it_takes_at_once(density, monkeypatch):
    """Against sorting all of a task vector, which has many equal values and zeros, in parts of seven numbers."""
    draw = torch.Generator().manual_seed(3)
    base, first, second = (torch.randint(-3, 4, (9, 11), generator=draw).float() for _ in range(3))

    def trimmed(learned):
        keep = torch.argsort(learned.abs().reshape(-1), descending=True, stable=True)[: max(1, int(density * 99))]
        return torch.zeros(99).index_copy(0, keep, learned.reshape(-1)[keep]).reshape(9, 11)

    one, other = trimmed(first - base), 0.5 * trimmed(second - base)
    sign = torch.where(one + other >= 0, 1.0, -1.0)
    shares = 1.0 * (one.sign() == sign) + 0.5 * (other.sign() == sign)
    agreed = one * (one.sign() == sign) + other * (other.sign() == sign)
    monkeypatch.setattr(ways, "_AT_ONCE", 7)
    found = ways.ties(base, [first, second], [1.0, 0.5], density=density, scale=0.8)
    assert torch.equal(found, base + 0.8 * (agreed / torch.where(shares == 0, 1.0, shares)))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.floats(0.05, 5), min_size=2, max_size=4),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
)
def test_properties(seed, weights, dtype):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(3, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in weights]
    base = torch.randn(3, 4, generator=generator, dtype=torch.float64).to(dtype)
    mean = ways.linear(tensors, weights)
    assert mean.dtype == dtype
    of_equals = ways.linear([base] * len(weights), weights)
    assert torch.allclose(of_equals, base, rtol=1e-6 if dtype.itemsize > 2 else 1e-2)
    low, high = torch.stack(tensors).amin(0).double(), torch.stack(tensors).amax(0).double()
    assert ((mean.double() >= low - 0.05) & (mean.double() <= high + 0.05)).all()
    one = ways.task_arithmetic(base, tensors[:1], [1.0])
    assert one.dtype == dtype and torch.allclose(one.double(), tensors[0].double(), atol=1e-2)
    assert torch.equal(ways.task_arithmetic(base, tensors, weights, scale=0.0), base)
    alone = ways.ties(base, tensors[:1], weights[:1], density=1.0)
    assert torch.allclose(alone.double(), tensors[0].double(), atol=1e-2)
    thin = ways.ties(base.double(), [tensor.double() for tensor in tensors[:1]], [1.0], density=0.25)
    assert int((thin != base.double()).sum()) <= 3


@pytest.mark.parametrize(
    ("mix", "models", "has_base", "message"),
    [
        (Mix(((1.0, 1.0),), "magic"), 2, False, "unknown; expected one of linear"),
        (Mix(((1.0,),), "ties"), 1, False, "name it with `base`"),
        (Mix(((1.0, 1.0, 1.0),), "slerp"), 3, False, "expected 2 models, found 3"),
        (Mix(((1.0,),)), 1, False, "name at least 2"),
        (Mix(((1.0,),)), 2, False, "one number for each of the 2"),
        (Mix(((1.0, -1.0),)), 2, False, "at least 0"),
        (Mix(((0.0, 0.0),)), 2, False, "one of them above 0"),
        (Mix(((1.0, float("nan")),)), 2, False, "expected numbers"),
        (Mix(((1.0, 1.0),), "ties", density=0.0), 2, True, "density is 0.0"),
        (Mix(((1.0, 1.0),), "ties", scale=float("inf")), 2, True, "lambda is inf"),
    ],
)
def test_mixes_that_make_no_sense(mix, models, has_base, message):
    with pytest.raises(UsageError, match=message):
        ways.check_mix(mix, models, has_base=has_base)


def test_blocks():
    assert [block_of(f"encoder.layer.{i}.attention.self.query.weight", 12, 3) for i in (0, 3, 4, 7, 8, 11)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert block_of("embeddings.word_embeddings.weight", 12, 3) == 0
    assert block_of("pooler.dense.weight", 12, 3) == block_of("weight", 12, 3, whole=False) == 2


# --- whole folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two tiny bge-m3 with different weights; the second as pytorch_model.bin, with an integer buffer besides."""
    root = tmp_path_factory.mktemp("pair")
    first, second = (make_encoder(root / f"m3-{seed}", "xlmr", pooling="cls", m3=True, seed=seed) for seed in (1, 2))
    state = load_file(second / "model.safetensors")
    (second / "model.safetensors").unlink()
    torch.save({**state, "embeddings.position_ids": torch.arange(514)[None]}, second / "pytorch_model.bin")
    return first, second


def states(folder):
    network = {**load_file(folder / "model.safetensors")}
    for head in ("colbert_linear", "sparse_linear"):
        if (folder / f"{head}.pt").exists():
            loaded = torch.load(folder / f"{head}.pt", weights_only=True)
            network |= {f"{head}.{key}": value for key, value in loaded.items()}
    return network


def test_merged_m3_loads_everywhere(pair, tmp_path):
    from FlagEmbedding import BGEM3FlagModel
    from sentence_transformers import SentenceTransformer

    first, second = pair
    report = merge([str(first), str(second)], str(tmp_path / "out"), Mix(((1.0, 3.0),)))
    out = tmp_path / "out"
    assert json.loads((out / "merge_report.json").read_text()) == report
    assert [model["weight"] for model in report["models"]] == [[0.25], [0.75]]
    left, merged = states(first), states(out)
    right = torch.load(second / "pytorch_model.bin", weights_only=True)
    assert merged.keys() == left.keys()
    for key in right.keys() & left.keys():
        assert torch.allclose(merged[key], 0.25 * left[key] + 0.75 * right[key], atol=1e-6), key
    heads = [torch.load(folder / "sparse_linear.pt", weights_only=True)["weight"] for folder in (first, second)]
    assert torch.allclose(merged["sparse_linear.weight"], 0.25 * heads[0] + 0.75 * heads[1])
    texts = [text for text in TEXTS if text][:6]
    encoder = Encoder.from_pretrained(str(out), runtime="torch", precision="fp32")
    found = encoder.encode(texts, outputs=("dense", "sparse", "multivector"))
    theirs = BGEM3FlagModel(str(out), use_fp16=False, devices="cpu").encode(
        texts, return_dense=True, return_sparse=True, return_colbert_vecs=True
    )
    np.testing.assert_allclose(found.dense, theirs["dense_vecs"], atol=1e-5)
    np.testing.assert_allclose(found.multivector[0], theirs["colbert_vecs"][0], atol=1e-5)
    np.testing.assert_allclose(
        SentenceTransformer(str(out), device="cpu").encode(texts, normalize_embeddings=True), found.dense, atol=1e-5
    )


def test_weight_one_gives_that_model(pair, tmp_path):
    first, second = map(str, pair)
    merge([first, second], str(tmp_path / "out"), Mix(((1.0, 0.0),)))
    merged = states(tmp_path / "out")
    for key, value in states(pair[0]).items():
        assert torch.equal(merged[key], value)


def test_blocks_have_weights_of_their_own(pair, tmp_path):
    first, second = map(str, pair)
    merge([first, second], str(tmp_path / "out"), Mix(((1.0, 0.0), (0.0, 1.0))))
    merged, left = states(tmp_path / "out"), states(pair[0])
    right = torch.load(pair[1] / "pytorch_model.bin", weights_only=True)
    for key in left:
        own = left if "layer.0" in key or "embeddings" in key else right
        if key in own and "linear" not in key:
            assert torch.equal(merged[key], own[key]), key
    assert torch.equal(
        merged["colbert_linear.weight"], torch.load(pair[1] / "colbert_linear.pt", weights_only=True)["weight"]
    )


def test_rerankers(tmp_path, xlmr_reranker):
    from FlagEmbedding import FlagReranker
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    other = tmp_path / "other"
    shutil.copytree(xlmr_reranker, other)
    state = load_file(other / "model.safetensors")
    torch.manual_seed(5)
    tuned = {key: value + 0.1 * torch.randn_like(value) for key, value in state.items()}
    save_file(tuned, other / "model.safetensors", metadata={"format": "pt"})
    names, out = [str(other)], str(tmp_path / "out")
    merge(names, out, Mix(((0.5,),), "task-arithmetic"), base=str(xlmr_reranker))
    merged = load_file(Path(out) / "model.safetensors")
    for key, value in state.items():
        assert torch.allclose(merged[key], value + 0.5 * (tuned[key] - value), atol=1e-6)
    pairs = [("leather wallet", "replica watch"), ("手机壳", "全国销量第一")]
    mine = CrossEncoder.from_pretrained(out, runtime="torch", precision="fp32").score(pairs)
    np.testing.assert_allclose(mine, FlagReranker(out, use_fp16=False, devices="cpu").compute_score(pairs), atol=1e-5)
    np.testing.assert_allclose(
        mine, TheirCrossEncoder(out, device="cpu").predict(pairs, activation_fn=torch.nn.Identity()), atol=1e-5
    )


def test_dense_module_types_and_shards(tmp_path):
    """A Dense module is merged, half precision stays, and shards are read by their index."""
    folders = []
    for seed in (1, 2):
        folder = make_encoder(tmp_path / f"m{seed}", "bert", pooling="mean", seed=seed)
        (folder / "2_Dense").mkdir()
        settings_ = {
            "in_features": 32,
            "out_features": 8,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings_))
        torch.save(
            {"linear.weight": torch.full((8, 32), float(seed)), "linear.bias": torch.zeros(8)},
            folder / "2_Dense" / "pytorch_model.bin",
        )
        modules = json.loads((folder / "modules.json").read_text())
        modules[2] = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        (folder / "modules.json").write_text(json.dumps(modules))
        state = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        names = sorted(state)
        shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
        for shard, keys in shards.items():
            save_file({key: state[key] for key in keys}, folder / shard)
        index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        folders.append(str(folder))
    out = tmp_path / "out"
    merge(folders, str(out), Mix(((1.0, 1.0),), "slerp"))
    merged = load_file(out / "model.safetensors")
    assert {value.dtype for value in merged.values()} == {torch.float16}
    assert not (out / "model.safetensors.index.json").exists()
    assert torch.allclose(load_file(out / "2_Dense" / "model.safetensors")["linear.weight"], torch.tensor(1.5))
    assert Encoder.from_pretrained(str(out), runtime="torch").encode(["a wallet"]).dense.shape == (1, 8)


def changed(source, target, *, config=None, drop=None, vocabulary=False):
    shutil.copytree(source, target)
    if config:
        path = target / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    if drop:
        state = load_file(target / "model.safetensors")
        del state[drop]
        save_file(state, target / "model.safetensors")
    if vocabulary:
        text = (target / "tokenizer.json").read_text(encoding="utf-8")
        (target / "tokenizer.json").write_text(text.replace('"leather"', '"zzleather"'), encoding="utf-8")
    return str(target)


def test_other_networks_are_refused_and_the_difference_named(
    bge_folder, mean_folder, m3_folder, bert_reranker, tmp_path
):
    base = str(bge_folder)
    wide = make_encoder(tmp_path / "wide", "bert")
    state = load_file(wide / "model.safetensors")
    state["embeddings.word_embeddings.weight"] = torch.zeros(7, 32)
    save_file(state, wide / "model.safetensors")
    cased = Path(changed(bge_folder, tmp_path / "cased"))
    tokenizer = json.loads((cased / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    (cased / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    prompted = Path(changed(bge_folder, tmp_path / "prompted"))
    prompts = {"prompts": {"query": "find: "}}
    (prompted / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    plain = Path(changed(bge_folder, tmp_path / "plain"))
    (plain / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": ""}}))
    cases = [
        (
            base,
            changed(bge_folder, tmp_path / "short", drop="encoder.layer.1.output.dense.bias"),
            r"lacks 1 tensors \('encoder.layer.1.output.dense.bias'\)",
        ),
        (base, str(bert_reranker), "one is a reranker, the other an encoder"),
        (base, str(wide), r"other shapes in 1 tensors \(embeddings.word_embeddings.weight \[7, 32\] for"),
        (base, changed(bge_folder, tmp_path / "act", config={"hidden_act": "relu"}), "hidden_act 'relu' for 'gelu'"),
        (base, str(mean_folder), "their pooling differs, 'mean' for 'cls'"),
        (base, changed(bge_folder, tmp_path / "vocab", vocabulary=True), r"it lacks 1 tokens \('leather'\)"),
        (base, str(cased), "tokenizers read"),
        (str(plain), str(prompted), "their query instruction differs, 'find: ' for ''"),
        (base, str(m3_folder), "it has besides 2 parts"),
    ]
    for first, second, message in cases:
        with pytest.raises(ModelError, match=message) as caught:
            merge([first, second], str(tmp_path / "never"), Mix(((1.0, 1.0),)))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "never").exists()


def test_damaged_files(bge_folder, tmp_path):
    broken = Path(changed(bge_folder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model.safetensors: cannot be read"):
        merge([str(bge_folder), str(broken)], str(tmp_path / "out"), Mix(((1.0, 1.0),)))
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        merge([str(bge_folder), str(broken)], str(tmp_path / "out"), Mix(((1.0, 1.0),)))
    (broken / "pytorch_model.bin").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=r"pytorch_model.bin: cannot be read"):
        merge([str(bge_folder), str(broken)], str(tmp_path / "out"), Mix(((1.0, 1.0),)))


def test_nothing_is_left_of_a_merge_that_fails(bge_folder, tmp_path):
    sick = Path(changed(bge_folder, tmp_path / "sick"))
    state = load_file(sick / "model.safetensors")
    state["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(state, sick / "model.safetensors")
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"encoder.layer.1.output.dense.bias merged to NaN"):
        merge([str(bge_folder), str(sick)], str(folder / "out"), Mix(((1.0, 1.0),)))
    assert list(folder.iterdir()) == []
    with pytest.raises(UsageError, match="already exists"):
        merge([str(bge_folder), str(sick)], str(folder), Mix(((1.0, 1.0),)))
    with pytest.raises(UsageError, match="does not exist"):
        merge([str(bge_folder), str(sick)], str(folder / "no" / "out"), Mix(((1.0, 1.0),)))
    with pytest.raises(UsageError, match="9 blocks of layers asked for, but the models have 2"):
        Models([str(bge_folder), str(bge_folder)]).write(str(folder / "out"), Mix(((1.0, 1.0),) * 9))


def test_the_base_gives_buffers_and_types(tmp_path):
    base, tuned = (make_encoder(tmp_path / f"b{seed}", "bert", seed=seed) for seed in (0, 1))
    state = {key: value.bfloat16() for key, value in load_file(base / "model.safetensors").items()}
    state["embeddings.position_ids"] = torch.arange(512)[None]
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    merge([str(tuned)], str(tmp_path / "out"), Mix(((0.0,),), "ties", scale=1.0), base=str(base))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == state.keys()
    for key, value in state.items():
        assert merged[key].dtype == value.dtype and torch.equal(merged[key], value)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell memory")
def test_memory_is_one_tensor_a_model(tmp_path):
    """24 tensors of 2 MB a model: reading and writing them must not hold them all."""
    folders = []
    for seed in (1, 2):
        folder = make_encoder(tmp_path / f"m{seed}", "bert", seed=seed)
        state = load_file(folder / "model.safetensors")
        state |= {f"more.{i}": torch.full((1024, 512), float(seed)) for i in range(24)}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        folders.append(str(folder))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ecom_rag.merging import Mix, Models\n"
        "def own():  # KiB that are not pages of a mapped file\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(status.split('RssAnon:')[1].split()[0])\n"
        "opened = Models(sys.argv[1:3])\n"
        "before, most, total = own(), 0, 0\n"
        "for _, _, tensor in opened.merged(Mix(((0.5, 0.5),))):\n"
        "    total, most = total + 1, max(most, own())\n"
        "print(most - before, total)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *folders], capture_output=True, text=True, check=True)
    grown, total = map(int, result.stdout.split())
    assert total > 24
    assert grown < 40 * 1024  # of 100 MB read
