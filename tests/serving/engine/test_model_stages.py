"""The models behind batchers give what they give by themselves."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.serving.engine.models import EncoderStage, RerankerStage, embeddings_of
from ecom_rag.serving.problems import Problem

TEXTS = ["加微信私下转账便宜", "leather wallet", "", "手机壳 手机壳", "这是一条特别长的描述，用来超过长度限制。" * 60]


@pytest.fixture(scope="module")
def m3(m3_folder):
    return Encoder.from_pretrained(m3_folder, precision="fp32")


def play(stage, *calls):
    async def main():
        return await asyncio.gather(*(call(stage) for call in calls))

    return asyncio.run(main())


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as found:
        yield found


def test_requests_of_both_sides_share_a_batch_and_get_the_same_numbers(m3, executor):
    ran = []
    stage = EncoderStage(m3, executor, queue_seconds=5, watch=ran.append)
    outputs = ("dense", "sparse", "multivector")
    as_query, as_passage, alone = play(
        stage,
        lambda own: own.encode(TEXTS[:3], side="query", outputs=outputs),
        lambda own: own.encode(TEXTS[1:], side="passage", outputs=outputs),
        lambda own: own.encode(TEXTS[:1], side="passage"),
    )
    assert sum(one.units for one in ran) == 8
    for found, texts, side in ((as_query, TEXTS[:3], "query"), (as_passage, TEXTS[1:], "passage")):
        joined = embeddings_of(found)
        expected = m3.encode(texts, side=side, outputs=outputs)
        np.testing.assert_allclose(joined.dense, expected.dense, atol=1e-5)
        np.testing.assert_allclose(joined.sparse.toarray(), expected.sparse.toarray(), atol=1e-5)
        np.testing.assert_allclose(joined.multivector.values, expected.multivector.values, atol=1e-5)
    assert alone[0].sparse is None
    assert [one.truncated for one in as_passage] == [False, False, False, True]
    assert as_passage[3].tokens == m3.settings["max_length"]
    assert all((np.diff(one.sparse.indices) > 0).all() for one in as_passage)


def test_a_text_that_must_not_be_cut_is_refused(m3, executor):
    stage = EncoderStage(m3, executor, queue_seconds=5)
    with pytest.raises(Problem, match=r"input\[1\] has more tokens than the 512") as refused:
        play(stage, lambda own: own.encode(["a", TEXTS[-1]], side="passage", truncate=False))
    assert refused.value.status == 422


def test_pairs_of_several_requests(xlmr_reranker, executor):
    model = CrossEncoder.from_pretrained(xlmr_reranker, precision="fp32")
    stage = RerankerStage(model, executor, queue_seconds=5)
    first, second = [("手机壳", text) for text in TEXTS], [("wallet", TEXTS[1])]
    found = play(stage, lambda own: own.score(first), lambda own: own.score(second))
    for pairs, scores in zip((first, second), found, strict=True):
        np.testing.assert_allclose([one.logit for one in scores], model.score(pairs), atol=1e-5)
    assert [one.truncated for one in found[0]] == [False, False, False, False, True]
