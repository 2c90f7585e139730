"""Real clients against a service with keys: the SDKs of OpenAI and Cohere, httpx, and our own."""

import time

import cohere
import httpx
import numpy as np
import openai
import pytest

from ecom_rag import Client, Encoder, ServiceError
from ecom_rag.serving import keys as own_keys
from ecom_rag.serving.settings import Limits
from helpers import small_service

TEXTS = ["加微信 私下转账", "手机壳", "leather wallet"]


@pytest.fixture(scope="module")
def service(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("clients")
    own = files.copied(folder)
    made = {name: own_keys.add(folder / "keys.json", name, scopes) for name, scopes in SCOPES.items()}
    settings = own.settings(folder, keys=str(folder / "keys.json"))
    with small_service.running(settings) as running:
        yield running, made, folder / "keys.json"


SCOPES = {
    "search": ["read"],
    "writer": ["write"],
    "admin": ["admin"],
    "leaving": ["read"],
    "people": ["read", "review"],
}


@pytest.fixture
def openai_client(service):
    running, keys, _ = service
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=keys["search"], max_retries=0) as client:
        yield client


def test_openai_gives_the_same_numbers_by_base64_and_as_floats(openai_client, files):
    model = openai_client.models.list().data[0].id
    by_default = openai_client.embeddings.create(model=model, input=TEXTS)
    as_floats = openai_client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
    expected = Encoder.from_pretrained(files.encoder, precision="fp32").encode(TEXTS).dense
    for answer in (by_default, as_floats):
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-5)
        assert [one.index for one in answer.data] == [0, 1, 2] and answer.usage.prompt_tokens > 6
    [one] = openai_client.embeddings.create(model=model, input=TEXTS[0], dimensions=8, user="me").data
    assert len(one.embedding) == 8 and np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "kind", "status", "said"),
    [
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, 404, "/v1/models lists"),
        ({"input": []}, openai.UnprocessableEntityError, 422, "at least 1 item"),
        ({"input": [[1, 2]]}, openai.UnprocessableEntityError, 422, "input.0: expected a valid string"),
        ({"dimensions": 4096}, openai.UnprocessableEntityError, 422, "the model has 32"),
        ({"input": "a" * 40_000}, openai.UnprocessableEntityError, 422, "input[0] has 40000 characters"),
        ({"extra_body": {"sid": "query"}}, openai.UnprocessableEntityError, 422, "did you mean side?"),
        ({"extra_headers": {"Content-Type": "text/plain"}}, openai.APIStatusError, 415, "application/json"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_openai_raises_its_own_errors(openai_client, service, files, asked, kind, status, said):
    with pytest.raises(kind) as raised:
        openai_client.embeddings.create(**{"model": str(files.encoder), "input": "a", **asked})
    assert raised.value.status_code == status and said in raised.value.body["message"]
    assert set(raised.value.body) == {"message", "type", "code", "param"}


def test_openai_without_a_valid_key(service):
    running, keys, _ = service
    for key, kind in (("wrong", openai.AuthenticationError), (keys["writer"], openai.PermissionDeniedError)):
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
        with pytest.raises(kind):
            client.embeddings.create(model="any", input="a")


def test_openai_with_bad_json(service):
    running, keys, _ = service
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=keys["search"], max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            client.post("/embeddings", cast_to=object, content=b'{"input":', options={})
    assert raised.value.code == "invalid_json"


def test_cohere_by_both_versions(service, files):
    running, keys, _ = service
    documents = ["七天瘦二十斤的神奇减肥茶", "真皮钱包", "手机壳"]
    model = str(files.reranker)
    for kind in (cohere.ClientV2, cohere.Client):
        client = kind(api_key=keys["search"], base_url=running.url)
        found = client.rerank(model=model, query="减肥茶", documents=documents, top_n=2)
        assert len(found.results) == 2 and found.results[0].relevance_score >= found.results[1].relevance_score
        assert found.meta.api_version.version == "2"
        with pytest.raises(cohere.NotFoundError) as refused:
            client.rerank(model="rerank-v3.5", query="a", documents=documents)
        assert refused.value.body["error"]["code"] == "no_model"
        with pytest.raises(cohere.UnprocessableEntityError):
            client.rerank(model=model, query="a", documents=[])
        with pytest.raises(cohere.UnauthorizedError):
            kind(api_key="wrong", base_url=running.url).rerank(model=model, query="a", documents=documents)
    mapped = cohere.Client(api_key=keys["search"], base_url=running.url).rerank(
        model=model, query="减肥茶", documents=[{"text": one} for one in documents], return_documents=True
    )
    assert {one.document.text for one in mapped.results} == set(documents)


def test_httpx_with_each_way_to_say_the_key(service):
    running, keys, _ = service
    body = {"records": [{"text": TEXTS[0]}]}
    for headers in ({"Authorization": f"Bearer {keys['search']}"}, {"x-api-key": keys["search"]}):
        assert httpx.post(f"{running.url}/v1/recall", json=body, headers=headers).status_code == 200
    nobody = httpx.post(f"{running.url}/v1/recall", json=body)
    assert nobody.status_code == 401 and nobody.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{running.url}/readyz").status_code == 200  # balancers have no key
    assert httpx.head(f"{running.url}/healthz").status_code == 200
    assert httpx.get(f"{running.url}/metrics").status_code == 401


def test_only_an_admin_gives_a_verdict_for_another_person(service):
    running, keys, _ = service
    with Client(running.url, key=keys["people"]) as client:
        [decided] = client.decide([{"text": TEXTS[0], "metadata": {}}])
    said = {"label": "fraud", "actor": "somebody else"}
    place = f"{running.url}/v1/decisions/{decided['decision']['id']}"
    given = {}
    for name in ("people", "admin"):
        headers = {"x-api-key": keys[name]}
        given[name] = httpx.post(f"{place}/feedback", json=said, headers=headers).status_code
    assert given == {"people": 403, "admin": 200}
    own = httpx.post(f"{place}/feedback", json={"label": "fraud"}, headers={"x-api-key": keys["people"]})
    assert own.status_code == 200
    history = httpx.get(place, headers={"x-api-key": keys["people"]}).json()["history"]
    assert [one["actor"] for one in history] == ["somebody else", "people"]


def test_our_client_and_a_key_that_is_revoked_while_the_service_runs(service):
    running, keys, path = service
    with Client(running.url, key=keys["writer"], retries=0) as client, pytest.raises(ServiceError) as refused:
        client.decide([{"text": "a", "metadata": {}}])
    assert refused.value.status == 403 and "has no scope read" in str(refused.value)
    with Client(running.url, key=keys["leaving"], retries=0) as client:
        assert client.embed(TEXTS).shape == (3, 32) and client.embed([]).shape == (0, 0)
        own_keys.revoke(path, "leaving")
        until = time.monotonic() + 20
        with pytest.raises(ServiceError) as gone:
            while time.monotonic() < until:
                client.embed(TEXTS[:1])
                time.sleep(0.1)
    assert gone.value.status == 401 and "revoked" in str(gone.value)


def test_a_key_that_asks_too_often(service, tmp_path, files):
    token = own_keys.add(tmp_path / "keys.json", "fast", ["read"])
    limits = Limits(requests_per_second=0.2, burst=2)
    settings = files.settings(
        tmp_path, keys=str(tmp_path / "keys.json"), limits=limits, banks={}, policies={}, rerank=None, state=None,
        model=str(files.encoder),
    )  # fmt: skip
    with small_service.running(settings) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=token, max_retries=0)
        for _ in range(2):
            client.embeddings.create(model=str(files.encoder), input="a")
        with pytest.raises(openai.RateLimitError) as raised:
            client.embeddings.create(model=str(files.encoder), input="a")
        assert raised.value.code == "rate_limited" and 1 <= int(raised.value.response.headers["Retry-After"]) <= 5
        nothing = httpx.post(f"{running.url}/v1/recall", headers={"x-api-key": token}, json={})
        assert nothing.status_code == 429
