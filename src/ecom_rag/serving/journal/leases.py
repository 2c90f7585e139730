"""Who has which item, and for how long.

An item is leased: until the lease ends nobody else gets a text of its campaign. A lease ends by a verdict, a skip, an
escalation, its release, or time. Its time is counted in the machine's ticks, so a clock that is set does not matter;
after a restart of the machine by the clock, and then it ends too where the clock was set to before it began.
"""

import secrets
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ecom_rag.files.records import Record
from ecom_rag.serving.journal import clock
from ecom_rag.serving.journal.errors import LeaseLost
from ecom_rag.serving.journal.items import Row, decision_where, filter_sql

_FREE = "NOT EXISTS (SELECT 1 FROM leases l WHERE l.campaign = i.campaign)"
_NOT_SKIPPED = "NOT EXISTS (SELECT 1 FROM skips s WHERE s.actor = ? AND s.entry = i.entry)"
# CROSS JOIN keeps SQLite to the order that is written: along the queue, until the first that passes.
_QUEUES = {
    "second": f"SELECT i.entry, i.campaign FROM items i WHERE i.second = 1 AND i.verdict_actor <> ? AND {_FREE}"
    f" AND {_NOT_SKIPPED} AND {{}} ORDER BY i.entry LIMIT 1",
    "review": "SELECT i.entry, i.campaign FROM waiting w CROSS JOIN items i ON i.entry = w.entry"
    f" WHERE {_FREE} AND {_NOT_SKIPPED} AND {{}} ORDER BY w.rank, w.entry LIMIT 1",
    "skipped": "SELECT i.entry, i.campaign FROM skips s CROSS JOIN waiting w ON w.entry = s.entry CROSS JOIN items i"
    f" ON i.entry = s.entry WHERE s.actor = ? AND {_FREE} AND {{}} ORDER BY s.sequence LIMIT 1",
    "escalated": f"SELECT i.entry, i.campaign FROM items i WHERE i.state = 3 AND {_FREE} AND {{}}"
    " ORDER BY EXISTS (SELECT 1 FROM skips s WHERE s.actor = ? AND s.entry = i.entry), i.entry LIMIT 1",
}

_IN_QUEUE = "EXISTS (SELECT 1 FROM waiting w WHERE w.entry = i.entry)"
_STANDS = {"second": "i.second = 1", "review": _IN_QUEUE, "skipped": _IN_QUEUE, "escalated": "i.state = 3"}
_Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for; the arguments of ``Journal.next``."""

    actor: str
    queue: str
    filter: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class Item:
    """A decision that a person looks at; nothing of it tells what another person said.

    Args:
        id: Of the decision.
        time: Of the decision, microseconds since 1970.
        bank: Name of the bank.
        record: As it was decided.
        campaign_size: Waiting texts of its campaign, itself included.
        lease: Proves that the item is this person's.
        seconds: For which it is.
    """

    id: str
    time: int
    bank: str
    record: Record
    campaign_size: int
    lease: str
    seconds: float


def next_item(reading: _Transaction, changing: _Transaction, wanted: Wanted) -> Item | None:
    """Give a person the next item; see ``Journal.next``.

    A filter may have to look at much of the queue, so that is done in a read transaction, beside which others write;
    where somebody else took what was found, it is looked for again.

    Args:
        reading: Begins a read transaction.
        changing: Begins a write transaction.
        wanted: What the person asks for.
    """
    if wanted.filter is None:
        with changing() as db:
            drop_ended(db)
            found = _first(db, wanted)
            return None if found is None else _taken(db, wanted, *found)
    while True:
        with changing() as db:
            drop_ended(db)
        with reading() as db:
            found = _first(db, wanted)
        if found is None:
            return None
        with changing() as db:
            item = _taken(db, wanted, *found)
        if item is not None:
            return item


def _first(db: sqlite3.Connection, wanted: Wanted) -> tuple[str, int, str] | None:
    """Part of the queue, entry and campaign of the first item that a person may have."""
    condition, values = filter_sql(wanted.filter)
    actor = wanted.actor
    for name in ("second", "review", "skipped") if wanted.queue == "review" else (wanted.queue,):
        own = {"second": [actor, actor, *values], "escalated": [*values, actor]}.get(name, [actor, *values])
        found = db.execute(_QUEUES[name].format(condition), own).fetchone()
        if found is not None:
            return name, *found
    return None


def _taken(db: sqlite3.Connection, wanted: Wanted, name: str, entry: int, campaign: str) -> Item | None:
    """The item, leased; ``None`` where it was taken or answered since it was found."""
    if not db.execute(f"SELECT 1 FROM items i WHERE i.entry = ? AND {_FREE} AND {_STANDS[name]}", (entry,)).fetchone():
        return None
    now, token, span = clock.wall(), secrets.token_urlsafe(16), round(wanted.seconds * clock.SECOND)
    times = (clock.boot(), clock.ticks() + span, now, now + span)
    db.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (campaign, entry, wanted.actor, token, *times))
    [one] = decision_where(db, "i.entry = ?", [entry])
    size = db.execute("SELECT size FROM waiting WHERE campaign = ?", (campaign,)).fetchone() or (1,)
    return Item(one.id, one.time, one.bank, one.record, size[0], token, wanted.seconds)


def drop_ended(db: sqlite3.Connection) -> None:
    """Remove leases whose time is over."""
    boot, ticks, now = clock.boot(), clock.ticks(), clock.wall()
    db.execute(
        "DELETE FROM leases WHERE CASE WHEN boot = ? THEN ticks <= ? ELSE ends <= ? OR begun > ? END",
        (boot, ticks, now, now),
    )


def check_lease(db: sqlite3.Connection, row: Row, actor: str, token: str | None) -> bool:
    """Whether a person holds the lease of an item.

    Args:
        db: In a write transaction.
        row: The decision.
        actor: The person.
        token: Of the lease that the person had; ``None`` for somebody who acts without one.

    Raises:
        LeaseLost: Another person has the item, or somebody has answered it since the lease that the token is of ended.
    """
    drop_ended(db)
    found = db.execute(
        "SELECT actor, token FROM leases WHERE campaign = ? AND entry = ?", (row.campaign, row.entry)
    ).fetchone()
    if found is not None and found[0] != actor:
        raise LeaseLost(f"decision {row.id}: is with another person now; take the next item")
    if token is None or (found is not None and found[1] == token):
        return found is not None
    if row.verdict is not None and row.verdict_actor != actor:
        raise LeaseLost(f"decision {row.id}: was answered by another person after your time for it; take the next item")
    return False


def end_lease(db: sqlite3.Connection, row: Row) -> None:
    """End the lease of an item, if there is one."""
    db.execute("DELETE FROM leases WHERE campaign = ? AND entry = ?", (row.campaign, row.entry))


def held(db: sqlite3.Connection, actor: str) -> list[tuple[str, str]]:
    """Id and lease of what a person has open."""
    drop_ended(db)
    sql = (
        "SELECT i.id, l.token FROM leases l JOIN items i ON i.entry = l.entry WHERE l.actor = ? ORDER BY l.begun, i.id"
    )
    return db.execute(sql, (actor,)).fetchall()
