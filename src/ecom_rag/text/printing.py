r"""Text from elsewhere (labels, keys, file names, errors) made safe to print in a terminal or a log."""

import re
from typing import Any

# Controls (escape sequences start with one), line and paragraph separators, marks that reorder text, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(value: Any) -> str:
    r"""The text of a value in one line that moves no cursor: what a terminal would obey is written as ``\x1b``.

    Args:
        value: A string, or anything whose ``str`` is meant for people.

    Returns:
        The same text where it holds only characters that show themselves.
    """
    return _UNSAFE.sub(_escaped, str(value))


def one_line(message: Any) -> str:
    """A message of any shape as one printable line: runs of white space become one space."""
    return printable(" ".join(str(message).split()))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")
