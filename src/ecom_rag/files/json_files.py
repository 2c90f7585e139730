"""Records as JSON: one object per line, or one array. Neither is held in memory whole."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ecom_rag.errors import RecordError
from ecom_rag.files.json_text import TOO_DEEP

CHUNK = 1 << 20
_BLANKS = " \t\r\n"


def lines(name: str, source: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Place and bytes of each line that holds something; a byte order mark is passed over."""
    for number, line in enumerate(source, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        line = line.strip(b" \t\r\n")
        if line:
            yield f"{name}:{number}", line


def write_lines(jsonl: Path, sink: IO[bytes]) -> None:
    """Finished JSON lines as they are."""
    with jsonl.open("rb") as source:
        shutil.copyfileobj(source, sink, CHUNK)


def array(name: str, source: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Place and bytes of each item of an array; an empty file holds none, as an empty file of lines does.

    Raises:
        RecordError: It is no array, or its end or the end of an item cannot be found.
    """
    text = _Text(source)
    first = text.peek()
    if first not in ("", "["):
        told = "a .json file must hold one array of records (for one record a line, name it .jsonl)"
        raise RecordError(name, f"starts with {first!r}; {told}")
    if not first:
        return
    text.skip()
    number, following = 0, "]" if text.peek() == "]" else ","
    while following == ",":
        if not text.peek():
            break
        number += 1
        where = f"{name}: item {number}"
        yield where, _value(where, text)
        following = text.peek()
        if following not in ("", ",", "]"):
            raise RecordError(where, f"found {following!r} after it; expected , or ]")
        if following == ",":
            text.skip()
    if following != "]":
        raise RecordError(name, f"the array ends after item {number} without ]; the file is cut off, copy it again")
    text.skip()
    if text.peek():
        raise RecordError(f"{name}: item {number}", "text after the end of the array; remove it")


def _value(where: str, text: "_Text") -> bytes:
    try:
        return text.value().encode("utf-8", "surrogateescape")
    except RecursionError:  # more of the file does not help
        raise RecordError(where, TOO_DEEP) from None
    except ValueError as error:  # not JSON, or an integer of thousands of digits
        raise RecordError(where, f"not valid JSON ({error}); mend the file") from None


def write_array(jsonl: Path, sink: IO[bytes]) -> None:
    """Finished JSON lines as the items of an array."""
    with jsonl.open("rb") as source:
        sink.write(b"[")
        for number, line in enumerate(source):
            sink.write((b",\n" if number else b"\n") + line.rstrip(b"\n"))
        sink.write(b"\n]\n")


class _Text:
    """The text of an open file, read chunk by chunk; what lies behind is forgotten."""

    def __init__(self, source: IO[bytes]) -> None:
        self._file = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            self._buffer, self._at = self._file.read(CHUNK), 0
            if not self._buffer:
                return ""

    def skip(self) -> None:
        """Go one character on."""
        self._at += 1

    def value(self) -> str:
        """The JSON value that begins here, as it is written; goes on behind it.

        Raises:
            ValueError: There is none.
            RecursionError: It is nested too deep to find its end.
        """
        while True:
            problem: ValueError | None = None
            end = len(self._buffer)
            try:
                _, end = self._decoder.raw_decode(self._buffer, self._at)
            except ValueError as error:
                problem = error
            more = ""
            if problem is not None or end == len(self._buffer):  # a number there may go on in the next chunk
                more = self._file.read(max(CHUNK, len(self._buffer) - self._at))
            if not more:
                break
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        if problem is not None:
            raise problem
        start, self._at = self._at, end
        return self._buffer[start:end]
