"""Requests that do not fit their schema: which field, what was expected, and never what was sent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.types import Scope

from ecom_rag.serving.http.redact import redacted
from ecom_rag.serving.problems import Problem

_SHOWN = 3  # of several errors
# Kinds of Pydantic's errors whose messages hold nothing of the input.
_SAFE = frozenset(
    (
        "string_type",
        "list_type",
        "dict_type",
        "int_type",
        "float_type",
        "bool_type",
        "none_required",
        "model_type",
        "model_attributes_type",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "multiple_of",
        "finite_number",
        "too_long",
        "too_short",
        "string_too_long",
        "string_too_short",
        "string_pattern_mismatch",
        "literal_error",
        "enum",
        "int_from_float",
    )
)


def problem_of(errors: Iterable[Mapping[str, Any]], scope: Scope, sent: Sequence[str]) -> Problem:
    """What a client is told of a request that does not fit.

    Args:
        errors: As Pydantic lists them.
        scope: Of the request; its application tells which names are fields.
        sent: The strings of the request.
    """
    listed = list(errors)
    names = _fields(scope.get("app"))
    told = list(dict.fromkeys(_sentence(error, names, sent) for error in listed))
    shown = "; ".join(told[:_SHOWN])
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    param = _place(listed[0]["loc"], names) if listed else None
    missing = bool(listed) and listed[0]["type"] == "missing"
    return Problem(422, f"{shown}{more}", code="missing_field" if missing else "invalid_field", param=param or None)


def _sentence(error: Mapping[str, Any], names: frozenset[str], sent: Sequence[str]) -> str:
    place, kind = _place(error["loc"], names) or "the request", error["type"]
    message = str(error["msg"])
    if kind == "missing":
        return f"{place} is missing; it is required"
    if kind == "extra_forbidden":
        return f"{place} is unknown; leave it out, or see /docs for the fields"
    if kind == "value_error":
        return f"{place}: {redacted(message.removeprefix('Value error, '), sent)}"
    if kind not in _SAFE:
        return f"{place} is not what was expected; see /docs"
    message = message.replace("Input should be", "expected").replace("should have", "expected to have")
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _place(loc: Sequence[Any], names: frozenset[str]) -> str:
    """The path of a field, in which what is no field of ours is ``*``: it is the client's own word."""
    parts = loc[1:] if loc and loc[0] in ("body", "query", "path", "header", "cookie") else loc
    found = [str(part) if isinstance(part, int) or part in names else "*" for part in parts]
    return ".".join(found[:8])


def _fields(app: Any) -> frozenset[str]:
    """All names of fields and parameters that an application declares; found once."""
    if app is None or not hasattr(app, "openapi"):
        return frozenset()
    known = getattr(app.state, "field_names", None)
    if known is None:
        described = app.openapi()
        schemas = described.get("components", {}).get("schemas", {}).values()
        known = {name for schema in schemas for name in schema.get("properties", {})}
        operations = (one for path in described["paths"].values() for one in path.values())
        known |= {one["name"] for operation in operations for one in operation.get("parameters", ())}
        known = app.state.field_names = frozenset(known)
    return frozenset(known)
