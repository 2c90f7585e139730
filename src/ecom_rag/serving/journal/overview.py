"""What the review page shows of a journal beside the queue: an item by its id, what people did, and numbers of it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ecom_rag.serving.journal import chain, clock, leases
from ecom_rag.serving.journal.chain import Entry
from ecom_rag.serving.journal.errors import LeaseLost
from ecom_rag.serving.journal.items import AUTOMATIC, ESCALATED, STATES, WAITING, decision_where, find
from ecom_rag.serving.journal.journal import Journal
from ecom_rag.serving.journal.leases import Item

_ACTIONS = "entries e INDEXED BY actions"  # of people; decisions may be a thousand times as many
_DONE = "kind <> 'decided' AND kind <> 'undo'"
_UNDONE = "EXISTS (SELECT 1 FROM entries u WHERE u.kind = 'undo' AND u.supersedes = e.sequence)"

_BLIND = "EXISTS (SELECT 1 FROM items i WHERE i.id = e.decision AND i.second = 1)"


@dataclass(frozen=True, slots=True)
class Done:
    """What a person did.

    Args:
        entry: The entry.
        undone: Whether it was taken back.
        blind: Whether somebody is still to answer the same item without knowing of it.
    """

    entry: Entry
    undone: bool
    blind: bool


def open_item(journal: Journal, actor: str) -> tuple[Item, bool] | None:
    """The item that a person has open, the latest of several.

    Returns:
        The item with the seconds that are left, and whether it is a second look; ``None`` where none is open.
    """
    with _changing(journal) as db:
        leases.drop_ended(db)
        row = db.execute(
            "SELECT l.entry, l.campaign, l.token, l.boot, l.ticks, l.ends, i.second = 1 AND i.verdict_actor <> ?"
            " FROM leases l JOIN items i ON i.entry = l.entry WHERE l.actor = ? ORDER BY l.begun DESC LIMIT 1",
            (actor, actor),
        ).fetchone()
        if row is None:
            return None
        entry, campaign, token, boot, ticks, ends, second = row
        left = ticks - clock.ticks() if boot == clock.boot() else ends - clock.wall()
        return _item(db, entry, campaign, token, left / clock.SECOND), bool(second)


def take(journal: Journal, decision_id: str, *, actor: str, lease_seconds: float) -> Item:
    """Give a person the item of this id, as ``Journal.next`` does.

    Raises:
        UnknownDecision: No such decision.
        LeaseLost: Another person has a text of its campaign, or it waits no longer.
    """
    with _changing(journal) as db:
        leases.drop_ended(db)
        row = find(db, decision_id)
        if row.state not in (WAITING, ESCALATED):
            raise LeaseLost(f"decision {row.id}: was answered by another person meanwhile; take the next item")
        if db.execute("SELECT 1 FROM leases WHERE campaign = ?", (row.campaign,)).fetchone():
            raise LeaseLost(f"decision {row.id}: is with another person now; take the next item")
        now, ticks, token = clock.wall(), clock.ticks(), secrets.token_urlsafe(16)
        span = round(lease_seconds * clock.SECOND)
        values = [row.campaign, row.entry, actor, token, clock.boot(), ticks + span, now, now + span]
        db.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        return _item(db, row.entry, row.campaign, token, lease_seconds)


def done(journal: Journal, actor: str | None = None, *, limit: int = 50, before: int | None = None) -> list[Done]:
    """What people did, the latest first.

    Args:
        journal: The journal.
        actor: Of this person only; ``None`` for all.
        limit: Most entries.
        before: Sequence of an entry; only earlier ones.
    """
    values: list[Any]
    condition, values = f"{_DONE} AND sequence < ?", [2**63 - 1 if before is None else before]
    if actor is not None:
        condition, values = f"actor = ? AND {condition}", [actor, *values]
    sql = f"SELECT e.sequence, {_UNDONE}, {_BLIND} FROM {_ACTIONS} WHERE {condition} ORDER BY sequence DESC LIMIT ?"
    with _reading(journal) as db:
        rows = db.execute(sql, [*values, limit]).fetchall()
        entries = [entry for row in rows for entry in chain.entries_where(db, "sequence = ?", [row[0]])]
        return [Done(entry, bool(row[1]), bool(row[2])) for entry, row in zip(entries, rows, strict=True)]


def second_pair(journal: Journal, decision_id: str, actor: str) -> tuple[Entry, Entry] | None:
    """The standing first verdict and this person's second one on a decision; ``None`` where either is missing."""
    with _reading(journal) as db:
        undone = _UNDONE.replace("e.sequence", "entries.sequence")
        condition = f"decision = ? AND kind IN ('verdict', 'second') AND NOT {undone}"
        found = {one.kind: one for one in chain.entries_where(db, f"{condition} ORDER BY sequence", [decision_id])}
    if len(found) < 2 or found["second"].actor != actor:
        return None
    return found["verdict"], found["second"]


def tallies(journal: Journal) -> list[tuple[str, str, int]]:
    """Label, state and number of all decisions, by label; automatic ones are that whatever people said of them."""
    with _reading(journal) as db:
        rows = db.execute(
            "SELECT label, CASE WHEN reason IS NULL THEN 0 ELSE state END AS now, COUNT(*) FROM items"
            " GROUP BY label, now ORDER BY label"
        ).fetchall()
    return [(label or "", STATES[state], count) for label, state, count in rows]


def per_day(journal: Journal, *, days: int = 14) -> list[tuple[str, str, int]]:
    """Day (UTC), person and number of the verdicts that were not taken back, the latest day first."""
    since = clock.wall() - days * 24 * 3600 * clock.SECOND
    with _reading(journal) as db:
        found: list[tuple[str, str, int]] = db.execute(
            f"SELECT date(time / 1000000, 'unixepoch') AS day, actor, COUNT(*) FROM {_ACTIONS}"
            f" WHERE {_DONE} AND kind IN ('verdict', 'second') AND time >= ? AND NOT {_UNDONE}"
            " GROUP BY day, actor ORDER BY day DESC, actor",
            (since,),
        ).fetchall()
    return found


def differing(journal: Journal) -> list[tuple[str, str, int, int]]:
    """By the policy's action and label: how many have a person's verdict, and of how many it is another label."""
    with _reading(journal) as db:
        rows = db.execute(
            "SELECT reason IS NULL, label, COUNT(*), SUM(verdict_label IS NOT label) FROM items"
            " WHERE verdict IS NOT NULL GROUP BY reason IS NULL, label ORDER BY label"
        ).fetchall()
    return [
        (STATES[AUTOMATIC] if own else STATES[WAITING], label or "", count, other) for own, label, count, other in rows
    ]


def _item(db: Any, entry: int, campaign: str, token: str, seconds: float) -> Item:
    [one] = decision_where(db, "i.entry = ?", [entry])
    size = db.execute("SELECT size FROM waiting WHERE campaign = ?", (campaign,)).fetchone() or (1,)
    return Item(one.id, one.time, one.bank, one.record, size[0], token, seconds)


@contextmanager
def _reading(journal: Journal) -> Iterator[Any]:
    with journal._store.reading() as db:
        yield db


@contextmanager
def _changing(journal: Journal) -> Iterator[Any]:
    with journal._changing() as db:
        yield db
