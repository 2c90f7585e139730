"""What people do about decisions, each as a new entry; and undoing it, as one more.

Only ``verdict`` changes what is exported. A verdict of a person who was given the item for a second look is of the kind
``second``: it stands beside the first one and changes nothing else.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from ecom_rag.arguments import text_of
from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.serving.journal import leases
from ecom_rag.serving.journal.chain import Draft, Entry, append, entries_where
from ecom_rag.serving.journal.errors import NothingToUndo
from ecom_rag.serving.journal.guarding import Guarding
from ecom_rag.serving.journal.items import OPEN, Row, body_of, find, refresh

INNOCENT = "innocent"  # the label of a verdict that says innocent and no more
UNDO_DEPTH = 20  # last actions of a person


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something to which decision.

    Args:
        decision: Its id.
        actor: The person.
        lease: Of ``Item``; ``None`` where the person was not given the item.
    """

    decision: str
    actor: str
    lease: str | None = None


def verdict(
    db: sqlite3.Connection, guarding: Guarding, act: Act, body: dict[str, Any], second_looks: float
) -> tuple[Entry, int]:
    """A person's label of a text, as the verdict that stands or, on a second look, beside it.

    Returns:
        The entry, and how many texts of the same flood it has settled.
    """
    row = find(db, act.decision)
    is_held = leases.check_lease(db, row, act.actor, act.lease)
    is_second = is_held and row.second == OPEN and row.verdict_actor != act.actor
    draft = Draft("second", *_whose(act), body) if is_second else Draft("verdict", *_whose(act), body, row.verdict)
    [entry] = append(db, [draft])
    if not is_second:
        guarding.looked(db, entry.sequence, body_of(db, row.entry)["record"]["text"], body["label"])
    settled = refresh(db, row, second_looks)
    leases.end_lease(db, row)
    return entry, settled


def skip(db: sqlite3.Connection, act: Act) -> Entry:
    """Put an item at the end of this person's queue."""
    row = find(db, act.decision)
    leases.check_lease(db, row, act.actor, act.lease)
    [entry] = append(db, [Draft("skip", *_whose(act), {})])
    db.execute("INSERT OR REPLACE INTO skips VALUES (?, ?, ?)", (act.actor, row.entry, entry.sequence))
    leases.end_lease(db, row)
    return entry


def escalate(db: sqlite3.Connection, act: Act, note: str, second_looks: float) -> Entry:
    """Move an item to the queue of those who know better."""
    row = find(db, act.decision)
    leases.check_lease(db, row, act.actor, act.lease)
    [entry] = append(db, [Draft("escalate", *_whose(act), {"note": note})])
    refresh(db, row, second_looks)
    leases.end_lease(db, row)
    return entry


def remark(db: sqlite3.Connection, act: Act, kind: str, body: dict[str, Any]) -> Entry:
    """An entry that changes no state: a note, or that a seed was added to a bank."""
    find(db, act.decision)
    [entry] = append(db, [Draft(kind, *_whose(act), body)])
    return entry


def undo(db: sqlite3.Connection, guarding: Guarding, actor: str, second_looks: float) -> Entry:
    """Take back the last thing that a person did and has not taken back.

    Returns:
        The entry that no longer stands.

    Raises:
        NothingToUndo: There is none among the person's last ``UNDO_DEPTH`` actions.
    """
    last = db.execute(
        "SELECT own.sequence FROM (SELECT sequence FROM entries"
        " WHERE actor = ? AND kind <> 'decided' AND kind <> 'undo' ORDER BY sequence DESC LIMIT ?) own"
        " WHERE NOT EXISTS (SELECT 1 FROM entries u WHERE u.kind = 'undo' AND u.supersedes = own.sequence)"
        " ORDER BY own.sequence DESC LIMIT 1",
        (actor, UNDO_DEPTH),
    ).fetchone()
    if last is None:
        raise NothingToUndo(f"{actor}: there is nothing left to undo among the last {UNDO_DEPTH} actions")
    [gone] = entries_where(db, "sequence = ?", last)
    row = find(db, gone.decision)
    append(db, [Draft("undo", gone.decision, actor, {"kind": gone.kind}, gone.sequence)])
    if gone.kind == "verdict":
        guarding.forget_look(db, gone.sequence)
    if gone.kind == "skip":
        _unskip(db, row, actor)
    else:
        refresh(db, row, second_looks)
    return gone


def _unskip(db: sqlite3.Connection, row: Row, actor: str) -> None:
    """What is left of a person's skips of an item when the last one is taken back."""
    before = db.execute(
        "SELECT MAX(sequence) FROM entries e WHERE decision = ? AND kind <> 'decided' AND kind = 'skip' AND actor = ?"
        " AND NOT EXISTS (SELECT 1 FROM entries u WHERE u.kind = 'undo' AND u.supersedes = e.sequence)",
        (row.id, actor),
    ).fetchone()[0]
    if before is None:
        db.execute("DELETE FROM skips WHERE actor = ? AND entry = ?", (actor, row.entry))
    else:
        db.execute("UPDATE skips SET sequence = ? WHERE actor = ? AND entry = ?", (before, actor, row.entry))


def _whose(act: Act) -> tuple[str, str]:
    return act.decision, act.actor


def actor_of(actor: str) -> str:
    """The name of a person or key.

    Raises:
        UsageError: It is none.
    """
    if not text_of(actor, "actor").strip():
        raise UsageError("`actor` is blank; expected the name of the person or key")
    return actor


def label_of(label: Any, *, innocent: bool) -> str:
    """The label of a verdict.

    Raises:
        UsageError: There is none, and the text is not innocent; or it cannot be a label.
    """
    try:
        found = as_label(label)
    except ValueError as error:
        raise UsageError(f"the label {error}") from None
    if found is None and not innocent:
        raise UsageError("the verdict has no label; expected a label, or innocent")
    return found or INNOCENT
