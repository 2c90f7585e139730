"""A dataclass from a table of TOML: its fields are the keys that are known, their annotations what is accepted."""

import difflib
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ecom_rag.errors import UsageError
from ecom_rag.values import scalar, shown

_LARGEST = 1e30  # what is computed with it in float32 stays a number


def build(kind: Any, table: Mapping[str, Any], where: str, *, not_keys: Sequence[str] = (), prefix: str = "") -> Any:
    """A dataclass of a table, and of the tables in it, that refuses what it does not know.

    Args:
        kind: The dataclass; its fields are the known keys, with their types and defaults.
        table: Parsed TOML, or a dict of the same form.
        where: Begins the error messages.
        not_keys: Fields that are no keys.
        prefix: Names of the tables around this one, each with a dot.

    Raises:
        UsageError: An unknown or missing key, or a value of the wrong kind.
    """
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind) if item.name not in not_keys}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(_unknown(where, prefix, str(key), [name for name in known if name != "task"]))
        hint = hints[key]
        if is_dataclass(hint):
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {prefix}{key} is {value!r}; expected a table [{prefix}{key}]")
            values[key] = build(hint, value, where, prefix=f"{prefix}{key}.")
        else:
            values[key] = _value(hint, value, f"{where}: {prefix}{key}")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            what = f"table [{prefix}{name}]" if is_dataclass(hints[name]) else f"key {prefix}{name}"
            raise UsageError(f"{where}: the {what} is missing; see docs/training.md for a recipe")
    return kind(**values)


def _unknown(where: str, prefix: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(prefix + name for name in known)}"
    return f"{where}: unknown key {prefix}{key}; {hint}"


def _value(hint: Any, value: Any, where: str) -> Any:
    """A value of the annotated kind; an integer is a number too, a boolean is neither."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):  # only "X | None" is used; TOML has no null, Python has
        if value is None:
            return None
        return _value(next(arg for arg in get_args(hint) if arg is not type(None)), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{where} is {value!r}; expected one of {', '.join(map(str, get_args(hint)))}")
        return value
    if origin is tuple:
        items = [value] if isinstance(value, str | os.PathLike) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in items):
            raise UsageError(f"{where} is {shown(value)}; expected a string or a list of strings")
        return tuple(os.fspath(item) for item in items)
    value = os.fspath(value) if isinstance(value, os.PathLike) else scalar(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= _LARGEST:
            raise UsageError(f"{where} is {shown(value)}; expected a number of at most {_LARGEST:g}")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise UsageError(f"{where} is {value!r}; expected {names[hint]}")
    return value
