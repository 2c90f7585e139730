"""What endpoints declare: strict fields, answers written by our own JSON, and the errors that each may give."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from ecom_rag.files import json_text
from ecom_rag.serving.problems import TYPES

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
"""The configuration of every request model: no ``0`` for ``false``, no unknown field, no input in errors."""

_SAID: Mapping[int, str] = {
    400: "The body is not readable JSON.",
    401: "There is no key, or it is unknown, revoked or expired.",
    403: "The key lacks the scope, or a browser asks from another origin.",
    404: "The path or what it names does not exist.",
    408: "The body came too slowly.",
    409: "The state is not as the request expects it.",
    413: "The body, or the number of texts in it, is beyond a limit.",
    415: "The body is not JSON in UTF-8.",
    422: "A field is missing, unknown or out of range.",
    429: "Too many requests, or too much work is waiting; see the header Retry-After.",
    500: "The service failed.",
    503: "A bank or a model cannot be used now.",
    504: "The deadline has passed.",
    507: "The disk of the service is full.",
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    code: str
    param: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": said} for status, said in _SAID.items()
}
"""The errors that every endpoint declares: ``APIRouter(responses=RESPONSES)``."""
assert set(_SAID) <= set(TYPES)


class Json(Response):
    """An answer of plain values. It is written at once, without FastAPI's walk over every number."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """JSON as bytes; integers of any size are kept, arrays are written without a list of their numbers.

        Args:
            content: Dicts, lists, strings, finite numbers, NumPy arrays.
        """
        try:
            return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            return json_text.dumps(content)
