"""Filters as Milvus' boolean expressions over a JSON field; no value and no key of a filter is ever pasted into them.

Milvus' own comparisons differ from filters, and from version to version: in what a missing key and null are, numbers
beyond 2**53, texts with quotes, ``not``. So the field does not hold metadata but what filters see of them, see
``facts``, in a form in which nothing is left to differ: a list of tokens that are there or not, and, for values that
have an order, a text of ASCII letters and digits that orders as they do. Records are stored elsewhere, as they are.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.files.keys import Path
from ecom_rag.filters.sql import joined
from ecom_rag.filters.tree import Compare, Contains, Exists, Filter, In, Scalar, kind, number

EVERY, NONE = "row >= 0", "row < 0"
KINDS = ("string", "number", "bool", "null", "other")
_LONGEST = 100  # bytes of a text that are kept for its order
_EXPONENT = 2000  # added to those of numbers, which are above -1100
_INFINITY = 1 << 12


def conditions(tree: Filter, *, field: str) -> str:
    """An expression for a filter, true for just the rows that it matches.

    Args:
        tree: The filter.
        field: A JSON field of what ``facts`` gives.

    Raises:
        UsageError: A text that is too long to be ordered by.
    """
    return joined(tree, lambda leaf: _leaf(leaf, field), true=EVERY, false=NONE, unmet="(not {})")


def has_kind(path: Path, kinds: tuple[str, ...], field: str) -> str:
    """An expression for rows with a value of some kinds, as ``filters.kind`` names them, at a path."""
    return _any([_token("kind", path, own) for own in kinds], field)


def facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What filters see of metadata.

    Args:
        metadata: Of a record.

    Returns:
        ``tokens``, each for something that an expression may ask for, and ``order``: under a token for each path the
        text that its value is ordered by.
    """
    tokens: set[str] = set()
    order: dict[str, str] = {}
    todo: list[tuple[Path, Any]] = [((str(key),), value) for key, value in metadata.items()]
    while todo:
        path, value = todo.pop()
        own = kind(value)
        tokens.add(_token("kind", path, own))
        if own != "other":
            tokens.add(_token("is", path, _equal(value)))
        if own in ("string", "number"):
            order[_token("order", path)] = _ordered(value)
        if isinstance(value, Mapping):
            todo += [((*path, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            tokens.update(_token("holds", path, _equal(item)) for item in value if kind(item) != "other")
    return {"tokens": sorted(tokens), "order": order}


def _leaf(leaf: Compare | In | Contains | Exists, field: str) -> str:
    match leaf:
        case Exists(path):
            return has_kind(path, KINDS, field)
        case In(path, values):
            return _any([_token("is", path, _equal(value)) for value in values], field) if values else f"({NONE})"
        case Contains(path, value):
            return _any([_token("holds", path, _equal(value))], field)
        case Compare(path, "=", value):
            return _any([_token("is", path, _equal(value))], field)
        case Compare(path, operator, value):
            own = f'{field}["order"]["{_token("order", path)}"]'
            return f'({has_kind(path, (kind(value),), field)} and {own} {operator} "{_bound(path, value)}")'


def _any(tokens: list[str], field: str) -> str:
    return f'json_contains_any({field}["tokens"], {json.dumps(tokens)})'


def _bound(path: Path, value: Scalar) -> str:
    if isinstance(value, str) and len(_text(value)) > _LONGEST:
        raise UsageError(
            f"filter: {'.'.join(path)!r:.80} is ordered against a text of {len(_text(value))} bytes; a bank in Milvus"
            f" keeps the order of the first {_LONGEST}, compare with a shorter text"
        )
    return _ordered(value)


def _token(what: str, path: Path, value: str = "") -> str:
    """20 hexadecimal digits that are, for all that will ever be, those of this alone."""
    return hashlib.blake2b(json.dumps([what, path, value]).encode(), digest_size=10).hexdigest()


def _equal(value: Any) -> str:
    """A text that two values share where they are equal."""
    if isinstance(value, str):
        return f"string {_text(value).hex()}"
    return f"{kind(value)} {_of_number(number(value)) if kind(value) == 'number' else value}"


def _ordered(value: Any) -> str:
    """A text of ASCII that orders among those of its kind as the value does."""
    if isinstance(value, str):  # UTF-8 orders as code points do; "g" comes after all hexadecimal digits
        whole = _text(value)
        return whole[:_LONGEST].hex() + ("g" if len(whole) > _LONGEST else "")
    return _of_number(number(value))


def _text(value: str) -> bytes:
    return value.partition("\0")[0].encode()


def _of_number(value: float) -> str:
    """Sign, exponent and 64 bits of mantissa: exact for every double and for every integer of 64 bits."""
    if value == 0:
        return "1"
    if isinstance(value, int):
        exponent = value.bit_length()
        mantissa = abs(value) << 64 >> exponent
    elif math.isinf(value):
        exponent, mantissa = _INFINITY, 0
    else:
        share, exponent = math.frexp(abs(value))
        mantissa = int(share * 2**64)
    digits = f"{exponent + _EXPONENT:04x}{mantissa:016x}"
    return f"2{digits}" if value > 0 else f"0{_turned(digits)}"


def _turned(digits: str) -> str:
    """Hexadecimal digits that order the other way round."""
    return "".join("0123456789abcdef"[15 - int(digit, 16)] for digit in digits)
