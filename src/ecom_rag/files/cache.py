"""Where what can be computed again is kept, so that a run goes on where nothing can be kept.

Nothing in the cache is needed: what cannot be read from it is computed again, and what cannot be written is given up,
or kept in a temporary folder for this process, with one warning.
"""

import atexit
import contextlib
import functools
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

REMEDY = "set ECOM_RAG_CACHE to a folder that can be written"
_warned: set[Path] = set()
_LEAST_FREE = 32 << 20  # bytes: what is kept is mostly larger than what fits into less


def cache_folder() -> Path:
    """Converted models, tokenizers, digests, unpacked weights: ``$ECOM_RAG_CACHE`` or ``~/.cache/ecom_rag``."""
    asked = os.environ.get("ECOM_RAG_CACHE")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "ecom_rag"
    except RuntimeError:  # no HOME, and a user without an entry in the password file
        return _of_this_process()


def keep(path: Path, content: str | bytes) -> bool:
    """Write a small file of the cache, whole or not at all; where that fails, warn once and go on.

    Args:
        path: Below ``cache_folder()``.
        content: Of the file.

    Returns:
        Whether it was written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        _warn(cache_folder(), reason(error))
        return False
    return True


@contextlib.contextmanager
def being_made(place: Path) -> Iterator[Path]:
    """A fresh folder beside ``place`` to make something in, gone when the block ends; what is done is moved out of it.

    Args:
        place: Below ``cache_folder()``; its parent is made.
    """
    import tempfile  # not at every start

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def fallback(place: Path, error: Exception) -> Path:
    """Where something goes that a run cannot do without, when the cache did not take it: for this process only.

    Args:
        place: Where it should have been, below ``cache_folder()``.
        error: Why it is not.

    Returns:
        The same place in a temporary folder.
    """
    _warn(cache_folder(), reason(error))
    return _of_this_process() / place.parent.name / place.name


def kernels_folder(package: Path) -> Path | None:
    """Where numba keeps compiled kernels, if not beside their source as it does by itself.

    Args:
        package: The folder of the package.

    Returns:
        ``None`` where numba's own choice can be written, or was made by ``NUMBA_CACHE_DIR``.
    """
    asked = os.environ.get("NUMBA_CACHE_DIR")
    if asked and _takes_files(Path(asked)):
        return None
    if not asked and all(_takes_files(path) for path in (package, *package.rglob("__pycache__"))):
        return None
    own = cache_folder() / "kernels"
    if _takes_files(own):
        return own
    _warn(cache_folder(), f"nor can {package}")
    return _of_this_process() / "kernels"


def reason(error: Exception) -> str:
    """Why a file could not be written, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _takes_files(folder: Path) -> bool:
    """Whether files can be made in a folder that exists or could be made."""
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        return existing.is_dir() and os.access(existing, os.W_OK) and shutil.disk_usage(existing).free > _LEAST_FREE
    except OSError:
        return False


@functools.cache
def _of_this_process() -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ecom_rag-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)


def _warn(folder: Path, why: str) -> None:
    """Say that a folder cannot be written, once in a process."""
    if folder not in _warned:
        _warned.add(folder)
        logger.warning(
            "%s: cannot be written (%s); what it keeps (digests, converted models, compiled kernels) is made anew at"
            " each start; %s",
            folder,
            why,
            REMEDY,
        )
