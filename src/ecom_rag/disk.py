"""What must be on the disk before a name promises it, and locks that other processes see."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def anything_at(path: Path) -> bool:
    """Whether a name is taken, be it by a link that leads nowhere."""
    return os.path.lexists(path)


def may_write(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


@contextlib.contextmanager
def written_below(place: str | Path) -> Iterator[None]:
    """A block that writes somewhere: an error of a full disk names that place, and no file that was copied there."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and not str(error.filename or "").startswith(str(place)):
            error.filename = str(place)
        raise


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
