"""One shape for everything that goes wrong, and no text of a request in any answer or log line."""

import errno
import json
import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag import errors as library
from ecom_rag.filters.parse import parse as parse_filter
from ecom_rag.pipeline.settings import Recall
from ecom_rag.serving import keys
from ecom_rag.serving.http.redact import KNOWN, redacted, strings
from ecom_rag.serving.keys import Keys
from ecom_rag.serving.problems import TYPES, Problem
from helpers.served import Client, logged, serving, small_app

ASK = {"records": [{"text": "a"}]}
SECRET = "Zq7微信SECRETmarker"


def raising(error):
    def fail(asked):
        raise error

    return fail


def shape_of(answer):
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"} and set(error) == {"message", "type", "code", "param"}
    assert error["type"] == TYPES[answer.status_code] and re.fullmatch(r"[a-z0-9_]+", error["code"])
    assert answer.headers["x-request-id"]
    return error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Problem(504, "late", code="deadline"), 504, "deadline"),
        (library.UsageError("`top_k` is 0; expected at least 1"), 422, "invalid_settings"),
        (library.RecordError("records[3]", '"text" is missing'), 422, "invalid_record"),
        (library.PolicyError("stands on other routes"), 409, "policy_conflict"),
        (library.BankError("b: another thread has been writing for 30 s; try again"), 503, "bank_unavailable"),
        (library.BankError("b: holds a seed bank already"), 409, "bank_conflict"),
        (library.BankError("b: the disk is full; free some space"), 507, "disk_full"),
        (library.ModelError("no such model"), 503, "model_unavailable"),
        (library.EmbeddingError("row 3 holds NaN"), 500, "bad_embeddings"),
        (library.ResumeError("cannot"), 422, "invalid_settings"),
        (OSError(errno.ENOSPC, "No space left on device", "/srv/x"), 507, "disk_full"),
        (OSError(errno.EACCES, "Permission denied", "/srv/x"), 500, "internal_error"),
        (ZeroDivisionError("a secret detail"), 500, "internal_error"),
        (KeyError("a secret detail"), 500, "internal_error"),
        (RecursionError("a secret detail"), 500, "internal_error"),
    ],
)
def test_every_error_has_its_status(error, status, code):
    with logged() as log:
        answer = Client(small_app(raises=raising(error)))("POST", "/v1/ask", json=ASK, headers={"x-request-id": "r-1"})
    found = shape_of(answer)
    assert (answer.status_code, found["code"]) == (status, code)
    assert answer.headers["x-request-id"] == "r-1"
    assert "secret detail" not in answer.text + log.getvalue() and "/srv" not in answer.text + log.getvalue()
    lines = [json.loads(line) for line in log.getvalue().splitlines() if line.startswith("{")]
    assert all(line["request_id"] == "r-1" for line in lines if line["logger"].startswith("ecom_rag"))
    assert any("error" in line and line["at"] for line in lines) == (status >= 500 and not isinstance(error, Problem))
    if code in ("internal_error", "model_unavailable", "bad_embeddings"):
        assert "r-1" in found["message"]


def test_what_the_library_says_of_settings_is_told():
    error = library.UsageError("`top_k` is 0; expected at least 1")
    found = shape_of(Client(small_app(raises=raising(error)))("POST", "/v1/ask", json=ASK))
    assert found["message"] == "`top_k` is 0; expected at least 1" and found["param"] == "top_k"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/{SECRET}", 404, "not_found"),
        ("POST", f"/v1/{SECRET}/x", 404, "not_found"),
        ("DELETE", "/v1/ask", 405, "method_not_allowed"),
        ("POST", f"/v1/raw/x?q={SECRET}", 422, "invalid_field"),
    ],
)
def test_what_frameworks_raise(method, path, status, code):
    answer = Client(small_app())(method, path, json={} if method == "POST" else None)
    assert (answer.status_code, shape_of(answer)["code"]) == (status, code)
    assert status != 405 or answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "said", "param"),
    [
        ({}, "records is missing; it is required", "records"),
        ({"records": [{}]}, "records.0.text is missing; it is required", "records.0.text"),
        ({"records": [{"text": 3}]}, "records.0.text: expected a valid string", "records.0.text"),
        (ASK | {"flag": 0}, "flag: expected a valid boolean", "flag"),
        (ASK | {"top_k": "3"}, "top_k: expected a valid integer", "top_k"),
        (ASK | {"top_k": 0}, "top_k: expected greater than or equal to 1", "top_k"),
        (ASK | {"format": SECRET}, "format: expected 'float' or 'base64'", "format"),
        (ASK | {SECRET: 1}, "* is unknown; leave it out, or see /docs for the fields", "*"),
        (ASK | {"weights": {SECRET: "x"}}, "weights.*: expected a valid number", "weights.*"),
        ({"records": [{"text": "x" * 51}]}, "records.0.text: string expected to have at most 50", "records.0.text"),
        ([], "the request: expected", None),
    ],
)
def test_fields_that_do_not_fit(body, said, param):
    answer = Client(small_app())("POST", "/v1/ask", json=body)
    found = shape_of(answer)
    assert answer.status_code == 422 and said in found["message"] and found["param"] == param
    assert SECRET not in answer.text


def placed(secret):
    """Requests that hold a secret in every place where there is one."""
    record = {"text": "a", "metadata": {}}
    for body in (
        {secret: 1},
        {"records": secret},
        {"records": [secret]},
        {"records": [{"text": [secret]}]},
        {"records": [{"text": secret * 9}]},
        {"records": [record | {secret: secret}]},
        {"records": [record], "format": secret},
        {"records": [record], "weights": {secret: secret}},
        {"records": [record], "weights": {secret: 1.0}, "input": secret, "top_k": 0},
        {"records": [record], "input": {secret: [secret]}},
        {"records": [{"text": secret, "metadata": {secret: {secret: [secret]}}}], "input": [secret]},
    ):
        yield {"json": body}
    raw = json.dumps({"records": [{"text": secret}]}, ensure_ascii=False)
    for content in (raw[:-1], raw + secret, raw.replace("records", "rec\\ud800"), f'{{"a": NaN, "b": "{secret}"}}'):
        yield {"content": content.encode(), "headers": {"content-type": "application/json"}}
    yield {"content": raw.encode("utf-16"), "headers": {"content-type": "application/json"}}
    yield {"content": raw.encode(), "headers": {"content-type": "text/x-Zq7SECRETmarker"}}


def echoing(asked):
    """Errors of every kind that say all that was asked, quoted and not."""
    said = asked.model_dump()
    one = asked.records[0].text
    wordings = [f"{one!r} is unknown", f"found {one}; expected a", f'"{one[:9]}...', f"found keys: {said}", f"{one}: x"]
    kinds = [library.UsageError, library.BankError, library.PolicyError, library.ModelError, ValueError, OSError]
    echoing.turn += 1
    wording = wordings[echoing.turn % len(wordings)]
    kind = kinds[echoing.turn // len(wordings) % len(kinds)]
    try:
        raise KeyError(wording)
    except KeyError as cause:
        raise kind(wording) from cause


echoing.turn = 0


def leaked(text):
    """Parts of the secret in what was said."""
    return [part for part in ("SECRET", "微信", "Zq7", "marker") if part in text]


def test_a_secret_in_every_field_is_in_no_answer_and_no_log(tmp_path):
    token = keys.add(tmp_path / "keys.json", "boss", ["admin"])
    app = small_app(keys=Keys(tmp_path / "keys.json"), raises=echoing)
    with logged() as log, serving(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {token}"}
        shown = ""
        for settings in placed(SECRET):
            settings["headers"] = settings.get("headers", {}) | headers
            for path in ("/v1/ask", f"/v1/{SECRET}", f"/v1/raw/{SECRET}?q={SECRET}"):
                answer = client.post(path, **settings)
                shown += "" if answer.status_code == 200 else answer.text + str(answer.headers)
        for text in (SECRET, f"a {SECRET} b", f"it's {SECRET}' x", f'"{SECRET}"', f"line\n{SECRET}\ttab"):
            for _ in range(30):
                body = {"records": [{"text": text, "metadata": {text: text}}]}
                answer = client.post("/v1/ask", json=body, headers=headers)
                assert answer.status_code >= 400
                shown += answer.text
        for wrong in ({"authorization": "Bearer Zq7SECRETmarker"}, {"cookie": "ecom_rag_session=Zq7SECRETmarker"}):
            shown += client.post("/v1/ask", json={}, headers=wrong).text
        shown += str(client.get("/healthz", headers={"x-request-id": "Zq7 SECRET marker"}).headers)
    assert leaked(shown) == [] and leaked(log.getvalue()) == []
    assert token not in log.getvalue() and log.getvalue().count('"route"') > 100


def test_the_access_line():
    with logged() as log:
        Client(small_app())("POST", "/v1/raw/S017?q=1", json=[1], headers={"x-request-id": "my-id"})
        Client(small_app())("GET", "/nothing/S018")
    first, second = (json.loads(line) for line in log.getvalue().splitlines() if '"route"' in line)
    assert first["milliseconds"] > 0 and first["time"].endswith("+00:00")
    wanted = {"request_id": "my-id", "key": "everybody", "method": "POST", "route": "/v1/raw/{name}", "status": 200}
    assert first.items() >= (wanted | {"bytes": 4}).items()
    assert second["route"] == "-" and second["status"] == 404 and len(second["request_id"]) == 16
    assert "S017" not in log.getvalue() and "S018" not in log.getvalue()


def test_real_messages_keep_their_sentence():
    def said(call, *sent):
        with pytest.raises(library.UsageError) as error:
            call()
        return redacted(str(error.value), sent)

    assert said(lambda: Recall(fusion=SECRET).check(), SECRET).startswith(
        "fusion '...' is unknown; expected rrf, minmax"
    )
    found = said(lambda: parse_filter(f"label = {SECRET}"), f"label = {SECRET}")
    assert found.startswith("filter, character 9: found") and not leaked(found) and "expected" in found
    assert redacted(
        'q.jsonl:3: "text" is missing (found keys: id, Brand); every record needs a string "text"', ["Brand"]
    )
    assert redacted("the bank's model is in /srv/banks/one, not here") == "the bank's model is in ..., not here"


@given(st.text(min_size=3), st.sampled_from(["{!r} is unknown", "'{}' is not", 'found "{}", expected', "found {}; do"]))
def test_redaction_leaves_nothing_long_of_what_was_sent(text, wording):
    found = redacted(wording.format(text), [text])
    shown = " ".join(text.split())
    if len(shown) >= 3 and shown not in wording and shown not in KNOWN | {"..."}:
        assert shown not in found


def test_redaction_of_a_large_request_takes_no_time_and_tells_nothing():
    many = {"texts": [f"text {number}" for number in range(30_000)]}
    assert redacted("found text 29999", strings(many)).startswith("the request cannot be served")
    assert redacted("found Brand7", ["x " * 4_000_000 + "Brand7"]) == "found ..."


def test_an_error_of_a_task_group_is_the_error():
    group = ExceptionGroup("two tasks", [Problem(504, "late", code="deadline")])
    assert Client(small_app(raises=raising(group)))("POST", "/v1/ask", json=ASK).status_code == 504
