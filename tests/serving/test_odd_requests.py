"""Odd requests by hand: each is refused with a sentence that helps by itself and repeats nothing of the request."""

import json

import pytest

from helpers import small_service
from helpers.served import logged

RECORD = {"text": "geheim 减肥茶", "metadata": {}}
SECRET = "geheim"
SEEDS = "/v1/banks/goods/seeds"
RECALL, EMBED, RERANK, DECIDE = "/v1/recall", "/v1/embeddings", "/rerank", "/v1/decide"


@pytest.fixture(scope="module")
def service(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("odd")
    with small_service.running(files.copied(folder).settings(folder)) as running:
        yield running


def recall(**others):
    return {"records": [RECORD], **others}


def refused(answer, status):
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "code", "param"} and SECRET not in answer.text
    return found


ODD = [
    (EMBED, {}, 422, "input is missing; it is required", "input"),
    (EMBED, [], 422, "the request: expected a JSON object", None),
    (EMBED, {"input": []}, 422, "input: list expected to have at least 1 item", "input"),
    (EMBED, {"input": ["a"] * 300}, 413, '"input" holds 300 items; at most 256', "input"),
    (EMBED, {"input": ["a", "x" * 40_000]}, 422, "input[1] has 40000 characters; at most 32768", "input[1]"),
    (EMBED, {"input": "长" * 5000, "truncate": False}, 422, "input[0] has more tokens than the 512", "input[0]"),
    (EMBED, {"input": [[1]]}, 422, "input.0: expected a valid string", "input"),
    (EMBED, {"input": SECRET, "dimension": 3}, 422, "did you mean dimensions?", "*"),
    (EMBED, {"input": "a", "dimensions": 33}, 422, '"dimensions" is 33; the model has 32', "dimensions"),
    (EMBED, {"input": "a", "outputs": ["sparse"], "dimensions": 3}, 422, "no effect without the output dense", None),
    (EMBED, {"input": "a", "model": SECRET}, 404, "/v1/models lists", "model"),
    (RERANK, {"query": "a", "documents": []}, 422, "documents: list expected to have at least 1 item", "documents"),
    (RERANK, {"query": "a", "documents": [{"text": "b", SECRET: 1}]}, 422, "documents.0", "documents.0"),
    (RERANK, {"query": "a", "documents": ["b"] * 1001}, 413, "holds 1001 items; at most 1000", "documents"),
    (RECALL, recall(bank=SECRET), 404, "there is no bank of this name; /v1/banks lists them", "bank"),
    (RECALL, recall(top_k=2000), 422, '"top_k" is 2000; at most 1000 is taken', "top_k"),
    (RECALL, recall(top_k=50, depth=10), 422, "depth 10 is less than top-k 50", "depth"),
    (RECALL, recall(routes=["multivector"]), 422, "its routes are bm25, dense, sparse, variant", None),
    (RECALL, recall(rerank=False, blend=0.3), 422, "blend has no effect without a reranker", None),
    (RECALL, recall(filter=f"{SECRET} ="), 422, "filter, character 9: found the end; expected a value", "filter"),
    (RECALL, recall(filter=f"{SECRET} {SECRET}"), 422, "filter, character 8: found '...'; expected =, !=", "filter"),
    (RECALL, recall(filter={SECRET: {SECRET: 1}}), 422, '"in" with a list, "contains" with', "filter"),
    (RECALL, recall(filter="(" * 500), 422, "at most 20 levels", "filter"),
    (RECALL, {"records": [{"text": " "}]}, 422, '"text" is empty', "records"),
    (RECALL, {"records": [{"text": "a", "metadata": None}]}, 422, "records.0.metadata: expected a JSON object", None),
    (DECIDE, {"records": [RECORD], "top_k": 3}, 422, "top_k is unknown", "top_k"),
    (DECIDE, {"records": [{"text": "a", SECRET: 1}]}, 422, "records.0.* is unknown", "records.0.*"),
    ("/v1/admin/banks/goods:swap", {"path": f"/{SECRET}/bank"}, 422, "served as before: no such folder", "path"),
    ("/v1/decisions/dec_x/feedback", {"label": SECRET}, 404, "there is no decision of this id", None),
    ("/v1/decisions/dec_x/feedback", {"label": SECRET, "innocent": True}, 422, "leave one out", "label"),
]


@pytest.mark.parametrize(("path", "body", "status", "said", "param"), ODD, ids=range(len(ODD)))
def test_what_is_wrong_with_a_body(service, path, body, status, said, param):
    found = refused(service("POST", path, json=body), status)
    assert said in found["message"] and (param is None or found["param"] == param)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"input": NaN}', "invalid_number"),
        (b'{"dimensions": 1e999}', "invalid_number"),
        (b'{"input": "geheim", "input": "b"}', "duplicate_key"),
        (b'{"input": "geheim\\ud800"}', "lone_surrogate"),
        (b'{"input": "geheim\xff"}', "not_utf8"),
        (b"[" * 200 + b"]" * 200, "too_deep"),
        (b'{"input": "geheim"', "invalid_json"),
    ],
)
def test_what_is_no_clean_json(service, raw, code):
    answer = service("POST", EMBED, content=raw, headers={"Content-Type": "application/json"})
    assert refused(answer, 400)["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "said"),
    [
        ("GET", "/geheim", {}, 404, "/docs lists all endpoints"),
        ("POST", "/v1/recall/", {}, 404, "there is nothing at this path"),
        ("GET", RECALL, {}, 405, "the header Allow lists"),
        ("OPTIONS", RECALL, {}, 405, "the header Allow lists"),
        ("POST", EMBED, {}, 422, "the request has no body; send JSON"),
        ("GET", f"{SEEDS}/", {}, 422, "at least 1 character"),
        ("GET", f"{SEEDS}/geheim", {}, 404, "the bank has no seed of this id"),
        ("GET", "/v1/banks/geheim/seeds", {}, 404, "there is no bank of this name"),
        ("GET", f"{SEEDS}?cursor=99999999999999999999", {}, 422, "cursor: expected less than or equal to"),
        ("GET", f"{SEEDS}?limit=geheim", {}, 422, "limit: expected a valid integer"),
        ("GET", "/v1/decisions?cursor=geheim", {}, 422, "expected that of the page before"),
        ("GET", "/v1/decisions/geheim", {}, 404, "there is no decision of this id"),
        ("DELETE", SEEDS, {}, 422, "filter is missing"),
        ("DELETE", f"{SEEDS}?filter=label%21%3D%22geheim%22&dry_run=false", {}, 422, "pass `allow_most`"),
        ("DELETE", f"{SEEDS}/s1", {"If-Match": "geheim"}, 422, "if-match: string should match"),
        ("DELETE", f"{SEEDS}/s1", {"Idempotency-Key": "geheim" * 40}, 422, "at most 190 characters"),
        ("GET", "/healthz", {"Host": "geheim.example"}, 403, "use http://127.0.0.1"),
        ("POST", RECALL, {"Origin": "http://geheim"}, 403, "a page of another origin"),
    ],
)
def test_what_is_wrong_beside_the_body(service, method, path, headers, status, said):
    answer = service(method, path, headers=headers)
    assert said in refused(answer, status)["message"]
    assert status != 405 or answer.headers["Allow"] == "POST"


def test_allow_names_all_methods_of_a_path(service):
    assert service("PATCH", SEEDS).headers["Allow"] == "DELETE, GET, PUT"
    assert service("PATCH", "/healthz").headers["Allow"] == "GET, HEAD"
    assert service("HEAD", "/readyz").status_code == 200


def test_nothing_of_a_request_or_of_the_machine_is_told_to_others(service, files):
    with logged() as log:
        body = recall(filter=f'{SECRET} = "{SECRET} value"')
        assert service("POST", RECALL, json=body).json()["results"][0]["topk_sim"] == []
        assert service("POST", "/v1/admin/banks/goods:swap", json={"path": f"/{SECRET}/bank"}).status_code == 422
    lines = [json.loads(line) for line in log.getvalue().splitlines() if line.startswith("{")]
    assert len(lines) == 2 and not any(SECRET in json.dumps(line, ensure_ascii=False) for line in lines)
    assert "/" not in service("GET", "/readyz").text.replace("application/json", "")
