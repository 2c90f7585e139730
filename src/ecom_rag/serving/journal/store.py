"""The file: its tables, its connections, and one line for whatever SQLite finds wrong.

``entries`` is what was done, and never changes. All other tables follow from it: ``items`` are the decisions as they
stand now, ``waiting`` their campaigns in the order of the queue, ``leases`` and ``skips`` who has and who does not want
what, and ``flood_*`` is the memory of the flood guard.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ecom_rag.errors import UsageError
from ecom_rag.files import disk
from ecom_rag.serving.journal.chain import START
from ecom_rag.serving.journal.errors import JournalDamaged

FORMAT = 1
_APPLICATION = 0x6572676A  # "ergj", by which SQLite's own tools tell whose file it is
_REFUSED = "SELECT RAISE(ABORT, 'the journal only grows: entries are not changed, removed or replaced')"
_SCHEMA = (
    "CREATE TABLE head (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), sequence INTEGER NOT NULL,"
    " time INTEGER NOT NULL, hash BLOB NOT NULL, floods INTEGER NOT NULL)",
    f"INSERT INTO head VALUES (1, 0, 0, x'{START.hex()}', 0)",
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, time INTEGER NOT NULL, clock INTEGER, kind TEXT NOT NULL,"
    " decision TEXT NOT NULL, actor TEXT NOT NULL, body BLOB NOT NULL, supersedes INTEGER, previous BLOB NOT NULL,"
    " hash BLOB NOT NULL)",
    "CREATE INDEX histories ON entries (decision) WHERE kind <> 'decided'",
    "CREATE INDEX actions ON entries (actor, sequence) WHERE kind <> 'decided' AND kind <> 'undo'",
    "CREATE UNIQUE INDEX undone ON entries (supersedes) WHERE kind = 'undo'",
    f"CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN {_REFUSED}; END",
    f"CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN {_REFUSED}; END",
    "CREATE TRIGGER no_replace BEFORE INSERT ON entries"
    f" WHEN NEW.sequence <= (SELECT MAX(sequence) FROM entries) BEGIN {_REFUSED}; END",
    "CREATE TABLE items (entry INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time INTEGER NOT NULL,"
    " bank TEXT NOT NULL, campaign TEXT NOT NULL, policy TEXT, reason TEXT, label TEXT, urgency REAL,"
    " about TEXT NOT NULL, state INTEGER NOT NULL, settled_by INTEGER, verdict INTEGER, verdict_actor TEXT,"
    " verdict_label TEXT, second INTEGER NOT NULL DEFAULT 0, second_label TEXT)",
    "CREATE INDEX members ON items (campaign, entry) WHERE state = 1",
    "CREATE INDEX tallies ON items (policy, reason, label, time) WHERE state = 1",
    "CREATE INDEX escalated ON items (entry) WHERE state = 3",
    "CREATE INDEX settled ON items (settled_by) WHERE settled_by IS NOT NULL",
    "CREATE INDEX verdicts ON items (verdict) WHERE verdict IS NOT NULL",
    "CREATE INDEX second_looks ON items (entry, verdict_actor) WHERE second = 1",
    "CREATE INDEX agreements ON items (verdict_label, second_label) WHERE second = 2",
    "CREATE TABLE waiting (campaign TEXT PRIMARY KEY, entry INTEGER NOT NULL, size INTEGER NOT NULL,"
    " rank INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE UNIQUE INDEX queue ON waiting (rank, entry, campaign)",
    "CREATE UNIQUE INDEX heads ON waiting (entry)",
    "CREATE TABLE leases (campaign TEXT PRIMARY KEY, entry INTEGER NOT NULL, actor TEXT NOT NULL, token TEXT NOT NULL,"
    " boot TEXT NOT NULL, ticks INTEGER NOT NULL, begun INTEGER NOT NULL, ends INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE skips (actor TEXT NOT NULL, entry INTEGER NOT NULL, sequence INTEGER NOT NULL,"
    " PRIMARY KEY (actor, entry)) WITHOUT ROWID",
    "CREATE INDEX skipped ON skips (actor, sequence)",
    "CREATE TABLE flood_counts (campaign INTEGER PRIMARY KEY, decisions INTEGER NOT NULL, last INTEGER NOT NULL)",
    "CREATE INDEX flood_last ON flood_counts (last)",
    "CREATE TABLE flood_examples (number INTEGER PRIMARY KEY, campaign INTEGER NOT NULL, example BLOB NOT NULL)",
    "CREATE INDEX flood_examples_of ON flood_examples (campaign)",
    "CREATE TABLE flood_looks (campaign INTEGER NOT NULL, verdict INTEGER NOT NULL, label TEXT NOT NULL,"
    " example BLOB NOT NULL, PRIMARY KEY (campaign, verdict)) WITHOUT ROWID",
    "CREATE INDEX flood_looks_of ON flood_looks (verdict)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)


class Store:
    """The open file. Readers each get a connection of their own; writers take turns.

    Args:
        path: The file; it is made where there is none.
        timeout: Seconds to wait for another process that writes.

    Raises:
        UsageError: The file is another program's, of a newer version, or cannot be opened.
        JournalDamaged: It is no database, or a broken one.
        OSError: The disk is full.
    """

    def __init__(self, path: Path, *, timeout: float = 10.0) -> None:
        self.path = path
        self._timeout = timeout
        self._turn = threading.Lock()  # of those who write
        self._guard = threading.Lock()  # of what is idle and whether the file is closed
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        if disk.anything_at(path) and not path.is_file():
            raise UsageError(f"{path}: is not a file; expected a journal, or a free name for it")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; create it first")
        with self._told():
            self._writer = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._writer.close()
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: one committed state, whatever is written meanwhile."""
        with self._told():
            with self._guard:
                self._check_open()
                db = self._idle.pop() if self._idle else self._connect()
            try:
                db.execute("BEGIN")
                yield db
            finally:
                self._give_back(db)

    @contextlib.contextmanager
    def writing(self, finish: Callable[[bool], None]) -> Iterator[sqlite3.Connection]:
        """A write transaction, committed and synced when the block ends, undone if it raises; one at a time.

        Args:
            finish: Called at the end, before anybody else writes, with whether it was committed.
        """
        with self._turn, self._told():
            self._check_open()
            db, committed = self._writer, False
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
                committed = True
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                finish(committed)

    def close(self) -> None:
        """Close all connections; a second time does nothing. Readers close their own when they are done."""
        with self._turn, self._guard:
            if not self._closed:
                self._closed = True
                self._writer.close()
            while self._idle:
                self._idle.pop().close()

    def _prepare(self) -> None:
        """Make the tables of a new file; check an old one."""
        db = self._writer
        db.execute("BEGIN IMMEDIATE")  # of two processes that make the file, one makes the tables
        try:
            found, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
            if found != _APPLICATION:
                if found or version or db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise UsageError(
                        f"{self.path}: is another program's database; expected a journal, or a free name for it"
                    )
                for statement in _SCHEMA:
                    db.execute(statement)
            elif version != FORMAT:
                raise UsageError(
                    f"{self.path}: has journal format {version}, this version of ecom_rag reads {FORMAT}; update"
                    " ecom_rag"
                )
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA cache_size = -65536")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        db.execute("PRAGMA synchronous = FULL")
        return db

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

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: the journal is closed; open it again with Journal.open")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """One line for whatever SQLite finds wrong."""
        try:
            with disk.writing(self.path):
                yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UsageError(
                    f"{self.path}: another process has been writing for {self._timeout:g} s; wait for it and try again"
                ) from None
            if "no such" not in str(error) and "has no column" not in str(error):
                raise UsageError(f"{self.path}: {error}; check the folder, the permissions and the disk") from None
            raise self._damaged(error) from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> JournalDamaged:
        found = " ".join(str(error).split())
        return JournalDamaged(f"{self.path}: is no whole journal ({found}); restore a copy of it, or name another file")
