"""A bank's copies: a snapshot is a folder that holds one state of a running bank; a restored one is a bank again."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ecom_rag import records, workfolders
from ecom_rag.errors import BankError
from ecom_rag.retrieval.bank import saved, store
from ecom_rag.retrieval.bank.bank import SeedBank
from ecom_rag.retrieval.bank.derived import FOLDER

_NOTE = "snapshot.json"


def snapshot(bank: SeedBank, path: str | Path) -> dict[str, Any]:
    """Copy one state of a bank while it is read and written.

    Args:
        bank: Open.
        path: Folder to make; appears under its name when it is complete.

    Returns:
        The ``sequence`` and ``documents`` of the copy, and the digest of its database.

    Raises:
        BankError: There is something already.
    """
    target = Path(path)
    with _appearing(target) as partial:
        bank.copy_record(partial / store.FILE)
        bank.save_indexes()  # this state's or a later one's; then it is not taken along, and built anew when opened
        with SeedBank.open(partial, maintain=False) as copy:
            note: dict[str, Any] = {"sequence": copy.sequence, "documents": len(copy)}
            copy.checkpoint()
        for found in saved.newest(bank.path / FOLDER, note["sequence"])[:1]:
            try:
                shutil.copytree(found.folder, partial / FOLDER / found.folder.name)
            except (shutil.Error, FileNotFoundError):  # another process has just replaced them
                shutil.rmtree(partial / FOLDER, ignore_errors=True)
        note["sha256"] = _digest(partial / store.FILE)
        (partial / _NOTE).write_text(json.dumps(note, indent=1))
    return note


def restore(source: str | Path, path: str | Path) -> dict[str, Any]:
    """Make a bank of a snapshot.

    Args:
        source: What ``snapshot`` made; it stays as it is.
        path: The bank; not there yet.

    Returns:
        As ``snapshot``.

    Raises:
        BankError: No snapshot, a damaged one, or there is something at ``path`` already.
    """
    origin, target = Path(source), Path(path)
    try:
        note: dict[str, Any] = records.loads((origin / _NOTE).read_bytes())
        expected, _, _ = (note[key] for key in ("sha256", "sequence", "documents"))
    except (OSError, ValueError, KeyError, TypeError):
        raise BankError(f"{origin}: is not a snapshot of a seed bank (no sound {_NOTE} in it);"
                        " make one with ecom-rag bank snapshot") from None  # fmt: skip
    with _appearing(target) as partial:
        try:
            shutil.copyfile(origin / store.FILE, partial / store.FILE)
        except FileNotFoundError:
            raise BankError(f"{origin}: is not whole ({store.FILE} is missing); take another snapshot") from None
        if _digest(partial / store.FILE) != expected:
            raise BankError(f"{origin / store.FILE}: is damaged (another digest than when it was made); take another"
                            " snapshot") from None  # fmt: skip
        if (origin / FOLDER).is_dir():
            shutil.copytree(origin / FOLDER, partial / FOLDER)
        SeedBank.open(partial, maintain=False).close()
    return note


def _appearing(target: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder to fill, that takes its name when the block ends and is gone if it raises."""
    work = target.with_name(f"{target.name}.copying")  # .partial is that of a build
    return workfolders.new_folder(target, kind="copy", work=work, error=BankError)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
