"""What a metadata key means, wherever one is named: filters, label and id keys, index keys, recipes.

::

    key  = part ("." part)*       ``a.b`` is the key ``b`` of the object under ``a``
    part = letters, digits, "_", "-" | a quoted string with the escapes of JSON (for any other key)

So ``"a.b"`` with the quotes is the one key that holds a dot. An option that is a key and nothing else may leave out the
quotes where it needs none to be understood: ``risk level``.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.values import has_surrogate, shown

Path = tuple[str, ...]

WORDS = frozenset({"and", "or", "not", "in", "exists", "true", "false", "null"})
"""What a filter means by these, so that a key of the same name stands in quotes."""
STRING = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
"""Regular expression of a quoted string."""

_PART = re.compile(rf"\s*(?P<part>{STRING}|[\w-]+)", re.DOTALL)
_DOT = re.compile(r"\s*\.")
_PLAIN = re.compile(r"[^.\"'\\\x00-\x1f\x7f]+")  # needs no quotes to be understood


def parse_key(text: Any, *, what: str = "key") -> Path:
    """The path of a key.

    Args:
        text: The key.
        what: Named in errors, e.g. ``label_key``.

    Raises:
        UsageError: Not a key.
    """
    if not isinstance(text, str):
        raise UsageError(f"{what}: found the key {shown(text)}; expected a string")
    return _parsed(text, what)


@lru_cache(maxsize=256)
def _parsed(text: str, what: str) -> Path:
    if _PLAIN.fullmatch(text) and text.strip() and text.strip().lower() not in WORDS:
        return (text.strip(),)
    path, end = read_key(text, what=what)
    if text[end:].strip():
        raise _wrong(what, text, end, '"." or the end of the key')
    return path


def read_key(text: str, start: int = 0, *, what: str = "key") -> tuple[Path, int]:
    """The key at a place of a text, and where it ends.

    Raises:
        UsageError: There is none.
    """
    parts: list[str] = []
    end = start
    while True:
        found = _PART.match(text, end)
        if found is None or found["part"].lower() in WORDS:
            raise _wrong(what, text, end, 'a key (letters, digits, "_", "-"; any other key in quotes)')
        part = found["part"]
        try:
            parts.append(unquoted(part) if part[0] in "\"'" else part)
        except ValueError as error:
            raise _wrong(what, text, found.start("part"), str(error)) from None
        dot = _DOT.match(text, found.end())
        if dot is None:
            return tuple(parts), found.end()
        end = dot.end()


def unquoted(quoted: str) -> str:
    """What a quoted string says.

    Raises:
        ValueError: An escape that JSON does not have; the message says what was expected.
    """
    inner = quoted[1:-1]
    if quoted[0] == "'":  # as JSON: the one quote needs no escape, the other does
        inner = re.sub(r"\\.|\"", lambda m: {"\\'": "'", '"': '\\"'}.get(m[0], m[0]), inner, flags=re.DOTALL)
    try:
        found = str(json.loads(f'"{inner}"', strict=False))
    except json.JSONDecodeError:
        found = None
    if found is None or has_surrogate(found):
        raise ValueError(r"a string of whole characters with the escapes of JSON (\" \\ \n \u4e2d)")
    return found


def written(name: str) -> str:
    """The key that means the one key of this name, whatever is in it."""
    return name if re.fullmatch(r"[\w-]+", name) and name.lower() not in WORDS else json.dumps(name, ensure_ascii=False)


def lookup(metadata: Any, path: Path) -> tuple[bool, Any]:
    """Whether there is a value at a path, and the value."""
    for part in path:
        if not isinstance(metadata, Mapping) or part not in metadata:
            return False, None
        metadata = metadata[part]
    return True, metadata


def value_at(metadata: Any, key: str) -> Any:
    """The value under a key of metadata; ``None`` where there is none.

    Raises:
        UsageError: Not a key, or one that needs quotes to mean what the metadata hold.
    """
    there, value = lookup(metadata, parse_key(key))
    if not there and isinstance(metadata, Mapping) and key in metadata:
        raise UsageError(
            f"key {key}: looks into objects, but the metadata hold a key of just this name; write"
            f" {written(key)} for that one"
        )
    return value


def _wrong(what: str, text: str, place: int, expected: str) -> UsageError:
    place += len(text[place:]) - len(text[place:].lstrip())
    found = repr(text[place:][:20]) if text[place:] else "the end"
    return UsageError(f"{what}, character {place + 1}: found {found}; expected {expected}")
