"""Whatever people do, in any order and with restarts: the queue is what the items say, and undoing all undoes all."""

import sqlite3
from contextlib import closing, suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.serving.journal import Journal, NothingToUndo
from helpers.journals import automatic, put, to_review

FLOOD = [
    to_review(f"flood {n}", reason="flood", campaign="aaaaaaaaaaaa", label=("fraud", "spam")[n % 2]) for n in range(4)
]
ACTIONS = st.tuples(
    st.sampled_from(["verdict", "verdict", "verdict", "escalate", "skip", "note", "undo", "next", "reopen"]),
    st.sampled_from(["anna", "ben"]),
    st.integers(0, 6),
    st.sampled_from(["fraud", "spam", "ok"]),
)


def tables(path):
    """The state that people change, and the queue counted anew."""
    with closing(sqlite3.connect(path)) as db:
        items = db.execute(
            "SELECT id, state, settled_by, verdict, verdict_label, second, second_label FROM items ORDER BY entry"
        ).fetchall()
        queue = db.execute("SELECT campaign, entry, size FROM waiting ORDER BY campaign").fetchall()
        counted = db.execute(
            "SELECT campaign, MIN(entry), COUNT(*) FROM items WHERE state = 1 GROUP BY campaign ORDER BY campaign"
        ).fetchall()
        skips = db.execute("SELECT actor, entry FROM skips").fetchall()
        looks = db.execute("SELECT campaign, label FROM flood_looks").fetchall()
    assert queue == counted
    return items, queue, skips, looks


def act(journal, action, actor, id_, label):
    match action:
        case "verdict":
            journal.verdict(id_, actor=actor, label=label)
        case "escalate" | "skip":
            getattr(journal, action)(id_, actor=actor)
        case "note":
            journal.note(id_, actor=actor, note="a note")
        case "undo":
            with suppress(NothingToUndo):
                journal.undo(actor)
        case "next":
            item = journal.next(actor)
            if item is not None:
                journal.verdict(item.id, actor=actor, label=label, lease=item.lease)


def outcome(journal, id_):
    """The label that stands, by the history alone."""
    found = journal.get(id_)
    undone = {entry.supersedes for entry in found.history if entry.kind == "undo"}
    said = [one for one in found.history if one.kind == "verdict" and one.sequence not in undone]
    return said[-1].body["label"] if said else None


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTIONS, max_size=15))
def test_any_sequence_of_actions(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("states") / "j.db"
    journal = Journal.open(path, second_looks=0.5, flood_capacity=100)
    ids = put(journal, *FLOOD, to_review("alone"), automatic("decided"), to_review("another"))
    begun = tables(path)
    for action, actor, number, label in actions:
        if action == "reopen":
            journal.close()
            journal = Journal.open(path, second_looks=0.5, flood_capacity=100)
        else:
            act(journal, action, actor, ids[number], label)
        tables(path)
        for id_ in ids:
            assert journal.get(id_).label == outcome(journal, id_)
    for actor in ("anna", "ben"):
        for _ in range(len(actions)):
            act(journal, "undo", actor, None, None)
    assert tables(path) == begun
    assert journal._guarding._guard is None or journal._guarding._guard.looks == {}
    journal.verify()
    journal.close()
