"""Whatever goes wrong becomes one shape, and neither the answer nor the log holds a text of the request."""

import errno
import logging
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ecom_rag.errors import BankError, EcomRagError, EmbeddingError, ModelError, PolicyError, RecordError
from ecom_rag.files import json_text
from ecom_rag.serving.http import invalid
from ecom_rag.serving.http.redact import redacted, strings
from ecom_rag.serving.problems import TYPES, Problem

PARSED = "ecom_rag.json"  # the key of a scope that holds the parsed body
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNREAD = (408, 413)  # the rest of the body is not read, so the connection cannot be used again
_NAMED = re.compile(r"`([a-z_]+)`|(filter|fusion|weights|depth)\b")
_CONFLICT = re.compile(r"already|changed since")
_HTTP = {
    400: ("bad_request", "the request cannot be read; expected JSON as /openapi.json describes it"),
    404: ("not_found", "there is nothing at this path; /docs lists all endpoints"),
    405: ("method_not_allowed", "the path does not take this method; the header Allow lists those it takes"),
}

logger = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client has closed its connection: nothing is answered."""


class Answers:
    """The middleware that turns every exception into an answer; nothing is raised through it.

    Starlette would raise what it does not know a second time, and the server would log that with its message.

    Args:
        app: What may raise.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientGoneError:
            return
        except Exception as error:
            problem = problem_of(error, scope)
            if not started:
                await answer(problem)(scope, receive, send)


def install(app: FastAPI) -> None:
    """Give an application the handlers of what frameworks raise, which they would answer in their own shape."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(problem_of(error, request.scope), getattr(error, "headers", None))

    for kind in (HTTPException, RequestValidationError, Problem, EcomRagError):
        app.add_exception_handler(kind, handle)


def answer(problem: Problem, headers: Any = None) -> Response:
    """A problem as the client gets it.

    Args:
        problem: What went wrong.
        headers: More headers, of which ``Allow`` is kept.
    """
    own = problem.headers
    if problem.status in _UNREAD:
        own["Connection"] = "close"
    if headers and "Allow" in headers:
        own["Allow"] = headers["Allow"]
    content = json_text.dumps(problem.body)
    return Response(content, problem.status, headers=own, media_type="application/json")


def problem_of(error: Exception, scope: Scope) -> Problem:
    """What a client is told of an exception; faults of the service are logged without their messages.

    Args:
        error: Anything that was raised while a request was served.
        scope: Of the request.
    """
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:  # of a task group
        error = error.exceptions[0]
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return invalid.problem_of(error.errors(), scope, list(sent(scope)))
    if isinstance(error, HTTPException):
        return _of_http(error)
    problem = _of_library(error, scope) if isinstance(error, EcomRagError) else _of_fault(error, scope)
    if problem.status >= 500:
        told = redacted(str(error), sent(scope)) if isinstance(error, EcomRagError) else "a request failed"
        logger.error("%s", told, exc_info=error)
    return problem


def sent(scope: Scope) -> Iterator[str]:
    """All strings that a request holds in its body, its path and its query."""
    yield from strings(scope.get(PARSED))
    yield from strings([str(value) for value in scope.get("path_params", {}).values()])
    yield from strings([part for pair in parse_qsl(scope.get("query_string", b"").decode("latin-1")) for part in pair])


def _of_library(error: EcomRagError, scope: Scope) -> Problem:
    """The library's own errors: of what a request asks it is told why, of what is wrong here it is told that."""
    if isinstance(error, BankError):
        if "disk is full" in str(error):
            return _storage()
        if _CONFLICT.search(str(error)):
            return Problem(
                409, "the bank is not as the request expects it; read it again, then repeat", code="bank_conflict"
            )
        message = f"the bank cannot be used now; try again, or {_operator(scope)}"
        return Problem(503, message, code="bank_unavailable", retry_after=1)
    if isinstance(error, ModelError):
        return Problem(503, f"the model cannot be used; {_operator(scope)}", code="model_unavailable", retry_after=5)
    if isinstance(error, EmbeddingError):
        return Problem(500, f"the model gave no usable numbers; {_operator(scope)}", code="bad_embeddings")
    message = redacted(str(error), sent(scope))
    if isinstance(error, PolicyError):
        return Problem(409, message, code="policy_conflict", param="policy")
    if isinstance(error, RecordError):
        return Problem(422, message, code="invalid_record", param="records")
    named = _NAMED.search(message[:40])
    return Problem(422, message, code="invalid_settings", param=(named[1] or named[2]) if named else None)


def _of_fault(error: Exception, scope: Scope) -> Problem:
    if isinstance(error, OSError) and error.errno in _FULL:
        return _storage()
    return Problem(500, f"the service failed; {_operator(scope)}", code="internal_error")


def _of_http(error: HTTPException) -> Problem:
    status = error.status_code if error.status_code in TYPES else (400 if error.status_code < 500 else 500)
    code, message = _HTTP.get(status, (f"http_{status}", f"{HTTPStatus(status).phrase.lower()}; /docs says more"))
    return Problem(status, message, code=code)


def _storage() -> Problem:
    return Problem(507, "the disk of the service is full; nothing was written, try again later", code="disk_full")


def _operator(scope: Scope) -> str:
    own = scope.get("state", {}).get("request_id", "-")
    return f"tell the operator the request id {own}"
