"""The chain: what was written stays, and whatever is changed beside it is found."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.serving.journal import Head, Journal, JournalDamaged, UnknownDecision, clock
from helpers.journals import automatic, put, to_review

SAME = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the tests' helpers are found there too
WRITER = """
import sys
from ecom_rag.serving.journal import Journal
from helpers.journals import automatic
with Journal.open(sys.argv[1]) as journal:
    number = 0
    while True:
        texts = [f"{sys.argv[2]} {number + i} 加微信 {number + i}" for i in range(5)]
        ids = journal.admit_and_record([automatic(t) for t in texts], bank="b", sequence=1, actor="a")
        number += 5
        print(*ids, flush=True)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A journal of twelve entries, closed."""
    path = tmp_path_factory.mktemp("whole") / "journal.db"
    with Journal.open(path) as journal:
        ids = put(journal, *[to_review(f"text {number}") for number in range(8)])
        journal.verdict(ids[0], actor="anna", label="fraud")
        journal.skip(ids[1], actor="anna")
        journal.undo("anna")
        journal.note(ids[2], actor="ben", note="look at this")
    return path


def without_guards(path):
    """A connection of somebody who takes the triggers away first."""
    db = sqlite3.connect(path, isolation_level=None)
    for name in ("no_update", "no_delete", "no_replace"):
        db.execute(f"DROP TRIGGER {name}")
    return db


def test_a_whole_journal_verifies(whole):
    with Journal.open(whole) as journal:
        head = journal.verify()
        assert head == journal.head() and head.sequence == 12 and len(head.hash) == 64
        assert journal.verify(known=head) == head


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entries SET actor = 'mallory' WHERE sequence = 3",
        "DELETE FROM entries WHERE sequence = 3",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE sequence = 3",
        "REPLACE INTO entries SELECT 3, time, clock, kind, decision, actor, body, supersedes, previous, hash"
        " FROM entries WHERE sequence = 4",
    ],
)
def test_sqlite_itself_refuses_to_change_entries(whole, tmp_path, sql):
    shutil.copy(whole, tmp_path / "j.db")
    with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as db:
        with pytest.raises(sqlite3.IntegrityError, match="the journal only grows"):
            db.execute(sql)


CHANGES = {
    "time": st.integers(0, 2**60),
    "clock": st.integers(0, 2**60),
    "kind": st.sampled_from(["verdict", "undo", "decided", ""]),
    "decision": st.text("abc0", max_size=3),
    "actor": st.sampled_from(["anna", "ben", "shop", "mallory", ""]),
    "body": st.binary(max_size=4),
    "supersedes": st.integers(0, 12),
    "previous": st.binary(min_size=32, max_size=32),
    "hash": st.binary(min_size=32, max_size=32),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_row_is_found(whole, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "j.db"
    shutil.copy(whole, path)
    row, column = data.draw(st.integers(1, 12)), data.draw(st.sampled_from(sorted(CHANGES)))
    value = data.draw(CHANGES[column] | st.none() if column in ("clock", "supersedes") else CHANGES[column])
    with closing(without_guards(path)) as db:
        db.execute("DROP INDEX undone")
        before = db.execute(f"SELECT {column} FROM entries WHERE sequence = ?", (row,)).fetchone()[0]
        db.execute(f"UPDATE entries SET {column} = ? WHERE sequence = ?", (value, row))
    with Journal.open(path) as journal:
        if value == before:
            journal.verify()
        else:
            with pytest.raises(JournalDamaged, match=rf"j\.db: entry {row} was (changed|put in)"):
                journal.verify()


@settings(max_examples=30, deadline=None)
@given(row=st.integers(1, 12), other=st.integers(1, 12), way=st.sampled_from(["removed", "closed up", "put in"]))
def test_any_removed_or_inserted_row_is_found(whole, tmp_path_factory, row, other, way):
    path = tmp_path_factory.mktemp("rows") / "j.db"
    shutil.copy(whole, path)
    columns = "time, clock, kind, decision, actor, body, supersedes, previous, hash"
    with closing(without_guards(path)) as db:
        db.execute("DROP INDEX undone")
        if way == "put in":
            db.execute("UPDATE entries SET sequence = -sequence WHERE sequence >= ?", (row,))
            db.execute("UPDATE entries SET sequence = 1 - sequence WHERE sequence < 0")
            source = other + (other >= row)
            db.execute(f"INSERT INTO entries SELECT ?, {columns} FROM entries WHERE sequence = ?", (row, source))
        else:
            db.execute("DELETE FROM entries WHERE sequence = ?", (row,))
        if way == "closed up":
            db.execute("UPDATE entries SET sequence = -sequence WHERE sequence > ?", (row,))
            db.execute("UPDATE entries SET sequence = -sequence - 1 WHERE sequence < 0")
    first = row + (way == "put in" and row == other)  # a copy in front of its original is the original
    with Journal.open(path) as journal, pytest.raises(JournalDamaged, match=rf"entry {first} (is missing|was)"):
        journal.verify()


def test_a_file_that_was_computed_anew_is_found_by_a_head_kept_elsewhere(whole, tmp_path):
    with Journal.open(tmp_path / "j.db") as journal:
        put(journal, *[to_review(f"other {number}") for number in range(14)])
        journal.verify()
        with Journal.open(whole) as old, pytest.raises(JournalDamaged, match="entry 12 is not the one"):
            journal.verify(known=old.head())
        with pytest.raises(JournalDamaged, match="entry 15 is missing"):
            journal.verify(known=Head(20, "00" * 32))


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM items WHERE entry = 5", "was taken out of the table of items"),
        ("UPDATE items SET id = 'dec_other' WHERE entry = 5", "was taken out of the table of items"),
        ("UPDATE items SET verdict_label = 'ok' WHERE entry = 1", "is not what entry 9 says"),
        ("UPDATE items SET verdict = 9 WHERE entry = 2", "is not what entry 9 says"),
        ("UPDATE items SET verdict = 99 WHERE entry = 2", "is not what entry 99 says"),
    ],
)
def test_decisions_and_verdicts_are_held_against_their_entries(whole, tmp_path, sql, told):
    shutil.copy(whole, tmp_path / "j.db")
    with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as db:
        db.execute(sql)
    with Journal.open(tmp_path / "j.db") as journal, pytest.raises(JournalDamaged, match=told):
        journal.verify()


def test_a_clock_set_back_breaks_neither_order_nor_chain(tmp_path, monkeypatch):
    with Journal.open(tmp_path / "j.db") as journal:
        for now in (1_000, 5_000, 2_000, 7_000):
            monkeypatch.setattr(clock, "wall", lambda now=now: now)
            put(journal, automatic(f"text {now}"))
        journal.verify()
    with closing(sqlite3.connect(tmp_path / "j.db")) as db:
        found = db.execute("SELECT time, clock FROM entries ORDER BY sequence").fetchall()
    assert found == [(1_000, None), (5_000, None), (5_000, 2_000), (7_000, None)]


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path):
    acknowledged, path = [], tmp_path / "j.db"
    for round_ in range(6):
        command = [sys.executable, "-c", WRITER, str(path), f"round {round_}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=SAME) as writer:
            acknowledged += writer.stdout.readline().split()
            time.sleep(0.03 * round_)
            writer.send_signal(signal.SIGKILL)
            acknowledged += [one for line in writer.stdout if line.endswith("\n") for one in line.split()]
        with Journal.open(path) as journal:
            journal.verify()
            assert len(acknowledged) > round_ * 5
            for one in acknowledged:
                assert journal.get(one).id == one
    with closing(sqlite3.connect(path)) as db:
        [decisions] = db.execute("SELECT COUNT(*) FROM entries").fetchone()
        assert decisions % 5 == 0 and decisions >= len(acknowledged)  # a block is there as a whole or not at all
        let_pass = db.execute("SELECT COUNT(*) FROM items WHERE state = 0").fetchone()
        assert db.execute("SELECT SUM(decisions) FROM flood_counts").fetchone() == let_pass


def test_foreign_damaged_and_newer_files(tmp_path):
    (tmp_path / "text.db").write_bytes(b"no database, but long enough to be taken for one" * 40)
    with pytest.raises(JournalDamaged, match=r"text\.db: is no whole journal"):
        Journal.open(tmp_path / "text.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(UsageError, match="another program's database"):
        Journal.open(tmp_path / "other.db")
    Journal.open(tmp_path / "j.db").close()
    with closing(sqlite3.connect(tmp_path / "j.db")) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(UsageError, match="journal format 9, this version of ecom_rag reads 1"):
        Journal.open(tmp_path / "j.db")
    with pytest.raises(UsageError, match="create it first"):
        Journal.open(tmp_path / "none" / "j.db")
    with pytest.raises(UsageError, match="is not a file"):
        Journal.open(tmp_path)


def test_several_processes_make_one_file(tmp_path):
    code = "import sys; from ecom_rag.serving.journal import Journal; from helpers.journals import automatic, put\n"
    code += "with Journal.open(sys.argv[1]) as journal: put(journal, automatic('a'), automatic('b'))"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "j.db")], env=SAME) for _ in range(3)]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    with Journal.open(tmp_path / "j.db") as journal:
        assert journal.verify().sequence == 6


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    with Journal.open(tmp_path / "j.db") as journal:
        put(journal, automatic("a"))
        writer = journal._store._writer
        [pages] = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*j\.db'"):
            put(journal, *[to_review("long " * 500) for _ in range(50)])
        assert journal.verify().sequence == 1 and journal.counts().waiting == 0
        writer.execute("PRAGMA max_page_count = 1000000")
        put(journal, automatic("b"))
        assert journal.verify().sequence == 2


def test_odd_texts_are_refused_in_one_line(tmp_path):
    with Journal.open(tmp_path / "j.db") as journal:
        assert put(journal) == [] == journal.admit_and_record([], bank="b", sequence=1, actor="a")
        for bad in (automatic("half \ud83d"), automatic("a", key="\ud83d")):
            with pytest.raises(UsageError, match="lone surrogate"):
                put(journal, automatic("good"), bad)
        for id_ in ("\ud83d", "", None, 7, "dec_" + "0" * 20, "x" * 10_000):
            with pytest.raises(UnknownDecision, match="is not in the journal"):
                journal.get(id_)
        [id_] = put(journal, automatic("no \0 limits 😀", key={"deep": [2**80, 1e300, None]}))
        assert journal.get(id_).record == automatic("no \0 limits 😀", key={"deep": [2**80, 1e300, None]})
        assert journal.verify().sequence == 1


def test_a_closed_journal_says_so(tmp_path):
    journal = Journal.open(tmp_path / "j.db")
    journal.close()
    journal.close()
    for call in (journal.counts, lambda: put(journal, automatic("a"))):
        with pytest.raises(UsageError, match="is closed"):
            call()


def test_thousands_in_one_transaction_and_all_or_none(tmp_path):
    with Journal.open(tmp_path / "j.db") as journal:
        ids = put(journal, *[to_review(f"text {number}") for number in range(1000)])
        assert len(set(ids)) == 1000 and all(len(one) == 24 and one.startswith("dec_") for one in ids)
        with pytest.raises(UsageError, match="record 1: has no decision"):
            put(journal, automatic("good"), {"text": "bad", "metadata": {}})
        assert journal.head().sequence == journal.counts().waiting == 1000
