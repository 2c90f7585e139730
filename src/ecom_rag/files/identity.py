"""Which values are one label, which are one id, and which seed is the query itself.

A spreadsheet, a database and pandas write the same label as ``1``, ``1.0`` and ``"1"``. Here these are one:

=====================================  =========================================================================
value                                  label
=====================================  =========================================================================
a number                               its shortest decimal form, whole numbers without a fraction
true, false                            ``true``, ``false``; the strings too, in any case
a string                               itself in Unicode NFC, without blanks and zero-width characters around it
a string like ``1.0`` or ``-2.00``     as the whole number; ``007``, ``1.10`` and ``v1.0`` stay as they are
null, NaN, a blank string, no value    none
infinity, an array, an object          an error: a record has one label
=====================================  =========================================================================

An id is a string, taken as it is written, or a whole number: ``7``, ``7.0`` and ``"7"`` are one id.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ecom_rag.errors import RecordError
from ecom_rag.files.keys import parse_key, value_at
from ecom_rag.values import shown

_BLANK = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200d\u2060\ufeff"
_WHOLE = re.compile(r"(-?0|-?[1-9][0-9]*)\.0+")
_EXACT = 2**53  # whole numbers from here on are not all floats


def as_label(value: Any) -> str | None:
    """The label that a value is, ``None`` for none; a label is itself.

    Raises:
        ValueError: It cannot be a label; the message goes on after the value's name.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and np.isfinite(value)):
        return str(int(value)) if value == int(value) else repr(value)
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value.strip(_BLANK))
        if text.casefold() in ("true", "false"):
            return text.casefold()
        whole = _WHOLE.fullmatch(text)
        return whole[1].replace("-0", "0") if whole else text or None
    raise ValueError(f"is {_found(value)}; expected one label, a string or number")


def shown_label(value: Any) -> str | None:
    """A label as figures show it: an array or object, which is none, as its JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return as_label(value)


def as_id(value: Any) -> str:
    """A value as an id.

    Raises:
        ValueError: It cannot be an id; the message goes on after the value's name.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"is {_found(value)}; expected a string of at least one character, or an integer")


def label_of(metadata: Any, key: str) -> str | None:
    """The label under a key of metadata; ``None`` where there is none.

    Raises:
        ValueError: What is there cannot be a label.
        UsageError: Not a key.
    """
    try:
        return as_label(value_at(metadata, key))
    except ValueError as error:
        raise ValueError(f'metadata "{key}" {error}') from None


def label_at(where: str, metadata: Any, key: str) -> str | None:
    """As ``label_of``, for the record of that place.

    Raises:
        RecordError: What is there cannot be a label.
    """
    try:
        return label_of(metadata, key)
    except ValueError as error:
        raise RecordError(where, str(error)) from None


def id_of(metadata: Any, key: str) -> str | None:
    """The id under a key of metadata; ``None`` where there is none, or null.

    Raises:
        ValueError: What is there cannot be an id.
        UsageError: Not a key.
    """
    value = value_at(metadata, key)
    try:
        return None if value is None else as_id(value)
    except ValueError as error:
        raise ValueError(f'metadata "{key}" {error}') from None


def required_label(metadata: Any, key: str, whose: str) -> str:
    """As ``label_of``, where there must be one.

    Raises:
        ValueError: There is none; the message begins with ``whose``.
    """
    return _required(label_of, metadata, key, whose)


def required_id(metadata: Any, key: str, whose: str) -> str:
    """As ``id_of``, where there must be one.

    Raises:
        ValueError: There is none; the message begins with ``whose``.
    """
    return _required(id_of, metadata, key, whose)


def known_id(metadata: Any, key: str) -> str | None:
    """As ``id_of``, and ``None`` for what cannot be an id."""
    try:
        return id_of(metadata, key)
    except ValueError:
        return None


def ids_by(key: str) -> Callable[[Any], str | None]:
    """``known_id`` of one key, for many metadata: the key is read once.

    Args:
        key: The key.

    Raises:
        UsageError: Not a key.
    """
    path = parse_key(key, what="id_key")
    name = path[0] if len(path) == 1 else None

    def found(metadata: Any) -> str | None:
        value = metadata.get(name) if name is not None and type(metadata) is dict else None
        if type(value) is str and value:
            return value
        return str(value) if type(value) is int else known_id(metadata, key)

    return found


def is_itself(query: Mapping[str, Any], text: str, metadata: Any, id_key: str) -> bool:
    """Whether a seed is the query: it has the query's id, or where one of them has none, the query's very text."""
    own, other = known_id(query.get("metadata"), id_key), known_id(metadata, id_key)
    return own == other if own is not None and other is not None else query["text"] == text


def _required(read: Any, metadata: Any, key: str, whose: str) -> str:
    try:
        found: str | None = read(metadata, key)
    except ValueError as error:
        raise ValueError(f"{whose}: {error}") from None
    if found is None:
        keys = ", ".join(list(metadata)[:8]) if isinstance(metadata, Mapping) else ""
        raise ValueError(
            f'{whose}: metadata "{key}" is missing (found keys: {keys or "none"}); expected a string or number'
        )
    return found


def _found(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, Mapping) else shown(value)
