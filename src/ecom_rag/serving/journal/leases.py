"""Who has which item, and for how long.

An item is leased: until the lease ends nobody else gets a text of its campaign. A lease ends by a verdict, a skip, an
escalation, its release, or time. Its time is counted in the machine's ticks, so a clock that is set does not matter;
after a restart of the machine by the clock, and then it ends too where the clock was set to before it began.
"""

import secrets
import sqlite3
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


def lease(db: sqlite3.Connection, actor: str, queue: str, filter: Any, seconds: float) -> Item | None:
    """Give a person the next item, within a write transaction; see ``Journal.next``."""
    drop_ended(db)
    condition, values = filter_sql(filter)
    found = None
    for name in ("second", "review", "skipped") if queue == "review" else (queue,):
        sql = _QUEUES[name].format(condition)
        own = {"second": [actor, actor, *values], "escalated": [*values, actor]}.get(name, [actor, *values])
        found = db.execute(sql, own).fetchone()
        if found is not None:
            break
    if found is None:
        return None
    entry, campaign = found
    now, ticks, token = clock.wall(), clock.ticks(), secrets.token_urlsafe(16)
    span = round(seconds * clock.SECOND)
    values = [campaign, entry, actor, token, clock.boot(), ticks + span, now, now + span]
    db.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    [one] = decision_where(db, "i.entry = ?", [entry])
    size = db.execute("SELECT size FROM waiting WHERE campaign = ?", (campaign,)).fetchone() or (1,)
    return Item(one.id, one.time, one.bank, one.record, size[0], token, seconds)


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
