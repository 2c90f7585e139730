"""The chain of entries: each one holds the hash of the one before it, so that none can be changed unnoticed.

``hash = sha256(previous hash, sequence, time, clock, kind, decision, actor, body, supersedes)``, every part with its
length before it. What this finds: an entry that was changed, taken out, put in or moved. A second note of the last hash
in the same file finds that the last entries were taken out. What it does not find: the work of somebody who may write
the file and computes all hashes from some entry on anew, and the head with them. Only a copy of ``Head`` that is kept
elsewhere finds that, see ``check``. Of the tables that follow from the entries, ``items.check`` holds decisions and
verdicts against them; the order of the queue, leases and the flood guard's memory are not checked.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ecom_rag.errors import UsageError
from ecom_rag.files.json_text import dumps, loads
from ecom_rag.serving.journal import clock
from ecom_rag.serving.journal.errors import JournalDamaged

START = bytes(32)  # the hash before the first entry
_COLUMNS = "sequence, time, clock, kind, decision, actor, body, supersedes, previous, hash"
_TYPES: tuple[tuple[type, ...], ...] = (
    *((int,), (int,), (int, type(None)), (str,), (str,), (str,), (bytes,), (int, type(None)), (bytes,), (bytes,)),
)


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a journal; keep a copy elsewhere to find that the file was rewritten.

    Args:
        sequence: Its number; 0 where there is none.
        hash: Its hash, in hexadecimal digits.
    """

    sequence: int
    hash: str


class Draft(NamedTuple):
    """What an entry says.

    Args:
        kind: What happened.
        decision: Id of the decision that it happened to.
        actor: Who did it.
        body: Further values.
        supersedes: Sequence of the entry that no longer stands; ``None`` for none.
    """

    kind: str
    decision: str
    actor: str
    body: dict[str, Any]
    supersedes: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal.

    Args:
        sequence: Number in the order of writing, from 1.
        time: Microseconds since 1970; never before that of the entry before.
        kind: As of ``Draft``.
        decision: As of ``Draft``.
        actor: As of ``Draft``.
        body: As of ``Draft``.
        supersedes: As of ``Draft``.
    """

    sequence: int
    time: int
    kind: str
    decision: str
    actor: str
    body: dict[str, Any]
    supersedes: int | None


def append(db: sqlite3.Connection, drafts: Sequence[Draft]) -> list[Entry]:
    """Write entries behind the last one, within a write transaction.

    Args:
        db: The journal.
        drafts: What they say.

    Returns:
        The entries.

    Raises:
        UsageError: A text that cannot be written as UTF-8.
    """
    sequence, last, previous = db.execute("SELECT sequence, time, hash FROM head").fetchone()
    now = clock.wall()
    time, told = max(now, last), None if now >= last else now
    rows, entries = [], []
    for draft in drafts:
        sequence += 1
        fields = (sequence, time, told, draft.kind, draft.decision, draft.actor, _body(draft), draft.supersedes)
        digest = _hash(previous, fields)
        rows.append((*fields, previous, digest))
        entries.append(Entry(sequence, time, *draft))
        previous = digest
    db.executemany(f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.execute("UPDATE head SET sequence = ?, time = ?, hash = ?", (sequence, time, previous))
    return entries


def head(db: sqlite3.Connection) -> Head:
    """The last entry, as the head says it."""
    sequence, digest = db.execute("SELECT sequence, hash FROM head").fetchone()
    return Head(sequence, digest.hex())


def entries_where(db: sqlite3.Connection, condition: str, parameters: Sequence[Any]) -> Iterator[Entry]:
    """Entries in an SQL condition (with its order), read one after the other."""
    sql = f"SELECT sequence, time, kind, decision, actor, body, supersedes FROM entries WHERE {condition}"
    for sequence, time, kind, decision, actor, body, supersedes in db.execute(sql, parameters):
        yield Entry(sequence, time, kind, decision, actor, loads(body), supersedes)


def check(db: sqlite3.Connection, path: str, known: Head | None = None) -> Head:
    """Walk the chain from its start.

    Args:
        db: The journal, in a read transaction.
        path: Its name in errors.
        known: A head of this journal that was kept elsewhere; the file must hold that very entry.

    Returns:
        The last entry.

    Raises:
        JournalDamaged: Names the first entry that is not what was written.
    """
    before, previous, met = 0, START, known is None or (known.sequence, known.hash) == (0, START.hex())
    for row in db.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY sequence"):
        reason = _wrong(row, before, previous)
        if reason is not None:
            raise _damaged(path, reason)
        before, previous = row[0], row[-1]
        if known is not None and before == known.sequence:
            met = previous.hex() == known.hash
            if not met:
                raise _damaged(path, f"entry {before} is not the one whose hash was kept elsewhere")
    last = head(db)
    if (last.sequence, last.hash) != (before, previous.hex()):
        raise _damaged(path, f"entry {before + 1} is missing: the head tells of {last.sequence} entries")
    if not met and known is not None:
        raise _damaged(path, f"entry {before + 1} is missing: entry {known.sequence} was kept elsewhere")
    return last


def _wrong(row: tuple[Any, ...], before: int, previous: bytes) -> str | None:
    """What is wrong with a row; ``None`` for nothing."""
    sequence = row[0]
    if not all(isinstance(value, types) for value, types in zip(row, _TYPES, strict=True)):
        return f"entry {sequence} was changed (a column holds another type)"
    if sequence != before + 1:
        missing = f"entry {before + 1} is missing (entry {sequence} comes next)"
        return missing if sequence > before else f"entry {sequence} was put in"
    if row[-1] != _hash(row[-2], row[:-2]):
        return f"entry {sequence} was changed (its hash does not fit)"
    return None if row[-2] == previous else f"entry {sequence} was put in (it does not follow the entry before it)"


def _body(draft: Draft) -> bytes:
    try:
        return dumps(draft.body)
    except UnicodeEncodeError:
        raise UsageError(
            f"{draft.kind} of {draft.actor}: holds a lone surrogate (half of a cut emoji); replace it by U+FFFD"
        ) from None


def _hash(previous: bytes, fields: Sequence[Any]) -> bytes:
    found = hashlib.sha256(previous)
    for field in fields:
        raw = field if isinstance(field, bytes) else b"" if field is None else str(field).encode()
        found.update(f"{'-' if field is None else len(raw)}:".encode())
        found.update(raw)
    return found.digest()


def _damaged(path: str, reason: str) -> JournalDamaged:
    return JournalDamaged(f"{path}: {reason}; the journal was changed by something else: restore a copy of the file")
