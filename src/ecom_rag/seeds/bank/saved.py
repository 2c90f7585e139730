"""Arrays on disk: a folder of ``.npy`` files beside a manifest with their checksums, complete or absent.

A folder is written under another name, synced and renamed, so that under its own name it is whole; checksums find what
the disk has done to it since. Loaded arrays are memory-mapped: processes on one machine share them.
"""

import contextlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.files import disk

logger = logging.getLogger(__name__)

Arrays = dict[str, dict[str, NDArray[Any]]]  # of each index, by name
_MANIFEST = "manifest.json"
_CHUNK = 1 << 20  # bytes; larger buffers stay with the process after they are freed


@dataclass(frozen=True, slots=True)
class Saved:
    """A folder of arrays that is there.

    Args:
        folder: Where.
        sequence: The change that the arrays are up to.
        next_row: The first row that is not in them.
    """

    folder: Path
    sequence: int
    next_row: int


class DamagedError(Exception):
    """Saved arrays that are not what was saved."""


def newest(parent: Path, sequence: int) -> list[Saved]:
    """The folders of arrays that are not newer than a sequence, newest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in parent.iterdir():
            numbers = folder.name.split("-")
            if len(numbers) == 2 and all(map(str.isdecimal, numbers)) and int(numbers[0]) <= sequence:
                found.append(Saved(folder, int(numbers[0]), int(numbers[1])))
    return sorted(found, key=lambda saved: saved.sequence, reverse=True)


def save(parent: Path, arrays: Arrays, header: dict[str, Any], *, sequence: int, next_row: int) -> Saved | None:
    """Write arrays and drop the older ones; ``None`` where another process is about to do so.

    Args:
        parent: Folder of the folders.
        arrays: Of each index.
        header: Written into the manifest, and asked for by ``load``.
        sequence: The change that the arrays are up to.
        next_row: The first row that is not in them.
    """
    parent.mkdir(exist_ok=True)
    lock = disk.locked(parent / "lock")
    if lock is None:
        return None
    with lock, disk.writing(parent):
        for leftover in parent.glob("*.new"):
            shutil.rmtree(leftover, ignore_errors=True)
        saved = Saved(parent / f"{sequence}-{next_row}", sequence, next_row)
        if not _sound(saved.folder, header):
            shutil.rmtree(saved.folder, ignore_errors=True)
            fresh = saved.folder.with_name(f"{saved.folder.name}.new")
            fresh.mkdir()
            for index, own in arrays.items():
                write(fresh, index, own)
            complete(fresh, saved.folder, header)
        for old in newest(parent, sequence):
            if old.folder != saved.folder:
                shutil.rmtree(old.folder, ignore_errors=True)
        return saved


def write(fresh: Path, index: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of an index into a folder that ``complete`` gives its name."""
    for name, array in arrays.items():
        with path_of(fresh, index, name).open("wb") as handle:
            np.save(handle, np.ascontiguousarray(array), allow_pickle=False)


def path_of(folder: Path, index: str, name: str) -> Path:
    """The file of an array."""
    return folder / f"{index}.{name}.npy"


def complete(fresh: Path, folder: Path, header: dict[str, Any]) -> None:
    """Make a folder of arrays last, with their manifest, and give it its name.

    Args:
        fresh: The folder as it was written.
        folder: Its name; nothing is there.
        header: Written into the manifest, and asked for by ``load``.
    """
    paths = sorted(fresh.iterdir())
    files = {}
    for path, found in zip(paths, _checksums(paths), strict=True):
        disk.sync_file(path)
        files[path.name] = {"bytes": path.stat().st_size, "crc32": found}
    with (fresh / _MANIFEST).open("w") as handle:
        json.dump({"header": header, "files": files}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    disk.sync_folder(fresh)
    fresh.rename(folder)
    disk.sync_folder(folder.parent)


def load(folder: Path, header: dict[str, Any]) -> Arrays:
    """Memory-map arrays after checking them.

    Raises:
        DamagedError: They are not what was saved, or were saved under another header.
    """
    try:
        manifest = disk.read_note(folder / _MANIFEST)
        if manifest["header"] != header:
            raise DamagedError("was saved for other settings")
        files: dict[str, dict[str, int]] = manifest["files"]
        for name, expected in files.items():
            if Path(name).name != name or (folder / name).is_symlink():
                raise DamagedError(f"{name!r} lies outside the folder")
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                raise DamagedError(f"{name} has {size} bytes instead of {expected['bytes']}")
        for name, found in zip(files, _checksums([folder / name for name in files]), strict=True):
            if found != files[name]["crc32"]:
                raise DamagedError(f"{name} has another checksum than when it was saved")
        arrays: Arrays = {}
        for name in files:
            index, own, _ = name.split(".")
            path = folder / name
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            arrays.setdefault(index, {})[own] = array.view(np.ndarray)
        return arrays
    except FileNotFoundError as error:
        raise DamagedError(f"{Path(error.filename or folder).name} is missing") from None
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise DamagedError(str(error)) from None


def _sound(folder: Path, header: dict[str, Any]) -> bool:
    """Whether arrays are there and as they were saved; damaged ones and those of another version are written anew."""
    try:
        load(folder, header)
    except DamagedError:
        return False
    return True


def _checksums(paths: Sequence[Path]) -> list[int]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # zlib lets go of the interpreter
        return list(pool.map(_checksum, paths))


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found
