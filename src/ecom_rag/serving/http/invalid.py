"""Requests that do not fit their schema: which field, what was expected, and never what was sent."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from starlette.types import Scope

from ecom_rag.serving.http.redact import redacted
from ecom_rag.serving.problems import Problem

_SHOWN = 3  # of several errors
_AFTER = re.compile(r" after validation, not \d+")
_BRANCH = re.compile(r"str|Document|(?:list|dict|constrained-\w+)\[?[\w,\[\]]*")  # what Pydantic tried of a union
_REFERENCE = re.compile(r'"#/components/schemas/([^"]+)"')
_OBJECTS = ("dict_type", "model_type", "model_attributes_type", "dict_attributes_type")
# Kinds of Pydantic's errors whose messages hold nothing of the input.
_SAFE = frozenset(
    (
        "string_type",
        "list_type",
        "int_type",
        "float_type",
        "bool_type",
        "none_required",
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
        "int_parsing",
        "bool_parsing",
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
        return (
            f"{place} is missing; it is required" if error["loc"] != ("body",) else "the request has no body; send JSON"
        )
    if kind == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1]), names, 1) if place.endswith("*") else []
        hint = f"did you mean {near[0]}?" if near else "leave it out, or see /docs for the fields"
        return f"{place} is unknown; {hint}"
    if kind in _OBJECTS:
        return f"{place}: expected a JSON object"
    if kind == "value_error":
        return f"{place}: {redacted(message.removeprefix('Value error, '), sent)}"
    if kind not in _SAFE:
        return f"{place} is not what was expected; see /docs"
    message = _AFTER.sub("", message).replace("Input should be", "expected").replace("should have", "expected to have")
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _place(loc: Sequence[Any], names: frozenset[str]) -> str:
    """The path of a field, in which what is no field of ours is ``*``: it is the client's own word."""
    parts = loc[1:] if loc and loc[0] in ("body", "query", "path", "header", "cookie") else loc
    parts = [part for part in parts if part in names or not _BRANCH.fullmatch(str(part)) or isinstance(part, int)]
    found = [str(part) if isinstance(part, int) or part in names else "*" for part in parts]
    return ".".join(found[:8])


def _schemas(described: Any) -> set[str]:
    """Names of the schemas that a part of a description speaks of."""
    return set(_REFERENCE.findall(json.dumps(described)))


def _fields(app: Any) -> frozenset[str]:
    """All names of fields and parameters that an application takes; found once."""
    if app is None or not hasattr(app, "openapi"):
        return frozenset()
    known = getattr(app.state, "field_names", None)
    if known is None:
        described = app.openapi()
        schemas = described.get("components", {}).get("schemas", {})
        operations = [one for path in described["paths"].values() for one in path.values()]
        wanted, seen = _schemas([one.get("requestBody") for one in operations]), set[str]()
        while new := wanted - seen:
            seen |= new
            wanted |= _schemas([schemas[name] for name in new])
        known = {name for one in seen for name in schemas[one].get("properties", {})}
        known |= {one["name"] for operation in operations for one in operation.get("parameters", ())}
        known = app.state.field_names = frozenset(known)
    return frozenset(known)
