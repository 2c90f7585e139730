"""A bank's copies: a snapshot is a folder that holds one state of a running bank; a restored one is a bank again."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import BankError
from ecom_rag.files import digest, disk, workfolders
from ecom_rag.seeds.address import folder_of
from ecom_rag.seeds.bank import saved
from ecom_rag.seeds.bank.bank import SeedBank
from ecom_rag.seeds.bank.derived import FOLDER
from ecom_rag.seeds.bank.store import FILE

_NOTE = "snapshot.json"
_KEYS = {"sequence": int, "documents": int, "sha256": str}


def snapshot(bank: SeedBank, path: PathLike) -> dict[str, Any]:
    """Copy one state of a bank while it is read and written.

    Args:
        bank: Open.
        path: Folder to make; appears under its name when it is complete.

    Returns:
        The ``sequence`` and ``documents`` of the copy, and the digest of its database.

    Raises:
        BankError: ``path`` already exists, or the bank is closed.
    """
    target = Path(folder_of(path))
    with _appearing(target) as partial:
        bank.store.copy(partial / FILE)
        bank.save_indexes()  # this state's or a later one's; then it is not taken along, and built anew when opened
        with SeedBank.open(partial, maintain=False) as copy:
            note: dict[str, Any] = {"sequence": copy.sequence, "documents": len(copy)}
            copy.store.checkpoint()
        for found in saved.newest(bank.path / FOLDER, note["sequence"])[:1]:
            try:
                (partial / FOLDER).mkdir()
                disk.copy_tree(found.folder, partial / FOLDER / found.folder.name)
            except (ValueError, FileNotFoundError):  # not ours, or another process has just replaced them
                shutil.rmtree(partial / FOLDER, ignore_errors=True)
        note["sha256"] = digest.of_file(partial / FILE)
        (partial / _NOTE).write_text(json.dumps(note, indent=1))
    return note


def restore(source: PathLike, path: PathLike) -> dict[str, Any]:
    """Make a bank of a snapshot.

    Args:
        source: What ``snapshot`` made; it stays as it is.
        path: The bank's folder; does not exist yet.

    Returns:
        The ``sequence`` and ``documents`` of the bank, and the digest of its database.

    Raises:
        BankError: No snapshot, a damaged one, or ``path`` already exists.
    """
    origin, target = Path(path_of(source, "snapshot")), Path(folder_of(path))
    note = _read_note(origin)
    with _appearing(target) as partial:
        try:
            disk.copy_plain(origin / FILE, partial / FILE)
            if os.path.lexists(origin / FOLDER):
                disk.copy_tree(origin / FOLDER, partial / FOLDER)
        except FileNotFoundError as error:
            lacking = Path(error.filename).name
            raise BankError(f"{origin}: is not whole ({lacking} is missing); take another snapshot") from None
        except ValueError as error:
            raise BankError(f"{error}; a snapshot holds files and folders only, take another one") from None
        if digest.of_file(partial / FILE) != note["sha256"]:
            raise BankError(
                f"{origin / FILE}: is damaged (another digest than when it was made); take another snapshot"
            ) from None
        SeedBank.open(partial, maintain=False).close()
    return note


def _read_note(origin: Path) -> dict[str, Any]:
    """What a snapshot says of itself.

    Raises:
        BankError: It is none.
    """
    try:
        note = disk.read_note(origin / _NOTE)
        if {key: type(note.get(key)) for key in _KEYS} == _KEYS:
            return note
        reason = f"it lacks {', '.join(_KEYS)}"
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
    raise BankError(
        f"{origin}: is not a snapshot of a seed bank (no sound {_NOTE} in it: {reason}); make one with ecom-rag bank"
        " snapshot"
    )


def _appearing(target: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder to fill, that takes its name when the block ends and is gone if it raises."""
    work = target.with_name(f"{target.name}.copying")  # .partial is that of a build
    return workfolders.new_folder(target, kind="copy", work=work, error=BankError)
