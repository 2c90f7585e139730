"""What must be on the disk before a name promises it, copies that follow no links, and locks that others see."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_LARGEST_NOTE = 1 << 22  # bytes
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NEARLY_NOTHING = 1 << 20  # bytes left on a disk
# What NumPy, torch (four writers) and SQLite say where a file could not be written.
_UNWRITTEN = re.compile(
    r"Not enough free space to write|requested and \d+ written|inline_container|PytorchStreamWriter|write\(\): fd"
    r"|file write failed|database or disk is full|disk I/O error"
)


def sync_file(path: Path) -> None:
    """Make what was written to a file last."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def keep(path: Path, save: Callable[[Path], object]) -> None:
    """Make a file of one of our own folders: under another name first, so that under its own it is whole.

    Args:
        path: Its name; a file that has it is replaced.
        save: Writes the file that it is given.
    """
    fresh = path.with_name(f"{path.name}.new")
    save(fresh)
    sync_file(fresh)
    fresh.replace(path)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all files below a folder last, and their names."""
    for item in folder.rglob("*"):
        if item.is_file():
            sync_file(item)
        elif item.is_dir():
            sync_folder(item)
    sync_folder(folder)


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Make one kind of error of all that writers raise where a disk is full or fails.

    Args:
        place: The file or folder that is written.

    Raises:
        OSError: With its number and ``place``, in place of what NumPy, safetensors, torch and SQLite raise.
    """
    try:
        yield
    except Exception as error:
        number = _number_of(error, place)
        named = str(getattr(error, "filename", None) or "")  # of a copy, the file that was read
        if number is None or named.startswith(str(place)):
            raise
        raise OSError(number, os.strerror(number), str(place)) from error


def _number_of(error: Exception, place: Path) -> int | None:
    """The ``errno`` of an error in writing; ``None`` where it is another error."""
    text = str(error)
    if isinstance(error, OSError) and error.errno:
        return error.errno if error.errno in _DISK_ERRORS else None
    if told := re.search(r"serializing.*os error (\d+)", text):  # safetensors
        return int(told[1])
    if not _UNWRITTEN.search(text):
        return None
    existing = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    is_full = "space" in text or "full" in text or shutil.disk_usage(existing).free < _NEARLY_NOTHING
    return errno.ENOSPC if is_full else errno.EIO


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading that is itself a file: no symbolic link, no pipe, no device.

    Raises:
        ValueError: It is something else.
        OSError: It cannot be opened.
    """
    what = "a symbolic link" if path.is_symlink() else ""
    if not what:
        handle = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        if stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            return handle
        handle.close()
        what = "a folder" if path.is_dir() else "a pipe or a device"
    raise ValueError(f"{path} is {what}, expected a file")


def copy_plain(source: Path, target: Path) -> None:
    """Copy the bytes of a file, as ``open_plain`` opens it."""
    with open_plain(source) as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder of files and folders; the target is made.

    Raises:
        ValueError: There is something else in it, e.g. a symbolic link.
        OSError: Something cannot be read or written.
    """
    if source.is_symlink() or not source.is_dir():
        raise ValueError(f"{source} is {'a symbolic link' if source.is_symlink() else 'not a folder'}; expected one")
    target.mkdir()
    for item in sorted(source.iterdir()):
        if item.is_dir() and not item.is_symlink():
            copy_tree(item, target / item.name)
        else:
            copy_plain(item, target / item.name)


def read_note(path: Path, *, limit: int = _LARGEST_NOTE) -> dict[str, Any]:
    """A small JSON object that we wrote beside our data.

    Args:
        path: A file, not a link to one.
        limit: Bytes it has at most.

    Raises:
        ValueError: It is not one, or not a file.
        OSError: It cannot be read.
    """
    with open_plain(path) as handle:
        content = handle.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} has more than {limit} bytes")
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found


def open_to_others(path: Path) -> None:
    """Give a file, or a folder and all below, at least the modes that the umask gives: some writers give fewer."""
    mask = _umask()
    for item in (path, *path.rglob("*")):
        if not item.is_symlink():
            usual = (0o777 if item.is_dir() else 0o666) & ~mask
            item.chmod(stat.S_IMODE(item.stat().st_mode) | usual)


def anything_at(path: Path) -> bool:
    """Whether a name is taken, be it by a link that leads nowhere."""
    return os.path.lexists(path)


def may_write(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder, of those that are still there when they are asked."""
    total = 0
    for item in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += item.stat().st_size if item.is_file() else 0
    return total


def locked(path: Path) -> IO[bytes] | None:
    """An open file that is locked until it is closed, or the process ends; ``None`` where another process has it."""
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def _umask() -> int:
    """The mask of this process; Linux tells it, elsewhere it must be set to be read."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
