"""Who may do what, how often, and that a page of another origin may do nothing."""

import json

import pytest

from ecom_rag.errors import UsageError
from ecom_rag.serving import keys
from ecom_rag.serving.http.guard import Buckets, check_exposed, needs
from ecom_rag.serving.http.sessions import COOKIE, Sessions
from ecom_rag.serving.keys import Keys
from helpers.served import Client, small_app

ASK = {"json": {"records": [{"text": "a"}]}}


class Clock:
    """Seconds that pass when told."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def error_of(answer):
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-request-id"]
    return answer.json()["error"]


def test_keys_and_scopes(file):
    reads, admin = keys.add(file, "reader", ["read"]), keys.add(file, "boss", ["admin"])
    call = Client(small_app(keys=Keys(file)))
    none = call("POST", "/v1/ask", **ASK)
    assert none.status_code == 401 and none.headers["www-authenticate"] == "Bearer"
    assert error_of(none)["code"] == "missing_key"
    for headers in ({"authorization": f"Bearer {reads}x"}, {"x-api-key": "ecr_"}, {"authorization": "Bearer \xff"}):
        wrong = call("POST", "/v1/ask", **ASK, headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert wrong.status_code == 401 and error_of(wrong)["code"] == "invalid_key"
    for headers in ({"authorization": f"Bearer {reads}"}, {"authorization": f"bearer  {reads} "}, {"x-api-key": reads}):
        assert call("POST", "/v1/ask", **ASK, headers=headers).status_code == 200
    lacking = call("POST", "/v1/raw/x", json={}, headers={"x-api-key": reads})
    assert lacking.status_code == 403 and error_of(lacking)["code"] == "missing_scope"
    assert "no scope write; it has read" in error_of(lacking)["message"]
    assert call("POST", "/v1/raw/x", json={}, headers={"x-api-key": admin}).status_code == 200


def test_public_paths_need_no_key_and_nothing_else_is_told(file):
    keys.add(file, "reader", ["read"])
    call = Client(small_app(keys=Keys(file)))
    assert call("GET", "/healthz").status_code == 200
    for path in ("/nothing", "/openapi.json", "/docs", "/healthz/", "/healthzx"):
        assert call("GET", path).status_code == 401
    page = call("GET", "/review", headers={"accept": "text/html"})
    assert page.status_code == 303 and page.headers["location"] == "/review/login"


def test_without_keys_everybody_may_from_this_machine_only():
    call = Client(small_app())
    assert call("POST", "/v1/raw/x", json={}, headers={"authorization": "Bearer sk-any"}).status_code == 200
    assert error_of(call("GET", "/healthz", headers={"host": "evil.example"}))["code"] == "wrong_host"
    for host in ("localhost:80", "[::1]:80", "127.0.0.1"):
        assert call("GET", "/healthz", headers={"host": host}).status_code == 200
    assert error_of(call("POST", "/v1/ask", **ASK, headers={"origin": "http://evil.example"}))["code"] == "wrong_origin"
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        check_exposed(host, None)
    for host in ("0.0.0.0", "::", "", "10.0.0.1", "example.org"):
        check_exposed(host, "keys.json")
        with pytest.raises(UsageError, match=r"`host`.*`keys`"):
            check_exposed(host, None)


def test_the_openapi_names_the_bearer_key():
    described = Client(small_app())("GET", "/openapi.json").json()
    operation = described["paths"]["/v1/ask"]["post"]
    assert operation["security"] == [{"HTTPBearer": []}]
    assert {"400", "401", "403", "413", "429", "507"} <= set(operation["responses"])
    assert "HTTPValidationError" not in json.dumps(described["paths"]["/v1/ask"])
    with pytest.raises(ValueError, match="is no scope"):
        needs("reed")


def test_buckets_follow_a_worked_example():
    clock = Clock(0.0)
    buckets = Buckets(2.0, 3, ticks=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    clock.now = 0.25
    assert buckets.take("a") == 0.25
    clock.now = 0.5
    assert buckets.take("a") == 0 and buckets.take("a") == 0.5
    clock.now = 100
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_buckets_forget_who_has_been_silent_longest():
    buckets = Buckets(1.0, 1, size=3, ticks=Clock())
    for client in "abcad":
        buckets.take(client)
    assert len(buckets) == 3 and buckets.take("a") > 0 and buckets.take("b") == 0


def test_too_many_requests_of_one_key(file):
    first, second = keys.add(file, "first", ["read"]), keys.add(file, "second", ["read"])
    call = Client(small_app(keys=Keys(file), rate=0.001))
    answers = [call("POST", "/v1/ask", **ASK, headers={"x-api-key": first}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert error_of(answers[-1])["code"] == "rate_limited" and int(answers[-1].headers["retry-after"]) > 900
    assert call("POST", "/v1/ask", **ASK, headers={"x-api-key": second}).status_code == 200
    assert call("GET", "/healthz").status_code == 200


def test_without_keys_addresses_are_counted():
    call = Client(small_app(rate=0.001))
    assert [call("POST", "/v1/ask", **ASK).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_browser_exchanges_its_key_for_a_cookie(file):
    token = keys.add(file, "ann", ["review", "read"])
    call = Client(small_app(keys=Keys(file)))
    assert call("POST", "/review/login", data={"key": "ecr_wrong"}).json() == {"ok": False}
    evil = call("POST", "/review/login", data={"key": token}, headers={"origin": "http://evil.example"})
    assert evil.status_code == 403
    answer = call("POST", "/review/login", data={"key": token}, headers={"origin": "http://127.0.0.1"})
    set_cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in set_cookie and "SameSite=Strict" in set_cookie and "Secure" not in set_cookie
    assert token not in set_cookie
    cookie = {"cookie": set_cookie.partition(";")[0]}
    for origin, status in ((None, 403), ("null", 403), ("http://evil.example", 403), ("http://127.0.0.1", 200)):
        headers = cookie | ({} if origin is None else {"origin": origin})
        assert call("POST", "/v1/ask", **ASK, headers=headers).status_code == status, origin
    assert call("GET", "/nothing", headers=cookie).status_code == 404
    keys.revoke(file, "ann")
    keys.add(file, "ann", ["admin"])
    assert Client(small_app(keys=Keys(file)))("GET", "/nothing", headers=cookie).status_code == 401


def test_sessions_end(file):
    token, clock, ticks = keys.add(file, "ann", ["review"]), Clock(), Clock()
    held = Keys(file, ticks=ticks)
    sessions = Sessions(held, seconds=60, clock=clock)
    set_cookie = sessions.log_in(token, secure=True)
    assert "; Secure" in set_cookie and "Max-Age=60" in set_cookie
    cookie = set_cookie.partition(";")[0].removeprefix(f"{COOKIE}=")
    assert sessions.key(cookie).name == "ann"
    assert Sessions(held, clock=clock).key(cookie) is None  # another process
    name, until, signature = cookie.split(":")
    for wrong in (
        f"{name}:{int(until) + 9}:{signature}",
        f"{name}:{until}:",
        f"{name}:²:{signature}",
        "",
        "ann",
        "茶:1:é",
    ):
        assert sessions.key(wrong) is None
    clock.now += 60
    assert sessions.key(cookie) is None
    assert "Max-Age=0" in sessions.log_out(secure=False)
    clock.now -= 60
    keys.revoke(file, "ann")
    ticks.now += 1
    assert sessions.key(cookie) is None and sessions.log_in(token, secure=True) is None
