"""The order of the queue: one place per campaign that has texts waiting for a person.

A campaign stands where its earliest waiting text does: at the time of that text, brought forward by up to
``HEAD_START`` the more urgent it is. The urgency of a text is how unsure its decision was; that of a flood grows with
the texts that wait in it. So the most urgent come first, and nothing starves: what comes more than a ``HEAD_START``
later is behind.
"""

import math
import sqlite3
from collections.abc import Sequence

from ecom_rag.serving.journal.clock import SECOND

HEAD_START = 24 * 3600 * SECOND
_LARGE = 1000  # waiting texts of a flood of the highest urgency


def add(db: sqlite3.Connection, items: Sequence[tuple[str, int]]) -> None:
    """Put new items in the queue.

    Args:
        db: In a write transaction.
        items: Campaign and entry of each, ascending by entry.
    """
    added: dict[str, list[int]] = {}
    for campaign, entry in items:
        added.setdefault(campaign, []).append(entry)
    for campaign, entries in added.items():
        found = db.execute("SELECT entry, size FROM waiting WHERE campaign = ?", (campaign,)).fetchone()
        first, size = found or (entries[0], 0)
        _put(db, campaign, first, size + len(entries))


def refresh(db: sqlite3.Connection, campaign: str) -> None:
    """Count the waiting items of a campaign again, after some have come or gone."""
    first, size = db.execute(
        "SELECT MIN(entry), COUNT(*) FROM items WHERE campaign = ? AND state = 1", (campaign,)
    ).fetchone()
    if size:
        _put(db, campaign, first, size)
    else:
        db.execute("DELETE FROM waiting WHERE campaign = ?", (campaign,))


def _put(db: sqlite3.Connection, campaign: str, first: int, size: int) -> None:
    time, urgency = db.execute("SELECT time, urgency FROM items WHERE entry = ?", (first,)).fetchone()
    if urgency is None:
        urgency = min(1.0, math.log(1 + size) / math.log(1 + _LARGE))
    rank = time - round(HEAD_START * urgency)
    db.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?)", (campaign, first, size, rank))
