"""What must be on the disk before a name promises it, and locks that other processes see."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO


def sync_file(path: Path) -> None:
    """Make what was written to a file last."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


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


def open_to_others(folder: Path) -> None:
    """Give a folder and all below the modes that the umask gives new files: some writers make theirs for one reader."""
    mask = _umask()
    for item in (folder, *folder.rglob("*")):
        if not item.is_symlink():
            item.chmod((0o777 if item.is_dir() else 0o666) & ~mask)


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
