"""Values from Python as JSON holds them: made plain, or refused with the reason.

One rule for records and filters: texts, finite numbers, booleans, ``None``, lists and dicts with text keys stay as they
are; NumPy scalars and subclasses of ``str``, ``int`` and ``float`` become Python's own; tuples become lists. Anything
else has no place in JSON and is a ``ValueError`` that names the key and the type.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MAX_LEVELS = 200
MAX_BITS = 14_000  # about 4,200 digits; Python writes and reads no more than 4,300
_SHOWN = 60  # characters
SURROGATE = re.compile("[\ud800-\udfff]")
_BY_KIND: dict[str, Any] = {"b": bool, "i": int, "u": int, "f": float, "U": str}  # dtype.kind of NumPy scalars
_REMEDIES = {
    "ndarray": "make it a list with .tolist()",
    "Series": "make it a list with .tolist()",
    "date": "write it as text with .isoformat()",
    "datetime": "write it as text with .isoformat()",
    "Timestamp": "write it as text with .isoformat()",
    "Decimal": "make it a float or a text",
    "set": "make it a sorted list",
    "frozenset": "make it a sorted list",
    "bytes": "decode it to text",
}


class Refused(NamedTuple):
    """What a reader gives in place of a record that it cannot make: the file goes on behind it.

    Args:
        reason: What was found, what was expected and what to do.
        raw: The record as it lies in the file.
    """

    reason: str
    raw: Any


class _UnfitError(Exception):
    """What JSON cannot hold, with the keys that lead there, the innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.keys: list[str] = []


def plain(value: Any, key: str = "") -> Any:
    """A value as JSON holds it; the very same object where nothing had to change.

    Args:
        value: Anything.
        key: Its name in error messages, e.g. ``metadata``; may be left out for a dict.

    Raises:
        ValueError: JSON cannot hold it; the message names the key, the type and the remedy.
    """
    try:
        return _plain(value, 1)
    except _UnfitError as error:
        place = "".join([key, *reversed(error.keys)]).removeprefix("." if not key else "")
        raise ValueError(f'"{place:.80}" {error}' if place else f"it {error}") from None


def copied(value: Any) -> Any:
    """A plain value whose lists and dicts are new, so that changing the one does not change the other."""
    if type(value) is dict:
        return {key: copied(item) if type(item) in (dict, list) else item for key, item in value.items()}
    if type(value) is list:
        return [copied(item) if type(item) in (dict, list) else item for item in value]
    return value


def scalar(value: Any) -> Any:
    """A NumPy scalar, or a subclass of ``str``, ``int`` or ``float``, as Python's own; anything else as it is."""
    if isinstance(value, np.generic):
        convert = _BY_KIND.get(value.dtype.kind)
        return value if convert is None else convert(value)
    for kind in (str, int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return value if type(value) is kind else getattr(kind, f"__{kind.__name__}__")(value)
    return value


def type_name(value: Any) -> str:
    """The type of a value as an error shows it: ``str``, ``NoneType``, ``numpy.ndarray``."""
    kind = type(value)
    own = kind.__module__ == "builtins"
    return kind.__name__ if own else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def shown(value: Any) -> str:
    """A value as an error shows it: its ``repr`` in one line, cut; the type where even that cannot be had."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of thousands of digits, or a class whose repr fails
        text = f"a value of type {type_name(value)}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown_key(key: Any) -> str:
    """A key as an error shows it: as it is where it can be printed, cut."""
    text = str(key) if isinstance(key, str) and key.isprintable() else shown(key)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def has_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which UTF-8 cannot write."""
    return not text.isascii() and SURROGATE.search(text) is not None


def _plain(value: Any, level: int) -> Any:
    kind = type(value)
    if kind is str:
        if has_surrogate(value):
            raise _UnfitError("holds a lone surrogate (half of a cut emoji); replace it by U+FFFD")
    elif kind is dict or isinstance(value, Mapping):
        return _object(value, level)
    elif kind is list or kind is tuple:
        return _array(value, level)
    elif kind is int:
        if value.bit_length() > MAX_BITS:
            raise _UnfitError("is an integer of more than 4,200 digits; write it as text")
    elif kind is float:
        if not math.isfinite(value):
            raise _UnfitError(f"is {value}, which is not JSON; use None or leave the key out")
    elif value is not None and kind is not bool:
        return _other(value, level)
    return value


def _object(value: Mapping[Any, Any], level: int) -> Any:
    _check_level(level)
    pairs = {}
    name: Any = None
    changed = type(value) is not dict
    try:
        for name, item in value.items():
            own = _plain(item, level + 1)
            own_name = name if type(name) is str and name.isascii() else _name(name)
            changed = changed or own is not item or own_name is not name
            pairs[own_name] = own
    except _UnfitError as error:
        error.keys.append(f".{shown_key(name)}" if isinstance(name, str) else f"[{shown(name)}]")
        raise
    return pairs if changed else value


def _array(value: Sequence[Any], level: int) -> Any:
    _check_level(level)
    items: list[Any] = []
    try:
        for item in value:
            items.append(_plain(item, level + 1))
    except _UnfitError as error:
        error.keys.append(f"[{len(items)}]")
        raise
    same = type(value) is list and all(new is old for new, old in zip(items, value, strict=True))
    return value if same else items


def _other(value: Any, level: int) -> Any:
    """What is none of JSON's own types, but may be one of theirs in disguise."""
    own = scalar(value)
    if type(own) in (str, int, float, bool):
        return _plain(own, level)
    if isinstance(value, list | tuple):
        return _array(list(value), level)
    remedy = _REMEDIES.get(type(value).__name__, "expected text, a number, true or false, None, a list or a dict")
    raise _UnfitError(f"is of type {type_name(value)}, which JSON cannot hold; {remedy}")


def _name(name: Any) -> str:
    own = scalar(name)
    if type(own) is not str:
        raise _UnfitError(f"is a key of type {type_name(name)}; expected a text as key")
    if has_surrogate(own):
        raise _UnfitError("is a key with a lone surrogate (half of a cut emoji); replace it by U+FFFD")
    return own


def _check_level(level: int) -> None:
    if level > MAX_LEVELS:
        raise _UnfitError(f"is nested too deep; flatten it to fewer than {MAX_LEVELS} levels")
