"""Decisions as they stand now: what the entries of each one add up to."""

import hashlib
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ecom_rag.arguments import text_of
from ecom_rag.decision.choose import uncertainty
from ecom_rag.decision.decided import ACTIONS
from ecom_rag.decision.floods import FLOOD
from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.files.json_text import dumps, loads
from ecom_rag.files.records import Record
from ecom_rag.filters.parse import parse
from ecom_rag.filters.sql import conditions
from ecom_rag.serving.journal import waiting
from ecom_rag.serving.journal.chain import Draft, Entry, append, entries_where
from ecom_rag.serving.journal.errors import JournalDamaged, UnknownDecision

AUTOMATIC, WAITING, ANSWERED, ESCALATED, SETTLED = range(5)
STATES = ("automatic", "waiting", "answered", "escalated", "settled")
NOT_CHOSEN, OPEN, SEEN = range(3)  # of a second look

_LEFT_OUT = ("because", "against")  # of a decision, in what filters look at
_COLUMNS = "entry, id, campaign, reason, label, state, verdict, verdict_actor, second"


class Row(NamedTuple):
    """What is needed of a decision to change its state."""

    entry: int
    id: str
    campaign: str
    reason: str | None
    label: str | None
    state: int
    verdict: int | None
    verdict_actor: str | None
    second: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and what people did about it.

    Args:
        id: Its id.
        sequence: Of its entry; later decisions have higher ones.
        time: Microseconds since 1970.
        actor: Whose request it was.
        bank: Name of the bank.
        bank_sequence: State of the bank.
        record: As it was decided, with ``text``, ``metadata``, ``topk_*`` and ``decision``.
        state: One of ``STATES``. A text is ``settled`` by a verdict on another of its flood that says the same.
        label: Of the verdict that stands; ``None`` where there is none.
        history: Further entries about it, the oldest first.
    """

    id: str
    sequence: int
    time: int
    actor: str
    bank: str
    bank_sequence: int
    record: Record
    state: str
    label: str | None
    history: list[Entry] = field(default_factory=list)


def record(db: sqlite3.Connection, decided: Sequence[Record], *, bank: str, sequence: int, actor: str) -> list[str]:
    """Write decisions, within a write transaction; see ``Journal.record``."""
    text_of(bank, "bank")
    ids = [f"dec_{uuid.uuid4().hex[:20]}" for _ in decided]
    drafts = [
        Draft("decided", id_, actor, {"bank": bank, "sequence": sequence, "record": one})
        for id_, one in zip(ids, decided, strict=True)
    ]
    entries = append(db, drafts)
    rows = [_row(entry, bank, one) for entry, one in zip(entries, decided, strict=True)]
    db.executemany(
        "INSERT INTO items (entry, id, time, bank, campaign, policy, reason, label, urgency, about, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    waiting.add(db, [(row[4], row[0]) for row in rows if row[-1] == WAITING])
    return ids


def check_decided(decided: Sequence[Record]) -> None:
    """Raise ``UsageError`` unless all records are decided."""
    for number, one in enumerate(decided):
        decision = one.get("decision") if isinstance(one, Mapping) else None
        if not isinstance(decision, Mapping) or decision.get("action") not in ACTIONS:
            raise UsageError(f"record {number}: has no decision; expected one that a policy has decided")


def find(db: sqlite3.Connection, id_: str) -> Row:
    """The row of a decision.

    Raises:
        UnknownDecision: There is none of this id.
    """
    sought = id_ if isinstance(id_, str) and id_.isascii() else ""  # no other text is an id, and some cannot be bound
    found = db.execute(f"SELECT {_COLUMNS} FROM items WHERE id = ?", (sought,)).fetchone()
    if found is None:
        raise UnknownDecision(f"decision {str(id_)[:40]!r}: is not in the journal; expected an id that it gave")
    return Row(*found)


def body_of(db: sqlite3.Connection, entry: int) -> dict[str, Any]:
    """What the entry of a decision says."""
    found: dict[str, Any] = loads(db.execute("SELECT body FROM entries WHERE sequence = ?", (entry,)).fetchone()[0])
    return found


def decision_where(db: sqlite3.Connection, condition: str, parameters: Iterable[Any]) -> Iterable[Decision]:
    """Decisions in an SQL condition over ``i`` and ``e`` (with its order), without their history."""
    sql = (
        "SELECT i.id, i.entry, i.time, e.actor, e.body, i.state, i.verdict_label"
        f" FROM items i JOIN entries e ON e.sequence = i.entry WHERE {condition}"
    )
    for id_, entry, time, actor, raw, state, label in db.execute(sql, tuple(parameters)):
        body = loads(raw)
        origin = actor, body["bank"], body["sequence"]
        yield Decision(id_, entry, time, *origin, body["record"], STATES[state], label)


def history(db: sqlite3.Connection, id_: str) -> list[Entry]:
    """What was done about a decision, the oldest first."""
    return list(entries_where(db, "decision = ? AND kind <> 'decided' ORDER BY sequence", (id_,)))


def standing(entries: Iterable[Entry]) -> list[Entry]:
    """Those of a history that were not undone."""
    entries = list(entries)
    gone = {entry.supersedes for entry in entries if entry.kind == "undo"}
    return [entry for entry in entries if entry.kind != "undo" and entry.sequence not in gone]


def refresh(db: sqlite3.Connection, row: Row, second_looks: float) -> int:
    """Bring a decision to the state that its entries add up to.

    Where another verdict stands than before, texts of the same flood that the old one settled wait again, and the new
    one settles those that were decided as it says.

    Args:
        db: In a write transaction.
        row: The decision as it stood.
        second_looks: Share of items with a verdict that get a second look.

    Returns:
        Texts that the new verdict settles.
    """
    verdict = escalated = second = None
    for entry in standing(history(db, row.id)):
        if entry.kind == "verdict":
            verdict = entry
        elif entry.kind == "escalate":
            escalated = entry
        elif entry.kind == "second":
            second = entry
    if escalated is not None and (verdict is None or verdict.sequence < escalated.sequence):
        state = ESCALATED
    elif verdict is not None:
        state = ANSWERED
    else:
        state = _without_verdict(db, row)
    chosen = second is not None or is_chosen(row.id, second_looks)
    looks = NOT_CHOSEN if state != ANSWERED or not chosen else OPEN if second is None else SEEN
    db.execute(
        "UPDATE items SET state = ?, verdict = ?, verdict_actor = ?, verdict_label = ?, second = ?, second_label = ?"
        " WHERE entry = ?",
        (state, *_said(verdict), looks, second and second.body["label"], row.entry),
    )
    settled = 0
    if (verdict and verdict.sequence) != row.verdict:
        db.execute(
            "UPDATE items SET state = CASE state WHEN 4 THEN 1 ELSE state END, settled_by = NULL WHERE settled_by = ?",
            (row.verdict,),
        )
        if verdict is not None:
            settled = db.execute(
                "UPDATE items SET state = 4, settled_by = ? WHERE campaign = ? AND state = 1 AND reason = ?"
                " AND label = ?",
                (verdict.sequence, row.campaign, FLOOD, verdict.body["label"]),
            ).rowcount
    waiting.refresh(db, row.campaign)
    return settled


def check(db: sqlite3.Connection, path: str) -> None:
    """Hold the items against their entries: each decision is there, with the verdict that an entry gives it.

    Raises:
        JournalDamaged: Names the first decision that is not.
    """
    hidden = db.execute(
        "SELECT e.decision FROM entries e LEFT JOIN items i ON i.entry = e.sequence"
        " WHERE e.kind = 'decided' AND i.id IS NOT e.decision ORDER BY e.sequence LIMIT 1"
    ).fetchone()
    if hidden is not None:
        raise JournalDamaged(f"{path}: decision {hidden[0]} was taken out of the table of items; restore a copy")
    sql = "SELECT i.id, i.verdict, i.verdict_actor, i.verdict_label FROM items i WHERE i.verdict IS NOT NULL"
    for id_, sequence, actor, label in db.execute(f"{sql} ORDER BY i.verdict"):
        entry = next(entries_where(db, "sequence = ?", (sequence,)), None)
        if entry is None or (entry.decision, entry.actor, entry.body.get("label")) != (id_, actor, label):
            raise JournalDamaged(f"{path}: the verdict of {id_} is not what entry {sequence} says; restore a copy")


def is_chosen(id_: str, share: float) -> bool:
    """Whether a decision is one of those that get a second look; the same for the same id, always."""
    drawn = int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8).digest())
    return drawn < share * 2**64


def filter_sql(filter: Any) -> tuple[str, list[Any]]:
    """An SQL condition over ``i`` for a filter, and its parameters.

    Args:
        filter: An expression over the metadata, with the decision under ``decision``; ``None`` for all.

    Raises:
        UsageError: Not a filter.
    """
    return ("TRUE", []) if filter is None else conditions(parse(filter), column="i.about")


def _row(entry: Entry, bank: str, one: Record) -> tuple[Any, ...]:
    decision = one["decision"]
    about = {key: value for key, value in decision.items() if key not in _LEFT_OUT}
    is_review = decision["action"] == "review"
    label, reason = as_label(decision.get("label")), decision.get("reason") or ("review" if is_review else None)
    campaign = decision.get("campaign") or entry.decision
    return (
        *(entry.sequence, entry.decision, entry.time, bank, campaign, decision.get("policy"), reason, label),
        None if reason == FLOOD else _urgency(decision),
        dumps({**one["metadata"], "decision": about}).decode(),
        WAITING if is_review else AUTOMATIC,
    )


def _urgency(decision: Mapping[str, Any]) -> float:
    """How unsure a decision is, 0 to 1: how near the best label is to its threshold, or else the two best are."""
    probability, threshold = decision.get("probability"), decision.get("threshold")
    if threshold is not None and probability is not None:
        return 1 - abs(float(threshold) - float(probability))
    return uncertainty(tuple(sorted((decision.get("probabilities") or {}).values(), reverse=True)))


def _without_verdict(db: sqlite3.Connection, row: Row) -> int:
    if row.reason is None:
        return AUTOMATIC
    [settled] = db.execute("SELECT settled_by FROM items WHERE entry = ?", (row.entry,)).fetchone()
    return WAITING if settled is None else SETTLED


def _said(verdict: Entry | None) -> tuple[int | None, str | None, str | None]:
    return (None, None, None) if verdict is None else (verdict.sequence, verdict.actor, verdict.body["label"])
