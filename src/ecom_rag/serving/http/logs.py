"""One line of JSON per request and per event, with the request's id and without any text of it."""

import contextlib
import logging
import re
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecom_rag.serving.http.redact import redacted

request_id: ContextVar[str] = ContextVar("request_id", default="-")
access = logging.getLogger("ecom_rag.serving.access")
GONE = 499  # the status of a request whose client did not wait for the answer, as nginx writes it
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_FRAMES = 12
_LOGGERS = ("ecom_rag", "uvicorn.error")
_BATCH = "batch"  # the request id of threads that serve several requests at once


def in_batches() -> None:
    """Called once in each thread that serves several requests at once, see ``_is_told``."""
    request_id.set(_BATCH)


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a record is for the log: what the library notes of a batch may quote any of its requests."""
    own = record.name.startswith("ecom_rag.serving") or not record.name.startswith("ecom_rag")
    return own or record.levelno >= logging.ERROR or request_id.get() != _BATCH


class Access:
    """The outermost middleware: gives each request its id, and writes its line when it has ended.

    The id is the client's ``x-request-id`` where that is a short plain word, else a new one. It is in the answer's
    header ``x-request-id``, in ``request.state.request_id`` and, for log lines, in ``request_id``.

    Args:
        app: What answers.
        answered: Called with what each access line tells.
        closing: Whether clients should use another connection from now on, as the service is stopping.
        ticks: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        answered: Callable[[Mapping[str, Any]], object] = lambda line: None,
        closing: Callable[[], bool] = lambda: False,
        ticks: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app = app
        self._answered = answered
        self._closing = closing
        self._ticks = ticks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        own = given if _SANE.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = own
        started, status, size = self._ticks(), GONE, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = own
                if self._closing():
                    headers["connection"] = "close"
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        token = request_id.set(own)
        try:
            await self.app(scope, receive, counted)
        finally:
            milliseconds = round((self._ticks() - started) * 1000, 2)
            line = _line(scope, status, milliseconds, size)
            self._answered(line)
            access.info("request", extra={"fields": line})
            request_id.reset(token)


class JsonLines(logging.Formatter):
    """Log records as JSON lines; of an exception its class and where it was raised, never its message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line.

        Args:
            record: May hold a mapping ``fields`` (as ``extra``), whose items become keys of the line.
        """
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
        }
        fields = getattr(record, "fields", None)
        if record.name != access.name:
            message = record.getMessage()
            own = record.name.startswith("ecom_rag.serving") or line["request_id"] == "-"
            line["message"] = message if own else redacted(message)
        if record.exc_info and record.exc_info[1] is not None:
            line |= described(record.exc_info[1])
        return orjson.dumps(line | (fields or {}), default=str).decode()


def install(stream: IO[str], *, level: int = logging.INFO) -> logging.Handler:
    """Send the log of the package and of uvicorn to a stream as JSON lines.

    Args:
        stream: E.g. standard error.
        level: Of the package; access lines are of level INFO.

    Returns:
        The handler, for removal.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(_is_told)
    for name, own in zip(_LOGGERS, (level, logging.WARNING), strict=True):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(own)
        logger.propagate = False
    return handler


@contextlib.contextmanager
def installed(stream: IO[str], *, level: int = logging.INFO) -> Iterator[None]:
    """As ``install``, for the length of a block.

    Args:
        stream: As there.
        level: As there.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    handler = install(stream, level=level)
    try:
        yield
    finally:
        for logger, (was, propagated) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(was)
            logger.propagate = propagated


def described(error: BaseException) -> dict[str, Any]:
    """An exception without its message: the classes of it and its causes, and the frames that it came through."""
    classes: list[str] = []
    at: BaseException | None = error
    while at is not None and len(classes) < _FRAMES:
        classes.append(type(at).__name__)
        at = at.__cause__ or at.__context__
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return {"error": " < ".join(classes), "at": frames[-_FRAMES:]}


def _line(scope: Scope, status: int, milliseconds: float, size: int) -> dict[str, Any]:
    key = scope["state"].get("key")
    return {
        "key": key.name if key is not None else "-",
        "method": scope["method"] if scope["method"] in _METHODS else "-",
        "route": getattr(scope.get("route"), "path", "-"),  # the template: a path may hold ids
        "status": status,
        "milliseconds": milliseconds,
        "bytes": size,
    }
