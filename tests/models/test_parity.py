"""The same checkpoint gives the same numbers as FlagEmbedding 1.4.2, in fp32 and within bounds in bf16 and int8."""

import numpy as np
import pytest

from conftest import TEXTS
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.runtimes.cpu import multiplies_int8

pytestmark = [pytest.mark.slow, pytest.mark.reference]

# Both runtimes at full precision must agree closely, the others within their rounding.
RUNS = [
    ("torch", "fp32", 1e-5),
    ("openvino", "fp32", 1e-5),
    ("torch", "bf16", 1e-3),
    ("openvino", "bf16", 1e-3),
    pytest.param("torch", "int8", 5e-3, marks=pytest.mark.skipif(not multiplies_int8(), reason="no int8 instructions")),
]
RUN_IDS = ["torch-fp32", "openvino-fp32", "torch-bf16", "openvino-bf16", "torch-int8"]
MAX_LENGTH = 96  # the long texts are cut


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="session")
def flag_dense(bge_folder, mean_folder, e5_folder):
    from FlagEmbedding import FlagModel

    found = {}
    for folder, pooling, instruction in [
        (bge_folder, "cls", "为这个句子生成表示以用于检索相关文章："),
        (mean_folder, "mean", None),
        (e5_folder, "mean", "query: "),
    ]:
        model = FlagModel(
            str(folder),
            pooling_method=pooling,
            query_instruction_for_retrieval=instruction,
            use_fp16=False,
            devices="cpu",
            query_max_length=MAX_LENGTH,
            passage_max_length=MAX_LENGTH,
        )
        found[folder] = model.encode_queries(TEXTS), model.encode_corpus(TEXTS)
    return found


@pytest.mark.parametrize(("runtime", "precision", "tolerance"), RUNS, ids=RUN_IDS)
@pytest.mark.parametrize("which", ["bge_folder", "mean_folder", "e5_folder"])
def test_dense_equals_flag_embedding(request, flag_dense, which, runtime, precision, tolerance):
    folder = request.getfixturevalue(which)
    queries, corpus = flag_dense[folder]
    passage_instruction = "" if which == "e5_folder" else None  # FlagEmbedding puts none before passages
    encoder = Encoder.from_pretrained(
        str(folder),
        runtime=runtime,
        precision=precision,
        max_length=MAX_LENGTH,
        passage_instruction=passage_instruction,
    )
    assert cosines(encoder.encode(TEXTS, side="query").dense, queries).min() > 1 - tolerance
    assert cosines(encoder.encode(TEXTS).dense, corpus).min() > 1 - tolerance


@pytest.fixture(scope="session")
def flag_m3(m3_folder):
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(m3_folder), use_fp16=False, devices="cpu")
    pairs = [(a, b) for a in TEXTS[:6] for b in TEXTS]
    encoded = model.encode(
        TEXTS, max_length=MAX_LENGTH, return_dense=True, return_sparse=True, return_colbert_vecs=True
    )
    scores = model.compute_score(
        pairs, max_query_length=MAX_LENGTH, max_passage_length=MAX_LENGTH, weights_for_different_modes=[0.4, 0.2, 0.4]
    )
    return encoded, scores


@pytest.mark.parametrize(("runtime", "precision", "tolerance"), RUNS, ids=RUN_IDS)
def test_m3_outputs_equal_flag_embedding(m3_folder, flag_m3, runtime, precision, tolerance):
    encoded, _ = flag_m3
    encoder = Encoder.from_pretrained(str(m3_folder), runtime=runtime, precision=precision, max_length=MAX_LENGTH)
    ours = encoder.encode(TEXTS, outputs=("dense", "sparse", "multivector"))
    assert cosines(ours.dense, encoded["dense_vecs"]).min() > 1 - tolerance
    weight_tolerance = 1e-5 if precision == "fp32" else 0.05
    for row, theirs in enumerate(encoded["lexical_weights"]):
        mine = ours.sparse[row]
        mine = dict(zip(mine.indices.tolist(), mine.data.tolist(), strict=True))
        theirs = {int(token): float(weight) for token, weight in theirs.items()}
        if precision == "fp32":
            assert mine.keys() == theirs.keys()
        for token in mine.keys() | theirs.keys():
            assert mine.get(token, 0) == pytest.approx(theirs.get(token, 0), abs=weight_tolerance)
    for row, theirs in enumerate(encoded["colbert_vecs"]):
        assert ours.multivector[row].shape == theirs.shape
        assert cosines(ours.multivector[row], theirs).min() > 1 - 2 * tolerance


@pytest.mark.parametrize("which", ["xlmr_reranker", "bert_reranker"])
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_reranker_equals_flag_reranker(request, which, runtime):
    from FlagEmbedding import FlagReranker

    folder = str(request.getfixturevalue(which))
    texts = [text for text in TEXTS if "😀" not in text]  # FlagEmbedding on transformers 5 re-reads a decoded [UNK]
    pairs = [(a, b) for a in texts[:9] for b in texts]
    reference = FlagReranker(folder, use_fp16=False, devices="cpu", max_length=MAX_LENGTH)
    theirs = np.array(reference.compute_score(pairs))
    normalized = np.array(reference.compute_score(pairs, normalize=True))
    encoder = CrossEncoder.from_pretrained(folder, runtime=runtime, precision="fp32", max_length=MAX_LENGTH)
    np.testing.assert_allclose(encoder.score(pairs), theirs, atol=1e-4)
    np.testing.assert_allclose(encoder.score(pairs, normalize=True), normalized, atol=1e-4)
    rough = CrossEncoder.from_pretrained(folder, runtime=runtime, precision="bf16", max_length=MAX_LENGTH)
    assert np.abs(rough.score(pairs) - theirs).max() < 0.05 * max(1.0, np.abs(theirs).max())
