"""What the encoder decides about a checkpoint, and how it behaves beyond parity."""

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import numpy as np
import pytest

from conftest import TEXTS, make_encoder
from ecom_rag.errors import EmbeddingError, ModelError, UsageError
from ecom_rag.files import records
from ecom_rag.models import Embeddings, Encoder
from ecom_rag.models.checkpoints import checkpoint as checkpoints
from ecom_rag.models.checkpoints.fingerprint import fingerprint
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.families import family_of
from ecom_rag.models.runtimes.eager import TorchRuntime
from ecom_rag.models.runtimes.placement import Placement, choose

pytestmark = [pytest.mark.slow, pytest.mark.reference]


@pytest.mark.parametrize(
    ("name", "family", "pooling", "query", "passage"),
    [
        ("BAAI/bge-small-zh-v1.5", "bge-zh", "cls", "为这个句子生成表示以用于检索相关文章：", ""),
        ("bge-large-zh", "bge-zh", "cls", "为这个句子生成表示以用于检索相关文章：", ""),
        ("bge-base-en-v1.5", "bge-en", "cls", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-m3", "bge-m3", "cls", "", ""),
        ("intfloat/multilingual-e5-large", "e5", "mean", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", "e5-instruct", "mean", "Instruct: {task}\nQuery: {text}", ""),
        ("thenlper/gte-base", "gte", "mean", "", ""),
        ("BAAI/bge-large-zh-noinstruct", "bge-noinstruct", "cls", "", ""),
        ("intfloat/e5-mistral-7b-instruct", "e5-mistral", "last", "Instruct: {task}\nQuery: {text}", ""),
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding", "last", "Instruct: {task}\nQuery:{text}", ""),
        ("BAAI/bge-en-icl", "bge-icl", "last", "<instruct>{task}\n<query>{text}\n<response>", ""),
        ("maidalun1020/bce-embedding-base_v1", "bce", "cls", "", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm", "mean", "", ""),
    ],
)
def test_families(name, family, pooling, query, passage):
    found = family_of(name)
    assert (found.name, found.pooling, found.query_instruction, found.passage_instruction) == (
        family,
        pooling,
        query,
        passage,
    )


@pytest.mark.parametrize("name", ["Alibaba-NLP/gte-large-en-v1.5", "Alibaba-NLP/gte-multilingual-base", "bert-base"])
def test_names_that_promise_nothing(name):
    assert family_of(name) is None


def test_own_files_win_over_the_name_and_the_log_says_what_was_chosen(tmp_path, caplog):
    folder = make_encoder(tmp_path / "bge-small-zh-v1.5", "bert", pooling="mean")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "Q: "}}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    with caplog.at_level(logging.INFO, "ecom_rag"):
        found = checkpoints.describe(folder)
    assert (found.pooling, found.query_instruction, found.max_length) == ("mean", "Q: ", 64)
    assert "pooling mean (from the folder's pooling file)" in caplog.text
    assert checkpoints.describe(folder, pooling="last").pooling == "last"
    nameless = make_encoder(tmp_path / "nameless", "bert")
    with caplog.at_level(logging.WARNING, "ecom_rag"):
        assert checkpoints.describe(nameless).pooling == "cls"
    assert "using cls (override with `pooling`)" in caplog.text


def test_unsupported_checkpoints_are_refused(tmp_path, bge_folder):
    folder = tmp_path / "copy"
    shutil.copytree(bge_folder, folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "max"}))
    with pytest.raises(ModelError, match="pooling 'max' is not supported"):
        Encoder.from_pretrained(str(folder))
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(both))
    with pytest.raises(ModelError, match="2 poolings at once"):
        Encoder.from_pretrained(str(folder))
    (folder / "modules.json").write_text("[{")
    with pytest.raises(ModelError, match="not valid JSON"):
        Encoder.from_pretrained(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json in this folder"):
        Encoder.from_pretrained(str(folder))


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_any_sentence_transformers_folder(tmp_path, pooling, runtime):
    from sentence_transformers import SentenceTransformer

    folder = make_encoder(tmp_path / "any", "bert", pooling=pooling, seed=3)
    reference = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    ours = Encoder.from_pretrained(str(folder), runtime=runtime, precision="fp32", max_length=512).encode(TEXTS).dense
    np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_dense_modules(tmp_path):
    import torch
    from safetensors.torch import save_file

    folder = make_encoder(tmp_path / "dense", "bert", pooling="mean")
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    config = {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps({**config, "bias": True}))
    torch.manual_seed(1)
    layer = torch.nn.Linear(32, 8)
    weights = {f"linear.{key}": value for key, value in layer.state_dict().items()}
    save_file(weights, folder / "2_Dense/model.safetensors")
    plain = Encoder.from_pretrained(str(folder), runtime="torch", precision="fp32")
    found = plain.encode(TEXTS).dense
    assert found.shape == (len(TEXTS), 8)
    pooled = plain._loaded.runtime._module
    pooled.dense = torch.nn.Sequential()
    without = plain.encode(TEXTS).dense
    assert without.shape == (len(TEXTS), 32)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_threads_may_share_an_encoder(bge_folder, runtime):
    encoder = Encoder.from_pretrained(str(bge_folder), runtime=runtime, precision="fp32", batch_tokens=16)
    texts = [[f"{text} {n} {thread}" for n in range(20) for text in TEXTS] for thread in range(3)]
    expected = [encoder.encode(own).dense for own in texts]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for found, own in zip(pool.map(lambda own: encoder.encode(own).dense, texts), expected, strict=True):
                np.testing.assert_allclose(found, own, atol=1e-6)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_bf16_finds_the_same_neighbours(runtime):
    """On real weights: the same top 10 for 99 % of queries, where seeds within 0.002 of the 10th count as ties."""
    folder = resources.files("ecom_rag") / "sample_data"
    listings, seeds = ([r["text"] for r in records.read(str(folder / f"{n}.jsonl"))] for n in ("listings", "seeds"))
    encoders = [Encoder.from_pretrained("starter", runtime=runtime, precision=p) for p in ("fp32", "bf16")]
    exact, rough = (e.encode(listings).dense @ e.encode(seeds).dense.T for e in encoders)
    agree = 0
    for a, b in zip(exact, rough, strict=True):
        best = np.argsort(-b, kind="stable")[:10]
        agree += (a[best] >= np.sort(a)[-10] - 0.002).all()
    assert agree >= 0.99 * len(listings)


def test_each_distinct_text_is_encoded_once_and_order_is_kept(m3_folder):
    encoder = Encoder.from_pretrained(str(m3_folder), runtime="torch", precision="fp32", batch_tokens=64)
    seen = []
    original = encoder._loaded.runtime.run
    encoder._loaded.runtime.run = lambda batches, outputs: original(
        (seen.append(len(b.rows)) or b for b in batches), outputs
    )
    done = []
    texts = [*TEXTS, *TEXTS[::-1], TEXTS[0]]
    outputs = ("dense", "sparse", "multivector")
    together = encoder.encode(texts, outputs=outputs, progress=done.append)
    assert sum(seen) == len(TEXTS) and sum(done) == len(texts) == len(together)
    for row, text in enumerate(texts):
        alone = encoder.encode([text], outputs=outputs)
        np.testing.assert_allclose(together.dense[row], alone.dense[0], atol=1e-5)
        np.testing.assert_allclose(together.sparse[row].toarray(), alone.sparse.toarray(), atol=1e-5)
        np.testing.assert_allclose(together.multivector[row], alone.multivector[0], atol=1e-5)


def test_no_texts(m3_folder):
    encoder = Encoder.from_pretrained(str(m3_folder))
    nothing = encoder.encode([], outputs=("dense", "sparse", "multivector"))
    assert len(nothing) == 0 and nothing.sparse.shape[0] == 0


def test_truncate_dim_and_max_length(bge_folder):
    whole = Encoder.from_pretrained(str(bge_folder), precision="fp32")
    short = Encoder.from_pretrained(str(bge_folder), precision="fp32", truncate_dim=8)
    cut = whole.encode(TEXTS).dense[:, :8]
    np.testing.assert_allclose(short.encode(TEXTS).dense, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    assert short.fingerprint != whole.fingerprint
    with pytest.raises(UsageError, match="`truncate_dim` is 9999; expected 1 to 32"):
        Encoder.from_pretrained(str(bge_folder), truncate_dim=9999)
    eight = Encoder.from_pretrained(str(bge_folder), precision="fp32", max_length=8)
    long = "abcdef" * 20_000  # 120,000 characters
    np.testing.assert_allclose(eight.encode([long]).dense, eight.encode([long[:600]]).dense, atol=1e-6)


def test_a_hub_models_family_is_known_by_its_name(bge_folder, tmp_path, monkeypatch):
    """The hub's cache names the folder by a digest, and what _name_or_path says may be anything."""
    snapshot = tmp_path / "snapshots" / "0123abcd"
    shutil.copytree(bge_folder, snapshot)
    monkeypatch.setattr("ecom_rag.models.encoder.locate", lambda model: snapshot)
    found = Encoder.from_pretrained("intfloat/e5-base-v2").settings
    assert (found["query_instruction"], found["passage_instruction"]) == ("query: ", "passage: ")


def test_nan_in_the_weights_is_an_error(tmp_path):
    import torch
    from transformers import BertModel

    folder = make_encoder(tmp_path / "nan", "bert", pooling="cls")
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(EmbeddingError, match="NaN or infinity"):
        Encoder.from_pretrained(str(folder)).encode(["text"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_incomplete_weights_are_refused(tmp_path, precision):
    from safetensors.torch import load_file, save_file

    folder = make_encoder(tmp_path / "part", "bert", pooling="cls")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the weights lack .*encoder\.layer\.1\.output\.dense\.weight"):
        Encoder.from_pretrained(str(folder), precision=precision)


def test_fingerprint_follows_the_content_and_conversions_are_kept(tmp_path, monkeypatch):
    first = make_encoder(tmp_path / "a", "bert", pooling="cls", seed=11)
    other = make_encoder(tmp_path / "b", "bert", pooling="cls", seed=12)
    shutil.copytree(first, tmp_path / "copy")
    assert fingerprint(first) == fingerprint(tmp_path / "copy")
    assert fingerprint(first) != fingerprint(other)
    expected = Encoder.from_pretrained(str(first), runtime="openvino").encode(TEXTS).dense
    monkeypatch.setattr("ecom_rag.models.networks.modules.load_transformer", lambda *a: pytest.fail("converted twice"))
    again = Encoder.from_pretrained(str(tmp_path / "copy"), runtime="openvino").encode(TEXTS).dense
    np.testing.assert_array_equal(again, expected)


def test_embeddings_survive_a_file(tmp_path, m3_folder):
    encoder = Encoder.from_pretrained(str(m3_folder))
    made = encoder.encode(TEXTS, outputs=("dense", "sparse", "multivector"))
    made.save(tmp_path / "e.npz")
    back = Embeddings.concatenate([Embeddings.load(tmp_path / "e.npz"), made.take(np.array([2, 0]))])
    rows = [*range(len(TEXTS)), 2, 0]
    np.testing.assert_array_equal(back.dense, made.dense[rows])
    assert (back.sparse != made.sparse[rows]).nnz == 0
    for new, old in enumerate(rows):
        np.testing.assert_array_equal(back.multivector[new], made.multivector[old])


def test_out_of_memory_halves_the_batch_and_goes_on(bge_folder, caplog):
    import torch

    encoder = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32", batch_tokens=100_000)
    expected = encoder.encode(TEXTS).dense
    inner, sizes = encoder._loaded.runtime._module, []

    class Small(torch.nn.Module):
        def forward(self, ids, mask, outputs):
            sizes.append(ids.numel())
            if ids.numel() > 1100:
                raise torch.OutOfMemoryError
            return inner(ids, mask, outputs)

    encoder._loaded.placement = Placement("torch", "fp32", "cpu")
    encoder._loaded.runtime = TorchRuntime(Small(), encoder._loaded.placement)
    with caplog.at_level(logging.WARNING, "ecom_rag"):
        np.testing.assert_allclose(encoder.encode(TEXTS).dense, expected, atol=1e-5)
    assert "out of memory" in caplog.text
    failures = len([size for size in sizes if size > 1100])
    encoder.encode(TEXTS)
    assert len([size for size in sizes if size > 1100]) == failures  # the size that fits is remembered

    class Full(torch.nn.Module):
        def forward(self, ids, mask, outputs):
            raise torch.OutOfMemoryError

    encoder._loaded.runtime = TorchRuntime(Full(), Placement("torch", "fp32", "cpu"))
    with pytest.raises(ModelError, match="lower `max_length`"):
        encoder.encode(["text"])


def test_what_does_not_go_together():
    assert choose("auto", "fp32", "cpu", {"model_type": "distilbert"}).runtime == "openvino"
    assert choose("auto", "auto", "cpu", {"model_type": "qwen3"}).runtime == "torch"
    for arguments, message in [
        (("onnx", "auto", "auto", "bert"), "runtime 'onnx' is unknown"),
        (("auto", "int4", "auto", "bert"), "precision 'int4' is unknown"),
        (("openvino", "auto", "cuda", "bert"), "openvino runs on the CPU"),
        (("auto", "auto", "cuda0", "bert"), "expected auto, cpu, cuda or cuda:N"),
    ]:
        with pytest.raises(UsageError, match=message):
            choose(*arguments)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "mistral", "gemma2"])
@pytest.mark.parametrize(("prefers", "precision"), [(True, "bf16"), (False, "fp32")])
def test_decoders_run_in_bf16_where_the_processor_prefers_it(monkeypatch, kind, prefers, precision):
    monkeypatch.setattr("ecom_rag.models.runtimes.cpu.prefers_bf16", lambda: prefers)
    assert choose("auto", "auto", "cpu", {"model_type": kind}) == Placement("torch", precision, "cpu")
    assert choose("auto", "fp32", "cpu", {"model_type": kind}).precision == "fp32"
    assert choose("auto", "auto", "cpu", {"model_type": kind}, reranks=True) == Placement("torch", "fp32", "cpu")


def test_missing_heads_are_errors(bge_folder):
    encoder = Encoder.from_pretrained(str(bge_folder))
    assert encoder.outputs == ("dense",)
    with pytest.raises(ModelError, match=r"colbert_linear\.pt is missing"):
        encoder.encode(["a"], outputs=("multivector",))
    with pytest.raises(UsageError, match="output 'colbert' is unknown"):
        encoder.encode(["a"], outputs=("colbert",))
    with pytest.raises(UsageError, match="expected query or passage"):
        encoder.encode(["a"], side="seed")


@pytest.mark.parametrize("lengths", [[3, 9, 9, 15], [16, 20, 33], [40, 40]])
@pytest.mark.parametrize("kind", ["bert", "xlmr"])
@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.9998), ("fp32", 0.999999), ("int8", 0.999)])
def test_fused_layers_equal_transformers(tmp_path, kind, lengths, precision, cosine):
    """Each position, padding among them, over both attention kernels; and the first position computed alone."""
    import torch
    import transformers

    from ecom_rag.models.checkpoints.weights import Weights
    from ecom_rag.models.networks.fused import FusedTransformer, supported

    torch.manual_seed(3)
    shape = {"vocab_size": 99, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
    if kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(**shape, intermediate_size=64))
    else:
        model = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**shape, intermediate_size=64))
    if not supported(model.config.to_dict(), precision):
        pytest.skip("this torch has no fused layers")
    longest = max(lengths)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 99, mask.shape) * mask + model.config.pad_token_id * (1 - mask)
    types = None if kind == "xlmr" else (torch.arange(longest) > 4).long() * mask
    with torch.inference_mode():
        expected = model.eval()(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        fused = FusedTransformer(model.config.to_dict(), Weights(model.state_dict(), tmp_path), precision)
        whole = fused(ids, mask, types).last_hidden_state.float()
        first = fused(ids, mask, types, first_only=True).last_hidden_state.float()
    assert torch.cosine_similarity(whole, expected, dim=-1)[mask.bool()].min() > cosine
    assert torch.cosine_similarity(first[:, 0], expected[:, 0], dim=-1).min() > cosine


def test_int8_kernels_equal_plain_numpy():
    """Rounding, GELU and LayerNorm as their definitions have them; a row of zeros, and damage that must show."""
    import torch

    from ecom_rag.models.networks import int8_kernels as kernels

    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 70)).astype(np.float32) * np.float32([[1], [1e-6], [300], [0], [1]])
    x[4, 3] = np.nan
    q, scales = np.empty(x.shape, np.int8), np.empty(5, np.float32)
    kernels.quantize(x, q, scales)
    assert np.isnan(scales[4]) and scales[3] == 0 and not q[3].any()
    np.testing.assert_allclose(scales[:3], np.abs(x[:3]).max(axis=1) / 127, rtol=1e-6)
    assert np.abs(q[:3].astype(int)).max(axis=1).tolist() == [127] * 3
    assert (np.abs(q[:3] * scales[:3, None] - x[:3]) <= 0.501 * scales[:3, None]).all()

    product = rng.integers(-90_000, 90_000, (4, 70)).astype(np.int32)
    rows, columns = rng.random(4).astype(np.float32), rng.random(70).astype(np.float32) * np.float32(1e-4)
    bias, gain, shift = (rng.standard_normal(70).astype(np.float32) for _ in range(3))
    wide = (product * rows[:, None].astype(float) * columns + bias).astype(np.float32)
    out = np.empty((4, 70), np.float32)
    kernels.widen(product, rows, columns, bias, out)
    np.testing.assert_allclose(out, wide, atol=1e-5)

    kernels.gelu_quantize(product, rows, columns, bias, q[:4], scales[:4])
    expected = torch.nn.functional.gelu(torch.from_numpy(wide)).numpy()
    assert (np.abs(q[:4] * scales[:4, None] - expected) <= 0.501 * scales[:4, None] + 1e-5).all()

    residual = rng.standard_normal((4, 70)).astype(np.float32)
    kernels.add_norm(product, rows, columns, bias, residual, gain, shift, np.float32(1e-12), out)
    parts = [torch.from_numpy(part) for part in (wide + residual, gain, shift)]
    np.testing.assert_allclose(out, torch.nn.functional.layer_norm(parts[0], (70,), *parts[1:]).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "auto", "int8"),
    [
        ("GenuineIntel avx512_bf16 avx512_vnni amx_bf16 amx_int8", "bf16", True),
        ("GenuineIntel avx512_bf16 avx512_vnni", "fp32", True),
        ("AuthenticAMD avx512_bf16 avx512_vnni", "bf16", True),
        ("GenuineIntel avx2", "fp32", False),
    ],
)
def test_precision_by_processor(monkeypatch, flags, auto, int8):
    from ecom_rag.models.runtimes import cpu

    monkeypatch.setattr(cpu, "info", lambda: flags)
    config = {"model_type": "bert"}
    assert choose("auto", "auto", "cpu", config) == Placement("torch", auto, "cpu", True)
    if int8:
        assert choose("auto", "int8", "cpu", config) == Placement("torch", "int8", "cpu", True)
    else:
        with pytest.raises(UsageError, match="needs a CPU with int8 instructions"):
            choose("auto", "int8", "cpu", config)
    with pytest.raises(UsageError, match="this checkpoint is 'mpnet'"):
        choose("auto", "int8", "cpu", {"model_type": "mpnet"})
    with pytest.raises(UsageError, match="int8 runs in torch"):
        choose("openvino", "int8", "cpu", config)


def test_tokenizer_from_the_cache_is_the_checkpoints(mean_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path))
    texts = ["leather bag 皮包", "", "x" * 900]
    first, second = Tokenizer(mean_folder), Tokenizer(mean_folder)
    kept = sorted((tmp_path / "tokenizers").iterdir())
    assert [path.suffix for path in kept] == [".json", ".tokenizer"]
    kept[1].write_text("{damaged")
    for other in (second, Tokenizer(mean_folder)):
        assert np.array_equal(other.ids(texts, 64).values, first.ids(texts, 64).values)
        for layout in ("single", "pair"):
            assert np.array_equal(getattr(other, layout).suffix, getattr(first, layout).suffix)
        for fact in ("pad_id", "vocab_size", "uses_token_types", "max_length"):
            assert getattr(other, fact) == getattr(first, fact)
        assert np.array_equal(other.unweighted_ids, first.unweighted_ids)


def test_a_damaged_head_is_one_line(m3_folder, tmp_path):
    shutil.copytree(m3_folder, tmp_path / "m3")
    (tmp_path / "m3" / "sparse_linear.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"sparse_linear\.pt: cannot be read .*; copy it again"):
        Encoder.from_pretrained(str(tmp_path / "m3"), runtime="torch", precision="fp32").encode(["a"])


def test_bf16_is_not_fused_where_onednn_cannot(monkeypatch):
    """An AVX2 processor that is asked for bf16 gets OpenVINO, as before the layers were fused in float32."""
    import torch

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert choose("auto", "bf16", "cpu", {"model_type": "bert"}) == Placement("openvino", "bf16", "cpu", False)
    assert choose("auto", "fp32", "cpu", {"model_type": "bert"}) == Placement("torch", "fp32", "cpu", True)


def test_a_second_start_takes_the_tokenizer_from_the_cache(bge_folder, monkeypatch):
    """Else each start imports transformers, which takes longer than encoding a small file."""
    from ecom_rag.models.checkpoints import tokenizer_cache

    first = Tokenizer(bge_folder)
    monkeypatch.setattr(tokenizer_cache, "_from_checkpoint", None)
    second = Tokenizer(bge_folder)
    assert second.vocab_size == first.vocab_size
    assert second.ids(TEXTS, 64).values.tolist() == first.ids(TEXTS, 64).values.tolist()
