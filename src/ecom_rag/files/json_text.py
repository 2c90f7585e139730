"""JSON as bytes: written on one line, and parsed without loss; what is read can always be written again."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from ecom_rag.errors import RecordError
from ecom_rag.values import MAX_LEVELS, SURROGATE

# orjson reads integers beyond 64 bits as floats, and numbers beyond float64 as infinity.
_LONG_NUMBER = re.compile(rb"\d{19}|[eE]\+?\d{3}")
_ONE_A_LINE = "; expected one object per line"
TOO_DEEP = f"nested too deep; flatten it to fewer than {MAX_LEVELS} levels"


def dumps(record: Any) -> bytes:
    """One JSON line, UTF-8, ending in a newline; integers of any size survive.

    Raises:
        RecordError: It is nested deeper than ``loads`` would read again.
    """
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        if too_deep(record, MAX_LEVELS + 4):  # a result holds metadata within a list; orjson writes 254 levels
            raise RecordError("a record", TOO_DEEP) from None
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def loads(raw: bytes) -> Any:
    """Parse JSON without losing integers beyond 64 bits.

    Raises:
        ValueError: Not JSON, or nested too deep; the message says why and what to do.
    """
    value = _parsed(raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_LEVELS and too_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def loads_file(raw: bytes) -> Any:
    """As ``loads``, of a whole file or cell that holds one value."""
    try:
        return loads(raw)
    except ValueError as error:
        raise ValueError(str(error).removesuffix(_ONE_A_LINE)) from None


def dumps_all(items: Iterable[Any]) -> bytes:
    """A line of ``dumps`` for each item, one after the other."""
    return b"".join(map(dumps, items))


def loads_all(raw: bytes) -> list[Any]:
    """The items of ``dumps_all``, a result that holds the deepest metadata too."""
    return [_parsed(line) for line in raw.split(b"\n")[:-1]]


def loads_lines(path: Path) -> Iterator[Any]:
    """The values of a file of JSON lines that ``dumps`` wrote."""
    with path.open("rb") as source:
        for line in source:
            yield loads(line.rstrip(b"\n"))


def too_deep(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether lists and objects lie within each other on more levels; goes breadth first, since depth is in doubt."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        inner = (item for one in level for item in (one.values() if isinstance(one, dict) else one))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def without_surrogates(raw: Any, value: Any) -> Any:
    """What was parsed of ``raw``, each lone surrogate replaced by U+FFFD; the very same object where there is none."""
    # Only the escape \udXXX can bring one in, so most lines are not looked at twice.
    if isinstance(raw, bytes) and b"\\u" not in raw:
        return value
    return _replaced(value)


def kind_name(value: Any) -> str:
    """What JSON calls a value, as an error shows it: ``an array``."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)


def _parsed(raw: bytes) -> Any:
    if not _LONG_NUMBER.search(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # the standard library reads lone surrogates, and words its errors for people
    try:
        return json.loads(raw.decode(), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"{'' if error.lineno == 1 else f'line {error.lineno}, '}column {error.colno}"
        raise ValueError(f"not valid JSON ({error.msg} at {place}){_ONE_A_LINE}") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON; use null or leave the key out")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"the number {number:.30} is too large; numbers reach about 1.8e308")
    return value


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return SURROGATE.sub("\ufffd", value) if SURROGATE.search(value) else value
    if isinstance(value, list):
        items = [_replaced(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, dict):
        pairs = {_replaced(key): _replaced(item) for key, item in value.items()}
        same = all(k is j and v is w for (k, v), (j, w) in zip(pairs.items(), value.items(), strict=False))
        return value if same and len(pairs) == len(value) else pairs
    return value
