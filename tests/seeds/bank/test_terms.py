"""Changes on terms: an expected sequence, and requests that are answered once however often they are asked."""

import sqlite3
import subprocess
import sys
import time

import pytest

from ecom_rag.errors import BankBusyError, BankChangedError, BankError, BankFullError, RepeatedKeyError
from ecom_rag.seeds.bank import BankSettings, Request, SeedBank, create, requests, restore, snapshot
from helpers.small_banks import seed


@pytest.fixture
def bank(tmp_path):
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as made:
        made.upsert([seed(number) for number in range(5)])
        yield made


def kept(bank):
    with bank.store.reading() as (db, _):
        return db.execute("SELECT count(*) FROM requests").fetchone()[0]


def test_a_change_that_expects_another_sequence_is_refused(bank):
    assert bank.upsert([seed(9)], expected_sequence=1).sequence == 2
    for change in (
        lambda: bank.upsert([seed(10)], expected_sequence=1),
        lambda: bank.upsert([], expected_sequence=1),
        lambda: bank.delete(["s1"], expected_sequence=3),
        lambda: bank.delete(filter='label = "x"', expected_sequence=0),
    ):
        with pytest.raises(BankChangedError, match=r"is at sequence 2; the change expected \d.*nothing was written"):
            change()
    assert (len(bank), bank.sequence) == (6, 2)
    assert bank.delete(filter='label = "x"', expected_sequence=2).removed == 3


def test_a_repeated_request_is_answered_as_before_and_writes_nothing(bank, tmp_path):
    first = bank.upsert([seed(9), seed(9)], request=Request("k1", "a"), expected_sequence=1)
    assert not first.repeated and first.notes
    assert bank.delete(["s1"], request=Request("k2", "b")).removed == 1
    assert bank.delete(["nothing"], request=Request("k3", "c")).sequence == 3
    bank.upsert([seed(11)])
    snapshot(bank, tmp_path / "snapshot")
    restore(tmp_path / "snapshot", tmp_path / "restored")
    bank.compact()
    for path in (bank.path, tmp_path / "restored"):
        with SeedBank.open(path) as again:
            before = again.sequence
            repeated = again.upsert([seed(9), seed(9)], request=Request("k1", "a"), expected_sequence=1)
            assert repeated.repeated and (repeated.sequence, repeated.added) == (first.sequence, 1)
            assert repeated.notes == first.notes
            assert again.delete(["s1"], request=Request("k2", "b")).removed == 1
            assert again.delete(["nothing"], request=Request("k3", "c")).repeated
            with pytest.raises(RepeatedKeyError, match="was used for another request"):
                again.upsert([seed(12)], request=Request("k1", "other"))
            assert again.sequence == before


def test_a_change_that_failed_keeps_no_answer(bank):
    with pytest.raises(BankChangedError):
        bank.upsert([seed(9)], request=Request("k", "a"), expected_sequence=7)
    assert not bank.upsert([seed(9)], request=Request("k", "b")).repeated


def test_answers_expire_and_are_bounded_in_number(bank, monkeypatch):
    now = time.time()
    for number in range(4):
        bank.delete(["none"], request=Request(f"old{number}", "a"))
    monkeypatch.setattr(requests.time, "time", lambda: now + requests.KEPT_SECONDS + 60)
    assert not bank.delete(["none"], request=Request("old2", "another")).repeated
    assert kept(bank) == 1
    monkeypatch.setattr(requests, "MOST", 3)
    for number in range(9):
        bank.delete(["none"], request=Request(f"new{number}", "a"))
    assert kept(bank) == 3
    assert [bank.delete(["none"], request=Request(f"new{n}", "a")).repeated for n in (8, 7, 6, 2)] == [True] * 3 + [
        False
    ]


def test_nothing_is_half_written(bank, monkeypatch):
    with SeedBank.open(bank.path, timeout=0.1) as other, bank.store.writing(), pytest.raises(BankBusyError):
        other.upsert([seed(8)], request=Request("k", "a"))

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(requests, "remember", full)
    with pytest.raises(BankFullError, match="the disk is full; free some space"):
        bank.upsert([seed(8)], request=Request("k", "a"))
    assert (len(bank), bank.sequence) == (5, 1)


@pytest.mark.parametrize("gone", ["removed", "replaced"])
def test_a_bank_that_is_no_longer_in_its_folder_takes_no_changes(bank, gone):
    with bank.view() as view:
        bank.path.rename(bank.path.with_name("elsewhere"))
        if gone == "replaced":
            create(bank.path, BankSettings(routes=["bm25"])).close()
        for change in (lambda: bank.upsert([seed(9)]), lambda: bank.delete(["s1"])):
            with pytest.raises(BankError, match="was removed or replaced while it was open"):
                change()
        assert view.record(0)["metadata"]["id"] == "s0"
    assert gone == "replaced" or not bank.path.exists()


RACE = """
import sys
from ecom_rag.errors import BankChangedError
from ecom_rag.seeds.bank import SeedBank
bank = SeedBank.open(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    try:
        bank.upsert([{"text": sys.argv[2], "metadata": {"id": line.strip()}}], expected_sequence=int(line))
        print("won", flush=True)
    except BankChangedError:
        print("lost", flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_that_expect_the_same_sequence_exactly_one_wins(bank):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(bank.path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "other")
    ]
    try:
        assert [one.stdout.readline() for one in both] == ["ready\n"] * 2
        for sequence in range(1, 60):
            for one in both:
                one.stdin.write(f"{sequence}\n")
                one.stdin.flush()
            assert sorted(one.stdout.readline() for one in both) == ["lost\n", "won\n"]
            assert bank.sequence == sequence + 1
    finally:
        for one in both:
            one.stdin.close()
            one.wait(10)
            one.stdout.close()
