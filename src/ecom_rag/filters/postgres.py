"""Filters as PostgreSQL's SQL over a ``jsonb`` column; no value and no key of a filter is ever pasted into the text.

``jsonb`` compares otherwise than filters do: numbers are decimals of any length, and a NUL cannot be in it at all. So
the column does not hold metadata but what filters see of them, see ``comparable``: what equals and orders there is what
``tree.matches`` says. Records are stored elsewhere, as they are.
"""

import json
from collections.abc import Mapping
from typing import Any

from ecom_rag.files.keys import Path
from ecom_rag.filters.sql import joined
from ecom_rag.filters.tree import Compare, Contains, Exists, Filter, In, Scalar, kind, number

_BEYOND = 1 << 1024  # larger than any double: stands for an integer that is compared as infinity


def conditions(tree: Filter, *, column: str) -> tuple[str, list[Any]]:
    """An SQL expression for a filter, and its parameters.

    Args:
        tree: The filter.
        column: A ``jsonb`` column of what ``comparable`` gives.

    Returns:
        The expression, true where the filter matches, false or NULL where it does not; and the values of its ``%s``.
    """
    parameters: list[Any] = []
    return joined(tree, lambda leaf: _leaf(leaf, column, parameters), true="TRUE", false="FALSE"), parameters


def value_at(path: Path, column: str) -> tuple[str, list[str]]:
    """SQL of the ``jsonb`` value at a path, NULL where there is none, and its parameters; arrays have no keys."""
    return f"({column}{' -> %s::text' * len(path)})", [_key(part) for part in path]


def indexed_value(path: Path, column: str) -> str:
    """``value_at`` with the keys in the text, for an index."""
    quoted = [_key(part).replace("'", "''") for part in path]
    return " -> ".join([f"({column}", *(f"'{part}'" for part in quoted)]) + ")"


def comparable(metadata: Mapping[str, Any]) -> str:
    """What filters see of metadata, as JSON: texts up to their first NUL, numbers as the decimals that they equal."""
    return json.dumps(_comparable(metadata), ensure_ascii=False)


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key(key): _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    if isinstance(value, str):
        return value.partition("\0")[0]
    if isinstance(value, bool) or value is None:
        return value
    return _decimal(number(value))


def _decimal(value: float) -> float:
    """A number whose JSON is a decimal that orders among others as the number does among theirs.

    Whole doubles are written in full. The shortest form of another one lies nearer to it than to any other double, and
    so between the same whole numbers.
    """
    if isinstance(value, int):
        return value
    if value in (float("inf"), float("-inf")):
        return _BEYOND if value > 0 else -_BEYOND
    return int(value) if value.is_integer() else value


def _key(part: str) -> str:
    """A key as it stands in the column: one with a NUL cannot."""
    return part.replace("\x01", "\x01a").replace("\0", "\x01b")


def _json(value: Scalar) -> str:
    return json.dumps(_comparable(value), ensure_ascii=False)


def _leaf(leaf: Compare | In | Contains | Exists, column: str, parameters: list[Any]) -> str:
    value, of_value = value_at(leaf.path, column)
    parameters += of_value
    match leaf:
        case Exists():
            return f"({value} IS NOT NULL)"
        case In(_, values):
            parameters.append(list(map(_json, values)))
            return f"({value} = ANY(%s::text[]::jsonb[]))"
        case Contains(_, element):
            parameters += [*of_value, f"[{_json(element)}]"]
            return f"(jsonb_typeof({value}) = 'array' AND {value} @> %s::jsonb)"
        case Compare(_, "=", other):
            parameters.append(_json(other))
            return f"({value} = %s::jsonb)"
        case Compare(_, operator, other) if kind(other) == "string":
            parameters += [*of_value, str(other).partition("\0")[0]]
            return f"(jsonb_typeof({value}) = 'string' AND ({value} #>> '{{}}') COLLATE \"C\" {operator} %s)"
        case Compare(_, operator, other):
            parameters += [*of_value, _json(other)]
            return f"(jsonb_typeof({value}) = 'number' AND {value} {operator} %s::jsonb)"
