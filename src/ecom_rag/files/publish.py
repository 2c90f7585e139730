"""How an output gets its name: whole or not at all, and never over what no run was told to write.

A plain file takes the place of the one that the user named, in one step; through a link, of the file that it leads to,
and the link stays. Into a pipe or a device the bytes are streamed as they come. Folders, sockets and block devices are
refused. Refused input lines get a file of their own beside the output; what has that name already is left alone.
"""

import contextlib
import filecmp
import itertools
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ecom_rag.errors import UsageError
from ecom_rag.files import disk

# Names of open descriptors: written to as they stand, even where one leads to a plain file.
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")

_READ_IN_FOLDERS = ("*.json", "*/*.json", "corpus.jsonl*", "queries.jsonl*", "qrels/*")


class ReaderGoneError(BrokenPipeError):
    """Whoever read an output that is streamed has seen enough: a quiet end, not a failure."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an output goes.

    Args:
        name: As the user wrote it; ``-`` is standard output.
        path: What is written: where the name is a link, what that leads to in the end.
        stream: Whether it is a pipe or a device: written as the results come, and never continued.
    """

    name: str
    path: Path
    stream: bool


def target_of(name: str) -> Target:
    """What an output's name stands for, before any work is done for it.

    Raises:
        UsageError: It could not be written, or it is no place for a file.
    """
    if name == "-":
        return Target(name, Path("/dev/stdout"), stream=True)
    path = Path(name)
    mode = _mode(path)
    if mode is not None:
        if stat.S_ISDIR(mode):
            raise UsageError(f"{name}: is a folder; expected a file name")
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _DESCRIPTOR.fullmatch(name):
            return Target(name, path, stream=True)
        if not stat.S_ISREG(mode):
            raise UsageError(f"{name}: is a socket or a block device; expected a file, a pipe or a new name")
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    if not real.parent.is_dir():
        raise UsageError(f"{name}: the folder {real.parent} does not exist; create it first")
    if not disk.may_write(real.parent):
        raise UsageError(f"{name}: the folder {real.parent} may not be written; check its permissions")
    return Target(name, real, stream=False)


def check_not_read(target: Target, inputs: Iterable[str | Path | None]) -> None:
    """Raise ``UsageError`` if an output is one of the files that the run reads.

    Args:
        target: The output.
        inputs: Files, and folders (a checkpoint, a BEIR folder), of which the files that are read count.
    """
    work = os.path.realpath(f"{target.path}.partial")
    for given in inputs:
        if given is None or str(given) == "-" or target.stream:
            continue
        real = Path(os.path.realpath(given))
        if real.is_relative_to(work):
            raise UsageError(f"{given}: lies in the work folder of this run, which is emptied; copy it elsewhere")
        if not target.path.exists():
            continue
        read = [path for pattern in _READ_IN_FOLDERS for path in real.glob(pattern)] if real.is_dir() else [real]
        if any(path.exists() and path.samefile(target.path) for path in read):
            raise UsageError(f"{target.name}: is also an input of this run; name another output")


def open_stream(target: Target) -> IO[bytes]:
    """A pipe or device, open for writing; a file behind an open descriptor keeps what it holds."""
    return os.fdopen(os.open(target.path, os.O_WRONLY | os.O_APPEND), "wb")


@contextlib.contextmanager
def leaving_reader() -> Iterator[None]:
    """A block that writes into a stream, whose reader may leave at any time."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError(*error.args) from None


@contextlib.contextmanager
def writing(name: str | Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete and on the disk; a stream is written directly.

    Raises:
        UsageError: As ``target_of``.
    """
    target = target_of(str(name))
    if target.stream:
        with leaving_reader(), open_stream(target) as sink:
            yield sink
        return
    with disk.writing(target.path), beside(target.path) as fresh:
        with fresh.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        replace(fresh, target.path)


def replace(source: Path, path: Path) -> None:
    """Give a finished file its name, in place of the file of that name, whose permissions it takes over."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copymode(path, source)
    source.replace(path)
    disk.sync_folder(path.parent)


def rejects_name(output: str) -> str:
    """The first name for the refused lines of an output."""
    return f"{output}.rejected.jsonl"


def publish_rejects(source: Path, output: str) -> str:
    """Put refused lines beside an output, under the first name that is free.

    Args:
        source: The finished lines.
        output: Whose name is continued.

    Returns:
        ``OUT.rejected.jsonl``, or where that exists ``OUT.rejected-2.jsonl``, and so on. A file that holds these very
        lines is taken as it is, so that a repeated run leaves no second copy.
    """
    for number in itertools.count(1):
        path = Path(rejects_name(output) if number == 1 else f"{output}.rejected-{number}.jsonl")
        if path.is_file() and filecmp.cmp(source, path, shallow=False):
            return str(path)
        if not disk.anything_at(path) and _copied(source, path):
            return str(path)
    raise AssertionError  # numbers do not end


def rejects_notes(source: Path, output: str) -> list[str]:
    """Put refused lines, where there are any, beside an output, and say where they are and what was there before."""
    first = rejects_name(output)
    there = disk.anything_at(Path(first))
    with source.open("rb") as handle:
        count = sum(1 for _ in handle)
    if not count:
        return [f"{first} was there before this run, which refused no line, and is left as it was"] if there else []
    name = publish_rejects(source, output)
    kept = [f"{first} was there before this run and is left as it was"] if name != first else []
    return [f"{count} lines were refused and written to {name}", *kept]


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name in the folder of a path that nothing has; whatever is left under it is removed."""
    fresh = path.with_name(f".ecom-rag-{secrets.token_hex(6)}")
    try:
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _copied(source: Path, path: Path) -> bool:
    """Whether a copy got its name, which it takes only while nothing has it."""
    with beside(path) as fresh:
        with source.open("rb") as lines, fresh.open("xb") as sink:
            shutil.copyfileobj(lines, sink)
            sink.flush()
            os.fsync(sink.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if disk.anything_at(path):
                return False
            fresh.rename(path)
        disk.sync_folder(path.parent)
    return True


def _mode(path: Path) -> int | None:
    """The kind of what is there, links followed; ``None`` for nothing."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # a ring of links, a file as a folder, a name too long or with a zero byte
        raise UsageError(f"{path}: cannot be an output ({_reason(error)}); name another") from None


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
