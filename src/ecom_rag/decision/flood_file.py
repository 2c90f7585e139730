"""The flood guard's memory from one batch to the next: a small SQLite file, changed once at the end of each run.

A run holds the file's write lock from its start, so that no other run counts beside it, and writes in one transaction
when it is complete: a kill at any moment leaves the file as it was. Each batch keeps what it added under the digest of
its input. The same input again begins with what there was before it the first time, and replaces what it added.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ecom_rag.arguments import PathLike, path_of, whole
from ecom_rag.decision.floods import FloodGuard, Known, Look
from ecom_rag.errors import UsageError
from ecom_rag.files import disk

FORMAT = 1
_APPLICATION = 0x45524643  # "ERFC", by which SQLite's own tools tell whose file it is
_SNAPSHOT = "campaigns.sqlite"
_WAIT = 30_000  # milliseconds for those who read the file to finish
_BATCHES = 1000  # that are recognised though nothing of them is counted any more
_SCHEMA = (
    "CREATE TABLE batches (sequence INTEGER PRIMARY KEY, digest TEXT UNIQUE, seen INTEGER NOT NULL)",
    "CREATE TABLE campaigns (campaign INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    "CREATE TABLE automatic (campaign INTEGER, batch INTEGER, decisions INTEGER NOT NULL, examples BLOB NOT NULL,"
    " PRIMARY KEY (campaign, batch)) WITHOUT ROWID",
    "CREATE TABLE looks (campaign INTEGER PRIMARY KEY, label TEXT, example BLOB NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)
_NEEDED = (
    "DELETE FROM automatic WHERE campaign NOT IN (SELECT campaign FROM campaigns)",
    "DELETE FROM looks WHERE campaign NOT IN (SELECT campaign FROM campaigns)",
    "DELETE FROM batches WHERE sequence <= (SELECT MAX(sequence) FROM batches) - ?"
    " AND sequence NOT IN (SELECT batch FROM automatic)",
)
_FORGET = """
    DELETE FROM campaigns WHERE campaign IN (
        SELECT campaign FROM campaigns
        LEFT JOIN (SELECT campaign, SUM(decisions) AS total FROM automatic GROUP BY campaign) USING (campaign)
        LEFT JOIN looks USING (campaign)
        ORDER BY last DESC, looks.example IS NULL, total DESC, campaign LIMIT -1 OFFSET ?)
"""


class FloodFile:
    """Campaigns with their automatic decisions and looks, held for one run.

    Args:
        path: The file; it is made where there is none.
        batch: Digest of the run's input, or ``None`` for a stream, which always counts as a new batch.
        cache: Folder that lives as long as an unfinished run (``Job.start`` gives it). A resumed run begins with the
            state that is kept there, whatever other runs have added to the file since.
        keep: Campaigns in the file. Of more, those are forgotten that were met least recently, and of one batch those
            with the fewest decisions. A campaign takes 171 bytes where texts have 27 characters, at most 8 KiB a batch.

    Raises:
        UsageError: Another run has the file, it cannot be read or written, is damaged, of a newer version or not ours.
    """

    def __init__(self, path: PathLike, *, batch: str | None, cache: Path | None = None, keep: int = 300_000) -> None:
        self.path = Path(path_of(path, "path"))
        self._batch = batch
        self._keep = whole(keep, "keep")
        self._made = not disk.anything_at(self.path)
        if not self._made and not self.path.is_file():
            raise UsageError(f"{self.path}: is not a file; expected the file of campaigns, or a free name for it")
        with _told(self.path):
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with _told(self.path), disk.writing(self.path):
                self._db.execute("BEGIN IMMEDIATE")
                self._is_new = _is_new(self._db, self.path)
                self._begin = None if cache is None else _kept(self.path, cache / _SNAPSHOT)
        except BaseException:
            self.close()
            raise

    def guard(self, *, limit: int = 10, similarity: float = 0.7, capacity: int = 1_000_000) -> FloodGuard:
        """A guard that begins with what earlier batches left.

        Args:
            limit: As of ``FloodGuard``.
            similarity: As of ``FloodGuard``.
            capacity: As of ``FloodGuard``.

        Raises:
            UsageError: The file is damaged, or an argument is out of range.
        """
        guard = FloodGuard(limit=limit, similarity=similarity, capacity=capacity)
        if self._begin is None:
            with _told(self.path):
                self._restore(self._db, self._is_new, guard)
            return guard
        with _told(self._begin), contextlib.closing(sqlite3.connect(self._begin, isolation_level=None)) as db:
            self._restore(db, _is_new(db, self._begin), guard)
        return guard

    def commit(self, guard: FloodGuard) -> None:
        """Write what the run has added, and let go of the file.

        A run that has been committed and is done again, e.g. since its output did not get its name, changes nothing.

        Args:
            guard: The guard of ``guard``, after all texts of the run.

        Raises:
            UsageError: The file cannot be written, or others keep reading it.
            OSError: The disk is full.
        """
        with _told(self.path), disk.writing(self.path):
            self._db.execute(f"PRAGMA busy_timeout = {_WAIT}")
            for statement in _SCHEMA if self._is_new else ():
                self._db.execute(statement)
            _write(self._db, self._sequence(), guard, self._keep)
            self._db.execute(_FORGET, (self._keep,))
            for statement in _NEEDED:
                self._db.execute(statement, (_BATCHES,) if "?" in statement else ())
            self._db.execute("COMMIT")
        self._made = False
        self.close()

    def close(self) -> None:
        """Let go of the file; what was not committed is gone."""
        if self._made and self._db.in_transaction:  # nobody else can have put anything in it
            with contextlib.suppress(OSError):
                if self.path.stat().st_size == 0:
                    self.path.unlink()
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _restore(self, db: sqlite3.Connection, is_new: bool, guard: FloodGuard) -> None:
        self._seen = 0
        if is_new:
            return
        row = db.execute("SELECT seen FROM batches WHERE digest = ?", (self._batch,)).fetchone()
        newest = db.execute("SELECT COALESCE(MAX(sequence), 0) FROM batches").fetchone()
        [self._seen] = newest if row is None else row
        rows = "SELECT campaign, decisions, examples FROM automatic WHERE batch {} ? ORDER BY batch, campaign"
        known = [Known(*found) for found in db.execute(rows.format("<="), (self._seen,))]
        elsewhere = [Known(*found) for found in db.execute(rows.format(">"), (self._seen,))]
        looks = {
            campaign: Look(label, example, fresh=False)
            for campaign, label, example in db.execute("SELECT campaign, label, example FROM looks ORDER BY campaign")
        }
        try:
            guard.restore(known, looks, elsewhere)
        except (ValueError, TypeError, OverflowError) as error:
            raise sqlite3.DatabaseError(str(error)) from None

    def _sequence(self) -> int:
        """The place of this batch among the others; what its earlier self added is removed."""
        row = self._db.execute("SELECT sequence FROM batches WHERE digest = ?", (self._batch,)).fetchone()
        if row is None:
            sql = "INSERT INTO batches (digest, seen) VALUES (?, ?)"
            return int(self._db.execute(sql, (self._batch, self._seen)).lastrowid or 0)
        self._db.execute("DELETE FROM automatic WHERE batch = ?", row)
        return int(row[0])


def _write(db: sqlite3.Connection, batch: int, guard: FloodGuard, keep: int) -> None:
    counts = [(campaign, count) for campaign, count in guard.counts.items() if count.met]
    if len(counts) > keep:  # the rest would be forgotten at once, and leave the file larger than it need be
        counts = sorted(counts, key=lambda item: (-item[1].before - item[1].added, item[0]))[:keep]
    db.executemany(
        "INSERT INTO automatic VALUES (?, ?, ?, ?)",
        ((campaign, batch, count.added, b"".join(count.examples)) for campaign, count in counts if count.added),
    )
    db.executemany(
        "INSERT OR REPLACE INTO looks VALUES (?, ?, ?)",
        ((campaign, look.label, look.example) for campaign, look in guard.looks.items() if look.fresh),
    )
    met = [campaign for campaign, _ in counts]
    met += [campaign for campaign, look in guard.looks.items() if look.met or look.fresh]
    db.executemany(
        "INSERT INTO campaigns VALUES (?, ?) ON CONFLICT DO UPDATE SET last = MAX(last, excluded.last)",
        ((campaign, batch) for campaign in met),
    )
    db.execute(
        "DELETE FROM campaigns WHERE campaign NOT IN (SELECT campaign FROM automatic)"
        " AND campaign NOT IN (SELECT campaign FROM looks)"
    )


def _is_new(db: sqlite3.Connection, path: Path) -> bool:
    """Whether nothing was written yet; raises unless the file is ours and whole."""
    if path.stat().st_size == 0:  # once what a killed run began is undone: the first statement does that
        return True
    [application], [version] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
    if application != _APPLICATION:
        raise UsageError(f"{path}: is not a file of campaigns; expected one that an earlier run made, or a free name")
    if version > FORMAT:
        raise UsageError(
            f"{path}: has format {version} of a newer ecom_rag; this version reads up to {FORMAT}; update ecom_rag"
        )
    [found] = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    return False


def _kept(path: Path, snapshot: Path) -> Path:
    """The state with which a run begins, kept for the case that it is resumed."""
    if not snapshot.exists():
        with disk.writing(snapshot):
            disk.keep(snapshot, lambda fresh: shutil.copyfile(path, fresh))
    return snapshot


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """One line for whatever SQLite finds wrong."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UsageError(
                f"{path}: another run is counting in this file of campaigns; wait for it, or name another file"
            ) from None
        if "no such" not in str(error) and "has no column" not in str(error):
            raise UsageError(f"{path}: {error}; check the folder, the permissions and the disk") from None
        raise _damaged(path, error) from None
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UsageError:
    found = " ".join(str(error).split())
    return UsageError(
        f"{path}: is no whole file of campaigns ({found}); restore a copy of it, or name another file, which begins"
        " with no campaigns"
    )
