"""Filters over metadata as a small frozen tree; ``matches`` says what a tree means.

The logic is two-valued. A comparison is true or false, never unknown: with a missing key, or a value of another type
than the one compared with, it is false. ``not`` turns that round, and ``a != b`` is ``not a = b``; so both hold where
the key is missing. Numbers compare with numbers, strings with strings by code point; true, false and null are only
equal or not. Integers beyond 64 bits are compared as the nearest double, strings up to their first NUL. Objects and
arrays equal nothing; whether an array holds a value is asked with ``Contains``, whose elements are compared by the
same rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecom_rag.files.keys import Path, lookup

Scalar = str | int | float | bool | None

_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Compare:
    """``path operator value``; the operator is one of ``=``, ``<``, ``<=``, ``>``, ``>=``."""

    path: Path
    operator: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The value at ``path`` equals one of ``values``."""

    path: Path
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Contains:
    """The value at ``path`` is an array with an element that equals ``value``; false for anything but an array."""

    path: Path
    value: Scalar


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a key at ``path``, whatever its value, null too."""

    path: Path


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    term: "Filter"


@dataclass(frozen=True, slots=True)
class And:
    """All terms; true without any."""

    terms: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one term; false without any."""

    terms: tuple["Filter", ...]


Filter = Compare | In | Contains | Exists | Not | And | Or


def matches(found: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether a record's metadata passes: the definition that the SQL of ``conditions`` is tested against."""
    match found:
        case And(terms):
            return all(matches(term, metadata) for term in terms)
        case Or(terms):
            return any(matches(term, metadata) for term in terms)
        case Not(term):
            return not matches(term, metadata)
        case Exists(path):
            return lookup(metadata, path)[0]
        case In(path, values):
            return any(matches(Compare(path, "=", value), metadata) for value in values)
        case Contains(path, value):
            _, own = lookup(metadata, path)
            return isinstance(own, list | tuple) and any(_fits(item, "=", value) for item in own)
        case Compare(path, operator, value):
            there, own = lookup(metadata, path)
            return there and _fits(own, operator, value)


def kind(value: Any) -> str:
    """What a value may be compared with."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "other"


def number(value: float) -> float:
    """A number as it is compared: integers beyond 64 bits as doubles."""
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return float(value) if abs(value) < 10**308 else (float("inf") if value > 0 else float("-inf"))
    return value


def _fits(own: Any, operator: str, value: Scalar) -> bool:
    return kind(own) == kind(value) != "other" and _compare(own, operator, value)


def _compare(own: Any, operator: str, value: Any) -> bool:
    if kind(own) == "number":
        own, value = number(own), number(value)
    elif isinstance(own, str):
        own, value = own.partition("\0")[0], value.partition("\0")[0]  # SQLite reads a JSON string up to a NUL
    if operator == "=":
        return bool(own == value)
    return bool({"<": own < value, "<=": own <= value, ">": own > value, ">=": own >= value}[operator])
