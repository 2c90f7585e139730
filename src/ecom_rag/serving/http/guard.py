"""Who asks, whether they may, and how often."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ecom_rag.errors import UsageError
from ecom_rag.serving.http.sessions import COOKIE, Sessions
from ecom_rag.serving.keys import SCOPES, Key, Keys
from ecom_rag.serving.problems import Problem

EVERYBODY = Key("everybody", SCOPES, "", datetime.fromtimestamp(0, UTC))
_READING = ("GET", "HEAD", "OPTIONS")
_BEARER = HTTPBearer(auto_error=False, description="A key as `ecom-rag keys add` prints it.")


class Buckets:
    """Token buckets: each client may ask ``burst`` times at once, and ``rate`` times a second in the long run.

    Args:
        rate: Requests per second and client; ``None`` for no limit.
        burst: Requests that a client may make at once.
        size: Clients that are remembered; the one that has been silent longest is forgotten first.
        ticks: Seconds of a clock that never goes back.
    """

    def __init__(
        self, rate: float | None, burst: int, *, size: int = 10_000, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._size = size
        self._ticks = ticks
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens of a client, and when that was

    def take(self, client: str) -> float:
        """Take one token.

        Args:
            client: Whose.

        Returns:
            0.0 where there was one, else the seconds after which there will be.
        """
        if self._rate is None:
            return 0.0
        now = self._ticks()
        left, at = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > self._size:
            self._left.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._left)


class Guard:
    """The middleware that lets a request through only with a valid key, and only so often.

    The key is in ``request.state.key``; ``needs`` asks it for a scope. Without keys everybody may do everything, which
    ``check_exposed`` allows on addresses of this machine only; then a request must also name the service by an address
    or ``localhost``, or else any web page could reach it through a name that leads here.

    Args:
        app: What is guarded.
        keys: The keys; ``None`` lets everybody in.
        sessions: Of browsers; ``None`` takes no cookies.
        buckets: How often each key, or without a key each address, may ask.
        public: Paths that need no key, e.g. ``/healthz``; one that ends in ``/`` stands for all below it.
        login: Path that browsers without a session are sent to; ``None`` answers 401 to them too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys | None,
        sessions: Sessions | None = None,
        buckets: Buckets | None = None,
        public: Collection[str] = (),
        login: str | None = None,
    ) -> None:
        self.app = app
        self._keys = keys
        self._sessions = sessions
        self._buckets = Buckets(None, 1) if buckets is None else buckets
        self._public = tuple(public)
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Problem: 401, 403 or 429; ``errors.Answers`` stands outside and answers it.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key, by_cookie = self._key(headers)
        if scope["method"] not in _READING:
            _check_origin(headers, required=by_cookie)
        public = covers(self._public, scope["path"])
        if self._keys is None:
            _check_host(headers)
        elif key is None and not public:
            if self._login is not None and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                await RedirectResponse(self._login, 303)(scope, receive, send)
                return
            raise _unknown(headers)
        if not public or scope["method"] not in _READING:  # a login costs a token, a health check none
            self._count(scope, key)
        scope.setdefault("state", {})["key"] = key
        await self.app(scope, receive, send)

    def _key(self, headers: Headers) -> tuple[Key | None, bool]:
        """Whose request this is, and whether a cookie says so."""
        if self._keys is None:
            return EVERYBODY, False
        token = _token(headers)
        if token is not None:
            return self._keys.check(token), False
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if self._sessions is None or cookie is None:
            return None, False
        return self._sessions.key(cookie), True

    def _count(self, scope: Scope, key: Key | None) -> None:
        address = (scope.get("client") or ("-",))[0]
        known = key is not None and key is not EVERYBODY
        wait = self._buckets.take(f"key {key.name}" if known and key is not None else f"address {address}")
        if wait:
            message = f"too many requests with this {'key' if known else 'address'}; wait {math.ceil(wait)} s"
            raise Problem(429, message, code="rate_limited", retry_after=math.ceil(wait))


def needs(scope: str) -> Callable[..., object]:
    """A dependency that an endpoint declares for the scope that it needs: ``Depends(needs("read"))``.

    Args:
        scope: One of ``keys.SCOPES``.

    Returns:
        A function that gives the ``Key`` of the request, or raises ``Problem`` 401 or 403.
    """
    if scope not in SCOPES:
        raise ValueError(f"{scope!r} is no scope; expected one of {', '.join(SCOPES)}")

    async def check(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
    ) -> Key:
        key: Key | None = getattr(request.state, "key", None)
        if key is None:
            raise _unknown(request.headers)
        if not key.allows(scope):
            message = f"the key {key.name} has no scope {scope}; it has {', '.join(key.scopes)}, ask for another key"
            raise Problem(403, message, code="missing_scope")
        return key

    return check


def covers(paths: Collection[str], path: str) -> bool:
    """Whether a path is one of some, or lies below one of them that ends in ``/``."""
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in paths)


def check_exposed(host: str, keys: str | Path | None) -> None:
    """Refuse to serve everybody on an address that other machines reach.

    Args:
        host: Address to listen on.
        keys: File of keys; ``None`` where there is none.

    Raises:
        UsageError: There is none, and the address is not of this machine alone.
    """
    if keys is None and not _is_loopback(host):
        raise UsageError(
            f"`host` {host} is reached from other machines, and without keys everybody may do everything;"
            " give a file of `keys`, or listen on 127.0.0.1"
        )


def _token(headers: Headers) -> str | None:
    """The key that a request holds; ``None`` for none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")


def _unknown(headers: Headers) -> Problem:
    if _token(headers) is None:
        message = "the request has no key; send the header Authorization: Bearer KEY"
        return Problem(401, message, code="missing_key")
    return Problem(401, "the key is unknown, revoked or expired; ask the operator for a new one", code="invalid_key")


def _check_origin(headers: Headers, *, required: bool) -> None:
    """Refuse a change that a page of another origin makes a browser ask for, with the cookie or from inside a network.

    Args:
        headers: Of the request.
        required: Whether ``Origin`` must be there: browsers send it with every change, programs need not.
    """
    origin = headers.get("origin")
    if origin is None and not required:
        return
    own = headers.get("host", "").lower()
    if not own or _netloc(origin or "") != own:
        message = "the request comes from a page of another origin; open the page of this service and try there"
        raise Problem(403, message, code="wrong_origin")


def _check_host(headers: Headers) -> None:
    name = _hostname(headers.get("host", ""))
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if name not in ("", "localhost"):
            message = "without keys the service is reached by its address or localhost only; use http://127.0.0.1"
            raise Problem(403, message, code="wrong_host") from None


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return "invalid"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
