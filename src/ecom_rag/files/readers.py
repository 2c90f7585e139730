"""The one reader of TOML and the one reader of whole JSON files that users write or may damage."""

import sys
import tomllib
from pathlib import Path
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.files import json_text


def read_toml(path: str | Path, *, remedy: str) -> dict[str, Any]:
    """A TOML file as plain values, all numbers finite.

    Args:
        path: The file; a byte order mark at its start is passed over.
        remedy: What was expected, for errors, e.g. ``expected a recipe, see docs/training.md``.

    Raises:
        UsageError: It cannot be read, is not TOML, is nested too deep, or holds NaN or infinity.
    """
    text = _text(path, remedy)
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{path}: {json_text.TOO_DEEP}") from None
    except ValueError as error:  # not TOML, or an integer of thousands of digits
        raise UsageError(f"{path}: not valid TOML ({error}); {remedy}") from None
    check_finite(found, str(path))
    return found


def read_json(path: str | Path, *, remedy: str) -> Any:
    """A JSON file as plain values.

    Args:
        path: The file.
        remedy: As of ``read_toml``.

    Raises:
        UsageError: It cannot be read, is not JSON, or is nested too deep.
    """
    try:
        return json_text.loads_file(_text(path, remedy).encode())
    except ValueError as error:
        raise UsageError(f"{path}: {error}; {remedy}") from None


def check_finite(value: Any, where: str, key: str = "") -> None:
    """Raise ``UsageError`` where a number of parsed settings is NaN, which passes every comparison, or infinity.

    Args:
        value: Tables, lists and scalars.
        where: The file, for the error.
        key: Of the value in it.
    """
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        found = "beyond all floats" if isinstance(value, int) else value
        raise UsageError(f"{where}: {key} is {found}; expected a finite number")
    if isinstance(value, dict):
        for name, item in value.items():
            check_finite(item, where, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            check_finite(item, where, f"{key}[{number}]")


def _text(path: str | Path, remedy: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {remedy}") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder, not a file; {remedy}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except (OSError, ValueError) as error:  # not to be read, or a name with a zero byte
        raise UsageError(f"{path}: cannot be read ({error}); {remedy}") from None
