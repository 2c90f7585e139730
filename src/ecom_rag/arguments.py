"""Arguments of public functions: each check gives back what the annotation says, and refuses the rest in one line.

Public functions call these at their edge, so that all below may rely on ``str``, ``list``, ``int`` and ``float``.
"""

import math
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.values import has_surrogate, scalar, shown, type_name

PathLike = str | os.PathLike[str]
_MAX = sys.float_info.max


def _told(name: str) -> str:
    """An argument in a message: in backticks, so that the command line may say its own option there."""
    return f"`{name}`" if name.isidentifier() else name


def path_of(value: Any, name: str) -> str:
    """A path as text.

    Args:
        value: ``str``, or anything of ``os.PathLike[str]``.
        name: Of the argument.

    Raises:
        UsageError: Not a path, or a path of bytes.
    """
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str):
        raise UsageError(f"{_told(name)} is of type {type_name(value)}; expected a path (str or pathlib.Path)")
    if "\0" in found:
        raise UsageError(f"{_told(name)} is {shown(found)}; a path holds no NUL character")
    return str(found)


def path_or_none(value: Any, name: str) -> str | None:
    """As ``path_of``, where ``None`` stands for none."""
    return None if value is None else path_of(value, name)


def listed(values: Any, name: str, expected: str) -> list[Any]:
    """Any iterable as a list, read once.

    Args:
        values: A list, tuple, array, generator, ...; no text and no dict, whose items would be letters and keys.
        name: Of the argument.
        expected: What it should hold, e.g. ``a list of texts``.

    Raises:
        UsageError: Nothing to iterate over, or a single text, dict or bytes.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        found = f"the text {shown(values)}" if isinstance(values, str) else f"of type {type_name(values)}"
        raise UsageError(f"{_told(name)} is {found}; expected {expected}")
    return list(values)


def text_of(value: Any, name: str) -> str:
    """A text.

    Raises:
        UsageError: Something else, or a text that cannot be written as UTF-8.
    """
    if not isinstance(value, str):
        raise UsageError(f"{_told(name)} is of type {type_name(value)}; expected a text (str)")
    if has_surrogate(value):
        raise UsageError(f"{_told(name)} holds a lone surrogate (half of a cut emoji); replace it by U+FFFD")
    return value if type(value) is str else str.__str__(value)


def texts_of(values: Any, name: str = "texts") -> list[str]:
    """Texts as a list; an error names the position of the first that is none.

    Raises:
        UsageError: A single text, or something that is no text.
    """
    return [text_of(value, f"{name}[{row}]") for row, value in enumerate(listed(values, name, "a list of texts"))]


def pairs_of(values: Any, name: str = "pairs") -> list[tuple[str, str]]:
    """Pairs of texts as a list.

    Raises:
        UsageError: A single pair, or something that is no pair of texts.
    """
    pairs = []
    for row, pair in enumerate(listed(values, name, "a list of (query, document)")):
        if isinstance(pair, str | bytes | Mapping) or not isinstance(pair, Iterable) or len(both := list(pair)) != 2:
            raise UsageError(f"{name}[{row}] is {shown(pair)}; expected a pair of texts, (query, document)")
        pairs.append((text_of(both[0], f"{name}[{row}][0]"), text_of(both[1], f"{name}[{row}][1]")))
    return pairs


def names_of(values: Any, name: str) -> tuple[str, ...]:
    """Names as a tuple.

    Raises:
        UsageError: A single name that is not in a list, or something that is no text.
    """
    one = f"[{shown(values)}]" if isinstance(values, str) else "a list of names"
    return tuple(text_of(value, f"{name}[{row}]") for row, value in enumerate(listed(values, name, one)))


def whole(value: Any, name: str, *, least: int = 1) -> int:
    """A whole number, NumPy's included.

    Raises:
        UsageError: Something else (``True`` too), or less than ``least``.
    """
    try:
        found = None if isinstance(value, bool) else operator.index(scalar(value))
    except TypeError:
        found = None
    if found is None:
        raise UsageError(f"{_told(name)} is {shown(value)}; expected a whole number of at least {least}")
    if found < least:
        raise UsageError(f"{_told(name)} is {shown(found)}; expected at least {least}")
    if found > sys.maxsize:
        raise UsageError(f"{_told(name)} is {shown(found)}; expected at most {sys.maxsize}")
    return found


def whole_or_none(value: Any, name: str, *, least: int = 1) -> int | None:
    """As ``whole``, where ``None`` stands for a default."""
    return None if value is None else whole(value, name, least=least)


def text_or_none(value: Any, name: str) -> str | None:
    """As ``text_of``, where ``None`` stands for a default."""
    return None if value is None else text_of(value, name)


def number(value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, expected: str) -> float:
    """A finite number from ``low`` to ``high``.

    Raises:
        UsageError: Something else (``True``, NaN and infinity too).
    """
    found = scalar(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high or abs(found) > _MAX:
        raise UsageError(f"{_told(name)} is {shown(value)}; expected {expected}")
    return float(found)


def flag(value: Any, name: str) -> bool:
    """``True`` or ``False``.

    Raises:
        UsageError: Something else: the text "no" would count as true.
    """
    found = scalar(value)
    if not isinstance(found, bool):
        raise UsageError(f"{_told(name)} is {shown(value)}; expected True or False")
    return found


def one_of(value: Any, name: str, known: Iterable[str]) -> str:
    """One of some names.

    Raises:
        UsageError: Another one.
    """
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        expected = " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"
        raise UsageError(f"{_told(name)} {shown(value)} is unknown; expected {expected}")
    return str(value)


def function(value: Any, name: str, gives: str, *, optional: bool = False) -> None:
    """Raise unless an argument can be called.

    Args:
        value: The argument.
        name: Of it.
        gives: What calling it gives, e.g. ``an Encoder``.
        optional: It may be ``None``.

    Raises:
        UsageError: It cannot, e.g. because it is already what it should give.
    """
    if not callable(value) and not (optional and value is None):
        raise UsageError(f"{_told(name)} is of type {type_name(value)}; expected a function that gives {gives}")


def model(value: Any, name: str, method: str, kind: str, *, optional: bool = False) -> None:
    """Raise unless an argument is a loaded model.

    Args:
        value: The argument.
        name: Of it.
        method: That such a model has.
        kind: ``Encoder`` or ``CrossEncoder``.
        optional: It may be ``None``.

    Raises:
        UsageError: Something else, e.g. a model's name.
    """
    if optional and value is None:
        return
    if not hasattr(value, method) or isinstance(value, type):
        expected = f"expected a loaded one: {kind}.from_pretrained(MODEL)"
        raise UsageError(f"{_told(name)} is of type {type_name(value)}; {expected}")
