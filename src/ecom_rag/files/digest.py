"""Digests of files; those of large ones are remembered."""

import hashlib
import os
import re
from pathlib import Path

from ecom_rag.files import cache

_LARGE = 1 << 20  # bytes; smaller files are read each time
_SLICES = 64
_SLICE = 4096  # bytes


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def remembered(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a large file that has not changed, the one found before.

    A file counts as unchanged where its place, size, inode, time of change and time of status change are the same, and
    so is what is read of it each time: 64 slices of 4 KiB, from the first byte to the last. What remains undetected is
    a change between the slices after which the clocks were set back, e.g. by writing below the file system.
    """
    if path.stat().st_size <= _LARGE:
        return of_file(path)
    memo = cache.cache_folder() / "digests" / _identity(path)
    try:
        known = memo.read_text(encoding="ascii")
    except (OSError, ValueError):
        known = ""
    if re.fullmatch(r"[0-9a-f]{64}", known):  # else it was not written to its end
        return known
    found = of_file(path)
    cache.keep(memo, found)
    return found


def _identity(path: Path) -> str:
    """Changes when a file does."""
    with path.open("rb") as handle:
        stat = os.fstat(handle.fileno())
        told = (stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
        identity = hashlib.sha256(f"{path.resolve()}:{told}".encode())
        last = stat.st_size - _SLICE
        for number in range(_SLICES):
            handle.seek(last * number // (_SLICES - 1))
            identity.update(handle.read(_SLICE))
    return identity.hexdigest()[:32]
