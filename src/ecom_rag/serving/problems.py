"""What a client is told when a request fails: one shape, one status per kind, and never the text that was sent.

::

    {"error": {"message": "...", "type": "invalid_request_error", "code": "too_many_texts", "param": "input"}}

``type`` and the place of the keys are those of OpenAI's API, so that its clients raise their own errors.
"""

from collections.abc import Mapping
from typing import Any

TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    412: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    431: "request_too_large",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
    507: "storage_error",
}


class Problem(Exception):
    """A request that fails with a status.

    Args:
        status: One of ``TYPES``.
        message: What was found, what was expected, what to do; without any text of the request.
        code: A stable name of the reason, for programs.
        param: The field of the request that it is about; ``None`` for none.
        retry_after: Seconds after which the same request may succeed; ``None`` where it will not.
    """

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it can be pickled and copied, in spite of its keyword arguments."""
        return _problem, (self.status, self.message, self.code, self.param, self.retry_after), self.__dict__

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"error": {"message": self.message, "type": TYPES[self.status], "code": self.code, "param": self.param}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer."""
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


def _problem(status: int, message: str, code: str, param: str | None, retry_after: float | None) -> Problem:
    return Problem(status, message, code=code, param=param, retry_after=retry_after)
