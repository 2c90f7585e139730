"""What waits, what was decided, and how much of it there is; lists come in parts."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ecom_rag.arguments import whole
from ecom_rag.errors import UsageError
from ecom_rag.serving.journal import clock
from ecom_rag.serving.journal.items import Decision, decision_where, filter_sql

_HOUR = 3600 * clock.SECOND
_LARGEST = 2**63 - 1
_MOST = 1000  # items of a page


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list.

    Args:
        items: The decisions, without their history.
        sizes: Waiting texts in the campaign of each; empty in lists of all decisions.
        cursor: Where the next part begins; ``None`` at the end.
    """

    items: list[Decision]
    sizes: list[int]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What waits.

    Args:
        waiting: Texts that wait for a person.
        campaigns: Their campaigns: what a person has to look at if each flood is answered by one of its texts.
        escalated: Escalated texts.
        second_looks: Texts that a second person is to look at.
        leased: Texts that somebody has open.
        by_policy: Waiting texts by the policy that decided them.
        by_reason: By the reason of the review.
        by_label: By the most probable label.
        by_age: By how long they have waited: ``hour`` for less than one, ``day``, ``week`` and ``older``.
        oldest_seconds: How long the oldest has waited; 0 where nothing waits.
    """

    waiting: int
    campaigns: int
    escalated: int
    second_looks: int
    leased: int
    by_policy: dict[str, int]
    by_reason: dict[str, int]
    by_label: dict[str, int]
    by_age: dict[str, int]
    oldest_seconds: float


def list_waiting(db: sqlite3.Connection, filter: Any, limit: int, cursor: str | None) -> Page:
    """Part of the queue, one text per campaign; see ``Journal.waiting``."""
    limit, (condition, values) = _checked(limit), filter_sql(filter)
    rank, entry = (-_LARGEST, 0) if cursor is None else _numbers(cursor, 2)
    rows = db.execute(
        "SELECT w.rank, w.entry, w.size FROM waiting w CROSS JOIN items i ON i.entry = w.entry"
        f" WHERE (w.rank, w.entry) > (?, ?) AND {condition} ORDER BY w.rank, w.entry LIMIT ?",
        (rank, entry, *values, limit + 1),
    ).fetchall()
    shown = rows[:limit]
    found = [one for row in shown for one in decision_where(db, "i.entry = ?", [row[1]])]
    more = f"{shown[-1][0]}.{shown[-1][1]}" if len(rows) > limit else None
    return Page(found, [row[2] for row in shown], more)


def list_decisions(db: sqlite3.Connection, filter: Any, limit: int, cursor: str | None) -> Page:
    """Part of all decisions, newest first; see ``Journal.decisions``."""
    limit, (condition, values) = _checked(limit), filter_sql(filter)
    [before] = (_LARGEST,) if cursor is None else _numbers(cursor, 1)
    order = " ORDER BY i.entry DESC LIMIT ?"
    found = list(decision_where(db, f"i.entry < ? AND {condition}{order}", [before, *values, limit + 1]))
    return Page(found[:limit], [], str(found[limit - 1].sequence) if len(found) > limit else None)


def count(db: sqlite3.Connection) -> Counts:
    """See ``Journal.counts``; all of it is read from indexes."""
    now = max(clock.wall(), db.execute("SELECT time FROM head").fetchone()[0])
    rows = db.execute(
        "SELECT policy, reason, label, COUNT(*), SUM(time > ?), SUM(time > ?), SUM(time > ?), MIN(time)"
        " FROM items WHERE state = 1 GROUP BY policy, reason, label",
        (now - _HOUR, now - 24 * _HOUR, now - 7 * 24 * _HOUR),
    ).fetchall()
    total, in_hour, in_day, in_week = (sum(row[place] for row in rows) for place in range(3, 7))
    oldest = min((row[7] for row in rows), default=now)
    return Counts(
        waiting=total,
        campaigns=_number_of(db, "waiting"),
        escalated=_number_of(db, "items WHERE state = 3"),
        second_looks=_number_of(db, "items WHERE second = 1"),
        leased=_number_of(db, "leases"),
        by_policy=_summed((row[0], row[3]) for row in rows),
        by_reason=_summed((row[1], row[3]) for row in rows),
        by_label=_summed((row[2], row[3]) for row in rows),
        by_age={"hour": in_hour, "day": in_day - in_hour, "week": in_week - in_day, "older": total - in_week},
        oldest_seconds=(now - oldest) / clock.SECOND,
    )


def _checked(limit: int) -> int:
    if whole(limit, "limit") > _MOST:
        raise UsageError(f"`limit` is {limit}; expected at most {_MOST}; ask for the rest with the cursor")
    return limit


def _number_of(db: sqlite3.Connection, what: str) -> int:
    return int(db.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0])


def _summed(rows: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Numbers by name, the largest first; no name is the empty one."""
    found: dict[str, int] = {}
    for name, number in rows:
        found[name or ""] = found.get(name or "", 0) + number
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _numbers(cursor: str, parts: int) -> list[int]:
    """What a cursor says.

    Raises:
        UsageError: It is none.
    """
    try:
        found = [int(part) for part in str(cursor).split(".")]
    except ValueError:
        found = []
    if len(found) != parts or not all(-_LARGEST <= one <= _LARGEST for one in found):
        raise UsageError("`cursor` is not one; expected that of the page before")
    return found
