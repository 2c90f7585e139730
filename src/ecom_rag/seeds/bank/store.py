"""The system of record: one SQLite file in WAL mode that holds all that cannot be computed again.

A document is written once and never changed: an upsert appends a row and marks the old one as removed, in one
transaction under the next change sequence. So whoever knows a sequence can tell what the bank was then, and rows in
their order are the changes in theirs. ``synchronous=FULL`` makes a commit one fsync: what was acknowledged stays.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecom_rag.errors import BankBusyError, BankError
from ecom_rag.files import disk
from ecom_rag.files.keys import Path as KeyPath
from ecom_rag.filters.sql import index_columns
from ecom_rag.seeds.bank.sqlite_errors import bank_errors

FILE = "bank.db"
FORMAT = 1
_LOG_BYTES = 1 << 24  # that a write-ahead log keeps when it starts anew
_APPLICATION = 0x65636F6D  # "ecom"
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), sequence INTEGER NOT NULL,
                    next_row INTEGER NOT NULL, live INTEGER NOT NULL, removed INTEGER NOT NULL,
                    purged INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0, 0, 0, 0, 0);
CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT NOT NULL, text TEXT NOT NULL, metadata TEXT NOT NULL,
                        extra TEXT, added INTEGER NOT NULL, removed INTEGER);
CREATE UNIQUE INDEX live_ids ON documents (id) WHERE removed IS NULL;
CREATE INDEX removals ON documents (removed) WHERE removed IS NOT NULL;
CREATE TABLE dense (row INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE sparse (row INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE multivector (row INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class State:
    """Where a bank stands.

    Args:
        sequence: Number of the last change.
        next_row: Number that the next row gets; numbers are never used twice.
        live: Documents.
        removed: Rows that were removed and are still in the file.
        purged: Sequence of the last compaction; rows removed before it are gone for good.
    """

    sequence: int
    next_row: int
    live: int
    removed: int
    purged: int


class Store:
    """An open record. Readers each get a connection of their own, writers of this process take turns.

    Args:
        folder: Of the bank.
        timeout: Seconds to wait for another writer.

    Raises:
        BankError: No bank there, another format, or a damaged file.
    """

    def __init__(self, folder: Path, *, timeout: float = 10.0) -> None:
        self.folder = folder
        self._timeout = timeout
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._turn = threading.Lock()
        self._guard = threading.Lock()  # of what is idle and whether the record is closed
        self._closed = False
        if not (folder / FILE).is_file():
            found = "no such folder" if not folder.exists() else "not a seed bank"
            raise BankError(f"{folder}: {found} (there is no {FILE} in it); make one with ecom-rag bank build")
        self._identity = self._identity_now()
        with self.errors():
            db = self._connect()
            if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
                raise BankError(f"{folder / FILE}: is another program's database; expected a seed bank")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT:
                raise BankError(
                    f"{folder}: has bank format {version}, this version of ecom_rag reads {FORMAT};"
                    " build the bank again"
                )
            self._idle.append(db)

    @classmethod
    def create(
        cls, folder: Path, meta: dict[str, Any], *, index_keys: Iterable[KeyPath] = (), timeout: float = 10.0
    ) -> "Store":
        """Make an empty record in a folder that has none.

        Raises:
            BankError: There is a bank already.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / FILE).exists():
            raise BankError(f"{folder}: holds a seed bank already; add to it with ecom-rag bank add, or name another")
        with disk.writing(folder):
            _make(folder / f"{FILE}.new", meta, index_keys)
            (folder / f"{FILE}.new").rename(folder / FILE)
        return cls(folder, timeout=timeout)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[sqlite3.Connection, State]]:
        """A read transaction: one committed state, whatever is written meanwhile."""
        with self.errors():
            with self._guard:
                self.check_open()
                db = self._idle.pop() if self._idle else self._connect()
            try:
                db.execute("BEGIN")
                yield db, _state(db)
            finally:
                self._give_back(db)

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[sqlite3.Connection, State]]:
        """A write transaction, committed and synced when the block ends, undone if it raises.

        Raises:
            BankBusyError: Another thread or process has been writing for longer than the timeout.
            BankFullError: The disk is full.
            BankError: The bank is closed, damaged, or no longer in its folder.
        """
        with self.errors():
            if not self._turn.acquire(timeout=self._timeout):
                raise BankBusyError(
                    f"{self.folder}: another thread has been writing for {self._timeout:g} s; try again"
                )
            try:
                db = self._writing()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db, _state(db)
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
            finally:
                self._turn.release()

    def copy(self, target: Path) -> None:
        """Copy the record as of one commit into a file, though others write meanwhile."""
        with self.reading() as (db, _):
            copy = sqlite3.connect(target)
            try:
                with disk.writing(target):
                    db.backup(copy)
            finally:
                copy.close()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it, as far as readers allow."""
        with self.errors(), self._turn:
            self._writing().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def give_space_back(self) -> None:
        """Return unused pages to the file system."""
        with self.errors(), self._turn:
            self._writing().execute("PRAGMA incremental_vacuum").fetchall()

    def close(self) -> None:
        """Close all connections; the last one to close empties the write-ahead log. A second time does nothing.

        A change that is under way is finished first. A connection that is being read is closed by its reader.
        """
        with self._turn, self._guard:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise ``BankError`` once the record is closed."""
        if self._closed:
            raise BankError(f"{self.folder}: the bank is closed; open it again with SeedBank.open")

    def check_in_place(self) -> None:
        """Raise ``BankError`` where the file of this record was moved, removed or replaced: a change would be lost."""
        if self._identity_now() != self._identity:
            raise BankError(
                f"{self.folder / FILE}: was removed or replaced while it was open; open the bank again, and to replace"
                " a bank in use give the new one another folder"
            )

    def log_bytes(self) -> int:
        """Size of the write-ahead log, which cannot start anew while a view is pinned to a state that is within it."""
        with contextlib.suppress(OSError):
            return (self.folder / f"{FILE}-wal").stat().st_size
        return 0

    @contextlib.contextmanager
    def between_changes(self) -> Iterator[None]:
        """Keep writers out, with all changes moved from the log into the file, as far as readers allow.

        Who begins to read within the block needs nothing of the log, so that the next change may start it anew.

        Raises:
            BankBusyError: Another thread or process has been writing for longer than the timeout.
        """
        with self.writing(), self.reading() as (db, _):
            db.execute("ROLLBACK")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            yield

    def _identity_now(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = (self.folder / FILE).stat()
            return found.st_dev, found.st_ino
        return None

    def _writing(self) -> sqlite3.Connection:
        """The writer's connection; whoever asks has the turn."""
        self.check_open()
        self.check_in_place()
        if self._writer is None:
            self._writer = self._connect()
            self._writer.execute("PRAGMA cache_size = -65536")
        return self._writer

    def _give_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        finally:
            with self._guard:
                if self._closed:
                    db.close()
                else:
                    self._idle.append(db)

    def _connect(self) -> sqlite3.Connection:
        self.check_in_place()  # SQLite would make a file that is not there
        db = sqlite3.connect(
            self.folder / FILE,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        return db

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Make a ``BankError`` of what SQLite raises within a ``with`` block."""
        return bank_errors(self.folder / FILE, self._timeout)


def _make(path: Path, meta: dict[str, Any], index_keys: Iterable[KeyPath]) -> None:
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        # A page holds several vectors; space given up by a compaction goes back to the file system.
        db.executescript(f"PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; {_SCHEMA}")
        for number, key in enumerate(index_keys):
            db.execute(f"CREATE INDEX key_{number} ON documents ({', '.join(index_columns(key))})")
        db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in meta.items()])
        db.executescript(f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {FORMAT}")
        db.execute("PRAGMA journal_mode = WAL")


def _state(db: sqlite3.Connection) -> State:
    return State(*db.execute("SELECT sequence, next_row, live, removed, purged FROM state").fetchone())


def read_meta(db: sqlite3.Connection) -> dict[str, Any]:
    """All that is noted about the bank."""
    return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}


def write_meta(db: sqlite3.Connection, key: str, value: Any) -> None:
    """Note something, within the write transaction."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
