"""The flood guard in the journal: the same decisions with and without restarts, and never ahead of the disk."""

import copy
import sqlite3
from contextlib import closing

import pytest

from ecom_rag.decision.floods import FloodGuard, admit_decided
from ecom_rag.errors import UsageError
from ecom_rag.serving.journal import Journal
from helpers.campaigns import variations
from helpers.journals import automatic, put, to_review

TEXTS = variations(240, templates=6, length=80, edits=2, seed=1)


def opened(path, **options):
    return Journal.open(path, **{"flood_limit": 3, "flood_capacity": 500, "second_looks": 0} | options)


def decided(texts):
    """Every seventh goes to review whatever the guard says."""
    return [to_review(text) if number % 7 == 3 else automatic(text) for number, text in enumerate(texts)]


def admit(journal, records):
    return journal.admit_and_record(records, bank="b", sequence=1, actor="shop")


def passed(records):
    return [one["decision"]["reason"] for one in records]


@pytest.mark.parametrize("restarts", [False, True])
def test_as_the_guard_of_a_file_job(tmp_path, restarts):
    expected, found = decided(TEXTS), decided(TEXTS)
    admit_decided(FloodGuard(limit=3, capacity=500), expected)
    journal = opened(tmp_path / "j.db")
    for first in range(0, len(found), 20):
        admit(journal, found[first : first + 20])
        if restarts:
            journal.close()
            journal = opened(tmp_path / "j.db")
    journal.close()
    assert passed(found) == passed(expected) and "flood" in passed(found)
    if not restarts:
        assert found == expected


@pytest.mark.parametrize("restart", [False, True])
def test_a_verdict_is_a_look_and_its_undo_takes_it_back(tmp_path, restart):
    flood = variations(30, templates=1, length=80, edits=1, seed=3)
    journal = opened(tmp_path / "j.db")

    def again():
        nonlocal journal
        if restart:
            journal.close()
            journal = opened(tmp_path / "j.db")

    def floods(first, count=2):
        records = [automatic(text) for text in flood[first : first + count]]
        admit(journal, records)
        again()
        return [reason == "flood" for reason in passed(records)]

    assert floods(0, 5) == [False] * 3 + [True] * 2
    item = journal.next("anna")
    assert item.record["decision"]["reason"] == "flood" and item.campaign_size == 2
    assert journal.verdict(item.id, actor="anna", label="fraud", lease=item.lease) == 1
    again()
    assert floods(5) == [False, False]
    journal.verdict(item.id, actor="ben", label="ok")  # all that were decided fraud must be seen now
    again()
    assert floods(7) == [True, True] and journal.counts().waiting == 3
    journal.undo("ben")
    again()
    assert floods(9) == [False, False]
    journal.undo("anna")
    again()
    assert floods(11) == [True, True]
    journal.verify()
    journal.close()


def test_two_processes_count_together(tmp_path):
    flood = variations(10, templates=1, length=80, edits=1, seed=3)
    with opened(tmp_path / "j.db") as one, opened(tmp_path / "j.db") as other:
        records = [automatic(text) for text in flood]
        for number, record in enumerate(records):
            admit((one, other)[number % 2], [record])
        assert passed(records) == [None] * 3 + ["flood"] * 7


def test_a_full_disk_leaves_the_guard_where_the_file_is(tmp_path):
    flood = variations(8, templates=1, length=80, edits=1, seed=3)
    with opened(tmp_path / "j.db") as journal:
        admit(journal, [automatic(flood[0])])
        head = journal.head()
        writer = journal._store._writer
        [pages] = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages + 3}")
        records = [automatic(f"{text} {'long ' * 5000}") for text in flood[1:3]] + [automatic(flood[3])]
        before = copy.deepcopy(records)
        with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*j\.db'"):
            admit(journal, records)
        assert records == before and journal.head() == head == journal.verify()
        writer.execute("PRAGMA max_page_count = 1000000")
        records = [automatic(text) for text in flood[4:8]]
        admit(journal, records)
        assert passed(records) == [None, None, "flood", "flood"]


def test_an_error_before_the_guard_leaves_it_alone(tmp_path):
    with opened(tmp_path / "j.db") as journal:
        admit(journal, [automatic("a text")])
        guard = journal._guarding._guard
        with pytest.raises(UsageError):
            journal.verdict("dec_none", actor="anna", label="ok")
        assert journal._guarding._guard is guard is not None


def test_the_memory_of_the_guard_is_bounded(tmp_path):
    texts = variations(60, templates=60, length=60, edits=0, seed=5)
    with opened(tmp_path / "j.db", flood_capacity=20) as journal:
        admit(journal, [automatic(text) for text in texts])
    with opened(tmp_path / "j.db", flood_capacity=20) as journal:
        records = [automatic(texts[-1]) for _ in range(3)]
        admit(journal, records)
        assert passed(records) == [None, None, "flood"]
    with closing(sqlite3.connect(tmp_path / "j.db")) as db:
        assert db.execute("SELECT COUNT(*) FROM flood_counts").fetchone() == (20,)


def test_decisions_without_a_guard_are_campaigns_of_their_own(tmp_path):
    with opened(tmp_path / "j.db") as journal:
        put(journal, to_review("one"), to_review("two"))
        assert journal.counts().campaigns == 2
