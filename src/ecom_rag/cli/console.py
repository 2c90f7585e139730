"""Standard input, output and error, in whatever state the shell handed them over.

A closed one is given a stand-in at once: its number would be taken by the next file that is opened, and what is meant
for the terminal would go into that file. Whoever reads or writes a closed one is told so in one line.
"""

import contextlib
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ecom_rag.cli.wording import worded
from ecom_rag.errors import UsageError
from ecom_rag.text.printing import one_line

_NAMES = ("stdin", "stdout", "stderr")
_silent = False


class _Closed(io.RawIOBase):
    """What stands for a closed standard stream."""

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__()
        self._told = f"{name} is closed; {remedy}"

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise UsageError(self._told)

    def write(self, data: Any) -> int:
        raise UsageError(self._told)


def repair_streams() -> None:
    """Stand-ins for closed streams; characters that the terminal's encoding lacks are written as escapes."""
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None:
            _fill(number)
            setattr(sys, name, _stand_in(name))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def silenced(on: bool) -> Iterator[None]:
    """A block in which nothing is told, where ``on``: what ``--quiet`` asks for. An error that leaves it is told."""
    global _silent
    before, _silent = _silent, on
    try:
        yield
    finally:
        _silent = before


def shows_progress() -> bool:
    """Whether somebody watches how far a run is: standard error is a terminal, and ``--quiet`` was not given."""
    return sys.stderr.isatty() and not _silent


def tell(message: Any) -> None:
    """One line on standard error, which may be closed or have lost its reader: then nobody is told."""
    if _silent:
        return
    try:
        print(f"ecom-rag: {one_line(message)}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence(2)


def tell_notes(notes: Iterable[str]) -> None:
    """What the library found worth saying after a run that ended well, one line each."""
    for note in notes:
        tell(f"note: {worded(note)}")


def write_bytes(data: bytes) -> None:
    """Bytes on standard output, in order with what is printed there."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def flush() -> None:
    """What was printed goes out now, and not when nobody can be told any more that it did not.

    Raises:
        BrokenPipeError: Its reader is gone.
        UsageError: It cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"standard output: {error.strerror}; what was printed is not complete") from None


def reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    with contextlib.suppress(OSError):
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def silence(*numbers: int) -> None:
    """Whatever is still written to these descriptors is lost without an error, also when the interpreter ends."""
    for number in numbers:
        with contextlib.suppress(OSError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, number)
            os.close(sink)


class Log(logging.Handler):
    """Our own log on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line a record; errors are told to who wants quiet too."""
        with silenced(_silent and record.levelno < logging.ERROR):
            tell(worded(record.getMessage()))


def _fill(number: int) -> None:
    try:
        os.fstat(number)
    except OSError as error:
        if error.errno == errno.EBADF:
            sink = os.open(os.devnull, os.O_RDWR)
            if sink != number:
                os.dup2(sink, number)
                os.close(sink)


def _stand_in(name: str) -> io.TextIOWrapper:
    if name == "stderr":
        return open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if name == "stdin":
        raw: Any = io.BufferedReader(_Closed("standard input", "name a file, or pipe the records in"))
        return io.TextIOWrapper(raw, encoding="utf-8")
    raw = _Closed("standard output", "redirect it to a file, or to /dev/null")
    return io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
