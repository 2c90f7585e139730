"""Bodies: size, time, form; what JSON says twice or not at all; and clients that go."""

import asyncio
import gzip
import json
import random
import socket
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.serving.http.body import MAX_LEVELS, parse
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.settings import Limits
from helpers.served import Client, exchange, serving, small_app

JSON = {"content-type": "application/json"}
HEAD = b"POST /v1/raw/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


REFUSED = [
    (b"\xff{}", "not_utf8", "at byte 0"),
    (b'{"a": "\xed\xa0\x80"}', "not_utf8", "at byte 7"),
    (b"{", "invalid_json", "line 1"),
    (b'{"a": 1}x', "invalid_json", "line 1, column 9"),
    (b"\xef\xbb\xbf{}", "invalid_json", "line 1, column 1"),
    (b'{"a": NaN}', "invalid_number", "line 1"),
    (b"[Infinity]", "invalid_number", "line 1"),
    (b"[-Infinity]", "invalid_number", "line 1"),
    (b"[1e999]", "invalid_number", "line 1"),
    (b"[" + b"9" * 5000 + b"]", "invalid_number", ""),
    (b'["\\ud800"]', "lone_surrogate", "U+FFFD"),
    (b'{"\\udc00x": 1}', "lone_surrogate", "U+FFFD"),
    (b'{"a": 1, "a": 2}', "duplicate_key", "twice"),
    (b'{"b": [{"a:": ":", "a:": {"c": ":"}}]}', "duplicate_key", "twice"),
    (b'{"a": 1, "\\u0061": 2}', "duplicate_key", "twice"),
    (b'{"a\\u003a": 1, "a:": 2}', "duplicate_key", "twice"),
    (b"[" * 65 + b"]" * 65, "too_deep", "64"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep", "64"),
    (b"[" * 100_000, "too_deep", "64"),
]


@pytest.mark.parametrize(("raw", "code", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(raw, code, said):
    answer = Client(small_app())("POST", "/v1/raw/x", content=raw, headers=JSON)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code) and said in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": ":", ":": "\\u003a", "\\\\u003a": 1, "b": [":", {"a": ":"}]}',
        b"[" * MAX_LEVELS + b"]" * MAX_LEVELS,
        b'{"big": 123456789012345678901234567890, "emoji": "\\ud83d\\ude00"}',
        b'":"',
        b"null",
        b'{"a": 1e300, "": {"": ""}}',
    ],
)
def test_what_is_taken_arrives_as_it_was(raw):
    answer = Client(small_app())("POST", "/v1/raw/x", content=raw, headers=JSON)
    assert answer.status_code == 200 and answer.json() == json.loads(raw)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet=':"\\au03'), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.randoms(use_true_random=False))
def test_every_json_value_is_taken_and_a_key_given_twice_is_not(value, ascii_only, chance: random.Random):
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse(raw) == value
    objects = []

    def find(one):
        for item in one.values() if isinstance(one, dict) else one if isinstance(one, list) else ():
            find(item)
        if isinstance(one, dict) and one:
            objects.append(one)

    find(value)
    if objects:
        chosen = chance.choice(objects)
        key = chance.choice(list(chosen))
        text = json.dumps(chosen, ensure_ascii=ascii_only)
        twice = f"{text[:-1]}, {json.dumps(key)}: 0}}"
        with pytest.raises(Problem) as error:
            parse(json.dumps(value, ensure_ascii=ascii_only).replace(text, twice, 1).encode())
        assert error.value.code == "duplicate_key"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=gbk"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": 'application/json; charset="UTF-8"'}, 200),
        ({"content-type": "Application/JSON"}, 200),
        ({"content-type": "application/problem+json"}, 200),
    ],
)
def test_content_types(headers, status):
    content = gzip.compress(b"{}") if "content-encoding" in headers else b"{}"
    answer = Client(small_app())("POST", "/v1/raw/x", content=content, headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert answer.json()["error"]["code"].startswith("unsupported_")


def test_a_missing_body_is_the_schemas_business():
    answer = Client(small_app())("POST", "/v1/ask")
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "missing_field"


def test_the_limit_holds_to_the_byte_with_and_without_a_length():
    call = Client(small_app(limits=Limits(body_bytes=100)))

    async def parts(data):
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    for size, status in ((100, 200), (101, 413)):
        data = json.dumps("x" * (size - 2)).encode()
        for content in (data, parts(data)):
            answer = call("POST", "/v1/raw/x", content=content, headers=JSON)
            assert answer.status_code == status
            if status == 413:
                error = answer.json()["error"]
                assert error["code"] == "body_too_large" and "100" in error["message"]
                assert answer.headers["connection"] == "close"


def test_no_more_than_the_limit_is_held():
    """The server's receive is asked for no more than the limit twice: once to hold, once to let the client end."""
    app, asked = small_app(limits=Limits(body_bytes=1000)), 0

    async def receive():
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(message):
        sent.append(message)

    sent: list = []
    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked"), (b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "POST", "path": "/v1/raw/x", "headers": headers, "query_string": b""}
    asyncio.run(app(scope | {"asgi": {"version": "3.0"}, "root_path": "", "scheme": "http"}, receive, send))
    assert sent[0]["status"] == 413 and 11 <= asked <= 22


def test_a_real_server(tmp_path):
    """Large, chunked, slow and broken bodies over sockets; the server goes on afterwards."""
    app = small_app(limits=Limits(body_bytes=200_000, body_seconds=0.5))
    with serving(app) as port:
        large = exchange(port, HEAD + b"Content-Length: 300000\r\n\r\n" + b" " * 300_000)
        assert large.startswith(b"HTTP/1.1 413") and b"300000 bytes" in large and b"at most 200000" in large
        endless = exchange(port, CHUNKED, *[chunk(b" " * 60_000)] * 8)
        assert endless.startswith(b"HTTP/1.1 413") and b"more than 200000 bytes" in endless
        unsent = exchange(port, HEAD + b"Content-Length: 300000\r\nExpect: 100-continue\r\n\r\n")
        assert unsent.startswith(b"HTTP/1.1 413")
        started = time.monotonic()
        slow = exchange(port, CHUNKED, chunk(b"["), chunk(b"1"), pause=0.2)
        assert slow.startswith(b"HTTP/1.1 408") and b"slow_body" in slow and time.monotonic() - started < 5
        assert b"connection: close" in slow.lower()
        closing = CHUNKED.replace(b"Host", b"Connection: close\r\nHost")
        whole = exchange(port, closing, chunk(b"["), chunk(b"1]"), b"0\r\n\r\n", pause=0.05)
        assert whole.startswith(b"HTTP/1.1 200") and whole.endswith(b"[1]\n")
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_nothing_is_computed_for_a_client_that_has_gone():
    app = small_app()
    with serving(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(HEAD.replace(b"raw/x", b"slow") + b"Content-Length: 2\r\n\r\n{}")
            assert app.state.started.wait(30) and not app.state.cancelled.is_set()
        assert app.state.cancelled.wait(30)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/quick", json={"a": 1})
        assert answer.status_code == 200 and answer.json() == 3
