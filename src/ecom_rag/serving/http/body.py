"""The body of a request: how large, how slow, of what form; parsed once. And clients that have gone meanwhile."""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import orjson
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecom_rag.files import json_text
from ecom_rag.serving.http.errors import PARSED, ClientGoneError
from ecom_rag.serving.http.guard import covers
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.settings import Limits

MAX_LEVELS = 64
_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_FORM = "application/x-www-form-urlencoded"
_LARGE = 1 << 18  # bytes, from which on parsing would hold up other requests
_DRAIN_SECONDS = 1.0
_HOLDING = frozenset((str, list, dict))  # what may hold a colon or a level
_NOT_FINITE = re.compile(r"-?(?:NaN|Infinity)|[-\d.]+[eE]")
_LONG_NUMBER = re.compile(rb"\d{19}")
Result = TypeVar("Result")


class Body:
    """The middleware that reads bodies: within the limits, JSON that says one thing only, else a 4xx.

    Args:
        app: What needs the body; ``Route`` finds it parsed.
        limits: Size and time of bodies.
        forms: Paths that take forms of web pages too; one that ends in ``/`` stands for all below it.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, forms: Collection[str] = ()) -> None:
        self.app = app
        self._limits = limits
        self._forms = tuple(forms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Problem: 400, 408, 413 or 415.
            ClientGoneError: The client left before its body was complete.
        """
        if scope["type"] != "http" or scope["method"] not in _METHODS:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        form = covers(self._forms, scope["path"]) and headers.get("content-type", "").lower().startswith(_FORM)
        if announced:
            _check_type(headers, form=form)
        raw = await self._read(headers, receive)
        if raw:
            if not announced:
                _check_type(headers, form=form)
            if not form:
                scope[PARSED] = await asyncio.to_thread(parse, raw) if len(raw) > _LARGE else parse(raw)
        await self.app(scope, _replayed(raw, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body; no more than the limit is ever held."""
        limit = self._limits.body_bytes
        announced = headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdigit():
            raise Problem(
                400, "the header Content-Length is no number; leave it to the client library", code="bad_header"
            )
        if int(announced) > limit:
            if "expect" not in headers:
                await _drain(receive, limit)
            raise _too_large(f"{int(announced)} bytes", limit)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                found = await _collected(receive, limit)
        except TimeoutError:
            told = f"the body was not complete after {self._limits.body_seconds:g} s; send it faster, or less of it"
            raise Problem(408, told, code="slow_body") from None
        if found is None:
            await _drain(receive, limit)
            raise _too_large(f"more than {limit} bytes", limit)
        return found


class ParsedRequest(Request):
    """A request whose JSON is what ``Body`` has parsed."""

    async def json(self) -> Any:
        """The parsed body."""
        return self.scope[PARSED] if PARSED in self.scope else await super().json()


class Route(APIRoute):
    """A route whose endpoint takes the body as ``Body`` has parsed it: ``APIRouter(route_class=Route)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given the parsed body."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await inner(ParsedRequest(request.scope, request.receive))

        return handle


async def attend(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for work as long as the client waits; where it goes, the work is cancelled.

    Args:
        request: Its body must have been read, as FastAPI does for endpoints that take one.
        work: What the answer needs. Not for changes, which must not end half-way.

    Returns:
        What the work gives.

    Raises:
        ClientGoneError: The client has gone.
    """
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def parse(raw: bytes) -> Any:
    """JSON that says one thing only.

    Args:
        raw: UTF-8.

    Returns:
        Plain values; integers of any size are exact.

    Raises:
        Problem: 400: not UTF-8, not JSON, NaN or infinity, half of a surrogate pair, a key twice, or nested too deep.
    """
    try:
        value = orjson.loads(raw)
        if _LONG_NUMBER.search(raw):  # orjson reads integers beyond 64 bits as floats
            value = json_text.loads(raw)
    except ValueError as error:
        raise _unreadable(raw, error) from None
    _check_shape(raw, value)
    return value


def _check_shape(raw: bytes, value: Any) -> None:
    """Refuse what is nested too deep, and keys that are given twice: each key has a colon, of two only one is left."""
    keys = colons = depth = 0
    level = [value]
    while level:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                colons += one.count(":")
            elif isinstance(one, dict):
                keys += len(one)
                colons += sum(key.count(":") for key in one)
                inner.extend([item for item in one.values() if type(item) in _HOLDING])
            elif isinstance(one, list):
                inner.extend([item for item in one if type(item) in _HOLDING])
        depth += any(isinstance(one, list | dict) for one in level)
        if depth > MAX_LEVELS:
            message = f"the body is nested deeper than {MAX_LEVELS} levels; flatten it"
            raise Problem(400, message, code="too_deep")
        level = inner
    escaped = b"\\u003a" in raw or b"\\u003A" in raw
    if _has_twice(raw) if escaped else raw.count(b":") != keys + colons:
        raise Problem(400, "an object holds a key twice; give each key once", code="duplicate_key")


def _has_twice(raw: bytes) -> bool:
    """Whether an object has a key twice, found the slow way."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({key for key, _ in pairs}) < len(pairs)

    json.loads(raw, object_pairs_hook=look)
    return found


def _unreadable(raw: bytes, error: ValueError) -> Problem:
    """Why a body cannot be parsed, told by its place alone."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as found:
        message = f"the body is not UTF-8 at byte {found.start}; encode it as UTF-8"
        return Problem(400, message, code="not_utf8")
    if not isinstance(error, orjson.JSONDecodeError):
        return Problem(400, "a number has too many digits; send it as a string", code="invalid_number")
    place = f"line {error.lineno}, column {error.colno}"
    said = str(error.msg).lower()
    if "surrogate" in said:
        message = f"half of a surrogate pair (a cut emoji) at {place}; replace it by U+FFFD"
        return Problem(400, message, code="lone_surrogate")
    if "depth limit" in said:
        return Problem(400, f"the body is nested deeper than {MAX_LEVELS} levels; flatten it", code="too_deep")
    if "infinity" in said or _NOT_FINITE.match(text, max(0, error.pos)):
        message = f"a number at {place} is NaN, infinite or too large; JSON has none such, send null"
        return Problem(400, message, code="invalid_number")
    return Problem(400, f"the body is not valid JSON at {place}; check it with a JSON parser", code="invalid_json")


def _check_type(headers: Headers, *, form: bool) -> None:
    kind, _, options = headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    fits = kind == _FORM if form else kind == "application/json" or re.fullmatch(r"application/[\w.-]+\+json", kind)
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", options)
    if not fits or (charset is not None and charset[1] not in ("utf-8", "utf8")):
        message = f"the content type is not supported; expected {_FORM if form else 'application/json'} in UTF-8"
        raise Problem(415, message, code="unsupported_content_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "compressed bodies are not supported; send it as it is", code="unsupported_encoding")


def _too_large(size: str, limit: int) -> Problem:
    message = f"the body has {size}; expected at most {limit}, split it over several requests"
    return Problem(413, message, code="body_too_large")


async def _collected(receive: Receive, limit: int) -> bytes | None:
    """A body; ``None`` as soon as it is longer than the limit."""
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        if len(found) + len(part) > limit:
            return None
        found += part
        if not message.get("more_body", False):
            return bytes(found)


async def _drain(receive: Receive, most: int) -> None:
    """Let a client that is still sending come to an end, so that it reads the answer; bounded in bytes and time."""
    left = most
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _replayed(raw: bytes, receive: Receive) -> Receive:
    """The body once more, then what the server says of the connection."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": raw, "more_body": False}

    return replay


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
