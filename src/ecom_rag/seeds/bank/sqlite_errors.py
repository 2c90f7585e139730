"""What SQLite raises, as errors that say what to do."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ecom_rag.errors import BankBusyError, BankError, BankFullError


@contextlib.contextmanager
def bank_errors(file: Path, timeout: float) -> Iterator[None]:
    """Make a ``BankError`` of what SQLite raises.

    Args:
        file: The record.
        timeout: Seconds that were waited for another writer.

    Raises:
        BankBusyError: Another process kept writing.
        BankFullError: The disk is full.
        BankError: Anything else: no permission, or a damaged file.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise BankBusyError(
                f"{file.parent}: another process has been writing for {timeout:g} s; wait for it and try again"
            ) from None
        if "disk is full" in str(error):
            raise BankFullError(f"{file}: the disk is full; free some space, then try again") from None
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise BankError(f"{file}: {error}; check the disk and the permissions") from None
        raise BankError(
            f"{file}: is damaged ({error}); restore a snapshot with ecom-rag bank restore, or build the bank again"
        ) from None
