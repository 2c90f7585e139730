"""One key of a JSON file of a checkpoint: what is done with it, and the check of a file's keys against a table."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecom_rag.errors import ModelError

logger = logging.getLogger(__name__)

HONOURED, NO_EFFECT, REFUSED = "honoured", "no effect", "refused"


@dataclass(frozen=True, slots=True)
class Key:
    """What is done with one key of a JSON file.

    Args:
        does: ``HONOURED``, ``NO_EFFECT``, or ``REFUSED`` unless the value is one of ``plain``.
        plain: Values of a refused key that change nothing.
        type: What an honoured value must be, where it is not null.
        remedy: What to do instead of a refused value.
    """

    does: str
    plain: tuple[Any, ...] = (None,)
    type: type = object
    remedy: str = "use a checkpoint without it"


CODE = Key(REFUSED, (None, {}), remedy="use a checkpoint whose network is one that transformers has itself")


def check_keys(path: Path, found: Mapping[str, Any], table: Mapping[str, Key], *, unknown: str) -> None:
    """Hold the keys of a file against its part of the table.

    Args:
        path: The file, for messages.
        found: Its keys and values.
        table: What is done with each key.
        unknown: What is done with other keys: ``HONOURED`` (by transformers), ``NO_EFFECT`` (said in the log) or
            ``REFUSED``.

    Raises:
        ModelError: A key that is refused, or a value of the wrong type.
    """
    for name, value in found.items():
        key = table.get(name)
        if key is None:
            _unknown(path, name, value, table, unknown)
        elif key.does == REFUSED and not any(value == plain and type(value) is type(plain) for plain in key.plain):
            if key is CODE:
                raise ModelError(
                    f"{path}: needs its own code ({name}: {_shown(_names(value))}), which ecom_rag never"
                    f" runs; {key.remedy}"
                )
            raise ModelError(f"{path}: {name} {_shown(value)} is not supported; {key.remedy}")
        elif value is not None and not _is(value, key.type):
            raise ModelError(f"{path}: {name} is {_shown(value)}; expected {_TYPES[key.type]}")


_TYPES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    dict: "an object",
    list: "a list",
    object: "a value",
}


def _is(value: Any, expected: type) -> bool:
    """Whether a value is of a type; true is no number."""
    if expected in (int, float):
        return isinstance(value, int if expected is int else int | float) and not isinstance(value, bool)
    return isinstance(value, expected)


def _unknown(path: Path, name: str, value: Any, table: Mapping[str, Key], does: str) -> None:
    if does == REFUSED:
        raise ModelError(
            f"{path}: the key {name} ({_shown(value)}) is not known, and may change the vectors; expected only"
            f" {', '.join(table)}"
        )
    if does == NO_EFFECT:
        logger.warning("%s: the key %s (%s) is not known to transformers and has no effect", path, name, _shown(value))


def _names(value: Any) -> Any:
    """The code that an ``auto_map`` names, without the classes it stands for."""
    return next(iter(value.values()), value) if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
