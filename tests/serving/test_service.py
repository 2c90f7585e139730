"""The service gives what the command line gives, over the same bank and models."""

import base64
import json

import numpy as np
import pytest

from ecom_rag import Client, CrossEncoder, Encoder, Pipeline, Recall, SeedBank, ServiceError, load_policy
from ecom_rag.decision import Deciding
from helpers import small_service

TEXTS = ["加微信 私下转账 甲", "七天 瘦二十斤 乙", "手机壳", "", "这是一条特别长的描述，用来超过长度限制。" * 60]


@pytest.fixture(scope="module")
def made(tmp_path_factory, files):
    own = files.copied(tmp_path_factory.mktemp("service"))
    return own.settings(own.bank.parent), own.bank, own.policy


@pytest.fixture(scope="module")
def service(made):
    with small_service.running(made[0]) as found:
        yield found


SOUND = [text for text in TEXTS if text]  # a record has a text


def records(*texts):
    return [{"text": text, "metadata": {"id": f"q{number}"}} for number, text in enumerate(texts)]


def assert_alike(found, expected, *, tolerance=2e-5):
    """Equal, but for the last digits of scores."""
    assert [list(one) for one in found] == [list(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["topk_sim"], other["topk_sim"], atol=tolerance)
        for key in ("text", "metadata", "topk_seed", "topk_metadata"):
            assert one[key] == other[key]


def test_embeddings_of_all_outputs(service, m3_folder):
    body = {"input": TEXTS, "outputs": ["dense", "sparse", "multivector"], "side": "query"}
    as_numbers = service("POST", "/v1/embeddings", json=body).json()
    as_text = service("POST", "/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    encoder = Encoder.from_pretrained(m3_folder, precision="fp32")
    expected = encoder.encode(TEXTS, side="query", outputs=("dense", "sparse", "multivector"))
    for place, (one, other) in enumerate(zip(as_numbers["data"], as_text["data"], strict=True)):
        np.testing.assert_allclose(one["embedding"], expected.dense[place], atol=1e-5)
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(other["embedding"]), "<f4"), one["embedding"])
        sparse = expected.sparse[place]
        assert one["sparse"]["indices"] == sorted(sparse.indices.tolist())
        np.testing.assert_allclose(one["sparse"]["values"], sparse.data[np.argsort(sparse.indices)], atol=1e-5)
        np.testing.assert_allclose(one["multivector"]["values"], expected.multivector[place], atol=1e-5)
    assert [one["truncated"] for one in as_numbers["data"]] == [False] * 4 + [True]
    ids = encoder.prepare(TEXTS, side="query")
    assert as_numbers["usage"]["total_tokens"] == int(ids.tokens.sum())


def test_dimensions_are_cut_and_of_length_one_again(service):
    body = {"input": "手机壳", "dimensions": 8}
    [whole], [cut] = (service("POST", "/v1/embeddings", json=one).json()["data"] for one in ({"input": "手机壳"}, body))
    expected = np.array(whole["embedding"][:8])
    np.testing.assert_allclose(cut["embedding"], expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_reranking(service, xlmr_reranker, path):
    documents = ["七天瘦二十斤的神奇减肥茶", "真皮钱包", "手机壳"]
    body = {"query": "减肥茶", "documents": documents, "top_n": 2, "return_documents": True}
    found = service("POST", path, json=body).json()["results"]
    expected = CrossEncoder.from_pretrained(xlmr_reranker, precision="fp32").score(
        [("减肥茶", one) for one in documents], normalize=True
    )
    assert [one["index"] for one in found] == np.argsort(-expected, kind="stable")[:2].tolist()
    np.testing.assert_allclose([one["relevance_score"] for one in found], np.sort(expected)[::-1][:2], atol=1e-5)
    assert [one["document"]["text"] for one in found] == [documents[one["index"]] for one in found]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"routes": ("bm25", "dense"), "top_k": 3},
        {"routes": ("dense",), "top_k": 2},
        {"fusion": "rrf", "depth": 7},
        {"weights": {"bm25": 1.0, "dense": 0.2, "sparse": 0.5, "variant": 0.1}},
        {"filter": 'label = "fraud"'},
        {"exclude_self": True},
        {"rerank": True, "normalize": True, "blend": 0.5},
    ],
    ids=str,
)
def test_recall(service, made, xlmr_reranker, asked):
    queries = records(*SOUND) + small_service.listings(2)
    body = {"records": queries, "rerank": False, **asked}
    found = service("POST", "/v1/recall", json=json.loads(json.dumps(body))).json()
    settings = {"top_k": 5, "depth": 20, **{key: value for key, value in asked.items() if key != "rerank"}}
    reranker = CrossEncoder.from_pretrained(xlmr_reranker, precision="fp32") if asked.get("rerank") else None
    with SeedBank.open(made[1]) as bank:
        encoder = bank.model.load(precision="fp32")
        expected = Pipeline(bank, Recall(**settings), encoder=encoder, cross_encoder=reranker).recall(queries)
        assert found["bank"] == {"name": "goods", "id": bank.view().__enter__().name, "sequence": bank.sequence}
    assert_alike(found["results"], expected)
    assert found["truncated"] == ([3] if asked.get("routes") != ("bm25",) else [])


def test_a_filter_that_no_seed_meets_is_told(service):
    body = {"records": records("手机壳"), "filter": 'lable = "fraud"'}
    found = service("POST", "/v1/recall", json=body).json()
    assert found["results"][0]["topk_seed"] == []
    assert any("lable" in note for note in found["notes"])
    assert service("POST", "/v1/recall", json={"records": records("手机壳")}).json()["notes"] == []


def test_decide(service, made):
    queries = records(*SOUND) + small_service.listings(30, start=5000)
    found = service("POST", "/v1/decide", json={"records": queries}).json()["results"]
    policy = load_policy(made[2])
    with SeedBank.open(made[1]) as bank:
        pipeline = Pipeline(
            bank, Recall(routes=small_service.ROUTES, top_k=5), encoder=bank.model.load(precision="fp32")
        )
        deciding = Deciding(policy)
        with pipeline.view() as view:
            deciding.begin(pipeline.provenance(view), None)
        expected = deciding.block(pipeline.recall(queries))[0]
    assert_alike(found, expected)
    actions = [one["decision"]["action"] for one in found]
    assert len(set(actions)) > 1
    for one, other in zip(found, expected, strict=True):
        assert one["decision"].pop("id").startswith("dec_")
        close = {key: one["decision"].pop(key) for key in ("probability", "probabilities")}
        other = dict(other["decision"])
        assert close["probability"] == pytest.approx(other.pop("probability"), abs=1e-4)
        assert close["probabilities"] == pytest.approx(other.pop("probabilities"), abs=1e-4)
        assert one["decision"] == json.loads(json.dumps(other))


def test_the_client(service, m3_folder):
    with Client(service.url) as client:
        queries = records(*SOUND) * 20
        assert [one["text"] for one in client.recall(queries, top_k=1)] == [one["text"] for one in queries]
        decided = client.decide(queries[:3])
        client.feedback(decided[0]["decision"]["id"], "fraud", note="seen before")
        vectors = Encoder.from_pretrained(m3_folder, precision="fp32").encode(TEXTS).dense
        np.testing.assert_allclose(client.embed(TEXTS), vectors, atol=1e-5)
        assert client.rerank("茶", ["减肥茶", "钱包"]).shape == (2,)
        with pytest.raises(ServiceError, match="no bank of this name") as refused:
            client.recall(queries[:1], bank="other")
        assert refused.value.status == 404


def test_a_service_that_is_not_there():
    with Client("http://127.0.0.1:9", retries=0) as client, pytest.raises(ServiceError, match="is the service running"):
        client.embed(["a"])
