"""Digests of files and of records; those of large files are remembered."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ecom_rag.files import cache, records
from ecom_rag.files.records import Record

_LARGE = 1 << 20  # bytes; smaller files are read each time
_SLICES = 64
_SLICE = 4096  # bytes


class Digest:
    """BLAKE2b of whatever is added, one after the other."""

    def __init__(self) -> None:
        self._found = hashlib.blake2b(digest_size=16)

    def record(self, record: Record) -> None:
        """Add a record, as its JSON line."""
        self._found.update(records.dumps(record))

    def text(self, text: str) -> None:
        """Add a text as a line, lone surrogates too."""
        self._found.update(text.encode("utf-8", "surrogatepass") + b"\n")

    def data(self, data: bytes) -> None:
        """Add bytes."""
        self._found.update(data)

    @property
    def value(self) -> str:
        """Of what was added so far: 32 hexadecimal digits."""
        return self._found.hexdigest()


def of_records(items: Iterable[Record]) -> str:
    """Changes with any of the records, and with their order."""
    found = Digest()
    for item in items:
        found.record(item)
    return found.value


def of_texts(texts: Iterable[str]) -> str:
    """Changes with any of the texts, and with their order."""
    found = Digest()
    for text in texts:
        found.text(text)
    return found.value


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
