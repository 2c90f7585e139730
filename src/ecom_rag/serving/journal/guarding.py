"""The flood guard's memory in the journal: written in the transaction of the decisions that it has let pass.

What is kept: how many automatic decisions each campaign has, up to eight of its texts as sketches, and what people said
of it. A campaign of which no text was ever decided automatically is not kept; after a restart its next text begins a
campaign of another name.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby

from ecom_rag.decision.floods import FloodGuard, Known, Look, admit_decided
from ecom_rag.files.records import Record


class Guarding:
    """The guard, read from the journal when it is first needed, and again when another process has changed it.

    Args:
        limit: Automatic decisions in one campaign before a person must look.
        capacity: As of ``FloodGuard``; also how many campaigns are kept.
    """

    def __init__(self, *, limit: int, capacity: int) -> None:
        self._limit, self._capacity = limit, capacity
        self._guard: FloodGuard | None = None
        self._version = -1  # of what is in the file
        FloodGuard(limit=limit, capacity=1)  # checks the limit
        self._touched = False

    def admit(self, db: sqlite3.Connection, decided: Sequence[Record], first: int) -> None:
        """As ``admit_decided``, and keep the counts.

        Args:
            db: In a write transaction.
            decided: Decided records, changed in place.
            first: Sequence that the entry of the first one will have.
        """
        guard = self._begin(db)
        admit_decided(guard, decided)
        met = {int(one["decision"]["campaign"], 16): first + place for place, one in enumerate(decided)}
        for campaign, last in met.items():
            count = guard.counts.get(campaign)
            if count is None:
                continue
            db.execute(
                "INSERT OR REPLACE INTO flood_counts VALUES (?, ?, ?)", (campaign, count.before + count.added, last)
            )
            db.executemany(
                "INSERT INTO flood_examples (campaign, example) VALUES (?, ?)",
                [(campaign, example) for example in count.examples],
            )
            count.examples = []  # they are in the file; ``known`` says how many there are
        self._end(db)

    def looked(self, db: sqlite3.Connection, verdict: int, text: str, label: str) -> None:
        """Note what a person said of a text's campaign.

        Args:
            db: In a write transaction.
            verdict: Sequence of the verdict's entry.
            text: The text.
            label: The label.
        """
        guard = self._begin(db)
        [name] = guard.looked([text], [label])
        campaign = int(name, 16)
        look = guard.looks[campaign]
        db.execute("INSERT INTO flood_looks VALUES (?, ?, ?, ?)", (campaign, verdict, label, look.example))
        self._end(db)

    def forget_look(self, db: sqlite3.Connection, verdict: int) -> None:
        """Take back what a verdict said; what was said of its campaign before counts again."""
        guard = self._begin(db)
        for (campaign,) in db.execute("SELECT campaign FROM flood_looks WHERE verdict = ?", (verdict,)).fetchall():
            db.execute("DELETE FROM flood_looks WHERE campaign = ? AND verdict = ?", (campaign, verdict))
            before = db.execute(
                "SELECT label, example FROM flood_looks WHERE campaign = ? ORDER BY verdict DESC LIMIT 1", (campaign,)
            ).fetchone()
            if before is None:
                guard.looks.pop(campaign, None)
            else:
                guard.looks[campaign] = Look(*before)
        self._end(db)

    def finish(self, committed: bool) -> None:
        """The end of a transaction; after one that failed the guard has seen what is not kept, and is read again."""
        if self._touched and not committed:
            self._guard = None
        self._touched = False

    def _begin(self, db: sqlite3.Connection) -> FloodGuard:
        [version] = db.execute("SELECT floods FROM head").fetchone()
        if self._guard is None or version != self._version:
            self._guard = None  # two at once would take twice the memory
            self._guard = _restored(db, self._limit, self._capacity)
        self._touched = True
        self._version = version + 1
        return self._guard

    def _end(self, db: sqlite3.Connection) -> None:
        db.execute("UPDATE head SET floods = ?", (self._version,))


def _restored(db: sqlite3.Connection, limit: int, capacity: int) -> FloodGuard:
    """The guard as the file knows it; of more campaigns than it holds, those met least recently are removed."""
    db.execute(
        "DELETE FROM flood_counts WHERE campaign IN"
        " (SELECT campaign FROM flood_counts ORDER BY last DESC LIMIT -1 OFFSET ?)",
        (capacity,),
    )
    db.execute("DELETE FROM flood_examples WHERE campaign NOT IN (SELECT campaign FROM flood_counts)")
    guard = FloodGuard(limit=limit, capacity=capacity)
    looks = db.execute("SELECT campaign, label, example, MAX(verdict) FROM flood_looks GROUP BY campaign")
    guard.restore(_known(db), {campaign: Look(label, example, fresh=False) for campaign, label, example, _ in looks})
    return guard


def _known(db: sqlite3.Connection) -> Iterator[Known]:
    rows = db.execute(
        "SELECT c.campaign, c.decisions, x.example FROM flood_counts c JOIN flood_examples x ON x.campaign = c.campaign"
        " ORDER BY c.last, c.campaign, x.number"
    )
    for (campaign, decisions), found in groupby(rows, key=lambda row: (row[0], row[1])):
        yield Known(campaign, decisions, b"".join(example for _, _, example in found))
