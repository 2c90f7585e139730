"""The two halves of encoding and scoring: what is prepared, that running it gives the same, and who may call them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conftest import TEXTS
from ecom_rag.errors import UsageError
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.token_ids import TokenIds

pytestmark = pytest.mark.slow

OUTPUTS = ("dense", "sparse", "multivector")
PAIRS = [(a, b) for a in TEXTS[:5] for b in [*TEXTS, TEXTS[0]]]
RUNS = [("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32")]


def same(one, other):
    """Bit for bit."""
    np.testing.assert_array_equal(one.dense, other.dense)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.sparse, part), getattr(other.sparse, part))
    np.testing.assert_array_equal(one.multivector.values, other.multivector.values)
    np.testing.assert_array_equal(one.multivector.offsets, other.multivector.offsets)


@pytest.mark.parametrize(("runtime", "precision"), RUNS)
def test_encode_is_run_of_prepare(m3_folder, monkeypatch, runtime, precision):
    encoder = Encoder.from_pretrained(str(m3_folder), runtime=runtime, precision=precision, batch_tokens=128)
    texts = [*TEXTS, *TEXTS[::-1]]
    for side in ("query", "passage"):
        whole = encoder.encode(texts, side=side, outputs=OUTPUTS)
        ids = encoder.prepare(texts, side=side)
        with monkeypatch.context() as patch:
            patch.setattr(type(encoder._loaded.tokenizer), "cut_ids", lambda *_: pytest.fail("tokenised again"))
            same(encoder.run(ids, outputs=OUTPUTS), whole)
    assert len(encoder.run(encoder.prepare([]))) == 0


@pytest.mark.parametrize("which", ["xlmr_reranker", "bert_reranker"])
def test_score_is_run_of_prepare(request, which):
    model = CrossEncoder.from_pretrained(str(request.getfixturevalue(which)), batch_tokens=128, max_length=64)
    ids, done = model.prepare(PAIRS), []
    assert (len(ids), len(ids.ids)) == (len(PAIRS), len(set(PAIRS)))
    for normalize in (False, True):
        found = model.run(ids, normalize=normalize, progress=done.append)
        np.testing.assert_array_equal(found, model.score(PAIRS, normalize=normalize))
    assert sum(done) == 2 * len(PAIRS)
    assert len(model.run(model.prepare([]))) == 0


def test_tokens_are_those_of_the_checkpoints_own_tokenizer(bge_folder):
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(bge_folder)
    encoder = Encoder.from_pretrained(str(bge_folder), max_length=24)
    texts = [*TEXTS, TEXTS[0], "leather " * 22, "leather " * 23]  # 24 tokens with the special ones fit, 25 do not
    ids = encoder.prepare(texts)
    assert ids.tokens.tolist() == [len(found) for found in reference(texts, truncation=True, max_length=24).input_ids]
    assert ids.truncated.tolist() == [len(found) > 24 for found in reference(texts).input_ids]
    assert ids.truncated[-2:].tolist() == [False, True]
    asked = encoder.checkpoint.query_instruction
    prefixed = reference([asked + text for text in texts], truncation=True, max_length=24).input_ids
    assert encoder.prepare(texts, side="query").tokens.tolist() == [len(found) for found in prefixed]


def test_tokens_of_pairs(bert_reranker):
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(bert_reranker)
    ids = CrossEncoder.from_pretrained(str(bert_reranker), max_length=32).prepare(PAIRS)
    cut = 0
    for (query, document), tokens, truncated in zip(PAIRS, ids.tokens, ids.truncated, strict=True):
        whole = len(reference(query, document).input_ids) if document else len(reference(query).input_ids)
        long_query = len(reference(query, add_special_tokens=False).input_ids) > 24
        assert truncated == (whole > 32 or long_query)
        assert tokens == whole if not truncated else tokens <= 32
        cut += truncated
    assert 0 < cut < len(PAIRS)


def test_requests_are_joined_and_parted_again(m3_folder, bert_reranker):
    encoder = Encoder.from_pretrained(str(m3_folder), precision="fp32")
    parts = [TEXTS[:3], [], [TEXTS[0], TEXTS[0]], TEXTS[5:]]
    together = encoder.run(TokenIds.concatenate([encoder.prepare(part) for part in parts]), outputs=OUTPUTS)
    start = 0
    for part in parts:
        found = together.take(np.arange(start, start := start + len(part)))
        expected = encoder.encode(part, outputs=OUTPUTS)
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
        np.testing.assert_allclose(found.sparse.toarray(), expected.sparse.toarray(), atol=1e-5)
        assert found.multivector.lengths.tolist() == expected.multivector.lengths.tolist()
    model = CrossEncoder.from_pretrained(str(bert_reranker), precision="fp32")
    joined = TokenIds.concatenate([model.prepare(PAIRS[:20]), model.prepare(PAIRS[15:])])
    expected = np.concatenate([model.score(PAIRS[:20]), model.score(PAIRS[15:])])
    np.testing.assert_allclose(model.run(joined), expected, atol=1e-5)


def test_token_ids_of_another_model_are_refused(bge_folder, mean_folder):
    one, other = (Encoder.from_pretrained(str(folder)) for folder in (bge_folder, mean_folder))
    with pytest.raises(UsageError, match="prepare the texts with the model that runs them"):
        one.run(other.prepare(TEXTS))
    with pytest.raises(UsageError, match="found token ids of 2 models"):
        TokenIds.concatenate([one.prepare(TEXTS), other.prepare(TEXTS)])
    with pytest.raises(UsageError, match="found token ids of 0 models"):
        TokenIds.concatenate([])


@pytest.mark.parametrize(("runtime", "precision"), RUNS)
def test_threads_at_once_give_the_numbers_of_one_after_the_other(m3_folder, bert_reranker, runtime, precision):
    options = {"runtime": runtime, "precision": precision, "batch_tokens": 64}
    encoder = Encoder.from_pretrained(str(m3_folder), **options)
    model = CrossEncoder.from_pretrained(str(bert_reranker), **options)
    texts = [[f"{text[:90]} {n} {thread}" for n in range(8) for text in TEXTS] for thread in range(2)]
    expected = [encoder.encode(own, outputs=OUTPUTS) for own in texts]
    scores = [model.score(zip(own, own[::-1], strict=True)) for own in texts]

    def work(thread):
        own = texts[thread]
        found = encoder.run(encoder.prepare(own), outputs=OUTPUTS)
        return found, model.run(model.prepare(zip(own, own[::-1], strict=True)))

    with ThreadPoolExecutor(2) as pool:
        for thread, (found, scored) in enumerate(pool.map(work, [0, 1])):
            same(found, expected[thread])
            np.testing.assert_array_equal(scored, scores[thread])
