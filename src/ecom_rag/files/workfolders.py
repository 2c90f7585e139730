"""Work folders: where an unfinished output lies, ``OUT.partial``. One that this project did not make is never touched.

The first thing in a work folder is the file ``lock``: it holds the mark that tells whose folder this is, and the lock
of the process that works there. A folder that holds anything without that mark is refused, and so is a link.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ecom_rag.errors import EcomRagError, UsageError
from ecom_rag.files import disk

LOCK = "lock"
_MARK = "ecom_rag work folder: "


@contextlib.contextmanager
def held(folder: Path, kind: str, *, error: type[EcomRagError] = UsageError) -> Iterator[None]:
    """Make a work folder, or take over one that an earlier run left, and keep other processes out of it.

    Args:
        folder: Its place.
        kind: What is made in it, e.g. ``results``; another kind's folder is refused.
        error: Class of what is raised.

    Raises:
        EcomRagError: Another process has it, or something else is there.
    """
    with disk.writing(folder), take(folder, kind, error=error):
        yield


def take(folder: Path, kind: str, *, error: type[EcomRagError] = UsageError) -> IO[bytes]:
    """As ``held``: the lock, which lasts until it is closed."""
    _check(folder, kind, error)
    folder.mkdir(exist_ok=True)
    try:
        lock = disk.locked(folder / LOCK)
    except FileNotFoundError:  # another run has just finished in it
        lock = None
    if lock is None:
        raise error(f"{folder}: another run is at work in it; wait for it or name another output")
    if not (folder / LOCK).stat().st_size:
        lock.write(f"{_MARK}{kind}\n".encode())
        lock.flush()
    return lock


def is_ours(folder: Path, kind: str) -> bool:
    """Whether a folder carries the mark of its kind."""
    return not folder.is_symlink() and _mark(folder) == f"{_MARK}{kind}"


def empty(folder: Path) -> None:
    """Remove all that an earlier run left in a folder that is held."""
    for item in folder.iterdir():
        if item.name != LOCK:
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()


def discard(folder: Path) -> None:
    """Remove a folder that is held, its mark last; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        empty(folder)
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def partial(target: Path) -> Path:
    """The usual work folder of a target."""
    return target.with_name(f"{target.name}.partial")


def check_new(target: Path, *, error: type[EcomRagError] = UsageError, remedy: str = "") -> None:
    """Raise unless a folder could be made there, before any work is done for it.

    Args:
        target: The folder.
        error: Class of what is raised where something is there.
        remedy: What else can be done about that, e.g. ``add to it``.
    """
    if not target.name:
        raise UsageError(f"{target}: cannot be a new folder; choose a name that does not exist")
    if disk.anything_at(target):
        raise error(f"{target}: already exists; {remedy}choose another folder or remove this one")
    parent = target.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"{target}: the folder {target.parent} does not exist; create it first")
    if not disk.may_write(parent):
        raise UsageError(f"{target}: the folder {target.parent} may not be written; check its permissions")


@contextlib.contextmanager
def new_folder(
    target: Path, *, kind: str, work: Path | None = None, error: type[EcomRagError] = UsageError
) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends, and is gone if it raises.

    Args:
        target: Its name.
        kind: As of ``held``.
        work: Where it lies until then; by default ``TARGET.partial``.
        error: As of ``held``.
    """
    check_new(target, error=error)
    work = work or partial(target)
    with held(work, kind, error=error):
        try:
            empty(work)
            fresh = work / "whole"
            fresh.mkdir()
            yield fresh
            publish(fresh, target, error=error)
        finally:
            discard(work)


def publish(fresh: Path, target: Path, *, error: type[EcomRagError] = UsageError) -> None:
    """Give a finished folder its name, once all of it is on the disk."""
    check_new(target, error=error)  # it may have come to be meanwhile
    disk.open_to_others(fresh)  # safetensors makes files for their owner alone
    disk.sync_tree(fresh)
    fresh.rename(target)
    disk.sync_folder(target.absolute().parent)


def _check(folder: Path, kind: str, error: type[EcomRagError]) -> None:
    """Raise unless nothing is there, an empty folder, or a work folder of this kind."""
    if not disk.anything_at(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        what = "a link" if folder.is_symlink() else "not a folder"
        raise error(
            f"{folder}: is {what}, and this run needs that name for unfinished work; move it away, or name"
            " another output"
        )
    mark = _mark(folder)
    if mark == f"{_MARK}{kind}":
        return
    if mark.startswith(_MARK):
        raise error(
            f"{folder}: holds unfinished {mark.removeprefix(_MARK)}; finish or remove it, or name another output"
        )
    lock = folder / LOCK
    for item in folder.iterdir():
        if item != lock or lock.is_symlink() or not lock.is_file() or lock.stat().st_size:  # a kill can leave it empty
            raise error(
                f"{folder}: holds {item.name}, which no run of ecom_rag left there, and this run needs that"
                " name for unfinished work; move the folder away, or name another output"
            )


def _mark(folder: Path) -> str:
    lock = folder / LOCK
    if lock.is_symlink() or not lock.is_file():
        return ""
    with lock.open("rb") as handle:
        return handle.readline(100).decode("utf-8", "replace").rstrip("\n")
