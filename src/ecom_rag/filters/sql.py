"""Filters as SQL over a JSON column; no value and no key of a filter is ever pasted into the text.

SQLite's comparisons know a third answer, NULL. ``not`` is pushed down to the comparisons (De Morgan) and turns it into
true there, as it does false. Elsewhere NULL orders between false and true, ``and`` is the minimum, ``or`` the maximum,
so it ends up as false by itself, and a plain comparison can use an index.
"""

import json
import re
from collections.abc import Callable, Collection
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.files.keys import Path
from ecom_rag.filters.tree import And, Compare, Contains, Exists, Filter, In, Not, Or, Scalar, kind

_TYPES = {"string": "= 'text'", "number": "in ('integer', 'real')", "null": "= 'null'"}
_PLAIN = re.compile(r'[^"\\\x00-\x1f\x7f]+')  # the keys that a JSON path of SQLite can name

_ODD_DEPTH = 4  # parts of a path with a key that is none of these; SQLite's parser has a stack of 100


def conditions(tree: Filter, *, column: str = "metadata", indexed: Collection[Path] = ()) -> tuple[str, list[Any]]:
    """An SQL expression for a filter, and its parameters.

    Args:
        tree: The filter.
        column: Column of JSON objects.
        indexed: Paths that there is an index of ``index_columns`` for; they must be named in the SQL to use it.

    Raises:
        UsageError: A path that SQLite cannot follow.

    Returns:
        The expression, 1 where the filter matches, 0 or NULL where it does not; and the values of its ``?``.
    """
    parameters: list[Any] = []
    keys = frozenset(indexed)
    return joined(tree, lambda leaf: _leaf(leaf, parameters, column, keys)), parameters


def index_columns(path: Path, column: str = "metadata") -> tuple[str, str]:
    """What to index so that comparisons with ``path`` are found without reading every row: the value, and its type."""
    return f"json_extract({column}, {_literal(path)})", f"json_type({column}, {_literal(path)})"


def indexable(path: Path) -> bool:
    """Whether SQLite's JSON paths can name this path."""
    return all(map(_PLAIN.fullmatch, path))


def extraction(path: Path, column: str = "metadata") -> tuple[str, list[Any], str, list[Any]]:
    """SQL of a path's JSON type and of its value, each with its parameters."""
    if indexable(path):
        spelled = _spelled(path)
        return f"json_type({column}, ?)", [spelled], f"json_extract({column}, ?)", [spelled]
    if len(path) > _ODD_DEPTH:
        raise UsageError(
            f"filter: the key {'.'.join(path)!r:.80} has {len(path)} parts, one of them with quotes,"
            f" backslashes or control characters; expected at most {_ODD_DEPTH} parts then"
        )
    document = column
    for _ in path[:-1]:
        document = f"(SELECT value FROM json_each({document}) WHERE key = ? AND type = 'object')"
    found = f"FROM json_each({document}) WHERE key = ?"
    return f"(SELECT type {found})", list(path), f"(SELECT value {found})", list(path)


def joined(
    tree: Filter,
    leaf: Callable[[Compare | In | Contains | Exists], str],
    *,
    true: str = "1",
    false: str = "0",
    unmet: str = "({} IS NOT TRUE)",
    negated: bool = False,
) -> str:
    """A filter as one expression of what its comparisons are, ``not`` pushed down to them.

    Args:
        tree: The filter.
        leaf: SQL of a comparison; asked for in the order in which they stand in the expression.
        true: SQL of what always matches.
        false: SQL of what never does.
        unmet: SQL of the opposite of a comparison, which takes the place of ``{}``.
        negated: Of the opposite.
    """
    match tree:
        case And(terms) | Or(terms):
            both = isinstance(tree, And) is not negated
            parts = [joined(term, leaf, true=true, false=false, unmet=unmet, negated=negated) for term in terms]
            return f"({(' and ' if both else ' or ').join(parts) or (true if both else false)})"
        case Not(term):
            return joined(term, leaf, true=true, false=false, unmet=unmet, negated=not negated)
        case Compare() | In() | Contains() | Exists():
            return unmet.replace("{}", leaf(tree), 1) if negated else leaf(tree)


def _leaf(leaf: Compare | In | Contains | Exists, parameters: list[Any], column: str, indexed: frozenset[Path]) -> str:
    match leaf:
        case Exists(path):
            json_type, of_type, _, _ = extraction(path, column)
            parameters += of_type
            return f"({json_type} IS NOT NULL)"
        case In(path, values):
            return _in(path, values, parameters, column, indexed)
        case Contains(path, value):
            return _contains(path, value, parameters, column)
        case Compare(path, operator, value):
            return _comparison(path, operator, value, parameters, column, indexed)


def _comparison(
    path: Path, operator: str, value: Scalar, parameters: list[Any], column: str, indexed: frozenset[Path]
) -> str:
    json_type, of_type, extract, of_extract = _sides(path, column, indexed)
    parameters += of_type
    if isinstance(value, bool) or value is None:
        parameters.append("null" if value is None else json.dumps(value))
        return f"({json_type} = ?)"
    parameters += of_extract
    parameters.append(_json(value))
    return f"({json_type} {_TYPES[kind(value)]} AND {extract} {operator} json_extract(?, '$'))"


def _sides(path: Path, column: str, indexed: frozenset[Path]) -> tuple[str, list[Any], str, list[Any]]:
    """``extraction``, in the words of the index where there is one."""
    if path in indexed:
        value, json_type = index_columns(path, column)
        return json_type, [], value, []
    return extraction(path, column)


def _in(path: Path, values: tuple[Scalar, ...], parameters: list[Any], column: str, indexed: frozenset[Path]) -> str:
    """One list a type, so that 1, "1" and true stay apart."""
    parts = [_comparison(path, "=", v, parameters, column, indexed) for v in values if kind(v) in ("bool", "null")]
    for type_ in ("string", "number"):
        own = [value for value in values if kind(value) == type_]
        if own:
            json_type, of_type, extract, of_extract = _sides(path, column, indexed)
            parameters += [*of_type, *of_extract, f"[{','.join(map(_json, own))}]"]
            parts.append(f"({json_type} {_TYPES[type_]} AND {extract} IN (SELECT value FROM json_each(?)))")
    return f"({' OR '.join(parts) or '0'})"


def _contains(path: Path, value: Scalar, parameters: list[Any], column: str) -> str:
    """Over the elements of an array; what is none has no elements (as a text it would be malformed JSON)."""
    json_type, of_type, extract, of_extract = extraction(path, column)
    parameters += [*of_type, *of_extract]
    if isinstance(value, bool) or value is None:
        parameters.append("null" if value is None else json.dumps(value))
        equal = "type = ?"
    else:
        parameters.append(_json(value))
        equal = f"type {_TYPES[kind(value)]} AND value = json_extract(?, '$')"
    elements = f"json_each(CASE {json_type} WHEN 'array' THEN {extract} ELSE '[]' END)"
    return f"EXISTS (SELECT 1 FROM {elements} WHERE {equal})"


def _json(value: Scalar) -> str:
    """A value as JSON: SQLite then reads it exactly as it reads the documents."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "9e999" if value > 0 else "-9e999"
    return json.dumps(value, ensure_ascii=False)


def _spelled(path: Path) -> str:
    return "$" + "".join(f'."{part}"' for part in path)


def _literal(path: Path) -> str:
    return "'" + _spelled(path).replace("'", "''") + "'"
